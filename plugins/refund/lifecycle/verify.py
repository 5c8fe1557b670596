"""``refund model verify``: whether what lies in S3 is what Postgres says, and loads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import ModelArtefactError
from refund.lifecycle.outside import try_out

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.store.registry import ModelRow


_STRANGERS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One model and what is wrong with it; nothing, where ``faults`` is empty."""

    model: str
    uri: str
    state: str
    aliases: tuple[str, ...]
    faults: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {**asdict(self), "ok": not self.faults}


def verify_models(
    services: Services, wanted: str | None = None, *, progress: Callable[[str], None] = lambda _: None
) -> list[Verified]:
    """Check one model (an alias or ``name@version``), or all, retired ones too.

    Of each: card and artefact are in S3, the artefact has the registered SHA-256, the card is the registered one,
    nothing else lies beside them, and the unit loads and predicts in a process of its own.

    Raises:
        NoModelError: ``wanted`` is not registered.
        RetriableRunError: S3 or Postgres does not answer; then nothing is known of the model.
    """
    rows = services.registry.list() if wanted is None else [services.registry.resolve(wanted)]
    found = []
    for row in rows:
        progress(f"checking {row.model}")
        found.append(
            Verified(
                model=row.model,
                uri=row.uri,
                state=row.state,
                aliases=row.aliases,
                faults=tuple(_faults(services, row)),
            )
        )
    return found


def require_sound(verified: list[Verified]) -> None:
    """Raise ModelArtefactError that lists everything wrong, if anything is."""
    faults = [fault for one in verified for fault in one.faults]
    if faults:
        wrong = [one.model for one in verified if one.faults]
        msg = f"{', '.join(wrong)}, of {len(verified)} checked, not as registered:\n  " + "\n  ".join(faults)
        raise ModelArtefactError(msg)


def _faults(services: Services, row: ModelRow) -> list[str]:
    faults = []
    with tempfile.TemporaryDirectory(prefix="refund-verify-") as scratch:
        try:
            services.registry.download(row, Path(scratch), exact=True)
            try_out(Path(scratch), place=row.uri)
        except ModelArtefactError as exc:
            faults.append(str(exc))
    strangers = services.registry.strangers(row)
    faults += [
        f"{uri} is no file of {row.model}, a registration that was killed may have left it; remove it"
        for uri in strangers[:_STRANGERS_SHOWN]
    ]
    if len(strangers) > _STRANGERS_SHOWN:
        faults.append(f"{row.uri} holds {len(strangers) - _STRANGERS_SHOWN:,} more that are none of its files")
    return faults
