"""docs/api.md on a live Airflow: with a token that it gave, through its own server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from refund.local import stack
from refund.local.ports import Ports
from refund.local.samples import write_samples
from tests.conftest import REPOSITORY
from tests.desk.api_doc import DATE, PAGE, Call, Session, difference, documented
from tests.e2e.driver import DAG, Driver, await_that, make_champion
from tests.local.live import start, temporary_home
from tests.postgres import free_port

NIGHT = "2026-03-10"  # not the page's date: the scheduled night of yesterday may look at that one too, for late photos


@pytest.fixture
def driver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A stack of this test alone, with the night of the page: of other nights other photos would wait for review."""
    name = "standin_model" if (REPOSITORY.parent / "shared" / "images").is_dir() else "fallback_model"
    model = request.getfixturevalue(name)
    write_samples(tmp_path)
    for number in range(12):  # enough for an alert
        folder = tmp_path / f"R-20{number:02}"
        folder.mkdir()
        (folder / "note.jpg").write_bytes(b"no photo, only a note %d" % number)
    with temporary_home() as home:
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        start(home, ports=ports, dags_folder=REPOSITORY / "dags")
        made = make_champion(home, model)
        made.refund("upload", tmp_path, "--date", NIGHT)
        made.refund("night", "--date", NIGHT, "--param", "review_threshold=0.9")
        await_that(lambda: _published(made))  # not --wait: a busy machine's Airflow may miss its patience
        yield made
        made.close()


def _published(made: Driver) -> bool:
    runs = made.api("GET", f"{DAG}/dagRuns", params={"run_type": "manual"})["dag_runs"]
    assert [run for run in runs if run["state"] == "failed"] == []
    return [run["state"] for run in runs] == ["success"]


@pytest.mark.slow
@pytest.mark.live
def test_every_command_of_the_page_works_with_a_token_of_airflow(driver: Driver, tmp_path: Path) -> None:
    access = stack.access(driver.home)
    files = {"cup.jpg": tmp_path / "R-1001/cup.jpg", "notes.jpg": tmp_path / "R-1011/notes.jpg"}
    with httpx.Client(timeout=120, trust_env=False) as client:

        def send(call: Call) -> tuple[int, str]:
            answer = client.request(
                call.method,
                call.url,
                headers=call.headers,
                content=call.body,
                data=dict(call.form) if call.files else None,
                files=[(name, (path, files[path].read_bytes(), "image/jpeg")) for name, path in call.files] or None,
            )
            return answer.status_code, answer.text

        session = Session(send, {"AIRFLOW": access.airflow_url.rstrip("/"), "PASSWORD": access.airflow_password})
        faults = []
        for step in documented(PAGE.read_text(encoding="utf-8")):
            command = step.command.replace('"username": "ana"', f'"username": "{access.airflow_user}"')
            printed = session.run(command.replace(DATE, NIGHT))
            shown = "\n".join(step.lines).strip()
            if printed is not None and (fault := difference(shown, printed, strict=False)):
                faults.append(f"{step.command}\n  {fault}")
    assert faults == []
