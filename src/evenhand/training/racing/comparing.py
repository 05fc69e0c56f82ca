"""Paired comparisons over rows and seeds: what is better than plain training, and by how much, beyond noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.stats
from numpy.typing import NDArray

from evenhand.correction.effects import poisson_weights
from evenhand.declared import Floats, Ints
from evenhand.goals import Metric

DRAWS = 400
Decisions = Mapping[int, NDArray[np.int32]]  # seed -> (n,) decided classes


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a paired difference of two, with its uncertainty over rows and seeds.

    Attributes:
        value: the mean. error: standard error. interval: 95 %. p: two-sided, of the value being zero. seeds: how many
            were common. NaN where one seed says nothing about another.
    """

    value: float
    error: float
    interval: tuple[float, float]
    p: float
    seeds: int


class Bootstrap:
    """A metric of many decisions on the same rows, drawn with the same row weights, so that differences are paired.

    Args:
        target: (n,) classes. metric: of count vectors. classes: K. group: (n,) rows that are drawn together, or None.
        draws: of the Poisson bootstrap. seed: of the draws.
    """

    def __init__(
        self,
        target: Ints,
        metric: Metric,
        classes: int,
        *,
        group: Ints | None = None,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        self.y, self.metric, self.classes = target, metric, classes
        numbers = np.arange(len(target)) if group is None else np.unique(group, return_inverse=True)[1]
        weights = poisson_weights(np.random.default_rng(seed), (draws, int(numbers.max()) + 1))
        self.weights = weights[:, numbers].astype(np.float64)
        self.true = self._sums(target, None)

    def _sums(self, labels: Any, rows: Any) -> Floats:
        """(draws, K) weighted counts of labels, on some rows."""
        weights = self.weights if rows is None else self.weights[:, rows]
        place = (np.arange(len(labels)), labels)
        one_hot = scipy.sparse.csr_array((np.ones(len(labels)), place), shape=(len(labels), self.classes))
        return np.asarray((one_hot.T @ weights.T).T)

    def draws(self, decided: Any) -> tuple[float, Floats]:
        """The metric, and (draws,) of it under the row weights."""
        hit = np.flatnonzero(decided == self.y)
        y, d = self.y, decided
        counts = [np.bincount(v, minlength=self.classes).astype(np.float64) for v in (y, d, y[hit])]
        drawn = self.metric.measure(self.true, self._sums(d, None), self._sums(self.y[hit], hit))
        return float(self.metric.measure(*counts)), np.asarray(drawn)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Values of one candidate: seed -> (value, (draws,) values under the row weights); whether they are shares."""

    by_seed: Mapping[int, tuple[float, Floats]]
    share: bool = False

    @classmethod
    def of(cls, bootstrap: Bootstrap, decisions: Decisions) -> Drawn:
        """Measure every seed's decisions."""
        return cls({seed: bootstrap.draws(decided) for seed, decided in decisions.items()}, bootstrap.metric.share)


def estimate(candidate: Drawn, reference: Drawn | None = None) -> Estimate:
    """The mean over seeds of a candidate's value, or of its difference to a reference on the same seeds and rows.

    With d_s the value of seed s, ``V = V_rows + V_seeds``: V_rows is the variance of the seeds' mean over bootstrapped
    rows, ``V_seeds = var_s(d_s) / S``. The interval is Student's, its degrees of freedom after Satterthwaite: few seeds
    make it wide, but a share ends at 0 and 1, and a difference of two at -1 and 1. Sampling seeds with replacement
    instead would take three seeds for far more than they tell.

    Limits:
        A class of a single row has no variance that rows could tell. Of 400 simulated comparisons without a difference,
        8 to 10 % of the intervals excluded zero where a third or more of the classes had one or two rows, not 5 %.

    Args:
        candidate, reference: what was drawn with the same bootstrap.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components" (1946),
    https://doi.org/10.2307/3002019.
    """
    seeds = sorted(set(candidate.by_seed) & set(reference.by_seed if reference else candidate.by_seed))
    if not seeds:
        return Estimate(np.nan, np.nan, (np.nan, np.nan), np.nan, 0)
    values = np.array([candidate.by_seed[s][0] - (reference.by_seed[s][0] if reference else 0.0) for s in seeds])
    drawn = np.mean([candidate.by_seed[s][1] - (reference.by_seed[s][1] if reference else 0.0) for s in seeds], axis=0)
    mean = float(values.mean())
    if len(seeds) < 2:
        return Estimate(mean, np.nan, (np.nan, np.nan), np.nan, 1)
    rows, over_seeds = float(drawn.var(ddof=1)), float(values.var(ddof=1) / len(seeds))
    total = rows + over_seeds
    if total == 0:
        return Estimate(mean, 0.0, (mean, mean), 1.0 if mean == 0 else 0.0, len(seeds))
    freedom = total**2 / (rows**2 / (len(drawn) - 1) + over_seeds**2 / (len(seeds) - 1))
    error = float(np.sqrt(total))
    half = float(scipy.stats.t.ppf(0.975, freedom)) * error
    p = float(2 * scipy.stats.t.sf(abs(mean) / error, freedom))
    low, high = mean - half, mean + half
    if candidate.share:
        low, high = max(low, -1.0 if reference else 0.0), min(high, 1.0)
    return Estimate(mean, error, (low, high), p, len(seeds))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false claim below the level; NaN is left out and stays.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979),
    https://www.jstor.org/stable/4615733.

    Example:
        >>> [round(v, 6) for v in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, np.float64)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    adjusted = np.full(len(values), np.nan)
    if len(order):
        factor = len(order) - np.arange(len(order))
        adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factor))
    return [float(value) for value in adjusted]
