"""The rivals: what they answer, what becomes of one that fails, and that nothing of them stays behind."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from benchmarks.measure import Measurement
from benchmarks.rivals import client
from benchmarks.rivals.client import INTERPRETER, Rival, RivalFailedError, RivalLeftOutError, accuracy, rival
from benchmarks.rivals.clock import Clock
from refund.settings import S3Access
from tests.conftest import REPOSITORY

OWN = Path(sys.executable)
NOWHERE = S3Access(bucket="b", endpoint_url="http://127.0.0.1:9", access_key="a", secret_key="not to be seen")
SERVER_SIDE = sorted(set((REPOSITORY / "benchmarks" / "rivals").glob("*.py")) - {Path(client.__file__)})


def standin(manner: str, *, patience_s: float = 60.0) -> AbstractContextManager[Rival]:
    return rival(
        manner, python=OWN, access=NOWHERE, weights=None, module="tests.benchmarks.standin", patience_s=patience_s
    )


# --- the protocol, with a process that is no rival -----------------------------------------------------------------


def test_a_round_is_measured_where_it_runs_and_broken_photos_have_no_class() -> None:
    with standin("answers") as started:
        assert started.run(["one", "two"]) == Measurement(photos=2, wall_s=2.0, cpu_s=3.0)
        assert started.classified == 1
        assert started.classify(["one", "two"]) == [7, None]


def test_keys_to_the_bucket_are_neither_arguments_nor_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with standin("answers") as started:
        assert started.versions["secret shown"] == "False"
        assert not {"OMP_NUM_THREADS", "RAY_ADDRESS"} & set(started.versions["variables"].split(","))
        assert NOWHERE.secret_key not in repr(started)


def test_what_a_rival_started_ends_with_it_even_in_a_session_of_its_own() -> None:
    for manner in ("answers", "dies later"):
        with standin(manner) as started:
            child = psutil.Process(int(started.versions["child"]))
            if manner == "dies later":
                with pytest.raises(RivalFailedError, match="ended with status 3"):
                    started.run(["one"])
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("manner", "text"),
    [
        ("dies later", "dies later ended with status 3 before it answered; it said nothing"),
        ("babbles", "babbles must answer with one JSON object on a line, got 'Epoch 1/1\\n'"),
        ("lists", "lists must answer with one JSON object on a line, got '[1]\\n'"),
        ("miscounts", "miscounts was given 2 keys and answered {'photos': 9, 'classified': 1, "),
        ("silent", "silent did not answer within 1 s; it said nothing"),
    ],
)
def test_an_answer_that_is_none_stops_the_measurement(manner: str, text: str) -> None:
    with standin(manner) as started:
        started._patience_s = 1.0 if manner == "silent" else 60.0
        with pytest.raises(RivalFailedError, match=re.escape(text)):
            started.run(["one", "two"])


def test_classes_must_be_as_many_as_photos() -> None:
    with standin("forgets") as started, pytest.raises(RivalFailedError, match="asked for 2 classes and answered None"):
        started.classify(["one", "two"])


def test_the_last_words_of_one_that_dies_at_its_start_are_told() -> None:
    text = "dies ended with status 1 before it answered; its last words: no room for the network"
    with pytest.raises(RivalFailedError, match=text), standin("dies"):
        pass


def test_one_that_cannot_run_here_is_left_out_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RivalLeftOutError, match="left_out is left out: it would not start"), standin("left_out"):
        pass
    missing = tmp_path / "python"
    text = f"tf_data is left out: there is no interpreter {missing}; make it: make .venv-bench/.installed"
    with (
        pytest.raises(RivalLeftOutError, match=re.escape(text)),
        rival("tf_data", python=missing, access=NOWHERE, weights=None),
    ):
        pass


def test_ray_is_left_out_where_it_is_not_installed() -> None:
    with (
        pytest.raises(RivalLeftOutError, match="ray_data is left out: ray is not installed beside"),
        rival("ray_data", python=OWN, access=NOWHERE, weights=None),
    ):
        pass


def test_a_photo_without_a_class_counts_as_wrong() -> None:
    assert accuracy([1, None, 3, 4], [1, 2, 3, 5]) == 0.5


# --- the clock -----------------------------------------------------------------------------------------------------

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


def test_cpu_of_a_living_child_counts_from_the_start_on() -> None:
    clock = Clock()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        clock.start()
        child.stdout.readline()
        _, first_s = clock.stop()
        clock.start()
        _, second_s = clock.stop()
        child.stdin.close()
    assert first_s >= 0.2 > second_s


def test_what_a_process_said_before_it_ended_counts() -> None:
    clock = Clock()
    clock.start()
    clock.note(-1, 2.0)
    clock.note(-1, 5.0)
    clock.note(-1, 4.0)
    _, cpu_s = clock.stop()
    assert 5.0 <= cpu_s < 6.0


# --- their environment ---------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_rivals_run_on_the_versions_that_we_run_on() -> None:
    ours, theirs = pins("requirements.txt"), pins("benchmarks/requirements.txt")
    shared = set(ours) & set(theirs)
    assert {"keras", "tensorflow-cpu", "pillow", "boto3", "numpy"} <= shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
    assert {"ray", "py-spy"} <= set(theirs)


@pytest.mark.parametrize("path", SERVER_SIDE, ids=lambda path: path.name)
def test_what_rivals_run_imports_nothing_of_ours(path: Path) -> None:
    allowed = {"keras", "tensorflow", "PIL", "numpy", "boto3", "botocore", "psutil", "ray", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            ours = name.startswith("benchmarks.rivals.") and name != "benchmarks.rivals.client"
            assert ours or name.split(".")[0] in allowed, f"{path.name} imports {name}"


# --- the rivals themselves -----------------------------------------------------------------------------------------


BROKEN = {2, 5}  # positions of the files that are no pictures


def store_photos(s3: S3Access) -> list[str]:
    """Keys of eight files, of which six are pictures."""
    import boto3
    import numpy as np
    from PIL import Image

    bucket = boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
    )
    random = np.random.default_rng(7)
    keys = [f"rivals/{number}.jpg" for number in range(8)]
    for number, key in enumerate(keys):
        stream = io.BytesIO()
        coarse = Image.fromarray(random.integers(0, 255, (6, 8, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(stream, "PNG" if number == 4 else "JPEG", quality=95)
        body = {2: b"<html>", 5: stream.getvalue()[:900]}.get(number, stream.getvalue())
        bucket.put_object(Bucket=s3.bucket, Key=key, Body=body)
    return keys


def found_by(name: str, *, python: Path, s3: S3Access) -> list[int | None]:
    """What the rival finds, which also measures it."""
    keys = store_photos(s3)
    with rival(name, python=python, access=s3, weights=None, warm_up=keys[:1]) as started:
        assert {"keras", "tensorflow"} <= set(started.versions)
        measured = started.run(keys)
        assert started.classified == len(keys) - len(BROKEN)
        assert (measured.photos, measured.cpu_s > 0, measured.wall_s > 0) == (len(keys), True, True)
        return started.classify(keys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tf_data", "one_predict"])
def test_a_rival_classifies_what_it_can_read(name: str, s3_nanio: S3Access) -> None:
    """With our own interpreter, which has all that these two need: the environment of the rivals need not be there."""
    found = found_by(name, python=OWN, s3=s3_nanio)
    assert {position for position, one in enumerate(found) if one is None} == BROKEN


@pytest.mark.slow
def test_ray_classifies_what_it_can_read_and_leaves_nothing_behind(s3_nanio: S3Access) -> None:
    """Where ``make bench`` has made its environment; it checks by itself that Ray listens on loopback alone."""
    if not INTERPRETER.is_file():
        pytest.skip("Ray is not tested: it is only in .venv-bench, made by `make .venv-bench/.installed`")
    before = {process.pid for process in psutil.process_iter() if is_of_ray(process)}
    found = found_by("ray_data", python=INTERPRETER, s3=s3_nanio)
    assert {position for position, one in enumerate(found) if one is None} == BROKEN
    assert {process.pid for process in psutil.process_iter() if is_of_ray(process)} <= before


def is_of_ray(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() in {"raylet", "gcs_server"} or process.name().startswith("ray::")
    return False
