"""Slope of counts on log frequency: a negative-binomial regression, because counts may be zero and overdispersed.

A least-squares line through log(count + 0.5) is what forums use; it bends at the zeros and knows no noise of counts.
Source: Hilbe, "Negative Binomial Regression" (2011), https://doi.org/10.1017/CBO9780511973420.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenhand.declared import Floats


@dataclass(frozen=True)
class CountSlope:
    """``E[count_c] = exp(intercept + slope x_c)`` with variance ``mu + dispersion mu^2``.

    Attributes: slope, intercept, dispersion; interval: 95 % of the slope, from the sandwich variance; fitted: (K,).
    """

    slope: float
    intercept: float
    dispersion: float
    interval: tuple[float, float]
    fitted: Floats


def count_slope(counts: Floats, x: Floats) -> CountSlope | None:
    """Regress counts on x (usually a log count); None when x hardly varies or fewer than three classes take part.

    Args:
        counts: (K,) non-negative. x: (K,) finite; the slope is the elasticity when x is a log count.

    Example:
        >>> import numpy as np
        >>> n = np.geomspace(10, 10_000, 50)
        >>> fit = count_slope(n**0.5 * 30, np.log(n))
        >>> round(fit.slope, 3)
        0.5
    """
    if len(x) < 3 or np.std(x) < 0.05 or counts.sum() <= 0:
        return None
    centre = x.mean()
    design = np.stack([np.ones(len(x)), x - centre], axis=1)
    theta = np.array([np.log(max(counts.mean(), 1e-9)), 0.0])
    dispersion = 0.0
    for _ in range(60):
        mu = np.exp(np.clip(design @ theta, -30, 40))
        dispersion = _dispersion(counts, mu)
        weight = mu / (1 + dispersion * mu)
        information = design.T @ (weight[:, None] * design) + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, design.T @ (weight / np.maximum(mu, 1e-12) * (counts - mu)))
        theta = theta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    mu = np.exp(np.clip(design @ theta, -30, 40))
    weight = mu / (1 + dispersion * mu)
    bread = np.linalg.inv(design.T @ (weight[:, None] * design) + 1e-9 * np.eye(2))
    scores = design * (weight / np.maximum(mu, 1e-12) * (counts - mu))[:, None]
    error = float(np.sqrt(max((bread @ (scores.T @ scores) @ bread)[1, 1], bread[1, 1])))
    slope = float(theta[1])
    return CountSlope(
        slope, float(theta[0] - slope * centre), dispersion, (slope - 1.96 * error, slope + 1.96 * error), mu
    )


def _dispersion(counts: Floats, mu: Floats) -> float:
    """Moment estimate of the dispersion: sum (n - mu)^2 - mu over sum mu^2, weighted so that no class dominates."""
    weight = 1.0 / np.maximum(mu, 1.0) ** 2
    excess = float((weight * ((counts - mu) ** 2 - mu)).sum())
    return max(0.0, excess / float((weight * mu**2).sum() + 1e-12))
