"""What one run of ``refund_model`` can be told to do: the record behind its trigger form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from refund.errors import SettingsError
from refund.params import Params

# What each action needs beside its defaults.
ACTIONS: Mapping[str, tuple[str, ...]] = {
    "verify": (),
    "list": (),
    "show": (),
    "diff": ("model",),
    "history": (),
    "build": (),
    "import": ("source",),
    "evaluate": ("model", "labels"),
    "promote": ("model", "reason"),
    "rollback": ("reason",),
    "retire": ("model", "reason"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParams(Params):
    """The parameters of one run of ``refund_model``; an empty form checks every registered model and changes nothing.

    Raises:
        SettingsError: a value is out of its range, or the action needs one that is not given.
    """

    action: str = field(
        default="verify",
        metadata={
            "help": "What to do. verify: check every file in S3 and load it. list, show, diff, history: look; the "
            "answer is in the log and the XCom. build, import: register a candidate. "
            "evaluate: measure it on labelled photographs. promote, rollback: change what an alias means. "
            "retire: let nothing use it any more.",
            "choices": tuple(ACTIONS),
        },
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "An alias or name@version, for evaluate, promote, retire, diff, show (empty: what the alias means) "
            "and verify (empty: all)."
        },
    )
    other: str | None = field(
        default=None, metadata={"help": "For diff: the model to compare with. Empty: what the alias means."}
    )
    alias: str = field(
        default="champion",
        metadata={
            "help": "For promote, rollback, history, show and diff: which alias.",
            "choices": ("champion", "challenger"),
        },
    )
    reason: str | None = field(
        default=None, metadata={"help": "For promote, rollback and retire: why; the history keeps it."}
    )
    override: bool = field(
        default=False, metadata={"help": "For promote: go through the gate all the same; the reason says why."}
    )
    labels: str | None = field(
        default=None,
        metadata={"help": "For evaluate: the labelled photographs, a CSV, a folder or s3://bucket/prefix/."},
    )
    threshold: float = field(
        default=0.5,
        metadata={"help": "For evaluate: category score below which a photo goes to review.", "min": 0.0, "max": 1.0},
    )
    source: str | None = field(
        default=None,
        metadata={"help": "For import: a folder or s3://bucket/prefix/ with card.json and its LiteRT artefact."},
    )
    weights: str | None = field(
        default=None,
        metadata={"help": "For build: Keras weights (.h5), a path or s3://bucket/key. Empty: REFUND_WEIGHTS, Keras."},
    )
    alpha: float = field(
        default=1.0,
        metadata={"help": "For build: width of the network.", "choices": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)},
    )
    input_px: int = field(
        default=224, metadata={"help": "For build: side of its input, pixels.", "choices": (96, 128, 160, 192, 224)}
    )
    calibrate: str | None = field(
        default=None,
        metadata={"help": "For build: photographs to quantise by, a folder or s3://bucket/prefix/. Empty: no int8."},
    )

    packaged: bool = field(
        default=False,
        metadata={"help": "For build: take the packaged EfficientNet-Lite0, whatever REFUND_WEIGHTS says."},
    )

    def __post_init__(self) -> None:
        Params.__post_init__(self)  # super() does not work in a slotted dataclass
        for name in ACTIONS[self.action]:
            if not getattr(self, name):
                msg = f"{self.action} needs {name}, which is empty; give it: {name}=…"
                raise SettingsError(msg)
        if self.packaged:
            check_packaged(weights=self.weights, alpha=self.alpha, input_px=self.input_px, calibrate=self.calibrate)


def check_packaged(*, weights: str | None, alpha: float, input_px: int, calibrate: str | None) -> None:
    """Refuse what has no meaning for the packaged network, which is int8 and of one size as it comes.

    Raises:
        SettingsError: one of these is not as it is by default; the text names it.
    """
    others = {
        "weights": bool(weights),
        "alpha": alpha != 1.0,
        "input_px": input_px != 224,
        "calibrate": bool(calibrate),
    }
    given = [name for name, is_given in others.items() if is_given]
    if given:
        msg = (
            f"packaged takes EfficientNet-Lite0 as it comes, so it cannot go with {' and '.join(given)}; leave out "
            f"packaged, or {'that' if len(given) == 1 else 'those'}"
        )
        raise SettingsError(msg)
