"""``refund review`` and ``refund quality``, as people run them, on a database with a few published photos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refund.cli import reviews
from refund.cli.app import app
from refund.errors import ReviewImportError
from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from tests.conftest import Roles
from tests.lifecycle.test_reviews import fill_in
from tests.store.factories import MODEL, Photo, night, register_models, rows

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
QUEUED = Photo(key="incoming/2026-11-21/R-1/queued.jpg", kind="review", reasons=("low_score",), score=0.3)
DRAWN = Photo(key="incoming/2026-11-21/R-2/drawn.jpg", refund_id="R-2")


@pytest.fixture(scope="module")
def night_of_two(database: Roles) -> Roles:
    register_models(database)
    night(database.app, "night-1", QUEUED, DRAWN, run_date=YESTERDAY, audit_share=1.0)
    return database


@pytest.fixture(autouse=True)
def access(night_of_two: Roles, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands reach this module's database; which one they reach otherwise is `find_access`'s affair."""

    @contextmanager
    def services() -> Iterator[Services]:
        with open_services(settings=Settings(), s3=S3Access(bucket="b"), database=night_of_two.app) as opened:
            yield opened

    monkeypatch.setattr(reviews, "command_services", services)
    return


def invoke(*arguments: str | Path, code: int = 0) -> Result:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == code, answer.output
    return answer


def test_the_whole_round_without_a_web_page(night_of_two: Roles, tmp_path: Path) -> None:
    empty = invoke("quality", "--week-ending", "2020-01-05", code=1)
    assert empty.output.strip() == "No decisions in the 7 days to 2020-01-05: no night with photos was published"
    calm = " ".join(invoke("quality").output.split())
    assert calm.startswith(f"{MODEL}, 7 days to {YESTERDAY}: insufficient_data. Nothing can be said yet: no review of")

    shown = invoke("review", "queue").output
    assert "queued.jpg" in shown
    assert "low_score" in shown
    audits = invoke("review", "queue", "--audit").output
    assert "drawn.jpg" in audits
    assert "shoes" not in audits

    for kind, category in (("--audit", "shoes"), (None, "clothing")):
        path = tmp_path / f"{category}.csv"
        written = invoke("review", "queue", *([kind] if kind else []), "--csv", path).output
        assert " ".join(written.split()) == (
            f"1 row in {path}; fill in category and reviewed_by, then: refund review import"
        )
        fill_in(path, category)
        dry = invoke("review", "import", path, "--dry-run").output
        assert dry.startswith("1 would be added (")
        done = json.loads(invoke("review", "import", path, "--json").output)
        assert done == {
            "added": 1, "chosen_by": {"audit" if kind else "queue": 1}, "known": 0, "blank": 0, "dry_run": False,
        }  # fmt: skip
        assert invoke("review", "import", path).output.strip() == "0 added, 1 there already, 0 without a category"
    assert invoke("review", "queue").output.strip() == "No photo waits for a person"
    assert invoke("review", "queue", "--audit").output.strip() == "No audit waits"

    (row,) = json.loads(invoke("quality", "--json", code=1).output)  # both reviewed, one wrong: 50 % is low
    assert (row["status"], row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == ("low", 0.5, 0.5, 0.5)
    assert rows(night_of_two.app, "SELECT count(*) FROM refund.quality") == [(0,)]  # it only looks
    assert rows(night_of_two.app, "SELECT count(*) FROM refund.alert") == [(0,)]


def test_a_file_at_fault_is_an_error_with_every_line(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    path.write_text("key,category,reviewed_by\nnone.jpg,shoes,anna\nnone.jpg,schoes,anna\n")
    answer = CliRunner().invoke(app, ["review", "import", str(path)])
    assert isinstance(answer.exception, ReviewImportError)
    assert answer.exception.count == 2
    assert [fault.partition(":")[0] for fault in answer.exception.faults] == ["line 2", "line 3"]
