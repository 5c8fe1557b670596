"""Every call, asked with what its schema allows and what it does not: no fault of ours, answers as described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from starlette.applications import Starlette
from starlette.routing import Mount

from refund.desk.app import PREFIX
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World, fill

EXAMPLES = {"positive": 20, "negative": 15}  # for each call; the same every time
# What an id or a date made up leads to at best, or a file that is no photo; every other call has to succeed at times.
AT_BEST = {
    "POST /api/classify": {415, 422},
    "GET /api/photos/{photo_date}/{photo_id}": {404},
    "GET /api/runs/{run_date}": {404, 422},
    "GET /api/reports/{run_date}": {404, 422},
    "POST /api/alerts/{alert_id}/acknowledge": {404},
    "POST /api/review/decisions": {404, 422},  # 422: of a category made up
    "POST /api/review/undo": {404},
}


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    """A desk with a night, whose uploads end soon and are never too many."""
    fill(shared_world)
    shared_world.night("run-1")
    with desk_in(shared_world, desk_requests_per_minute=100_000, desk_upload_timeout_s=5.0) as made:
        made.sign_in("ana", may_write=True)
        yield made


@pytest.fixture(scope="module")
def schema(desk: DeskWorld) -> Any:
    """The schema as the app gives it out, where Airflow mounts it."""
    import schemathesis

    return schemathesis.openapi.from_asgi(f"{PREFIX}/api/openapi.json", Starlette(routes=[Mount(PREFIX, desk.app)]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of schemathesis and hypothesis
@pytest.mark.parametrize("mode", EXAMPLES)
def test_no_call_fails_and_every_answer_is_as_described(schema: Any, mode: str) -> None:
    from schemathesis import GenerationMode

    faults: list[str] = []
    answered: dict[str, Counter[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses = answered[operation.label] = Counter()
        try:
            _ask(operation, GenerationMode(mode), statuses)
        except Exception as exc:  # noqa: BLE001  (all calls are looked at before the test fails)
            if type(exc).__name__ == "Unsatisfiable" and mode == "negative":  # nothing of it can be wrong
                continue
            faults.append(f"{operation.label}: {_all(exc)}")
    assert faults == []
    assert sum(map(Counter.total, answered.values())) >= 100
    if mode == "positive":  # a part that is down answers 503 to everything, as described
        useless = {label: dict(statuses) for label, statuses in answered.items() if not _useful(label, statuses)}
        assert useless == {}
        assert set(AT_BEST) <= set(answered)


def _ask(operation: Any, mode: Any, statuses: Counter[int]) -> None:
    """Send what its schema allows, or does not, and count what comes."""

    @settings(
        max_examples=EXAMPLES[mode.value],
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        assume("\n" not in unquote(case.formatted_path))  # Starlette mounts nothing there
        statuses[check(case)] += 1

    ask()


def _useful(label: str, statuses: Counter[int]) -> bool:
    return any(200 <= status < 300 or status in AT_BEST.get(label, ()) for status in statuses)


def _all(exc: BaseException) -> str:
    parts = exc.exceptions if isinstance(exc, BaseExceptionGroup) else (exc,)
    return "; ".join(f"{type(part).__name__}: {part}" for part in parts)


def check(case: Any) -> int:
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    response = case.call()
    assert response.status_code < 500 or response.status_code == 503, (case.as_curl_command(), response.text)
    case.validate_response(
        response,
        checks=[
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
            status_code_conformance,
        ],
    )
    if response.status_code >= 400:
        body = response.json()
        assert body["status"] == "error"
        assert body["message"]
        assert body["what_to_do"]
        assert body["request_id"] == response.headers["x-request-id"][0]
    return int(response.status_code)
