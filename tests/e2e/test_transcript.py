"""The replay itself: what it lets pass and what it does not."""

from __future__ import annotations

import pytest

from tests.e2e.transcript import Replay, Step, steps

PAGE = """
Text.

```console
$ refund model list
m@1-int8-0a1b2c3d  champion  0.853
$ refund one \\
    --two
…
done in 3.1 s
```
"""


def test_a_page_is_read_command_by_command() -> None:
    assert [(step.command, step.lines) for step in steps(PAGE)] == [
        ("refund model list", ("m@1-int8-0a1b2c3d  champion  0.853",)),
        ("refund one --two", ("…", "done in 3.1 s")),
    ]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a 0.853 b", "a  0.861   b"),
        ("84.8% of 250", "86.0% of 250"),
        ("2026-11-22 18:17 root", "2027-01-01 02:00 root"),
        ("scheduled__2026-11-22T02:00:00+00:00__x y", "manual__2027-01-02T03:04:05+00:00__z y"),
        ("took 31 s", "took 7.25 s"),
        ("183 of 186 photographs (98.4%)", "181 of 186 photographs (97.3%)"),
    ],
)
def test_times_versions_and_small_roundings_pass(shown: str, printed: str) -> None:
    assert Replay().difference(Step(command="c", lines=(shown,)), printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (("a 0.853",), "a 0.893"),
        (("250 photos",), "249 photos"),
        (("183 of 186 photographs",), "170 of 186 photographs"),
        (("champion",), "challenger"),
        (("a",), "a\nb"),
        (("a", "b"), "a"),
        (("…", "c"), "a\nb"),
        (("m@1-int8-0a1b2c3d m@1-int8-0a1b2c3d",), "m@1-int8-11111111 m@1-int8-22222222"),
        (("float32-0a1b2c3d",), "int8-0a1b2c3d"),
    ],
)
def test_anything_else_does_not(shown: tuple[str, ...], printed: str) -> None:
    difference = Replay().difference(Step(command="c", lines=shown), printed)
    assert difference is not None
    assert difference.startswith("after 'c' the page")


def test_versions_of_this_machine_go_into_later_commands() -> None:
    replay = Replay()
    assert replay.difference(Step(command="c", lines=("…", "int8-0a1b2c3d")), "x\nint8-99999999") is None
    later = Step(command="refund model promote m@1-int8-0a1b2c3d", lines=())
    assert replay.command(later) == "refund model promote m@1-int8-99999999"
