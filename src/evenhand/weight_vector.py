"""What a declared weight vector shows by itself, held against the class counts: its parts, its order, its rule.

Every sensible rule gives rarer classes weights at least as large: log w falls (or rises, if inverted) with the counts.
So a vector is judged by how far it is from *any* monotone function of the counts, not by how far it is from one rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from evenhand.declared import Floats, Ints
from evenhand.fingerprints import elsewhere, made_from_counts, sampled_order, sorted_by_frequency
from evenhand.orders import Order, known_orders, weighted_correlation
from evenhand.regression import count_slope


@dataclass(frozen=True)
class WeightVector:
    """A weight vector of the right length beside the counts of its classes.

    Attributes:
        weight: (K,) as declared. counts: (K,) training counts, or evaluation counts that stand in.
        exact: whether these are the training counts (a sample cannot expose small differences).
        names: class names, for their alphabetical order.
    """

    weight: Floats
    counts: Floats
    exact: bool
    names: tuple[str, ...] | None = None

    @cached_property
    def unusable(self) -> Ints:
        """Classes whose weight is zero, negative, NaN or infinite."""
        return np.flatnonzero(~(np.isfinite(self.weight) & (self.weight > 0)))

    @cached_property
    def judged(self) -> Ints:
        """Classes with a usable weight and at least one row: only those can be compared."""
        good = np.isfinite(self.weight) & (self.weight > 0) & (self.counts > 0)
        return np.flatnonzero(good)

    @cached_property
    def log_weight(self) -> Floats:
        """Logarithm of the judged weights."""
        return np.asarray(np.log(self.weight[self.judged]))

    @cached_property
    def rarity(self) -> Floats:
        """-log count of the judged classes."""
        return np.asarray(-np.log(self.counts[self.judged]))

    @cached_property
    def spread(self) -> float:
        """Standard deviation of log w: 0 for weights that do nothing."""
        return float(self.log_weight.std()) if len(self.judged) > 1 else 0.0

    @cached_property
    def rank_correlation(self) -> float:
        """Spearman correlation of weight with rarity: 1 for a sound rule, -1 for weights that grow with the counts."""
        return spearman(self.log_weight, self.rarity)

    @cached_property
    def residual(self) -> float:
        """Standard deviation of log w around the best rule that falls with the counts."""
        return monotone_residual(self.rarity, self.log_weight)

    @cached_property
    def follows_a_rule(self) -> bool:
        """Whether the vector is a falling function of the counts, up to rounding (or up to noise, if not exact)."""
        if self.exact:
            return self.residual <= max(0.02, 0.03 * self.spread)
        return self.correlation > 0.97

    @cached_property
    def falls_the_wrong_way(self) -> bool:
        """Whether the vector rises with the counts and no order of a falling rule fits better."""
        rising = monotone_residual(-self.rarity, self.log_weight)
        limit = max(0.02, 0.1 * self.spread) if self.exact else 0.6 * self.spread
        if not self.exact:
            if self.sampled_order is not None:
                return False
            # Few levels are a choice by hand, unless they follow the counts to the letter, and all of them.
            few = self.levels <= max(3, len(self.judged) // 10)
            if few:
                return self.correlation < -0.95 and self.rank_correlation < -0.4
            return self.correlation < -0.7 or self.counts_grow_with_it
        return self.rank_correlation < -0.8 and rising <= limit and not self._same_values(-self.rarity, self.rarity)

    @cached_property
    def counts_grow_with_it(self) -> bool:
        """Whether sampled counts rise with the weights, surely and as closely as few rows per class can show."""
        trend = count_slope(self.counts[self.judged], self.log_weight)
        if trend is None or trend.dispersion > 0.3:
            return False
        return trend.slope > 4 * (trend.interval[1] - trend.slope) / 1.96

    @cached_property
    def correlation(self) -> float:
        """Correlation of log w with rarity, classes with many rows counting more: their counts are sure."""
        return weighted_correlation(self.log_weight, self.rarity, self.counts[self.judged])

    def _same_values(self, first: Floats, second: Floats) -> bool:
        """Whether the weights, sorted, look like `second` sorted, clearly more than like `first` sorted."""
        return quantile_residual(self.log_weight, second) < 0.3 * quantile_residual(self.log_weight, first) - 1e-9

    @cached_property
    def order(self) -> Order | None:
        """The named wrong order in which the weights fall with the counts, if they do not in class order."""
        if self.spread < 0.05 or self.follows_a_rule or len(self.judged) < 4:
            return None
        if self.sampled_order is not None:
            return self.sampled_order
        best, best_misfit = None, np.inf
        for order in known_orders(self.counts, self.names):
            misfit = self._misfit(order) if self.exact or self._differs(order) else np.inf
            if misfit < best_misfit:
                best, best_misfit = order, misfit
        if self.exact:
            fits = best_misfit <= max(0.02, 0.03 * self.spread) and best_misfit < 0.2 * self.residual
        else:
            fits = best_misfit < 0.1 and self.correlation < 0.6
        return best if fits else None

    @cached_property
    def sampled_order(self) -> Order | None:
        """The wrong order in which sampled counts follow the weights, as surely as the class order does not."""
        if self.exact or len(self.unusable) or len(self.weight) < 5:
            return None
        log_weight = np.log(self.weight)
        found = sampled_order(self.counts, log_weight, self.names)
        return found if found is not None else sorted_by_frequency(self.counts, log_weight)

    def _differs(self, order: Order) -> bool:
        """Whether an order changes what the weights ask for; sorting sampled counts almost restores their own order."""
        judged = self.judged
        moved = -np.log(np.maximum(order.apply(self.counts)[judged], 0.5))
        return weighted_correlation(moved, self.rarity, self.counts[judged]) < 0.9

    def _misfit(self, order: Order) -> float:
        """How far the weights are from a rule in this order: residual if counts are exact, else 1 - correlation."""
        moved = order.apply(self.counts)
        both = self.judged[moved[self.judged] > 0]
        if len(both) < max(4, 0.5 * len(self.judged)):
            return float("inf")
        log_weight, rarity = np.log(self.weight[both]), -np.log(moved[both])
        if self.exact:
            return monotone_residual(rarity, log_weight) if spearman(log_weight, rarity) > 0.8 else float("inf")
        return 1 - weighted_correlation(log_weight, rarity, moved[both])

    @cached_property
    def unnamed_order(self) -> bool:
        """Whether the values are those of a rule on these counts, but not on these classes (order unknown)."""
        if self.spread < 0.05 or self.follows_a_rule or self.order is not None:
            return False
        if not self.exact:
            return self.computed and self.correlation < 0.6 and elsewhere(self.counts, self.weight)
        return self.rank_correlation < 0.9 and quantile_residual(self.log_weight, self.rarity) <= 0.01

    @cached_property
    def defaults(self) -> Ints:
        """Classes whose weight is exactly 1 while all others follow a rule that gives them something else."""
        ones = self.weight[self.judged] == 1.0
        if not self.exact or not 0 < ones.sum() <= 0.5 * len(ones) or self.spread < 0.05 or self.follows_a_rule:
            return np.empty(0, np.int64)
        rest = monotone_residual(self.rarity[~ones], self.log_weight[~ones])
        return self.judged[ones] if rest <= 0.02 + 0.02 * self.spread else np.empty(0, np.int64)

    @cached_property
    def computed(self) -> bool:
        """Whether the numbers betray that they were computed from counts, whichever counts these were."""
        return self.levels >= 2 and len(self.unusable) == 0 and made_from_counts(self.weight)

    @cached_property
    def outlier(self) -> int | None:
        """The one class without which the vector would follow a rule, if it must have been counted with most rows."""
        if self.spread < 0.05 or self.follows_a_rule or not self.exact or len(self.judged) < 4:
            return None
        gap = self.log_weight - fitted_monotone(self.rarity, self.log_weight)
        for i in np.argsort(-np.abs(gap))[:3]:
            rest = np.arange(len(gap)) != i
            if monotone_residual(self.rarity[rest], self.log_weight[rest]) <= 0.02:
                implied = np.exp(-self.log_weight)
                if implied[i] < max(implied[rest].max(), 0.2 * implied.sum()):
                    return None  # too light for its count, but no class that swallowed the padding
                near = np.argsort(np.abs(self.rarity[rest] - self.rarity[i]))[:3]
                if self.log_weight[i] < self.log_weight[rest][near].min() - np.log(2):
                    return int(self.judged[i])
        return None

    @cached_property
    def levels(self) -> int:
        """Distinct weights: a handful of levels is a choice made by hand, not a rule on counts."""
        return len(np.unique(self.log_weight.round(6)))

    @cached_property
    def from_other_counts(self) -> bool:
        """Whether the weights look computed from counts, but from others than the training counts."""
        if self.exact and self.computed and self.residual > max(0.1, 0.05 * self.spread) and not self.follows_a_rule:
            return True
        if (
            not self.exact
            or self.spread < 0.3
            or self.follows_a_rule
            or self.levels <= min(10, max(3, len(self.judged) // 10))
        ):
            return False
        if len(self.judged) < 6 or self.residual < max(0.12, 0.1 * self.spread):
            return False
        shape = quantile_residual(self.log_weight, self.rarity) < 0.35 * self.spread
        # Weights chosen for other reasons than counts correlate with them by chance, the more so the fewer classes.
        chance = max(0.3, min(0.8, 3 / np.sqrt(len(self.judged) - 1)))
        unrelated = abs(self.rank_correlation) <= 0.3 and len(self.judged) >= 20
        return bool(self.rank_correlation > chance or (unrelated and shape and self.spread > 0.5))


def spearman(x: Floats, y: Floats) -> float:
    """Spearman rank correlation, ties averaged; 0 where one side is constant.

    Example:
        >>> import numpy as np
        >>> round(spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 15])), 3)
        0.5
    """
    return weighted_correlation(ranks(x), ranks(y), np.ones(len(x))) if len(x) > 1 else 0.0


def ranks(x: Floats) -> Floats:
    """Average ranks (importing scipy.stats for its rankdata takes longer than an audit)."""
    _, inverse, count = np.unique(x.round(9), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[inverse])


def fitted_monotone(x: Floats, y: Floats) -> Floats:
    """Values of the best non-decreasing function of x at x (equal x share one value)."""
    unique, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, y) / count
    fitted: Floats = (
        isotonic_regression(mean, weights=count.astype(np.float64), increasing=True).x if len(unique) > 1 else mean
    )
    return np.asarray(fitted[inverse])


def monotone_residual(x: Floats, y: Floats) -> float:
    """Standard deviation of y around the best non-decreasing function of x.

    Example:
        >>> import numpy as np
        >>> monotone_residual(np.arange(4.0), np.array([0.0, 1, 1, 7]))
        0.0
    """
    return float(np.sqrt(np.mean((y - fitted_monotone(x, y)) ** 2))) if len(x) else 0.0


def quantile_residual(y: Floats, x: Floats) -> float:
    """Residual of sorted y on a line in sorted x: small if y has the values of a rule on x, in whatever order."""
    a, b = np.sort(y), np.sort(x)
    if a.std() < 1e-12 or b.std() < 1e-12:
        return float("inf")
    slope, intercept = np.polyfit(b, a, 1)
    return float(np.sqrt(np.mean((a - intercept - slope * b) ** 2)))


def finite_indices(mask: NDArray[np.bool_], limit: int = 20) -> list[int]:
    """The first indices where the mask holds, as JSON numbers."""
    return [int(i) for i in np.flatnonzero(mask)[:limit]]
