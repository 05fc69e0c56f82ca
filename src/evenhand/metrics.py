"""Metrics of a classifier from per-class counts: nothing here needs the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.counts import groups
from evenhand.declared import Floats, Ints
from evenhand.tally import Tally


def recall(true: Ints, hits: Ints) -> Floats:
    """(K,) share of right rows per true class, NaN where the class does not occur."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(true > 0, hits / np.maximum(true, 1), np.nan))


def precision(predicted: Ints, hits: Ints) -> Floats:
    """(K,) share of right rows per predicted class, NaN where it is never predicted."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(predicted > 0, hits / np.maximum(predicted, 1), np.nan))


def balanced_accuracy(true: Ints, hits: Ints) -> float:
    """Mean recall over the classes that occur."""
    return float(np.nanmean(recall(true, hits)))


def macro_f1(true: Ints, predicted: Ints, hits: Ints) -> float:
    """Mean of ``2 hits / (true + predicted)`` over classes that occur or are predicted, as scikit-learn has it."""
    total = true + predicted
    present = total > 0
    return float((2 * hits[present] / total[present]).mean())


def count_distance(true: Ints | Floats, predicted: Ints | Floats) -> float:
    """Total variation between two count vectors of the same rows, in [0, 1]."""
    return float(np.abs(true - predicted).sum() / (2 * max(float(true.sum()), 1.0)))


def calibration_error(bins: Floats) -> float:
    """Expected calibration error over equal-width bins of (rows, summed confidence, right rows).

    Source: Naeini et al. (2015), https://doi.org/10.1609/aaai.v29i1.9602.
    """
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / max(float(bins[:, 0].sum()), 1.0))


def metrics(t: Tally, prior_counts: Floats) -> dict[str, Any]:
    """Everything of the audit's block ``metrics``; nll and ece are None for labels only."""
    scored = t.soft is not None
    possible = t.rows - t.impossible
    return {
        "accuracy": float(t.hits.sum() / t.rows),
        "balanced_accuracy": balanced_accuracy(t.true, t.hits),
        "macro_f1": macro_f1(t.true, t.predicted, t.hits),
        "nll": t.nll / possible if scored and possible else None,
        "impossible_rows": t.impossible,
        "ece": calibration_error(t.bins) if scored else None,
        "groups": {name: group_metrics(t, members) for name, members in prior_groups(prior_counts).items()},
    }


def prior_groups(prior_counts: Floats) -> dict[str, Ints]:
    """Head, medium and tail by training frequency; smoothed counts may be fractions, only their order matters."""
    scaled = np.rint(prior_counts * (1e9 / max(float(prior_counts.max()), 1e-300))).astype(np.int64)
    return groups(scaled)


def group_metrics(t: Tally, members: Ints) -> dict[str, Any]:
    """Accuracy and counts of one group of classes."""
    rows = int(t.true[members].sum())
    return {
        "classes": len(members),
        "rows": rows,
        "accuracy": float(t.hits[members].sum() / rows) if rows else None,
        "balanced_accuracy": balanced_accuracy(t.true[members], t.hits[members]) if rows else None,
        "predicted": int(t.predicted[members].sum()),
        "expected": None if t.soft is None else float(t.soft[members].sum()),
    }
