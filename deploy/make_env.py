"""`make env`: writes `.env` with random secrets and a local certificate authority; keeps what is there already."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

if __package__ in {None, ""}:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy.certificates import Pair, make_authority, make_server
from deploy.variables import Variable, all_variables

PROJECT = Path(__file__).resolve().parents[1]
HEAD = "# Written by `make env`; docker compose reads it. Secrets stand in it in clear: never commit it.\n\n"
# Also as localhost: through a published or forwarded port the same certificate is good.
SERVERS = {"postgres": ["postgres", "localhost", "127.0.0.1"], "s3": ["s3", "localhost", "127.0.0.1"]}


def make_env(folder: Path, *, force: bool, renew: bool, now: datetime, say: Callable[[str], None]) -> None:
    """Write what is missing of `.env` and `.tls/` in ``folder``.

    Args:
        folder: The checkout.
        force: Draw everything anew, secrets and authority.
        renew: Sign new server certificates with the authority that is there.
        now: When certificates begin to be valid.
        say: Is told what was written and what was kept; never a secret.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder; name the checkout, where docker-compose.yaml lies"
        raise SystemExit(msg)
    env = folder / ".env"
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    variables = all_variables(version=version)
    there = env.read_text(encoding="utf-8") if env.exists() and not force else ""
    wanted = [variable for variable in variables if not re.search(rf"^{variable.name}=", there, re.MULTILINE)]
    if there and not wanted:
        say(f"kept {env}: databases were set up with its passwords; --force draws new ones")
    else:
        _write(env, ((there or HEAD) + _lines(wanted)).encode(), mode=0o600)
        added = f"added {', '.join(v.name for v in wanted)} to" if there else "wrote"
        say(f"{added} {env}: {sum(v.is_secret for v in wanted)} secrets, readable by you alone")
    tls = folder / ".tls"
    tls.mkdir(mode=0o700, exist_ok=True)
    authority = _authority(tls, force=force, now=now, say=say)
    for name, hosts in SERVERS.items():
        certificate, key = tls / f"{name}.crt", tls / f"{name}.key"
        if certificate.exists() and key.exists() and not (force or renew):
            say(f"kept {certificate}; --renew-certificates signs a new one")
            continue
        if authority is None:
            say(
                f"{certificate} is missing and so is {tls / 'ca.key'} to sign it: put a certificate for "
                f"{', '.join(hosts)} from your own authority there, and its key as {key}"
            )
            continue
        pair = make_server(authority, hosts=hosts, now=now)
        _write(key, pair.key, mode=0o600)
        _write(certificate, pair.certificate, mode=0o644)
        say(f"wrote {certificate} and its key")


def _authority(tls: Path, *, force: bool, now: datetime, say: Callable[[str], None]) -> Pair | None:
    certificate, key = tls / "ca.crt", tls / "ca.key"
    if certificate.exists() and not force:
        say(f"kept {certificate}")
        return Pair(certificate=certificate.read_bytes(), key=key.read_bytes()) if key.exists() else None
    made = make_authority(now=now)
    _write(key, made.key, mode=0o600)
    _write(certificate, made.certificate, mode=0o644)
    say(f"wrote {certificate}; keep {key.name} off the machine that runs the containers")
    return made


def _lines(variables: list[Variable]) -> str:
    return "".join(f"# {variable.help}\n{variable.name}={variable.value()}\n" for variable in variables)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write under a temporary name first; the file is never there with a wider mode or half of its content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(mode)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line of `make env`."""
    parser = argparse.ArgumentParser(prog="make env", description=__doc__)
    parser.add_argument("--folder", type=Path, default=PROJECT, help="where .env and .tls/ go; the checkout")
    parser.add_argument("--force", action="store_true", help="draw all secrets and the authority anew")
    parser.add_argument("--renew-certificates", action="store_true", help="sign new server certificates")
    chosen = parser.parse_args(arguments)
    make_env(
        chosen.folder,
        force=chosen.force,
        renew=chosen.renew_certificates,
        now=datetime.now(UTC),
        say=lambda line: print(line, file=sys.stderr),
    )


if __name__ == "__main__":
    main()
