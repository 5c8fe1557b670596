"""Two people who change the registry in the same moment: both end with an answer, and what is left is one of theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from refund.errors import ModelRetiredError, PromotionRefusedError, RefundError
from refund.lifecycle import build as lifecycle
from refund.lifecycle.build import BuildOutcome, build_and_register
from refund.lifecycle.promote import promote
from refund.night.services import Services
from tests.lifecycle.test_build import units
from tests.lifecycle.test_promote import _no_alias_yet as _no_alias_yet  # a fixture
from tests.lifecycle.test_promote import champion, evaluate, register


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call, begun together with the others, returned or raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except RefundError as exc:
            return exc

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.mark.parametrize("seeds", [("one", "two"), ("same", "same")])
def test_of_two_first_builds_one_becomes_champion_and_both_are_registered(
    seeds: tuple[str, str], services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, mine = threading.Barrier(2), threading.local()
    look = lifecycle.current_champion

    def before_either_is_champion(given: Services) -> str | None:
        found = look(given)
        if not getattr(mine, "looked", False):
            mine.looked = True
            barrier.wait()
        return found

    monkeypatch.setattr(lifecycle, "current_champion", before_either_is_champion)
    monkeypatch.setattr(lifecycle, "build_models", lambda target, **_: units(mine.seed, agreeing=97)(target))

    def build(seed: str) -> BuildOutcome:
        mine.seed = seed
        return build_and_register(
            services, weights=None, calibrate=None, allow_fallback=False, champion=True, by=seed, reason="first"
        )

    outcomes = at_once(*(lambda seed=seed: build(seed) for seed in seeds))  # type: ignore[misc]
    assert sorted(outcome.became_champion for outcome in outcomes) == [False, True]
    (winner,) = (outcome.served for outcome in outcomes if outcome.became_champion)
    assert {outcome.champion for outcome in outcomes} == {winner} == {champion(services)}
    assert len(services.registry.history("champion")) == 1
    listed = {row.model for row in services.registry.list()}
    assert {model for outcome in outcomes for model in outcome.registered} <= listed


def test_a_model_is_promoted_or_retired_and_never_both(services: Services, tmp_path: Path) -> None:
    for number in range(4):
        model = register(services, tmp_path, f"net{number}")
        promoted, retired = at_once(
            lambda model=model: services.registry.promote("champion", model, by="ada", reason="better"),  # type: ignore[misc]
            lambda model=model: services.registry.retire(model, by="bob", reason="worse"),  # type: ignore[misc]
        )
        state = services.registry.resolve(model).state
        if isinstance(promoted, ModelRetiredError):
            assert (retired, state, champion(services) == model) == (True, "retired", False)
        else:
            assert isinstance(retired, PromotionRefusedError)
            assert (promoted.after, state, champion(services)) == (model, "candidate", model)


def test_a_promotion_that_a_rollback_overtakes_is_told_what_it_was_compared_with(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (register(services, tmp_path, name) for name in ("first", "second", "third"))
    for model in (first, second):
        services.registry.promote("champion", model, by="ada", reason="why")
    for model in (second, third):
        evaluate(services, model, wrong=range(20))
    download = services.registry.download

    def overtaken(*given: Any, **named: Any) -> None:
        download(*given, **named)
        services.registry.rollback("champion", by="bob", reason="bags go wrong")

    monkeypatch.setattr(services.registry, "download", overtaken)
    with pytest.raises(PromotionRefusedError) as caught:
        promote(services, third, by="ada", reason="better", override=True)
    assert str(caught.value) == (
        f"champion changed meanwhile from {second} to {first}, so {third} was compared with the wrong model; compare "
        f"again: refund model promote {third}"
    )
    assert champion(services) == first
