"""Two published nights, a made-up one and what people did since, small enough to count by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from refund.store.database import Database
from tests.conftest import Roles
from tests.store.factories import MODEL, NOON, Photo, night, register_models

FIRST = date(2026, 11, 20)
LAST = date(2026, 11, 21)  # the last complete night


def photo(refund_id: str | None, name: str, *, day: date = LAST, **over: Any) -> Photo:
    folder = f"{refund_id}/" if refund_id else ""
    return Photo(**{"key": f"incoming/{day}/{folder}{name}.jpg", "refund_id": refund_id, "day": day, **over})


def to_review(*reasons: str) -> dict[str, Any]:
    return {"kind": "review", "reasons": reasons}


B1 = photo("B", "1", day=FIRST, category="clothing", score=0.8, declared="shoes", **to_review("declared_mismatch"))
FIRST_NIGHT = (
    photo("A", "1", day=FIRST, score=0.95, declared="shoes"),
    photo("A", "2", day=FIRST, score=0.9, declared="shoes"),
    B1,
    photo("C", "1", day=FIRST, reason="corrupt"),
)
E1 = photo("E", "1", category="electronics", score=0.4, declared="electronics", **to_review("low_score"))
G2 = photo("G", "2", category="clothing", score=0.7, labels=("blurry",))
LAST_NIGHT = (
    photo("A", "3", day=FIRST, score=0.91, declared="shoes"),  # late
    photo("D", "1", score=0.9),
    photo("D", "2", category="luggage_bags", score=0.85),
    E1,
    photo(
        "F", "1", category="clothing", score=0.99, declared="toys", labels=("dark",), **to_review("declared_mismatch")
    ),
    photo("G", "1", reason="truncated"),
    G2,
    photo("H", "1", category="not_a_product", score=0.3, **to_review("low_score", "not_a_product")),
    photo(None, "loose", score=0.88),
)
MADE_UP = tuple(
    Photo(key=f"demo/{LAST}/Z/{number}.jpg", refund_id="Z", category="toys", declared="shoes", **to_review("low_score"))
    for number in range(4)
)


def load(roles: Roles) -> None:
    """Publish the nights, then write what drift, reports, alerts, evaluations and people leave."""
    register_models(roles)
    night(roles.app, "r1", *FIRST_NIGHT, run_date=FIRST)
    night(roles.app, "r2", *LAST_NIGHT, audit_share=1.0)
    night(roles.app, "r3", *MADE_UP)
    with Database(roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET synthetic = true WHERE run_id = 'r3'")
        cursor.execute(
            "UPDATE refund.run SET started_at = %s, finished_at = %s, stage_metrics = %s WHERE run_id = 'r2'",
            (NOON, NOON + timedelta(minutes=7), json.dumps({
                "validate": {"photos": 9, "failed": 1, "seconds": 1.5, "p50_ms": 3.0, "p95_ms": 12.0},
                "classify": {"photos": 8, "failed": 0, "seconds": 0.5, "p50_ms": 4.0, "p95_ms": 5.0},
            })),
        )  # fmt: skip
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        for reviewed, category, person, chosen_by in (
            (B1, "clothing", "ada", "queue"), (E1, "electronics", "bob", "queue"), (G2, "toys", "ada", "audit"),
        ):  # fmt: skip
            cursor.execute(
                "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by) "
                "VALUES (%s, %s, %s, %s, %s, %s)",
                (reviewed.day, reviewed.photo_id, category, person, NOON, chosen_by),
            )
        moves = [{"category": "shoes", "tonight_share": 0.375, "reference_share": 0.625}]
        cursor.execute(
            "INSERT INTO refund.drift (run_id, measure, run_date, status, distance, threshold, tonight_photos, "
            "reference_photos, reference_nights, details, synthetic, computed_at) VALUES "
            "('r1', 'category_shares', %(first)s, 'no_reference', NULL, NULL, 3, 0, 0, '{}', false, %(at)s), "
            "('r2', 'category_shares', %(last)s, 'drift', 0.31, 0.15, 8, 80, 10, %(details)s, false, %(at)s), "
            "('r3', 'category_shares', %(last)s, 'drift', 0.9, 0.15, 4, 80, 10, '{}', true, %(at)s)",
            {"first": FIRST, "last": LAST, "at": NOON, "details": json.dumps({"total_variation": 0.3, "moves": moves})},
        )
        cursor.execute(
            "INSERT INTO refund.alert (dedupe_key, rule, severity, run_id, run_date, message, acknowledged_at, "
            "acknowledged_by, synthetic, first_seen_at, last_seen_at) "
            "SELECT made.*, %(at)s, %(at)s FROM (VALUES "
            "('a', 'failed_night', 'critical', 'r1', %(first)s, 'it failed', %(at)s, 'ada', false), "
            "('b', 'drift:category_shares', 'warning', 'r2', %(last)s, 'shoes fell', NULL, NULL, false), "
            "('c', 'drift:category_shares', 'warning', 'r3', %(last)s, 'made up', NULL, NULL, true)) made",
            {"first": FIRST, "last": LAST, "at": NOON},
        )
        cursor.execute(
            "INSERT INTO refund.report (run_id, run_date, body, html_uri, csv_uri, created_at) "
            "VALUES ('r2', %s, '{}', 's3://b/r2.html', 's3://b/r2.csv', %s)",
            (LAST, NOON),
        )
        cursor.execute(
            "INSERT INTO refund.quality (week_ending, model, window_days, status, accuracy, accuracy_low, "
            "accuracy_high, decisions, auto, audits, audits_reviewed, queue, queue_reviewed, required_audits, "
            "required_accuracy, details, computed_at) "
            "VALUES (%s, %s, 28, 'insufficient_data', 0.5, 0.12, 0.88, 11, 7, 5, 1, 4, 2, 100, 0.8, '{}', %s)",
            (LAST, MODEL, datetime(2026, 11, 23, 6, tzinfo=UTC)),
        )
