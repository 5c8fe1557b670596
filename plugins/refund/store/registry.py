"""The model registry: artefacts and cards in the bucket, versions and aliases in Postgres.

A version is immutable: registering it again with the same content changes nothing, with other content it is refused.
Registering holds a lock of that version from the first look to the row's commit, and uploads in between: without a row
there is no model, whatever lies in the bucket, and of two builders only one ever writes there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import ModelArtefactError, ModelExistsError, ModelRetiredError, NoModelError, RejectedPhotoError
from refund.model.card import CARD_FILE, ModelCard
from refund.store.aliases import Aliases, audit
from refund.store.scratch import scratch_folder

if TYPE_CHECKING:
    from refund.store.database import Database
    from refund.store.objects import ObjectStore

PREFIX = "models/"
_FETCHING = ".fetch-"  # in the cache: folders of models under way
# What decides a model's predictions: in the rest of the card (when, with what, from where, measured how) two builds of
# one version may differ, and the card that was registered first stays.
_CONTENT = (
    "name", "version", "runtime", "artefact_file", "artefact_sha256", "input_height", "input_width", "input_scale",
    "input_offset", "output", "class_count", "labels_sha256", "precision",
)  # fmt: skip

LIST_MODELS = """
SELECT m.model, m.uri, m.sha256, m.card::text, m.state, m.created_at, m.created_by,
       ARRAY(SELECT h.alias FROM refund.model_alias_history h
             WHERE h.model = m.model AND h.ended_at IS NULL ORDER BY 1),
       e.set_name, (e.figures #>> '{accuracy,value}')::double precision
FROM refund.model m
LEFT JOIN LATERAL (
  SELECT v.set_name, v.figures FROM refund.evaluation v WHERE v.model = m.model ORDER BY v.evaluation_id DESC LIMIT 1
) e ON true
WHERE %(wanted)s::text IS NULL OR m.model = %(wanted)s
   OR m.model = (SELECT h.model FROM refund.model_alias_history h WHERE h.alias = %(wanted)s AND h.ended_at IS NULL)
ORDER BY m.created_at DESC, m.model
"""

INSERT_MODEL = """
INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by)
VALUES (%(model)s, %(name)s, %(version)s, %(uri)s, %(sha256)s, %(card)s, %(created_by)s)
"""

LOCK_MODEL = "SELECT pg_advisory_xact_lock(hashtext('refund.model.' || %(model)s))"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One registered model version."""

    model: str  # name@version
    uri: str  # the folder of artefact and card
    sha256: str  # of the artefact
    card: ModelCard
    state: str  # candidate, retired
    created_at: datetime
    created_by: str
    aliases: tuple[str, ...]  # those that mean it now
    evaluated_on: str | None  # the labelled set of its latest evaluation
    accuracy: float | None  # on that set, 0 to 1

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {
            "model": self.model,
            "uri": self.uri,
            "sha256": self.sha256,
            "state": self.state,
            "created_at": self.created_at.isoformat(),
            "created_by": self.created_by,
            "aliases": list(self.aliases),
            "evaluated_on": self.evaluated_on,
            "accuracy": self.accuracy,
            "card": json.loads(self.card.to_json()),
        }


class Registry(Aliases):
    """Registers, finds and fetches models; what the aliases mean, and their changes, come with `Aliases`."""

    def __init__(self, *, objects: ObjectStore, database: Database) -> None:
        super().__init__(database)
        self.objects = objects

    def list(self) -> Sequence[ModelRow]:
        """Every registered model, newest first."""
        return self._find(None)

    def resolve(self, wanted: str) -> ModelRow:
        """The model that an alias or ``name@version`` means now.

        Raises:
            NoModelError: none is registered so.
        """
        storable = wanted.isprintable()  # Postgres takes no NUL and no half of a surrogate pair
        found = self._find(wanted) if storable else ()
        if not found:
            raise NoModelError(wanted=wanted)
        return found[0]

    def register(self, folder: Path, *, created_by: str) -> ModelRow:
        """Upload a built model (card and artefact) and add it to the registry as a candidate.

        Registering the same model again returns the row that is there and puts back what the bucket lost or changed.
        Killed at any point, it leaves either the model or no model; the same call then does the rest.

        Raises:
            ModelArtefactError: the folder is not a whole model, or the artefact is not what its card says.
            ModelExistsError: this ``name@version`` is registered with other content.
        """
        card = check_folder(folder)
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(LOCK_MODEL, {"model": card.key})
            for row in _select(cursor, card.key):
                _require_same(row.card, card)
                self._put_back(row, folder / card.artefact_file)
                return row
            prefix = f"{PREFIX}{card.name}/{card.version}/"
            self.objects.upload(folder / card.artefact_file, prefix + card.artefact_file)
            self.objects.put(prefix + CARD_FILE, card.to_json().encode())
            values = {
                "model": card.key,
                "name": card.name,
                "version": card.version,
                "uri": self.objects.uri(prefix),
                "sha256": card.artefact_sha256,
                "card": card.to_json(),
                "created_by": created_by,
            }
            cursor.execute(INSERT_MODEL, values)
            audit(cursor, by=created_by, action="model.register", subject=card.key, details={})
            (row,) = _select(cursor, card.key)
        return row

    def fetch(self, model: str, cache_dir: Path) -> Path:
        """The model's folder on this machine, downloaded unless it is there, and checked either way.

        Raises:
            NoModelError: it is not registered.
            ModelRetiredError: it is retired.
            ModelArtefactError: a file is missing in the bucket, or is not the one that was registered.
        """
        row = self.resolve(model)
        if row.state == "retired":
            raise ModelRetiredError(model=row.model)
        target = cache_dir / row.model
        if target.is_dir():
            try:
                return _checked(target, row, place=str(target))
            except ModelArtefactError:
                shutil.rmtree(target, ignore_errors=True)  # a spoilt copy: fetch it anew
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with scratch_folder(cache_dir, prefix=_FETCHING) as temporary:
            self.download(row, temporary)
            try:
                temporary.rename(target)
            except OSError:  # another task was faster; its copy must be as good
                if not target.is_dir():
                    raise
        return _checked(target, row, place=str(target))

    def download(self, row: ModelRow, folder: Path, *, exact: bool = False) -> None:
        """Write card and artefact into ``folder`` and check both, whatever the model's state.

        ``exact`` refuses also a card that differs from the row's in what decides no prediction, as its metrics.

        Raises:
            ModelArtefactError: a file is missing in the bucket, or is not the one that was registered.
        """
        prefix = self._prefix(row)
        for name in (CARD_FILE, row.card.artefact_file):
            try:
                self.objects.download(prefix + name, folder / name)
            except RejectedPhotoError as exc:
                msg = (
                    f"{row.uri}{name} of model {row.model} is missing; put it back, or build and register the model "
                    f"again: refund model build"
                )
                raise ModelArtefactError(msg) from exc
        _checked(folder, row, place=row.uri, exact=exact)

    def strangers(self, row: ModelRow) -> Sequence[str]:
        """The objects beside a model's files that are none of them, as URIs: what a killed registration left.

        Folders below are not looked into: evaluations keep their plots there.
        """
        prefix = self._prefix(row)
        mine = {prefix + CARD_FILE, prefix + row.card.artefact_file}
        return [self.objects.uri(item.key) for item in self.objects.list_level(prefix)[1] if item.key not in mine]

    def _prefix(self, row: ModelRow) -> str:
        return row.uri.removeprefix(self.objects.uri(""))

    def _put_back(self, row: ModelRow, artefact: Path) -> None:
        """Write again what the bucket lost or changed; ``artefact`` is a file that was checked."""
        prefix = self._prefix(row)
        with scratch_folder(Path(tempfile.gettempdir()), prefix="refund-model-") as folder:
            try:
                self.download(row, folder, exact=True)
            except ModelArtefactError:
                self.objects.upload(artefact, prefix + row.card.artefact_file)
                self.objects.put(prefix + CARD_FILE, row.card.to_json().encode())

    def _find(self, wanted: str | None) -> Sequence[ModelRow]:
        with self.database.connect(readonly=True) as connection, connection.cursor() as cursor:
            return _select(cursor, wanted)


def _select(cursor: Any, wanted: str | None) -> list[ModelRow]:
    cursor.execute(LIST_MODELS, {"wanted": wanted})
    return [
        ModelRow(
            model=model,
            uri=uri,
            sha256=digest,
            card=ModelCard.from_json(card, place=f"the card of {model} in refund.model"),
            state=state,
            created_at=created_at,
            created_by=created_by,
            aliases=tuple(aliases),
            evaluated_on=set_name,
            accuracy=accuracy,
        )
        for (
            model, uri, digest, card, state, created_at, created_by, aliases, set_name, accuracy,
        ) in cursor.fetchall()
    ]  # fmt: skip


def check_folder(folder: Path, *, place: str | None = None) -> ModelCard:
    """The card of a model folder whose artefact is what the card says; ``place`` names the folder in errors.

    Raises:
        ModelArtefactError: a file is missing, or the artefact's SHA-256 is another.
    """
    place = place or f"{folder}/"
    try:
        card = ModelCard.from_json((folder / CARD_FILE).read_text(encoding="utf-8"), place=f"{place}{CARD_FILE}")
        artefact_file = card.artefact_file
        with (folder / artefact_file).open("rb") as artefact:
            digest = sha256()
            while chunk := artefact.read(1024 * 1024):
                digest.update(chunk)
    except (OSError, UnicodeDecodeError) as exc:
        wrong = f"{exc.strerror}: {Path(exc.filename).name}" if isinstance(exc, OSError) else str(exc)
        msg = f"{place} is not a whole model ({wrong}); expected {CARD_FILE} and its artefact. Run: refund model build"
        raise ModelArtefactError(msg) from exc
    if digest.hexdigest() != card.artefact_sha256:
        msg = (
            f"{place}{artefact_file} has SHA-256 {digest.hexdigest()}, its card says {card.artefact_sha256}: "
            f"it was altered or damaged. Restore it, or run: refund model build"
        )
        raise ModelArtefactError(msg)
    return card


def _checked(folder: Path, row: ModelRow, *, place: str, exact: bool = False) -> Path:
    place = f"{place.rstrip('/')}/"
    card = check_folder(folder, place=place)
    if differing := _differing(row.card, card, ModelCard.__dataclass_fields__ if exact else _CONTENT):
        msg = (
            f"{place}{CARD_FILE} differs from the card of {row.model} in the registry in {' and '.join(differing)}; "
            f"it was altered. Restore it, or run: refund model build"
        )
        raise ModelArtefactError(msg)
    return folder


def _require_same(known: ModelCard, new: ModelCard) -> None:
    if differing := _differing(known, new, _CONTENT):
        msg = (
            f"{new.key} is registered already with another {' and '.join(differing)}; a version never changes: give "
            f"the new model a new version"
        )
        raise ModelExistsError(msg)


def _differing(known: ModelCard, new: ModelCard, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(known, name) != getattr(new, name)]
