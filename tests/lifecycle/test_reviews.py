"""Reviews from a CSV: taken whole or refused whole, twice is once, and a queue goes out and comes back filled in."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from refund.errors import RefundError, ReviewImportError, SettingsError
from refund.lifecycle.reviews import import_reviews, write_queue
from refund.model.taxonomy import DEPARTMENTS
from refund.night.services import Services, open_services
from refund.settings import S3Access, Settings
from refund.store.database import Database
from tests.conftest import Roles
from tests.store.factories import Photo, night, register_models, rows

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
KNOWN = ", ".join(sorted(DEPARTMENTS))
NUMBERS = itertools.count(1)


@pytest.fixture
def services(database: Roles) -> Iterator[Services]:
    """The database of this module; the bucket is that of the factories' photos, and no server stands behind it."""
    register_models(database)
    with open_services(settings=Settings(), s3=S3Access(bucket="b"), database=database.app) as opened:
        object.__setattr__(opened, "now", lambda: NOW)
        yield opened


def publish(database: Roles, *photos: dict[str, Any], audit_share: float = 0.0) -> list[Photo]:
    """A night of photos under keys of their own."""
    number = next(NUMBERS)
    made = [
        Photo(**{"key": f"incoming/2026-11-21/R-{number}/{index}.jpg", **fields})
        for index, fields in enumerate(photos, start=1)
    ]
    night(database.app, f"night-{number}", *made, audit_share=audit_share)
    return made


REVIEW = {"kind": "review", "reasons": ("low_score",)}


def reviews(database: Roles, *photos: Photo) -> list[tuple[Any, ...]]:
    wanted = [photo.photo_id for photo in photos]
    return rows(
        database.app,
        "SELECT category, reviewed_by, reviewed_at, chosen_by, note FROM refund.review "
        "WHERE photo_id = ANY (%s::uuid[]) ORDER BY review_id",
        wanted,
    )


def write(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "reviews.csv"
    path.write_bytes(text.encode(encoding))
    return path


def take(services: Services, path: Path, **options: Any) -> tuple[int, int, int]:
    done = import_reviews(path, services=services, by="anna", **options)
    return done.added, done.known, done.blank


def refusal(services: Services, path: Path) -> str:
    before = rows(services.database.access, "SELECT count(*) FROM refund.review")
    with pytest.raises(ReviewImportError) as caught:
        import_reviews(path, services=services, by="anna")
    assert rows(services.database.access, "SELECT count(*) FROM refund.review") == before
    return str(caught.value)


def told(*faults: str, more: int = 0) -> str:
    count = len(faults) + more
    return "\n".join(
        [
            f"reviews.csv has {count} fault{'' if count == 1 else 's'}, so nothing of it was imported:",
            *(f"  {fault}" for fault in faults),
            *([f"  … and {more} more"] if more else []),
            "Correct the file and import it again; reviews that are there already are passed over",
        ]
    )


def test_reviews_are_taken_by_key_and_by_id_and_how_they_were_chosen_is_derived(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    queued, plain = publish(database, REVIEW, {})
    (drawn,) = publish(database, {}, audit_share=1.0)
    (sought,) = publish(database, {})
    path = write(
        tmp_path,
        "key,photo_id,category,reviewed_by,reviewed_at,note,chosen_by\n"
        f'{queued.key},,shoes,anna,2026-11-22T10:00:00+01:00,"two\nlines, =1+1",\n'
        f",{plain.photo_id},clothing,bob,2026-11-22T09:30:00Z,,\n"
        f"{drawn.key},{drawn.photo_id},media,anna,,,\n"
        f"{sought.key},,toys_games,bob,,a customer rang,search\n",
    )
    done = import_reviews(path, services=services, by="anna")
    assert (done.added, done.known, done.blank) == (4, 0, 0)
    assert done.chosen_by == {"audit": 1, "import": 1, "queue": 1, "search": 1}
    assert reviews(database, queued) == [
        ("shoes", "anna", datetime(2026, 11, 22, 9, 0, tzinfo=UTC), "queue", "two\nlines, =1+1")
    ]
    assert reviews(database, plain) == [("clothing", "bob", datetime(2026, 11, 22, 9, 30, tzinfo=UTC), "import", None)]
    assert reviews(database, drawn) == [("media", "anna", NOW, "audit", None)]
    assert reviews(database, sought) == [("toys_games", "bob", NOW, "search", "a customer rang")]
    audit = "SELECT actor, subject, details -> 'added' FROM refund.audit WHERE action = 'review_import'"
    assert rows(database.app, audit)[-1] == ("anna", "reviews.csv", done.chosen_by)


def test_imported_twice_gives_once(services: Services, database: Roles, tmp_path: Path) -> None:
    timed, untimed = publish(database, {}, {})
    path = write(
        tmp_path,
        "key,category,reviewed_by,reviewed_at\n"
        f"{timed.key},shoes,anna,2026-11-22T10:00:00Z\n{timed.key},shoes,anna,2026-11-22T11:00:00+01:00\n"
        f"{untimed.key},shoes,anna,\n",
    )
    assert take(services, path) == (2, 1, 0)  # the second line is the first in another zone
    before = rows(database.app, "SELECT count(*) FROM refund.audit")
    assert take(services, path) == (0, 3, 0)
    assert len(reviews(database, timed, untimed)) == 2
    assert rows(database.app, "SELECT count(*) FROM refund.audit") == before


def test_two_imports_at_once_give_once(services: Services, database: Roles, tmp_path: Path) -> None:
    photos = publish(database, *({} for _ in range(40)))
    path = write(tmp_path, "\n".join(["photo_id,category,reviewed_by", *(f"{p.photo_id},shoes,anna" for p in photos)]))
    with ThreadPoolExecutor(max_workers=4) as pool:
        done = [pool.submit(import_reviews, path, services=services, by="anna") for _ in range(4)]
        assert sorted(one.result().added for one in done) == [0, 0, 0, 40]
    assert len(reviews(database, *photos)) == 40


def test_who_changes_his_mind_gives_another_review_and_the_latest_is_final(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    (photo,) = publish(database, {})
    head = "key,category,reviewed_by,reviewed_at\n"
    assert take(services, write(tmp_path, f"{head}{photo.key},media,anna,2026-11-22T10:00:00Z\n")) == (1, 0, 0)
    assert take(services, write(tmp_path, f"{head}{photo.key},shoes,bob,2026-11-21T10:00:00Z\n")) == (1, 0, 0)
    final = "SELECT final_category, reviewed_by FROM reporting.photos WHERE key = %s"
    assert rows(database.app, final, photo.key) == [("media", "anna")]  # an older one that came later is not final
    assert take(services, write(tmp_path, f"{head}{photo.key},clothing,anna,\n")) == (1, 0, 0)
    assert rows(database.app, final, photo.key) == [("clothing", "anna")]
    for who in ("zoe", "carl"):  # of two at the same time the one that was written last
        assert take(services, write(tmp_path, f"{head}{photo.key},media,{who},{NOW.isoformat()}\n")) == (1, 0, 0)
        assert rows(database.app, final, photo.key) == [("media", who)]


def test_a_key_means_its_newest_version_and_an_id_its_own(services: Services, database: Roles, tmp_path: Path) -> None:
    (old,) = publish(database, {"etag": "old"})
    new = Photo(key=old.key, etag="new")
    night(database.app, f"night-{next(NUMBERS)}", new)
    path = write(
        tmp_path, f"key,photo_id,category,reviewed_by\n{old.key},,shoes,anna\n{old.key},{old.photo_id},media,bob\n"
    )
    assert take(services, path) == (2, 0, 0)
    assert [row[0] for row in reviews(database, new)] == ["shoes"]
    assert [row[0] for row in reviews(database, old)] == ["media"]


def test_photos_of_any_date_and_of_none_are_found(services: Services, database: Roles, tmp_path: Path) -> None:
    undated, dated, strange = publish(
        database,
        {"key": "incoming/loose photo, 50 %.jpg ", "day": date(1970, 1, 1)},
        {"key": "other/2026-10-05/R-1/a.jpg", "day": date(2026, 10, 5)},
        {"key": "=incoming/2026-11-21/x.jpg", "day": date(1970, 1, 1)},
    )
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["key", "category", "reviewed_by"])
        table.writerows([[photo.key, "shoes", "anna"] for photo in (undated, dated, strange)])
    assert take(services, path) == (3, 0, 0)


@pytest.mark.parametrize(
    ("start", "separator", "line_end"), [("", ",", "\r\n"), ("\ufeff", ",", "\n"), ("\ufeff", ";", "\r\n")]
)
def test_spreadsheets_ways_of_writing_are_read(
    services: Services, database: Roles, tmp_path: Path, start: str, separator: str, line_end: str
) -> None:
    (photo,) = publish(database, {})
    lines = [["key", " category ", "reviewed_by"], [photo.key, " shoes ", "Änne Ω"], ["", "", ""]]
    path = write(tmp_path, start + line_end.join(separator.join(line) for line in lines) + line_end)
    assert take(services, path) == (1, 0, 0)
    assert reviews(database, photo)[0][:2] == ("shoes", "Änne Ω")


def test_with_dry_run_all_is_checked_and_nothing_written(services: Services, database: Roles, tmp_path: Path) -> None:
    (photo,) = publish(database, {})
    path = write(tmp_path, f"key,category,reviewed_by\n{photo.key},shoes,anna\n{photo.key},,\n")
    before = rows(database.app, "SELECT count(*) FROM refund.audit")
    done = import_reviews(path, services=services, by="anna", dry_run=True)
    assert (done.added, done.blank, done.dry_run) == (1, 1, True)
    assert reviews(database, photo) == []
    assert rows(database.app, "SELECT count(*) FROM refund.audit") == before
    write(tmp_path, f"key,category,reviewed_by\n{photo.key},schoes,anna\n")
    with pytest.raises(ReviewImportError):
        import_reviews(path, services=services, by="anna", dry_run=True)


def test_every_bad_line_is_named_and_nothing_is_written(services: Services, database: Roles, tmp_path: Path) -> None:
    good, other = publish(database, {}, {})
    path = write(
        tmp_path,
        "key,photo_id,category,reviewed_by,reviewed_at,chosen_by\n"
        f"{good.key},,shoes,anna,,\n"
        f"{good.key},,schoes,,2026-11-22 10:00,\n"
        ",,shoes,anna,2026-11-24T00:00:00Z,guess\n"
        f'"a\nb.jpg",,shoes,anna,,\n'
        f",{other.photo_id}x,shoes,anna,,\n"
        f"{good.key},{other.photo_id},shoes,anna,1999-01-01T00:00:00Z,\n"
        f",{Photo(key='none').photo_id},shoes,anna,,\n"
        f"{good.key},,media,anna,,\n"
        f"{good.key},shoes\n"
        f"{'k' * 1025},,shoes,a\0b,,\n",
    )
    assert refusal(services, path) == told(
        f"line 3: category 'schoes'; expected one of {KNOWN}",
        "line 3: no reviewed_by; expected who says so",
        "line 3: reviewed_at '2026-11-22 10:00'; expected ISO 8601 with a zone, such as 2026-11-22T09:30:00Z",
        "line 4: neither key nor photo_id; expected one of them",
        "line 4: reviewed_at '2026-11-24T00:00:00Z'; expected a time from 2000 up to now, 2026-11-23T09:00:00Z",
        "line 4: chosen_by 'guess'; expected queue, audit, import, search or nothing",
        "line 5: no photo with key 'a\\nb.jpg' is known; expected one of bucket b that a night has published",
        f"line 7: photo_id '{other.photo_id}x'; expected one as reporting.photos has it",
        "line 8: reviewed_at '1999-01-01T00:00:00Z'; expected a time from 2000 up to now, 2026-11-23T09:00:00Z",
        f"line 9: no photo with photo_id {Photo(key='none').photo_id} is known; expected one that a night has "
        "published",
        "line 10: 'anna' says 'media', but 'shoes' of the same photo at the same time stands on line 2; expected one "
        "verdict, or another reviewed_at",
        "line 11: 2 fields; expected 6 as in the header",
        "line 12: key has 1025 characters; expected at most 1024",
        "line 12: reviewed_by 'a\\x00b' has a NUL character; expected text",
    )


def test_a_verdict_that_contradicts_an_imported_one_is_refused(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    (photo,) = publish(database, {})
    line = "key,category,reviewed_by,reviewed_at\n{},{},anna,2026-11-22T10:00:00Z\n"
    take(services, write(tmp_path, line.format(photo.key, "shoes")))
    assert refusal(services, write(tmp_path, line.format(photo.key, "media"))) == told(
        "line 2: 'anna' says 'media', but 'shoes' of the same photo at the same time was imported before; expected one "
        "verdict, or another reviewed_at"
    )


def test_twenty_faults_are_told_and_all_are_counted(services: Services, tmp_path: Path) -> None:
    unknown = [f"incoming/2026-11-21/none/{number}.jpg,shoes,anna" for number in range(15)]
    wrong = [f"incoming/2026-11-21/none/{number}.jpg,schoes,anna" for number in range(30)]
    text = refusal(services, write(tmp_path, "\n".join(["key,category,reviewed_by", *unknown, *wrong])))
    assert text.startswith("reviews.csv has 45 faults, so nothing of it was imported:\n  line 2: no photo with key")
    assert text.count("\n  line ") == 20
    assert "\n  … and 25 more\n" in text


HEADER = "expected columns key or photo_id, category, reviewed_by and, where wanted, reviewed_at, note, chosen_by"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", f"line 1: the header is ''; {HEADER}"),
        ("incoming/a.jpg,shoes,anna\n", f"line 1: the header is 'incoming/a.jpg, shoes, anna'; {HEADER}"),
        ("key,category\n", f"line 1: the header is 'key, category'; {HEADER}"),
        ("key,key,category,reviewed_by\n", f"line 1: column 'key' stands twice in the header; {HEADER}"),
        ("key,category,reviewed_by,reviewd_at\n", f"line 1: column 'reviewd_at' is unknown; {HEADER}"),
        (
            'key,category,reviewed_by\n"a,shoes,anna\n',
            "line 2: no CSV from here on: unexpected end of data; expected quotation marks in pairs",
        ),
    ],
)
def test_what_is_no_table_of_reviews_is_refused(services: Services, tmp_path: Path, text: str, fault: str) -> None:
    assert refusal(services, write(tmp_path, text)) == told(fault)


def test_other_encodings_and_missing_files_are_refused(services: Services, tmp_path: Path) -> None:
    path = write(tmp_path, "key,category,reviewed_by\na.jpg,shoes,Änne\n", encoding="latin-1")
    assert refusal(services, path) == told("byte 0xc4 is no UTF-8; expected UTF-8: save it as CSV UTF-8")
    path.unlink()
    assert refusal(services, path) == told("it cannot be read: No such file or directory; expected a CSV file")


# --- out and back --------------------------------------------------------------------------------------------------


def fill_in(path: Path, category: str) -> list[str]:
    """Answer every row, as a person with a spreadsheet would; returns the columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        row |= {"category": category, "reviewed_by": "clerk"}
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(table)
    return list(table[0])


def test_the_queue_goes_out_as_csv_and_comes_back_filled_in(
    services: Services, database: Roles, tmp_path: Path
) -> None:
    queued = publish(
        database,
        {**REVIEW, "refund_id": "=cmd"},
        {**REVIEW, "key": "@x/2026-11-21/é,\n.jpg", "day": date(1970, 1, 1)},
        {**REVIEW, "key": "\t=x/2026-11-21/\xa0.jpg", "day": date(1970, 1, 1)},
        {},
    )
    path = tmp_path / "queue.csv"
    count = write_queue(path, services=services, audit=False, limit=None)
    assert count >= 3
    text = path.read_text(encoding="utf-8-sig")
    assert "'=cmd" in text  # no formula in anybody's spreadsheet
    assert "'@x/2026" in text
    assert "'\t=x/2026" in text
    assert take(services, path) == (0, 0, count)  # nothing is filled in yet
    assert "predicted_category" in fill_in(path, "shoes")
    assert take(services, path) == (count, 0, 0)
    assert [row[3] for row in reviews(database, *queued)] == ["queue"] * 3
    assert write_queue(tmp_path / "again.csv", services=services, audit=False, limit=None) == 0


def test_audits_go_out_without_the_machines_answer(services: Services, database: Roles, tmp_path: Path) -> None:
    drawn = publish(database, {}, {}, REVIEW, audit_share=1.0)
    path = tmp_path / "audits.csv"
    assert write_queue(path, services=services, audit=True, limit=1) == 1
    path.unlink()
    count = write_queue(path, services=services, audit=True, limit=None)
    assert fill_in(path, "clothing") == [
        "run_date", "refund_id", "key", "photo_id", "category", "reviewed_by", "reviewed_at", "note",
    ]  # fmt: skip
    assert take(services, path) == (count, 0, 0)
    assert [row[3] for row in reviews(database, *drawn)] == ["audit", "audit"]


@pytest.mark.parametrize("by", ["anna", "bob"])
def test_an_audit_that_somebody_looked_up_still_waits_for_its_audit(
    services: Services, database: Roles, tmp_path: Path, by: str
) -> None:
    (drawn,) = publish(database, {}, audit_share=1.0)
    head = "key,category,reviewed_by,chosen_by\n"
    take(services, write(tmp_path, f"{head}{drawn.key},media,bob,search\n"))
    waits = "SELECT count(*) FROM reporting.audit_queue WHERE key = %s"
    assert rows(database.app, waits, drawn.key) == [(1,)]
    if by == "bob":  # what he looked up he then finds among the audits: no repetition
        assert take(services, write(tmp_path, f"{head}{drawn.key},media,bob,search\n")) == (0, 1, 0)
    path = write(tmp_path, f"{head}{drawn.key},media,{by},\n")
    assert take(services, path) == (1, 0, 0)
    assert rows(database.app, waits, drawn.key) == [(0,)]
    assert take(services, path) == (0, 1, 0)
    assert [row[3] for row in reviews(database, drawn)] == ["search", "audit"]


def test_half_a_queue_is_no_file(services: Services, database: Roles, tmp_path: Path) -> None:
    gone = replace(services, database=Database(replace(database.app, database="nosuch")))
    with pytest.raises(RefundError):
        write_queue(tmp_path / "queue.csv", services=gone, audit=False, limit=None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_answers_is_not_written_over(services: Services, tmp_path: Path) -> None:
    path = write(tmp_path, "answers")
    with pytest.raises(SettingsError) as caught:
        write_queue(path, services=services, audit=False, limit=None)
    assert str(caught.value) == (
        f"{path} exists, and answers may be in it; expected a new file: import it, or choose another name"
    )
    assert path.read_text(encoding="utf-8") == "answers"
    with pytest.raises(SettingsError) as caught:
        write_queue(tmp_path / "none" / "a.csv", services=services, audit=False, limit=None)
    assert str(caught.value) == (
        f"{tmp_path / 'none' / 'a.csv'} cannot be written: No such file or directory; choose another place"
    )
