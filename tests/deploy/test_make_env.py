"""`make env`: secrets that nobody else reads, certificates that are good for what they are for, nothing overwritten."""

from __future__ import annotations

import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from deploy.certificates import make_authority, make_server
from deploy.make_env import main, make_env
from deploy.variables import Variable, all_variables, password
from tests.conftest import REPOSITORY
from tests.deploy.conftest import Written, read_env

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def run(folder: Path, *, force: bool = False, renew: bool = False) -> list[str]:
    said: list[str] = []
    make_env(folder, force=force, renew=renew, now=datetime.now(UTC), say=said.append)
    return said


def test_every_variable_is_written_and_only_its_owner_reads_secrets(written: Written) -> None:
    assert list(written.env) == [variable.name for variable in all_variables(version="0")]
    assert all(written.env.values())
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in [written.folder / ".env", *written.tls(".").iterdir()]
    }
    assert modes == {
        ".env": 0o600, "ca.crt": 0o644, "ca.key": 0o600, "postgres.crt": 0o644, "postgres.key": 0o600, "s3.crt": 0o644,
        "s3.key": 0o600,
    }  # fmt: skip
    assert stat.S_IMODE(written.tls(".").stat().st_mode) == 0o700


def test_no_secret_is_said_and_none_comes_twice(tmp_path: Path) -> None:
    said = "\n".join(run(tmp_path))
    first = read_env(tmp_path / ".env")
    run(tmp_path, force=True)
    second = read_env(tmp_path / ".env")
    secret = [variable.name for variable in all_variables(version="0") if variable.is_secret]
    assert len({first[name] for name in secret} | {second[name] for name in secret}) == 2 * len(secret)
    assert [name for name in secret if first[name] in said] == []
    assert all(re.fullmatch(r"[A-Za-z0-9_=-]{16,}", first[name]) for name in secret)  # nothing that needs quoting
    Fernet(first["AIRFLOW_FERNET_KEY"])


def test_a_second_time_keeps_everything(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = run(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert said == [
        f"kept {tmp_path}/.env: databases were set up with its passwords; --force draws new ones",
        f"kept {tmp_path}/.tls/ca.crt",
        f"kept {tmp_path}/.tls/postgres.crt; --renew-certificates signs a new one",
        f"kept {tmp_path}/.tls/s3.crt; --renew-certificates signs a new one",
    ]


def test_a_variable_of_a_newer_release_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    run(tmp_path)
    env = tmp_path / ".env"
    before = read_env(env)
    kept = [line for line in env.read_text().splitlines() if not line.startswith("VALKEY_PASSWORD=")]
    env.write_text("\n".join(kept) + "\n")
    said = run(tmp_path)
    after = read_env(env)
    assert said[0] == f"added VALKEY_PASSWORD to {env}: 1 secrets, readable by you alone"
    assert {name for name in after if after[name] != before[name]} == {"VALKEY_PASSWORD"}


def test_renewing_signs_with_the_same_authority(tmp_path: Path) -> None:
    run(tmp_path)
    authority, server = (tmp_path / ".tls" / name for name in ("ca.crt", "s3.crt"))
    before = authority.read_bytes(), server.read_bytes(), (tmp_path / ".env").read_bytes()
    run(tmp_path, renew=True)
    assert (authority.read_bytes(), (tmp_path / ".env").read_bytes()) == (before[0], before[2])
    assert server.read_bytes() != before[1]
    check(authority.read_bytes(), server.read_bytes(), host="s3", at=datetime.now(UTC))


def test_with_an_authority_of_ones_own_it_says_which_certificate_is_missing(tmp_path: Path) -> None:
    run(tmp_path)
    tls = tmp_path / ".tls"
    for name in ("ca.key", "postgres.crt"):
        (tls / name).unlink()
    said = run(tmp_path)
    assert said[2] == (
        f"{tls}/postgres.crt is missing and so is {tls}/ca.key to sign it: put a certificate for postgres, localhost, "
        f"127.0.0.1 from your own authority there, and its key as {tls}/postgres.key"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--folder", str(tmp_path / "nowhere")])
    assert str(caught.value) == f"{tmp_path}/nowhere is no folder; name the checkout, where docker-compose.yaml lies"


def test_a_variable_is_either_public_or_drawn() -> None:
    for given in ({}, {"default": "a", "draw": password}):
        with pytest.raises(ValueError, match=r"^variable X needs a default or a way to draw it, and not both$"):
            Variable(name="X", help="", **given)


def check(authority: bytes, certificate: bytes, *, host: str, at: datetime) -> None:
    """Verify as a TLS client would."""
    store = Store([x509.load_pem_x509_certificate(authority)])
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(host))
    verifier.verify(x509.load_pem_x509_certificate(certificate), [])


def test_a_certificate_is_good_for_its_hosts_and_its_time_alone() -> None:
    authority = make_authority(now=NOW)
    server = make_server(authority, hosts=["postgres", "localhost", "127.0.0.1"], now=NOW)
    check(authority.certificate, server.certificate, host="postgres", at=NOW)
    check(authority.certificate, server.certificate, host="localhost", at=NOW + timedelta(days=824))
    for host, at in (("s3", NOW), ("postgres", NOW + timedelta(days=826)), ("postgres", NOW - timedelta(hours=1))):
        with pytest.raises(VerificationError):
            check(authority.certificate, server.certificate, host=host, at=at)
    with pytest.raises(VerificationError):
        check(make_authority(now=NOW).certificate, server.certificate, host="postgres", at=NOW)


def test_what_must_stay_private_is_neither_committed_nor_in_the_image() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert {"/.env", "/.tls/"} <= set(ignored)
    allowed = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert allowed[1] == "*"
    assert not any(line.startswith(("!.", "!*")) for line in allowed)
