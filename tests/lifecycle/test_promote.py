"""The gate before champion: with evaluations that Postgres holds, decided against a current model that may change."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from refund.errors import ModelArtefactError, ModelRetiredError, NoModelError, PromotionRefusedError, SettingsError
from refund.lifecycle.promote import MIN_COMMON_PHOTOS, compare_models, objections_to, promote
from refund.model.agreement import REQUIRED_PHOTOS, Agreement
from refund.model.card import ModelCard
from refund.model.labels import load_labels
from refund.model.taxonomy import load_taxonomy
from refund.monitor.accuracy import Verdict, evaluate_predictions
from refund.night.services import Services
from refund.store.evaluations import save_evaluation
from tests.store.test_registry import CARD, model_folder

PHOTOS = 200
CATEGORIES = ("shoes", "electronics")
TAXONOMY = load_taxonomy(labels=load_labels()).version


@pytest.fixture(autouse=True)
def _no_alias_yet(services: Services, database: object) -> None:
    """Every test begins with models of its own and no champion."""
    from refund.store.database import Database

    with Database(database.owner).connect() as connection, connection.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("DELETE FROM refund.model_alias_history")


def register(services: Services, tmp_path: Path, name: str, **fields: object) -> str:
    card: ModelCard = replace(CARD, name=name, version=tmp_path.name.replace("_", "-"), **fields)
    services.registry.register(model_folder(tmp_path / name, card), created_by="ada")
    return card.key


def evaluate(
    services: Services,
    model: str,
    *,
    wrong: range,
    set_sha256: str = "e" * 64,
    threshold: float = 0.5,
    taxonomy: str = TAXONOMY,
    photos: int = PHOTOS,
) -> None:
    """Store an evaluation on ``photos`` photographs of which those numbered ``wrong`` got the other category."""
    verdicts = []
    for number in range(photos):
        truth = CATEGORIES[number % 2]
        said = CATEGORIES[(number + (number in wrong)) % 2]
        verdicts.append(
            Verdict(
                photo_sha256=f"{number:064x}", true_category=truth, true_class_id=None, category=said,
                category_score=0.9, class_id="n00000001", confidence=0.9,
            )
        )  # fmt: skip
    figures = evaluate_predictions(verdicts, auto=[True] * photos, resamples=50)
    save_evaluation(
        services.database, model=model, set_name="photos/", set_sha256=set_sha256, taxonomy_version=taxonomy,
        threshold=threshold, photos=photos, figures=figures.to_dict(), verdicts=verdicts, plot_uri=None,
        code_version="1", evaluated_by="ada",
    )  # fmt: skip


def champion(services: Services) -> str | None:
    return next((row.model for row in services.registry.list() if "champion" in row.aliases), None)


@pytest.fixture
def two(services: Services, tmp_path: Path) -> tuple[str, str]:
    """The champion and another model, neither evaluated."""
    old, new = register(services, tmp_path, "old"), register(services, tmp_path, "new")
    promote(services, old, by="ada", reason="first")
    return old, new


def test_the_first_champion_needs_no_evaluation(services: Services, two: tuple[str, str]) -> None:
    assert champion(services) == two[0]
    (change,) = services.registry.history("champion")
    assert (change.override, change.details) == (False, {})


def test_who_is_champion_already_stays_it_without_a_new_entry(services: Services, two: tuple[str, str]) -> None:
    again = promote(services, "champion", by="ada", reason="again")
    assert (again.model, again.changed, again.comparison) == (two[0], False, None)
    assert len(services.registry.history("champion")) == 1


def test_without_an_evaluation_of_both_on_one_set_there_is_no_promotion(
    services: Services, two: tuple[str, str]
) -> None:
    old, new = two
    evaluate(services, new, wrong=range(0))
    evaluate(services, old, wrong=range(0), set_sha256="f" * 64)
    evaluate(services, old, wrong=range(0), threshold=0.7)
    evaluate(services, old, wrong=range(0), taxonomy="1")
    evaluate(services, new, wrong=range(0), taxonomy="1")  # both, but what was right then may be wrong now
    with pytest.raises(PromotionRefusedError) as caught:
        promote(services, new, by="ada", reason="better")
    assert str(caught.value) == (
        f"{new} does not become champion in the place of {old}: {new} and {old} were not evaluated on one and the same "
        f"set under the present taxonomy {TAXONOMY} and one threshold; evaluate both on it: refund model evaluate "
        f"NAME@VERSION --labels SET. To promote it all the same, give --override and say in --reason why"
    )
    assert champion(services) == old


def test_a_handful_of_photographs_proves_nothing(services: Services, two: tuple[str, str]) -> None:
    old, new = two
    assert MIN_COMMON_PHOTOS == REQUIRED_PHOTOS == 100
    for model in two:
        evaluate(services, model, wrong=range(2), photos=99)
    with pytest.raises(PromotionRefusedError) as caught:
        promote(services, new, by="ada", reason="better")
    assert str(caught.value) == (
        f"{new} does not become champion in the place of {old}: photos/ has 99 photographs that both classified, at "
        f"least 100 are needed to see a loss; evaluate both on a larger set: refund model evaluate NAME@VERSION "
        f"--labels SET. To promote it all the same, give --override and say in --reason why"
    )
    for model in two:
        evaluate(services, model, wrong=range(2), photos=100, set_sha256="f" * 64)
    assert promote(services, new, by="ada", reason="better").changed


def test_a_model_whose_files_are_spoilt_is_not_promoted_override_or_not(
    services: Services, two: tuple[str, str]
) -> None:
    old, new = two
    key = f"models/new/{new.partition('@')[2]}/net.tflite"
    services.objects.put(key, b"altered")
    for override in (False, True):
        for alias in ("champion", "challenger")[not override :]:
            with pytest.raises(ModelArtefactError, match=f"{key} has SHA-256 .* its card says .* altered or damaged"):
                promote(services, new, alias=alias, by="ada", reason="better", override=override)
    assert [change.model for change in services.registry.history()] == [old]


def test_one_request_promotes_once_whatever_became_of_it(services: Services, two: tuple[str, str]) -> None:
    """A run of refund_model that is cleared after a rollback must not undo the rollback."""
    old, new = two
    for model in two:
        evaluate(services, model, wrong=range(20))
    assert promote(services, new, by="ada", reason="smaller", request="run 1").changed
    services.registry.rollback("champion", by="bob", reason="bags go wrong")
    again = promote(services, new, by="ada", reason="smaller", request="run 1")
    assert (again.changed, champion(services)) == (False, old)
    assert not services.registry.promote("champion", new, by="ada", reason="smaller", request="run 1").changed
    assert promote(services, new, by="ada", reason="smaller", request="run 2").changed


def test_a_model_that_is_not_significantly_worse_may_be_promoted(services: Services, two: tuple[str, str]) -> None:
    old, new = two
    evaluate(services, old, wrong=range(20))
    evaluate(services, new, wrong=range(10, 31))  # one more, by chance
    done = promote(services, new, by="bob", reason="smaller")
    assert champion(services) == new
    assert done.comparison is not None
    assert (done.changed, done.before, done.objections) == (True, old, ())
    assert (done.comparison.candidate_accuracy, done.comparison.current_accuracy) == (0.895, 0.9)
    assert done.comparison.paired.accuracy.value == pytest.approx(-0.005)
    change = services.registry.history("champion")[-1]
    assert (change.by, change.reason, change.override) == ("bob", "smaller", False)
    assert change.details == {"comparison": done.comparison.as_json()}


def test_a_significant_loss_is_refused_with_the_figures(services: Services, two: tuple[str, str]) -> None:
    old, new = two
    evaluate(services, old, wrong=range(20))
    evaluate(services, new, wrong=range(50))
    comparison = compare_models(services.database, candidate=new, current=old)
    assert comparison is not None
    low, high = comparison.paired.accuracy.low, comparison.paired.accuracy.high
    assert -0.22 < low < -0.15 < high < -0.09
    with pytest.raises(PromotionRefusedError) as caught:
        promote(services, new, by="ada", reason="newer")
    text = str(caught.value)
    assert text.startswith(
        f"{new} does not become champion in the place of {old}: on the 200 photographs of photos/ its accuracy is "
        f"lower than that of {old}, by more than chance: -0.150 (95 % interval {low:+.3f} to {high:+.3f}); on the 200 "
        f"photographs of photos/ its macro-F1 is lower than that of {old}, by more than chance: -0.150 (95 % interval "
    )
    assert text.endswith(". To promote it all the same, give --override and say in --reason why")
    assert champion(services) == old


def test_the_latest_evaluation_on_the_set_counts(services: Services, two: tuple[str, str]) -> None:
    old, new = two
    evaluate(services, old, wrong=range(20))
    evaluate(services, new, wrong=range(50))
    evaluate(services, new, wrong=range(20))
    assert promote(services, new, by="ada", reason="measured again").changed


def test_an_override_goes_through_and_the_history_says_what_was_objected(
    services: Services, two: tuple[str, str]
) -> None:
    old, new = two
    done = promote(services, new, by="ada", reason="the old one cannot tell bags", override=True)
    assert champion(services) == new
    change = services.registry.history("champion")[-1]
    assert (change.override, change.reason) == (True, "the old one cannot tell bags")
    assert change.details == {"objections": list(done.objections)}
    assert done.objections[0].startswith(f"{new} and {old} were not evaluated")


def test_an_override_that_was_not_needed_is_not_recorded_as_one(services: Services, two: tuple[str, str]) -> None:
    for model in two:
        evaluate(services, model, wrong=range(20))
    promote(services, two[1], by="ada", reason="equal", override=True)
    assert not services.registry.history("champion")[-1].override


@pytest.mark.parametrize(
    ("agreeing", "photos", "sentence"),
    [
        (90, 100, "int8 names the same top class as float32 on 90 of 100 photographs (90.0%); required are 95% of at"),
        (50, 50, "int8 names the same top class as float32 on 50 of 50 photographs (100.0%); required are 95% of at"),
    ],
)
def test_an_int8_model_must_agree_with_its_float32_form_even_as_the_first(
    agreeing: int, photos: int, sentence: str, services: Services, tmp_path: Path
) -> None:
    agreement = Agreement.of(reference="new@float32", photos=photos, agreeing=agreeing)
    new = register(services, tmp_path, "new", precision="int8", agreement=agreement)
    with pytest.raises(PromotionRefusedError) as caught:
        promote(services, new, by="ada", reason="first")
    assert str(caught.value).startswith(
        f"{new} does not become champion: {new} is not known to agree with its float32 form: {sentence}"
    )
    assert champion(services) is None
    assert promote(services, new, by="ada", reason="nothing else here", override=True).changed


def test_a_card_from_outside_does_not_set_its_own_bar(services: Services, tmp_path: Path) -> None:
    lax = Agreement(
        state="passed", reference="new@float32", photos=1, top1_ratio=1.0, required_ratio=0.1, required_photos=1
    )
    new = register(services, tmp_path, "new", precision="int8", agreement=lax)
    with pytest.raises(
        PromotionRefusedError, match=r"on 1 of 1 photographs \(100\.0%\); required are 95% of at least 100"
    ):
        promote(services, new, by="ada", reason="first")


def test_an_int8_model_from_outside_has_no_float32_form_to_agree_with(services: Services, tmp_path: Path) -> None:
    new = register(services, tmp_path, "outside", precision="int8")
    passed = Agreement.of(reference="new@float32", photos=100, agreeing=97)
    row = services.registry.resolve(new)
    assert objections_to(row, current=None, comparison=None, taxonomy_version=TAXONOMY) == ()
    agreeing = register(services, tmp_path, "new", precision="int8", agreement=passed)
    assert promote(services, agreeing, by="ada", reason="first").changed


def test_a_challenger_needs_no_evaluation_and_is_promoted_by_its_alias(
    services: Services, two: tuple[str, str]
) -> None:
    new = two[1]
    assert promote(services, new, alias="challenger", by="ada", reason="to compare").before is None
    for model in two:
        evaluate(services, model, wrong=range(20))
    assert promote(services, "challenger", by="ada", reason="as good, smaller").model == new
    assert champion(services) == new


def test_a_retired_model_is_refused_override_or_not(services: Services, two: tuple[str, str]) -> None:
    services.registry.retire(two[1], by="ada", reason="wrong labels")
    for alias in ("champion", "challenger"):
        for override in (False, True):
            with pytest.raises(
                ModelRetiredError, match=f"^model {two[1]} is retired and may not be used; choose another"
            ):
                promote(services, two[1], alias=alias, by="ada", reason="why not", override=override)


def test_nothing_is_compared_without_a_reason_a_known_alias_and_a_known_model(
    services: Services, two: tuple[str, str]
) -> None:
    with pytest.raises(SettingsError, match=f"^a change of champion needs a reason; say why {two[1]} shall be it$"):
        promote(services, two[1], by="ada", reason=" ", override=True)
    with pytest.raises(SettingsError, match=r"^there is no alias 'best'; expected champion or challenger$"):
        promote(services, two[1], alias="best", by="ada", reason="why")
    with pytest.raises(NoModelError, match="'net@99'"):
        promote(services, "net@99", by="ada", reason="why")


def test_a_comparison_with_a_model_that_is_champion_no_more_does_not_count(
    services: Services, two: tuple[str, str], tmp_path: Path
) -> None:
    """Both promotions have passed the gate against the same champion before either is written."""
    old, new = two
    third = register(services, tmp_path, "third")
    for model in (old, new, third):
        evaluate(services, model, wrong=range(20))
    barrier = threading.Barrier(2)
    real = services.registry.promote
    errors: list[str] = []

    def run(model: str) -> None:
        try:
            promote(services, model, by="ada", reason="better")
        except PromotionRefusedError as exc:
            errors.append(str(exc))

    def after_both_were_compared(*given: object, **named: object) -> object:
        barrier.wait()
        return real(*given, **named)  # type: ignore[arg-type]

    services.registry.promote = after_both_were_compared  # type: ignore[assignment,method-assign]
    threads = [threading.Thread(target=run, args=(model,)) for model in (new, third)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = champion(services)
    loser = {new: third, third: new}[winner or ""]
    assert errors == [
        f"champion changed meanwhile from {old} to {winner}, so {loser} was compared with the wrong model; compare "
        f"again: refund model promote {loser}"
    ]
    assert [change.model for change in services.registry.history("champion")] == [old, winner]
