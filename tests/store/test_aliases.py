"""Promotions and rollbacks: a stack per alias, changed by one at a time, on a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from refund.errors import (
    ModelRetiredError,
    NoModelError,
    PromotionRefusedError,
    RefundError,
    RollbackError,
    SettingsError,
)
from refund.settings import S3Access
from refund.store.aliases import AliasChange, Aliases, AliasMove, followed_rollback, stack_of
from refund.store.database import Database
from refund.store.objects import ObjectStore
from refund.store.registry import Registry
from tests.conftest import Roles
from tests.store.factories import rows
from tests.store.test_registry import model_folder, version

START = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def changes(*told: str) -> list[AliasChange]:
    """``A`` promotes A, ``<A`` rolls back to A; one a minute from `START` on."""
    return [
        AliasChange(
            change_id=number, alias="champion", model=text.removeprefix("<"),
            action="rollback" if text.startswith("<") else "promote", by="ada", reason="why", override=False,
            details={}, set_at=minute(number), ended_at=None,
        )
        for number, text in enumerate(told)
    ]  # fmt: skip


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((), []),
        (("A", "B"), ["A", "B"]),
        (("A", "B", "<A"), ["A"]),
        (("A", "B", "<A", "C"), ["A", "C"]),
        (("A", "B", "C", "<A"), ["A"]),  # B was retired and passed over
        (("A", "B", "A", "<B", "<A"), ["A"]),
    ],
)
def test_promotions_push_and_rollbacks_pop(told: tuple[str, ...], expected: list[str]) -> None:
    assert stack_of(changes(*told)) == expected


@pytest.mark.parametrize(
    ("told", "began_after", "expected"),
    [
        (("A", "B"), 2, None),  # nothing happened since
        (("A", "B", "<A"), 2, "A"),
        (("A", "B", "<A"), 3, None),  # the rollback was before the run
        (("A", "B", "C"), 2, None),  # a promotion waits for the next run
        (("A", "B", "C", "<B"), 2, None),  # its own model never left the stack
        (("A", "B", "C", "D", "<C"), 2, None),  # nor here, though the alias means C now
        (("A", "B", "<A", "C"), 2, "A"),  # B is still not to be used, and C waits for the next run
        (("A", "B", "C", "<B", "<A"), 3, "A"),
        (("A", "B", "C", "<B", "<A"), 2, "A"),
        (("A", "B", "<A", "C", "<A"), 2, "A"),
    ],
)
def test_a_run_follows_the_rollbacks_of_its_own_model_and_no_promotion(
    told: tuple[str, ...], began_after: int, expected: str | None
) -> None:
    assert followed_rollback(changes(*told), minute(began_after - 0.5)) == expected


@pytest.mark.parametrize(
    ("told", "began_after", "expected"),
    [
        (("A", "B", "<A"), 3, "A"),  # taken back between the health check's question and its entry
        (("A", "B", "C"), 3, None),  # promoted over between the two
        (("A", "B", "C", "<B"), 3, None),
        (("A", "B", "C", "<B", "<A"), 3, "A"),
        (("A", "B", "<A"), 2, "A"),
        ((), 1, None),
    ],
)
def test_a_change_between_the_question_and_the_entry_of_a_run_is_not_lost(
    told: tuple[str, ...], began_after: int, expected: str | None
) -> None:
    assert followed_rollback(changes(*told), minute(began_after - 0.5), began_with="B") == expected


@pytest.fixture(scope="module")
def registered(database: Roles, s3_moto: S3Access, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry(objects=ObjectStore(s3_moto), database=Database(database.app))
    for number in "ABCD":
        folder = tmp_path_factory.mktemp("models") / number
        registry.register(model_folder(folder, version(number)), created_by="ada")
    return registry


@pytest.fixture
def aliases(registered: Registry, database: Roles) -> Iterator[Aliases]:
    """The aliases before anyone set one; all models may be used."""
    yield registered
    with Database(database.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM refund.model_alias_history")
        cursor.execute("DELETE FROM refund.audit")
        cursor.execute("DELETE FROM refund.run")
        cursor.execute("UPDATE refund.model SET state = 'candidate'")


def promote(aliases: Aliases, *models: str) -> None:
    for model in models:
        aliases.promote("champion", f"net@{model}", by="ada", reason=f"{model} is better")


def test_history_keeps_who_when_why_and_what_it_rests_on(aliases: Aliases, database: Roles) -> None:
    promote(aliases, "A")
    aliases.promote("champion", "net@B", by="bob", reason=" better ", override=True, details={"photos": 250})
    moved = aliases.rollback("champion", by="cy", reason="shoes go wrong")
    assert moved == AliasMove(alias="champion", before="net@B", after="net@A")
    history = aliases.history("champion")
    assert [(entry.model, entry.action, entry.by, entry.reason, entry.override) for entry in history] == [
        ("net@A", "promote", "ada", "A is better", False),
        ("net@B", "promote", "bob", "better", True),
        ("net@A", "rollback", "cy", "shoes go wrong", False),
    ]
    assert history[1].details == {"photos": 250}
    assert history[0].ended_at <= history[1].set_at <= history[1].ended_at <= history[2].set_at  # type: ignore[operator]
    assert history[2].ended_at is None
    audit = "SELECT actor, action, details ->> 'to' FROM refund.audit WHERE subject = 'champion' ORDER BY audit_id"
    assert rows(database.owner, audit) == [
        ("ada", "model.promote", "net@A"), ("bob", "model.promote", "net@B"), ("cy", "model.rollback", "net@A"),
    ]  # fmt: skip


def test_the_aliases_have_a_history_each(aliases: Aliases) -> None:
    promote(aliases, "A", "B")
    aliases.promote("challenger", "net@C", by="ada", reason="to compare")
    assert [entry.model for entry in aliases.history("challenger")] == ["net@C"]
    assert [entry.model for entry in aliases.history()] == ["net@A", "net@B", "net@C"]
    with pytest.raises(SettingsError, match=r"^there is no alias 'best'; expected champion or challenger$"):
        aliases.history("best")


def test_two_rollbacks_go_back_two_models_and_then_there_is_none(aliases: Aliases) -> None:
    promote(aliases, "A", "B", "C")
    assert [aliases.rollback("champion", by="ada", reason="bad").after for _ in range(2)] == ["net@B", "net@A"]
    with pytest.raises(RollbackError) as caught:
        aliases.rollback("champion", by="ada", reason="bad")
    assert str(caught.value) == (
        "champion means net@A and has no earlier model to go back to; choose one (refund model list) and promote it: "
        "refund model promote"
    )
    assert len(aliases.history("champion")) == 5


def test_an_alias_that_was_never_set_cannot_go_back(aliases: Aliases) -> None:
    with pytest.raises(RollbackError) as caught:
        aliases.rollback("champion", by="ada", reason="bad")
    assert str(caught.value) == (
        "champion means no model yet, so there is nothing to go back from; set one: refund model promote"
    )


def test_a_rollback_passes_over_retired_models_and_says_so(aliases: Aliases) -> None:
    promote(aliases, "A", "B", "C")
    assert aliases.retire("net@B", by="ada", reason="wrong labels")
    assert not aliases.retire("net@B", by="ada", reason="again")
    moved = aliases.rollback("champion", by="ada", reason="bad")
    assert (moved.after, moved.skipped) == ("net@A", ("net@B",))
    assert aliases.history("champion")[-1].details == {"skipped": ["net@B"]}
    assert stack_of(aliases.history("champion")) == ["net@A"]


def test_one_request_rolls_back_once(aliases: Aliases) -> None:
    promote(aliases, "A", "B", "C")
    for expected in (True, False):
        moved = aliases.rollback("champion", by="ada", reason="bad", request="run 1")
        assert (moved.after, moved.changed) == ("net@B", expected)
    assert aliases.history("champion")[-1].details == {"request": "run 1"}
    assert aliases.rollback("champion", by="ada", reason="bad", request="run 2").after == "net@A"


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_each_alias_goes_back_on_its_own(alias: str, aliases: Aliases) -> None:
    for model in ("A", "B"):
        for name in ("champion", "challenger"):
            aliases.promote(name, f"net@{model}", by="ada", reason="why")
    aliases.rollback(alias, by="ada", reason="bad")
    other = {"champion": "challenger", "challenger": "champion"}[alias]
    assert [stack_of(aliases.history(name)) for name in (alias, other)] == [["net@A"], ["net@A", "net@B"]]


def test_reasons_are_kept_in_every_script_and_refused_where_nobody_could_read_them(aliases: Aliases) -> None:
    told = "Schuhe → 👟, 靴 besser; 'quoted'; DROP TABLE %s \x1b[31m\u202e"
    aliases.promote("champion", "net@A", by="Ádá 🦊", reason=told)
    (change,) = aliases.history("champion")
    assert (change.by, change.reason) == ("Ádá 🦊", told)
    with pytest.raises(SettingsError, match="needs a reason"):
        aliases.rollback("champion", by="ada", reason="\u200b \u2060\ufeff\u3000")
    for letter, shown in (("\0", r"'\x00'"), ("\udcff", r"'\udcff'")):
        with pytest.raises(SettingsError) as caught:
            aliases.promote("champion", "net@B", by="ada", reason=f"bad{letter}")
        assert str(caught.value) == (
            f"the reason holds the character {shown}, which Postgres cannot store; give it as plain text in UTF-8"
        )


def test_where_all_earlier_models_are_retired_there_is_nothing_to_go_back_to(aliases: Aliases) -> None:
    promote(aliases, "A", "B")
    aliases.retire("net@A", by="ada", reason="wrong labels")
    with pytest.raises(RollbackError) as caught:
        aliases.rollback("champion", by="ada", reason="bad")
    assert str(caught.value) == (
        "champion means net@B and has no earlier model to go back to but net@A, retired; choose one "
        "(refund model list) and promote it: refund model promote"
    )


def test_a_rollback_never_ends_where_it_began(aliases: Aliases) -> None:
    promote(aliases, "C", "A", "B", "A")
    aliases.retire("net@B", by="ada", reason="wrong labels")
    assert aliases.rollback("champion", by="ada", reason="bad").after == "net@C"


def test_a_model_in_use_is_not_retired(aliases: Aliases, database: Roles) -> None:
    promote(aliases, "A")
    with pytest.raises(PromotionRefusedError) as caught:
        aliases.retire("net@A", by="ada", reason="old")
    assert str(caught.value) == (
        "net@A is the champion, so it cannot be retired; promote another model first (refund model promote), or roll "
        "back (refund model rollback)"
    )
    with Database(database.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params,"
            " started_at) VALUES ('night 7', '2026-11-21', 'running', 'net@B', '1', '1', '{}', now())"
        )
    with pytest.raises(PromotionRefusedError) as caught:
        aliases.retire("net@B", by="ada", reason="old")
    assert str(caught.value) == (
        "run night 7 is using net@B, so it cannot be retired yet; wait until the run has ended, or clear it and let it "
        "end"
    )
    promote(aliases, "C", "D")
    aliases.rollback("champion", by="ada", reason="bad")
    aliases.promote("champion", "net@D", by="ada", reason="mended what it reads")
    with pytest.raises(PromotionRefusedError, match="run night 7 is using net@C, so it cannot be retired yet"):
        aliases.retire("net@C", by="ada", reason="a shard of night 7 may have been given it at the rollback")
    with pytest.raises(NoModelError, match="'net@Z'"):
        aliases.retire("net@Z", by="ada", reason="old")


def test_a_retired_model_gets_no_alias(aliases: Aliases) -> None:
    aliases.retire("net@A", by="ada", reason="wrong labels")
    for alias in ("champion", "challenger"):
        with pytest.raises(ModelRetiredError) as caught:
            aliases.promote(alias, "net@A", by="ada", reason="why not")
    assert str(caught.value) == "model net@A is retired and may not be used; choose another: refund model list"
    assert aliases.history() == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda aliases: aliases.promote("champion", "net@A", by="ada", reason=" "),
            "a change of champion needs a reason; say why net@A shall be it",
        ),
        (
            lambda aliases: aliases.rollback("champion", by="ada", reason=""),
            "a rollback of champion needs a reason; say what is wrong with the present model",
        ),
        (
            lambda aliases: aliases.retire("net@A", by="ada", reason="\n"),
            "retiring net@A needs a reason; say why it shall not be used any more",
        ),
    ],
)
def test_every_change_needs_a_reason(change: Callable[[Aliases], object], text: str, aliases: Aliases) -> None:
    with pytest.raises(SettingsError) as caught:
        change(aliases)
    assert str(caught.value) == text
    assert aliases.history() == []


def at_once(*calls: Callable[[], AliasMove]) -> tuple[list[AliasMove], list[RefundError]]:
    """Run the calls in threads that start together; what they returned and what they raised."""
    barrier = threading.Barrier(len(calls))
    done: list[AliasMove] = []
    failed: list[RefundError] = []

    def run(call: Callable[[], AliasMove]) -> None:
        barrier.wait()
        try:
            done.append(call())
        except RefundError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done, failed


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(aliases: Aliases) -> None:
    promote(aliases, "A")
    done, failed = at_once(
        *(
            lambda model=model: aliases.promote("champion", model, by="ada", reason="better", expected="net@A")  # type: ignore[misc]
            for model in ("net@B", "net@C")
        )
    )
    (winner,), (error,) = done, failed
    loser = {"net@B": "net@C", "net@C": "net@B"}[winner.after]
    assert isinstance(error, PromotionRefusedError)
    assert str(error) == (
        f"champion changed meanwhile from net@A to {winner.after}, so {loser} was compared with the wrong model; "
        f"compare again: refund model promote {loser}"
    )
    assert stack_of(aliases.history("champion")) == ["net@A", winner.after]


def test_of_two_first_promotions_at_once_one_wins(aliases: Aliases) -> None:
    done, failed = at_once(
        *(
            lambda model=model: aliases.promote("champion", model, by="ada", reason="first", expected=None)  # type: ignore[misc]
            for model in ("net@B", "net@C")
        )
    )
    assert len(done) == len(failed) == 1
    assert str(failed[0]).startswith(f"champion changed meanwhile from nothing to {done[0].after}, so ")


def test_of_two_rollbacks_of_one_model_at_once_one_wins(aliases: Aliases) -> None:
    promote(aliases, "A", "B", "C")
    done, failed = at_once(*2 * [lambda: aliases.rollback("champion", by="ada", reason="bad", expected="net@C")])
    assert [moved.after for moved in done] == ["net@B"]
    assert [str(error) for error in failed] == [
        "champion changed meanwhile from net@C to net@B; look at what happened before another rollback: "
        "refund model history"
    ]


def test_the_registry_tells_a_running_night_of_a_rollback(registered: Registry, aliases: Aliases) -> None:
    promote(aliases, "A", "B")
    began = aliases.database.now()
    assert registered.rolled_back_to("champion", began) is None
    aliases.rollback("champion", by="ada", reason="bad")
    assert registered.rolled_back_to("champion", began) == "net@A"
    assert registered.rolled_back_to("champion", aliases.database.now()) is None


@pytest.mark.parametrize("role", ["app", "owner"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE refund.model SET sha256 = repeat('0', 64) WHERE model = 'net@A'",
        "UPDATE refund.model SET state = 'retired', card = '{}' WHERE model = 'net@A'",
        "DELETE FROM refund.model WHERE model = 'net@A'",
        "TRUNCATE refund.model CASCADE",
    ],
)
def test_postgres_lets_nobody_change_a_version(
    statement: str, role: str, registered: Registry, database: Roles
) -> None:
    immutable = r"model net@A is immutable; register the change as a new version|registered models are immutable"
    expected = immutable if role == "owner" else "permission denied"
    with (
        pytest.raises(RefundError, match=expected),
        Database(getattr(database, role)).connect() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert registered.resolve("net@A").card == version("A")
