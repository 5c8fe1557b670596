"""The morning report as it lies in the bucket: its page, to be shown in a frame, and its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from refund.desk.dates import asked_date
from refund.desk.pages import render, wants_page
from refund.desk.problems import DeskError, as_desk_error
from refund.desk.wiring import DeskDep
from refund.errors import ReasonCode, RefundError, RejectedPhotoError

if TYPE_CHECKING:
    from datetime import date

    from refund.desk.wiring import Desk

router = APIRouter(prefix="/reports", include_in_schema=False)

# The report is one file with its style, drawings and pictures inside, and without any script. Were there one, by way of
# a file name, it would not run; and as the page belongs to no site, it could not ask the desk for anything either.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox"
)
_HEADERS = {"Content-Security-Policy": REPORT_POLICY}


@router.get("/{run_date}/page")
def page(request: Request, desk: DeskDep, run_date: str) -> Response:
    """The report of a night; what is wrong is said in a page that fits the frame."""
    try:
        body = _read(desk, asked_date(run_date, name="run_date"), table=False)
    except (DeskError, RefundError) as exc:
        if not wants_page(request):
            raise
        problem = as_desk_error(exc)
        answer = render(
            request,
            "report_problem.html.j2",
            title="No report to show",
            visitor=None,
            status=problem.status,
            problem=problem,
            request_id=request.state.request_id,
        )
        answer.headers.update(_HEADERS)
        return answer
    return HTMLResponse(body, headers=_HEADERS)


@router.get("/{run_date}/table.csv")
def table(desk: DeskDep, run_date: str) -> Response:
    """The report's figures as a table, to download."""
    day = asked_date(run_date, name="run_date")
    name = f"refund-{day.isoformat()}.csv"
    return Response(
        _read(desk, day, table=True),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _read(desk: Desk, day: date, *, table: bool) -> bytes:
    """The object's bytes.

    Raises:
        DeskError: 404, the night has no report, or its file is not in the bucket any more.
    """
    services = desk.services
    row = services.repository.get_report(run_date=day)
    if row is None:
        raise DeskError(
            status=404,
            error="no_report",
            message=f"There is no report of the night of {day}.",
            what_to_do="The page Tonight shows which nights were published; a night is run from there, too.",
        )
    uri = row.csv_uri if table else row.html_uri
    root = services.objects.uri("")
    again = f"Clear the task generate_report of the run {row.run_id} in Airflow: it writes the report anew."
    if not uri.startswith(root):
        raise DeskError(
            status=404,
            error="report_elsewhere",
            message=f"The report of the night of {day} lies at {uri}, not in the bucket {services.objects.bucket}.",
            what_to_do=f"Copy it into the bucket. {again}",
        )
    try:
        return services.objects.get(uri.removeprefix(root))
    except RejectedPhotoError as exc:
        if exc.reason is not ReasonCode.VANISHED:
            raise DeskError(
                status=503,
                error="unavailable",
                message=f"The report of the night of {day} cannot be read: {exc.detail}.",
                what_to_do="Try again in a moment; if it goes on, look at the bucket.",
            ) from exc
        raise DeskError(
            status=404,
            error="report_gone",
            message=f"The report of the night of {day} is not in the bucket any more: {uri}.",
            what_to_do=again,
        ) from exc
