"""Every variable of `.env`: what it is for, and its default or how it is drawn."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One line of `.env`: either a default that everybody may read, or a secret that is drawn."""

    name: str
    help: str
    default: str | None = None
    draw: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if (self.default is None) == (self.draw is None):
            msg = f"variable {self.name} needs a default or a way to draw it, and not both"
            raise ValueError(msg)

    @property
    def is_secret(self) -> bool:
        """Whether its value may be shown to nobody."""
        return self.draw is not None

    def value(self) -> str:
        """Its default, or a new secret."""
        return self.draw() if self.draw is not None else str(self.default)


def password() -> str:
    """128 random bits as hex: nothing in it needs quoting in a URL, in JSON, in SQL or in `.env`."""
    return secrets.token_hex(16)


def login_password() -> str:
    """64 random bits as hex, for a password that people type."""
    return secrets.token_hex(8)


def signing_key() -> str:
    """512 random bits as hex: HS512 signs with 64 bytes."""
    return secrets.token_hex(64)


def fernet_key() -> str:
    """A key of the layout that `cryptography.fernet` expects."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def access_key() -> str:
    """An S3 key id, upper case as they usually are."""
    return "REFUND" + secrets.token_hex(7).upper()


def all_variables(*, version: str) -> tuple[Variable, ...]:
    """The variables in the order of the file; ``version`` is the project's, for the image's tag."""
    return (
        Variable(name="COMPOSE_PROJECT_NAME", default="refund", help="prefix of containers, networks and volumes"),
        Variable(
            name="COMPOSE_PROFILES",
            default="postgres,s3",
            help="bundled stores to start; leave one out to use a server of your own",
        ),
        Variable(name="REFUND_IMAGE", default=f"refund:{version}", help="the image that Dockerfile builds"),
        Variable(
            name="BACKEND_INTERNAL",
            default="true",
            help="whether containers are cut off from the outside; `false` where a store is outside",
        ),
        Variable(name="TLS_FOLDER", default="./.tls", help="folder of `ca.crt` and the servers' certificates and keys"),
        Variable(name="AIRFLOW_PUBLISHED", default="127.0.0.1:8080", help="address and port of Airflow on the host"),
        Variable(name="AIRFLOW_BASE_URL", default="http://localhost:8080", help="Airflow's address as browsers see it"),
        Variable(
            name="AIRFLOW_BEHIND_PROXY",
            default="False",
            help="`True` where a proxy with TLS stands before Airflow: cookies over TLS only, its headers count",
        ),
        Variable(name="AIRFLOW_FERNET_KEY", draw=fernet_key, help="encrypts connections in Airflow's database"),
        Variable(name="AIRFLOW_API_SECRET_KEY", draw=signing_key, help="signs sessions and requests for logs"),
        Variable(name="AIRFLOW_JWT_SECRET", draw=signing_key, help="signs the tokens of tasks and of the REST API"),
        Variable(name="AIRFLOW_ADMIN_PASSWORD", draw=login_password, help="first password of the login `admin`"),
        Variable(name="AIRFLOW_OPERATOR_PASSWORD", draw=login_password, help="first password of the login `operator`"),
        Variable(name="AIRFLOW_CLERK_PASSWORD", draw=login_password, help="first password of the login `clerk`"),
        Variable(name="AIRFLOW_VIEWER_PASSWORD", draw=login_password, help="first password of the login `viewer`"),
        Variable(name="POSTGRES_HOST", default="postgres", help="Postgres; its certificate must be for this name"),
        Variable(name="POSTGRES_PORT", default="5432", help="its port"),
        Variable(
            name="POSTGRES_CA", default="/run/tls/ca.crt", help="authority of its certificate, a path in the container"
        ),
        Variable(name="POSTGRES_SUPERUSER_PASSWORD", draw=password, help="role `postgres` of the bundled server"),
        Variable(name="POSTGRES_AIRFLOW_PASSWORD", draw=password, help="role `airflow`, owner of database `airflow`"),
        Variable(name="POSTGRES_OWNER_PASSWORD", draw=password, help="role `refund_owner`, for `refund migrate`"),
        Variable(name="POSTGRES_APP_PASSWORD", draw=password, help="role `refund_app`, for the tasks"),
        Variable(name="POSTGRES_ANALYST_PASSWORD", draw=password, help="role `refund_analyst`, for people and BI"),
        Variable(name="VALKEY_PASSWORD", draw=password, help="the broker between scheduler and workers"),
        Variable(name="S3_ENDPOINT_URL", default="https://s3:7070", help="the S3 server"),
        Variable(name="S3_REGION", default="us-east-1", help="its region"),
        Variable(name="S3_BUCKET", default="refund-photos", help="the bucket; made where it is missing"),
        Variable(name="S3_CA", default="/run/tls/ca.crt", help="authority of its certificate, a path in the container"),
        Variable(name="S3_ACCESS_KEY", draw=access_key, help="key id; of the bundled server, its only account"),
        Variable(name="S3_SECRET_KEY", draw=password, help="its secret"),
        Variable(name="WORKER_CPUS", default="2", help="cores of one worker"),
        Variable(name="WORKER_MEMORY", default="6g", help="memory of one worker"),
        Variable(name="INFERENCE_SLOTS", default="2", help="slots of pool `refund_inference`: two per worker"),
    )
