"""Shows photos of the bucket: decoded in isolation and encoded anew, for a short while, to whoever was let in."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from refund.night.services import Services


class Pictures:
    """Decodes and keeps the pictures asked for last."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
