"""Starts this package's Python modules, and pip, in processes of their own, with no secret in their environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SYSTEMROOT", "KERAS_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
     "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
)  # fmt: skip
_KEPT_PREFIXES = ("LC_",)


def child_environment(
    environ: Mapping[str, str] | None = None, *, extra_prefixes: tuple[str, ...] = ()
) -> dict[str, str]:
    """What a child needs to run and to reach the network, and nothing else: no cloud keys, no Airflow connections."""
    environ = os.environ if environ is None else environ
    prefixes = _KEPT_PREFIXES + extra_prefixes
    kept = {name: value for name, value in environ.items() if name.upper() in _KEPT or name.startswith(prefixes)}
    package_root = str(Path(__file__).resolve().parents[2])  # so that a mounted, not installed, package is found
    return kept | {
        "PYTHONPATH": package_root,
        "PYTHONSAFEPATH": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs one of this package's modules with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
