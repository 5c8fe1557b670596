"""Makes the bucket of the connection refund_s3 where it is missing; run by refund-init."""

from __future__ import annotations

import sys
import time
from typing import Any

WAIT_S = 60


def make_bucket(client: Any, *, bucket: str, region: str) -> bool:
    """Make the bucket unless it is there; returns whether it was made.

    A bucket that another account owns counts as missing and is refused by the server: its error is passed on.
    """
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as exc:
        if exc.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    else:
        return False
    elsewhere = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=bucket, **elsewhere)
    return True


def main() -> None:
    """Wait for the server, which may only just have started."""
    from botocore.exceptions import EndpointConnectionError

    from refund.cli.access import find_access
    from refund.store.s3_clients import Patience, boto3_client

    access = find_access().s3
    client = boto3_client(access, Patience())
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            made = make_bucket(client, bucket=access.bucket, region=access.region)
        except EndpointConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)
        else:
            break
    print(f"bucket {access.bucket}: {'made' if made else 'is there'}, at {access.place}", file=sys.stderr)


if __name__ == "__main__":
    main()
