"""The DAGs of the lifecycle: light to parse, typed forms, and tasks that do what the command line does."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refund import airflow_glue
from refund.model_params import ACTIONS, ModelParams
from refund.night.services import Services
from refund.store.database import Database
from tests.conftest import REPOSITORY, Roles
from tests.lifecycle.conftest import bucket as bucket  # fixtures
from tests.lifecycle.conftest import services as services
from tests.lifecycle.test_promote import evaluate
from tests.night.factories import write_model
from tests.test_plugin import HEAVY, run_python

PARSE = """
import json, sys
sys.path.insert(0, {dags!r})
import airflow.sdk
import refund_model
dag = refund_model.refund_model()
print(json.dumps({{"heavy": [name for name in {heavy!r} if name in sys.modules], "tasks": sorted(dag.task_dict),
                  "params": dag.params.dump(), "scheduled": dag.timetable.can_be_scheduled,
                  "retries": [task.retries for task in dag.tasks]}}))
"""


@pytest.fixture(autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An Airflow home of these tests' own: importing Airflow writes a configuration file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield


def test_parsing_refund_model_loads_nothing_heavy_and_gives_a_form(tmp_path: Path) -> None:
    parsed = run_python(
        PARSE.format(dags=str(REPOSITORY / "dags"), heavy=HEAVY), home=tmp_path, plugins_folder=tmp_path
    )
    assert parsed["heavy"] == []
    assert (parsed["tasks"], parsed["retries"], parsed["scheduled"]) == (["act"], [0], False)
    assert parsed["params"] == {
        entry["name"]: list(entry["default"]) if isinstance(entry["default"], tuple) else entry["default"]
        for entry in ModelParams.describe()
    }


def test_the_form_of_refund_model_is_typed_and_offers_what_there_is_to_choose() -> None:
    form = airflow_glue.trigger_form(ModelParams)
    schemas = {name: param.schema for name, param in form.items()}
    assert schemas["action"] == {"type": "string", "enum": list(ACTIONS)}
    assert schemas["alias"] == {"type": "string", "enum": ["champion", "challenger"]}
    assert schemas["override"] == {"type": "boolean"}
    assert schemas["input_px"] == {"type": "integer", "enum": [96, 128, 160, 192, 224]}
    assert schemas["alpha"] == {"type": "number", "enum": [0.35, 0.5, 0.75, 1.0, 1.3, 1.4]}
    assert schemas["threshold"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert schemas["model"] == schemas["reason"] == schemas["labels"] == {"type": ["null", "string"]}
    for name, param in form.items():
        assert param.description, name
        assert param.resolve() == getattr(ModelParams(), name)


@pytest.fixture
def connections(services: Services, database: Roles) -> Iterator[dict[str, str]]:
    """The environment of a worker that reaches the stores; no model is left in them."""
    s3, app = services.objects.access, database.app
    extra = {
        "endpoint_url": s3.endpoint_url,
        "region_name": s3.region,
        "service_config": {"s3": {"bucket_name": s3.bucket}},
    }
    access = {
        "S3": {"conn_type": "aws", "login": s3.access_key, "password": s3.secret_key, "extra": extra},
        "DB": {
            "conn_type": "postgres",
            "host": app.host,
            "port": app.port,
            "schema": app.database,
            "login": app.user,
            "password": app.password,
        },
    }
    environ = {f"AIRFLOW_CONN_REFUND_{name}": json.dumps(fields) for name, fields in access.items()}
    environ |= {"REFUND_CACHE_DIR": services.settings.cache_dir, "REFUND_STAGING_ROOT": services.settings.staging_root}
    yield environ
    with Database(database.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # past the trigger that lets nobody do this
        cursor.execute("TRUNCATE refund.model CASCADE")


@pytest.fixture
def act(connections: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task of ``refund_model``, given connections and a context as a worker has them; answers what it returns."""
    import airflow.sdk

    for name, value in connections.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(REPOSITORY / "dags"))
    import refund_model

    task = refund_model.refund_model().get_task("act")

    def run(user: str | None = "oncall", run_id: str = "", **params: Any) -> Any:
        form = {entry["name"]: entry["default"] for entry in ModelParams.describe()} | params
        context = {
            "params": form,
            "dag_run": SimpleNamespace(
                dag_id="refund_model", run_id=run_id or secrets.token_hex(4), triggering_user_name=user
            ),
        }
        monkeypatch.setattr(airflow.sdk, "get_current_context", lambda: context)
        return task.python_callable()

    return run


@pytest.fixture
def two(services: Services, tmp_path: Path) -> tuple[str, str]:
    """A champion and an equal candidate, both evaluated."""
    for name in ("old", "new"):
        write_model(tmp_path / name, name=name)
        services.registry.register(tmp_path / name, created_by="ada")
        evaluate(services, f"{name}@1", wrong=range(20))
    services.registry.promote("champion", "old@1", by="ada", reason="first")
    return "old@1", "new@1"


def test_a_run_promotes_and_another_rolls_back_in_the_name_of_who_triggered_it(
    act: Any, services: Services, two: tuple[str, str]
) -> None:
    promoted = act(action="promote", model="new@1", reason="as good, smaller")
    assert (promoted["model"], promoted["before"], promoted["changed"]) == ("new@1", "old@1", True)
    json.dumps(promoted)  # goes through XCom
    assert services.registry.resolve("champion").model == "new@1"
    back = act(action="rollback", reason="bags go wrong", user=None, run_id="manual 7")
    assert (back["model"], back["before"]) == ("old@1", "new@1")
    again = act(action="rollback", reason="bags go wrong", user=None, run_id="manual 7")  # cleared
    assert (again["model"], again["changed"]) == ("old@1", False)
    assert [(change.action, change.by) for change in services.registry.history("champion")] == [
        ("promote", "ada"),
        ("promote", "oncall"),
        ("rollback", "airflow:refund_model"),
    ]


def test_a_refused_promotion_fails_the_task_for_good(act: Any, services: Services, two: tuple[str, str]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    evaluate(services, "new@1", wrong=range(60))
    with pytest.raises(AirflowFailException, match=r"^PromotionRefusedError: new@1 does not become champion in the"):
        act(action="promote", model="new@1", reason="newer")
    assert act(action="promote", model="new@1", reason="it must be", override=True)["override"]
    with pytest.raises(AirflowFailException, match=r"^SettingsError: rollback needs reason, which is empty; give it"):
        act(action="rollback")


def test_a_run_looks_at_models_and_changes_nothing(act: Any, services: Services, two: tuple[str, str]) -> None:
    before = services.registry.history()
    assert [(row["model"], row["aliases"]) for row in act(action="list")["models"]] == [
        (row.model, list(row.aliases)) for row in services.registry.list()
    ]
    assert (act(action="show")["name"], act(action="show", model="new@1")["name"]) == ("old", "new")
    differs = act(action="diff", model="new@1")
    assert (differs["first"], differs["second"], differs["fields"]["name"]) == ("new@1", "old@1", ["new", "old"])
    assert differs["comparison"]["paired"]["photos"] == 200
    assert act(action="diff", model="old@1", other="old@1")["fields"] == {}
    [first] = act(action="history")["changes"]
    assert (first["model"], first["by"], first["reason"]) == ("old@1", "ada", "first")
    assert act(action="history", alias="challenger") == {"changes": []}
    json.dumps([act(action="list"), differs, first])  # go through XCom
    assert services.registry.history() == before


@pytest.mark.slow
def test_a_run_imports_verifies_and_retires(act: Any, services: Services, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    write_model(tmp_path / "unit", name="outside")
    assert act(action="import", source=str(tmp_path / "unit")) == {"model": "outside@1"}
    assert act() == {"sound": ["outside@1"]}
    uri = services.objects.uri("models/outside/1/model.tflite")
    services.objects.delete("models/outside/1/model.tflite")
    with pytest.raises(AirflowFailException) as caught:
        act(action="verify", model="outside@1")
    assert str(caught.value) == (
        f"ModelArtefactError: outside@1, of 1 checked, not as registered:\n  {uri} of model outside@1 is missing; "
        f"put it back, or build and register the model again: refund model build"
    )
    assert act(action="retire", model="outside@1", reason="lost") == {"model": "outside@1", "changed": True}


@pytest.mark.slow
def test_a_run_builds_and_evaluates(act: Any, services: Services, shared: Path) -> None:
    built = act(action="build", weights=str(shared / "models" / "mobilenet_v2_standin.h5"))
    assert (built["registered"], built["champion"]) == ([built["model"]], None)  # only a candidate
    figures = act(action="evaluate", model=built["model"], labels=str(shared / "images" / "imagenet"))
    assert figures["photos"] == 250
    assert figures["accuracy"] > 0.88
    json.dumps([built, figures])
    assert services.registry.resolve(built["model"]).accuracy == figures["accuracy"]
    assert act(action="promote", model=built["model"], reason="first")["changed"]


RUN = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
for name, conf in json.loads(sys.argv[2]):
    try:
        run = getattr(importlib.import_module(name), name)().test(run_conf=conf, logical_date=None)
        print("ANSWER", json.dumps(str(run.state)))
    except Exception as exc:
        print("ANSWER", json.dumps(f"{type(exc).__name__}: {exc}".splitlines()[0]))
"""


@pytest.mark.slow
def test_both_dags_run_in_airflow_and_the_form_is_checked_before(
    connections: dict[str, str], services: Services, two: tuple[str, str], tmp_path: Path
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REFUND"))}
    environ = {
        **clean,
        **connections,
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], env=environ, capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("-m", "airflow", "db", "migrate")
    run("-m", "airflow", "dags", "reserialize")
    asked = [
        ("refund_model", {"action": "promote", "model": "new@1", "reason": "as good, smaller"}),
        ("refund_model", {"action": "rollback", "reason": "bags go wrong"}),
        ("refund_model", {"action": "rollback", "reason": "once more"}),
        ("refund_model", {"action": "explode"}),
        ("refund_model", {}),
        ("refund_quality", {}),
        ("refund_quality", {"week_ending": "2026-11-15"}),
    ]
    lines = run("-c", RUN, str(REPOSITORY / "dags"), json.dumps(asked)).splitlines()
    answers = [json.loads(line.removeprefix("ANSWER ")) for line in lines if line.startswith("ANSWER ")]
    assert answers[:3] == ["success", "success", "failed"]
    assert answers[3].startswith("ParamValidationError: "), answers[3]
    assert answers[4:] == ["success", "success", "success"]
    assert [(change.action, change.model, change.by) for change in services.registry.history("champion")[1:]] == [
        ("promote", "new@1", "dag_test"),
        ("rollback", "old@1", "dag_test"),
    ]
