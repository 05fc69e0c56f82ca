"""What several tilt causes advise: words that depend on the numbers, apart from the rules that find the cause."""

from __future__ import annotations

import numpy as np

from evenhand.causes import remedies
from evenhand.evidence import Evidence


def rates_of_rows(e: Evidence) -> list[str]:
    """A word of doubt where the rates of the sampler are 1 / count: torch's sampler takes such weights, one per row."""
    rate, counts = e.declared.sampler_rate, e.declared.train_counts
    if rate is None or counts is None:
        return []
    drawn = (rate > 0) & (counts > 0)
    product = np.log(rate[drawn] * counts[drawn])
    if not drawn.any() or np.ptp(np.log(counts[drawn])) < 0.1 or np.ptp(product) > 1e-3:
        return []
    return [
        "The sampler rates given are 1 / class count; how often each class is drawn was expected. If they are the "
        "weights of single rows, as WeightedRandomSampler takes them, the sampler is balanced: give that instead."
    ]


def remedy_for_part(tau: float) -> tuple[str, dict[str, str]]:
    """What to do, and the code for it where there is a tilt to speak of."""
    if abs(tau) < 0.1:
        said = (
            "There is no tilt to correct: the model answers as if trained without weights or sampler. If they were meant "
            "to act, find out why they did not; the effect of balanced weights can be had without retraining by evenhand "
            "fix with the goal balanced-accuracy."
        )
        return said, {}
    said = (
        f"Whoever corrects this model should go by the measured tilt ({tau:.2f} * log prior), not by what was declared; "
        "the measured effect of the correction says whether it pays."
    )
    return said, remedies.offset_snippets(tau)
