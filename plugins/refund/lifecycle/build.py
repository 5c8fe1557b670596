"""``refund model build``: from weights and photographs to registered models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import (
    BucketMissingError,
    LabelledSetError,
    ModelArtefactError,
    NoModelError,
    PromotionRefusedError,
    RejectedPhotoError,
)
from refund.lifecycle.photographs import (
    LabelledSet,
    Photograph,
    decode_photographs,
    find_photographs,
    is_s3,
    labelled_photographs,
)
from refund.model.build import Built, build_models
from refund.model.calibration import CalibrationSet
from refund.model.card import ModelCard
from refund.model.labels import load_labels
from refund.model.network import named_network
from refund.model.taxonomy import load_taxonomy
from refund.model.unit import write_card
from refund.model_params import check_packaged
from refund.store.objects import ObjectStore

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.settings import S3Access
    from refund.store.registry import ModelRow

CHAMPION = "champion"
MAX_PHOTOS = 5000  # decoded for one build, 150 kB each on disk; a bucket prefix may hold millions


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """What was built and registered, which form is served, and who is champion now."""

    registered: tuple[str, ...]  # name@version of every unit, as the registry has it
    cards: tuple[ModelCard, ...]  # of the same, as they were registered first
    served: str  # name@version
    reason: str  # why that one
    champion: str | None  # now
    became_champion: bool

    def as_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        agreements = [card.agreement for card in self.cards if card.agreement is not None]
        return {
            "model": self.served,
            "registered": list(self.registered),
            "served_because": self.reason,
            "agreement": agreements[0].state if agreements else None,
            "champion": self.champion,
            "became_champion": self.became_champion,
        }


def build_and_register(
    services: Services,
    *,
    weights: str | None,
    alpha: float = 1.0,
    input_px: int = 224,
    calibrate: str | None,
    packaged: bool = False,
    allow_fallback: bool,
    champion: bool,
    by: str,
    reason: str,
    version: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> BuildOutcome:
    """Build float32 and, with photographs to ``calibrate`` on, int8; register both as candidates.

    ``weights`` (a path or ``s3://bucket/key``) are those of the setting unless given. With ``packaged`` neither they
    nor a download is tried: the packaged network is taken on purpose. ``calibrate`` is a folder or
    ``s3://bucket/prefix/``; where all photographs there carry labels, as
    `refund.lifecycle.photographs.labelled_photographs` reads them, accuracy is measured too. The served form becomes
    champion where ``champion`` asks for it and there is none yet; a champion that is there stays.

    Raises:
        ConfigurationError: as `refund.model.build.build_models`; nothing is registered then.
        SettingsError: ``packaged`` together with what only another network has.
        LabelledSetError: there are too few photographs.
        ModelExistsError: the ``version`` given is registered with other content.
    """
    tell = progress or (lambda _: None)
    network = named_network(alpha=alpha, input_px=input_px)
    if packaged:
        check_packaged(weights=weights, alpha=alpha, input_px=input_px, calibrate=calibrate)
        if services.settings.weights:
            tell(f"REFUND_WEIGHTS ({services.settings.weights}) is not used: the packaged network was asked for")
    elif not weights:
        weights = services.settings.weights
    with tempfile.TemporaryDirectory(prefix="refund-model-") as folder:
        scratch = Path(folder)
        file = weights_file(weights, scratch, s3=services.objects.access) if weights else None
        photographs = None
        if calibrate:
            photographs = calibration_set(
                calibrate, side_px=network.input_px, services=services, folder=scratch, tell=tell
            )
        target = scratch / "models"
        built = build_models(
            target,
            weights=file,
            alpha=network.alpha,
            input_px=network.input_px,
            calibration=photographs,
            allow_download=not packaged,
            allow_fallback=allow_fallback or packaged,
            version=version,
            progress=tell,
        )
        rows = [_register(services, target / card.precision, card, by=by, tell=tell) for card in built.cards]
    return _outcome(services, built, rows, champion=champion, by=by, reason=reason)


def calibration_set(
    where: str, *, side_px: int, services: Services, folder: Path, tell: Callable[[str], None]
) -> CalibrationSet:
    """Find, read and decode the photographs of a build; those that cannot be decoded are left out, which is said.

    Raises:
        LabelledSetError: nothing is there, a CSV is faulty, or too few can be decoded.
    """
    labelled = _labelled(where, services, tell)
    found = list(labelled.photographs) if labelled else find_photographs(where, services=services)
    chosen = range(len(found))[:MAX_PHOTOS]
    if len(found) > MAX_PHOTOS:
        tell(f"taking the first {MAX_PHOTOS:,} of {len(found):,} photographs in {where}, in the order of their names")
    decoded = decode_photographs(
        [found[index] for index in chosen], size=(side_px, side_px), services=services, folder=folder
    )
    rows: dict[str, int] = {}  # SHA-256 -> the first row that has it
    doubtful = set()  # photographs that lie there twice, under two labels
    for row, facts in enumerate(decoded.facts):
        if facts.ok and facts.sha256 is not None:
            first = rows.setdefault(facts.sha256, row)
            if labelled and _truth(labelled, first) != _truth(labelled, row):
                doubtful.add(facts.sha256)
    rejected = [(found[row], facts.detail) for row, facts in enumerate(decoded.facts) if not facts.ok]
    _tell_left_out(rejected, duplicates=len(chosen) - len(rejected) - len(rows), doubtful=len(doubtful), tell=tell)
    truths = [
        _truth(labelled, row) if labelled and digest not in doubtful else (None, None) for digest, row in rows.items()
    ]
    return CalibrationSet(
        source=where,
        pixels=decoded.pixels,
        rows=tuple(rows.values()),
        sha256s=tuple(rows),
        class_ids=tuple(class_id for class_id, _ in truths),
        categories=tuple(category for _, category in truths),
        rejected=len(rejected),
    )


def _truth(labelled: LabelledSet, row: int) -> tuple[str | None, str | None]:
    return labelled.class_ids[row], labelled.categories[row]


def _labelled(where: str, services: Services, tell: Callable[[str], None]) -> LabelledSet | None:
    labels = load_labels()
    try:
        return labelled_photographs(where, taxonomy=load_taxonomy(labels=labels), labels=labels, services=services)
    except LabelledSetError as exc:
        if where.lower().endswith(".csv"):
            raise
        find_photographs(where, services=services)  # raises where it is the photographs that are not there
        tell(f"accuracy is not measured, for not every photograph has a label: {str(exc).splitlines()[0]}")
        return None


def _tell_left_out(
    rejected: list[tuple[Photograph, str | None]], *, duplicates: int, doubtful: int, tell: Callable[[str], None]
) -> None:
    if rejected:
        first, detail = rejected[0]
        tell(f"left out {len(rejected)} photographs that cannot be decoded, first {first.place}: {detail}")
    if duplicates:
        tell(f"left out {duplicates} photographs that lie there twice")
    if doubtful:
        tell(f"{doubtful} photographs lie there under two labels, so neither counts")


def _register(services: Services, folder: Path, card: ModelCard, *, by: str, tell: Callable[[str], None]) -> ModelRow:
    others = [row.card for row in services.registry.list() if _is_twin(row.card, card)]
    if others and not any(known.artefact_sha256 == card.artefact_sha256 for known in others):
        card = replace(card, differs_from=difference(others[0], card))
        tell(str(card.differs_from))
        write_card(folder, card)
    row = services.registry.register(folder, created_by=by)
    services.registry.fetch(row.model, services.settings.cache_folder)
    seen, kept = card.agreement, row.card.agreement
    if seen is not None and kept is not None and seen != kept:
        tell(
            f"{row.model} is registered already, and its card stays: there {kept.sentence} ({kept.state}); "
            f"now {seen.sentence} ({seen.state}). To keep both, build with --version"
        )
    return row


def _is_twin(known: ModelCard, card: ModelCard) -> bool:
    return card.inputs_sha256 is not None and known.inputs_sha256 == card.inputs_sha256


def difference(known: ModelCard, new: ModelCard) -> str:
    """What differs between two builds of the same inputs that gave other bytes, in a sentence."""
    names = sorted(known.built_with.keys() | new.built_with.keys())
    changes = [
        f"{name} {known.built_with.get(name, 'none')} → {new.built_with.get(name, 'none')}"
        for name in names
        if known.built_with.get(name) != new.built_with.get(name)
    ]
    what = ", ".join(changes) or "nothing that the cards record, so the conversion is not deterministic here"
    return f"same inputs as {known.key} but other bytes; what differed: {what}"


def _outcome(
    services: Services, built: Built, rows: list[ModelRow], *, champion: bool, by: str, reason: str
) -> BuildOutcome:
    kept = {row.card.precision: row.card for row in rows}  # the cards that were registered first
    built = Built(float32=kept.get("float32"), int8=kept.get("int8"))
    served = built.served.key
    current = current_champion(services)
    became = False
    if champion and current is None:
        try:
            became = services.registry.promote(CHAMPION, served, by=by, reason=reason, expected=None).changed
        except PromotionRefusedError:  # another became champion meanwhile, and it stays
            became = False
        current = current_champion(services)
    return BuildOutcome(
        registered=tuple(row.model for row in rows),
        cards=built.cards,
        served=served,
        reason=built.reason,
        champion=current,
        became_champion=became,
    )


def current_champion(services: Services) -> str | None:
    """The champion's key, or None where there is none yet."""
    try:
        return services.registry.resolve(CHAMPION).model
    except NoModelError:
        return None


def weights_file(weights: str, scratch: Path, *, s3: S3Access) -> Path:
    """A local path as it is; what ``s3://bucket/key`` names is copied into ``scratch``.

    Raises:
        ModelArtefactError: there is no such object.
    """
    if not is_s3(weights):
        return Path(weights)
    bucket, _, key = weights.removeprefix("s3://").partition("/")
    remedy = "correct --weights or REFUND_WEIGHTS, which read s3://bucket/key, or upload the weights there"
    if not bucket or not key or key.endswith("/"):
        msg = f"{weights} names no object; {remedy}"
        raise ModelArtefactError(msg)
    target = scratch / Path(key).name
    try:
        ObjectStore(replace(s3, bucket=bucket)).download(key, target)
    except (RejectedPhotoError, BucketMissingError) as exc:
        what = f"bucket {bucket!r}" if isinstance(exc, BucketMissingError) else f"object {key!r}"
        msg = f"{weights} is not there, S3 at {s3.place} has no {what}; {remedy}"
        raise ModelArtefactError(msg) from exc
    return target
