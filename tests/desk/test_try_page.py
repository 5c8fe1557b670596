"""The page for trying photos, as the server gives it: limits from the settings, words for everything a verdict says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from refund.desk.try_page import words
from refund.errors import ReasonCode
from refund.model.taxonomy import DEPARTMENTS, NOT_A_PRODUCT
from refund.params import NightParams
from refund.records import ImageLimits, QualityLabel, ReviewReason
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World
from tests.night.factories import jpeg

# What a photo in somebody's hand can be refused for; the others are faults of the store.
_AT_THE_DESK = set(ReasonCode) - {ReasonCode.VANISHED, ReasonCode.CHANGED, ReasonCode.UNREADABLE}


def page_of(desk: DeskWorld, **person: Any) -> str:
    answer = desk.sign_in(**person).get("/try", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    return str(answer.text)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="words">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def test_the_limits_are_those_of_the_settings(shared_world: World) -> None:
    with desk_in(shared_world, max_bytes=3 * 2**20, min_side_px=64, max_side_px=2048) as desk:
        page = page_of(desk)
    assert "Up to 10 at once: JPEG, PNG, GIF, BMP or WEBP, at most 3 MB each, sides of 64 to 2,048 pixels." in page
    data = data_of(page)
    assert (data["max_photos"], data["max_bytes"], data["largest"]) == (10, 3 * 2**20, "3 MB")
    assert data["threshold"] == NightParams().review_threshold


@pytest.mark.parametrize(("size", "shown"), [(16 * 2**20, "16 MB"), (1_500_000, "1.43 MB"), (4_096, "4,096 bytes")])
def test_the_largest_size_reads_as_people_say_it(size: int, shown: str) -> None:
    assert words(ImageLimits(max_bytes=size))["largest"] == shown


def test_every_word_of_a_verdict_is_known_to_the_page() -> None:
    known = words(ImageLimits())
    assert set(known["categories"]) == DEPARTMENTS
    assert set(known["branches"]) == DEPARTMENTS - {NOT_A_PRODUCT}
    assert known["categories"]["bags_luggage"] == "Bags & luggage"
    assert set(known["review_reasons"]) == set(ReviewReason)
    assert set(known["quality"]) == set(QualityLabel)
    assert set(known["reasons"]) == set(ReasonCode)


@pytest.mark.parametrize("reason", sorted(_AT_THE_DESK))
def test_every_reason_says_what_the_person_can_do_and_nothing_of_nights(reason: ReasonCode) -> None:
    told = words(ImageLimits())["reasons"][reason]
    assert told["title"]
    assert told["what_to_do"].endswith(".")
    assert "night" not in told["what_to_do"]


def test_the_photos_are_not_kept_unless_asked(shared_world: World) -> None:
    with desk_in(shared_world) as desk:
        page = page_of(desk)
    assert '<input type="checkbox" id="keep" aria-describedby="keep-means">' in page  # and not checked
    assert "<option selected>5</option>" in page
    assert "<option>10</option>" in page
    assert "<option>11</option>" not in page


def test_a_viewer_reads_why_they_cannot_try_and_whom_to_ask(shared_world: World) -> None:
    with desk_in(shared_world) as desk:
        page = page_of(desk, name="<b>vera</b>", may_write=False)
    assert '<form id="try"' not in page
    assert "so it takes a right that &lt;b&gt;vera&lt;/b&gt; does not have." in page
    assert "Ask an administrator of this Airflow for the permission “can edit on Refund Desk”" in page
    assert "<b>vera" not in page
    assert "Your last trials" in page


def test_nothing_of_the_page_runs_inline(shared_world: World) -> None:
    with desk_in(shared_world) as desk:
        page = page_of(desk)
    assert re.findall(r"<script(?![^>]* src=)(?! type=\"application/json\")", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []


def test_the_trials_of_one_person_are_found_and_of_nobody_else(desk: DeskWorld) -> None:
    for name, seed in (("ana", 1), ("ben", 2), ("ana", 3)):
        sent = {"image": (f"{name}-{seed}.jpg", jpeg(seed), "image/jpeg")}
        assert desk.sign_in(name).post("/api/classify", files=sent).status_code == 200
    client = desk.sign_in("ana", may_write=False)
    found = client.get("/api/history", params={"source": "trials", "tried_by": "ana"}).json()
    assert [item["filename"] for item in found["items"]] == ["ana-3.jpg", "ana-1.jpg"]
    assert client.get("/api/history/statistics?source=trials&tried_by=ben").json()["photos"] == 1
    assert client.get("/api/history?source=trials&tried_by=' OR true --").json()["items"] == []
    refused = client.get("/api/history?tried_by=ana")
    assert refused.status_code == 422
    assert "nobody tried the photos of nights by hand; expected it with source=trials alone." in refused.text
