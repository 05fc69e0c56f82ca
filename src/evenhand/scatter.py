"""Class biases that a fitted direction leaves behind: how large they are, and what they do to its interval.

Trained models miss every class by a little. With ``g = n - s`` (true minus soft counts) and the information v of each
class, biases of variance s^2 around zero give ``E[g^2] = v + v^2 s^2``. A tilt is measured against that scatter too,
not only against the sampling of rows; and directions are compared by how much scatter each leaves unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evenhand.declared import Floats
from evenhand.tilt import TiltFit


@dataclass(frozen=True)
class Scatter:
    """Random class biases left around a fit.

    Attributes:
        gap: (K,) true minus soft counts of the sample. information: (K,) sum_i p_i(c) (1 - p_i(c)).
    """

    gap: Floats
    information: Floats

    @cached_property
    def variance(self) -> float:
        """Moment estimate of the variance of the biases, never negative."""
        v = self.information
        return max(0.0, float((self.gap**2 - v).sum()) / max(float((v**2).sum()), 1e-300))

    @cached_property
    def z(self) -> float:
        """How surely there is scatter beyond the sampling of rows, in standard deviations of none."""
        v = self.information
        return float((self.gap**2 - v).sum() / np.sqrt((2 * v**2 + v).sum() + 1e-300))

    def widened(self, value: float, low: float, high: float, direction: Floats) -> tuple[float, float]:
        """An interval along `direction` with the scatter included: biases at random lean along it by chance."""
        v = self.information
        d = direction - float(v @ direction) / max(float(v.sum()), 1e-300)
        model = self.variance * float(((v * d) ** 2).sum()) / max(float((v * d**2).sum()) ** 2, 1e-300)
        extra = 1.96**2 * model
        return value - float(np.sqrt((value - low) ** 2 + extra)), value + float(np.sqrt((high - value) ** 2 + extra))


def steadied(fit: TiltFit) -> tuple[float, float, float, float]:
    """(tau, low, high, beta) of a fit along one direction, at beta = 1 where the rows cannot tell beta from that.

    A weak model is little more than its prior: stretching it and tilting it come to the same, and the interval of tau
    says nothing though the soft counts are plainly right or wrong. Sound networks have a beta near 1, so this is taken
    for granted unless the rows speak against it.
    """
    tau, (low, high) = float(fit.tau[0]), fit.tau_interval[0]
    (bb, bt), (_, tt) = fit.information
    left = bb - bt**2 / max(tt, 1e-12)
    if left * VAGUE**2 > 1 or abs(fit.beta - 1) > 2 / np.sqrt(max(left, 1e-12)):
        return tau, float(low), float(high), fit.beta
    tau += float(bt / max(tt, 1e-12)) * (fit.beta - 1)
    half = 1.96 / float(np.sqrt(max(tt, 1e-12)))
    return tau, tau - half, tau + half, 1.0


VAGUE = 0.25  # standard error of beta from which on it tells nothing: sound networks lie between 0.75 and 1.1
SPREADS = np.concatenate([[0.0], np.geomspace(0.01, 4.0, 30)])


def evidence_for(bias: Floats, information: Floats, direction: Floats) -> tuple[float, float]:
    """How well one direction explains the biases of all classes, what is left being random: (nats, coefficient).

    With fewer than three classes known, every direction explains them as well: 0 for all.

    Every class has a bias of its own around the direction that the model follows: ``b_c ~ N(m + f d_c, s^2 + 1 / v_c)``
    at the m, f and s that make it most likely. Unlike the likelihood of the rows alone, this does not take the many
    biases that any real model has for evidence of a direction that happens to lean along some of them.

    Args:
        bias: (K,) unshrunk estimates. information: (K,) inverse variances of their errors; 0 leaves a class out.
        direction: (K,); a constant one gives the evidence for no direction.

    Example:
        >>> import numpy as np
        >>> d = np.array([-1.0, 0.0, 1.0, 2.0, -2.0])
        >>> along, f = evidence_for(0.9 * d, np.full(5, 100.0), d)
        >>> none, _ = evidence_for(0.9 * d, np.full(5, 100.0), np.zeros(5))
        >>> round(f, 6), along - none > 5
        (0.9, True)
    """
    known = information > 0.02
    if known.sum() < 3:  # two classes lie on a line along any direction
        return 0.0, 0.0
    b, d, error = bias[known], direction[known], 1.0 / information[known]
    best, slope = -np.inf, 0.0
    for spread in SPREADS:
        w = 1.0 / (spread**2 + error)
        total = w.sum()
        db, dd = b - w @ b / total, d - w @ d / total
        variance = float(w @ dd**2)
        f = float(w @ (dd * db)) / variance if variance > 1e-12 else 0.0
        value = 0.5 * float(np.log(w).sum() - w @ (db - f * dd) ** 2)
        if value > best:
            best, slope = value, f
    return best, slope
