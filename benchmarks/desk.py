"""What a request to the refund desk costs: sixteen clients at once, a server in a process of its own, a real network.

``python -m benchmarks desk``. The server is uvicorn with the desk as Airflow mounts it, its login check left out;
clients are another process, so that they take none of the server's interpreter. Memory is proportional set size (PSS)
of the server and the processes below it: memory that several share counts once.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.arena import Arena, find_photographs, open_arena
from benchmarks.handover import read_services, write_access
from benchmarks.measure import tree_cpu_s

RESULTS_FILE = Path(__file__).parent / "results" / "desk.json"
CLIENTS = 16
SIDE = (500, 375)  # pixels, of the photos sent
_PHOTOS = 40  # different ones, sent in turn
_WARM_UP = 64
_MARKS = (500, 2000, 5000, 10_000)  # requests after which memory is looked at
_ALONE = 200
_START_S = 60.0
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Some requests in a row."""

    requests: int
    failed: int  # not answered with 200
    wall_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    core_ms: float  # CPU of the server and all below it, per request
    decoder_core_ms: float  # of that, in the decoding processes
    load: float  # one-minute load average of the machine when it ended; the benchmark's own is in it
    others_cores: float  # cores that other programs used meanwhile

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.wall_s


def run(*, quick: bool, model: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; what was found, as JSON values."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refund-bench-")))
        photographs, source = find_photographs(scratch / "samples")
        bodies = [sized(body) for body in photographs[:_PHOTOS]]
        arena = stack.enter_context(open_arena(photographs=bodies, photos=1, model_folder=model, progress=progress))
        name = arena.services.registry.resolve("champion").model
        photos = scratch / "photos"
        photos.mkdir()
        for number, body in enumerate(bodies):
            (photos / f"{number}.jpg").write_bytes(body)
        port, server = stack.enter_context(serving(arena, scratch))
        load(port, photos, _WARM_UP, server)
        memory, legs, sent = {"warm": memory_mb(server.pid)}, {}, 0
        for mark in _MARKS[:2] if quick else _MARKS:
            leg = load(port, photos, mark - sent, server)
            legs[f"{sent} to {mark}"], sent = leg, mark
            memory[str(mark)] = memory_mb(server.pid)
            progress(f"{_told(leg)}; memory {memory[str(mark)]} MB after {mark}")
        legs["one client"] = load(port, photos, _ALONE, server, clients=1)
    return {
        "photographs": source,
        "photo_bytes": sum(map(len, bodies)) // len(bodies),
        "model": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "clients": CLIENTS,
        "memory_mb": memory,
        "legs": {name: asdict(leg) for name, leg in legs.items()},
    }


def tell(found: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield f"{found['photographs']}, {found['photo_bytes']:,} bytes each on average; {found['model']}"
    for name, leg in found["legs"].items():
        yield f"{name}: {_told(Leg(**leg))}"
    yield f"memory of the server and its decoders, MB by requests: {found['memory_mb']}"


def _told(leg: Leg) -> str:
    return (
        f"{leg.requests} requests ({leg.failed} failed), p50 {leg.p50_ms:.0f} ms, p95 {leg.p95_ms:.0f} ms, "
        f"p99 {leg.p99_ms:.0f} ms, {leg.per_s:.0f}/s; CPU {leg.core_ms:.1f} ms each, {leg.decoder_core_ms:.1f} of it "
        f"decoding; load {leg.load:.1f}, others used {leg.others_cores:.1f} cores"
    )


def sized(body: bytes) -> bytes:
    """The photo at `SIDE`, as JPEG."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(body)) as image:
        small = image.convert("RGB").resize(SIDE)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=92)
    return encoded.getvalue()


@contextmanager
def serving(arena: Arena, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The desk on a port of its own."""
    told = write_access(arena.services, folder / "desk.json")
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.desk", "serve", str(told)],
        stdout=subprocess.PIPE,
        env={**os.environ, "AIRFLOW_HOME": str(folder / "airflow"), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            msg = "the benchmark's server did not start; its error is above"
            raise RuntimeError(msg)
        yield int(line), server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def load(port: int, photos: Path, count: int, server: subprocess.Popen[bytes], *, clients: int = CLIENTS) -> Leg:
    """Have another process send ``count`` requests."""
    decoders = list(psutil.Process(server.pid).children(recursive=True))
    before_cpu, before_decoders = tree_cpu_s(server.pid), _cpu_s(decoders)
    before_busy = _busy_s()
    command = [sys.executable, "-m", "benchmarks.desk", "load", str(port), str(photos), str(count), str(clients)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert client.stdout is not None
    answer = json.loads(client.stdout.read())
    client.wait()
    cpu = tree_cpu_s(server.pid) - before_cpu
    ours = cpu + answer["cpu_s"]
    latencies = sorted(answer["latencies_ms"])
    return Leg(
        requests=count,
        failed=answer["failed"],
        wall_s=round(answer["wall_s"], 2),
        p50_ms=_quantile(latencies, 0.5),
        p95_ms=_quantile(latencies, 0.95),
        p99_ms=_quantile(latencies, 0.99),
        core_ms=round(1000 * cpu / count, 2),
        decoder_core_ms=round(1000 * (_cpu_s(decoders) - before_decoders) / count, 2),
        load=round(os.getloadavg()[0], 2),
        others_cores=round(max(0.0, _busy_s() - before_busy - ours) / answer["wall_s"], 2),
    )


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and all below it."""
    root = psutil.Process(pid)
    return round(sum(each.memory_full_info().pss for each in (root, *root.children(recursive=True))) / 1e6, 1)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in processes if process.is_running()))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


# --- the processes ----------------------------------------------------------------------------------------------------


def serve(told: Path) -> None:
    """The server's process: print the port once it listens, then serve until it is ended."""
    import socket

    import uvicorn
    from fastapi import FastAPI

    from refund.desk.app import PREFIX, create_app
    from refund.desk.auth import Visitor, guard
    from refund.desk.wiring import Desk

    with read_services(told, desk_requests_per_minute=10_000_000) as services:
        desk = Desk(lambda: nullcontext(services))
        app = create_app(desk)
        app.dependency_overrides[guard] = lambda: Visitor(name="benchmark", may_write=True)
        outer = FastAPI(openapi_url=None)
        outer.mount(PREFIX, app)
        with socket.socket() as listening:
            listening.bind((_HOST, 0))
            print(listening.getsockname()[1], flush=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads our log, and a full pipe would stop us
            config = uvicorn.Config(outer, log_level="warning", access_log=False, lifespan="off")
            uvicorn.Server(config).run([listening])
        desk.close()


def send(port: int, photos: Path, count: int, clients: int) -> None:
    """The clients' process: each sends its next request when the last was answered; prints what they saw."""
    requests = [_request(path.read_bytes()) for path in sorted(photos.iterdir())]
    latencies_ms: list[float] = []
    failed = 0
    numbers = iter(range(count))

    async def one() -> None:
        nonlocal failed
        give_up_at = time.monotonic() + _START_S
        while True:
            try:
                reader, writer = await asyncio.open_connection(_HOST, port)
                break
            except ConnectionRefusedError:
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.05)
        for number in numbers:
            began_s = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            latencies_ms.append((time.perf_counter() - began_s) * 1000)
            failed += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(clients)))

    began_s = time.perf_counter()
    asyncio.run(all_of_them())
    wall_s = time.perf_counter() - began_s
    cpu_s = sum(os.times()[:2])
    print(json.dumps({"latencies_ms": latencies_ms, "failed": failed, "wall_s": wall_s, "cpu_s": cpu_s}))


def _request(photo: bytes) -> bytes:
    boundary = b"----refund-benchmark"
    part = b'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"--" + boundary + b"\r\n" + part + photo + b"\r\n--" + boundary + b"--\r\n"
    head = (
        f"POST /refund/api/classify HTTP/1.1\r\nHost: {_HOST}\r\nX-Refund-Desk: 1\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary.decode()}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        send(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
