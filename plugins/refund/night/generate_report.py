"""After persist: measure drift and commit it, then write the morning report to Postgres and S3, then the export."""

from __future__ import annotations

import logging
from pathlib import Path

from refund import keys
from refund.errors import ReconciliationError
from refund.monitor.stage_metrics import StageMetrics
from refund.night.drift_window import measure_drift
from refund.night.export import export_decisions
from refund.night.report_photos import example_pictures
from refund.night.services import NightRun, Services, Stopwatch
from refund.store.drift import save_drift
from refund.store.planning import try_analyze

log = logging.getLogger(__name__)

HTML_FILE = "report.html"
CSV_FILE = "report.csv"


def write_report(run: NightRun, services: Services) -> dict[str, str]:
    """Measure drift, then render page and table; run again, they are made again from what the tables say then.

    Returns:
        The URIs of page, table and export (none for a made-up night), or an empty dict after a dry run, which publishes
        nothing to report.
    """
    from refund.report.compose import report_figures
    from refund.report.csv_table import render_csv
    from refund.report.page import render_html

    watch = Stopwatch()
    row = services.repository.require_run(run.run_id)
    if row.state != "published":
        log.info("This run is a %s: there is nothing to report", row.state.replace("_", " "))
        return {}
    try_analyze(services.database, run.run_id, photos=row.photos or 0)
    night = services.repository.night_figures(run.run_id)
    drift = measure_drift(row, night, services)
    for result in drift:
        save_drift(services.database, run.run_id, row.run_date, result, at=services.now())
    decided_by = dict.fromkeys([row.model, *night.model_counts])
    summaries = {model: services.registry.resolve(model).card.summary for model in decided_by}
    examples, pictures = example_pictures(row, drift, services)
    figures = report_figures(row, night, drift, model_summaries=summaries, at=services.now(), examples=examples)
    page, table = render_html(figures, pictures), render_csv(figures)
    folder = keys.report_prefix(run_date=row.run_date, run_id=row.run_id)
    services.objects.put(folder + HTML_FILE, page.encode(), content_type="text/html; charset=utf-8")
    services.objects.put(folder + CSV_FILE, table.encode(), content_type="text/csv; charset=utf-8")
    uris = {"html": services.objects.uri(folder + HTML_FILE), "csv": services.objects.uri(folder + CSV_FILE)}
    services.repository.save_report(
        run_id=row.run_id,
        run_date=row.run_date,
        body=figures.to_dict(),
        html_uri=uris["html"],
        csv_uri=uris["csv"],
        at=services.now(),
    )
    if services.settings.report_dir:
        _copy_to(Path(services.settings.report_dir) / folder.removeprefix("reports/"), page, table)
    metrics = StageMetrics(seconds=watch.seconds, photos=row.photos or 0, failed=0)
    services.repository.set_stage_metrics(run.run_id, {"generate_report": metrics})
    if not figures.reconciliation.adds_up:
        msg = (
            f"the tables of run {row.run_id!r} do not add up: {figures.reconciliation}; the report is written and "
            f"says so. Compare reporting.reconciliation with the run's manifest before anybody relies on this night"
        )
        raise ReconciliationError(msg)
    if exported := export_decisions(row, services):  # not before: nobody may act on a night that does not add up
        uris["decisions"] = exported.uri
    return uris


def _copy_to(folder: Path, page: str, table: str) -> None:
    """Keep a copy on disk for people without S3; a full disk must not cost the night its report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((HTML_FILE, page), (CSV_FILE, table)):
            temporary = folder / f".{name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)
    except OSError as exc:
        log.warning("No copy of the report in %s: %s", folder, exc)
