"""Makes verdicts for tests: by hand, or many by seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from refund.monitor.accuracy import Verdict


def make_verdict(number: int, truth: str, answer: str, *, score: float = 0.9, **overrides: Any) -> Verdict:
    """The verdict on photograph ``number``; by default its class is known, and right where the category is."""
    values: dict[str, Any] = {
        "photo_sha256": f"{number:064x}",
        "true_category": truth,
        "true_class_id": f"class of {truth}",
        "category": answer,
        "category_score": score,
        "class_id": f"class of {answer}",
        "confidence": score,
    }
    return Verdict(**values | overrides)


def draw_verdicts(
    count: int, *, seed: int = 1, right: float = 0.8, categories: int = 6, scores: str = "uneven"
) -> list[Verdict]:
    """Verdicts of which about ``right`` are right, on categories of unequal size; ``calibrated`` scores tell it."""
    random = np.random.default_rng(seed)
    shares = np.arange(1, categories + 1) / np.arange(1, categories + 1).sum()
    verdicts = []
    for number in range(count):
        truth = int(random.choice(categories, p=shares))
        score = float(random.uniform(0.4, 1.0))
        hit = random.random() < (score if scores == "calibrated" else right)
        answer = truth if hit else (truth + int(random.integers(1, categories))) % categories
        known = {} if number % 5 else {"true_class_id": None}
        verdicts.append(make_verdict(number, f"c{truth}", f"c{answer}", score=score, **known))
    return verdicts
