"""Reads dates that people put into addresses and fields."""

from __future__ import annotations

from datetime import date

from refund.desk.problems import DeskError
from refund.errors import SettingsError
from refund.params import parse_run_date


def asked_date(text: str, *, name: str) -> date:
    """A night's date, as `refund.params.parse_run_date` takes it.

    Raises:
        DeskError: 422, ``text`` is none.
    """
    try:
        return parse_run_date(text)
    except SettingsError as exc:
        raise DeskError(
            status=422,
            error="invalid",
            message=f"{name}: {exc}",
            what_to_do="Give a date as YYYY-MM-DD, for example 2026-11-21.",
        ) from exc
