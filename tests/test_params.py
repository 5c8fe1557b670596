"""The night's parameters read what forms, command lines and JSON give, and refuse the rest in words."""

from __future__ import annotations

import math

import pytest

from refund.errors import SettingsError
from refund.params import NightParams, parse_run_date


def test_an_empty_form_is_a_normal_night() -> None:
    params = NightParams.from_mapping({})
    assert params == NightParams()
    assert params.run_date is None
    assert params.model == "champion"


def test_texts_are_read_as_the_type_of_the_field() -> None:
    params = NightParams.from_mapping(
        {"batch_size": "4", "review_threshold": "0.75", "force": "true", "dry_run": "no", "run_date": "2026-11-21"}
    )
    assert (params.batch_size, params.review_threshold, params.force, params.dry_run) == (4, 0.75, True, False)
    assert params.run_date == "2026-11-21"


def test_an_empty_run_date_means_none() -> None:
    assert NightParams.from_mapping({"run_date": ""}).run_date is None


def test_a_whole_number_serves_as_threshold() -> None:
    assert NightParams.from_mapping({"review_threshold": 1}).review_threshold == 1.0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"batchsize": 4}, "unknown parameter 'batchsize'; known are: run_date, prefix"),
        ({"batch_size": 0}, "batch_size must lie in 1..256, got 0"),
        ({"batch_size": "many"}, "batch_size must be of type int, got 'many'"),
        ({"batch_size": 2.5}, "batch_size must be of type int, got 2.5"),
        ({"batch_size": True}, "batch_size must be of type int, got True"),
        ({"force": "perhaps"}, "force must be of type bool, got 'perhaps'"),
        ({"review_threshold": math.nan}, "review_threshold must lie in 0.0..1.0, got nan"),
        ({"prefix": "incoming"}, "prefix must end with a slash and not start with one, got 'incoming'"),
        ({"model": ""}, "model must be an alias or name@version, got an empty text"),
        ({"run_date": "21.11.2026"}, "run date must read YYYY-MM-DD, for example 2026-11-21; got '21.11.2026'"),
    ],
)
def test_bad_values_are_refused_in_words(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        NightParams.from_mapping(values)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("text", ["20261121", "2026-W47-6", "2026-02-30", "2026-11-21T00:00", "yesterday", ""])
def test_run_dates_have_one_form(text: str) -> None:
    with pytest.raises(SettingsError, match="run date must read YYYY-MM-DD"):
        parse_run_date(text)


def test_a_run_date_leaves_the_day_of_undated_photos_alone() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_run_date("1970-01-02")
    assert str(caught.value) == (
        "run date must be 1971-01-01 or later (1970-01-01 stands for photos without a date); got '1970-01-02'"
    )


def test_the_form_describes_every_field() -> None:
    described = NightParams.describe()
    assert [entry["name"] for entry in described] == list(NightParams.__dataclass_fields__)
    assert all(entry["help"] for entry in described)
