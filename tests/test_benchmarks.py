"""The benchmark measures what it says, on few photos and a small model; nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import bench, figures, page
from benchmarks.__main__ import main
from benchmarks.accuracy import ENLARGED, REFERENCE
from benchmarks.chart import chart
from benchmarks.floor import PARTS
from benchmarks.handover import read_services, write_access
from benchmarks.measure import Contender, Measurement, Spread, interleave, measure, own_cpu_s
from benchmarks.memory import pss, watched
from benchmarks.photographs import PhotoSet, with_rejects
from benchmarks.results import spread_text
from benchmarks.rivals.client import RivalFailedError
from benchmarks.stages import FURTHER, NAME, ONE, STAGES
from benchmarks.tables import sheets, target_sheet
from benchmarks.units import Units, find_units
from refund.errors import ReasonCode
from refund.imaging.examine import examine_photo
from refund.night.services import open_services
from refund.settings import DatabaseAccess, S3Access, Settings
from tests.conftest import REPOSITORY
from tests.night.factories import jpeg, write_model


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


def of_one_set(**others: list[Measurement]) -> dict[str, list[Measurement]]:
    """Two rounds: the floor costs 0.5 and 1.0 core-seconds, our stages 1 and 1, for ten photos."""
    measured = {name: [one(wall_s=1, cpu_s=0.1), one(wall_s=1, cpu_s=0.2)] for name in PARTS}
    measured[NAME] = [one(wall_s=1, cpu_s=1), one(wall_s=2, cpu_s=1)]
    measured[ONE] = [one(wall_s=0.1, cpu_s=0.1, photos=1), one(wall_s=0.1, cpu_s=0.1, photos=1)]
    measured |= {f"{NAME}: {stage}": [one(wall_s=1, cpu_s=0.25)] * 2 for stage in STAGES}
    return measured | others


def some_content(**changes: Any) -> dict[str, Any]:
    """A run of two sets, one rival in the first."""
    rival = [one(wall_s=4, cpu_s=8), one(wall_s=6, cpu_s=8)]
    given: dict[str, Any] = {
        "measured": {figures.SMALL: of_one_set(tf_data=rival), figures.LARGE: of_one_set()},
        "sets": {name: {"photos": 10, "rejected": 0, "mean_bytes": 99_000} for name in (figures.SMALL, figures.LARGE)},
        "accuracy": {"photos": 250, "top1": {NAME: 0.852, REFERENCE: 0.86}},
        "memory": None,
        "facts": {
            "photographs": "10 photographs",
            "model": "tiny@1",
            "rounds_run": 2,
            "left_out": {"ray_data": "ray_data is left out: there is no interpreter"},
            "rival_versions": {"tf_data": {"keras": "3.0"}},
            "load_before": 0.1,
            "load_after": 1.9,
        },
    }
    return figures.content(**given | changes)


def state_of(content: dict[str, Any], figure: str) -> tuple[Any, Any]:
    (found,) = [row for row in content["targets"] if row["figure"] == figure]
    return found["measured"] and found["measured"]["median"], found["reached"]


def test_the_floor_is_the_sum_of_its_loops_round_by_round() -> None:
    summed = figures.with_sums(of_one_set())
    assert [round(found.cpu_s, 6) for found in summed["floor: sum"]] == [0.5, 1.0]
    assert [found.wall_s for found in summed["floor: sum"]] == [5, 5]


def test_a_further_photo_costs_the_night_less_that_of_one_photo() -> None:
    first, second = figures.with_sums(of_one_set())[FURTHER]
    assert (first.photos, round(first.cpu_s, 6), round(first.wall_s, 6)) == (9, 0.9, 0.9)
    assert second.core_ms == pytest.approx(100.0)


def test_ratios_are_taken_within_a_round() -> None:
    found = figures.ratios({figures.SMALL: figures.with_sums(of_one_set(tf_data=[one(wall_s=4, cpu_s=8)] * 2))})
    assert found["500x375: tf_data / our stages, photos/s"] == Spread(median=3.0, low=2.0, high=4.0)
    assert found["500x375: floor / our stages, core-ms"] == Spread(median=0.75, low=0.5, high=1.0)
    assert found["500x375: share of what a shard costs once, core-ms"].median == pytest.approx(0.1)
    assert not [title for title in found if "one_predict" in title]  # it was not measured


def test_a_target_is_reached_by_its_median_and_open_where_nothing_was_measured() -> None:
    content = some_content(memory={"ratio": 1.2, "nights": {}})
    assert state_of(content, "our stages against tf.data and Keras, 500x375, photos/s") == (3.5, True)
    assert state_of(content, "our stages against one predict per photo, 500x375, photos/s") == (None, None)
    assert state_of(content, "our stages against tf.data and Keras, 12 megapixels, photos/s") == (None, None)
    assert state_of(content, "floor over our stages, 500x375, core-ms a photo") == (0.75, False)
    assert state_of(content, "peak memory of the larger night over the smaller") == (1.2, False)
    assert state_of(content, "accuracy lost to speed, points of top-1") == (0.8, False)


def test_speed_that_gains_accuracy_loses_none() -> None:
    better = {"photos": 250, "top1": {NAME: 0.86, REFERENCE: 0.852}}
    assert state_of(some_content(accuracy=better), "accuracy lost to speed, points of top-1") == (-0.8, True)
    assert figures.lost_points({"photos": 250, "top1": {NAME: 0.86}}) is None


def test_what_speed_loses_is_the_most_that_it_loses_at_either_size() -> None:
    both = {NAME: 0.86, REFERENCE: 0.852, f"{NAME}{ENLARGED}": 0.84, f"{REFERENCE}{ENLARGED}": 0.844}
    assert figures.lost_points({"photos": 250, "top1": both}) == 0.4


def test_tables_say_what_was_not_measured_and_what_was_not_reached() -> None:
    rows = target_sheet(some_content()).markdown().splitlines()
    assert rows[2] == (
        "| our stages against tf.data and Keras, 500x375, photos/s | at least 3 | 3.50 (3.00 to 4.00) | reached |"
    )
    assert rows[3].endswith("| at least 20 | – | not measured |")
    assert rows[5].endswith(
        "| at least 0.85 | 0.75 (0.50 to 1.00) | **not reached**, see [what holds it](#what-holds-it) |"
    )
    titles = [sheet.title for sheet in sheets(some_content())]
    assert titles == [
        "Targets",
        "500x375: 10 photos, 99 kB on average",
        "12 MP: 10 photos, 99 kB on average",
        "Ratios, each taken within a round",
        "Top-1 on 250 labelled photographs; lost to speed: 0.8 points",
    ]


def test_the_page_holds_the_tables_of_its_run_and_says_who_was_left_out() -> None:
    begin, end = "<!-- targets: begin -->", "<!-- targets: end -->"
    text = f"Before\n{begin}\nof another run\n{end}\nBetween\n<!-- figures: begin -->\n<!-- figures: end -->\nAfter\n"
    made = page.replaced(text, some_content())
    assert made.startswith(f"Before\n{begin}\nMeasured on ")
    assert "of another run" not in made
    assert made.endswith("<!-- figures: end -->\nAfter\n")
    assert "ray_data is left out: there is no interpreter." in " ".join(made.split())
    assert page.replaced(made, some_content()) == made


def test_a_page_without_marks_is_told_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="has no marks <!-- targets: begin --> and <!-- targets: end -->"):
        page.replaced("nothing", some_content())


def test_page_and_picture_are_those_of_the_kept_run() -> None:
    content = json.loads((page.DOCS / "performance.json").read_text(encoding="utf-8"))
    text = (page.DOCS / "performance.md").read_text(encoding="utf-8")
    assert page.replaced(text, content) == text, "written by a run: python -m benchmarks --output docs"
    assert (page.DOCS / "performance.svg").read_text(encoding="utf-8") == chart(content)


def test_the_picture_is_a_drawing_with_a_bar_for_every_contender_of_every_set() -> None:
    drawn = ElementTree.fromstring(chart(some_content()))  # noqa: S314 -- our own
    texts = [text for element in drawn.iter() if (text := element.text)]
    assert [texts.count(name) for name in ("our stages", "tf.data + Keras", "Ray Data", "floor")] == [4, 1, 0, 2]
    assert "3.5" not in texts  # photos a second, not ratios


def test_every_twentieth_photo_of_the_mix_is_rejected_for_its_own_reason() -> None:
    bodies, good = with_rejects([jpeg(seed) for seed in range(3)], photos=80)
    facts = [examine_photo(slot, body, limits=Settings().limits)[0] for slot, body in enumerate(bodies)]
    assert [fact.ok for fact in facts] == list(good)
    assert {fact.reason for fact in facts if not fact.ok} == {
        ReasonCode.CORRUPT,
        ReasonCode.TRUNCATED,
        ReasonCode.NOT_AN_IMAGE,
        ReasonCode.TOO_SMALL,
    }
    assert good.count(False) == 4


def test_a_rival_that_left_out_a_good_photo_is_no_measurement() -> None:
    class Lazy:
        name, classified = "lazy", 2

        def run(self, keys: object) -> Measurement:
            return one(wall_s=1, cpu_s=1, photos=3)

    photos = PhotoSet(name="mix", prefix="p/", keys=("a", "b", "c", "d"), bodies=(b"",) * 4, good=(True,) * 4)
    contender = bench.of_rival(Lazy(), photos, 3, {})  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="lazy classified 2 of 3 photos, of which 3 are good"):
        contender.run()
    Lazy.classified = 3
    assert contender.run()["lazy"].classified == 3


def test_a_rival_that_dies_is_left_out_and_asked_no_more() -> None:
    class Dead:
        name, asked = "dead", 0

        def run(self, keys: object) -> Measurement:
            self.asked += 1
            msg = "dead ended with status 9 before it answered"
            raise RivalFailedError(msg)

    photos = PhotoSet(name="12 MP", prefix="p/", keys=("a",), bodies=(b"",), good=(True,))
    dead, left_out = Dead(), dict[str, str]()
    contender = bench.of_rival(dead, photos, 1, left_out)  # type: ignore[arg-type]
    assert (contender.run(), contender.run(), dead.asked) == ({}, {}, 1)
    assert left_out == {"dead": "dead is left out from 12 MP on: dead ended with status 9 before it answered"}


def test_memory_of_children_counts() -> None:
    hold = "import subprocess, sys\nheld = b'x' * 60_000_000\nsubprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "import time\nheld = b'x' * 60_000_000\nwhile time.process_time() < 0.5: pass\nprint('done')"
    said, peak = watched([sys.executable, "-c", hold, child])
    assert said == "done\n"
    assert 120e6 < peak.anonymous <= peak.total < 400e6


def test_a_watched_process_that_fails_is_quoted() -> None:
    with pytest.raises(RuntimeError, match=r"ended with status 3: out of luck$"):
        watched([sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"])


def test_a_process_that_has_ended_takes_no_memory() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert pss(ended.pid) == {}


def test_the_float32_unit_beside_a_given_one_is_the_reference(tmp_path: Path) -> None:
    write_model(tmp_path / "int8")
    assert find_units(tmp_path / "int8", tmp_path, progress=print) == Units(served=tmp_path / "int8", float32=None)
    write_model(tmp_path / "float32")
    assert find_units(tmp_path / "int8", tmp_path, progress=print).float32 == tmp_path / "float32"


def test_another_process_gets_the_stores_by_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    s3, database = S3Access(bucket="b", secret_key="s"), DatabaseAccess(host="h", password="p")
    with open_services(settings=Settings(cache_dir="/c"), s3=s3, database=database) as services:
        path = write_access(services, tmp_path / "access.json")
    assert path.stat().st_mode & 0o777 == 0o600
    with read_services(path, desk_requests_per_minute=7) as services:
        assert (services.objects.access, services.database.access) == (s3, database)
        assert (services.settings.cache_dir, services.settings.desk_requests_per_minute) == ("/c", 7)


def test_figures_are_short() -> None:
    assert spread_text(Spread(median=1234.5, low=0.12345, high=99.99)) == "1234 (0.123 to 100)"


@pytest.mark.slow
def test_the_whole_benchmark_runs_and_keeps_its_rounds(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    output = tmp_path / "kept"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--photos", "20", "--rounds", "1"]
    command += ["--without", "tf_data", "--without", "one_predict"]  # they have tests of their own
    outcome = subprocess.run(
        [*command, "--model", str(tmp_path / "model"), "--output", str(output)],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads((output / "performance.json").read_text(encoding="utf-8"))
    assert found["model"] == "tiny@1"
    assert set(found["rounds"]) == {"500x375", "12 MP", "mix"}
    assert [len(rounds) for rounds in found["rounds"]["mix"].values()] == [1] * len(found["rounds"]["mix"])
    assert found["rounds"]["mix"][NAME][0]["classified"] == 19
    assert found["sets"]["mix"]["rejected"] == 1
    assert found["ratios"]["500x375: floor / our stages, core-ms"]["median"] > 0
    assert set(found["memory"]["nights"]["40"]["stages"]) == set(STAGES)
    assert (output / "performance.svg").read_text(encoding="utf-8") == chart(found)
    assert "floor over our stages, 500x375" in outcome.stdout


@pytest.mark.slow
def test_the_parts_can_be_measured_alone(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    output = tmp_path / "parts.json"
    given = ["parts", "--photos", "4", "--rounds", "1", "--model", str(tmp_path / "model"), "--output", str(output)]
    assert main(given) == 0
    found = json.loads(output.read_text(encoding="utf-8"))
    assert {"bare GET", "inference: 2 threads, batch 16", "decode: starting a pool"} <= set(found["rounds"])
    assert found["ratios"]["get_many / bare GET, core-ms"]["median"] > 0


def test_a_count_of_no_photos_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--photos", "0"])
    assert "must be 1 or more, got 0" in capsys.readouterr().err


def test_what_can_be_measured_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("night", "memory", "parts", "isolation", "drift", "desk", "desk-start"))
