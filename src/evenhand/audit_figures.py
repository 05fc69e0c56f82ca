"""The figures of an audit: count pattern, tilt, effect of the fix, per-class table, most lopsided pairs, scalars."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand import metrics
from evenhand.correction import crossfit_effect
from evenhand.declared import Floats, Ints
from evenhand.evidence import Evidence
from evenhand.findings import Finding
from evenhand.homogeneity import benjamini_hochberg, count_noise, mcnemar
from evenhand.scanning import workers
from evenhand.tally import Tally

FEW_ROWS = 6  # a class never predicted is noticed from about this many rows on


def pattern(e: Evidence) -> dict[str, Any]:
    """How predicted counts follow true ones: mirrored, flattened, proportional or amplified."""
    fit = e.pattern
    slope = None if fit is None else fit.slope
    return {
        "name": _pattern_name(e, slope),
        "slope": slope,
        "slope_interval": None if fit is None else list(fit.interval),
        "spearman": e.spearman,
    }


def _pattern_name(e: Evidence, slope: float | None) -> str:
    slope = _slope_of_two(e) if slope is None else slope
    if slope is None or e.hard_distance < max(0.02, 1.5 * e.noise):
        return "proportional"
    for limit, name in ((-0.15, "mirrored"), (0.75, "flattened"), (1.1, "proportional")):
        if slope < limit:
            return name
    return "amplified"


def _slope_of_two(e: Evidence) -> float | None:
    """With two classes a line has no error to measure, but a direction; half a row more keeps logarithms finite."""
    seen = e.tally.true > 0
    true, predicted = e.tally.true[seen], e.tally.predicted[seen] + 0.5
    if len(true) != 2 or abs(np.log(true[1] / true[0])) < 0.05:
        return None
    return float(np.log(predicted[1] / predicted[0]) / np.log(true[1] / true[0]))


def tilt(e: Evidence) -> dict[str, Any] | None:
    """The tilt block: estimates with 95 % intervals, and the same along the declared plan."""
    if e.fit is None:
        return None
    declared = None
    if e.plan is not None and e.plan_fit is not None:
        declared = {
            "tau": float(e.plan_fit.tau[0]),
            "tau_interval": e.plan_fit.tau_interval[0].tolist(),
            "correlation": e.correlation(e.plan.direction),
            "expected_tau": e.plan.tau,
            "weight_tau": e.plan.weight_tau,
            "sampler_tau": e.plan.sampler_tau,
        }
    return {
        "tau": float(e.fit.tau[0]),
        "tau_interval": e.fit.tau_interval[0].tolist(),
        "beta": e.fit.beta,
        "beta_interval": list(e.fit.beta_interval),
        "share": e.share,
        "rows_used": e.fit.rows,
        "score_z": e.fit.score.z,
        "training_counts_given": e.train_given,
        "prior_shift": None if e.shift is None else e.shift.present,
        "declared": declared,
    }


def fix(e: Evidence, goal: str, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """What the one-parameter correction would bring, cross-fitted on the row sample."""
    nothing: dict[str, Any] = {
        "goal": goal, "offsets_file": None, "before": None, "after": None, "after_interval": None,
        "recommended": False,
    }  # fmt: skip
    if e.fit is None:
        why = "labels alone cannot be corrected; give logits or probabilities" if not e.scored else (
            "there are too few rows, or no difference in class frequency, to fit a correction"
        )  # fmt: skip
        return nothing | {"why": why}
    theta = np.concatenate([[e.fit.beta], e.fit.tau])
    prior = e.log_prior + e.offset  # of the evaluation data
    effect = crossfit_effect(e.z, e.y, parts=e.parts(), goal=goal, start=theta, log_prior=prior, threads=e.threads)
    blocked = [f for f in findings if f.cause in ("permuted-labels", "misaligned-rows", "batch-softmax", "collapsed")]
    if blocked:
        effect |= {"recommended": False, "why": f"mend the cause first ({blocked[0].cause}): offsets cannot repair it"}
    return nothing | effect


def table(e: Evidence) -> dict[str, Any]:
    """Per-class columns, with an exact test per class under false-discovery control."""
    t = e.tally
    errors = e.false_positive + e.false_negative
    enough = errors >= FEW_ROWS  # fewer errors could not reach p < 0.05 whatever their direction
    q = benjamini_hochberg(mcnemar(e.false_positive, e.false_negative), enough)
    band = 1.96 * count_noise(e.false_positive, e.false_negative)
    names = t.declared.class_names or tuple(str(c) for c in range(e.classes))
    soft = t.soft
    return {
        "class": np.arange(e.classes),
        "name": names,
        "true": t.true,
        "predicted": t.predicted,
        "expected": soft,
        "recall": metrics.recall(t.true, t.hits),
        "precision": metrics.precision(t.predicted, t.hits),
        "interval_low": np.maximum(t.true - band, 0),
        "interval_high": t.true + band,
        "decision": None if soft is None else t.predicted - soft,
        "calibration": None if soft is None else soft - t.true,
        "q_value": q,
        "verdict": _verdicts(t.true, t.predicted, q, enough),
    }


def _verdicts(true: Ints, predicted: Ints, q: Floats, enough: NDArray[np.bool_]) -> list[str]:
    result = np.full(len(true), "as often as true", dtype=object)
    result[(q < 0.05) & (predicted > true)] = "too often"
    result[(q < 0.05) & (predicted < true)] = "too rarely"
    result[(q < 0.05) & (predicted == 0)] = "never"
    result[~enough & (true != predicted)] = "too few rows to judge"
    result[(true == 0) & (predicted == 0)] = "absent"
    return [str(v) for v in result]


def worst_pairs(e: Evidence, limit: int = 50) -> list[dict[str, Any]]:
    """The most lopsided pairs of classes."""
    pairs = e.pairs
    order = np.lexsort((pairs["true"], pairs["back"] - pairs["rows"]))[:limit]
    return [
        {
            "true": int(pairs["true"][i]),
            "predicted": int(pairs["predicted"][i]),
            "rows": int(pairs["rows"][i]),
            "back": int(pairs["back"][i]),
            "q_value": float(pairs["q_value"][i]),
        }
        for i in order
    ]


def scalars(e: Evidence, prefix: str = "") -> dict[str, float]:
    """Flat numbers, each with `prefix` before its name; what is unknown is left out.

    `accuracy`, `balanced_accuracy`, `macro_f1`, `nll`, `ece`; `accuracy_head`, `accuracy_medium`, `accuracy_tail`;
    `count_distance` between predicted and true counts, in [0, 1]; `slope` of log predicted on log true counts; `tau`
    with its 95 % interval `tau_low`, `tau_high`, and `beta`.
    """
    m = metrics.metrics(e.tally, e.prior_counts)
    flat = {name: m[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")}
    flat |= {f"accuracy_{name}": group["accuracy"] for name, group in m["groups"].items()}
    flat |= {"count_distance": e.hard_distance, "slope": pattern(e)["slope"]}
    if e.fit is not None:
        low, high = e.fit.tau_interval[0].tolist()
        flat |= {"tau": float(e.fit.tau[0]), "tau_low": low, "tau_high": high, "beta": e.fit.beta}
    return {f"{prefix}{name}": float(value) for name, value in flat.items() if value is not None}


def tally_scalars(tally: Tally, prefix: str = "") -> dict[str, float]:
    """`scalars` of a tally: its metrics and one likelihood fit, a fraction of the time of an audit."""
    return scalars(Evidence(tally, None, workers()), prefix)
