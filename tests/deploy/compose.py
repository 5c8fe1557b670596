"""Reads docker-compose.yaml as docker compose does, as far as the tests need it."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

import yaml

from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docker-compose.yaml").read_text(encoding="utf-8")
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Z0-9_]+)(?::\?[^}]*)?\})")


@cache
def compose() -> dict[str, Any]:
    """The file with its anchors and merges resolved, variables not."""
    document: dict[str, Any] = yaml.safe_load(TEXT)
    return document


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services of our own image."""
    return {name: service for name, service in services().items() if "REFUND_IMAGE" in service["image"]}


def interpolate(text: str, env: dict[str, str]) -> str:
    """Replace ``${NAME}`` and ``${NAME:?text}`` by the value, ``$$`` by a dollar; an unknown name fails."""
    return _VARIABLE.sub(lambda found: "$" if found["escaped"] else env[found["name"]], text)


def environment(service: str, env: dict[str, str]) -> dict[str, str]:
    """What a container finds in its environment."""
    given = services()[service].get("environment", {})
    return {name: interpolate(str(value), env) for name, value in given.items()}


def command_lines(service: str) -> list[list[str]]:
    """Every command line of a service: its command, and each line of a shell script in it."""
    given = services()[service].get("command", [])
    words = shlex.split(given) if isinstance(given, str) else list(given)
    if words[:2] == ["bash", "-ec"]:
        return [shlex.split(line.replace("$$", "$")) for line in words[2].splitlines()]
    return [words] if words else []
