"""Log priors for the tilt: from training counts, or from evaluation counts that stand in; how far the two differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evenhand.declared import Floats, Ints
from evenhand.regression import count_slope

SMOOTHING = 0.5  # rows added to every class, so that an absent class has a finite log prior (Jeffreys)
FOLDS = 5


def smoothed_log_prior(counts: Floats | Ints, smoothing: float = SMOOTHING) -> Floats:
    """``log((n_c + smoothing) / (N + K smoothing))``, finite for absent classes."""
    n = np.asarray(counts, dtype=np.float64) + smoothing
    return np.asarray(np.log(n / n.sum()))


@dataclass(frozen=True)
class Shift:
    """Difference of the evaluation prior from the training prior.

    Attributes:
        offset: (K,) estimate of log(evaluation prior / training prior), zero unless `present`.
        present: differs beyond sampling noise and by a size that matters.
        distance: total variation between the two count vectors, in [0, 1]; expected: its mean if both came from one
            prior; z: standardised distance. slope: of evaluation counts on training counts, None if undefined.
    """

    offset: Floats
    present: bool
    distance: float
    expected: float
    z: float
    slope: float | None


def prior_shift(eval_counts: Ints, train_counts: Floats, *, draws: int = 60, seed: int = 0) -> Shift:
    """Compare evaluation with training counts; where they differ beyond noise, estimate the log ratio of the priors.

    The test compares the total variation distance of the two count vectors with that of `draws` pairs drawn from
    their pooled prior: chi-square tables are wrong where most classes hold a handful of rows. The log ratio follows
    the trend over log frequency, and each class leaves the trend as far as its own rows allow (gamma-Poisson
    shrinkage): the raw ratio of a class with two rows would be noise, and would be fitted as tilt.

    Example:
        >>> import numpy as np
        >>> train = np.array([9000.0, 900.0, 100.0])
        >>> prior_shift(np.array([905, 86, 9]), train).present
        False
        >>> prior_shift(np.array([300, 300, 300]), train).present
        True
    """
    n, m = eval_counts.astype(np.float64), train_counts.astype(np.float64)
    rows, train_rows = int(n.sum()), max(round(m.sum()), 1)  # counts need not be whole
    distance = _distance(n / rows, m / train_rows)
    pooled = (n + m) / (n + m).sum()
    rng = np.random.default_rng(seed)
    null = np.array(
        [_distance(rng.multinomial(rows, pooled) / rows, rng.multinomial(train_rows, pooled) / train_rows)
         for _ in range(draws)]
    )  # fmt: skip
    z = float((distance - null.mean()) / max(float(null.std(ddof=1)), 1e-12))
    expected = rows * (m + SMOOTHING) / (m + SMOOTHING).sum()
    trend = count_slope(n, np.log(expected))
    # Few rows per class hide a smooth change from the distance, but not from the slope on log frequency.
    bent = trend is not None and abs(trend.slope - 1) > max(0.1, 2.2 * (trend.interval[1] - trend.slope))
    # Nor do absent classes show in it where a class has a row or none, but in sum (n - m)^2 - n, which is 0 by chance;
    # the class that adds most to it is left out, so that not one class decides.
    excess = (n - expected) ** 2 - n - expected**2 / np.maximum(m, 1.0)
    left = float(excess.sum() - excess.max())
    sparse = left > 6 * float(np.sqrt(2 * ((rows * pooled) ** 2).sum())) and left > 0.1 * float((expected**2).sum())
    present = bent or sparse or (z > 4 and distance > max(0.02, 1.1 * float(null.max())))
    offset = _shrunken_log_ratio(n, expected, None if trend is None else trend.fitted) if present else np.zeros(len(n))
    return Shift(offset, present, distance, float(null.mean()), z, None if trend is None else trend.slope)


def _distance(p: Floats, q: Floats) -> float:
    return 0.5 * float(np.abs(p - q).sum())


def _shrunken_log_ratio(n: Floats, expected: Floats, trend: Floats | None) -> Floats:
    mean = np.full(len(n), n.mean()) if trend is None else trend * (n.sum() / trend.sum())
    if trend is None:  # equal training frequencies: shrink towards them, not towards equal evaluation frequencies
        mean = expected
    weight = 1.0 / np.maximum(mean, 1.0) ** 2
    dispersion = float((weight * ((n - mean) ** 2 - mean)).sum() / (weight * mean**2).sum())
    strength = 1.0 / max(dispersion, 1e-3)  # prior rows per class that the trend counts for
    ratio = (n + strength) / (mean + strength)
    offset: Floats = np.log(mean / expected * ratio)
    return offset - float(np.average(offset, weights=expected))


def fold_log_priors(counts: Ints, target: Ints, folds: int = FOLDS) -> list[tuple[slice, Floats]]:
    """Cross-fitted stand-in priors: rows of each fold get the log prior of all rows but theirs.

    Without training counts the evaluation counts stand in. Counting a row's own label into the prior that judges it
    makes tau come out too large (by about K / (N Var(log pi)): 0.25 at 2,000 rows of 500 classes).

    Args:
        counts: (K,) over all rows. target: (n,) labels of the row sample, in random order.

    Returns:
        (rows, log prior (K,)) per fold; the slices cover the sample.
    """
    edges = np.linspace(0, len(target), folds + 1).astype(int)
    parts = []
    for start, stop in pairwise(edges):
        if stop > start:
            own = np.bincount(target[start:stop], minlength=len(counts))
            parts.append((slice(int(start), int(stop)), smoothed_log_prior(counts - own)))
    return parts


def counts_by_weight(counts: Floats, weight: Floats) -> Floats | None:
    """(K,) smooth stand-in counts: the trend of sampled counts over declared weights; None if there is none.

    With few rows per class the sampled counts are mostly noise; weights that were made from the training counts know
    the frequencies better, up to a power that the regression finds.

    Args:
        counts: (K,) of the evaluation rows. weight: (K,) as declared.
    """
    rows = counts.sum()
    if rows > 50 * len(counts) or not (np.isfinite(weight) & (weight > 0)).all():
        return None
    trend = count_slope(counts, -np.log(weight))
    if trend is None or trend.dispersion > 0.3:
        return None
    error = (trend.interval[1] - trend.slope) / 1.96
    if abs(trend.slope) < 4 * error:
        return None
    # Training counts of rare classes scatter too, which pulls the slope towards zero; weights in use are powers
    # 1 or 1/2 of the counts, so a slope near 1 or 2 (their inverses) is taken for it.
    near = [power for power in (1.0, 2.0, -1.0, -2.0) if 0.6 < trend.slope / power < 1.4]
    slope = min(near, key=lambda power: abs(trend.slope - power)) if near else trend.slope
    smooth = np.exp(-slope * (np.log(weight) - np.log(weight).mean()))
    return np.asarray(smooth * (rows / smooth.sum()))
