"""The three ports of the local stack: chosen by environment, remembered, and checked before use."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from refund.errors import PortTakenError, SettingsError

HOST = "127.0.0.1"
_PURPOSES = {"postgres": "Postgres", "s3": "the S3 server", "airflow": "Airflow's web server"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    postgres: int = 15432
    s3: int = 19000
    airflow: int = 18080

    def __post_init__(self) -> None:
        values = asdict(self)
        for name, port in values.items():
            if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
                msg = f"{setting_of(name)} must be a port from 1 to 65535, got {port!r}"
                raise SettingsError(msg)
        if len(set(values.values())) < len(values):
            named = ", ".join(f"{setting_of(name)}={port}" for name, port in values.items())
            msg = f"the local stack needs three different ports, got {named}"
            raise SettingsError(msg)

    @classmethod
    def resolve(cls, environ: Mapping[str, str], *, remembered: Ports | None = None) -> Self:
        """``REFUND_PORT_POSTGRES``, ``_S3`` and ``_AIRFLOW``; else what an earlier start remembered; else the defaults.

        Raises:
            SettingsError: a value is no port, or two are the same.
        """
        chosen: dict[str, int] = {} if remembered is None else asdict(remembered)
        for spec in fields(cls):
            if text := environ.get(setting_of(spec.name), "").strip():
                if not text.isdecimal():
                    msg = f"{setting_of(spec.name)} must be a port from 1 to 65535, got {text!r}"
                    raise SettingsError(msg)
                chosen[spec.name] = int(text)
        return cls(**chosen)

    def check_free(self) -> None:
        """See that nothing listens on any of the ports.

        Raises:
            PortTakenError: one is held; the text names the process.
            SettingsError: the system does not let us listen there (ports below 1024).
        """
        for name, port in asdict(self).items():
            check_port_free(port, purpose=_PURPOSES[name], setting=setting_of(name))


def setting_of(name: str) -> str:
    """The environment variable that chooses the port."""
    return f"REFUND_PORT_{name.upper()}"


def check_port_free(port: int, *, purpose: str, setting: str) -> None:
    """See that we may listen on a port of 127.0.0.1; raises as `Ports.check_free` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise PortTakenError(port=port, purpose=purpose, setting=setting, holder=holder_of(port)) from exc
            msg = f"port {port}, wanted for {purpose}, cannot be used: {exc.strerror}; choose another: {setting}=PORT"
            raise SettingsError(msg) from exc


def holder_of(port: int) -> str:
    """Who listens on a port, as an error message names it; a process of another user may be invisible to us."""
    import psutil

    try:
        listeners = [
            found
            for found in psutil.net_connections(kind="tcp")
            if found.status == psutil.CONN_LISTEN and found.laddr.port == port
        ]
    except psutil.AccessDenied:  # macOS shows foreign connections to root only
        listeners = []
    for found in listeners:
        if found.pid is None:
            continue
        try:
            process = psutil.Process(found.pid)
            command = " ".join(process.cmdline())
            return f"process {found.pid} ({process.name()}: {command[:120]})"
        except psutil.Error:
            return f"process {found.pid}"
    return "a process that is not ours to see (of another user, or outside this container)"
