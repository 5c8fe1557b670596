"""Two models side by side: where their cards differ, and what both scored on one labelled set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refund.lifecycle.promote import Comparison, compare_models

if TYPE_CHECKING:
    from refund.model.card import ModelCard
    from refund.night.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What two models differ in."""

    first: str
    second: str
    fields: Mapping[str, tuple[object, object]]  # of their cards, with both values
    comparison: Comparison | None  # second minus first; None: one and the same, or not evaluated on one set

    def as_json(self) -> dict[str, Any]:
        """The difference as JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            "fields": {name: list(values) for name, values in self.fields.items()},
            "comparison": None if self.comparison is None else self.comparison.as_json(),
        }


def diff_models(services: Services, first: str, second: str) -> Difference:
    """Compare two models, each an alias or ``name@version``: cards, and the set that both were evaluated on last.

    Raises:
        NoModelError: one of them is not registered.
    """
    a, b = (services.registry.resolve(model) for model in (first, second))
    return Difference(
        first=a.model,
        second=b.model,
        fields=_card_differences(a.card, b.card),
        comparison=None
        if a.model == b.model
        else compare_models(services.database, candidate=b.model, current=a.model),
    )


def _card_differences(first: ModelCard, second: ModelCard) -> dict[str, tuple[object, object]]:
    """The fields in which two cards differ, each with both values; those of metrics and the like one by one."""
    flat = [dict(_flat(json.loads(card.to_json()))) for card in (first, second)]
    names = sorted(flat[0].keys() | flat[1].keys())
    values = {name: (flat[0].get(name), flat[1].get(name)) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def _flat(values: dict[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
