"""The champion as the desk runs it: loaded once, and looked for again now and then, so that promotions take effect."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from refund.desk.problems import DeskError, one_line
from refund.errors import RetriableRunError

if TYPE_CHECKING:
    from refund.model.load import Model
    from refund.model.taxonomy import Taxonomy
    from refund.night.services import Services
    from refund.store.registry import ModelRow

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One model, a view of it for each lane: a runtime is for one thread alone.

    Nobody closes it: a lane may be using what another took the place of. The last one that lets go of it frees it.
    """

    key: str  # name@version
    views: tuple[Model, ...]
    taxonomy: Taxonomy

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its input."""
        return self.views[0].card.input_width, self.views[0].card.input_height


class Champion:
    """Asks the registry what the champion is, at most every ``look_again_s``, beside the photos that go on."""

    def __init__(self, services: Services, *, lanes: int, look_again_s: float = LOOK_AGAIN_S) -> None:
        self._services = services
        self._lanes = lanes
        self._look_again_s = look_again_s
        self._lock = Lock()
        self._loaded: Loaded | None = None
        self._refusal: Exception | None = None  # why the champion of now cannot be used
        self._looked_at = float("-inf")
        self._looking: Future[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def current(self) -> Loaded:
        """The model to use for photos that begin now; the first call loads it, later ones never wait.

        Raises:
            DeskError: 503, the champion does not run here.
            ConfigurationError, RetriableRunError: it cannot be had.
        """
        with self._lock:
            if self._loaded is None and self._refusal is None:
                self._look()
            elif time.monotonic() - self._looked_at > self._look_again_s and not self._is_looking():
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="desk-champion")
                self._looked_at = time.monotonic()
                self._looking = self._thread.submit(self._look_again)
            if self._refusal is not None:
                raise _anew(self._refusal) from self._refusal
            assert self._loaded is not None  # noqa: S101  (or there is a refusal)
            return self._loaded

    def close(self) -> None:
        """Stop looking."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True)

    def _is_looking(self) -> bool:
        return self._looking is not None and not self._looking.done()

    def _look(self) -> None:
        """Load it while others wait; an error leaves things as they are, and the next photo tries again."""
        loaded = self._load(self._services.registry.resolve("champion"))
        self._loaded, self._looked_at = loaded, time.monotonic()

    def _look_again(self) -> None:
        """Follow the alias; a model that is known to be the champion no more is not used for new photos."""
        loaded: Loaded | None = None
        refusal: Exception | None = None
        try:
            row = self._services.registry.resolve("champion")
            if self._loaded is None or row.model != self._loaded.key:
                loaded = self._load(row)
        except RetriableRunError as exc:
            log.warning("The desk goes on with the model it has: %s", one_line(exc))
            return
        except Exception as exc:  # noqa: BLE001  (told to whoever sends a photo)
            refusal = exc
            log.error("The desk has no model it may use: %s", one_line(exc))
        with self._lock:
            self._refusal = refusal
            if loaded is not None:
                self._loaded = loaded
                log.info("The desk uses %s from now on", loaded.key)

    def _load(self, row: ModelRow) -> Loaded:
        if row.card.runtime != "litert":
            raise DeskError(
                status=503,
                error="model_not_served",
                message=f"The champion {row.model} runs in {row.card.runtime}, which the desk does not load.",
                what_to_do="Promote a LiteRT build of it (refund model build makes one), or roll back.",
            )
        from refund.model.labels import load_labels
        from refund.model.load import load_model
        from refund.model.taxonomy import load_taxonomy

        folder = self._services.registry.fetch(row.model, self._services.settings.cache_folder)
        labels = load_labels()
        model = load_model(folder, threads=self._lanes, labels=labels)
        return Loaded(
            key=row.model,
            views=tuple(replace(model, runtimes=(runtime,)) for runtime in model.runtimes),
            taxonomy=load_taxonomy(labels=labels),
        )


def _anew(told: Exception) -> Exception:
    """The same error for another photo: one that is raised again and again would hold every frame that it came through.

    Not by its class's signature, which is not that of ``args`` where it takes keywords.
    """
    fresh = type(told).__new__(type(told), *told.args)
    fresh.__dict__.update(told.__dict__)
    return fresh
