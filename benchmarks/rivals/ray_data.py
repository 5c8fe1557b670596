"""What a practitioner of Ray writes: tasks read and decode photos, actors hold the network, in batches of 64.

As Ray Data's guide to batch inference has it: the network is built in the ``__init__`` of a class that ``map_batches``
runs in actors. Generous to it: keys are listed beforehand, there is no database, a photo that cannot be read is passed
over, and the clock starts when the cluster runs and the actors have built and traced their networks, of which every
execution starts new ones. Ray listens on 127.0.0.1 alone, has no dashboard, and tells nobody that it is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.photos import BATCH, Config, LeftOutError, build_network, decode, read, s3_client

LIBRARIES = ("ray", "keras", "tensorflow", "boto3", "PIL")
_LOOPBACK = "127.0.0.1"
_BLOCK = 32  # photos: Ray's own choice is one or two to a task, which costs it more
_OBJECT_STORE_BYTES = 512 * 1024 * 1024
_running: list[Clock] = []  # where the callback, which Ray makes by itself, finds the clock of the round


class Fetcher:
    """Reads and decodes photos; a client is made once in a process."""

    client: Any = None

    @classmethod
    def fetch(cls, batch: Mapping[str, Any], *, config: Config) -> dict[str, Any]:
        """Numbers and pixels of those photos of a batch that can be read."""
        cls.client = cls.client or s3_client(config)
        numbers, pixels = [], [np.zeros((0, config.input_px, config.input_px, 3), np.uint8)]
        for number, key in zip(batch["number"], batch["key"], strict=True):
            try:
                pixels.append(decode(read(cls.client, config, str(key)), input_px=config.input_px)[np.newaxis])
            except (OSError, ValueError):  # what Pillow raises for a file that is no picture or ends early
                continue
            numbers.append(number)
        return {"number": np.array(numbers, np.int64), "pixels": np.concatenate(pixels)}


class Classifier:
    """The network in an actor."""

    def __init__(self, *, config: Config) -> None:
        import keras

        self._preprocess = keras.applications.mobilenet_v2.preprocess_input
        self._network = build_network(config)
        self._classify(
            np.zeros((BATCH + 1, config.input_px, config.input_px, 3), np.uint8)
        )  # a whole batch, and a part

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The best class of every photo, and what this process has spent, for it may end before the round does."""
        scores = self._classify(batch["pixels"])
        told = {"pid": os.getpid(), "spent_s": time.process_time()}
        return {
            "number": batch["number"],
            "best": scores.argmax(axis=1),
            **{name: np.full(len(scores), value) for name, value in told.items()},
        }

    def _classify(self, pixels: Any) -> Any:
        return self._network.predict(self._preprocess(pixels.astype(np.float32)), batch_size=BATCH, verbose=0)


class Begin:
    """Starts the clock when all actors are ready and nothing was read yet; Ray calls it by these four names."""

    def before_execution_starts(self, executor: Any) -> None:
        """The moment."""
        for clock in _running:
            clock.start()

    def on_execution_step(self, executor: Any) -> None:
        """Nothing."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing; the error reaches the caller."""


@contextmanager
def opened(config: Config) -> Iterator[Callable[[Sequence[str], Clock], list[int | None]]]:
    """A cluster of this machine alone, for as long as the block lasts."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="rival-ray-"))
    try:
        _start(folder)
        yield _runner(config)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def set_environment() -> None:
    """What Ray reads when it is first imported: loopback alone, no reports of its use, no token left in the home."""
    os.environ.update(
        {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it takes 127.0.0.1 for a mistake and listens everywhere
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_raylet_start_wait_time_s": "180",
        }
    )


def _start(folder: Path) -> None:
    import ray

    try:
        ray.init(
            address="local",
            _node_ip_address=_LOOPBACK,
            _temp_dir=str(folder / "ray"),  # Ray lets everyone write there; the folder around it lets nobody in
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
        )
    except Exception as error:  # whatever it is: Ray is optional
        msg = f"Ray {ray.__version__} does not start here: {error}"
        raise LeftOutError(msg) from error
    if abroad := listening_abroad():
        msg = f"Ray {ray.__version__} must listen on loopback only, but it listens on {', '.join(abroad)}"
        raise LeftOutError(msg)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 600  # and so nothing is read before the actors are ready
    context.custom_execution_callback_classes = [Begin]


def listening_abroad() -> list[str]:
    """Addresses other than loopback on which this process or one below it takes connections."""
    me = psutil.Process()
    found = []
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="inet"):
                address = ipaddress.ip_address(connection.laddr.ip)
                plain = getattr(address, "ipv4_mapped", None) or address
                if connection.status == psutil.CONN_LISTEN and not plain.is_loopback:
                    found.append(f"{address} port {connection.laddr.port}")
    return found


def _runner(config: Config) -> Callable[[Sequence[str], Clock], list[int | None]]:
    import ray

    actors = int(ray.cluster_resources()["CPU"])

    def run(keys: Sequence[str], clock: Clock) -> list[int | None]:
        photos = ray.data.from_items(
            [{"number": number, "key": key} for number, key in enumerate(keys)],
            override_num_blocks=max(-(-len(keys) // _BLOCK), min(actors, len(keys))),
        )
        pictures = photos.map_batches(Fetcher.fetch, batch_size=None, fn_kwargs={"config": config})
        classes = pictures.map_batches(
            Classifier,
            fn_constructor_kwargs={"config": config},
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=actors),
        )
        found: list[int | None] = [None] * len(keys)
        _running[:] = [clock]
        for batch in classes.iter_batches(batch_size=None):
            for number, best in zip(batch["number"], batch["best"], strict=True):
                found[number] = int(best)
            for pid, spent_s in zip(batch["pid"], batch["spent_s"], strict=True):
                clock.note(int(pid), float(spent_s))
        _running.clear()
        return found

    return run
