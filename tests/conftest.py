"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and weights beside the checkout; tests that need it skip where it is missing."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "images").is_dir():
        pytest.skip("../shared is not there: photographs and weights for tests lie beside the checkout, not in it")
    return folder
