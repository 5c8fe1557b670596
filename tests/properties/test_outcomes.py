"""Any order of uploads, runs, overlaps, late clears and requeues: the tables equal a model of a few lines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from refund.errors import ReasonCode
from refund.store.database import Database
from refund.store.publish import publish
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.properties.conftest import empty, examples, select
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, begin, counts, manifest, shard

KEYS = tuple(f"incoming/{DAY}/R{number}/a.jpg" for number in range(2))
ETAGS = ("e1", "e2")  # few of everything, so that events meet
VERDICTS = st.tuples(*(st.sampled_from([None, "decode_timeout", "corrupt"]) for _ in KEYS))
USUAL: dict[str, Any] = {"model": MODEL, "threshold": 0.5, "force": False}
PARAMS = st.sampled_from(
    [USUAL, {**USUAL, "threshold": 0.9}, {**USUAL, "model": OTHER_MODEL}, {**USUAL, "force": True}]
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has listed the bucket: what it was told, what it saw, what it plans."""

    number: int  # the order in which runs began
    model: str
    threshold: float
    force: bool
    to_do: tuple[Photo, ...]
    unchanged: tuple[Photo, ...]

    @property
    def run_id(self) -> str:
        return f"r{self.number:03}"


@dataclass(kw_only=True)
class Verdict:
    """One row of refund.run_photo, and of refund.decision where it is classified."""

    run: Run
    outcome: str
    reason: str | None = None
    superseded_by: str | None = None
    requeued: bool = False

    def stands_for(self, run: Run) -> bool:
        """Whether a run that lists the photo now would leave it unchanged."""
        if self.outcome == "classified":
            return (self.run.model, self.run.threshold) == (run.model, run.threshold)
        return ReasonCode(self.reason).is_final and not self.requeued


@dataclass(kw_only=True)
class Model:
    """What the tables should hold, by photo version."""

    verdicts: dict[Photo, list[Verdict]] = field(default_factory=dict)  # in the order of publishing
    published: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # classified, rejected, unchanged

    def standing(self, photo: Photo) -> Verdict | None:
        """The one verdict that holds."""
        found = [
            one for one in self.verdicts.get(photo, ()) if one.outcome != "unchanged" and one.superseded_by is None
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def newest(self) -> dict[str, Photo]:
        """Of each key the version that the latest run saw."""
        seen: dict[str, tuple[int, Photo]] = {}
        for photo, verdicts in self.verdicts.items():
            last = max(one.run.number for one in verdicts)
            if last > seen.get(photo.key, (-1, photo))[0]:
                seen[photo.key] = (last, photo)
        return {key: photo for key, (_, photo) in seen.items()}

    def publish(self, run: Run, to_do: dict[Photo, str | None]) -> None:
        """As if the run had listed after the last that published; older runs never overrule younger ones."""
        told = {"classified": 0, "rejected": 0, "unchanged": len(run.unchanged)}
        for photo in run.unchanged:
            self.verdicts[photo].append(Verdict(run=run, outcome="unchanged"))
        for photo, reason in to_do.items():
            stands = self.standing(photo)
            if stands and not run.force and stands.stands_for(run):
                verdict = Verdict(run=run, outcome="unchanged")
            else:
                younger = [one.run for one in self.verdicts.get(photo, ()) if one.run.number > run.number]
                verdict = Verdict(run=run, outcome="rejected" if reason else "classified", reason=reason)
                if younger:
                    verdict.superseded_by = max(younger, key=lambda other: other.number).run_id
                elif stands:
                    stands.superseded_by = run.run_id
            told[verdict.outcome] += 1
            self.verdicts.setdefault(photo, []).append(verdict)
        self.published[run.run_id] = (told["classified"], told["rejected"], told["unchanged"])


class Nights(RuleBasedStateMachine):
    """The bucket, the runs, and the tables that they publish into."""

    def __init__(self, roles: Roles, tables: Any) -> None:
        super().__init__()
        self.tables = tables
        empty(tables)
        self.access = roles.app
        self.database = Database(roles.app)
        self.repository = Repository(self.database)
        self.bucket: dict[str, Photo] = {}
        self.model = Model()
        self.begun = 0
        self.waiting: list[Run] = []
        self.done: list[tuple[Run, dict[Photo, str | None]]] = []
        self.predicted: dict[tuple[str, str], tuple[Any, ...]] = {}

    # --- what happens ----------------------------------------------------------------------------------------------

    @initialize()
    def fill(self) -> None:
        for key in KEYS:
            self.upload(key, "e1")

    @rule(key=st.sampled_from(KEYS), etag=st.sampled_from(ETAGS))
    def upload(self, key: str, etag: str) -> None:
        """A photo arrives, is overwritten, or an earlier version is uploaded back."""
        self.bucket[key] = Photo(key=key, etag=etag)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        self.bucket.pop(key, None)

    @precondition(lambda self: self.bucket)
    @rule(params=PARAMS)
    def list_photos(self, params: dict[str, Any]) -> None:
        """A run begins and lists; it may be published at once, late, or never."""
        self._list(**params)

    @precondition(lambda self: self.bucket)
    @rule(params=PARAMS, verdicts=VERDICTS)
    def whole_night(self, params: dict[str, Any], verdicts: tuple[str | None, ...]) -> None:
        self._publish(self._list(**params), verdicts)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 9), verdicts=VERDICTS)
    def publish_late(self, which: int, verdicts: tuple[str | None, ...]) -> None:
        """Of the runs that overlap, any may be the next to publish."""
        self._publish(self.waiting[which % len(self.waiting)], verdicts)

    @precondition(lambda self: self.done)
    @rule(which=st.integers(0, 9), verdicts=VERDICTS)
    def publish_again(self, which: int, verdicts: tuple[str | None, ...]) -> None:
        """A published run is cleared: whatever its tasks staged this time, its rows stay."""
        run, _ = self.done[which % len(self.done)]
        self._write(run, dict(zip(run.to_do, verdicts, strict=False)))

    @precondition(lambda self: self._rejected())
    @rule(which=st.integers(0, 9))
    def requeue(self, which: int) -> None:
        """`refund requeue` marks a rejection that stands."""
        rejected = self._rejected()
        photo, verdict = rejected[which % len(rejected)]
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE refund.run_photo SET requeued_at = %s "
                "WHERE photo_date = %s AND photo_id = %s AND run_id = %s AND superseded_by IS NULL",
                (NOON, DAY, photo.photo_id, verdict.run.run_id),
            )
            assert cursor.rowcount == 1
        verdict.requeued = True

    # --- what must hold after each of them -------------------------------------------------------------------------

    @invariant()
    def outcomes_are_those_of_the_model(self) -> None:
        found = select(
            self.tables,
            "SELECT photo_id::text, run_id, outcome, reason, superseded_by, requeued_at IS NOT NULL "
            "FROM refund.run_photo",
        )
        expected = [
            (photo.photo_id, one.run.run_id, one.outcome, one.reason, one.superseded_by, one.requeued)
            for photo, verdicts in self.model.verdicts.items()
            for one in verdicts
        ]
        assert sorted(found, key=str) == sorted(expected, key=str)

    @invariant()
    def every_version_has_one_standing_verdict(self) -> None:
        found = select(
            self.tables,
            "SELECT p.photo_id, count(o) FROM refund.photo p LEFT JOIN refund.run_photo o ON o.photo_id = p.photo_id "
            "AND o.outcome <> 'unchanged' AND o.superseded_by IS NULL GROUP BY 1 HAVING count(o) <> 1",
        )
        assert found == []

    @invariant()
    def decisions_live_where_the_outcome_is_classified(self) -> None:
        found = select(self.tables, "SELECT photo_id::text, run_id, superseded_by FROM refund.decision")
        expected = [
            (photo.photo_id, one.run.run_id, one.superseded_by)
            for photo, verdicts in self.model.verdicts.items()
            for one in verdicts
            if one.outcome == "classified"
        ]
        assert sorted(found, key=str) == sorted(expected, key=str)

    @invariant()
    def predictions_never_change(self) -> None:
        found = {
            (row[1], row[2]): row
            for row in select(
                self.tables,
                "SELECT photo_date, photo_id::text, model, run_id, confidence, top_k FROM refund.prediction",
            )
        }
        assert {key: found.get(key) for key in self.predicted} == self.predicted
        self.predicted = found

    @invariant()
    def analysts_see_each_newest_version_once(self) -> None:
        found = select(
            self.tables, "SELECT photo_id::text, outcome, rejection_reason, run_id FROM reporting.photos ORDER BY key"
        )
        expected = []
        for _, photo in sorted(self.model.newest().items()):
            verdict = self.model.standing(photo)
            assert verdict is not None
            expected.append((photo.photo_id, verdict.outcome, verdict.reason, verdict.run.run_id))
        assert found == expected

    @invariant()
    def every_published_run_adds_up(self) -> None:
        found = select(
            self.tables,
            "SELECT run_id, classified, rejected, unchanged, adds_up FROM reporting.reconciliation",
        )
        assert sorted(found) == sorted((run_id, *told, True) for run_id, told in self.model.published.items())

    # --- how -------------------------------------------------------------------------------------------------------

    def _list(self, *, model: str, threshold: float, force: bool) -> Run:
        self.begun += 1
        run = Run(number=self.begun, model=model, threshold=threshold, force=force, to_do=(), unchanged=())
        begin(self.access, run.run_id, model=model, params={"review_threshold": threshold, "force": force})
        stands: set[str] = set()
        if not force:
            found = self.repository.standing_outcomes(
                [DAY], model=model, taxonomy_version="t1", threshold=threshold, exclude_run_id=run.run_id
            )
            stands = {str(photo_id) for photo_id in found}
            assert stands == {
                photo.photo_id
                for photo in self.model.verdicts
                if (verdict := self.model.standing(photo)) and verdict.stands_for(run)
            }
        listed = self.bucket.values()
        run = replace(
            run,
            to_do=tuple(photo for photo in listed if photo.photo_id not in stands),
            unchanged=tuple(photo for photo in listed if photo.photo_id in stands),
        )
        self.waiting.append(run)
        return run

    def _publish(self, run: Run, verdicts: tuple[str | None, ...]) -> None:
        to_do = {photo: verdicts[KEYS.index(photo.key)] for photo in run.to_do}
        self._write(run, to_do)
        self.model.publish(run, to_do)
        self.waiting.remove(run)
        self.done.append((run, to_do))

    def _write(self, run: Run, to_do: dict[Photo, str | None]) -> None:
        photos = [replace(photo, reason=reason) for photo, reason in to_do.items()]
        half = len(photos) // 2
        publish(
            self.database,
            run_id=run.run_id,
            shards=[shard(*part, model=run.model) for part in (photos[:half], photos[half:])],
            unchanged=manifest(*run.unchanged),
            expected=counts(*photos, unchanged=len(run.unchanged)),
            audit_share=0.0,
            at=NOON,
        )

    def _rejected(self) -> list[tuple[Photo, Verdict]]:
        return [
            (photo, verdict)
            for photo in self.model.verdicts
            if (verdict := self.model.standing(photo)) and verdict.reason and not verdict.requeued
        ]


def test_any_order_of_events_leaves_one_verdict(nights: Roles, tables: Any) -> None:
    run_state_machine_as_test(lambda: Nights(nights, tables), settings=examples(10, stateful_step_count=12))


@pytest.mark.slow
def test_any_long_order_of_events_leaves_one_verdict(nights: Roles, tables: Any) -> None:
    run_state_machine_as_test(lambda: Nights(nights, tables), settings=examples(60, stateful_step_count=25))


# --- orders of events that once went wrong --------------------------------------------------------------------------


def test_a_time_out_in_the_second_of_two_runs_does_not_undo_the_decision_of_the_first(
    nights: Roles, tables: Any
) -> None:
    events = Nights(nights, tables)
    events.fill()
    events.list_photos(USUAL)
    events.list_photos(USUAL)
    events.publish_late(0, (None, None))
    events.publish_late(0, ("decode_timeout", None))
    events.outcomes_are_those_of_the_model()
    events.decisions_live_where_the_outcome_is_classified()


def test_a_version_that_a_younger_run_saw_back_stays_the_newest(nights: Roles, tables: Any) -> None:
    events = Nights(nights, tables)
    good = (None, None)
    for etag in ETAGS:
        events.upload(KEYS[0], etag)
        events.whole_night(USUAL, good)
    events.list_photos(USUAL)  # sees e2, is published late
    events.upload(KEYS[0], "e1")
    events.whole_night(USUAL, good)
    events.publish_late(0, good)
    events.analysts_see_each_newest_version_once()
