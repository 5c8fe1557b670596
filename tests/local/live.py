"""A handle to a local stack that tests started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refund.local import stack
from refund.local.paths import StackPaths
from refund.local.ports import HOST, Ports
from refund.local.processes import stack_processes, with_children


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStack:
    """One running stack; `refund.local.stack.access` has the rest."""

    home: Path
    ports: Ports

    def processes(self) -> list[Any]:
        """Everything that runs for it."""
        paths = StackPaths(home=self.home)
        folder = stack.status(self.home).postgres_folder
        clusters = [Path(folder)] if folder else []
        return with_children(stack_processes(paths.stack_id, clusters=clusters, airflow_home=paths.airflow))

    def command_lines(self) -> list[str]:
        """The command line of each of them that has not ended since it was listed."""
        import psutil

        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too: a task's process ends while we look
                lines.append(" ".join(process.cmdline()))
        return lines

    def token_answer(self, user: str, password: str) -> tuple[int, Any]:
        """What Airflow answers to a login."""
        return self._call("POST", "/auth/token", body={"username": user, "password": password})

    def get(self, path: str) -> Any:
        """A GET of Airflow's REST API as admin; the answer must be 200."""
        access = stack.access(self.home)
        token = self.token_answer(access.airflow_user, access.airflow_password)[1]["access_token"]
        status, answer = self._call("GET", path, token=token)
        assert status == http.client.OK, (path, status, answer)
        return answer

    def _call(self, method: str, path: str, *, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(HOST, self.ports.airflow, timeout=120)
        try:
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A home folder that Postgres's system user can cross, removed with everything that a stack put elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="refund-live-", dir="/tmp"))
    folder.chmod(0o711)
    home = folder / ".refund"
    try:
        yield home
    finally:
        elsewhere = stack.status(home).postgres_folder
        stack.down(home)
        if elsewhere and not Path(elsewhere).is_relative_to(home):
            shutil.rmtree(Path(elsewhere).parent)
        shutil.rmtree(folder)


def start(home: Path, *, ports: Ports, dags_folder: Path | None = None) -> LiveStack:
    """Start a stack; settings of the developer's own stack stay out of it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REFUND_")}
    stack.up(home, ports=ports, progress=lambda _: None, dags_folder=dags_folder, environ=environ)
    return LiveStack(home=home, ports=ports)
