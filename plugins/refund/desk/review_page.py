"""The page Review: photos one after the other, a key for each verdict; and what waits, for those who may only look."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from refund.desk import review
from refund.desk.auth import DAG_ID, DESK_VIEW, Asking
from refund.desk.pages import render
from refund.desk.wiring import DeskDep
from refund.model.taxonomy import DEPARTMENTS, NOT_A_PRODUCT
from refund.records import ReviewReason
from refund.report.labels import category_label
from refund.store.review_claims import PHOTOS_AT_ONCE
from refund.store.review_desk import Queue

router = APIRouter()

NIGHTS_SHOWN = 14

# 22 departments and 26 letters: N, D, S and U are not a product, declared, skip and undo. A letter of the name where
# one is left; a test holds that none is given twice.
LETTERS = {
    "arts_entertainment": "A",
    "baby_toddler": "B",
    "bags_luggage": "L",
    "business_industrial": "I",
    "cameras_optics": "O",
    "clothing": "C",
    "electronics": "E",
    "food_beverages": "F",
    "furniture": "R",
    "hardware_tools": "H",
    "health_beauty": "Y",
    "home_garden": "G",
    "jewellery_watches": "J",
    "kitchen_dining": "K",
    "media": "M",
    "office_supplies": "Q",
    "pet_supplies": "P",
    "religious_ceremonial": "Z",
    "shoes": "W",
    "sporting_goods": "X",
    "toys_games": "T",
    "vehicles_parts": "V",
    NOT_A_PRODUCT: "N",
}
TAKEN_LETTERS = frozenset("DSU")

_REASONS = {
    ReviewReason.DECLARED_MISMATCH: "Declared as something else",
    ReviewReason.NOT_A_PRODUCT: "Shows no product",
    ReviewReason.LOW_SCORE: "Not sure enough",
}
_STATES = {
    "person": "decided by a person",
    "machine": "decided by the machine",
    "waiting": "waits for review",
    "rejected": "cannot be used",
}
_QUEUES = ((Queue.REVIEW, "Unsure"), (Queue.AUDIT, "Audits"))


@router.get("/review", include_in_schema=False)
def page(request: Request, desk: DeskDep, orders: review.OrdersDep, visitor: Asking) -> HTMLResponse:
    """Work through a queue."""
    wanted = request.query_params.get("queue", "")
    queue = Queue(wanted) if wanted in set(Queue) else Queue.REVIEW
    waits = review.summary(desk, orders, visitor)
    return render(
        request,
        "review.html.j2",
        title="Review",
        visitor=visitor,
        queue=queue.value,
        queues=[(name.value, title, getattr(waits, name.value)) for name, title in _QUEUES],
        waits=waits,
        nights_shown=NIGHTS_SHOWN,
        reasons=[(_REASONS[found.reason], found.photos) for found in waits.by_reason],
        words=words(queue),
        dag_id=DAG_ID,
        desk_view=DESK_VIEW,
    )


def words(queue: Queue) -> dict[str, Any]:
    """What the script says things in, as JSON values."""
    named = sorted((category_label(name), name) for name in DEPARTMENTS if name != NOT_A_PRODUCT)
    return {
        "queue": queue.value,
        "not_a_product": NOT_A_PRODUCT,
        "most_passed_over": review.MOST_PASSED_OVER,
        "photos_at_once": PHOTOS_AT_ONCE,
        "categories": [
            {"name": name, "label": label, "letter": LETTERS[name]}
            for label, name in [*named, (category_label(NOT_A_PRODUCT), NOT_A_PRODUCT)]
        ],
        "reasons": {reason.value: text for reason, text in _REASONS.items()},
        "states": _STATES,
    }
