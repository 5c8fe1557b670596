"""Second half of a shard: run the model over the pack and decide."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refund.errors import FatalRunError, StagingCorruptError
from refund.night.inference import in_blocks
from refund.night.little_memory import inference_room, memory_told, say_little_memory
from refund.night.services import NightRun, Services, ShardLayout, Stopwatch, begun_params, dump
from refund.night.staged import PREDICTIONS_FILE, STAGE_FILE, pack_model, read_manifest
from refund.schemas import predictions_schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from refund.model.card import ModelCard
    from refund.model.load import Predicted
    from refund.night.try_photos import TriedPhoto
    from refund.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifiedShard:
    """What a shard's classification left behind."""

    shard_uri: str
    model: str  # name@version
    classified: int
    review: int

    def as_xcom(self) -> dict[str, Any]:
        """Plain values for XCom."""
        return {
            "shard_uri": self.shard_uri,
            "model": self.model,
            "classified": self.classified,
            "review": self.review,
        }


@memory_told("classify")
def classify_shard(shard_uri: str, *, run: NightRun, services: Services) -> ClassifiedShard:
    """Classify every photo of the pack that was not rejected, with the model that the pack was made for.

    Whatever the aliases mean by now: tried again or cleared, a shard keeps the model that its validation fixed.

    Raises:
        StagingMissingError: the pack is gone.
        StagingCorruptError: manifest and pack are not of the same photos, or the pack is not fit for its model.
        ModelArtefactError: the model file is missing or altered.
        MemoryShortageError: less than the least is free.
        NotEnoughMemoryError: a limit leaves less than the least.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from refund.imaging.pack import PHOTOS_FILE, PIXELS_FILE, open_pixels, read_photos, release_pixels
    from refund.model.decide import decide_columns
    from refund.model.labels import load_labels
    from refund.model.load import load_model
    from refund.model.taxonomy import load_taxonomy
    from refund.monitor.latency import Latencies
    from refund.night.prediction_table import PredictionTables

    watch = Stopwatch()
    layout = ShardLayout(shard_uri)
    row = services.repository.require_run(run.run_id)
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    params = begun_params(row)
    if taxonomy.version != row.taxonomy_version:
        msg = (
            f"this run began with taxonomy {row.taxonomy_version}, this worker has {taxonomy.version}; one night's "
            f"decisions must rest on one taxonomy: trigger a new run for {row.run_date}"
        )
        raise FatalRunError(msg)
    with services.staging.readable_folder(layout.manifest) as folder:
        manifest = read_manifest(folder)
    with (
        services.staging.readable_folder(layout.pack) as pack,
        services.staging.writable_folder(layout.predictions) as target,
        ExitStack() as stack,
    ):
        unit = services.registry.fetch(pack_model(pack, uri=layout.pack), services.settings.cache_folder)
        room = inference_room(services, unit=unit, batch_size=params.batch_size, photos=len(manifest))
        say_little_memory(room.note, run.run_id, services)
        model = stack.enter_context(load_model(unit, threads=room.threads, labels=labels))
        photos = read_photos(pack / PHOTOS_FILE)
        pixels = open_pixels(pack / PIXELS_FILE)
        _check_size(pixels.shape, model.card, pack_uri=layout.pack)
        photo_ids = photos.column("photo_id").combine_chunks()
        if not photo_ids.equals(manifest.column("photo_id").combine_chunks()) or len(pixels) != len(photo_ids):
            msg = f"{layout.pack} holds other photos than {layout.manifest}; clear the run from the task fetch on"
            raise StagingCorruptError(msg)
        declared, names = manifest.column("declared_category"), manifest.column("key")
        slots = np.flatnonzero(photos.column("reason").is_null().to_numpy())
        tables = PredictionTables(labels=labels, categories=taxonomy.categories, model=model.card.key)
        review, spent_s = 0, [np.zeros(0, dtype=np.float32)]

        def judge(block: NDArray[np.intp], found: Predicted) -> tuple[pa.Table, int, NDArray[np.float32]]:
            verdicts = decide_columns(
                found.probabilities,
                labels=labels,
                taxonomy=taxonomy,
                top_k=params.top_k,
                threshold=params.review_threshold,
                declared=declared.take(block).to_pylist(),
                model=model.card.key,
                names=names.take(block).to_pylist(),
            )
            rows = tables.rows(photo_ids.take(block), verdicts)
            return rows, int(verdicts.reasons.any(axis=1).sum()), found.spent_s

        with (
            pq.ParquetWriter(target / PREDICTIONS_FILE, predictions_schema()) as writer,
            closing(
                in_blocks(
                    model,
                    pixels,
                    slots,
                    room=room,
                    judge=judge,
                    say=lambda note: say_little_memory(note, run.run_id, services),
                )
            ) as judged,
        ):
            for rows, to_review, spent in judged:
                writer.write_table(rows)
                review += to_review
                spent_s.append(spent)
                release_pixels(pixels)
        key = model.card.key
        stage = {"seconds": watch.seconds, "classified": len(slots), "review": review, "model": key}
        latencies = Latencies.of(np.concatenate(spent_s) * 1000)
        (target / STAGE_FILE).write_bytes(dump(stage | {"latencies": latencies.to_json()}))
    log.info("Classified %s photos by %s in %.1f s, %s go to review", len(slots), key, watch.seconds, review)
    return ClassifiedShard(shard_uri=shard_uri, model=key, classified=len(slots), review=review)


def classify_photos(
    paths: Sequence[Path], *, model_folder: Path, settings: Settings, top_k: int = 5
) -> list[TriedPhoto]:
    """Classify files by the night's own steps and store nothing; for DAGs of others (docs/reuse.md).

    The answer has one entry per path, in order; what cannot be decoded is ``rejected`` with its reason.

    Raises:
        ModelArtefactError: the model cannot be used.
        DecoderPoolError: the isolated interpreter cannot run.
    """
    from refund.night.try_photos import try_photos

    return try_photos(paths, model_folder=model_folder, settings=settings, top_k=top_k)


def _check_size(shape: tuple[int, ...], card: ModelCard, *, pack_uri: str) -> None:
    """Refuse pixels of another size than the model takes, also where no photo of the shard is good enough to be run."""
    if shape[1:3] != (card.input_height, card.input_width):
        msg = (
            f"{pack_uri} holds pixels of {shape[2]}×{shape[1]}, model {card.key} takes "
            f"{card.input_width}×{card.input_height}; clear the shard's task validate, so that it is decoded again"
        )
        raise StagingCorruptError(msg)
