"""A task that is killed while it writes to staging in a bucket: what it leaves goes with the next attempt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from refund.settings import S3Access
from refund.store.objects import ObjectStore
from refund.store.s3_clients import Patience, boto3_client
from refund.store.staging import Staging
from tests.conftest import REPOSITORY
from tests.faults.s3_proxy import Rule, s3_proxy

pytestmark = pytest.mark.slow

WRITE = """
import json, sys
from refund.settings import S3Access
from refund.store.staging import Staging

root, s3 = json.load(sys.stdin)
staging = Staging(root, s3=S3Access(**s3))
with staging.writable_folder(staging.uri("run", "pack")) as folder:
    with (folder / "pixels.npy").open("wb") as pixels:
        pixels.truncate(65 * 1024**2)  # two parts
"""


def write(root: str, s3: S3Access, temporary: Path) -> subprocess.Popen[str]:
    """Start a process that stages a pack of 65 MB."""
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY / "plugins")}
    process = subprocess.Popen([sys.executable, "-c", WRITE], stdin=subprocess.PIPE, text=True, env=environ)
    assert process.stdin is not None
    json.dump([root, asdict(s3)], process.stdin)
    process.stdin.close()
    return process


def unfinished(s3: S3Access) -> list[str]:
    client: Any = boto3_client(s3, Patience())
    found = client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", ())
    return [upload["Key"] for upload in found if upload["Key"].startswith("killed/")]


@pytest.mark.parametrize("then", ["written again", "removed"])
def test_a_writer_killed_between_two_parts_leaves_nothing_for_good(
    s3_moto: S3Access, tmp_path: Path, then: str
) -> None:
    root, key = f"s3://{s3_moto.bucket}/killed", "killed/refund-runs/run/pack/pixels.npy"
    with s3_proxy(s3_moto, Rule(do="stall", method="PUT", key="partNumber=2", after_bytes=-1)) as proxy:
        process = write(root, proxy.access, tmp_path)
        try:
            deadline = time.monotonic() + 60
            while not any("partNumber=2" in request for request in proxy.requests):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert unfinished(s3_moto) == [key]
    assert len(list(tmp_path.iterdir())) == 1  # 65 MB in the worker's temporary folder
    staging = Staging(root, s3=s3_moto)
    assert not staging.exists(staging.uri("run", "pack"))
    if then == "written again":
        assert write(root, s3_moto, tmp_path).wait(timeout=60) == 0
        assert list(tmp_path.iterdir()) == []
        found = ObjectStore(s3_moto).head(key)
        assert found is not None
        assert found.size_bytes == 65 * 1024**2
    staging.remove(staging.uri("run"))
    assert unfinished(s3_moto) == []
    assert list(ObjectStore(s3_moto).list("killed/")) == []
