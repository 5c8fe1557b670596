"""``python -m benchmarks ten-million``: the queries of the report on ten million decisions, each with its plan."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.made_nights import BUCKET, LAST, MadeNights, copy_report, fill, prepare, run_id
from benchmarks.statements import Ledger, RecordingDatabase, Statement, take_plans, time_query, write_plans

if TYPE_CHECKING:
    from refund.night.services import NightRun, Services
    from refund.settings import S3Access
    from tests.postgres import Roles

_CHECKOUT = Path(__file__).resolve().parents[1]
PLANS = Path(__file__).parent / "results" / "plans"
RESULTS_FILE = Path(__file__).parent / "results" / "ten_million.json"
LIMIT_MS = 1000
_TYPED_LIMIT_S = 60  # as `refund sql`
_SERVER = "-c synchronous_commit=off -c max_wal_size=16GB -c wal_level=minimal -c max_wal_senders=0 -c autovacuum=off"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill a server, report its last night several times, print what each statement took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ten-million", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="decisions, about; needs 3 GB of disk per million")
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5, help="reports of the last night")
    parser.add_argument("--plans", type=Path, default=PLANS, help="folder for the plans; what is in it is replaced")
    parser.add_argument("--plans-from", type=float, default=50, help="ms; plans of what takes less are not kept")
    parser.add_argument("--output", type=Path, default=RESULTS_FILE, help="JSON file to write")
    parser.add_argument("--typed", action=argparse.BooleanOptionalAction, default=True, help="also what analysts copy")
    parser.add_argument("--hold", action="store_true", help="wait for Enter before anything is measured")
    args = parser.parse_args(arguments)

    from refund.store.migrate import migrate
    from tests.conftest import fresh_database
    from tests.postgres import cluster

    with ExitStack() as stack:
        server = stack.enter_context(cluster(_SERVER))
        roles = stack.enter_context(fresh_database(server.roles))
        migrate(roles.owner)
        ledger = Ledger()
        services = stack.enter_context(_services(RecordingDatabase(roles.app, ledger)))
        made = MadeNights(nights=args.nights, photos=args.rows // args.nights, model=_register(services))
        began = time.perf_counter()
        prepare(roles.admin, made)
        fill(roles.admin, made, categories=_categories(), progress=_say)
        _say(f"filled in {time.perf_counter() - began:.0f} s")
        if args.hold:
            _say(f"server: {roles.app.place}, socket in {server.folder}")
            input()
        measure(services, roles, ledger, made, args)
    return 0


def measure(services: Services, roles: Roles, ledger: Ledger, made: MadeNights, args: argparse.Namespace) -> None:
    """Report the last night several times, and keep what each statement took and its plan."""
    from refund.store.database import Database

    for _ in _reports(services, made, repeats=1):
        copy_report(roles.admin)
    ledger.statements.clear()
    load = os.getloadavg()[0]
    seconds = list(_reports(services, made, repeats=args.repeats))
    found = list(ledger.statements.values())
    take_plans(Database(roles.app), found)
    ledger.statements.clear()
    _beside(services)
    beside = list(ledger.statements.values())
    facts = f"{made.nights} nights of {made.photos:,} photos; {_version(services)}; load {load:.1f} when it began"
    typed = []
    if args.typed:
        analyst = Database(roles.analyst)
        typed = [time_query(analyst, name, sql, repeats=3, limit_s=_TYPED_LIMIT_S) for name, sql in _typed_queries()]
    for part in (found, beside, typed):
        part.sort(key=lambda statement: -statement.best_ms)
        _say("\n".join(_table(part)))
    write_plans(args.plans, [one for one in found if one.best_ms >= args.plans_from], facts=facts)
    _say(f"a report and its alerts: {min(seconds):.1f} s at best, export included")
    _keep(args.output, facts, seconds, {"statements": found, "beside": beside, "typed": typed})


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


@contextmanager
def _services(database: RecordingDatabase) -> Iterator[Services]:
    """The night's own services on this database, and a bucket that holds nothing but what the report writes."""
    from moto.server import ThreadedMotoServer

    from refund.night.services import Services
    from refund.settings import S3Access, Settings
    from refund.store.objects import ObjectStore
    from refund.store.registry import Registry
    from refund.store.repository import Repository
    from refund.store.staging import Staging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    bucket = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    host, port = bucket.get_host_and_port()
    access = S3Access(bucket=BUCKET, endpoint_url=f"http://{host}:{port}", access_key="made", secret_key="up")
    with tempfile.TemporaryDirectory() as folder:
        _make_bucket(access)
        objects = ObjectStore(access)
        yield Services(
            settings=Settings(staging_root=Path(folder).as_uri()),
            objects=objects,
            database=database,
            repository=Repository(database),
            staging=Staging(Path(folder).as_uri(), s3=access),
            registry=Registry(objects=objects, database=database),
        )
    bucket.stop()


def _make_bucket(access: S3Access) -> None:
    from tests.conftest import make_bucket

    make_bucket(access)


def _register(services: Services) -> str:
    from tests.night.factories import write_model

    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "unit"
        write_model(unit)
        row = services.registry.register(unit, created_by="benchmark")
    services.registry.promote("champion", row.model, by="benchmark", reason="the only one")
    return row.model


def _categories() -> list[str]:
    from refund.model.labels import load_labels
    from refund.model.taxonomy import load_taxonomy

    return sorted(load_taxonomy(labels=load_labels()).categories)


def _reports(services: Services, made: MadeNights, *, repeats: int) -> Iterator[float]:
    """Report the last night and raise its alerts, as the tasks do; seconds of each time."""
    from refund.night.alert_on_drift import raise_alerts
    from refund.night.generate_report import write_report
    from refund.night.services import NightRun
    from refund.params import NightParams

    run: NightRun = NightRun(run_id=run_id(LAST), run_date=LAST, params=NightParams())
    for number in range(repeats):
        start = time.perf_counter()
        uris = write_report(run, services)
        told = raise_alerts(run, services, task_states={"persist": "success"})
        yield time.perf_counter() - start
        if "decisions" not in uris:  # without an export it was not the night that was meant
            msg = f"the report of {made.photos} photos has no export: {uris}"
            raise RuntimeError(msg)
        _say(f"report {number + 1} of {repeats}: {told}")


def _beside(services: Services) -> None:
    """What is no part of the report but read from the same tables: an alert's examples, the week's quality, fetch."""
    from datetime import timedelta

    from refund.lifecycle.quality import measure_quality
    from refund.store.examples import example_keys

    for _ in range(3):
        example_keys(services.database, run_date=LAST, count=5)
        measure_quality(LAST, services)
        services.repository.looked_at_dates()
        services.repository.standing_outcomes(
            [LAST - timedelta(days=late) for late in range(3)],
            model=services.registry.resolve("champion").model,
            taxonomy_version="2",
            threshold=0.5,
            exclude_run_id="tonight",
        )


def _typed_queries() -> Iterator[tuple[str, str]]:
    """What analysts copy: every question of docs/analysts.md and every file of include/sql."""
    text = (_CHECKOUT / "docs" / "analysts.md").read_text(encoding="utf-8")
    for number, sql in re.findall(r"^\*\*(\d+)\. .*?^```sql\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield f"analysts.md {number}", sql
    for path in sorted((_CHECKOUT / "include" / "sql").glob("*.sql")):
        yield f"include/sql/{path.name}", path.read_text(encoding="utf-8")


def _version(services: Services) -> str:
    _, rows = services.repository.select("SELECT current_setting('server_version')")
    return f"Postgres {rows[0][0]}, default settings"


def _table(statements: Sequence[Statement]) -> Iterator[str]:
    yield f"{'best ms':>9} {'median':>9} {'times':>5}  statement"
    for one in statements:
        mark = " (streams)" if one.streams else ""
        mark += f" above {LIMIT_MS} ms" if one.best_ms > LIMIT_MS else ""
        yield f"{one.best_ms:9.1f} {one.median_ms:9.1f} {len(one.ms):5}  {one.name}{mark}"


def _keep(output: Path, facts: str, seconds: Sequence[float], parts: Mapping[str, Sequence[Statement]]) -> None:
    def rows(statements: Sequence[Statement]) -> list[dict[str, Any]]:
        return [
            {"name": one.name, "best_ms": one.best_ms, "median_ms": one.median_ms, "times": len(one.ms)}
            for one in statements
        ]

    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": facts,
        "report_seconds": list(seconds),
        **{name: rows(statements) for name, statements in parts.items()},
    }
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
