"""Evaluation data with other class frequencies than the training data: no fault of the model, but it looks like one."""

from __future__ import annotations

from typing import Any

from evenhand.causes import remedies
from evenhand.causes.judging import (
    SOUND,
    beyond_the_line,
    described,
    effective_plan,
    explained,
    material,
    surer,
    tilt_evidence,
)
from evenhand.causes.registry import Verdict, cause
from evenhand.evidence import Evidence


@cause("prior-shift", "EH306", "The evaluation data have other class frequencies than the training data",
       needs_scores=True, explains=("argmax-amplification",))  # fmt: skip
def prior_shift(e: Evidence) -> Verdict | None:
    """The model is right for its training prior; the rows it is judged on have another."""
    shift = e.shift
    if shift is None:
        return _shift_suspected(e)
    if not shift.present or e.fit is None or e.soft_distance is None:
        return None
    tau, low, high = e.tau_judged
    further, _ = beyond_the_line(e, tau)
    if abs(tau) > 0.35 and (low > SOUND or high < -SOUND) and abs(further) > SOUND:
        return None
    # Knowing the difference must help the model beyond chance and by an amount that matters.
    flatter = shift.slope is not None and shift.slope < 0.7  # classes without rows make it steeper, never flatter
    small = not flatter and shift.distance < shift.expected + 0.05 and e.shift_gain < 0.05 * len(e.y)
    enough = 5.0 if flatter and shift.z > 4 else 10.0  # nats; counts that prove the shift leave less to be proven
    if e.shift_gain < max(enough, 0.005 * len(e.y)) or small:
        return None
    sentence = (
        f"The evaluation data have other class frequencies than the training data (total variation "
        f"{shift.distance:.2f}, {shift.expected:.2f} expected by chance), and the model answers for the training ones; "
        f"beyond that it is not tilted ({described(e)}{_timid(e, tau)})."
    )
    evidence: dict[str, Any] = tilt_evidence(e) | {
        "prior_distance": round(shift.distance, 4),
        "distance_by_chance": round(shift.expected, 4),
        "z": round(shift.z, 1),
        "slope_of_evaluation_on_training_counts": None if shift.slope is None else round(shift.slope, 2),
    }
    return Verdict(
        "warning",
        0.9,
        sentence,
        evidence,
        "If the evaluation frequencies are those of use, add log(new prior / training prior) to the logits; if not, "
        "judge the model on rows drawn like those of use.",
        remedies.prior_snippets(),
        "",
    )


def _timid(e: Evidence, tau: float) -> str:
    """Why a tau that is far from zero is none here."""
    return f", which is 1 - beta at beta {e.beta:.2f}: not sure enough of its evidence" if tau < -SOUND else ""


def _shift_suspected(e: Evidence) -> Verdict | None:
    """No training counts, no plan, and a model tilted towards the frequent classes: most often a flatter test set."""
    if e.fit is None or effective_plan(e) is not None or not material(e, *e.tau_judged) or e.fit.tau[0] > 0:
        return None
    return Verdict(
        "warning",
        0.5,
        f"The model answers for class frequencies more uneven than those of these rows ({described(e)}{explained(e)}), "
        "as a model does that was trained on more imbalanced data than it is judged on.",
        tilt_evidence(e),
        "Give the training counts: they tell a shifted prior from weights that act the wrong way round.",
        remedies.prior_snippets(),
        surer(e),
    )
