"""Errors by recovery: each class is caused by a test that reads its text, and each branch does what it promises."""

from __future__ import annotations

import ast
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from refund import airflow_glue
from refund.cli.airflow_api import AirflowApi, AirflowUnavailableError
from refund.cli.exit_codes import exit_code
from refund.errors import (
    ConfigurationError,
    FatalRunError,
    ReasonCode,
    RefundError,
    RejectedPhotoError,
    RetriableRunError,
)
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from tests.conftest import REPOSITORY, free_port
from tests.test_docs import error_classes

# --- every class has a test that reads what it says ------------------------------------------------------------------


def caught_by(test: ast.AST, text: str) -> Iterator[str]:
    """The names of the classes whose text a test reads; ``text`` is its source.

    That is ``pytest.raises(Class, match=…)``, or ``pytest.raises(Class) as caught`` with ``str(caught.value)`` or an
    f-string of it later in the test. `Class` may be a tuple.
    """
    for node in ast.walk(test):
        for item in node.items if isinstance(node, ast.With) else ():
            call = item.context_expr
            if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.raises" and call.args):
                continue
            name = item.optional_vars.id if isinstance(item.optional_vars, ast.Name) else None
            reads = name is not None and (f"str({name}.value)" in text or f"{{{name}.value}}" in text)
            if reads or any(keyword.arg == "match" for keyword in call.keywords):
                yield from (part.id for part in ast.walk(call.args[0]) if isinstance(part, ast.Name))


def raised_here(test: ast.AST) -> set[str]:
    """Classes that the test itself builds: what it reads there it wrote there."""
    built = (node.exc for node in ast.walk(test) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call))
    return {ast.unparse(call.func) for call in built}


def test_every_error_class_is_caused_by_a_test_that_reads_its_text() -> None:
    read: set[str] = set()
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef):
                continue
            text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            # a test, or what its tests call to have the text
            if "pytest.raises" in text and (node.name.startswith("test_") or source.count(f"{node.name}(") > 1):
                read |= set(caught_by(node, text)) - raised_here(node)
    assert sorted(set(error_classes()) - read) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def test(): \n with pytest.raises(AError, match='x'): f()", {"AError"}),
        ("def test(): \n with pytest.raises((AError, BError)) as e: f()\n f(str(e.value))", {"AError", "BError"}),
        ("def test(): \n with a, pytest.raises(AError) as e: f()\n assert f'{e.value}' == 'x'", {"AError"}),
        ("def test(): \n with pytest.raises(AError): f()", set()),
        ("def test(): \n with pytest.raises(AError) as e: f()\n assert e.value.reason", set()),
        ("def test(): \n with pytest.raises(AError, match='x'): raise AError('x')", set()),
    ],
)  # fmt: skip
def test_the_search_sees_only_tests_that_read_a_text_they_did_not_write(source: str, found: set[str]) -> None:
    tree = ast.parse(source)
    assert set(caught_by(tree, source)) - raised_here(tree) == found


# --- those that no other test reads ----------------------------------------------------------------------------------


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A web server that answers everything with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_airflow_that_does_not_listen() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(AirflowUnavailableError) as caught:
        AirflowApi(url, user="admin", password="x")
    assert str(caught.value) == (
        f"Airflow at {url} cannot be reached ([Errno 111] Connection refused); start it with: refund up"
    )


def test_airflow_that_answers_with_a_server_error() -> None:
    with answering(502) as url, pytest.raises(AirflowUnavailableError) as caught:
        AirflowApi(url, user="admin", password="x")
    assert str(caught.value) == "Airflow answered POST /auth/token with 502; look into its api-server log"


def test_an_object_that_went_away(s3_moto: S3Access) -> None:
    with pytest.raises(RejectedPhotoError) as caught:
        ObjectStore(s3_moto).get("incoming/2026-11-21/gone.jpg")
    assert str(caught.value) == (
        f"vanished: no object 'incoming/2026-11-21/gone.jpg' any more, while bucket {s3_moto.bucket!r} answers"
    )
    assert caught.value.reason is ReasonCode.VANISHED


# --- what each branch does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("branch", "is_final", "code"),
    [
        (ConfigurationError, True, 3),
        (RetriableRunError, False, 4),
        (FatalRunError, True, 5),
        (RejectedPhotoError, True, 1),
    ],
)
def test_every_class_of_a_branch_is_retried_by_airflow_or_not(
    branch: type[RefundError], *, is_final: bool, code: int
) -> None:
    """A photo's fault that escapes its task is a fault of our code: trying again would meet the same photo."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    classes = [cls for cls in error_classes().values() if issubclass(cls, branch)]
    assert classes
    for cls in classes:
        error = cls.__new__(cls)
        Exception.__init__(error, "what was seen")
        with pytest.raises(AirflowException) as caught, airflow_glue.airflow_errors():
            raise error
        assert isinstance(caught.value, AirflowFailException) == is_final, cls
        assert str(caught.value) == f"{cls.__name__}: what was seen"
        assert exit_code(error) == code
