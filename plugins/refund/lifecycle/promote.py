"""The gate before an alias: whether a model may take another's place, by what both scored on one labelled set."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import NoModelError, PromotionRefusedError
from refund.model.labels import load_labels
from refund.model.taxonomy import load_taxonomy
from refund.monitor.accuracy import PairedComparison, compare_paired
from refund.store.aliases import check_alias, check_reason, made_for
from refund.store.evaluations import StoredEvaluation, latest_common_evaluations

if TYPE_CHECKING:
    from refund.monitor.resampling import Estimate
    from refund.night.services import Services
    from refund.store.database import Database
    from refund.store.registry import ModelRow


MIN_COMMON_PHOTOS = 100  # as `refund.model.agreement` asks of int8; on fewer, only a great loss is more than chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the set that both were evaluated on last; differences are candidate minus current."""

    candidate: str
    current: str
    candidate_evaluation: int  # evaluation_id
    current_evaluation: int
    set_name: str
    set_sha256: str
    taxonomy_version: str
    threshold: float
    candidate_accuracy: float
    current_accuracy: float
    candidate_macro_f1: float
    current_macro_f1: float
    paired: PairedComparison

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON values, as the alias's history keeps it."""
        values = asdict(self)
        values["paired"] = self.paired.to_dict()
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What was asked and what came of it."""

    alias: str
    model: str
    before: str | None  # what the alias meant; None: nothing
    comparison: Comparison | None  # None: there was nothing to compare with
    objections: tuple[str, ...]  # what was overridden

    @property
    def changed(self) -> bool:
        """False where the alias meant that model already."""
        return self.model != self.before

    def as_json(self) -> dict[str, Any]:
        """The promotion as JSON values."""
        return {
            "alias": self.alias,
            "model": self.model,
            "before": self.before,
            "changed": self.changed,
            "override": bool(self.objections),
            "objections": list(self.objections),
            "comparison": None if self.comparison is None else self.comparison.as_json(),
        }


def compare_models(
    database: Database, *, candidate: str, current: str, taxonomy_version: str | None = None
) -> Comparison | None:
    """Compare two models on the newest evaluations of both on one set; None where there are none.

    ``taxonomy_version`` asks for one taxonomy in particular.
    """
    pair = latest_common_evaluations(database, candidate=candidate, current=current, taxonomy_version=taxonomy_version)
    return None if pair is None else compare_evaluations(*pair)


def compare_evaluations(candidate: StoredEvaluation, current: StoredEvaluation) -> Comparison:
    """Compare two evaluations of one set, photograph by photograph."""
    return Comparison(
        candidate=candidate.model,
        current=current.model,
        candidate_evaluation=candidate.evaluation_id,
        current_evaluation=current.evaluation_id,
        set_name=candidate.set_name,
        set_sha256=candidate.set_sha256,
        taxonomy_version=candidate.taxonomy_version,
        threshold=candidate.threshold,
        candidate_accuracy=float(candidate.figures["accuracy"]["value"]),
        current_accuracy=float(current.figures["accuracy"]["value"]),
        candidate_macro_f1=float(candidate.figures["macro_f1"]["value"]),
        current_macro_f1=float(current.figures["macro_f1"]["value"]),
        paired=compare_paired(candidate.verdicts, current.verdicts),
    )


def objections_to(
    candidate: ModelRow, *, current: str | None, comparison: Comparison | None, taxonomy_version: str
) -> tuple[str, ...]:
    """What speaks against ``candidate`` as champion in the place of ``current``; nothing, where it may be it.

    The first champion needs no evaluation: there is nothing that it could be worse than. ``comparison`` is one under
    the present ``taxonomy_version``: by an earlier one other answers were right.
    """
    found = []
    agreement = candidate.card.agreement
    if agreement is not None and not agreement.convinces:
        found.append(f"{candidate.model} is not known to agree with its float32 form: {agreement.sentence}")
    if current is not None and comparison is None:
        found.append(
            f"{candidate.model} and {current} were not evaluated on one and the same set under the present taxonomy "
            f"{taxonomy_version} and one threshold; evaluate both on it: refund model evaluate NAME@VERSION "
            f"--labels SET"
        )
    if comparison is not None and comparison.paired.photos < MIN_COMMON_PHOTOS:
        found.append(
            f"{comparison.set_name} has {comparison.paired.photos} photographs that both classified, at least "
            f"{MIN_COMMON_PHOTOS} are needed to see a loss; evaluate both on a larger set: refund model evaluate "
            f"NAME@VERSION --labels SET"
        )
    if comparison is not None:
        found += [
            f"on the {comparison.paired.photos} photographs of {comparison.set_name} its {name} is lower than that of "
            f"{comparison.current}, by more than chance: {difference_text(estimate)}"
            for name, estimate in (
                ("accuracy", comparison.paired.accuracy),
                ("macro-F1", comparison.paired.macro_f1),
            )
            if estimate.high < 0
        ]
    return tuple(found)


def difference_text(estimate: Estimate) -> str:
    """A difference and its interval for people, for example ``-0.040 (95 % interval -0.072 to -0.008)``."""
    return f"{estimate.value:+.3f} (95 % interval {estimate.low:+.3f} to {estimate.high:+.3f})"


def promote(
    services: Services,
    model: str,
    *,
    alias: str = "champion",
    by: str,
    reason: str,
    override: bool = False,
    request: str | None = None,
) -> Promotion:
    """Let an alias mean another model (itself an alias or ``name@version``), if the gate of `objections_to` lets it.

    A challenger passes without a comparison. ``override`` lets a champion through the gate; the history keeps that it
    did, and what was objected. What it was compared with must still be the alias's when it takes its place. A
    ``request`` that made a promotion already, see `Aliases.rollback`, changes nothing.

    Raises:
        SettingsError: no such alias, or no reason is given.
        NoModelError: the model is not registered.
        ModelRetiredError: it is retired; nothing overrides that.
        ModelArtefactError: its files are not those that were registered; nothing overrides that.
        PromotionRefusedError: something speaks against it, or the alias changed meanwhile.
    """
    check_alias(alias)
    check_reason(reason, f"a change of {alias} needs a reason; say why {model} shall be it")
    if made := made_for(services.registry.history(alias), request):
        return Promotion(alias=alias, model=made.model, before=made.model, comparison=None, objections=())
    row = services.registry.resolve(model)
    before = _meaning(services, alias)
    comparison, objections = None, tuple[str, ...]()
    if alias == "champion" and row.model != before and row.state != "retired":
        taxonomy = load_taxonomy(labels=load_labels()).version
        if before is not None:
            comparison = compare_models(
                services.database, candidate=row.model, current=before, taxonomy_version=taxonomy
            )
        objections = objections_to(row, current=before, comparison=comparison, taxonomy_version=taxonomy)
    if objections and not override:
        msg = (
            f"{row.model} does not become {alias}{f' in the place of {before}' if before else ''}: "
            f"{'; '.join(objections)}. To promote it all the same, give --override and say in --reason why"
        )
        raise PromotionRefusedError(msg)
    if row.model != before and row.state != "retired":
        _require_files(services, row)
    details: dict[str, Any] = {}
    if comparison is not None:
        details["comparison"] = comparison.as_json()
    if objections:
        details["objections"] = list(objections)
    move = services.registry.promote(
        alias,
        row.model,
        by=by,
        reason=reason,
        expected=before,
        override=bool(objections),
        details=details,
        request=request,
    )
    return Promotion(alias=alias, model=row.model, before=move.before, comparison=comparison, objections=objections)


def _require_files(services: Services, row: ModelRow) -> None:
    """A champion whose files are spoilt would be found at two in the morning, by the night that cannot run."""
    with tempfile.TemporaryDirectory(prefix="refund-promote-") as scratch:
        services.registry.download(row, Path(scratch))


def _meaning(services: Services, alias: str) -> str | None:
    try:
        return services.registry.resolve(alias).model
    except NoModelError:
        return None
