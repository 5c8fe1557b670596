"""Which model a shard is classified with: that of its run, unless the run's alias was rolled back since it began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refund.night.services import Services, begun_params
from refund.store.aliases import ALIASES

if TYPE_CHECKING:
    from refund.model.card import ModelCard
    from refund.store.records import RunRow
    from refund.store.registry import ModelRow


def model_in_force(row: RunRow, services: Services) -> ModelRow:
    """The model that whatever of this run starts now is to use.

    A run that began with an alias follows its rollbacks, never its promotions; one that was given ``name@version``
    keeps that.

    Raises:
        NoModelError: the model is not registered.
    """
    alias = begun_params(row).model
    rolled_back_to = None
    if alias in ALIASES:
        rolled_back_to = services.registry.rolled_back_to(alias, row.started_at, began_with=row.model)
    return services.registry.resolve(rolled_back_to or row.model)


def rollback_note(row: RunRow, model: str) -> str:
    """What the report says of a run whose shards go on with another model than it began with."""
    return (
        f"{begun_params(row).model} was rolled back from {row.model} to {model} during the night: shards validated "
        f"since then use {model}; those before, and photos left unchanged before, rest on {row.model}"
    )


def pixel_bytes(card: ModelCard) -> int:
    """Bytes that one photo takes in a pack made for this model."""
    return card.input_width * card.input_height * 3
