"""The services' environment file, and programs that never end; nothing is started here."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from refund.errors import StackError
from refund.local import airflow_service, postgres, stack
from refund.local.paths import StackPaths


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    made = StackPaths(home=tmp_path / ".refund")
    made.create()
    return made


def test_the_environment_is_private_and_gone_after_down(paths: StackPaths) -> None:
    programs = airflow_service.programs(paths, port=1, environ={"AIRFLOW__CORE__FERNET_KEY": "k"})
    file = Path(next(word for word in programs[0].command if word.endswith(".json")))
    assert json.loads(file.read_text()) == {"AIRFLOW__CORE__FERNET_KEY": "k"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stack.down(paths.home) == []
    assert not file.exists()
    assert stack.down(paths.home) == []


def test_a_migration_that_hangs_is_ended(paths: StackPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_service, "_MIGRATION_TIMEOUT_S", 0.05)
    with pytest.raises(StackError, match=r"airflow db migrate did not end within 0 s; run refund down and refund up"):
        airflow_service.migrate_database(paths, environ={"AIRFLOW_HOME": str(paths.airflow)})


def test_a_program_of_postgres_that_hangs_is_ended() -> None:
    with pytest.raises(StackError) as caught:
        postgres._run(["sleep", "60"], user=None, mark={}, timeout_s=0.05)
    assert str(caught.value) == "sleep did not end within 0 s; is the disk well? Then: refund up"
