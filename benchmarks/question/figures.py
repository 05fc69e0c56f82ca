"""Figures of one set of predictions, for a test with the natural and one with equal class frequencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.question.data import Floats, Ints
from evenhand.counts import groups, log_prior
from evenhand.declared import InputError
from evenhand.metrics import balanced_accuracy, calibration_error, count_distance, macro_f1
from evenhand.regression import count_slope
from evenhand.tilt import fit_tilt

TILT_ROWS = 3_000
BINS = 15


def row_weights(labels: Ints, wanted: Floats) -> Floats:
    """(N,) weights under which the classes that have rows occur as `wanted` (K,); their mean is 1.

    A balanced test cut from few rows per class would throw most rows away; weighting the rows uses them all.
    """
    rows = np.bincount(labels, minlength=len(wanted))
    share = np.where(rows > 0, wanted, 0.0)
    return (share / share.sum() / np.maximum(rows, 1))[labels] * len(labels)


def decided(predicted: Ints, labels: Ints, weight: Floats, counts: Ints) -> dict[str, float]:
    """Figures that need only the decisions."""
    k = len(counts)
    true = np.bincount(labels, weight, minlength=k)
    answered = np.bincount(predicted, weight, minlength=k)
    hits = np.bincount(labels, weight * (predicted == labels), minlength=k)
    occur = true > 0
    slope = count_slope(answered[occur], np.log(true[occur]))
    return {
        "accuracy": float(hits.sum() / true.sum()),
        "balanced accuracy": balanced_accuracy(true, hits),
        "macro F1": macro_f1(true, answered, hits),
        "count distance": count_distance(true, answered),
        "never predicted": float((occur & (answered == 0)).sum()),
        "slope": float("nan") if slope is None else slope.slope,
    }


def recalls(predicted: Ints, labels: Ints, counts: Ints) -> dict[str, float]:
    """Mean recall of head, medium and tail, over their classes that have test rows."""
    true = np.bincount(labels, minlength=len(counts))
    hits = np.bincount(labels, predicted == labels, minlength=len(counts))
    return {
        name: balanced_accuracy(true[members], hits[members]) if true[members].any() else float("nan")
        for name, members in groups(counts).items()
    }


def probabilistic(scores: NDArray[np.float32], labels: Ints, weight: Floats) -> dict[str, float]:
    """Mean negative log-likelihood and expected calibration error of softmax(scores)."""
    z = scores - scores.max(axis=1, keepdims=True)
    total = np.exp(z).sum(axis=1)
    sure = 1 / total
    right = scores.argmax(axis=1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    sums = [np.bincount(bins, weight * v, minlength=BINS) for v in (np.ones(len(sure)), sure, right)]
    loss = np.log(total) - z[np.arange(len(z)), labels]
    return {"nll": float(np.average(loss, weights=weight)), "ece": calibration_error(np.stack(sums, axis=1))}


def tilt(scores: NDArray[np.float32], labels: Ints, counts: Ints, known: Floats) -> dict[str, float]:
    """tau and beta of evenhand's tilt; `known` is log(evaluation prior / training prior)."""
    rows = slice(0, TILT_ROWS)
    try:
        fit = fit_tilt(scores[rows], labels[rows], log_prior(counts), offset=known)
    except InputError:  # equal frequencies: no direction to measure along
        return {"tau": float("nan"), "beta": float("nan")}
    return {"tau": float(fit.tau[0]), "beta": float(fit.beta)}


def evaluations(labels: Ints, counts: Ints, *, balanced_evaluation: bool) -> dict[str, Floats]:
    """(N,) row weights of the natural and the balanced test; rows count once each where the test already is so."""
    even, prior = np.ones(len(counts)), counts.astype(float)
    natural = row_weights(labels, prior) if balanced_evaluation else np.ones(len(labels))
    return {"natural": natural, "balanced": row_weights(labels, even)}
