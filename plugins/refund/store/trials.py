"""Writes what became of photos that people tried at the desk, many small transactions over one kept connection."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from refund.errors import RetriableRunError
from refund.store.database import translate

if TYPE_CHECKING:
    import psycopg2.extensions

    from refund.store.database import Database

MAX_NAME_CHARS = 255

INSERT_TRIAL = """
INSERT INTO refund.trial (at, tried_by, request_id, filename, size_bytes, sha256, image_format, width_px, height_px,
  outcome, reason, detail, model, taxonomy_version, category, category_score, decision, review_reasons, predictions,
  elapsed_ms, kept_key)
VALUES (%(at)s, %(tried_by)s, %(request_id)s, %(filename)s, %(size_bytes)s, %(sha256)s, %(image_format)s, %(width_px)s,
  %(height_px)s, %(outcome)s, %(reason)s, %(detail)s, %(model)s, %(taxonomy_version)s, %(category)s, %(category_score)s,
  %(decision)s, %(review_reasons)s, %(predictions)s, %(elapsed_ms)s, %(kept_key)s)
RETURNING trial_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One photo that somebody tried, and the verdict."""

    at: datetime
    tried_by: str
    request_id: str
    filename: str
    size_bytes: int
    sha256: str | None = None  # None where it was not read whole
    image_format: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    outcome: str  # classified | rejected
    reason: str | None = None
    detail: str | None = None
    model: str | None = None
    taxonomy_version: str | None = None
    category: str | None = None
    category_score: float | None = None
    decision: str | None = None
    review_reasons: Sequence[str] = ()
    predictions: Sequence[Mapping[str, Any]] = ()  # class_id, class_name, confidence, category
    elapsed_ms: float | None = None
    kept_key: str | None = None

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            msg = f"the time of a trial must be aware, got {self.at!r}"
            raise ValueError(msg)
        if len(self.filename) > MAX_NAME_CHARS:
            msg = f"a trial's file name has at most {MAX_NAME_CHARS} characters, got {len(self.filename)}"
            raise ValueError(msg)

    def as_parameters(self) -> dict[str, Any]:
        """Values to bind; text without what Postgres does not store: NUL and halves of surrogate pairs."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **{name: _storable(value) if isinstance(value, str) else value for name, value in values.items()},
            "review_reasons": list(self.review_reasons),
            "predictions": json.dumps([dict(prediction) for prediction in self.predictions]),
        }


class Trials:
    """The table ``refund.trial``, written over one connection that is opened anew where the server dropped it.

    For one thread at a time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg2.extensions.connection | None = None

    def add(self, trials: Sequence[Trial]) -> list[int]:
        """Write them in one transaction; their numbers, in order.

        A connection that proves to be gone before the commit is opened anew once.

        Raises:
            DatabaseUnavailableError: the server cannot be reached. Where it went away over the commit itself, the
                trials may be written.
            FatalRunError: Postgres refused one of them; none is written.
        """
        import psycopg2

        kept = self._connection is not None
        parameters = [trial.as_parameters() for trial in trials]
        try:
            connection, numbers = self._insert(parameters)
        except psycopg2.Error as exc:
            self.close()
            error = translate(exc, access=self._database.access)
            if not (kept and isinstance(error, RetriableRunError)):
                raise error from exc
            try:
                connection, numbers = self._insert(parameters)
            except psycopg2.Error as again:
                self.close()
                raise translate(again, access=self._database.access) from again
        try:
            connection.commit()
        except psycopg2.Error as exc:
            self.close()
            raise translate(exc, access=self._database.access) from exc
        return numbers

    def close(self) -> None:
        """Let go of the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            import psycopg2

            with contextlib.suppress(psycopg2.Error):
                connection.close()

    def _insert(self, parameters: Sequence[dict[str, Any]]) -> tuple[psycopg2.extensions.connection, list[int]]:
        if self._connection is None:
            self._connection = self._database.open()
        numbers = []
        with self._connection.cursor() as cursor:
            for values in parameters:
                cursor.execute(INSERT_TRIAL, values)
                ((number,),) = cursor.fetchall()
                numbers.append(int(number))
        return self._connection, numbers


def _storable(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
