"""``refund demo``: a month of made-up nights to look at, and their removal."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from refund.cli.access import command_services, role_access, who
from refund.cli.app import AsJson, app, console, print_json, step
from refund.params import parse_run_date

if TYPE_CHECKING:
    from refund.lifecycle.demo import DemoLoaded, DemoRemoved
    from refund.night.services import Services

_PICTURES = 12  # of the category that grows; the report shows fewer
_DRIFT = "drift"


@app.command()
def demo(
    nights: Annotated[int, typer.Option(help="Nights to make up.")] = 30,
    photos: Annotated[int, typer.Option(help="Photos of a night, on average.")] = 1000,
    ending: Annotated[str, typer.Option(help="Run date of the last one, YYYY-MM-DD; yesterday unless given.")] = "",
    seed: Annotated[int, typer.Option(help="Another number gives other nights.")] = 1,
    remove: Annotated[bool, typer.Option("--remove", help="Remove every made-up night instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load made-up nights to look at: tables, reports, drift and alerts of a month, marked as synthetic.

    The mix of goods of one night, the last but two, really shifts. Real nights are not touched, nobody is told of the
    alerts, and --remove takes all of it away. It may be repeated; a load that was killed is finished.

    Example: refund demo --nights 30
    """
    with command_services() as services:
        if remove:
            _remove(services, as_json=as_json)
            return
        from refund.lifecycle.demo import load_demo
        from refund.lifecycle.demo_plan import DemoPlan
        from refund.local.demo_pictures import cup_pictures

        last = parse_run_date(ending) if ending else (services.now() - timedelta(days=1)).date()
        plan = DemoPlan(nights=nights, photos=photos, ending=last, seed=seed)
        loaded = load_demo(plan, services, pictures=cup_pictures(_PICTURES), by=who(), tell=step)
        if as_json:
            print_json(loaded)
        else:
            _show(loaded, services)


def _remove(services: Services, *, as_json: bool) -> None:
    from refund.lifecycle.demo import remove_demo
    from refund.store.database import Database

    removed = remove_demo(services, Database(role_access("owner")), by=who())
    if as_json:
        print_json(removed)
        return
    console.print(_told(removed))


def _told(removed: DemoRemoved) -> str:
    if not removed.nights:
        return "There are no made-up nights, so nothing was removed"
    return f"Removed {removed.nights} made-up nights: {sum(removed.rows.values()):,} rows, {removed.objects} objects"


def _show(loaded: DemoLoaded, services: Services) -> None:
    new = sum(night.new for night in loaded.nights)
    first, last = loaded.nights[0].run_date, loaded.nights[-1].run_date
    there = len(loaded.nights) - new
    console.print(
        f"{len(loaded.nights)} made-up nights from {first} to {last}, {loaded.photos:,} photos"
        + (f"; {there} of them were there already" if there else "")
    )
    found = {
        night.run_date: [name for name, status in night.drift.items() if status == _DRIFT] for night in loaded.nights
    }
    if loaded.shifted is not None:
        named = ", ".join(found[loaded.shifted])
        console.print(
            f"On {loaded.shifted} {loaded.shifted_category} was drawn ten points more often: "
            + (f"found by {named}" if named else "not found as drift, see its report")
        )
    false = [f"{day} ({', '.join(names)})" for day, names in found.items() if names and day != loaded.shifted]
    console.print(f"Other nights with drift: {'; '.join(false) or 'none'}")
    shown = {"Report of the last night": loaded.nights[-1]}
    shown |= {f"Report of {night.run_date}": night for night in loaded.nights if night.run_date == loaded.shifted}
    for label, night in shown.items():
        console.print(f"{label:<24}  {services.report_copy(night.report)}")
    console.print("Every row says synthetic = true; remove them with: refund demo --remove")
