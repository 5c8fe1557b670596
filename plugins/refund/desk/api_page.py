"""The description of the REST calls: as OpenAPI for programs, and as a page made from it for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from refund.desk.auth import Asking, desk_root
from refund.desk.pages import render
from refund.desk.schema import describe

router = APIRouter(prefix="/api", include_in_schema=False)

_METHODS = ("get", "post", "put", "patch", "delete")


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    """The OpenAPI schema of every call."""
    return JSONResponse(describe(request.app, root=desk_root(request)))


@router.get("/docs")
def docs(request: Request, visitor: Asking) -> HTMLResponse:
    """Every call on one page."""
    schema = describe(request.app, root=desk_root(request))
    return render(
        request,
        "api.html.j2",
        title="REST calls of the desk",
        visitor=visitor,
        groups=groups(schema),
        models=models(schema),
    )


def groups(schema: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The calls by their first tag, in the order of the schema, each as the page shows it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, calls in schema["paths"].items():
        for method in _METHODS:
            if method in calls:
                call = calls[method]
                shown = {
                    "id": f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
                    "method": method.upper(),
                    "path": path,
                    "summary": call.get("summary", ""),
                    "description": call.get("description", ""),
                    "parameters": [_parameter(given) for given in call.get("parameters", ())],
                    "body": _body(call.get("requestBody"), schema),
                    "answers": [_answer(code, answer) for code, answer in call["responses"].items()],
                }
                found.setdefault(str((call.get("tags") or ["other"])[0]).lower(), []).append(shown)
    return list(found.items())


def models(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that calls take and answer, by name."""
    known = schema["components"]["schemas"]
    return [
        {
            "name": name,
            "description": known[name].get("description", ""),
            "choices": known[name].get("enum"),
            "fields": list(_fields(known[name])),
        }
        for name in sorted(known)
    ]


def _parameter(given: dict[str, Any]) -> dict[str, Any]:
    schema = given.get("schema", {})
    return {
        "name": given["name"],
        "place": given["in"],
        "required": given.get("required", False),
        "type": _type(schema),
        "range": _range(schema),
        "default": _default(schema),
        "meaning": given.get("description", ""),
    }


def _body(given: dict[str, Any] | None, schema: dict[str, Any]) -> dict[str, Any] | None:
    if given is None:
        return None
    media_type, content = next(iter(given["content"].items()))
    form = content.get("schema", {})
    named = _reference(form)
    shown = schema["components"]["schemas"].get(named, {}) if named else form
    return {
        "media_type": media_type,
        "model": named,
        "fields": list(_fields(shown)),
        "required": given.get("required", False),
    }


def _answer(code: str, answer: dict[str, Any]) -> dict[str, Any]:
    contents: dict[str, dict[str, Any]] = answer.get("content", {})
    media_type = next(iter(contents), "")
    content = contents.get(media_type, {})
    return {
        "code": code,
        "meaning": answer.get("description", ""),
        "media_type": media_type,
        "model": _reference(content.get("schema", {})),
    }


def _fields(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, field in schema.get("properties", {}).items():
        yield {
            "name": name,
            "required": name in schema.get("required", ()),
            "type": _type(field),
            "range": _range(field),
            "default": _default(field),
            "meaning": field.get("description", ""),
        }


def _reference(schema: dict[str, Any]) -> str | None:
    """The name of the object that a schema is or points to, as the only one that is not null."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    names = [name for part in schema.get("anyOf", ()) if (name := _reference(part))]
    return names[0] if len(names) == 1 else None


def _type(schema: dict[str, Any]) -> str:
    """A schema's type in words, such as ``list of text or null``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[key]))
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind, form = schema.get("type"), schema.get("format")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])} by name"
    if kind == "string":
        return {"binary": "file", "date": "date", "date-time": "time"}.get(form or "", "text")
    return {"integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}.get(
        kind or "", kind or "anything"
    )


def _range(schema: dict[str, Any]) -> str:
    """What a value may measure, as ``1 to 10`` or ``up to 200 characters``."""
    for part in schema.get("anyOf", ()):
        if text := _range(part):
            return text
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None or high is not None:
        return f"{low} or more" if low is not None else f"up to {high}"
    if "maxLength" in schema:
        return f"up to {schema['maxLength']} characters"
    if "maxItems" in schema:
        return f"{schema.get('minItems', 0)} to {schema['maxItems']}"
    return ""


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
