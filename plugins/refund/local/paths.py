"""Where the local stack keeps its files: one home folder per checkout, named by a short id."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from refund.errors import StackError

_SOCKET_PATH_MAX = 90  # the kernel takes 107 bytes; supervisord binds to NAME.PID first and renames


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPaths:
    """The files of one local stack; ``home`` is absolute."""

    home: Path

    def __post_init__(self) -> None:
        if not self.home.is_absolute():
            msg = f"the home folder must be absolute, got {str(self.home)!r}"
            raise ValueError(msg)

    @property
    def stack_id(self) -> str:
        """Twelve hex digits that tell this stack's processes and folders from those of other checkouts."""
        return sha256(str(self.home).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    @property
    def secrets_file(self) -> Path:
        """Every password and key of the stack, mode 0600."""
        return self.home / "secrets.json"

    @property
    def state_file(self) -> Path:
        """Ports, places and how far the set-up came."""
        return self.home / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held while one command changes the stack."""
        return self.home / "lock"

    @property
    def logs(self) -> Path:
        """One log per service."""
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """Generated configuration: rewritten at every start, mode 0600."""
        return self.home / "run"

    @property
    def postgres(self) -> Path:
        """The Postgres cluster, unless the home folder is closed to its system user."""
        return self.home / "postgres"

    @property
    def objects(self) -> Path:
        """What the S3 server stores: plain files."""
        return self.home / "s3"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.home / "airflow"

    @property
    def staging(self) -> Path:
        """Where tasks leave files for each other."""
        return self.home / "staging"

    @property
    def cache(self) -> Path:
        """Model artefacts between tasks."""
        return self.home / "cache"

    @property
    def reports(self) -> Path:
        """A copy of every morning report."""
        return self.home / "reports"

    @property
    def last_run(self) -> Path:
        """How the last ``refund night --wait`` ended, as JSON."""
        return self.home / "last_run.json"

    def log(self, service: str) -> Path:
        """The log file of a service."""
        return self.logs / f"{service}.log"

    def create(self) -> None:
        """Make the folders that are missing; existing ones keep their mode.

        Run by root, the home folder may be crossed by others, because Postgres refuses to run as root and its system
        user must reach the cluster; what lies in it is closed file by file.

        Raises:
            StackError: the folder cannot be made.
        """
        try:
            if not self.home.exists():
                self.home.mkdir(parents=True)
                self.home.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for folder in (self.logs, self.run, self.objects, self.airflow, self.staging, self.cache):
                if not folder.exists():
                    folder.mkdir(mode=0o700)
            (self.airflow / "plugins").mkdir(exist_ok=True)
        except OSError as exc:
            msg = (
                f"cannot make the local stack's folder {self.home}: {exc.strerror}; point REFUND_HOME at a folder "
                f"that you may write to"
            )
            raise StackError(msg) from exc

    def socket(self) -> Path:
        """Supervisord's socket: in the home folder, or in a short private one where that path is too long.

        Raises:
            StackError: someone else owns the short folder.
        """
        preferred = self.run / "supervisor.sock"
        if len(os.fsencode(preferred)) <= _SOCKET_PATH_MAX:
            return preferred
        folder = Path(tempfile.gettempdir()) / f"refund-{os.getuid()}-{self.stack_id}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            msg = (
                f"{folder} must be a folder that only you may enter (owner {os.getuid()}, mode 700), found owner "
                f"{found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; remove it, or choose a shorter REFUND_HOME"
            )
            raise StackError(msg)
        return folder / "supervisor.sock"


def default_home(environ: Mapping[str, str], *, working_folder: Path) -> Path:
    """``REFUND_HOME``, else ``.refund`` in the checkout that the working folder lies in, else in the working folder."""
    if named := environ.get("REFUND_HOME"):
        return Path(named).expanduser().absolute()
    return project_root(working_folder) / ".refund"


def project_root(working_folder: Path) -> Path:
    """The nearest folder, upwards from ``working_folder``, that holds a checkout of this project."""
    working_folder = working_folder.absolute()
    for folder in (working_folder, *working_folder.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "dags").is_dir():
            return folder
    return working_folder


def default_dags_folder() -> Path:
    """The ``dags/`` of the checkout that this package is installed from, else of the working folder's checkout.

    Raises:
        StackError: neither has one.
    """
    candidates = [Path(__file__).resolve().parents[3] / "dags", project_root(Path.cwd()) / "dags"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    msg = f"no dags/ folder at {' or '.join(map(str, candidates))}; run the command inside a checkout of the project"
    raise StackError(msg)
