"""Passwords: random, private, never shown, never lost silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refund.errors import StackError
from refund.local.credentials import StackCredentials, load, load_or_draw, write_private


def secret_values(credentials: StackCredentials) -> list[str]:
    values = [getattr(credentials, name) for name in StackCredentials.__dataclass_fields__]
    return [*values[-1].values(), *values[:-1]]


def test_they_are_written_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    drawn = load_or_draw(path, made_before=False)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_draw(path, made_before=True) == drawn == load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets.json"], "no temporary file stays"


def test_two_stacks_share_none_and_all_are_long() -> None:
    one, other = StackCredentials.draw(), StackCredentials.draw()
    values = secret_values(one)
    assert not set(values) & set(secret_values(other))
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 12


def test_the_repr_shows_none() -> None:
    credentials = StackCredentials.draw()
    shown = repr(credentials)
    assert not [value for value in secret_values(credentials) if value in shown]


def test_a_database_without_its_passwords_is_not_given_new_ones(tmp_path: Path) -> None:
    with pytest.raises(
        StackError, match=r"without its passwords the local database cannot be opened; restore the file"
    ):
        load_or_draw(tmp_path / "secrets.json", made_before=True)
    assert not (tmp_path / "secrets.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"postgres_app": "x"})])
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets.json").write_text(text)
    with pytest.raises(StackError, match=r"secrets.json is not a password file of this version; remove the folder"):
        load(tmp_path / "secrets.json")


def test_loading_before_the_first_start_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        StackError, match=r"cannot be read: No such file or directory; start the stack first: refund up"
    ):
        load(tmp_path / "secrets.json")


def test_a_private_file_replaces_one_that_all_could_read(tmp_path: Path) -> None:
    path = tmp_path / "options"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
