"""Makes the two S3 clients of `refund.store.objects`, with their timeouts and retries."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import SettingsError

if TYPE_CHECKING:
    from refund.settings import S3Access

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60


def _session(access: S3Access) -> Any:
    import boto3

    return boto3.session.Session(
        aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
    )


def boto3_client(access: S3Access) -> Any:
    """The client that lists, writes and has the last word."""
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "max_attempts": 4},
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


def obstore_client(access: S3Access) -> Any:
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
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "timeout": timedelta(seconds=READ_TIMEOUT_S),
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
