from __future__ import annotations

import csv
from datetime import date

import pytest

from refund.errors import ReasonCode
from refund.records import QualityLabel
from refund.report import labels
from refund.resources import include_path


@pytest.mark.parametrize("reason", ReasonCode)
def test_every_reason_code_has_a_title_and_a_meaning(reason: ReasonCode) -> None:
    assert labels.reason_label(reason) not in ("", reason.value)
    assert labels.explain_reason(reason).endswith(".")
    assert labels.reason_next_step(reason).endswith(".")


@pytest.mark.parametrize("label", QualityLabel)
def test_every_quality_label_has_a_title(label: QualityLabel) -> None:
    assert labels.quality_label(label)


def test_codes_of_a_newer_version_are_still_shown() -> None:
    assert (labels.reason_label("too_old"), labels.explain_reason("too_old")) == ("Too old", "")
    assert labels.reason_next_step("too_old") == ""
    assert labels.quality_label("too_red") == "Too red"
    assert labels.stage_label("some_stage") == "Some stage"


def test_every_category_with_two_words_in_the_taxonomy_reads_well() -> None:
    lines = include_path("taxonomy.csv").read_text(encoding="utf-8").splitlines()
    names = {row["department"] for row in csv.DictReader(line for line in lines if not line.startswith("#"))}
    assert len(names) > 10
    plain = {"not_a_product", "office_supplies", "pet_supplies", "sporting_goods"}
    assert [name for name in sorted(names - plain) if "_" in name and "&" not in labels.category_label(name)] == []


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        *((0.0, 0, "0%"), (1.0, 0, "100%"), (0.915, 1, "91.5%"), (None, 0, "–")),
        *((0.0001, 0, "<1%"), (0.9999, 0, ">99%"), (0.0004, 1, "<0.1%"), (0.9996, 1, ">99.9%")),
    ],
)
def test_percent_never_rounds_something_to_nothing(share: float | None, digits: int, text: str) -> None:
    assert labels.percent(share, digits=digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_like_durations(value: float, text: str) -> None:
    assert labels.seconds(value) == text


def test_other_numbers() -> None:
    assert labels.count(1234567) == "1,234,567"
    assert [labels.points(x) for x in (0.312, -0.05, 0.0001)] == ["+31.2", "−5.0", "±0.0"]
    assert [labels.megabytes(x) for x in (12, 1500, 268_400_000, 3_000_000_000)] == [
        *("12 bytes", "1.5 kB", "268.4 MB", "3.0 GB")
    ]
    assert labels.long_date(date(2026, 11, 21)) == "Saturday 21 November 2026"


def test_hostile_text_becomes_one_honest_line() -> None:
    assert labels.visible("a\u202egpj.exe\n\x00\ud800\u2028b") == r"a\u202egpj.exe\n\x00\ud800\u2028b"
    assert labels.visible("日本 ñ &<") == "日本 ñ &<"
    long = labels.visible("x" * 100 + "/name.jpg", limit=40)
    assert len(long) == 40
    assert long.endswith("/name.jpg")
