"""The pool inside a real Celery prefork worker, whose daemonic processes may have no multiprocessing children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import psutil

APP = """
import json
import multiprocessing
from pathlib import Path

from celery import Celery

folder = Path(__file__).parent
app = Celery("pool_app", broker="filesystem://")
app.conf.broker_transport_options = {name: str(folder / "queue") for name in ("data_folder_in", "data_folder_out")}
app.conf.broker_transport_options["control_folder"] = str(folder / "control")
app.conf.broker_connection_retry_on_startup = True


@app.task
def decode():
    from refund.imaging.pool import DecoderPool
    from refund.records import ImageLimits

    bodies = [path.read_bytes() for path in sorted((folder / "photos").iterdir())]
    with DecoderPool(
        folder / "pixels.npy", limits=ImageLimits(), workers=2, memory_bytes=1_500_000_000, timeout_s=20.0
    ) as pool:
        facts = [(fact.slot, fact.reason) for fact in pool.decode(enumerate(bodies))]
    answer = {"facts": sorted(facts), "daemonic": multiprocessing.current_process().daemon}
    try:
        from billiard import current_process
        answer["daemonic"] = bool(current_process().daemon)
    finally:
        (folder / "answer.tmp").write_text(json.dumps(answer))
        (folder / "answer.tmp").rename(folder / "answer.json")
"""


def command_line(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it ended since it was listed
        return []


def test_the_pool_works_in_a_prefork_worker(tmp_path, scene, encode):
    from refund.imaging.pack import create_pixels

    for folder in ("queue", "control", "photos"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pool_app.py").write_text(textwrap.dedent(APP))
    for number in range(6):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encode(scene(seed=number), "JPEG"))
    (tmp_path / "photos" / "6.jpg").write_bytes(b"junk")
    create_pixels(tmp_path / "pixels.npy", count=7)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    send = "from pool_app import decode; decode.delay()"
    subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=env, check=True, timeout=60)
    command = [sys.executable, "-m", "celery", "-A", "pool_app", "worker", "--pool", "prefork", "--concurrency", "1"]
    with (
        (tmp_path / "worker.log").open("wb") as log,
        subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle"], cwd=tmp_path, env=env, stdout=log, stderr=log
        ) as worker,
    ):
        try:
            give_up_at = time.monotonic() + 60
            while not (tmp_path / "answer.json").exists():
                assert worker.poll() is None, (tmp_path / "worker.log").read_text()
                assert time.monotonic() < give_up_at, (tmp_path / "worker.log").read_text()
                time.sleep(0.05)
            left = [command_line(child) for child in psutil.Process(worker.pid).children(recursive=True)]
        finally:
            worker.terminate()
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert answer["daemonic"] is True
    assert answer["facts"] == [*([slot, None] for slot in range(6)), [6, "not_an_image"]]
    assert not [command for command in left if "refund.imaging.pool" in command]
