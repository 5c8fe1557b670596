"""``refund requeue`` as people run it: what it prints, what it ends with, what it tells one to do next."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from hashlib import md5
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refund.cli import main
from refund.cli import requeue as module
from refund.cli.app import app
from refund.cli.requeue import next_step
from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from refund.store.objects import ObjectStore
from tests.conftest import Roles, make_bucket
from tests.store.factories import Photo, night, register_models, rows

DAY = date(2026, 11, 21)
BODY = b"a photo"
ETAG = md5(BODY, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def objects(s3_moto: S3Access) -> ObjectStore:
    access = replace(s3_moto, bucket="requeue-cli")
    make_bucket(access)
    return ObjectStore(access)


@pytest.fixture(scope="module")
def rejects(database: Roles, objects: ObjectStore) -> Roles:
    """Three photos that a night rejected as too_large, one of them five days late; none lies in the bucket."""
    register_models(database)
    late = DAY - timedelta(days=5)
    photos = [
        Photo(key=f"incoming/{DAY}/R-1/a.jpg", etag=ETAG, reason="too_large"),
        Photo(key=f"incoming/{DAY}/R-1/[b].jpg", etag=ETAG, reason="too_large"),
        Photo(key=f"incoming/{late}/R-2/c.jpg", etag=ETAG, reason="too_large", day=late),
    ]
    night(database.app, "night-1", *photos, run_date=DAY)
    rows(database.app, "UPDATE refund.photo SET bucket = %s, size_bytes = %s RETURNING key", objects.bucket, len(BODY))
    return database


@pytest.fixture(autouse=True)
def access(rejects: Roles, objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reaches this module's stores; which ones it reaches otherwise is `find_access`'s affair."""

    @contextmanager
    def services() -> Iterator[Services]:
        with open_services(settings=Settings(), s3=objects.access, database=rejects.app) as opened:
            yield opened

    monkeypatch.setattr(module, "command_services", services)
    monkeypatch.setenv("REFUND_HOME", str(tmp_path))
    (tmp_path / "stack.json").write_text("{}")


def invoke(*arguments: str, code: int = 0) -> Result:
    answer = CliRunner().invoke(app, ["requeue", "--date", str(DAY), *arguments])
    assert answer.exit_code == code, answer.output
    return answer


def test_it_says_what_became_of_each_and_what_to_do_next(objects: ObjectStore) -> None:
    there, gone, late = f"incoming/{DAY}/R-1/a.jpg", f"incoming/{DAY}/R-1/[b].jpg", "incoming/2026-11-16/R-2/c.jpg"
    objects.put(there, BODY)
    objects.put(f"quarantine/{late}", BODY)
    dry = invoke("--reason", "too_large", "--dry-run", code=1).output
    assert dry.startswith("3 rejected as too_large by the night of 2026-11-21: 2 would be put back (1 of them from")
    first = " ".join(invoke("--reason", "too_large", code=1).output.split())
    assert first == (
        "3 rejected as too_large by the night of 2026-11-21: 2 put back (1 of them from quarantine), 0 put back "
        f"before, 1 lost lost: {gone}: neither under its key nor in quarantine; upload it again "
        "Next: refund night --date 2026-11-21 --param late_days=5"
    )
    objects.put(gone, b"other bytes")
    done = json.loads(invoke("--reason", "too_large", "--json").output)
    assert {name: done[name] for name in ("reason", "run_date", "dry_run", "found", "already", "put_back")} == {
        "reason": "too_large", "run_date": "2026-11-21", "dry_run": False, "found": 3, "already": 2, "put_back": 0,
    }  # fmt: skip
    assert (done["overwritten"], done["next_runs"]) == ([gone], [{"run_date": "2026-11-21", "late_days": 5}])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--reason", "huge", "--date", "2026-11-21"],
            "SettingsError: 'huge' is no reason code; expected one of empty",
        ),
        (["--reason", "corrupt", "--date", "21.11.2026"], "SettingsError: run date must read YYYY-MM-DD"),
        (["--reason", "corrupt", "--date", "2026-11-21"], "standing there: 3 too_large. Expected --reason and --date"),
        (["--reason", "corrupt", "--date", "2026-11-16"], "standing there: none. Expected --date as the run date, not"),
    ],
)
def test_what_cannot_be_put_back_is_exit_code_3_with_the_text(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["refund", "requeue", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    assert text in " ".join(capsys.readouterr().err.split())


def test_the_next_step_can_be_typed_or_entered_in_airflow() -> None:
    params = {"run_date": "2026-11-21", "prefix": "two words/", "late_days": 5}
    assert next_step(params, local=True) == (
        "refund night --date 2026-11-21 --param 'prefix=two words/' --param late_days=5"
    )
    assert next_step(params, local=False) == (
        "trigger refund_nightly with run_date=2026-11-21, prefix=two words/, late_days=5"
    )
