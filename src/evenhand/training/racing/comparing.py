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
ENOUGH_UNITS = 3  # rows, or groups, of a class whose scatter row weights can tell
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

    A class with a row or two (or groups of rows) hardly varies under row weights, however uncertain its recall is: with
    many such classes intervals were too narrow. Their rows keep weight 1, and each takes, in every draw, whether it is
    hit from another row of such classes: these are taken to be alike, no row of theirs could tell.

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
        rng = np.random.default_rng(seed)
        weights = poisson_weights(rng, (draws, int(numbers.max()) + 1))
        self.weights = weights[:, numbers].astype(np.float64)
        self.few, self.unit = _few_units(target, numbers, classes)
        if metric.sign < 0:  # how often a class is decided varies by all rows, whichever their class
            self.few, self.unit = self.few[:0], self.unit[:0]
        units = int(self.unit.max(initial=-1)) + 1
        self.donor = rng.integers(0, max(units, 1), (draws, units))
        self.weights[:, self.few] = 1.0
        self.true = self._sums(self.weights, target)

    def _sums(self, weights: Floats, labels: Any) -> Floats:
        """(draws, K) weighted counts of labels, a column of weights for each."""
        place = (np.arange(len(labels)), labels)
        one_hot = scipy.sparse.csr_array((np.ones(len(labels)), place), shape=(len(labels), self.classes))
        return np.asarray((one_hot.T @ weights.T).T)

    def draws(self, decided: Any) -> tuple[float, Floats]:
        """The metric, and (draws,) of it under the row weights."""
        y, hit = self.y, decided == self.y
        counts = [np.bincount(v, minlength=self.classes).astype(np.float64) for v in (y, decided, y[hit])]
        weights = self.weights * hit
        missed = self.weights - weights
        if len(self.few):
            share = np.bincount(self.unit, hit[self.few]) / np.bincount(self.unit)
            weights[:, self.few] = share[self.donor][:, self.unit]
            missed[:, self.few] = (1 - weights[:, self.few]) * ~hit[self.few]
        hits = self._sums(weights, y)
        drawn = self.metric.measure(self.true, hits + self._sums(missed, decided), hits)
        return float(self.metric.measure(*counts)), np.asarray(drawn)


def _few_units(target: Ints, group: Any, classes: int) -> tuple[Ints, Ints]:
    """Rows of classes with rows of fewer than `ENOUGH_UNITS` groups, and for each the number of its class and group."""
    pair = np.asarray(target, np.int64) * (int(group.max()) + 1) + group
    _, first, unit = np.unique(pair, return_index=True, return_inverse=True)
    few = np.flatnonzero(np.bincount(target[first], minlength=classes)[target] < ENOUGH_UNITS)
    return few, np.unique(unit[few], return_inverse=True)[1]


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

    With d_s the value of seed s, ``V = V_rows + max(0, V_seeds - V_both)``: V_rows is the variance of the seeds' mean
    over bootstrapped rows, ``V_seeds = var_s(d_s) / S``. Both hold ``V_both = (mean_s V_s - V_rows) / (S - 1)``, with
    V_s that of one seed over rows: the scatter of rows that are right with one seed and wrong with another, whose share
    in the mean is 1 / S. The interval is Student's, its degrees of freedom after Satterthwaite: few seeds make it wide,
    but a share ends at 0 and 1, and a difference of two at -1 and 1. Sampling seeds with replacement instead would take
    three seeds for far more than they tell.

    Args:
        candidate, reference: what was drawn with the same bootstrap.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components" (1946),
    https://doi.org/10.2307/3002019.
    """
    seeds = sorted(set(candidate.by_seed) & set(reference.by_seed if reference else candidate.by_seed))
    if not seeds:
        return Estimate(np.nan, np.nan, (np.nan, np.nan), np.nan, 0)
    values = np.array([candidate.by_seed[s][0] - (reference.by_seed[s][0] if reference else 0.0) for s in seeds])
    drawn = np.array([candidate.by_seed[s][1] - (reference.by_seed[s][1] if reference else 0.0) for s in seeds])
    mean = float(values.mean())
    if len(seeds) < 2:
        return Estimate(mean, np.nan, (np.nan, np.nan), np.nan, 1)
    rows, over_seeds = float(drawn.mean(axis=0).var(ddof=1)), float(values.var(ddof=1) / len(seeds))
    # What differs by row and seed at once is in both: rows right with one seed and wrong with another.
    both = max(0.0, float(drawn.var(axis=1, ddof=1).mean()) - rows) / (len(seeds) - 1)
    total = rows + max(0.0, over_seeds - both)
    if total == 0:
        return Estimate(mean, 0.0, (mean, mean), 1.0 if mean == 0 else 0.0, len(seeds))
    freedom = total**2 / (rows**2 / (drawn.shape[1] - 1) + over_seeds**2 / (len(seeds) - 1))
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
