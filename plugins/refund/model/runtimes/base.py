"""What every way to run a network offers, and the arithmetic they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Runtime(Protocol):
    """One loaded network; not thread-safe, so every thread has its own."""

    @property
    def class_count(self) -> int:
        """How many scores the network gives per photo."""

    def predict(self, pixels: NDArray[np.uint8], spent_s: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Probabilities ``(N, C)``, each row adding up to 1, for RGB pixels ``(N, H, W, 3)``.

        Where ``spent_s``, ``(N,)``, is given, the seconds that each photo took are written there.
        """

    def close(self) -> None:
        """Give back memory and processes; a second call does nothing."""


def to_probabilities(scores: NDArray[np.float32], *, output: str) -> NDArray[np.float32]:
    """Softmax of ``logits``; ``probabilities`` are only scaled so that each row adds up to 1.

    Quantised probabilities come in steps of 1/256 and miss 1 by a few hundredths; what is below half a step comes as 0.
    A photo that looks like no class at all, such as one plain grey, is given 0 for all 1,000 by the packaged network.
    Each class then gets the same probability, and the photo goes to review, as most classes are of no product: one
    photo must not stop its shard. Values that are not finite stay so, for `refund.model.decide` to name the row.
    """
    import numpy as np

    wide = scores.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # what is not finite is refused later
        if output == "logits":
            wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        else:
            wide[~wide.any(axis=1)] = 1.0  # NaN counts as any
        scaled: NDArray[np.float32] = (wide / wide.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled
