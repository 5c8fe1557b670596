"""``refund upload`` and ``refund classify``: photos from a folder into the bucket, or straight to a verdict."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refund.cli.access import command_services
from refund.cli.app import AsJson, app, console, print_json, printable
from refund.cli.exit_codes import EXIT_NO
from refund.errors import RefundError
from refund.params import NightParams, parse_run_date

if TYPE_CHECKING:
    from refund.night.try_photos import TriedPhoto


def yesterday() -> str:
    """The date that a night run by hand looks at by default, in UTC."""
    return (datetime.now(UTC) - timedelta(days=1)).date().isoformat()


@app.command()
def upload(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with photos.")],
    date: Annotated[str, typer.Option(help="Photo date, YYYY-MM-DD; yesterday unless given.")] = "",
    refund_id: Annotated[str, typer.Option(help="Put everything under this refund id.")] = "",
    prefix: Annotated[str, typer.Option(help="Where the night looks for photos.")] = NightParams().prefix,
    as_json: AsJson = False,
) -> None:
    """Upload a folder of photos for a night; what is there already, unchanged, is skipped.

    Without --refund-id the first level of subfolders names the refunds.

    Example: refund upload photos/ --date 2026-11-21
    """
    from rich.progress import track

    from refund.store.upload import upload_file

    day = parse_run_date(date or yesterday())
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    target = f"{prefix}{day.isoformat()}/" + (f"{refund_id}/" if refund_id else "")
    uploaded, skipped, refused = 0, 0, []
    with command_services() as services:
        services.objects.check_bucket()
        for path in track(files, "Uploading", console=console, disable=as_json, transient=True):
            key = target + path.relative_to(folder).as_posix()
            try:
                if upload_file(services.objects, path, key):
                    uploaded += 1
                else:
                    skipped += 1
            except RefundError as exc:
                refused.append({"path": str(path), "key": key, "error": str(exc)})
    answer = {"date": day.isoformat(), "uploaded": uploaded, "skipped": skipped, "refused": refused}
    if as_json:
        print_json(answer)
    else:
        counts = f"{uploaded} uploaded, {skipped} already there, {len(refused)} refused"
        console.print(f"{counts}  →  {target}")
        for item in refused:
            console.print(f"refused {item['path']}: {item['error']}", style="red")
    if refused:
        raise typer.Exit(EXIT_NO)


@app.command()
def classify(
    paths: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top_k: Annotated[int, typer.Option(min=1, max=10, help="Classes to name per photo.")] = 5,
    model: Annotated[str, typer.Option(help="An alias or name@version; the champion unless given.")] = "champion",
    as_json: AsJson = False,
) -> None:
    """Classify image files here and now, by the night's own steps but without Airflow.

    Every file given has one entry in the answer, whatever it is.

    Example: refund classify photo.jpg --top-k 3
    """
    from refund.cli.model import local_model_folder
    from refund.night.try_photos import try_photos

    files: list[Path] = []
    for path in paths:
        files += sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]
    settings, folder = local_model_folder(model)
    tried = try_photos(files, model_folder=folder, settings=settings, top_k=top_k)
    if as_json:
        print_json([_as_json(photo) for photo in tried])
    else:
        for photo in tried:
            _show(photo)


def _as_json(photo: TriedPhoto) -> dict[str, Any]:
    return {
        "path": photo.path,
        "status": photo.status,
        "predictions": [asdict(score) for score in photo.predictions],
        "reason": photo.reason,
        "category": photo.category,
        "category_score": photo.category_score,
        "decision": photo.decision,
        "model": photo.model,
    }


def _show(photo: TriedPhoto) -> None:
    console.print(printable(photo.path), style="bold")
    if photo.reason is not None:
        console.print(f"  rejected: {printable(photo.reason)}", style="red")
        return
    score = photo.category_score or 0.0
    console.print(f"  {photo.category} ({score:.0%}, {photo.decision})", style="green")
    for prediction in photo.predictions:
        bar = "█" * round(prediction.confidence * 20)
        console.print(f"  {prediction.confidence:6.1%} {bar:<20} {prediction.class_name}")
