"""What `refund_model` can be told: everything that its actions need, and nothing that they would refuse."""

from __future__ import annotations

import pytest

from refund.errors import SettingsError
from refund.lifecycle import actions
from refund.model.network import ALPHAS, INPUT_SIZES_PX
from refund.model_params import ACTIONS, ModelParams
from refund.params import NightParams
from refund.store.aliases import ALIASES


def test_an_empty_form_only_looks() -> None:
    assert ModelParams.from_mapping({}).action == "verify"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"action": "explode"},
            "action must be one of verify, list, show, diff, history, build, import, evaluate, promote, rollback, "
            "retire, got 'explode'",
        ),
        ({"alias": "best"}, "alias must be one of champion, challenger, got 'best'"),
        ({"input_px": 200}, "input_px must be one of 96, 128, 160, 192, 224, got 200"),
        ({"threshold": 2}, "threshold must lie in 0.0..1.0, got 2.0"),
        ({"model": 7}, "model must be of type str, got 7"),
        ({"action": "promote", "model": "net@1"}, "promote needs reason, which is empty; give it: reason=…"),
        ({"action": "promote", "model": " ", "reason": "x"}, "promote needs model, which is empty; give it: model=…"),
        ({"action": "rollback", "reason": ""}, "rollback needs reason, which is empty; give it: reason=…"),
        ({"action": "evaluate", "model": "net@1"}, "evaluate needs labels, which is empty; give it: labels=…"),
        (
            {"action": "build", "packaged": True, "alpha": 0.5},
            "packaged takes EfficientNet-Lite0 as it comes, so it cannot go with alpha; leave out packaged, or that",
        ),
        (
            {"action": "build", "packaged": True, "weights": "w.h5", "input_px": 96, "calibrate": "photos/"},
            "packaged takes EfficientNet-Lite0 as it comes, so it cannot go with weights and input_px and calibrate; "
            "leave out packaged, or those",
        ),
        ({"action": "diff"}, "diff needs model, which is empty; give it: model=…"),
        ({"action": "import"}, "import needs source, which is empty; give it: source=…"),
    ],
)
def test_bad_values_are_refused_in_words(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ModelParams.from_mapping(values)
    assert str(caught.value).startswith(text)


def test_the_choices_are_those_of_the_code_behind_them() -> None:
    choices = {entry["name"]: entry.get("choices") for entry in ModelParams.describe()}
    assert (choices["alpha"], choices["input_px"], choices["alias"]) == (ALPHAS, INPUT_SIZES_PX, ALIASES)
    assert ModelParams().threshold == NightParams().review_threshold
    assert list(actions.ACTS) == list(ACTIONS)


def test_the_form_describes_every_field() -> None:
    assert all(entry["help"] for entry in ModelParams.describe())
