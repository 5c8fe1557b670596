"""The description of the calls: complete, true to what the routes take, and readable without any script."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.routing import APIRoute

from refund.desk.api_page import groups, models
from refund.desk.schema import describe, problems
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World


@pytest.fixture(scope="module")
def reading(shared_world: World) -> Any:
    with desk_in(shared_world) as made:
        yield made


def calls(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, call) for path, found in schema["paths"].items() for method, call in found.items()]


def test_the_schema_names_every_call_of_the_app(reading: DeskWorld) -> None:
    schema = reading.sign_in().get("/api/openapi.json").json()
    shown = {(path, method.upper()) for path, method, _ in calls(schema)}
    routes = [route for route in reading.app.routes if isinstance(route, APIRoute)]
    wanted = {(route.path, method) for route in routes for method in route.methods if route.include_in_schema}
    hidden = {route.path for route in routes if route.path.startswith("/api/") and not route.include_in_schema}
    assert shown == wanted
    assert hidden == {"/api/openapi.json", "/api/docs"}
    assert schema["servers"] == [{"url": "/refund"}]


def test_every_call_has_a_summary_a_description_a_tag_and_every_parameter_a_meaning(reading: DeskWorld) -> None:
    schema = describe(reading.app, root="/refund")
    for path, method, call in calls(schema):
        assert call.get("summary"), (path, method)
        assert call.get("description"), (path, method)
        assert call.get("tags"), (path, method)
        assert [given["name"] for given in call.get("parameters", ()) if not given.get("description")] == [], path


def test_every_call_tells_its_errors_in_the_one_form(reading: DeskWorld) -> None:
    schema = describe(reading.app, root="/refund")
    for path, method, call in calls(schema):
        wanted = {"401", "403", "422", "503"} | (
            {"400", "404", "409", "413", "415", "429"} if method != "get" else set()
        )
        wanted |= {"404"} if "{" in path else set()
        assert wanted <= set(call["responses"]), (path, method)
        assert call["security"] == [{"bearer": []}, {"cookie": []}]
        for code in wanted - {"503"}:  # health answers more
            content = call["responses"][code]["content"]["application/json"]["schema"]
            assert content == {"$ref": "#/components/schemas/Problem"}, (path, code)
    assert not {"HTTPValidationError", "ValidationError"} & set(schema["components"]["schemas"])


def test_every_reference_of_the_schema_leads_somewhere(reading: DeskWorld) -> None:
    answer = reading.sign_in().get("/api/openapi.json")
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.text))
    assert names <= set(answer.json()["components"]["schemas"])


def test_a_route_names_further_errors_by_their_codes() -> None:
    assert problems(404)[404]["description"] == "Not Found"


def test_the_page_shows_every_call_with_its_parameters_and_answers(reading: DeskWorld) -> None:
    client = reading.sign_in()
    answer = client.get("/api/docs", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    schema = client.get("/api/openapi.json").json()
    anchors = {(shown["path"], shown["method"]): shown["id"] for _, found in groups(schema) for shown in found}
    for path, method, call in calls(schema):
        anchor = anchors[path, method.upper()]
        assert f'id="{anchor}"' in answer.text
        section = answer.text.partition(f'<section class="card" id="{anchor}"')[2].partition("</section>")[0]
        for given in call.get("parameters", ()):
            assert f"<code>{given['name']}</code>" in section
        for code in call["responses"]:
            assert f">{code}</span>" in section
    ids = re.findall(r'\bid="([^"]+)"', answer.text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', answer.text)) <= set(ids)


def test_the_page_runs_nothing_of_its_own_and_asks_nobody_else(reading: DeskWorld) -> None:
    text = reading.sign_in().get("/api/docs").text
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"\sstyle=|<style|\son\w+=", text) == []
    assert re.findall(r'(?:src|href)="(?:https?:)?//', text) == []


def test_types_ranges_and_defaults_are_said_in_words(reading: DeskWorld) -> None:
    schema = describe(reading.app, root="/refund")
    shown = {(call["method"], call["path"]): call for _, found in groups(schema) for call in found}
    given = {field["name"]: field for field in shown["GET", "/api/history"]["parameters"]}
    assert (given["page_size"]["type"], given["page_size"]["range"], given["page_size"]["default"]) == (
        "whole number",
        "1 to 200",
        "50",
    )
    assert given["decision"]["type"] == "auto, review or null"
    assert given["text"]["range"] == "up to 200 characters"
    body = shown["POST", "/api/classify"]["body"]
    assert body["media_type"] == "multipart/form-data"
    assert ("image", True, "file") in [(field["name"], field["required"], field["type"]) for field in body["fields"]]
    problem = next(model for model in models(schema) if model["name"] == "Problem")
    assert [field["name"] for field in problem["fields"]] == ["status", "error", "message", "what_to_do", "request_id"]
