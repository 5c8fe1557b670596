"""Reads dates that people put into addresses and fields."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from pydantic import BeforeValidator

from refund.desk.problems import DeskError
from refund.errors import SettingsError
from refund.params import parse_run_date

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _iso(value: object) -> object:
    if isinstance(value, date) or (isinstance(value, str) and _ISO_DATE.fullmatch(value)):
        return value
    expected = "expected a date as YYYY-MM-DD, for example 2026-11-21"
    raise ValueError(expected)  # pydantic would take 20261121 for seconds since 1970


IsoDate = Annotated[date, BeforeValidator(_iso)]  # of a photo's folder, so 1970-01-01, undated, is one, too


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
