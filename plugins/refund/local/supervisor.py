"""Runs the services under supervisord: its configuration, and the calls over its private socket."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from refund.errors import StackError
from refund.local.credentials import write_private
from refund.local.paths import StackPaths
from refund.local.processes import MARK


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One supervised service."""

    name: str
    command: Sequence[str]
    folder: Path  # working directory
    stop_signal: str = "TERM"
    stop_patience_s: int = 20
    user: str | None = None  # system user, when it must not run as root
    environment: Mapping[str, str] = field(default_factory=dict)  # plain words only, nothing secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramState:
    """What the supervisor says of a service: ``state`` is supervisord's word in lower case."""

    name: str
    state: str  # running, starting, stopped, backoff, fatal, exited, stopping, unknown
    pid: int | None
    started_at_s: int  # seconds since the epoch; 0: never


class Supervisor:
    """The supervisord of one stack."""

    def __init__(self, paths: StackPaths) -> None:
        self._paths = paths
        self._identifier = f"refund-{paths.stack_id}"
        self._socket = paths.socket()
        self._configuration = paths.run / "supervisord.conf"

    def pid(self) -> int | None:
        """Its process, or None when it does not answer as ours.

        The answer over the socket counts, not the pid file: after a power cut that names a stranger.
        """
        try:
            with self._calls() as call:
                if call("getIdentification") == self._identifier:
                    return cast(int, call("getPID"))
        except StackError:
            pass
        return None

    def start(self, programs: Sequence[Program], *, patience_s: float = 15.0) -> int:
        """Write the configuration, start supervisord with every program stopped, and return its pid.

        Raises:
            StackError: it does not come up.
        """
        write_private(self._configuration, self._render(programs))
        self._socket.unlink(missing_ok=True)
        environment = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ") if name in os.environ
        }
        environment[MARK] = self._paths.stack_id
        try:
            subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                text=True,
                timeout=patience_s,
            )
        except subprocess.CalledProcessError as exc:
            msg = f"supervisord did not start: {(exc.stderr or exc.stdout).strip()[-600:]}"
            raise StackError(msg) from exc
        except subprocess.TimeoutExpired as exc:
            msg = f"supervisord did not detach within {patience_s:.0f} s; its log: {self._paths.log('supervisord')}"
            raise StackError(msg) from exc
        deadline = time.monotonic() + patience_s
        while (pid := self.pid()) is None:
            if time.monotonic() > deadline:
                msg = f"supervisord does not answer on {self._socket}; its log: {self._paths.log('supervisord')}"
                raise StackError(msg)
            time.sleep(0.05)
        return pid

    def states(self) -> dict[str, ProgramState]:
        """The state of each program by name.

        Raises:
            StackError: supervisord does not answer.
        """
        with self._calls() as call:
            found = call("getAllProcessInfo")
        return {
            entry["name"]: ProgramState(
                name=entry["name"],
                state=entry["statename"].lower(),
                pid=entry["pid"] or None,
                started_at_s=entry["start"],
            )
            for entry in found
        }

    def run(self, *names: str) -> None:
        """Start programs that are not running, without waiting for them.

        Raises:
            StackError: supervisord does not answer or cannot start one.
        """
        states = self.states()
        with self._calls() as call:
            for name in names:
                if states[name].state not in ("running", "starting", "backoff"):
                    call("startProcess", name, False)

    def stop(self, *names: str, patience_s: float = 40.0) -> None:
        """Stop programs together and wait until they are gone; supervisord kills what outlasts its patience.

        Raises:
            StackError: supervisord does not answer.
        """
        states = self.states()
        with self._calls() as call:
            for name in names:
                if name in states and states[name].state in ("running", "starting", "backoff"):
                    call("stopProcess", name, False)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            states = self.states()
            if all(states[name].pid is None for name in names if name in states):
                return
            time.sleep(0.05)

    def shut_down(self) -> None:
        """Ask supervisord to stop what still runs and to end."""
        with self._calls() as call:
            call("shutdown")

    @contextmanager
    def _calls(self) -> Any:
        import http.client
        import xmlrpc.client  # nosec: the other end is our own supervisord behind a private socket

        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

        def call(method: str, *arguments: Any) -> Any:
            return getattr(proxy.supervisor, method)(*arguments)

        try:
            yield call
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as exc:
            msg = f"the supervisor of the local stack does not answer on {self._socket} ({exc}); run: refund up"
            raise StackError(msg) from exc
        finally:
            transport.close()

    def _render(self, programs: Sequence[Program]) -> str:
        lines = [
            "[unix_http_server]",
            f"file={_plain(self._socket)}",
            "chmod=0600",
            "[supervisord]",
            f"identifier={self._identifier}",
            f"logfile={_plain(self._paths.log('supervisord'))}",
            "logfile_maxbytes=2MB",
            "logfile_backups=1",
            f"pidfile={_plain(self._paths.run / 'supervisord.pid')}",
            f"childlogdir={_plain(self._paths.logs)}",
            "umask=077",
            *(["user=root"] if os.geteuid() == 0 else []),
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for program in programs:
            lines += [
                f"[program:{program.name}]",
                f"command={_plain(shlex.join(program.command))}",
                f"directory={_plain(program.folder)}",
                "autostart=false",
                "autorestart=true",
                "startsecs=1",
                "startretries=3",
                "stopasgroup=" + ("false" if program.stop_signal == "INT" else "true"),
                "killasgroup=true",
                f"stopsignal={program.stop_signal}",
                f"stopwaitsecs={program.stop_patience_s}",
                f"stdout_logfile={_plain(self._paths.log(program.name))}",
                "stdout_logfile_maxbytes=10MB",
                "stdout_logfile_backups=1",
                "redirect_stderr=true",
                *([f"user={program.user}"] if program.user else []),
            ]
            if program.environment:
                lines.append(
                    "environment=" + ",".join(f'{key}="{_plain(value)}"' for key, value in program.environment.items())
                )
        return "\n".join(lines) + "\n"


def _plain(value: object) -> str:
    """The value as it may stand in supervisord's configuration.

    Supervisord expands % in some values once and in some twice, and takes `` ;`` for the start of a comment; no quoting
    prevents either.

    Raises:
        StackError: it has one of these.
    """
    text = str(value)
    if "%" in text or " ;" in text or not text.isprintable():
        msg = (
            f"supervisord cannot work with {text!r}: a path of the local stack must have no per cent sign, no "
            f"semicolon after a space and no control character; choose another REFUND_HOME or move the checkout"
        )
        raise StackError(msg)
    return text
