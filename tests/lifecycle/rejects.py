"""Rejected photos in a real database and bucket, for the tests of putting them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import md5, sha256
from typing import Any

from refund.lifecycle.requeue import Requeued, requeue
from refund.night.services import Services
from refund.store.objects import ListedObject, ObjectStore
from tests.conftest import Roles
from tests.night.conftest import DAY, World, world  # noqa: F401  (a fixture)
from tests.store.factories import Photo, night, rows

BODY = b"rejected by a setting that was wrong"


def etag(body: bytes) -> str:
    return md5(body, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Rejects:
    """Rejected photos of a run date of its own, in a real database and bucket."""

    services: Services
    roles: Roles
    run_date: date

    def key(self, name: str) -> str:
        return f"incoming/{self.run_date}/R-1/{name}"

    def publish(self, *names: str, days_before: int = 0, prefix: str = "incoming/", **params: Any) -> list[str]:
        """A night that rejected photos of these names as corrupt; all lie under their keys and in quarantine."""
        day = self.run_date - timedelta(days=days_before)
        found = [Photo(key=f"{prefix}{day}/R-1/{name}", etag=etag(BODY), day=day, reason="corrupt") for name in names]
        for photo in found:
            for key in (photo.key, f"quarantine/{photo.key}"):
                self.services.objects.put(key, BODY)
        params = {"review_threshold": 0.5, "prefix": prefix, **params}
        run_id = f"{self.run_date}-{prefix}-{days_before}"
        night(self.roles.app, run_id, *found, run_date=self.run_date, params=params)
        rows_changed = "UPDATE refund.photo SET bucket = %s, size_bytes = %s WHERE first_run_id = %s RETURNING key"
        rows(self.roles.app, rows_changed, self.services.objects.bucket, len(BODY), run_id)
        return [photo.key for photo in found]

    def hash_known(self, body: bytes) -> None:
        """As if the night had read this body of every photo."""
        change = "UPDATE refund.photo SET sha256 = %s WHERE first_run_id LIKE %s RETURNING key"
        assert rows(self.roles.app, change, sha256(body).hexdigest(), f"{self.run_date}-%")

    def requeue(self, **over: Any) -> Requeued:
        services = self.services
        if objects := over.pop("objects", None):
            services = replace(services, objects=objects)
        return requeue(**{"reason": "corrupt", "run_date": self.run_date, "services": services, "by": "anna", **over})

    def marked(self) -> list[str]:
        sql = "SELECT key FROM reporting.rejections WHERE requeued_at IS NOT NULL AND run_date = %s ORDER BY key"
        return [key for (key,) in rows(self.roles.app, sql, self.run_date)]


class WatchedStore(ObjectStore):
    """The real bucket, where something else happens when a key is looked at."""

    def __init__(self, objects: ObjectStore, when: Callable[[str], None]) -> None:
        super().__init__(objects.access)
        self.when = when

    def head(self, key: str, *, ask_bucket: bool = True) -> ListedObject | None:
        self.when(key)
        return super().head(key, ask_bucket=ask_bucket)
