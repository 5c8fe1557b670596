"""Finds the files of ``include/``, wherever the package runs from: a wheel, a checkout or a mounted plugins folder."""

from __future__ import annotations

from pathlib import Path

from refund.errors import ConfigurationError


def include_path(name: str) -> Path:
    """The path of a file that ships in ``include/``, for example ``taxonomy.csv``.

    Raises:
        ConfigurationError: it is in none of the places an installation has it.
    """
    package = Path(__file__).resolve().parent
    candidates = [package / "include" / name, package.parents[1] / "include" / name]  # wheel; checkout or mount
    for candidate in candidates:
        if candidate.exists():
            return candidate
    msg = (
        f"include/{name} is missing; looked at {' and '.join(map(str, candidates))}. Reinstall the wheel, or mount "
        f"the project's include/ folder beside plugins/"
    )
    raise ConfigurationError(msg)
