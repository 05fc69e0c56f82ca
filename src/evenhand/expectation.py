"""What a tilt does to the predicted counts of a model classifier, computed exactly before any training.

The model: K classes, all equally hard to tell apart. A row of class y gives one independent score per class, normal
with variance 1, with mean d for class y and 0 for the others. Its exact posterior is then the softmax of
log pi_c + d x_c, and a classifier trained under the tilt t answers

    argmax_c  log pi_c + t_c + d x_c .

Real classes are not equally hard, and a trained network is not exact; the model says how counts move, not what they
are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from evenhand.declared import Floats, InputError

_NODES_PER_SIGMA = 8
_HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)
_MANY_KINDS = 2000
_GRID = 64  # with more kinds of classes than that, log prior and tilt are rounded to 1/64 nat


@dataclass(frozen=True)
class Expectation:
    """Answers of the model classifier.

    Attributes:
        predicted: (K,) float64, share of the rows answered with class k; sums to 1.
        recall: (K,) float64, share of the rows of class k answered with class k.
        accuracy, balanced_accuracy: sum_k pi_k recall_k, and the mean recall of the classes that have rows.
        separability: d, the mean of a row's own score in standard deviations.
    """

    predicted: Floats
    recall: Floats
    accuracy: float
    balanced_accuracy: float
    separability: float


def expect(prior: Floats, tilt: Floats, separability: float) -> Expectation:
    """Predicted shares and recalls under a tilt, by one integral over the largest score.

    Class c wins at score v if it scores v and all others score less, so with F_k the distribution of class k's score,
    P(predicted = c) is the integral of f_c(v) prod_{k != c} F_k(v), mixed over the true class. The products are sums of
    logarithms shared by all classes: time O(K) per node (about 160 nodes), memory O(K).

    Args:
        prior: (K,) class shares, sum 1; classes with share 0 are neither answered nor recalled.
        tilt: (K,) finite for classes that have rows, in nats.
        separability: d > 0.

    Example:
        >>> import numpy as np
        >>> prior = np.array([0.8, 0.15, 0.05])
        >>> [expect(prior, -tau * np.log(prior), 1.0).predicted.round(2).tolist() for tau in (0, 1, 2)]
        [[0.92, 0.08, 0.01], [0.54, 0.25, 0.21], [0.06, 0.23, 0.71]]
    """
    present = prior > 0
    level = np.stack([np.log(prior[present]), tilt[present]], axis=1)
    if len(np.unique(level, axis=0)) > _MANY_KINDS:
        level = np.round(level * _GRID) / _GRID
    kinds, where, many = np.unique(level, axis=0, return_inverse=True, return_counts=True)
    share = np.bincount(where, weights=prior[present]) / many
    predicted, recall = np.zeros(prior.size), np.zeros(prior.size)
    kind_predicted, kind_recall = _win(kinds.sum(axis=1), share, many.astype(np.float64), separability)
    predicted[present], recall[present] = kind_predicted[where], kind_recall[where]
    predicted /= predicted.sum()
    return Expectation(predicted, recall, float(prior @ recall), float(recall[present].mean()), float(separability))


def separability_for(prior: Floats, accuracy: float) -> float:
    """The d at which the untilted model classifier has this accuracy.

    Raises:
        InputError: accuracy not above the share of the largest class (answering it always), or not below 1.
    """
    largest = float(prior.max())
    if not largest < accuracy < 1:
        raise InputError(
            f"Expected an accuracy above {largest:.4g} (always answering the largest class) and below 1,"
            f" got {accuracy:.4g}; give the accuracy you expect without weights."
        )
    zero = np.zeros(prior.size)

    def excess(log_d: float) -> float:
        return expect(prior, zero, float(np.exp(log_d))).accuracy - accuracy

    low, high = np.log(0.02), np.log(60.0)
    return float(np.exp(low if excess(low) >= 0 else brentq(excess, low, high, xtol=1e-4)))


def _win(level: Floats, share: Floats, many: Floats, d: float) -> tuple[Floats, Floats]:
    """(share of rows answered with it, recall) for each kind of class; `many` classes are of each kind."""
    top = level.max() / d
    nodes = np.arange(top - 9.0, top + d + 9.0, 1.0 / _NODES_PER_SIGMA)
    predicted, recall = np.zeros(level.size), np.zeros(level.size)
    for node in nodes:
        z = node - level / d  # in units of the scores' standard deviation
        below, below_own = log_ndtr(z), log_ndtr(z - d)
        all_below = many @ below
        if all_below < -700.0:
            continue
        own = np.exp(below_own - below)  # F of the true class' own score relative to a stranger's
        density = np.exp(all_below - below - 0.5 * z * z - _HALF_LOG_TWO_PI)
        density_own = np.exp(all_below - below - 0.5 * (z - d) ** 2 - _HALF_LOG_TWO_PI)
        predicted += density * ((many * share) @ own - share * own) + share * density_own
        recall += density_own
    return predicted / _NODES_PER_SIGMA, recall / _NODES_PER_SIGMA
