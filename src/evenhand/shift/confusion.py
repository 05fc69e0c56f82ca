"""The prior of new rows from their predicted labels alone: the confusion equations, sparse and regularised.

With C_jc the share of labelled rows of class c that are predicted as j, and mu_j the share of new rows predicted as j,
a shift of the prior alone gives ``mu = C w`` with ``w_c = q_c / pi_c``. It uses less of the rows than the likelihood
does, and other assumptions of the model: where the two disagree, more than the prior has changed.

Sources: Lipton et al., "Detecting and correcting for label shift with black box predictors" (2018),
https://arxiv.org/abs/1802.03916; Azizzadenesheli et al., "Regularized learning for domain adaptation under label
shifts" (2019), https://arxiv.org/abs/1903.09734.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import lsmr

from evenhand.declared import Floats, Ints
from evenhand.shift.likelihood import row_blocks
from evenhand.tilt import map_blocks

ITERATIONS = 200
DRAWS = 199
MATERIAL = 0.02  # a smaller distance between predicted counts is not worth a warning


@dataclass(frozen=True)
class Confusion:
    """Labelled rows by predicted and true class, sparse. Attributes: counts: (K, K) csr of row counts. rows: N."""

    counts: csr_array
    rows: int


@dataclass(frozen=True)
class CrossCheck:
    """What the predicted labels say of the same shift.

    Attributes:
        prior: (K,) estimate from the confusion equations. distance: total variation between the predicted counts of the
            new rows and those that the likelihood estimate leads one to expect. expected: its mean by chance alone.
        limit: what chance exceeds in 1 % of the cases. agrees: distance below the limit, or too small to matter.
    """

    prior: Floats
    distance: float
    expected: float
    limit: float
    agrees: bool


def count_pairs(target: Ints, predicted: Ints, classes: int) -> Confusion:
    """Count the pairs; one entry per pair that occurs.

    Example:
        >>> import numpy as np
        >>> count_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).counts.toarray().astype(int).tolist()
        [[1, 0], [1, 1]]
    """
    ones = np.ones(len(target))
    return Confusion(csr_array((ones, (predicted, target)), shape=(classes, classes)), len(target))


def predicted_labels(p: NDArray[np.floating[Any]], threads: int = 1) -> Ints:
    """(n,) class of the largest score or posterior."""
    return np.concatenate(map_blocks(lambda rows: p[rows].argmax(axis=1), row_blocks(p.shape), threads))


def confusion_estimate(table: Confusion, predicted: Floats, prior: Floats, *, strength: float) -> Floats:
    """(K,) prior of the new rows: least squares with a ridge towards "no shift".

    ``min_t n_eff sum_j (mu_j - mu0_j - (C t)_j)^2 / mu0_j + strength sum_c pi_c t_c^2``, w = 1 + t, by LSMR: memory
    grows with the pairs that occur, not with K^2.

    Args:
        table: labelled rows. predicted: (K,) predicted counts of the new rows. prior: (K,) pi. strength: rows that "no
            shift" counts for, the same scale as the Dirichlet prior of the likelihood.
    """
    rows = predicted.sum()
    n_eff = 1 / (1 / rows + 1 / table.rows)
    joint = table.counts / table.rows
    before = np.asarray(joint.sum(axis=1)).ravel()
    shares = np.maximum(np.asarray(joint.sum(axis=0)).ravel(), 0.5 / table.rows)
    left = np.sqrt(n_eff / (before + 1.0 / n_eff))
    right = 1.0 / np.sqrt(shares)
    scaled = diags_array(left) @ joint @ diags_array(right)
    strength = min(strength, 1e12)
    x = lsmr(scaled, left * (predicted / rows - before), damp=strength**0.5, atol=1e-8, btol=1e-8, maxiter=ITERATIONS)[
        0
    ]
    w = np.maximum(1.0 + right * x, 0.0)
    q = prior * w
    return np.asarray(q / q.sum())


def cross_check(
    table: Confusion, predicted: Floats, prior: Floats, q: Floats, *, strength: float, rng: np.random.Generator
) -> CrossCheck:
    """Compare the predicted counts of the new rows with those that `q` and the confusion table lead one to expect.

    The noise of both counts is simulated: ``mu_j / n`` from the new rows and ``sum_c C_jc w_c^2 / N`` from the
    table, with mu_j the share in both.
    """
    rows = predicted.sum()
    w = np.where(prior > 0, q / np.maximum(prior, 1e-300), 0.0)
    joint = table.counts / table.rows
    foretold = joint @ w
    foretold = foretold / foretold.sum()
    # A label that one side never shows has no variance there: the shares of both sides together stand for it.
    pooled = (predicted + table.rows * foretold) / (rows + table.rows)
    variance = pooled / rows + np.maximum(joint @ w**2, pooled) / table.rows
    noise = np.abs(rng.standard_normal((DRAWS, len(prior)))) @ np.sqrt(variance) / 2
    distance = 0.5 * float(np.abs(predicted / rows - foretold).sum())
    limit = float(np.quantile(noise, 0.99))
    return CrossCheck(
        prior=confusion_estimate(table, predicted, prior, strength=strength),
        distance=distance,
        expected=float(noise.mean()),
        limit=limit,
        agrees=distance <= max(limit, MATERIAL),
    )
