"""``refund model import``: a model that was built elsewhere, checked without trusting it, becomes a candidate."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from refund.errors import (
    BucketMissingError,
    LabelMismatchError,
    ModelArtefactError,
    ModelRetiredError,
    RejectedPhotoError,
    SettingsError,
)
from refund.lifecycle.outside import Seen, look, try_out
from refund.model.card import CARD_FILE, ModelCard
from refund.model.labels import Labels, load_labels
from refund.model.load import MAX_ARTEFACT_BYTES, read_card
from refund.store.objects import ObjectStore

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.store.registry import ModelRow

MAX_CARD_BYTES = 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_LITERT_MARK = b"TFL3"  # bytes 4 to 7 of every .tflite file
_FOREIGN = (
    (b"\x89HDF", "HDF5", "build a model from Keras weights: refund model build --weights FILE.h5"),
    (b"PK", "a zip archive, as .keras and .pt are", "save Keras weights as .h5 and run: refund model build --weights"),
    (b"\x80", "a pickle", "pickles are never read: export the network as .tflite"),
)
_SUFFIXES = {
    ".h5": _FOREIGN[0][1:],
    ".hdf5": _FOREIGN[0][1:],
    ".keras": _FOREIGN[1][1:],
    ".pt": _FOREIGN[1][1:],
    ".pth": _FOREIGN[1][1:],
    ".zip": _FOREIGN[1][1:],
    ".pkl": _FOREIGN[2][1:],
    ".pickle": _FOREIGN[2][1:],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BareFile:
    """What a .tflite file without a card does not say of itself.

    ``input_scale`` and ``input_offset`` are needed where it takes float32: it is given ``x * scale + offset`` for every
    pixel value x from 0 to 255.
    """

    name: str
    version: str
    output: str  # probabilities, logits
    input_scale: float | None = None
    input_offset: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A model that was taken into the registry."""

    row: ModelRow
    seen: Seen


def import_model(
    services: Services,
    source: str,
    *,
    by: str,
    bare: BareFile | None = None,
    labels: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Check a model from a folder, ``s3://bucket/prefix/`` or a .tflite file, and register it as a candidate.

    A folder holds ``card.json`` and its artefact; a .tflite file comes with ``bare``. Whatever is wrong, nothing is
    registered.

    Raises:
        SettingsError: ``bare`` is missing for a file, or given for a folder.
        ModelArtefactError: a file is missing, of a foreign format, altered, or not what its card says.
        LabelMismatchError: the network's outputs are not as many as the classes.
        ModelExistsError: this ``name@version`` is registered with other content.
        ModelRetiredError: it is registered, and retired.
    """
    known = load_labels()
    if labels is not None:
        _require_our_labels(load_labels(labels), known, labels)
    with tempfile.TemporaryDirectory(prefix="refund-import-") as scratch:
        folder = Path(scratch)
        progress(f"reading {source}")
        card = None
        if _is_file(source):
            bare = _require_bare(source, bare)
            artefact, place = folder / "model.tflite", source
            _copy(source, artefact, services, max_bytes=MAX_ARTEFACT_BYTES)
        else:
            card = _collect_folder(source, bare, folder, services)
            artefact, place = folder / card.artefact_file, f"{source.rstrip('/')}/{card.artefact_file}"
        _check_format(artefact, place)
        progress(f"opening {place} in a process of its own")
        seen = look(artefact, place=place)
        if card is None and bare is not None:
            made = _make_card(bare, seen, artefact, source=source, labels=known)
            (folder / CARD_FILE).write_text(made.to_json(), encoding="utf-8")
        card = read_card(folder)
        if seen.output_shape[-1] != len(known):
            raise LabelMismatchError(model_key=card.key, output_count=seen.output_shape[-1], label_count=len(known))
        try_out(folder, place=source)
        progress(f"{card.key} loads and predicts: {seen.sentence}")
        row = services.registry.register(folder, created_by=by)
        if row.state == "retired":
            raise ModelRetiredError(model=row.model)
        return Imported(row=row, seen=seen)


def _is_file(source: str) -> bool:
    return not source.endswith("/") and (source.startswith("s3://") or not os.path.isdir(source))  # noqa: PTH112 -- see below


def _collect_folder(source: str, bare: BareFile | None, folder: Path, services: Services) -> ModelCard:
    if bare is not None:
        msg = f"{source} is a folder, whose card says everything; leave --name, --version and --output out"
        raise SettingsError(msg)
    source = f"{source.rstrip('/')}/"
    _copy(f"{source}{CARD_FILE}", folder / CARD_FILE, services, max_bytes=MAX_CARD_BYTES)
    try:
        card = read_card(folder)
    except ModelArtefactError as exc:
        raise ModelArtefactError(str(exc).replace(f"{folder}/", source)) from exc
    if card.runtime != "litert":
        msg = (
            f"{source}{CARD_FILE} is of a unit for {card.runtime}, nights run LiteRT alone; build one from the Keras "
            f"weights: refund model build --weights FILE.h5"
        )
        raise ModelArtefactError(msg)
    suffix = Path(card.artefact_file).suffix.lower()
    if suffix != ".tflite":
        what = _SUFFIXES.get(suffix, ("no .tflite file", "export the network as .tflite"))
        raise ModelArtefactError(_foreign(f"{source}{card.artefact_file}", *what))
    _copy(f"{source}{card.artefact_file}", folder / card.artefact_file, services, max_bytes=MAX_ARTEFACT_BYTES)
    digest = sha256((folder / card.artefact_file).read_bytes()).hexdigest()
    if digest != card.artefact_sha256:
        msg = (
            f"{source}{card.artefact_file} has SHA-256 {digest}, its card says {card.artefact_sha256}: it was altered "
            f"or damaged; get both files anew from where they were built"
        )
        raise ModelArtefactError(msg)
    return card


def _require_bare(source: str, bare: BareFile | None) -> BareFile:
    """What was said of a file without a card, once its name shows that it may be one."""
    suffix = Path(source).suffix.lower()
    if suffix in _SUFFIXES:
        raise ModelArtefactError(_foreign(source, *_SUFFIXES[suffix]))
    # not Path.exists, which raises OSError for a name that is too long or lies in a folder that one may not enter
    if not source.startswith("s3://") and not os.path.exists(source):  # noqa: PTH110
        msg = f"{source} is not there; give a folder with {CARD_FILE} and its artefact, or a .tflite file"
        raise ModelArtefactError(msg)
    if suffix != ".tflite":
        msg = f"{source} is no .tflite file; give one, or a folder with {CARD_FILE} and its artefact (s3://…/)"
        raise ModelArtefactError(msg)
    if bare is None:
        msg = (
            f"{source} comes without a card; say --name, --version and --output, and where it takes float32 "
            f"--input-scale and --input-offset"
        )
        raise SettingsError(msg)
    return bare


def _copy(source: str, target: Path, services: Services, *, max_bytes: int) -> None:
    """Copy one file here, so that what is checked is what is registered."""
    if source.startswith("s3://"):
        bucket, _, key = source.removeprefix("s3://").partition("/")
        objects = ObjectStore(replace(services.objects.access, bucket=bucket))
        try:
            found = objects.head(key)
            size_bytes = None if found is None else found.size_bytes
            if size_bytes is not None and size_bytes <= max_bytes:
                objects.download(key, target)
        except (RejectedPhotoError, BucketMissingError) as exc:
            msg = f"{source} cannot be read: {exc}"
            raise ModelArtefactError(msg) from exc
    else:
        try:
            size_bytes = _copy_file(Path(source), target, max_bytes=max_bytes)
        except OSError as exc:
            msg = f"{source} cannot be read: {exc.strerror}; correct its rights or its name"
            raise ModelArtefactError(msg) from exc
    if size_bytes is None:
        msg = f"{source} is missing; a model from outside is a folder with {CARD_FILE} and the artefact that it names"
        raise ModelArtefactError(msg)
    if size_bytes > max_bytes:
        msg = f"{source} has {size_bytes:,} bytes, expected at most {max_bytes:,}; choose a smaller network"
        raise ModelArtefactError(msg)


def _copy_file(source: Path, target: Path, *, max_bytes: int) -> int | None:
    """Copy a regular file and return its size; None for a pipe or device, and nothing is kept of a larger one.

    Counted while it is read: a file may grow, and those of /proc say that they have no bytes at all.
    """
    if not source.is_file():
        return None
    size_bytes = source.stat().st_size
    if size_bytes <= max_bytes:
        size_bytes = 0
        with source.open("rb") as reading, target.open("wb") as writing:
            while size_bytes <= max_bytes and (chunk := reading.read(_CHUNK_BYTES)):
                size_bytes += len(chunk)
                writing.write(chunk)
    return size_bytes


def _check_format(artefact: Path, place: str) -> None:
    """Refuse what is no LiteRT file by its first bytes, before anything opens it."""
    with artefact.open("rb") as stream:
        head = stream.read(8)
    if head[4:8] == _LITERT_MARK:
        return
    for mark, what, remedy in _FOREIGN:
        if head.startswith(mark):
            raise ModelArtefactError(_foreign(place, what, remedy))
    msg = f"{place} begins with {head!r}, a LiteRT file has TFL3 at its fifth byte; export the network as .tflite"
    raise ModelArtefactError(msg)


def _foreign(place: str, what: str, remedy: str) -> str:
    return f"{place} is {what}, expected a LiteRT model (.tflite); {remedy}"


def _make_card(bare: BareFile, seen: Seen, artefact: Path, *, source: str, labels: Labels) -> ModelCard:
    if len(seen.input_shape) != 4 or seen.input_shape[0] != 1 or seen.input_shape[3] != 3:
        msg = f"{source} takes input of shape {list(seen.input_shape)}, expected [1, height, width, 3]; export it again"
        raise ModelArtefactError(msg)
    scale, offset = bare.input_scale, bare.input_offset
    if seen.input_type == "uint8":
        scale, offset = (1.0 if scale is None else scale), (0.0 if offset is None else offset)
    if scale is None or offset is None:
        msg = (
            f"{source} takes {seen.input_type} pixels; say how they are made of 0 to 255: --input-scale and "
            f"--input-offset (for -1 to 1: 0.00784313725490196 and -1)"
        )
        raise SettingsError(msg)
    digest = sha256(artefact.read_bytes()).hexdigest()
    try:
        return ModelCard(
            name=bare.name,
            version=bare.version,
            runtime="litert",
            artefact_file=artefact.name,
            artefact_sha256=digest,
            input_height=seen.input_shape[1],
            input_width=seen.input_shape[2],
            input_scale=scale,
            input_offset=offset,
            output=bare.output,
            class_count=len(labels),
            labels_sha256=labels.sha256,
            precision=seen.precision,
            source=f"imported from {Path(source).name}",
            source_sha256=digest,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    except ValueError as exc:
        msg = f"no card can be made for {source}: {exc}"
        raise SettingsError(msg) from exc


def _require_our_labels(given: Labels, known: Labels, path: Path) -> None:
    if given.sha256 == known.sha256:
        return
    pairs = zip(given.class_ids, given.class_names, known.class_ids, known.class_names, strict=True)
    for line, (class_id, name, our_id, our_name) in enumerate(pairs, start=2):
        if (class_id, name) != (our_id, our_name):
            msg = (
                f"{path} line {line} says {class_id} {name!r}, the project's own class list {our_id} {our_name!r}; "
                f"every model gives its scores in that order: export the network in the order of "
                f"include/imagenet_classes.csv"
            )
            raise ModelArtefactError(msg)
