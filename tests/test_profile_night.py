"""The profile of a night: every sample counts once, under what its innermost known frame does."""

from __future__ import annotations

import pytest

from benchmarks.profile_night import GET, IMPORTS, ORDER, OTHER, StageProfile, markdown, spent, work_of

TASK = 'process 7:"python -m benchmarks.profile_night";<module> (benchmarks/profile_night.py:1)'
CHILD = "run (refund/imaging/pool_child.py:9)"


@pytest.mark.parametrize(
    ("frames", "work"),
    [
        ("invoke (ai_edge_litert/interpreter.py:1015)", "LiteRT"),
        ("predict (refund/model/runtimes/litert.py:64);to_probabilities (refund/model/runtimes/base.py:40)", "LiteRT"),
        ("classify_shard (refund/night/classify.py:9);take (pyarrow/compute.py:3)", "deciding, rows"),
        (f"{CHILD};decode_rgb (refund/imaging/decode.py:5);load (PIL/ImageFile.py:8)", "JPEG decode"),
        (f"{CHILD};decode_rgb (refund/imaging/decode.py:5);resize (PIL/Image.py:8)", "resize"),
        (f"{CHILD};perceptual_hash (refund/imaging/fingerprint.py:5);dot (numpy/x.py:8)", "hash"),
        (CHILD, "pool traffic"),
        ("load_model (refund/model/load.py:9);AllocateTensors (x.py:1)", "start of the model"),
        ("_find_and_load (<frozen importlib._bootstrap>:1178);<module> (PIL/Image.py:8)", IMPORTS),
        ("require_run (refund/store/repository.py:8)", OTHER),
        ("", OTHER),
    ],
)
def test_the_innermost_known_frame_says_what_is_done(frames: str, work: str) -> None:
    assert work_of(f"{TASK};{frames}") == work
    assert work in ORDER


def test_samples_share_what_the_kernel_counted_and_threads_beside_python_are_downloads() -> None:
    raw = f"{TASK};invoke (ai_edge_litert/interpreter.py:1) 3\n{TASK};get (refund/store/downloads.py:1) 1\n"
    found = spent(raw, cpu_s=5.0, native_s=1.0)
    assert found.spent_s == {"LiteRT": 3.0, GET: 2.0}
    assert sum(found.spent_s.values()) == found.cpu_s
    assert spent("", cpu_s=0.5, native_s=0.5).spent_s == {GET: 0.5}


@pytest.mark.parametrize("frame", ["EpollSelector.select (selectors.py:468)", "Condition.wait (threading.py:324)"])
def test_threads_that_wait_cost_nothing(frame: str) -> None:
    raw = f"{TASK};{frame} 9\n{TASK};invoke (ai_edge_litert/interpreter.py:1) 1\n"
    assert spent(raw, cpu_s=2.0, native_s=0.0).spent_s == {"LiteRT": 2.0, GET: 0.0}


def test_the_table_adds_up_by_stage_and_by_work() -> None:
    found = {
        "validate": StageProfile(cpu_s=3.0, spent_s={"JPEG decode": 2.0, GET: 1.0}),
        "classify": StageProfile(cpu_s=1.0, spent_s={"LiteRT": 1.0}),
    }
    assert markdown(found, photos=1000).splitlines() == [
        "| core-ms a photo | validate | classify | all | share |",
        "|---|---:|---:|---:|---:|",
        "| JPEG decode | 2.00 |  | 2.00 | 50.0 % |",
        "| GET | 1.00 |  | 1.00 | 25.0 % |",
        "| LiteRT |  | 1.00 | 1.00 | 25.0 % |",
        "| sum | 3.00 | 1.00 | 4.00 | 100 % |",
    ]
