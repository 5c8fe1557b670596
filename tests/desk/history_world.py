"""A bucket and a few nights for tests of the history: every kind of photo that its pages have words for."""

from __future__ import annotations

import json
from datetime import date

from refund.night.persist import persist_run
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg

HOSTILE = "<img src=x onerror=alert(1)>\u202egpj.exe"
HOSTILE_REFUND = 'R-"><script>alert(2)</script>&?#%'
HOSTILE_KEY = f"{HOSTILE_REFUND}/{HOSTILE}.jpg"
NEXT_DAY = date(2026, 11, 22)


def tell(world: World) -> None:
    """Two nights by two models: photos of all kinds, one overwritten, one reviewed twice, some tried by hand."""
    for seed in range(1, 7):
        world.put(f"R-{seed // 3}/photo {seed}.jpg", jpeg(seed))
    world.put(HOSTILE_KEY, jpeg(20))
    world.put("R-9/broken.jpg", jpeg(21)[:2000])
    world.put("R-9/notes.jpg", b"These are notes, and no picture.")
    world.put("R-8/replaced.jpg", jpeg(22))
    publish(world, "run-1")
    world.put("R-8/replaced.jpg", jpeg(23, width=640, height=480))
    world.promote(world.register("2"))
    world.put("R-10/later.jpg", jpeg(24), day=NEXT_DAY)
    publish(world, "run-2", day=NEXT_DAY)  # looks at the day before, too, with the new model
    review(world, "photo 1.jpg", "shoes", by="bob", at="2026-11-22 08:00Z")
    review(world, "photo 1.jpg", "clothing", by="<b>ana</b>", at="2026-11-22 09:30Z", note="a <script> of a note")
    try_by_hand(world)


def publish(world: World, run_id: str, *, day: date = DAY) -> None:
    """A night without its report, which takes longest and is not looked at here."""
    run = world.start(run_id, day=day, review_threshold=0.45)
    world.stage(run)
    persist_run(run, world.services)


def review(world: World, name: str, category: str, *, by: str, at: str, note: str | None = None) -> None:
    """A person's verdict on a photo."""
    with world.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by, note) "
            "SELECT photo_date, photo_id, %s, %s, %s, 'queue', %s FROM refund.photo "
            "WHERE key LIKE %s AND superseded_by IS NULL",
            (category, by, at, note, f"%{name}"),
        )


def try_by_hand(world: World) -> None:
    """Two trials, of a good and a bad photo."""
    seen = [{"class_id": "n04120489", "class_name": "running shoe", "confidence": 0.81, "category": "shoes"}]
    with world.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.trial (at, tried_by, request_id, filename, size_bytes, outcome, model, "
            "taxonomy_version, category, category_score, decision, predictions) VALUES "
            "(now(), 'ana', 'r1', %s, 1000, 'classified', 'tiny@1', 't1', 'shoes', 0.93, 'auto', %s)",
            (HOSTILE, json.dumps(seen)),
        )
        cursor.execute(
            "INSERT INTO refund.trial (at, tried_by, request_id, filename, size_bytes, outcome, reason, detail) VALUES "
            "(now(), 'bob', 'r2', 'notes.pdf', 10, 'rejected', 'not_an_image', 'a PDF')"
        )


def photo_id(world: World, name: str, *, newest: bool = True) -> str:
    """The id of the photo whose key ends so."""
    with world.services.database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT photo_id::text FROM refund.photo WHERE right(key, length(%s)) = %s "
            "AND (superseded_by IS NULL) = %s",
            (name, name, newest),
        )
        ((found,),) = cursor.fetchall()
    return str(found)


def page_of(world: World, name: str, *, newest: bool = True, day: date = DAY) -> str:
    """The path of a photo's page, below the desk."""
    return f"/history/{day.isoformat()}/{photo_id(world, name, newest=newest)}"
