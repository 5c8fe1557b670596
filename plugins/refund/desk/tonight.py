"""The page Tonight: what a night came to, who should know of what, its report, earlier nights, and running a date."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from refund.desk.alert_view import alert_view, gravest_first, moment
from refund.desk.auth import DAG_ID, DESK_VIEW, Asking, airflow_root
from refund.desk.dates import asked_date
from refund.desk.night_calendar import WEEKDAYS, month_start, months
from refund.desk.night_view import STATES, night_view
from refund.desk.pages import render
from refund.desk.problems import DeskError
from refund.desk.wiring import DeskDep
from refund.params import EARLIEST_DATE
from refund.report.labels import MADE_UP, count, long_date, short_date, visible
from refund.store.alerts import list_alerts
from refund.store.drift import get_drift
from refund.store.tonight import calendar_days, get_night, get_reconciliation, night_span

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.store.tonight import NightRow

router = APIRouter(include_in_schema=False)

MONTHS_SHOWN = 2
OPEN_ALERTS_SHOWN = 50
RUNS_SHOWN = 8
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_LAST_MONTH = date(9999, 11, 1)  # there is no first day of the one after next


@router.get("/tonight")
def tonight(
    request: Request,
    visitor: Asking,
    desk: DeskDep,
    asked: Annotated[str | None, Query(alias="date")] = None,
    month: str | None = None,
) -> HTMLResponse:
    """The newest night, or the one of ``date``; the calendar up to ``month`` (YYYY-MM)."""
    services = desk.services
    today = services.now().date()
    asked_for = asked_date(asked, name="date") if asked else None
    oldest, newest = night_span(services.database) or (None, None)
    day = asked_for or newest
    return render(
        request,
        "tonight.html.j2",
        title="Tonight" if day in (None, newest) else f"Night of {long_date(day)}",
        visitor=visitor,
        newest=newest,
        day=day,
        today=today,
        earliest=EARLIEST_DATE,
        run_date=asked_for or today - timedelta(days=1),
        dag=f"{airflow_root(request)}/dags/{DAG_ID}",
        dag_id=DAG_ID,
        desk_view=DESK_VIEW,
        made_up=MADE_UP,
        long_date=long_date,
        short_date=short_date,
        moment=moment,
        count=count,
        visible=visible,
        quote=lambda text: quote(text, safe=""),
        states=STATES,
        **_night(services, day, today=today),
        **_alerts(services, day),
        **_calendar(services, day, today=today, month=_month(month), begun=oldest),
    )


def _night(services: Services, day: date | None, *, today: date) -> dict[str, Any]:
    if day is None:
        return {"view": None, "runs": (), "last_complete": None}
    night = get_night(services.database, day)
    report, sums, drift = _published(services, night)
    view = night_view(night, today=today, report=report, sums=sums, drift=drift)
    return {"view": view, "runs": night.runs[:RUNS_SHOWN], "last_complete": night.last_complete}


def _published(services: Services, night: NightRow) -> tuple[Any, Any, Any]:
    """Report, counts and drift of the run whose figures are the night's; nothing where none is published."""
    if night.published is None:
        return None, None, ()
    run_id = night.published.run_id
    report = services.repository.get_report(run_date=night.run_date)
    drift = get_drift(services.database, report.run_id if report else run_id)
    sums = None if report else get_reconciliation(services.database, run_id)
    return report.body if report else None, sums, drift


def _alerts(services: Services, day: date | None) -> dict[str, Any]:
    found = list_alerts(services.database, limit=OPEN_ALERTS_SHOWN + 1)
    of_night = list_alerts(services.database, acknowledged=True, run_date=day) if day else []
    return {
        "alerts": [alert_view(row) for row in gravest_first([row for row in of_night if row.acknowledged_at is None])],
        "taken": [alert_view(row) for row in of_night if row.acknowledged_at is not None],
        "others": [alert_view(row) for row in gravest_first(found[:OPEN_ALERTS_SHOWN]) if row.run_date != day],
        "more_alerts": len(found) > OPEN_ALERTS_SHOWN,
    }


def _calendar(
    services: Services, day: date | None, *, today: date, month: date | None, begun: date | None
) -> dict[str, Any]:
    last = min(month or month_start(day or today), _LAST_MONTH)
    first = month_start(last, MONTHS_SHOWN - 1)
    days = calendar_days(services.database, first=first, last=month_start(last, -1) - timedelta(days=1))
    laid_out = months(days, last=last, number=MONTHS_SHOWN, today=today, shown=day, begun=begun)
    return {
        "months": laid_out,
        "any_made_up": any(each.synthetic for each in days),
        "weekdays": WEEKDAYS,
        "month_before": f"{month_start(last, 1):%Y-%m}",
        "month_after": f"{month_start(last, -1):%Y-%m}" if month_start(last, -1) <= today else None,
    }


def _month(text: str | None) -> date | None:
    if text is None:
        return None
    if not _MONTH.fullmatch(text):
        raise DeskError(
            status=422,
            error="invalid",
            message=f"month: expected YYYY-MM, for example 2026-11; got {visible(text)!r}",
            what_to_do="Give a month as YYYY-MM.",
        )
    return asked_date(f"{text}-01", name="month")
