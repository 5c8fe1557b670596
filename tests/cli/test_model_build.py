"""`refund model build` away from a laptop: no packaged network, no first champion without a reason."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from refund.cli import load_app, model_build
from refund.cli.access import Access
from refund.cli.model_build import history_reason, say
from refund.errors import NoModelError, SettingsError
from refund.lifecycle.build import BuildOutcome
from refund.settings import DatabaseAccess, S3Access, Settings


class Champion:
    """The registry's answer to who is champion."""

    def __init__(self, model: str | None) -> None:
        self.model = model
        self.registry = self

    def resolve(self, wanted: str) -> Champion:
        if self.model is None:
            raise NoModelError(wanted=wanted)
        return self


def reason_of(given: str, *, there: str | None = None, champion: bool = True, on_a_laptop: bool = False) -> str:
    services: Any = Champion(there)
    return history_reason(given, services, champion=champion, on_a_laptop=on_a_laptop)


def outcome(**overrides: Any) -> BuildOutcome:
    values: dict[str, Any] = {
        "registered": ("net@1-float32", "net@1-int8"),
        "cards": (),
        "served": "net@1-int8",
        "reason": "it agrees: passed",
        "champion": "net@1-int8",
        "became_champion": True,
    }
    return BuildOutcome(**values | overrides)


def test_a_reason_is_kept_as_given() -> None:
    assert reason_of(" better on shoes ") == "better on shoes"


@pytest.mark.parametrize(
    "where", [{"on_a_laptop": True}, {"champion": False}, {"there": "net@1"}], ids=["laptop", "only register", "taken"]
)
def test_no_reason_is_needed_on_a_laptop_or_where_no_champion_changes(where: dict[str, Any]) -> None:
    assert reason_of("", **where) == "refund model build"


@pytest.mark.parametrize("given", ["", "  "])
def test_elsewhere_the_first_champion_needs_a_reason(given: str) -> None:
    with pytest.raises(SettingsError) as caught:
        reason_of(given)
    assert str(caught.value) == (
        "the champion changes only for a reason, which its history keeps; give --reason TEXT, or --no-champion"
    )


@pytest.mark.parametrize(
    ("local", "given", "network", "expected"),
    [
        (None, None, {}, False),
        (None, True, {}, True),
        (object(), None, {}, True),
        (object(), False, {}, False),
        (object(), None, {"alpha": 0.5}, False),  # who names a network means no other
        (object(), None, {"calibrate": "photos/"}, False),
        (object(), True, {"alpha": 0.5}, True),
    ],
)
def test_only_a_local_stack_falls_back_unasked(
    local: Any,
    given: bool | None,
    network: dict[str, Any],
    expected: bool,
    s3_moto: S3Access,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = Access(s3=s3_moto, database=DatabaseAccess(host="h", password="p"), settings=Settings(), local=local)
    asked: dict[str, Any] = {}

    def note(_: object, **given: Any) -> BuildOutcome:
        asked.update(given)
        return outcome()

    monkeypatch.setattr(model_build, "find_access", lambda: access)
    monkeypatch.setattr("refund.cli.access.find_access", lambda: access)
    monkeypatch.setattr(model_build, "build_and_register", note)
    values: dict[str, Any] = {"weights": "", "alpha": 1.0, "input_px": 224, "calibrate": "", "version": ""} | network
    model_build.build(**values, fallback=given, champion=True, reason="why", as_json=True)
    assert asked["fallback"] is expected
    assert asked["reason"] == "why"


def test_the_packaged_network_goes_with_nothing_that_only_another_has(
    s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(s3=s3_moto, database=DatabaseAccess(host="h", password="p"), settings=Settings(), local=None)
    monkeypatch.setattr(model_build, "find_access", lambda: access)
    monkeypatch.setattr("refund.cli.access.find_access", lambda: access)
    answer = CliRunner().invoke(
        load_app(), ["model", "build", "--packaged", "--alpha", "0.5", "--weights", "w.h5", "--reason", "why"]
    )
    assert str(answer.exception) == (
        "packaged takes EfficientNet-Lite0 as it comes, so it cannot go with weights and alpha; leave out packaged, or "
        "those"
    )
    assert isinstance(answer.exception, SettingsError)


@pytest.mark.parametrize(
    ("overrides", "last"),
    [
        ({}, ["Champion: net@1-int8, from the next run on"]),
        ({"became_champion": False}, ["Champion: net@1-int8, as before"]),
        (
            {"became_champion": False, "champion": "old@1"},
            ["Champion: still old@1; to change it: refund model promote net@1-int8"],
        ),
        ({"became_champion": False, "champion": None}, []),
    ],
)
def test_what_is_served_and_who_is_champion_is_said(
    overrides: dict[str, Any], last: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    say(outcome(**overrides))
    assert capsys.readouterr().out.splitlines() == [
        "Registered net@1-float32",
        "Registered net@1-int8",
        "Served: net@1-int8, for it agrees: passed",
        *last,
    ]
