"""The questions of docs/analysts.md give the right answers, and its Python runs, on nights that are counted by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote_plus

import pytest

from refund.store.database import Database
from refund.store.repository import Repository
from tests.conftest import REPOSITORY, Roles, migrated_database
from tests.store.factories import MODEL
from tests.store.known_nights import FIRST, LAST, load

TEXT = (REPOSITORY / "docs" / "analysts.md").read_text(encoding="utf-8")
QUESTIONS = {
    int(number): sql
    for number, sql in re.findall(r"^\*\*(\d+)\. .*?^```sql\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
}


def tenths(*values: Any) -> tuple[Any, ...]:
    """Floats as the numerics that ``round`` gives."""
    return tuple(Decimal(str(value)) if isinstance(value, float) else value for value in values)


ANSWERS: dict[int, list[tuple[Any, ...]]] = {
    1: [
        tenths("shoes", 3, 37.5, 0), tenths("clothing", 2, 25.0, 1), tenths("electronics", 1, 12.5, 1),
        tenths("luggage_bags", 1, 12.5, 0), tenths("not_a_product", 1, 12.5, 1),
    ],
    2: [tenths(FIRST, 1, 33.3), tenths(LAST, 2, 25.0)],
    3: [("declared_mismatch", 1), ("low_score", 1), ("not_a_product", 1)],
    4: [("truncated", 1, f"incoming/{LAST}/G/1.jpg")],
    5: [("F", "toys", "clothing", 1)],
    6: [tenths(LAST, 62.5, 8), tenths(FIRST, 66.7, 3)],
    7: [tenths(LAST, 9, 11.1, 1, 0, 1), tenths(FIRST, 4, 25.0, 0, 0, 0)],
    8: [tenths("category_shares", "drift", 0.310, 0.150, "shoes", 62.5, 37.5)],
    9: [tenths(LAST, MODEL, "insufficient_data", 50.0, 12.0, 88.0, 1, 100)],
    10: [(LAST, "r2", 9, 9, 8, 8, 1, 0, 0, True), (FIRST, "r1", 4, 4, 3, 3, 1, 0, 0, True)],
    11: [
        tenths(f"incoming/{FIRST}/A/1.jpg", FIRST, "classified", "shoes", 0.95, "auto", None, None),
        tenths(f"incoming/{FIRST}/A/2.jpg", FIRST, "classified", "shoes", 0.9, "auto", None, None),
        tenths(f"incoming/{FIRST}/A/3.jpg", LAST, "classified", "shoes", 0.91, "auto", None, None),
    ],
    12: [("D", 2, ["luggage_bags", "shoes"])],
    13: [(6, 2, 3, 1)],  # settled: A and E; a person: F, G and H
    14: [(FIRST, 1, 1, ["A"])],
    15: [(LAST, 2, 2, 0)],
    16: [("ada", 2, 1), ("bob", 1, 0)],
    17: [("clothing", "toys", 1)],
    18: [
        tenths("clothing", 25.0, 33.3), tenths("electronics", 12.5, 0.0), tenths("luggage_bags", 12.5, 0.0),
        tenths("not_a_product", 12.5, 0.0), tenths("shoes", 37.5, 66.7),
    ],
    19: [
        (LAST, timedelta(minutes=7), "classify", 8, 0.5, 4.0, 5.0, 0),
        (LAST, timedelta(minutes=7), "validate", 9, 1.5, 3.0, 12.0, 1),
    ],
    20: [(LAST, "drift:category_shares", "warning", "shoes fell", "s3://b/r2.html")],
}  # fmt: skip


@pytest.fixture(scope="module")
def known(postgres: Roles) -> Iterator[Roles]:
    with migrated_database(postgres) as roles:
        load(roles)
        yield roles


def test_there_are_twenty_and_each_has_its_answer() -> None:
    assert list(QUESTIONS) == list(range(1, 21)) == list(ANSWERS)


@pytest.mark.parametrize("number", QUESTIONS)
def test_the_answer_is_what_was_loaded(known: Roles, number: int) -> None:
    _, found = Repository(Database(known.analyst)).select(QUESTIONS[number])
    assert found == ANSWERS[number]


COPIED = {
    "last_night_categories": [
        tenths("shoes", 3, 37.5, 3, 0, 0.9),
        tenths("clothing", 2, 25.0, 1, 1, 0.84),
        tenths("electronics", 1, 12.5, 0, 1, 0.4),
        tenths("luggage_bags", 1, 12.5, 1, 0, 0.85),
        tenths("not_a_product", 1, 12.5, 0, 1, 0.3),
    ],
    "one_verdict": [],
    "reconciliation": [(LAST, "r2", 9, 9, 8, 8, 1, 0, 0, 9, 8, True), (FIRST, "r1", 4, 4, 3, 3, 1, 0, 0, 4, 3, True)],
    "refunds_with_contradictions": [
        (refund, day, photos, category, categories, declared, review)
        for refund, day, photos, category, categories, declared, review in (
            ("D", LAST, 2, "luggage_bags", 2, None, False),
            ("F", LAST, 1, "clothing", 1, "toys", True),
            ("B", FIRST, 1, "clothing", 1, "shoes", False),
        )
    ],
    "rejections": [
        ("truncated", "G", f"incoming/{LAST}/G/1.jpg", "seen truncated", f"quarantine/incoming/{LAST}/G/1.jpg")
    ],
    "review_queue": [
        tenths(LAST, "H", f"incoming/{LAST}/H/1.jpg", "not_a_product", 0.3, "low_score, not_a_product", None),
        tenths(LAST, "F", f"incoming/{LAST}/F/1.jpg", "clothing", 0.99, "declared_mismatch", "toys"),
    ],
}


@pytest.mark.parametrize("file", sorted((REPOSITORY / "include" / "sql").glob("*.sql")), ids=lambda file: file.stem)
def test_the_files_to_copy_give_the_right_answers(known: Roles, file: Any) -> None:
    _, found = Repository(Database(known.analyst)).select(file.read_text(encoding="utf-8"))
    assert found == COPIED[file.stem]


def test_the_python_of_the_page_runs(known: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    access = known.analyst
    monkeypatch.setenv(
        "REFUND_ANALYST_URL",
        f"postgresql+psycopg2://{access.user}:{quote_plus(access.password or '')}@{access.host}:{access.port}"
        f"/{access.database}",
    )
    (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/analysts.md", "exec"), names)  # noqa: S102 — the page's own text is what is tested
    try:
        by_night = names["by_night"]
        assert list(by_night.index) == [FIRST, LAST]
        assert by_night.loc[LAST].to_dict() == {
            "clothing": 0.25, "electronics": 0.125, "luggage_bags": 0.125, "not_a_product": 0.125, "shoes": 0.375,
        }  # fmt: skip
        assert by_night.sum(axis=1).round(9).tolist() == [1.0, 1.0]
        assert sorted(names["refunds"].index) == ["A", "D", "E", "F", "G", "H"]
        assert names["refunds"].loc["D", "photos_agree"] == False  # noqa: E712 — a NumPy boolean
    finally:
        names["engine"].dispose()
