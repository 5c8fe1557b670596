"""What a stage of the night reports of itself: how long, how many photos, how many of them failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from refund.monitor.latency import Latencies


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMetrics:
    """One stage of one run, all of its shards together; docs/observability.md says what each figure means."""

    seconds: float  # of work, summed over the shards
    photos: int | None = None  # that it worked on; None where it works on none
    failed: int | None = None  # of these
    latencies: Latencies | None = None  # where it works photo by photo

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            msg = f"a stage takes 0 seconds or more, got {self.seconds}"
            raise ValueError(msg)
        if (self.photos is None) != (self.failed is None) or not 0 <= (self.failed or 0) <= (self.photos or 0):
            msg = f"of its photos a stage fails from none to all, got {self.failed} of {self.photos}"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """As ``refund.run.stage_metrics`` keeps it; what cannot be said is null."""
        photos, failed, latencies = self.photos, self.failed, self.latencies or Latencies()
        percentiles = {f"p{percent}_ms": latencies.percentile_ms(percent) for percent in (50, 95, 99)}
        return {
            "seconds": round(self.seconds, 3),
            "photos": photos,
            "failed": failed,
            "photos_per_second": round(photos / self.seconds, 3) if photos is not None and self.seconds else None,
            "error_rate": round(failed / photos, 6) if failed is not None and photos else None,
            **{name: None if value is None else round(value, 3) for name, value in percentiles.items()},
            "max_ms": round(latencies.max_ms, 3) if latencies.photos else None,
        }
