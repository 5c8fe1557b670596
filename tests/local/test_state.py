"""The state file and the lock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from refund.errors import StackError
from refund.local.ports import Ports
from refund.local.state import StackState, stack_lock

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
os.pwrite(descriptor, str(os.getpid()).encode(), 0)
print("held", flush=True)
sys.stdin.read()
"""


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    state = StackState(ports=Ports(s3=1234), dags_folder="/d", airflow_migrated="3.3.2", notes=("one", "two"))
    state.write(tmp_path / "stack.json")
    assert StackState.read(tmp_path / "stack.json") == state
    assert (tmp_path / "stack.json").stat().st_mode & 0o777 == 0o600


def test_no_file_means_no_stack_yet(tmp_path: Path) -> None:
    assert StackState.read(tmp_path / "stack.json") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read as the state of the local stack"),
        (json.dumps({"version": 99}), "has version 99, this program reads version 1; use the program that wrote it"),
        (json.dumps([]), "has version None"),
        (json.dumps({"version": 1}), "lacks or has too many fields"),
        (json.dumps({"version": 1, "ports": {}, "dags_folder": "/d", "more": 1}), "lacks or has too many fields"),
    ],
)
def test_a_state_that_is_not_ours_is_refused_with_the_way_out(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "stack.json"
    path.write_text(text)
    with pytest.raises(StackError, match=complaint) as caught:
        StackState.read(path)
    assert f"remove the folder {tmp_path} to start afresh" in str(caught.value)


def test_a_second_command_waits_and_names_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        complaint = rf"another command \(process {holder.pid}\) has been changing the local stack for 0 s"
        with pytest.raises(StackError, match=complaint), stack_lock(lock, progress=said.append, patience_s=0.3):
            pass
        assert said == [f"waiting for another command that changes the stack (process {holder.pid})"]
        holder.kill()
    with stack_lock(lock, progress=said.append, patience_s=5):  # the kernel freed it
        assert len(said) == 1
