"""The S3 server of a laptop: nanio on loopback, with random keys and one bucket."""

from __future__ import annotations

import sys
from pathlib import Path

from refund.local.credentials import StackCredentials, write_private
from refund.local.paths import StackPaths
from refund.local.ports import HOST
from refund.local.supervisor import Program
from refund.settings import S3Access

BUCKET = "refund-photos"
REGION = "us-east-1"


def access_of(*, port: int, credentials: StackCredentials) -> S3Access:
    """How to reach the bucket."""
    return S3Access(
        bucket=BUCKET,
        endpoint_url=f"http://{HOST}:{port}",
        region=REGION,
        access_key=credentials.s3_access_key,
        secret_key=credentials.s3_secret_key,
    )


def program(paths: StackPaths, *, port: int, credentials: StackCredentials, mark: dict[str, str]) -> Program:
    """Write the option file with the keys (0600) and describe the service; nanio would bind 0.0.0.0 if not told."""
    options = paths.run / "nanio.toml"
    write_private(
        options,
        f'[[users]]\naccess_key = "{credentials.s3_access_key}"\nsecret_key = "{credentials.s3_secret_key}"\n',
    )
    return Program(
        name="s3",
        command=[
            *(sys.executable, "-m", "nanio", "serve", "--options", str(options), "--data-dir", str(paths.objects)),
            *("--host", HOST, "--port", str(port), "--region", REGION, "--log-level", "warning", "--no-access-log"),
        ],
        folder=Path(paths.objects),
        environment=mark,
    )


def ensure_bucket(access: S3Access) -> str | None:
    """Make the bucket if it is missing; returns None, or why the server cannot be used yet."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=access.endpoint_url,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}, proxies={}),
    )
    try:
        names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
        if access.bucket not in names:
            client.create_bucket(Bucket=access.bucket)
    except (BotoCoreError, ClientError) as exc:
        return str(exc)
    finally:
        client.close()
    return None
