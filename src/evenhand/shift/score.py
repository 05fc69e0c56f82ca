"""Has the class prior moved? A test whose null distribution holds for few classes as for more classes than rows.

The likelihood-ratio statistic has a chi-square distribution only where every class has many rows. Its score form does
better. With e the mean posterior minus pi and n the rows,

    U = n_eff sum_c e_c^2 / (pi_c + 1 / n_eff) - (what sampling alone adds on average)

is a sum over pairs of rows, of mean 0 without shift. Its variance and skewness are estimated from pairs and triples of
rows, and a chi-square distribution with these moments gives the p-value: chi-square with one degree of freedom for two
classes, nearly normal for many. A second part looks at the one class that moved most.

Sources: Rao (1948), https://doi.org/10.1017/S0305004100023987 (the score form); Chen and Qin, "A two-sample test for
high-dimensional data" (2010), https://doi.org/10.1214/09-AOS716 (pairs of rows instead of a chi-square table).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri, erfc, ndtri

from evenhand.declared import Floats
from evenhand.tilt import Singles

GRAM_ROWS = 700
SPARSE_SHARE = 0.2  # of the level, spent on the single class that moved most
SURE = 0.01  # a shift is believed, and the estimate let go of pi, beyond this level
STEEPEST = 8.0  # a larger skewness of the null would be that of an eighth of a degree of freedom
TINY = 1e-300


@dataclass(frozen=True)
class ShiftTest:
    """The test of "no shift".

    Attributes:
        statistic: U. p_value: of both parts together. df: of the chi-square that the null follows, shifted and scaled.
        spread: tau2, the null variance of U is ``2 tau2``. critical: what U exceeds in 1 % of the cases without shift.
        z: (K,) standardised change of each class's mean posterior. excess, weight: (K,) parts of U, one per class, and
            what e_c^2 is weighted with. n_eff: rows that the comparison is worth.
        reach: U is ``n_eff reach v`` on average if the q_c scatter around pi_c with variance ``v pi_c``.
    """

    statistic: float
    p_value: float
    df: float
    spread: float
    critical: float
    z: Floats
    excess: Floats
    weight: Floats
    n_eff: float
    reach: float


def effective_rows(rows: int, reference_rows: int | None) -> float:
    """``1 / (1 / n + 1 / N)``: how many rows n are worth when pi comes from N rows; n where pi is known.

    Example:
        >>> effective_rows(1000, 1000), effective_rows(1000, None)
        (500.0, 1000.0)
    """
    return float(rows) if reference_rows is None else 1.0 / (1.0 / rows + 1.0 / reference_rows)


def score_no_shift(
    p: Singles,
    mean: Floats,
    square: Floats,
    prior: Floats,
    *,
    reference_rows: int | None = None,
    reference_square: Floats | None = None,
    rng: np.random.Generator,
) -> ShiftTest:
    """Test that rows with posteriors `p` come from `prior`.

    Args:
        p: (n, K) posteriors under `prior` (K,). mean, square: (K,) means of p and p^2.
        reference_rows: N, where `prior` is itself the mean of N rows' posteriors; its noise is then accounted for.
        reference_square: (K,) mean of these posteriors squared. With fewer rows than classes it is needed: the noise
            of a row with itself must be taken out row by row.
    """
    k, n = len(prior), len(p)
    n_eff = effective_rows(n, reference_rows)
    pooled = pooled_prior(prior, mean, n, reference_rows)
    weight = 1.0 / (pooled + 1.0 / n_eff)
    e = mean - prior
    if reference_rows is None:
        variance = np.maximum(square - 2 * prior * mean + prior**2, 0.0)
    else:
        variance = np.maximum(square - mean**2, 0.0) * (n / max(n - 1, 1))
    own = variance
    if reference_rows is not None and reference_square is not None:
        old = np.maximum(reference_square - prior**2, 0.0) * (reference_rows / max(reference_rows - 1, 1))
        own = n_eff * (variance / n + old / reference_rows)
    excess = weight * (n_eff * e**2 - own)
    statistic = float(excess.sum())
    tau2, third, reach = _null_moments(p, pooled, weight, n_eff, rng)
    sd = (2 * tau2) ** 0.5
    skewness = float(np.clip(third / sd**3, 1e-3, STEEPEST)) if sd > 0 else 1.0
    df = 8.0 / skewness**2
    p_all = 1.0 if sd <= 0 else float(chdtrc(df, max(df + (2 * df) ** 0.5 * statistic / sd, 0.0)))
    critical = sd * float((chdtri(df, SURE) - df) / (2 * df) ** 0.5)
    z = _class_z(e, variance, pooled, n, n_eff)
    p_one = float(erfc(np.abs(z).max() / 2**0.5)) * k
    p_value = p_all if k == 2 else min(1.0, p_all / (1 - SPARSE_SHARE), p_one / SPARSE_SHARE)
    return ShiftTest(statistic, p_value, df, tau2, critical, z, excess, weight, n_eff, max(reach, tau2))


def pooled_prior(prior: Floats, mean: Floats, rows: int, reference_rows: int | None) -> Floats:
    """(K,) what old and new rows say together if nothing moved; the prior itself where it is known."""
    if reference_rows is None:
        return prior
    return (reference_rows * prior + rows * mean) / (reference_rows + rows)


def _null_moments(
    p: Singles, pooled: Floats, weight: Floats, n_eff: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Half the variance and the third moment of U without shift, and `ShiftTest.reach`.

    With g_ij = sum_c w_c (p_i(c) - pi_c)(p_j(c) - pi_c): Var U = 2 E g_ij^2, and the third moment is
    ``8 E[g_ij g_jk g_ki] + 4 E g_ij^3 / n``; the last term counts where two rows of one rare class are already much.
    The products are centred so that their squares are unbiased whatever the mean is (Szekely and Rizzo 2014,
    https://doi.org/10.1214/14-AOS1255): centring by the mean of the rows would leave -1/n of the diagonal everywhere.
    """
    rows = np.arange(len(p)) if len(p) <= GRAM_ROWS else np.sort(rng.choice(len(p), GRAM_ROWS, replace=False))
    m = len(rows)
    if m < 4:
        return 0.0, 0.0, 0.0
    x = p[rows] - pooled.astype(np.float32)
    g = _pair_products(x * np.sqrt(weight).astype(np.float32))
    unweighted = _pair_products(x * np.where(pooled > 0, 1 / np.sqrt(np.maximum(pooled, TINY)), 0).astype(np.float32))
    square = g @ g
    tau2 = float((g * g).sum()) / (m * (m - 3))
    triples = float((square * g).sum()) / (m * (m - 1) * (m - 2))
    cubes = float((g**3).sum()) / (m * (m - 1))
    return tau2, 8 * triples + 4 * cubes / n_eff, float((g * unweighted).sum()) / (m * (m - 3))


def _pair_products(x: Singles) -> Floats:
    """(m, m) products of all pairs of rows, doubly centred without the diagonal, which is zero."""
    m = len(x)
    g = (x @ x.T).astype(np.float64)
    np.fill_diagonal(g, 0.0)
    sums = g.sum(axis=1) / (m - 2)
    g += g.sum() / ((m - 1) * (m - 2)) - sums[:, None] - sums
    np.fill_diagonal(g, 0.0)
    return g


def _class_z(e: Floats, variance: Floats, pooled: Floats, rows: int, n_eff: float) -> Floats:
    """(K,) standardised e.

    A class that the new rows hardly show has no variance there: for what fell, and for the old rows behind pi, the
    largest possible one is taken, pi (1 - pi); for what rose at least the average over the classes.
    """
    spread = pooled * (1 - pooled)
    average = variance.sum() / max(float(spread.sum()), TINY)
    rose = np.maximum(variance, average * spread) / rows + spread * max(1 / n_eff - 1 / rows, 0.0)
    error = np.sqrt(np.maximum(np.where(e > 0, rose, spread / n_eff), TINY))
    return np.asarray(np.where(pooled > 0, e / error, 0.0))


@dataclass(frozen=True)
class Looseness:
    """How far the rows let the estimate go from pi.

    Attributes:
        moved: how sure it is that the prior moved as a whole, from 0 (U is below what it exceeds in 1 % of the cases
            without shift) towards 1. free: (K,) classes that moved alone, which no prior holds. wide: rows that pi
            counts for in the intervals.
    """

    moved: float
    free: NDArray[np.bool_]
    wide: float


def looseness(test: ShiftTest, prior: Floats, mean: Floats) -> Looseness:
    """How far the estimate may leave pi, from the data (empirical Bayes).

    Where U is below what it exceeds in 1 % of the cases without shift, q stays at pi; above, it is let go soon. If the
    q_c scatter around pi_c with variance pi_c / m, U is n_eff reach / m on average, which gives m: for the interval
    twice the shift seen, and all that could hide below the critical value, counts as shift.

    Few classes may have moved while the others stayed: if without the classes beyond any doubt
    (``|z| > sqrt(2 log K + 6)``, at most a tenth of all) no sure shift is left, these are set free and the others held.
    """
    k = len(prior)
    free = np.abs(test.z) > (2 * np.log(k) + 6) ** 0.5
    scale = test.n_eff * test.reach
    signal, rest = test.statistic, _without(test, prior, mean, ~free)
    alone = free.any() and free.sum() <= k / 10 and rest < test.critical
    seen = max(rest if alone else signal, 0.0)
    wide = max(1.0, scale / max(2 * seen + test.critical, TINY))
    if alone:
        return Looseness(0.0, free, wide)
    sure = max(0.0, 1 - (test.critical / signal) ** 8) if signal > 0 else 0.0
    return Looseness(sure, np.zeros(k, bool), wide)


def _without(test: ShiftTest, prior: Floats, mean: Floats, rest: NDArray[np.bool_]) -> float:
    """U of the classes in `rest`, their frequencies compared among themselves."""
    centre = prior * (mean[rest].sum() / max(float(prior[rest].sum()), TINY))
    change = test.weight * test.n_eff * ((mean - prior) ** 2 - (mean - centre) ** 2)
    return float((test.excess - change)[rest].sum())


def normal_quantile(alpha: float) -> float:
    """Two-sided: 1.96 for 0.05."""
    return float(-ndtri(alpha / 2))
