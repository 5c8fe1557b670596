"""Replays docs/api.md: sends each of its curl commands, and compares the shape of what comes with what stands there.

Keys and types must be those of the page, and a few values that scripts rely on. ``"…"`` stands for further entries of a
list or object. The outputs are real; to write them anew, with the packaged network where its folder is given::

    python -m tests.desk.api_doc [--model .refund/cache/efficientnet_lite0@1.0.0-int8-aa03e401]
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.e2e.transcript import BLOCK, Step, steps

PAGE = REPOSITORY / "docs" / "api.md"
DATE = "2026-11-21"  # the night of the page
MORE = "…"
FIXED = ("status", "error", "state", "what_to_do", "code")  # keys whose values scripts rely on
# objects whose keys are data
FREE = ("figures", "details", "params", "decisions", "category_scores", "categories", "models", "metrics")
_ASSIGNED = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)
_ASKED = re.compile(r'"?\$\((curl .*?) \| jq -r (\S+)\)"?', re.DOTALL)
_FIRST_KEYS, _LONGEST = 6, 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One curl command."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    form: list[tuple[str, str]] = field(default_factory=list)  # fields
    files: list[tuple[str, str]] = field(default_factory=list)  # field and path
    shows_status: bool = False


Send = Callable[[Call], tuple[int, str]]


def read_call(command: str, filled: Callable[[str], str] = str) -> Call:
    """Read ``curl …``, with what may follow it (``| jq``) left out; ``filled`` puts variables into each word."""
    words = [filled(word) for word in shlex.split(command.partition(" | ")[0])]
    assert words[0] == "curl", command
    values: dict[str, Any] = {"headers": {}, "form": [], "files": []}
    rest = iter(words[1:])
    for word in rest:
        if word == "-s":
            continue
        if word == "-X":
            values["method"] = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            values["headers"][name] = value
        elif word == "--json":
            values["body"] = next(rest)
            values["headers"]["Content-Type"] = "application/json"
        elif word == "-F":
            name, _, value = next(rest).partition("=")
            values["files" if value.startswith("@") else "form"].append((name, value.removeprefix("@")))
        elif word == "-w":
            assert next(rest) == r"%{http_code}\n", command
            values["shows_status"] = True
        else:
            assert not word.startswith("-") and "url" not in values, f"{word!r} in {command!r} is not understood"  # noqa: PT018
            values["url"] = word
    values.setdefault("method", "POST" if "body" in values or values["files"] or values["form"] else "GET")
    return Call(**values)


class Session:
    """A shell that knows variables, curl and a little jq."""

    def __init__(self, send: Send, variables: dict[str, str]) -> None:
        self._send = send
        self.variables = dict(variables)
        self.fixed = frozenset(variables)  # the page's own value of these is not taken

    def run(self, command: str) -> str | None:
        """What the command prints; None for one that sets a variable."""
        assigned = _ASSIGNED.fullmatch(command)
        if assigned is None:
            return self._ask(command)
        name, value = assigned.groups()
        if name in self.fixed:
            return None
        if asked := _ASKED.fullmatch(value):
            self.variables[name] = str(_at(json.loads(self._ask(asked[1])), asked[2]))
        else:
            (word,) = shlex.split(value)
            self.variables[name] = self._filled(word)
        return None

    def _ask(self, command: str) -> str:
        call = read_call(command, self._filled)
        status, text = self._send(call)
        if piped := re.search(r" \| jq ?(\S*)$", command):
            text = json.dumps(_at(json.loads(text), piped[1]), indent=2, ensure_ascii=False) + "\n"
            if call.shows_status:  # curl prints it after the body, and jq reads it as a value of its own
                text += f"{status}\n"
        return text

    def _filled(self, text: str) -> str:
        return re.sub(r"\$([A-Z_]+)", lambda found: self.variables[found[1]], text)


def _at(value: Any, path: str) -> Any:
    """What jq finds at a path such as ``.items[0].key``."""
    for key in re.findall(r"\w+", path):
        value = value[int(key) if key.isdigit() else key]
    return value


def difference(shown: str, printed: str, *, strict: bool = True) -> str | None:
    """How the shape of what was printed differs from what the page shows, or None.

    ``strict``: in a world like the page's own, where lists are as long as there.
    """
    if not shown.lstrip().startswith("{"):  # a table: its header
        first, here = shown.splitlines()[0], printed.lstrip("\ufeff").splitlines()[0]
        return None if first == here else f"the page shows {first!r}, here comes {here!r}"
    text, status = _split(shown)
    here_text, here_status = _split(printed)
    if status != here_status:
        return f"the page shows status {status!r}, here comes {here_status!r}: {here_text}"
    return _differs(json.loads(text), json.loads(here_text), "", strict=strict)


def _split(text: str) -> tuple[str, str]:
    """JSON, and the status below it where one stands."""
    body, brace, status = text.rpartition("}")
    return body + brace, status.strip()


def _differs(shown: Any, here: Any, place: str, *, strict: bool) -> str | None:
    if shown is None or here is None:  # what may be null is either
        return None
    if type(shown) is not type(here) and not (_is_number(shown) and _is_number(here)):
        return f"{place} is {shown!r} on the page and {here!r} here"
    name = place.rpartition(".")[2]
    if isinstance(shown, dict):
        wanted = {key for key in shown if key != MORE}
        missing, new = sorted(wanted - set(here)), sorted(set(here) - wanted)
        if name not in FREE and (missing or (new and MORE not in shown)):
            return f"{place} has {missing} on the page alone and {new} here alone"
        found = (_differs(shown[key], here[key], f"{place}.{key}", strict=strict) for key in wanted & set(here))
        return next(filter(None, found), None)
    if isinstance(shown, list):
        wanted = [entry for entry in shown if entry != MORE]
        plain = all(not isinstance(entry, (dict, list)) for entry in [*wanted, *here])  # reasons, labels: any number
        if strict and not plain and (len(here) < len(wanted) or (len(here) > len(wanted) and MORE not in shown)):
            return f"{place} has {len(shown)} entries on the page and {len(here)} here"
        pairs = zip(wanted, here, strict=False)
        return next(filter(None, (_differs(one, other, place, strict=strict) for one, other in pairs)), None)
    if name in FIXED and shown != here:
        return f"{place} is {shown!r} on the page and {here!r} here"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shortened(value: Any, name: str = "") -> Any:
    """What the page shows of an answer: of long lists the first entry, of free objects the first keys."""
    if isinstance(value, dict):
        kept = list(value.items())[:_FIRST_KEYS] if name in ("figures", "details", "params") else list(value.items())
        short = {key: shortened(found, key) for key, found in kept}
        return short | ({MORE: MORE} if len(kept) < len(value) else {})
    if isinstance(value, list):
        most = 2 if name == "results" else 5 if name == "formats" else 1
        return [shortened(entry, name) for entry in value[:most]] + ([MORE] if len(value) > most else [])
    if isinstance(value, str) and len(value) > _LONGEST and " " not in value:
        return value[: _LONGEST - 20] + MORE
    return value


def written_anew(page: str, session: Session) -> str:
    """The page with the output of every command as it is now."""

    def block(found: re.Match[str]) -> str:
        lines: list[str] = []
        for command, step in zip(_commands(found[1]), steps(found[0]), strict=True):
            printed = session.run(step.command)
            lines.append(command)
            if printed is None:
                continue
            if printed.startswith("{"):
                text, status = _split(printed)
                short = json.dumps(shortened(json.loads(text)), indent=2, ensure_ascii=False)
                lines.append(short + (f"\n{status}" if status else ""))
            else:
                lines.append("\n".join([*printed.lstrip("\ufeff").splitlines()[:2], MORE]))
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(block, page)


def _commands(block: str) -> Iterator[str]:
    """Each command of a block as it stands there, with its line breaks."""
    found: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(line)
        elif found and found[-1].endswith("\\"):
            found[-1] += "\n" + line
    yield from found


def documented(page: str) -> list[Step]:
    """Every command of the page."""
    return steps(page)


@contextmanager
def page_world(world: Any, *, model: Path | None = None) -> Iterator[tuple[Send, dict[str, str]]]:
    """A desk with the night of the page, what sends calls to it, and the variables that it fills in."""
    from refund.local.samples import write_samples
    from tests.desk.conftest import PHOTO, desk_in

    services = world.services  # so few photos raise an alert only where little is allowed
    settings = replace(services.settings, alert_rejected_share=0.05)
    world = replace(world, services=replace(services, settings=settings))
    folder = world.folder / "samples"
    paths = write_samples(folder)
    if model is not None:
        world.promote(world.services.registry.register(model, created_by="ml").model)
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name < "R-1004" or name > "R-1010":
            world.put(name, path.read_bytes())
    world.night(f"scheduled__{DATE}T02:00:00+00:00", review_threshold=0.9)
    files = {"cup.jpg": folder / "R-1001/cup.jpg", "notes.jpg": folder / "R-1011/notes.jpg"}
    with desk_in(world) as desk:
        client = desk.sign_in("ana", may_write=True)

        def send(call: Call) -> tuple[int, str]:
            answer = client.request(
                call.method,
                call.url.removeprefix("desk:"),
                headers=call.headers,
                content=call.body,
                data=dict(call.form) if call.files else None,
                files=[(name, (path, files[path].read_bytes(), PHOTO)) for name, path in call.files] or None,
            )
            return answer.status_code, answer.text

        yield send, {"AIRFLOW": "http://airflow", "DESK": "desk:", "TOKEN": "-", "PASSWORD": "-"}


def main() -> None:
    """Write the outputs of the page anew."""
    from tests.conftest import make_bucket  # noqa: F401  (the fixtures' helpers)
    from tests.night.conftest import new_world
    from tests.postgres import cluster

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    from moto.server import ThreadedMotoServer

    from refund.settings import S3Access

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = S3Access(
        bucket="unused", endpoint_url=f"http://{host}:{port}", access_key="test", secret_key="test-secret"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster("-c synchronous_commit=off") as postgres,
        new_world(postgres.roles, access, Path(folder)) as world,
        page_world(world, model=given.model) as (send, variables),
    ):
        PAGE.write_text(written_anew(PAGE.read_text(encoding="utf-8"), Session(send, variables)), encoding="utf-8")
    server.stop()


if __name__ == "__main__":
    main()
