"""The page History: filters in a form, what they let through page by page, and the same as a table to download."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from refund.desk import history
from refund.desk.auth import Asking
from refund.desk.history_view import HistoryRow, night_row, trial_row
from refund.desk.pages import render
from refund.desk.problems import DeskError
from refund.desk.readers import ReadersDep
from refund.desk.wiring import DeskDep
from refund.model.taxonomy import DEPARTMENTS
from refund.report.labels import category_label

router = APIRouter()

PAGE_SIZE = 50
LAST_PAGE = history.MOST_ROWS // PAGE_SIZE

_CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "source": (("nights", "Photos of nights"), ("trials", "Tried by hand")),
    "decision": (("auto", "Automatic"), ("review", "Review")),
    "outcome": (("classified", "Classified"), ("rejected", "Rejected")),
    "reviewed": (("true", "By a person"), ("false", "By nobody")),
}
_MOST_CHARACTERS = {"text": 200, "refund_id": 1024, "model": 200, "category": 200, "date_from": 40, "date_to": 40}


@router.get("/history", include_in_schema=False)
def page(request: Request, desk: DeskDep, visitor: Asking, readers: ReadersDep) -> HTMLResponse:
    """Photos of nights, or photos that people tried."""
    given = request.query_params
    values = {name: given.get(name, "").strip() for name in (*_CHOICES, *_MOST_CHARACTERS)}
    values["source"] = values["source"] or "nights"
    number = _page_number(given.get("page", ""))
    found, problem = None, None
    try:
        wanted = history.asked(desk, **_arguments(values))
        values |= {"date_from": wanted.filter.date_from.isoformat(), "date_to": wanted.filter.date_to.isoformat()}
        found = history.show(desk, wanted, readers, page=number, page_size=PAGE_SIZE)
    except DeskError as exc:
        problem = exc
        values |= {name: _day_or_nothing(values[name]) for name in ("date_from", "date_to")}
    query = {name: value for name, value in values.items() if value}
    return render(
        request,
        "history.html.j2",
        title="History",
        visitor=visitor,
        status=problem.status if problem else 200,
        values=values,
        choices=_CHOICES,
        categories=sorted(((name, category_label(name)) for name in DEPARTMENTS), key=lambda pair: pair[1]),
        models=_models(desk, values["model"]),
        problem=problem,
        trials=values["source"] == "trials",
        rows=_rows(desk, visitor, found.items) if found else [],
        first=(number - 1) * PAGE_SIZE + 1,
        number=number,
        earlier=urlencode(query | {"page": number - 1}) if number > 1 else "",
        later=urlencode(query | {"page": number + 1}) if found and found.has_more and number < LAST_PAGE else "",
        cut=bool(found and found.has_more and number >= LAST_PAGE),
        most_rows=history.MOST_ROWS,
        query=urlencode(query),
        narrowed=any(values[name] for name in values if name not in ("source", "date_from", "date_to")),
    )


def _page_number(text: str) -> int:
    """Whatever the address says, a page that there is."""
    return min(max(int(text), 1), LAST_PAGE) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _arguments(values: Mapping[str, str]) -> dict[str, Any]:
    """What the form says, as `refund.desk.history.asked` takes it.

    Raises:
        DeskError: 422, a value is none that its field can have.
    """
    for name, choices in _CHOICES.items():
        known = [choice for choice, _ in choices]
        if values[name] and values[name] not in known:
            raise _invalid(message=f"{name}: {values[name][:60]!r} is none; expected one of {', '.join(known)}.")
    for name, most in _MOST_CHARACTERS.items():
        if len(values[name]) > most or "\x00" in values[name]:
            raise _invalid(message=f"{name}: expected at most {most:,} characters, without NUL.")
    reviewed = {"true": True, "false": False}.get(values["reviewed"])
    return {name: value or None for name, value in values.items()} | {"reviewed": reviewed}


def _invalid(*, message: str) -> DeskError:
    return DeskError(status=422, error="invalid", message=message, what_to_do="Correct the field named.")


def _day_or_nothing(text: str) -> str:
    """What a browser's field for dates takes."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return ""


def _models(desk: DeskDep, chosen: str) -> list[str]:
    """Names to choose from; one that the registry does not know stays chosen all the same."""
    known = [row.model for row in desk.services.registry.list()]
    return known if not chosen or chosen in known else [*known, chosen]


def _rows(desk: DeskDep, visitor: Asking, items: list[Any]) -> list[HistoryRow]:
    rows = []
    for item in items:
        if isinstance(item, history.Trial):
            rows.append(trial_row(item))
            continue
        shown = item.outcome == "classified" and not item.synthetic
        picture = desk.pictures.path(visitor, photo_date=item.photo_date, photo_id=item.photo_id) if shown else ""
        rows.append(night_row(item, picture=picture))
    return rows
