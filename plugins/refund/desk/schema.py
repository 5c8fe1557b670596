"""The OpenAPI description of the desk: errors of every call in one form, who may call it, and bodies of uploads."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastapi import FastAPI

READS = (401, 403, 422, 503)  # what any call may answer
WRITES = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")  # its form of a 422, which the desk does not use
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"cookie": []}]
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "POST /auth/token of this Airflow gives a token.",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "_token",
        "description": "A browser's login; what is not a GET also takes the header X-Refund-Desk.",
    },
}


class Problem(BaseModel):
    """What went wrong, and what to do."""

    model_config = ConfigDict(extra="allow")

    status: Literal["error"]
    error: str = Field(description="What went wrong, in a word that scripts may rely on.")
    message: str = Field(description="What was seen and what was expected.")
    what_to_do: str
    request_id: str | None = Field(description="As in the header X-Request-ID and in the log.")


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Responses of a route for these status codes, beyond those that `describe` adds by itself."""
    return {code: {"model": Problem, "description": HTTPStatus(code).phrase} for code in codes}


def multipart(
    properties: Mapping[str, Any], *, required: Iterable[str], description: str = "The photos and how to take them."
) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its upload itself; a photo has the type string and the format binary."""
    form = {"type": "object", "properties": dict(properties), "required": list(required)}
    return {
        "requestBody": {
            "required": True,
            "description": description,
            "content": {"multipart/form-data": {"schema": form}},
        }
    }


def describe(app: FastAPI, *, root: str) -> dict[str, Any]:
    """The OpenAPI schema of the app, for callers who reach it at ``root``; made once.

    To what the routes say of themselves it adds what holds for all: the login, and the errors a call may answer.
    """
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return {**app.openapi_schema, "servers": [{"url": root or "/"}]}


def _made(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    parts = schema.setdefault("components", {})
    parts["securitySchemes"] = _SCHEMES
    schemas = parts.setdefault("schemas", {})
    for name in _FRAMEWORKS_OWN:
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    for path, calls in schema["paths"].items():
        for method, call in calls.items():
            if method in _METHODS:
                call["security"] = _SECURITY
                _add_errors(call, codes=READS if method == "get" else WRITES, has_path="{" in path)
    return schema


def _add_errors(call: dict[str, Any], *, codes: Iterable[int], has_path: bool) -> None:
    answers = call["responses"]
    for code in {*codes, *([404] if has_path else [])}:
        known = answers.get(str(code), {})
        if code == HTTPStatus.UNPROCESSABLE_ENTITY or "content" not in known:
            answers[str(code)] = {
                "description": known.get("description") or HTTPStatus(code).phrase,
                "content": {"application/json": {"schema": _PROBLEM}},
            }
    call["responses"] = dict(sorted(answers.items()))
