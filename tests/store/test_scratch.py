"""Folders for the moment: what a killed process left goes, what a live one holds stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from refund.store.scratch import scratch_folder

HOLD = """
import sys
from pathlib import Path
from refund.store.scratch import scratch_folder

with scratch_folder(Path(sys.argv[1]), prefix="scratch-") as folder:
    (folder / "half").write_bytes(b"x")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_a_folder_of_a_killed_process_goes_and_that_of_a_live_one_stays(tmp_path: Path) -> None:
    (tmp_path / "scratch-but-a-file").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        held = process.stdout.readline().strip()
        with scratch_folder(tmp_path, prefix="scratch-") as mine:
            with scratch_folder(tmp_path, prefix="scratch-") as other:
                assert names(tmp_path) == sorted([held, mine.name, other.name, "scratch-but-a-file"])
            process.kill()
            process.wait()
            assert names(tmp_path) == sorted([held, mine.name, "scratch-but-a-file"])
            with scratch_folder(tmp_path, prefix="scratch-") as other:
                assert names(tmp_path) == sorted([mine.name, other.name, "scratch-but-a-file"])
    assert names(tmp_path) == ["scratch-but-a-file"]


def test_a_folder_of_another_host_is_not_ours_to_judge(tmp_path: Path) -> None:
    """Its lock may hold on that host alone."""
    (tmp_path / "scratch-0a0a0a0a-x").mkdir()
    with scratch_folder(tmp_path, prefix="scratch-"):
        pass
    assert names(tmp_path) == ["scratch-0a0a0a0a-x"]
