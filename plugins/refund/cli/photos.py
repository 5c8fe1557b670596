"""``refund upload`` and ``refund classify``: photos from a folder into the bucket, or straight to a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from datetime import date as date_type
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refund.cli.access import command_services
from refund.cli.app import AsJson, app, console, print_json, printable
from refund.cli.exit_codes import EXIT_NO
from refund.errors import RefundError, RetriableRunError, SettingsError
from refund.keys import date_prefix
from refund.params import NightParams, parse_run_date

if TYPE_CHECKING:
    from refund.night.try_photos import TriedPhoto
    from refund.store.objects import ObjectStore


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

    day = parse_run_date(date or yesterday())
    target = upload_target(NightParams(prefix=prefix), day, refund_id=refund_id)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with command_services() as services:
        services.objects.check_bucket()
        tracked = track(files, "Uploading", console=console, disable=as_json, transient=True)
        done = upload_all(services.objects, tracked, folder=folder, target=target)
    if as_json:
        print_json({"date": day.isoformat(), **asdict(done)})
    else:
        counts = f"{done.uploaded} uploaded, {done.skipped} already there, {len(done.refused)} refused"
        console.print(f"{counts}  →  {target}")
        for item in done.refused:
            console.print(printable(f"refused {item['path']}: {item['error']}"), style="red")
    if done.refused:
        raise typer.Exit(EXIT_NO)


@dataclass(slots=True, kw_only=True)
class Uploaded:
    """What became of the files of one ``refund upload``."""

    uploaded: int = 0
    skipped: int = 0  # there already, unchanged
    refused: list[dict[str, str]] = field(default_factory=list)  # path, key, error


def upload_target(params: NightParams, day: date_type, *, refund_id: str) -> str:
    """The folder in the bucket that the night of a photo date looks into, or that of one refund below it.

    Raises:
        SettingsError: the refund id is more, or less, than the name of one folder.
    """
    folder = date_prefix(params.prefix, day)
    if not refund_id:
        return folder
    if "/" in refund_id or refund_id in {".", ".."} or refund_id.strip() != refund_id or not refund_id.isprintable():
        msg = f"--refund-id must be the name of one folder, for example R-1001, without a slash; got {refund_id!r}"
        raise SettingsError(msg)
    return f"{folder}{refund_id}/"


def upload_all(objects: ObjectStore, files: Iterable[Path], *, folder: Path, target: str) -> Uploaded:
    """Upload files under their path below ``folder``; one that cannot be read or stored costs no other.

    Raises:
        RetriableRunError: the server does not answer at all; the next try skips what is up already.
    """
    from refund.store.upload import upload_file

    done = Uploaded()
    for path in files:
        key = target + path.relative_to(folder).as_posix()
        try:
            key.encode("utf-8")
            if upload_file(objects, path, key):
                done.uploaded += 1
            else:
                done.skipped += 1
            continue
        except UnicodeEncodeError:
            error = "its name is not UTF-8, as S3 keys must be; rename the file"
        except OSError as exc:
            error = f"it cannot be read: {exc.strerror}; mend the file or its rights"
        except RefundError as exc:
            if isinstance(exc, RetriableRunError):
                objects.check_bucket()  # raises where the server is down; else it is this key that it cannot take
            error = str(exc)
        done.refused.append({"path": str(path), "key": key, "error": error})
    return done


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
