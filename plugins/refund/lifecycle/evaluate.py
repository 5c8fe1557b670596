"""Evaluate a registered model on labelled photographs and keep the result with its version."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund import __version__
from refund.errors import LabelledSetError
from refund.lifecycle.label_files import Label, refuse
from refund.lifecycle.photographs import LabelledSet, decode_photographs, labelled_photographs
from refund.monitor.accuracy import Figures, Verdict, evaluate_predictions
from refund.night.services import Services, Stopwatch
from refund.night.try_photos import score_photos
from refund.params import NightParams
from refund.records import DecisionKind
from refund.store.evaluations import save_evaluation

if TYPE_CHECKING:
    from refund.model.card import ModelCard
    from refund.model.load import Model
    from refund.model.taxonomy import Taxonomy
    from refund.store.registry import ModelRow

log = logging.getLogger(__name__)

_BLOCK = 2_000  # photographs decoded to disk at once: 300 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Photographs of a set that no ratio counts, and files that are none."""

    rejected: tuple[tuple[str, str], ...] = ()  # where it lies, and the reason code with its detail
    duplicates: int = 0  # the same bytes once more, with the same label
    ignored: int = 0  # files that are named otherwise than photographs

    def to_dict(self) -> dict[str, Any]:
        """Counts as JSON values, the rejected by reason code."""
        reasons = Counter(reason.partition(":")[0] for _, reason in self.rejected)
        return {"rejected": dict(sorted(reasons.items())), "duplicates": self.duplicates, "ignored": self.ignored}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation as it was stored."""

    evaluation_id: int
    model: str  # name@version
    set_name: str
    set_sha256: str  # of the classified photographs' digests and labels
    taxonomy_version: str
    threshold: float
    photos: int  # distinct photographs of the set
    figures: Figures
    left_out: LeftOut
    plot_uri: str | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return {
            "evaluation_id": self.evaluation_id,
            "model": self.model,
            "set_name": self.set_name,
            "set_sha256": self.set_sha256,
            "taxonomy_version": self.taxonomy_version,
            "threshold": self.threshold,
            "photos": self.photos,
            "classified": self.figures.photos,
            "figures": {**self.figures.to_dict(), "left_out": self.left_out.to_dict()},
            "rejected": [{"photo": place, "reason": reason} for place, reason in self.left_out.rejected],
            "plot_uri": self.plot_uri,
            "seconds": self.seconds,
        }


def evaluate_model(
    services: Services,
    *,
    model: str,
    where: str,
    threshold: float,
    by: str,
    progress: Callable[[str], None] = log.info,
) -> Evaluation:
    """Classify a labelled set with a model (an alias or name@version, retired or not), measure it, store the figures.

    ``where`` is what `labelled_photographs` reads; ``threshold`` is the category score, 0 to 1, below which a photo
    goes to review. Nothing is stored unless everything but the plot succeeds.

    Raises:
        NoModelError: the model is not registered.
        ModelArtefactError: its files are not those that were registered.
        LabelledSetError: the set cannot be read, a photograph has two labels, or none could be classified.
    """
    from refund.model.labels import load_labels
    from refund.model.load import load_model
    from refund.model.taxonomy import load_taxonomy

    watch = Stopwatch()
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    row = services.registry.resolve(model)
    given = labelled_photographs(where, taxonomy=taxonomy, labels=labels, services=services)
    progress(f"Classifying {len(given.photographs)} photographs with {row.model}")
    params = NightParams(review_threshold=threshold, top_k=1)
    threads = services.settings.inference_threads or services.settings.cores
    with _model_folder(row, services) as folder, load_model(folder, threads=threads) as loaded:
        verdicts, left_out = classify_set(given, model=loaded, taxonomy=taxonomy, params=params, services=services)
    progress(f"Measuring {len(verdicts)} verdicts")
    flags = [kind is DecisionKind.AUTO for _, kind in verdicts]
    said = [verdict for verdict, _ in verdicts]
    figures = evaluate_predictions(said, auto=flags)
    digest = set_digest(said)
    plot_uri = _keep_plot(figures, row.card, given.name, f"{digest[:8]}-{taxonomy.version}", services)
    evaluation_id = save_evaluation(
        services.database,
        model=row.model,
        set_name=given.name,
        set_sha256=digest,
        taxonomy_version=taxonomy.version,
        threshold=threshold,
        photos=len(given.photographs) - left_out.duplicates,
        figures={**figures.to_dict(), "left_out": left_out.to_dict()},
        verdicts=said,
        plot_uri=plot_uri,
        code_version=__version__,
        evaluated_by=by,
    )
    return Evaluation(
        evaluation_id=evaluation_id,
        model=row.model,
        set_name=given.name,
        set_sha256=digest,
        taxonomy_version=taxonomy.version,
        threshold=threshold,
        photos=len(given.photographs) - left_out.duplicates,
        figures=figures,
        left_out=left_out,
        plot_uri=plot_uri,
        seconds=watch.seconds,
    )


def classify_set(
    given: LabelledSet, *, model: Model, taxonomy: Taxonomy, params: NightParams, services: Services
) -> tuple[list[tuple[Verdict, DecisionKind]], LeftOut]:
    """The model's verdict on every distinct photograph that can be decoded, and what was left out.

    Raises:
        LabelledSetError: a photograph is there twice with two labels, or none could be classified.
    """
    verdicts: dict[str, tuple[Verdict, DecisionKind]] = {}
    seen: dict[str, tuple[str, Label]] = {}
    rejected: list[tuple[str, str]] = []
    contradictions: list[str] = []
    duplicates = 0
    size = (model.card.input_width, model.card.input_height)
    for start in range(0, len(given.photographs), _BLOCK):
        block = given.photographs[start : start + _BLOCK]
        with tempfile.TemporaryDirectory(prefix="refund-evaluate-") as scratch:
            decoded = decode_photographs(block, size=size, services=services, folder=Path(scratch))
            scored = score_photos(decoded.pixels, decoded.facts, model=model, taxonomy=taxonomy, params=params)
        for slot, fact in enumerate(decoded.facts):
            place = block[slot].place
            label = Label(category=given.categories[start + slot], class_id=given.class_ids[start + slot])
            if fact.reason is not None or fact.sha256 is None:
                rejected.append((place, f"{fact.reason}: {fact.detail}"))
                continue
            if fact.sha256 in seen:
                duplicates += 1
                if seen[fact.sha256][1] != label:
                    other, first = seen[fact.sha256]
                    contradictions.append(
                        f"{place} ({_words(label)}) is the same photograph as {other} ({_words(first)})"
                    )
                continue
            seen[fact.sha256] = (place, label)
            photo = scored[slot]
            verdict = Verdict(
                photo_sha256=fact.sha256,
                true_category=label.category,
                true_class_id=label.class_id,
                category=photo.decision.category,
                category_score=photo.decision.score,
                class_id=photo.top[0].class_id,
                confidence=photo.top[0].confidence,
            )
            verdicts[fact.sha256] = (verdict, photo.decision.kind)
    refuse(contradictions, place=given.name)
    if not verdicts:
        raise LabelledSetError(_nothing_left(given, rejected))
    left_out = LeftOut(rejected=tuple(rejected), duplicates=duplicates, ignored=given.ignored)
    return [verdicts[digest] for digest in sorted(verdicts)], left_out


def set_digest(verdicts: Sequence[Verdict]) -> str:
    """SHA-256, hex, of the photographs' digests and labels, in whatever order: the same digest is the same set."""
    lines = sorted(f"{row.photo_sha256}\t{row.true_category}\t{row.true_class_id or ''}\n" for row in verdicts)
    return sha256("".join(lines).encode()).hexdigest()


@contextmanager
def _model_folder(row: ModelRow, services: Services) -> Iterator[Path]:
    """The cached copy; of a retired model, which the cache does not take, one for this evaluation."""
    if row.state != "retired":
        yield services.registry.fetch(row.model, services.settings.cache_folder)
        return
    with tempfile.TemporaryDirectory(prefix="refund-retired-") as scratch:
        services.registry.download(row, Path(scratch))
        yield Path(scratch)


def _words(label: Label) -> str:
    return f"{label.category}, {label.class_id}" if label.class_id else label.category


def _nothing_left(given: LabelledSet, rejected: Sequence[tuple[str, str]]) -> str:
    reasons: Mapping[str, int] = Counter(reason.partition(":")[0] for _, reason in rejected)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    place, reason = rejected[0]
    return (
        f"none of the {len(given.photographs)} photographs of {given.name} could be classified ({counts}), for example "
        f"{place}: {reason}; expected images that the night would take"
    )


def _keep_plot(figures: Figures, card: ModelCard, set_name: str, name: str, services: Services) -> str | None:
    from refund.report.reliability import reliability_plot

    key = f"models/{card.name}/{card.version}/evaluations/{name}.png"
    try:
        plot = reliability_plot(figures, model=card.key, set_name=set_name, image_format="png")
        services.objects.put(key, plot, content_type="image/png")
    except Exception as exc:  # noqa: BLE001 -- the figures count; a plot that cannot be drawn or kept is a warning
        log.warning("The reliability plot of %s was not kept: %s", card.key, exc)
        return None
    return services.objects.uri(key)
