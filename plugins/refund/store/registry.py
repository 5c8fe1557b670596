"""The model registry: artefacts and cards in the bucket, versions and aliases in Postgres.

A version is immutable: registering it again with the same content changes nothing, with other content it is refused.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import ConfigurationError, ModelArtefactError, NoModelError, RejectedPhotoError
from refund.model.card import CARD_FILE, ModelCard
from refund.store.aliases import Aliases, audit

if TYPE_CHECKING:
    from refund.store.database import Database
    from refund.store.objects import ObjectStore

PREFIX = "models/"
_INCIDENTAL = ("created_at", "built_with", "metrics")  # card fields in which two builds of one model may differ

LIST_MODELS = """
SELECT m.model, m.uri, m.sha256, m.card::text, m.state, m.created_at, m.created_by,
       ARRAY(SELECT h.alias FROM refund.model_alias_history h WHERE h.model = m.model AND h.ended_at IS NULL ORDER BY 1)
FROM refund.model m
WHERE %(wanted)s::text IS NULL OR m.model = %(wanted)s
   OR m.model = (SELECT h.model FROM refund.model_alias_history h WHERE h.alias = %(wanted)s AND h.ended_at IS NULL)
ORDER BY m.created_at DESC, m.model
"""

INSERT_MODEL = """
INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by)
VALUES (%(model)s, %(name)s, %(version)s, %(uri)s, %(sha256)s, %(card)s, %(created_by)s)
ON CONFLICT (model) DO NOTHING
"""


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
            "card": json.loads(self.card.to_json()),
        }


class Registry:
    """Registers, finds and fetches models."""

    def __init__(self, *, objects: ObjectStore, database: Database) -> None:
        self.objects = objects
        self.database = database
        self.aliases = Aliases(database)

    def list(self) -> Sequence[ModelRow]:
        """Every registered model, newest first."""
        return self._find(None)

    def resolve(self, wanted: str) -> ModelRow:
        """The model that an alias or ``name@version`` means now.

        Raises:
            NoModelError: none is registered so.
        """
        found = self._find(wanted)
        if not found:
            raise NoModelError(wanted=wanted)
        return found[0]

    def register(self, folder: Path, *, created_by: str) -> ModelRow:
        """Upload a built model (card and artefact) and add it to the registry as a candidate.

        Registering the same model again returns the row that is there and puts back files that the bucket lost.

        Raises:
            ModelArtefactError: the folder is not a whole model, or the artefact is not what its card says.
            ConfigurationError: this ``name@version`` is registered with other content.
        """
        card = check_folder(folder)
        if known := self._find(card.key):
            _require_same(known[0].card, card)
        prefix = f"{PREFIX}{card.name}/{card.version}/"
        for name in (card.artefact_file, CARD_FILE):  # the card last: a folder with a card is whole
            there = self.objects.head(prefix + name)
            if not known or there is None:
                self.objects.upload(folder / name, prefix + name)
        if not known:
            values = {
                "model": card.key,
                "name": card.name,
                "version": card.version,
                "uri": self.objects.uri(prefix),
                "sha256": card.artefact_sha256,
                "card": card.to_json(),
                "created_by": created_by,
            }
            with self.database.connect() as connection, connection.cursor() as cursor:
                cursor.execute(INSERT_MODEL, values)
                if cursor.rowcount:
                    audit(cursor, by=created_by, action="model.register", subject=card.key, details={})
        row = self.resolve(card.key)
        _require_same(row.card, card)  # another process may have been faster
        return row

    def set_alias(self, alias: str, model: str, *, by: str, reason: str) -> bool:
        """See `Aliases.promote`; False where the alias means that model already."""
        return self.aliases.promote(alias, model, by=by, reason=reason).changed

    def rolled_back_to(self, alias: str, since: datetime) -> str | None:
        """The model that a run goes on with which began with ``alias`` at ``since``, or None for its own.

        See `refund.store.aliases.followed_rollback`.
        """
        return self.aliases.rolled_back_to(alias, since)

    def fetch(self, model: str, cache_dir: Path) -> Path:
        """The model's folder on this machine, downloaded unless it is there, and checked either way.

        Raises:
            NoModelError: it is not registered.
            ModelArtefactError: a file is missing in the bucket, or is not the one that was registered.
        """
        row = self.resolve(model)
        target = cache_dir / row.model
        if target.is_dir():
            try:
                return _checked(target, row)
            except ModelArtefactError:
                shutil.rmtree(target, ignore_errors=True)  # a spoilt copy: fetch it anew
        cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = Path(tempfile.mkdtemp(prefix=f".{row.model}-", dir=cache_dir))
        try:
            self._download(row, temporary)
            _checked(temporary, row)
            try:
                temporary.rename(target)
            except OSError:  # another task was faster; its copy must be as good
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _checked(target, row)

    def _download(self, row: ModelRow, folder: Path) -> None:
        prefix = row.uri.removeprefix(self.objects.uri(""))
        for name in (CARD_FILE, row.card.artefact_file):
            try:
                self.objects.download(prefix + name, folder / name)
            except RejectedPhotoError as exc:
                msg = (
                    f"{row.uri}{name} of model {row.model} is missing; put it back, or build and register the model "
                    f"again: refund model build"
                )
                raise ModelArtefactError(msg) from exc

    def _find(self, wanted: str | None) -> Sequence[ModelRow]:
        with self.database.connect(readonly=True) as connection, connection.cursor() as cursor:
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
                )
                for model, uri, digest, card, state, created_at, created_by, aliases in cursor.fetchall()
            ]


def check_folder(folder: Path) -> ModelCard:
    """The card of a model folder whose artefact is what the card says.

    Raises:
        ModelArtefactError: a file is missing, or the artefact's SHA-256 is another.
    """
    try:
        card = ModelCard.from_json((folder / CARD_FILE).read_text(encoding="utf-8"), place=str(folder / CARD_FILE))
        with (folder / card.artefact_file).open("rb") as artefact:
            digest = sha256()
            while chunk := artefact.read(1024 * 1024):
                digest.update(chunk)
    except (FileNotFoundError, UnicodeDecodeError) as exc:
        msg = f"{folder} is not a whole model ({exc}); expected {CARD_FILE} and its artefact. Run: refund model build"
        raise ModelArtefactError(msg) from exc
    if digest.hexdigest() != card.artefact_sha256:
        msg = (
            f"{folder / card.artefact_file} has SHA-256 {digest.hexdigest()}, its card says {card.artefact_sha256}: "
            f"it was altered or damaged. Restore it, or run: refund model build"
        )
        raise ModelArtefactError(msg)
    return card


def _checked(folder: Path, row: ModelRow) -> Path:
    card = check_folder(folder)
    if card.key != row.model or card.artefact_sha256 != row.sha256:
        msg = (
            f"{folder} holds {card.key} with SHA-256 {card.artefact_sha256}, the registry has {row.model} with "
            f"{row.sha256}; what lies at {row.uri} was altered. Restore it, or run: refund model build"
        )
        raise ModelArtefactError(msg)
    return folder


def _require_same(known: ModelCard, new: ModelCard) -> None:
    differing = [
        name
        for name in ModelCard.__dataclass_fields__
        if name not in _INCIDENTAL and getattr(known, name) != getattr(new, name)
    ]
    if differing:
        msg = (
            f"{new.key} is registered already with another {' and '.join(differing)}; a version never changes: give "
            f"the new model a new version"
        )
        raise ConfigurationError(msg)
