"""The morning report out of the bucket: given out as it lies there, harmless, and missed clearly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from refund.desk.report_pages import REPORT_POLICY
from refund.store.database import Database
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World, fill

PAGE, TABLE = "/reports/2026-11-21/page", "/reports/2026-11-21/table.csv"
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    fill(shared_world, 4)
    shared_world.night("run-1")
    with desk_in(shared_world) as made:
        yield made


@pytest.fixture
def report(desk: DeskWorld) -> Iterator[Any]:
    """The report's row; its files are put back afterwards."""
    row = desk.services.repository.get_report()
    root = desk.services.objects.uri("")
    keys = [uri.removeprefix(root) for uri in (row.html_uri, row.csv_uri)]
    kept = {key: desk.services.objects.get(key) for key in keys}
    yield row
    for key, body in kept.items():
        desk.services.objects.put(key, body)


def test_the_page_is_the_object_and_may_do_nothing_but_be_looked_at(desk: DeskWorld, report: Any) -> None:
    answer = desk.sign_in("ana").get(PAGE)
    key = report.html_uri.removeprefix(desk.services.objects.uri(""))
    assert answer.status_code == 200
    assert answer.content == desk.services.objects.get(key)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == REPORT_POLICY
    assert "script-src" not in REPORT_POLICY
    assert REPORT_POLICY.startswith("default-src 'none'; ")
    assert REPORT_POLICY.endswith("; sandbox")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_the_table_is_a_download(desk: DeskWorld) -> None:
    answer = desk.sign_in("ana").get(TABLE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="refund-2026-11-21.csv"'
    assert answer.text.startswith("run_date,run_id,section,name,measure,value\r\n")


def test_a_report_that_is_gone_is_told_as_a_page_that_fits_the_frame_and_as_json(desk: DeskWorld, report: Any) -> None:
    for uri in (report.html_uri, report.csv_uri):
        desk.services.objects.delete(uri.removeprefix(desk.services.objects.uri("")))
    client = desk.sign_in("ana")
    answer = client.get(PAGE, headers=HTML)
    assert answer.status_code == 404
    assert answer.headers["content-security-policy"] == REPORT_POLICY
    assert "<nav" not in answer.text
    assert f"The report of the night of 2026-11-21 is not in the bucket any more: {report.html_uri}." in answer.text
    assert "Clear the task generate_report of the run run-1 in Airflow: it writes the report anew." in answer.text
    for path in (PAGE, TABLE):
        told = client.get(path, headers={"accept": "application/json"})
        assert (told.status_code, told.json()["error"]) == (404, "report_gone")


def test_a_night_without_a_report_and_what_is_no_date(desk: DeskWorld) -> None:
    client = desk.sign_in("ana")
    answer = client.get("/reports/2026-11-20/table.csv", headers={"accept": "*/*"})
    assert answer.status_code == 404
    assert answer.json()["error"] == "no_report"
    assert answer.json()["message"] == "There is no report of the night of 2026-11-20."
    answer = client.get("/reports/2026-11-20/page", headers=HTML)
    assert answer.status_code == 404
    assert "There is no report of the night of 2026-11-20." in answer.text
    answer = client.get("/reports/<b>/page", headers=HTML)
    assert answer.status_code == 422
    assert "run_date: run date must read YYYY-MM-DD" in answer.text
    assert "<b>" not in answer.text


def test_a_report_of_another_bucket_is_not_fetched(desk: DeskWorld, report: Any) -> None:
    def lies_at(uri: str) -> None:
        with Database(desk.world.roles.app).connect() as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE refund.report SET html_uri = %s", (uri,))

    lies_at("s3://elsewhere/reports/x.html")
    try:
        answer = desk.sign_in("ana").get(PAGE)
    finally:
        lies_at(report.html_uri)
    assert answer.status_code == 404
    assert answer.json()["error"] == "report_elsewhere"
    bucket = desk.services.objects.bucket
    assert answer.json()["message"] == (
        f"The report of the night of 2026-11-21 lies at s3://elsewhere/reports/x.html, not in the bucket {bucket}."
    )
