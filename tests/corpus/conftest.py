"""The stores of a night, for the corpus."""

from __future__ import annotations

from tests.night.conftest import world  # noqa: F401  (a fixture)
