"""How much memory a heavy task sees, and what it takes of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from refund.errors import MemoryShortageError, NotEnoughMemoryError
from refund.night.free_memory import CONTAINER, MACHINE, PROCESS, FreeMemory, read_free_memory
from refund.night.room import DecodingRoom, InferenceRoom, TaskMemory, note_is_new, plan_decoding, plan_inference
from refund.records import ImageLimits

MB = 1_000_000
GROUP = "kubepods/pod-7"


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A machine with 8,000 MB free, whose process is in a group of version 2."""
    return lay_out(
        tmp_path / "proc",
        {"meminfo": "MemTotal: 9 kB\nMemAvailable:    8000000 kB\n", "self/cgroup": f"0::/{GROUP}\n"},
    )


def limited(*, limit: str, used: int, files: int = 0) -> dict[str, str]:
    stat = f"anon 5\ninactive_file {files}\nactive_file 0\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def under(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_a_machine_without_limits_has_what_it_says(proc: Path, tmp_path: Path) -> None:
    groups = lay_out(tmp_path / "groups", under(GROUP, limited(limit="max", used=1)))
    wanted = FreeMemory(free_bytes=8_000_000 * 1024, held_by=MACHINE)
    assert read_free_memory(proc=proc, cgroups=groups) == wanted
    assert read_free_memory(proc=proc, cgroups=tmp_path / "none") == wanted


def test_a_container_has_what_its_limit_leaves_and_pages_of_files_count_as_free(proc: Path, tmp_path: Path) -> None:
    limit = limited(limit=str(900 * MB), used=600 * MB, files=250 * MB)
    groups = lay_out(tmp_path / "groups", under(GROUP, limit))
    wanted = FreeMemory(free_bytes=550 * MB, held_by=CONTAINER, most_bytes=900 * MB)
    assert read_free_memory(proc=proc, cgroups=groups) == wanted


def test_the_limit_of_a_parent_counts_too(proc: Path, tmp_path: Path) -> None:
    own, parent = limited(limit=str(900 * MB), used=100 * MB), limited(limit=str(700 * MB), used=400 * MB)
    groups = lay_out(tmp_path / "groups", under(GROUP, own) | under("kubepods", parent))
    assert read_free_memory(proc=proc, cgroups=groups).free_bytes == 300 * MB


def test_inside_a_container_its_own_group_is_the_root(proc: Path, tmp_path: Path) -> None:
    groups = lay_out(tmp_path / "groups", limited(limit=str(900 * MB), used=100 * MB))
    for path in ("/", f"/{GROUP}", "/../elsewhere"):
        (proc / "self" / "cgroup").write_text(f"0::{path}\n")
        assert read_free_memory(proc=proc, cgroups=groups).free_bytes == 800 * MB


def test_control_groups_of_version_1_are_read(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text(f"5:cpu:/\n4:memory:/{GROUP}\n0::/\n")
    group = {
        "memory.limit_in_bytes": f"{500 * MB}\n",
        "memory.usage_in_bytes": f"{450 * MB}\n",
        "memory.stat": f"inactive_file 1\ntotal_inactive_file {30 * MB}\ntotal_active_file {20 * MB}\n",
    }
    no_limit = {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": f"{900 * MB}\n"}
    groups = lay_out(tmp_path / "groups", under(f"memory/{GROUP}", group) | under("memory", no_limit))
    wanted = FreeMemory(free_bytes=100 * MB, held_by=CONTAINER, most_bytes=500 * MB)
    assert read_free_memory(proc=proc, cgroups=groups) == wanted


def test_files_that_say_nothing_of_use_do_not_count(proc: Path, tmp_path: Path) -> None:
    odd = {"memory.max": "much\n", "memory.current": "\n", "memory.stat": "inactive_file\nx y z\n"}
    groups = lay_out(tmp_path / "groups", under(GROUP, odd) | {"memory.max": f"{MB}\n"})
    assert read_free_memory(proc=proc, cgroups=groups).held_by == MACHINE


def test_this_machine_can_be_read() -> None:
    assert read_free_memory().free_bytes > 0


def test_a_system_that_tells_nothing_is_asked_through_psutil(tmp_path: Path) -> None:
    found = read_free_memory(proc=tmp_path, cgroups=tmp_path)
    assert (found.held_by, found.free_bytes > 0) == (MACHINE, True)


# --- a task's share -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "most", "room", "found"),
    [
        (FreeMemory(free_bytes=2000 * MB, held_by=MACHINE), 0, 900, "one of 2 tasks' shares of 2,000 MB that this "),
        (FreeMemory(free_bytes=2000 * MB, held_by=CONTAINER), 700 * MB, 700, "the setting task_memory_bytes"),
        (FreeMemory(free_bytes=2000 * MB, held_by=CONTAINER), 1900 * MB, 1800, "2,000 MB that the container's limit"),
        (FreeMemory(free_bytes=2000 * MB, held_by=PROCESS), 0, 1800, "2,000 MB that the limit of this process (ulim"),
    ],
)
def test_what_one_task_may_take(free: FreeMemory, most: int, room: int, found: str) -> None:
    memory = TaskMemory.of(free, most_bytes=most)
    assert memory.room_bytes == room * MB
    assert memory.found.startswith(found)


def room(amount_mb: float) -> TaskMemory:
    return TaskMemory(room_bytes=int(amount_mb * MB), found="found so")


# --- validate -------------------------------------------------------------------------------------------------------


def decoding(amount_mb: float, **over: int) -> DecodingRoom:
    given = {"children": 2, "child_bytes": 1500 * MB, "photos": 4000, **over}
    return plan_decoding(room(amount_mb), limits=ImageLimits(), **given)


def test_with_enough_memory_decoding_takes_the_usual_and_says_nothing() -> None:
    plan = decoding(4000)
    assert (plan.children, plan.child_bytes, plan.every_photo, plan.note) == (2, 1500 * MB, True, None)
    assert (plan.ahead_bytes, plan.arena_bytes) == (64 * 2**20, 32 * 2**20)


def test_children_may_take_no_more_than_there_is_where_every_photo_still_fits() -> None:
    plan = decoding(1500)
    assert (plan.children, plan.note) == (2, None)
    assert 720 * MB < plan.child_bytes < 800 * MB


def test_first_less_is_read_ahead_then_there_are_fewer_children_then_pictures_must_be_smaller() -> None:
    seen = [decoding(amount) for amount in range(4000, 280, -5)]
    taken = [(plan.children, plan.ahead_bytes, plan.every_photo) for plan in seen]
    ahead = 64 * 2**20
    assert list(dict.fromkeys(taken)) == [
        (2, ahead, True),
        (2, ahead // 2, True),
        (2, ahead // 4, True),
        (1, ahead // 4, True),
        (1, ahead // 4, False),
    ]
    for plan, (before, after) in zip(seen[1:], pairwise(seen), strict=True):
        assert plan.arena_bytes >= ImageLimits().max_bytes  # every photo that is taken must fit
        assert before.child_bytes >= after.child_bytes or before.children > after.children or before.note != after.note


def test_a_task_with_little_memory_says_what_it_met_took_and_what_to_do() -> None:
    assert decoding(800).note == (
        "validate met little memory: 800 MB (found so), usual are 1,372 MB. It took 1 decoding child instead of 2, "
        "16 MB read ahead instead of 64: no verdict changes, it takes longer. Give the worker more memory or fewer "
        "tasks at once, or say by REFUND_TASK_MEMORY_BYTES how much one task may take"
    )
    assert ", 186 MB for one picture instead of 520 MB: no verdict" in str(decoding(400).note)


def test_less_than_the_least_is_an_error_that_says_so_and_is_tried_again() -> None:
    text = (
        r"validate may take 250 MB of memory \(found so\), it needs at least 278 MB and usually 1,372 MB\. Give the "
        r".*\. The task is tried again; where that does not help, clear it then$"
    )
    with pytest.raises(MemoryShortageError, match=text):
        decoding(250)


@pytest.mark.parametrize(
    ("free", "setting"),
    [
        (FreeMemory(free_bytes=200 * MB, held_by=CONTAINER, most_bytes=270 * MB), 0),
        (FreeMemory(free_bytes=8000 * MB, held_by=MACHINE), 270 * MB),
        (FreeMemory(free_bytes=200 * MB, held_by=MACHINE), 270 * MB),
        (FreeMemory(free_bytes=270 * MB, held_by=PROCESS, most_bytes=270 * MB), 0),
    ],
)
def test_a_limit_below_the_least_is_an_error_that_no_retry_mends(free: FreeMemory, setting: int) -> None:
    memory = TaskMemory.of(free, most_bytes=setting)
    with pytest.raises(NotEnoughMemoryError, match=r"needs at least 278 MB .* may take; then clear the task$"):
        plan_decoding(memory, children=2, child_bytes=1500 * MB, limits=ImageLimits(), photos=4000)


def test_where_a_share_is_less_than_the_least_the_task_takes_what_the_other_would_have_and_says_so() -> None:
    memory = TaskMemory.of(FreeMemory(free_bytes=600 * MB, held_by=MACHINE), most_bytes=0)
    plan = plan_decoding(memory, children=2, child_bytes=1500 * MB, limits=ImageLimits(), photos=4000)
    assert (plan.children, plan.every_photo, plan.lasting) == (1, False, False)
    assert (
        "540 MB (600 MB that this machine leaves free), usual are 1,372 MB. It took all of it instead of a share, 1 "
        "decoding child instead of 2, 16 MB read ahead instead of 64, 326 MB for one picture instead of 520 MB: no "
    ) in str(plan.note)
    free = FreeMemory(free_bytes=300 * MB, held_by=CONTAINER, most_bytes=2000 * MB)
    assert "It took all of it instead of a share, 128 photos at once instead of 256: no" in str(
        plan_inference(
            TaskMemory.of(free, most_bytes=0),
            threads=2, artefact_bytes=14 * MB, pixel_bytes=224 * 224 * 3, batch_size=64, photos=4000,
        ).note
    )  # fmt: skip


@pytest.mark.parametrize(("limit_mb", "lasting"), [(600, True), (1000, False)])
def test_whether_another_try_could_have_room_for_every_photo_is_known_where_the_limit_is(
    limit_mb: int, *, lasting: bool
) -> None:
    free = FreeMemory(free_bytes=600 * MB, held_by=CONTAINER, most_bytes=limit_mb * MB)
    memory = TaskMemory.of(free, most_bytes=0)
    plan = plan_decoding(memory, children=2, child_bytes=1500 * MB, limits=ImageLimits(), photos=4000)
    assert (plan.every_photo, plan.lasting) == (False, lasting)


def test_operators_who_allow_little_memory_or_large_photos_are_obeyed() -> None:
    assert decoding(1000, child_bytes=100 * MB).child_bytes == 100 * MB
    assert decoding(1000, child_bytes=100 * MB).note is None
    large = plan_decoding(
        room(3000), children=2, child_bytes=1500 * MB, limits=ImageLimits(max_bytes=200 * MB), photos=1
    )
    assert (large.children, large.ahead_bytes, large.arena_bytes) == (1, 200 * MB, 200 * MB)
    assert large.note is None


# --- classify -------------------------------------------------------------------------------------------------------


def inference(amount_mb: float, **over: int) -> InferenceRoom:
    given = {"threads": 2, "artefact_bytes": 14 * MB, "pixel_bytes": 224 * 224 * 3, "batch_size": 64, "photos": 4000}
    return plan_inference(room(amount_mb), **{**given, **over})


def test_with_enough_memory_classifying_takes_the_usual_and_says_nothing() -> None:
    plan = inference(1000)
    assert (plan.threads, plan.block_photos, plan.batch_size, plan.note) == (2, 256, 64, None)


def test_first_blocks_get_smaller_then_there_are_fewer_threads_then_single_photos() -> None:
    seen = [inference(amount / 10) for amount in range(10_000, 1543, -1)]
    assert list(dict.fromkeys((plan.threads, plan.block_photos) for plan in seen)) == [
        (2, 256), (2, 128), (2, 64), (2, 32), (2, 16), (1, 16), (1, 8), (1, 4), (1, 2), (1, 1),
    ]  # fmt: skip
    assert all(plan.batch_size <= plan.block_photos for plan in seen)
    assert [plan.note is None for plan in seen] == [plan.block_photos == 256 for plan in seen]


def test_a_model_with_little_memory_says_so_too() -> None:
    assert "It took 16 photos at once instead of 256, 1 thread instead of 2: no" in str(inference(165).note)
    text = r"classify may take 100 MB of memory \(found so\), it needs at least 154 MB and usually 279 MB\. Give the "
    with pytest.raises(MemoryShortageError, match=text):
        inference(100)


def test_a_run_needs_one_note_of_each_task() -> None:
    first, other = str(inference(165).note), str(inference(170).note)
    assert first != other
    assert note_is_new(first, ["something else"])
    assert not note_is_new(other, ["something else", first])
    assert note_is_new(str(decoding(700).note), [first])
