"""Which MobileNetV2 is meant: its width and the side of its input, of those that Keras publishes weights for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refund.errors import SettingsError

NAME = "mobilenet_v2"
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)  # width of every layer, as a share of the network as published
INPUT_SIZES_PX = (96, 128, 160, 192, 224)
_WIDE_PX = 224  # the only size that its authors trained networks wider than 1.0 at


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """MobileNetV2 of one width (``alpha``) and input side.

    Raises:
        ValueError: there is no such network.
    """

    alpha: float = 1.0
    input_px: int = 224

    def __post_init__(self) -> None:
        if self.alpha not in ALPHAS:
            msg = f"alpha must be {_one_of(ALPHAS)}, got {self.alpha!r}"
            raise ValueError(msg)
        if self.input_px not in INPUT_SIZES_PX:
            msg = f"the input's side must be {_one_of(INPUT_SIZES_PX)} px, got {self.input_px!r}"
            raise ValueError(msg)

    @property
    def label(self) -> str:
        """Width and side as versions and Keras's file names have them: ``1.0_224``."""
        return f"{float(self.alpha)}_{self.input_px}"

    @property
    def weights_file(self) -> str:
        """The name of Keras's own file for it."""
        return f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{self.label}.h5"

    @property
    def is_published(self) -> bool:
        """Whether there are weights of this width trained at this size; a file of one's own may be any that is named.

        Keras offers what the authors trained, 22 networks: the widths up to 1.0 at every size, 1.3 and 1.4 at 224 px
        (table in tensorflow/models, research/slim/nets/mobilenet). Its code refuses no size of 1.3 and 1.4, but asks
        its server for a file that was never made.
        """
        return self.alpha <= 1.0 or self.input_px == _WIDE_PX

    @property
    def help(self) -> str:
        """What its weights must be, for errors."""
        side = self.input_px
        return (
            f"expected Keras weights of MobileNetV2 (alpha {float(self.alpha)}, {side}x{side}, 1,000 classes) in an "
            f".h5 file"
        )


def named_network(*, alpha: float, input_px: int) -> Network:
    """The network that a person named.

    Raises:
        SettingsError: there is no such network.
    """
    try:
        return Network(alpha=alpha, input_px=input_px)
    except ValueError as exc:
        msg = f"there is no such MobileNetV2: {exc}; correct --alpha and --input-px"
        raise SettingsError(msg) from exc


def alpha_of(*, first: int, second: int) -> float | None:
    """The alpha of a network by the output channels of two layers, ``Conv1`` and ``block_1_project``; None for no such.

    Two, because 0.35 and 0.5 have the same first layer.
    """
    return next((alpha for alpha in ALPHAS if (first, second) == (_channels(32 * alpha), _channels(24 * alpha))), None)


def _channels(wanted: float) -> int:
    """Channels of a layer: a multiple of 8, never more than a tenth below what is wanted, as Keras makes them."""
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def _one_of(values: Sequence[object]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
