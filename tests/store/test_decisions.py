"""What publishing writes beside the outcome: the model that decided each photo, and which decisions people check."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from refund.errors import FatalRunError
from tests.conftest import Roles
from tests.store.factories import MODEL, OTHER_MODEL, Photo, night, rows

A = Photo(key="incoming/2026-11-21/R1/a.jpg")
B = Photo(key="incoming/2026-11-21/R1/b.jpg", kind="review", reasons=("low_score",), score=0.3)
BAD = Photo(key="incoming/2026-11-21/R2/bad.jpg", reason="truncated")
MANY = tuple(Photo(key=f"incoming/2026-11-21/R/{number}.jpg") for number in range(40))
MARKED = "SELECT photo_id::text FROM refund.decision WHERE audit AND superseded_by IS NULL"


def test_each_decision_names_the_model_that_made_it(roles: Roles) -> None:
    night(roles.app, "r1", A, replace(B, model=OTHER_MODEL), BAD)
    for table in ("prediction", "decision"):
        seen = rows(roles.owner, f"SELECT photo_id::text, model FROM refund.{table}")
        assert dict(seen) == {A.photo_id: MODEL, B.photo_id: OTHER_MODEL}
    assert rows(roles.analyst, "SELECT model, models FROM reporting.runs") == [(MODEL, [MODEL, OTHER_MODEL])]
    assert rows(roles.analyst, "SELECT key, model FROM reporting.photos WHERE model IS NOT NULL ORDER BY 1") == [
        (A.key, MODEL), (B.key, OTHER_MODEL),
    ]  # fmt: skip


def test_a_prediction_by_a_model_that_is_not_registered_stops_the_night(roles: Roles) -> None:
    with pytest.raises(FatalRunError, match=r"so nothing of it was written: .*Key is not present in table \"model\""):
        night(roles.app, "r1", A, replace(B, model="nobody@1"))
    assert rows(roles.owner, "SELECT count(*) FROM refund.photo") == [(0,)]


def test_the_same_photos_are_marked_whichever_run_and_model_decides(roles: Roles) -> None:
    night(roles.app, "r1", *MANY, audit_share=0.5)
    first = set(rows(roles.owner, MARKED))
    assert 8 <= len(first) <= 32
    night(roles.app, "r2", *MANY, audit_share=0.5, model=OTHER_MODEL)
    assert set(rows(roles.owner, MARKED)) == first
    night(roles.app, "r3", *MANY, audit_share=0.7)
    assert set(rows(roles.owner, MARKED)) > first
    assert len(rows(roles.analyst, "SELECT photo_id FROM reporting.audit_queue")) > len(first)


@pytest.mark.parametrize(("share", "marked"), [(0.0, 0), (1.0, 2)])
def test_only_automatic_decisions_are_marked_none_at_0_and_all_at_1(roles: Roles, share: float, marked: int) -> None:
    night(roles.app, "r1", A, B, BAD, *MANY[:1], audit_share=share)
    assert rows(roles.owner, "SELECT count(*), bool_and(kind = 'auto') FROM refund.decision WHERE audit") == [
        (marked, True if marked else None)
    ]


def test_the_draw_gives_the_share_that_was_asked_for(roles: Roles) -> None:
    drawn = """
    SELECT count(*) FILTER (WHERE ratio < 0.01), count(*) FILTER (WHERE ratio < 0.5), min(ratio) >= 0, max(ratio) < 1
    FROM (SELECT refund.audit_ratio(md5(number::text)::uuid) AS ratio FROM generate_series(1, 20000) AS number) drawn
    """
    ((hundredth, half, *within),) = rows(roles.app, drawn)
    assert abs(hundredth - 200) < 4 * (20_000 * 0.01 * 0.99) ** 0.5
    assert abs(half - 10_000) < 4 * (20_000 * 0.5 * 0.5) ** 0.5
    assert within == [True, True]


def test_the_draw_is_the_documented_formula(roles: Roles) -> None:
    digest = sha256(f"refund.audit/{A.photo_id}".encode()).hexdigest()
    assert rows(roles.app, "SELECT refund.audit_ratio(%s)", A.photo_id) == [(int(digest[:8], 16) / 2**32,)]
