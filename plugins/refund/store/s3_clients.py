"""Makes the S3 clients of `refund.store.objects`, with their timeouts and retries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import SettingsError

if TYPE_CHECKING:
    from refund.settings import S3Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the clients wait for a server, and how often they ask again.

    With these defaults an object whose body never comes holds one of a task's downloads for 85 s: `silence_s` with
    obstore, three times that with boto3, and the pauses between. One that trickles holds it for twice `body_s`.
    """

    connect_s: float = 5.0
    answer_s: float = 60.0  # no byte for so long ends one try to list, write or copy; a large copy is silent meanwhile
    tries: int = 4  # to list, write or copy, with boto3's pauses: up to 1, 2, 4 s
    silence_s: float = 20.0  # no byte for so long ends one try to read an object
    body_s: float = 120.0  # one try to read an object ends after this: 16 MB at 133 kB/s just come
    read_tries: int = 3
    pause_s: float = 0.5  # before an object that came with another length is read again
    round_pauses_s: tuple[float, ...] = (5.0, 20.0)  # before each further round over photos that were put aside
    rounds_s: float = 600.0  # all the further rounds together


def _session(access: S3Access) -> Any:
    import boto3

    return boto3.session.Session(
        aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
    )


def boto3_client(access: S3Access, patience: Patience, *, reading: bool = False) -> Any:
    """The client that lists, writes and has the last word; ``reading``: the one that reads what obstore could not."""
    from botocore.config import Config

    config = Config(
        connect_timeout=patience.connect_s,
        read_timeout=patience.silence_s if reading else patience.answer_s,
        retries={"mode": "standard", "max_attempts": patience.read_tries if reading else patience.tries},
        max_pool_connections=32,
        s3={"addressing_style": "path" if access.endpoint_url else "auto"},
        # other servers than AWS do not know the newer checksums
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    if access.ca_file:
        _certificates(access.ca_file)
    # verify=None leaves botocore its own order: AWS_CA_BUNDLE, then the system's authorities
    return _session(access).client("s3", endpoint_url=access.endpoint_url, config=config, verify=access.ca_file)


def obstore_client(access: S3Access, patience: Patience) -> Any:
    """The client that reads fast."""
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    endpoint = {"endpoint": access.endpoint_url} if access.endpoint_url else {}
    trusted = {"root_certificate": _certificates(access.ca_file)} if access.ca_file else {}
    return S3Store(
        access.bucket,
        region=access.region,
        credential_provider=Boto3CredentialProvider(_session(access)),
        virtual_hosted_style_request=not access.endpoint_url,
        client_options={
            "allow_http": (access.endpoint_url or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=patience.connect_s),
            "read_timeout": timedelta(seconds=patience.silence_s),
            "timeout": timedelta(seconds=patience.body_s),
            **trusted,
        },
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=10)},
        **endpoint,
    )


def _certificates(path: str) -> bytes:
    """The trusted certificates; read here because obstore takes them by value and botocore only looks when it connects.

    Raises:
        SettingsError: there is no such file, or it holds no certificate.
    """
    try:
        pem = Path(path).read_bytes()
    except OSError as exc:
        msg = (
            f"the certificates to trust for S3, {path}, cannot be read: {exc.strerror}; correct `verify` in the extra "
            f"of the Airflow connection refund_s3, or mount the file where the worker runs"
        )
        raise SettingsError(msg) from exc
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        msg = (
            f"{path}, named by `verify` in the extra of the Airflow connection refund_s3, holds no certificate; "
            f"expected PEM text with -----BEGIN CERTIFICATE-----"
        )
        raise SettingsError(msg)
    return pem
