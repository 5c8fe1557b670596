"""The benchmark measures what it says, on few photos and a small model; nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measure import Contender, Measurement, Spread, interleave, measure, own_cpu_s
from benchmarks.results import ratios, spread_text, with_sums
from tests.conftest import REPOSITORY
from tests.night.factories import write_model

FLOOR = ("floor: GET", "floor: decode", "floor: hash and quality", "floor: inference")


def one(*, wall_s: float, cpu_s: float, photos: int = 10) -> Measurement:
    return Measurement(photos=photos, wall_s=wall_s, cpu_s=cpu_s)


def test_figures_are_per_photo() -> None:
    measurement = one(wall_s=2.0, cpu_s=0.5)
    assert (measurement.photos_per_s, measurement.wall_ms, measurement.core_ms) == (5.0, 200.0, 50.0)


def test_cpu_of_children_that_ended_counts_and_sleep_does_not() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    worked = measure(1, lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    waited = measure(1, lambda: subprocess.run(["sleep", "0.3"], check=True))
    assert worked.cpu_s >= 0.3
    assert waited.cpu_s < 0.3 <= waited.wall_s
    assert own_cpu_s() > 0


def test_cpu_of_a_living_child_counts() -> None:
    command = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        worked = measure(1, child.stdout.readline, living_pid=child.pid)
        child.stdin.close()
    assert worked.cpu_s >= 0.2


def test_every_contender_runs_once_in_every_round_and_each_round_begins_with_another() -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        def run() -> dict[str, Measurement]:
            order.append(name)
            return {name: one(wall_s=1, cpu_s=len(order))}

        return Contender(name=name, run=run)

    measured = interleave([contender(name) for name in "abc"], rounds=2, progress=lambda _: None)
    assert "".join(order) == "abcbca"
    assert [found.cpu_s for found in measured["a"]] == [1, 6]


def test_ratios_are_taken_within_a_round() -> None:
    measured = {name: [one(wall_s=1, cpu_s=1), one(wall_s=2, cpu_s=2)] for name in FLOOR}
    measured["night"] = [one(wall_s=5, cpu_s=8), one(wall_s=10, cpu_s=8)]
    measured["night of one photo"] = [one(wall_s=1, cpu_s=2, photos=1), one(wall_s=1, cpu_s=2, photos=1)]
    found = ratios(with_sums(measured))
    assert found["night / floor, core-ms"] == Spread(median=1.5, low=1.0, high=2.0)
    assert found["night per further photo / floor, core-ms"].high == pytest.approx(6 / 9 / 0.4)
    assert "alternative / night, wall" not in found  # it was not measured


def test_figures_are_short() -> None:
    assert spread_text(Spread(median=1234.5, low=0.12345, high=99.99)) == "1234 (0.123 to 100)"


@pytest.mark.slow
def test_the_whole_benchmark_runs_and_keeps_its_rounds(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    output = tmp_path / "latest.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--photos", "8", "--rounds", "1"]
    outcome = subprocess.run(
        [*command, "--model", str(tmp_path / "model"), "--output", str(output)],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["model"] == "tiny@1"
    assert {"night", "night: persist", "floor: sum", "decode: pool, 2 workers"} <= set(found["rounds"])
    assert all(len(rounds) == 1 for rounds in found["rounds"].values())
    assert found["rounds"]["night"][0]["photos"] == 8
    assert found["ratios"]["night / floor, core-ms"]["median"] > 0
    assert "night / floor, core-ms" in outcome.stdout


def test_a_count_of_no_photos_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit):
        main(["--photos", "0"])
    assert "must be 1 or more, got 0" in capsys.readouterr().err
