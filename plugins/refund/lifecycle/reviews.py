"""Takes people's verdicts from a CSV file, and gives out as one what waits for a verdict."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from uuid import UUID

from refund.errors import ReviewImportError, SettingsError
from refund.model.taxonomy import DEPARTMENTS
from refund.report.csv_table import guarded, unguarded
from refund.store.reviews import StagedReview, waiting, write_reviews

if TYPE_CHECKING:
    from refund.night.services import Services

CHOSEN_BY = ("queue", "audit", "import", "search")
ANSWERS = ("category", "reviewed_by", "reviewed_at", "note")  # what a person fills in
_QUEUE = (
    "run_date", "refund_id", "key", "photo_id", "predicted_category", "category_score", "review_reasons",
    "declared_category",
)  # fmt: skip
_AUDITS = ("run_date", "refund_id", "key", "photo_id")  # not the machine's answer: it would lead
_TAKEN = ("key", "photo_id", *ANSWERS, "chosen_by")
_LONGEST = {"key": 1_024, "reviewed_by": 200, "note": 10_000}  # characters
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedReviews:
    """What became of the rows of a file."""

    added: int
    chosen_by: dict[str, int]  # the added ones, by how their photos came to be reviewed
    known: int  # there already, or twice in the file
    blank: int  # without a category: not filled in yet
    dry_run: bool


class _Faults:
    """Collects what is wrong: all of it counted, the first lines kept."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, str]] = []
        self.count = 0

    def add(self, line: int, text: str) -> None:
        self.count += 1
        if len(self.kept) < ReviewImportError.SHOWN:
            self.kept.append((line, text))


def import_reviews(path: Path, *, services: Services, by: str, dry_run: bool = False) -> ImportedReviews:
    """Write the reviews of a CSV file, all of them or, where any line is at fault, none.

    The file is read as a stream and may be of any length. Reviews that are there already are passed over, so a file
    may be imported again; rows without a category are left for later. With ``dry_run`` everything is checked and
    nothing written.

    Raises:
        ReviewImportError: the file cannot be read as such a table, or some of its lines cannot be taken: all are
            counted and the first 20 named with line, what was seen and what was expected.
    """
    faults = _Faults()
    blank = 0
    now = services.now()

    def rows(file: TextIO) -> Iterator[StagedReview]:
        nonlocal blank
        for line, cells in _records(file, faults):
            if not cells["category"]:
                blank += 1
            elif (row := _read(line, cells, faults, now=now)) is not None:
                yield row

    def refuse(found: list[tuple[int, str]], count: int) -> None:
        if faults.count + count:
            told = sorted([*faults.kept, *found], key=lambda fault: fault[0])
            texts = [f"line {line}: {text}" for line, text in told]
            raise ReviewImportError(source=path.name, faults=texts, count=faults.count + count)

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            written = write_reviews(
                services.database,
                rows(file),
                bucket=services.objects.bucket,
                at=now,
                actor=by,
                subject=path.name,
                refuse=refuse,
                dry_run=dry_run,
            )
    except OSError as exc:
        raise ReviewImportError(
            source=path.name, faults=[f"it cannot be read: {exc.strerror}; expected a CSV file"]
        ) from exc
    except UnicodeDecodeError as exc:
        text = f"byte {exc.object[exc.start]:#04x} is no UTF-8; expected UTF-8: save it as CSV UTF-8"
        raise ReviewImportError(source=path.name, faults=[text]) from exc
    return ImportedReviews(
        added=sum(written.added.values()),
        chosen_by=written.added,
        known=written.known,
        blank=blank,
        dry_run=dry_run,
    )


def queue_columns(*, audit: bool) -> tuple[str, ...]:
    """The columns of `waiting_reviews`."""
    return _AUDITS if audit else _QUEUE


def waiting_reviews(services: Services, *, audit: bool, limit: int | None) -> Iterator[Sequence[object]]:
    """What waits for a person, the oldest night's first: the review queue or, with ``audit``, the audits."""
    return waiting(services.database, audit=audit, limit=limit)


def write_queue(path: Path, *, services: Services, audit: bool, limit: int | None) -> int:
    """Write what waits as CSV with empty columns for the answers, to be filled in and imported; return the rows.

    Raises:
        SettingsError: the file exists, and answers may be in it, or it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:  # with the mark by which Excel knows UTF-8
            try:
                return _write_rows(file, waiting_reviews(services, audit=audit, limit=limit), audit=audit)
            except BaseException:  # half a queue would look like all of it
                path.unlink()
                raise
    except FileExistsError as exc:
        msg = f"{path} exists, and answers may be in it; expected a new file: import it, or choose another name"
        raise SettingsError(msg) from exc
    except OSError as exc:
        msg = f"{path} cannot be written: {exc.strerror}; choose another place"
        raise SettingsError(msg) from exc


def _write_rows(file: TextIO, rows: Iterator[Sequence[object]], *, audit: bool) -> int:
    count = 0
    table = csv.writer(file, lineterminator="\r\n")
    table.writerow([*queue_columns(audit=audit), *ANSWERS])
    for row in rows:
        cells = ("" if value is None else guarded(str(value)) for value in row)
        table.writerow([*cells, *("" for _ in ANSWERS)])
        count += 1
    return count


def _records(file: TextIO, faults: _Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells by column of every row; a fault of the frame is noted, and ends the file where it must."""
    first = file.readline()
    separator = ";" if first.count(";") > first.count(",") else ","  # spreadsheets write ; where , is the decimal mark
    try:
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator, strict=True), [])]
    except csv.Error as exc:
        faults.add(1, f"the header is no CSV: {exc}; expected column names")
        return
    if text := _wrong_header(header):
        faults.add(1, text)
        return
    reader = csv.reader(file, delimiter=separator, strict=True)
    line = 2
    try:
        for cells in reader:
            begun, line = line, reader.line_num + 2
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                faults.add(begun, f"{len(cells)} fields; expected {len(header)} as in the header")
                continue
            values = dict(zip(header, cells, strict=True))
            yield begun, {name: unguarded(cell) if name == "key" else cell.strip() for name, cell in values.items()}
    except csv.Error as exc:
        faults.add(line, f"no CSV from here on: {exc}; expected quotation marks in pairs")


def _wrong_header(header: list[str]) -> str | None:
    wanted = "expected columns key or photo_id, category, reviewed_by and, where wanted, reviewed_at, note, chosen_by"
    if not {"key", "photo_id"} & set(header) or not {"category", "reviewed_by"} <= set(header):
        return f"the header is {', '.join(header)[:200]!r}; {wanted}"
    if doubled := sorted({name for name in header if header.count(name) > 1}):
        return f"column {doubled[0]!r} stands twice in the header; {wanted}"
    if unknown := [name for name in header if name not in {*_TAKEN, *_QUEUE}]:
        return f"column {unknown[0]!r} is unknown; {wanted}"
    return None


def _read(line: int, cells: dict[str, str], faults: _Faults, *, now: datetime) -> StagedReview | None:
    """The review of one row, or None where something is wrong with it, which is noted."""
    before = faults.count
    key, photo_id = cells.get("key") or None, cells.get("photo_id") or None
    if key is None and photo_id is None:
        faults.add(line, "neither key nor photo_id; expected one of them")
    if photo_id is not None and (parsed := _uuid(photo_id)) is None:
        faults.add(line, f"photo_id {photo_id[:60]!r}; expected one as reporting.photos has it")
    elif photo_id is not None:
        photo_id = parsed
    if cells["category"] not in DEPARTMENTS:
        faults.add(line, f"category {cells['category'][:60]!r}; expected one of {', '.join(sorted(DEPARTMENTS))}")
    if not cells["reviewed_by"]:
        faults.add(line, "no reviewed_by; expected who says so")
    for name, longest in _LONGEST.items():
        value = cells.get(name, "")
        if len(value) > longest:
            faults.add(line, f"{name} has {len(value)} characters; expected at most {longest}")
        elif "\0" in value:
            faults.add(line, f"{name} {value[:60]!r} has a NUL character; expected text")
    when = None
    if text := cells.get("reviewed_at"):
        when = _time(text)
        if when is None:
            faults.add(line, f"reviewed_at {text[:60]!r}; expected ISO 8601 with a zone, such as 2026-11-22T09:30:00Z")
        elif when > now + _CLOCKS_DIFFER or when < _EARLIEST:
            faults.add(line, f"reviewed_at {text!r}; expected a time from 2000 up to now, {now:%Y-%m-%dT%H:%M:%SZ}")
    chosen_by = cells.get("chosen_by") or None
    if chosen_by is not None and chosen_by not in CHOSEN_BY:
        faults.add(line, f"chosen_by {chosen_by[:60]!r}; expected {', '.join(CHOSEN_BY)} or nothing")
    if faults.count > before:
        return None
    return StagedReview(
        line=line,
        key=key,
        photo_id=photo_id,
        category=cells["category"],
        reviewed_by=cells["reviewed_by"],
        reviewed_at=when,
        chosen_by=chosen_by,
        note=cells.get("note") or None,
    )


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _time(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo is not None else None
