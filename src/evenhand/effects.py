"""What a change of predictions does to every metric, with intervals, and whether to recommend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Floats, Ints
from evenhand.goals import METRICS, Metric

DRAWS = 200
ENOUGH_CHANGES = 10  # fewer rows that become right or wrong say nothing, whatever their direction
WORTH = 0.001  # a smaller gain is not worth changing a model, however certain it is


@dataclass(frozen=True)
class Effect:
    """What a change of predictions does to every metric, on the same rows.

    Attributes:
        before, after: metric -> value. after_interval, difference_interval: metric -> 95 % interval, of the value after
            and of after minus before. changed: rows whose prediction changes. turned: rows that become right or wrong.
    """

    rows: int
    before: dict[str, float]
    after: dict[str, float]
    after_interval: dict[str, list[float]]
    difference_interval: dict[str, list[float]]
    changed: int
    turned: int

    def as_dict(self) -> dict[str, Any]:
        """before, after, after_interval, difference_interval."""
        return {
            "before": self.before,
            "after": self.after,
            "after_interval": self.after_interval,
            "difference_interval": self.difference_interval,
        }


def measure_effect(y: Ints, before: Ints, after: Ints, *, draws: int = DRAWS, seed: int = 0) -> Effect:
    """Metrics before and after with intervals by a paired Poisson bootstrap over rows.

    Every draw gives each row a Poisson(1) weight, the same before and after. The quantiles are taken around the mean
    of the draws: drawing rows twice adds noise to a count distance, which would shift a plain percentile interval.

    Args:
        y, before, after: (n,) true classes and the predictions without and with the correction.

    Source: Chamandy et al., "Estimating uncertainty for massive data streams" (2012),
    https://research.google/pubs/pub43157/.

    Example:
        >>> import numpy as np
        >>> y = np.repeat([0, 1], 200); before = np.zeros(400, int); after = y.copy()
        >>> effect = measure_effect(y, before, after)
        >>> effect.before["accuracy"], effect.after["accuracy"], effect.turned
        (0.5, 1.0, 200)
        >>> low, high = effect.difference_interval["accuracy"]
        >>> 0.4 < low < 0.5 < high < 0.6
        True
    """
    occurring, labels = _relabelled(y, before, after)
    points = [_values(*_counts(labels, column, None, occurring)) for column in (1, 2)]
    old, new = [], []
    rng = np.random.default_rng(seed)
    step = max(1, 1_000_000 // max(occurring, len(y)))
    for begin in range(0, draws, step):
        weights = poisson_weights(rng, (min(step, draws - begin), len(y)))
        old.append(_values(*_counts(labels, 1, weights, occurring)))
        new.append(_values(*_counts(labels, 2, weights, occurring)))
    drawn_old, drawn_new = ({key: np.concatenate([v[key] for v in rows]) for key in METRICS} for rows in (old, new))
    first, second = ({key: float(point[key][0]) for key in METRICS} for point in points)
    return Effect(
        rows=len(y),
        before=first,
        after=second,
        after_interval={key: _interval(second[key], drawn_new[key], 0.0, 1.0) for key in METRICS},
        difference_interval={
            key: _interval(second[key] - first[key], drawn_new[key] - drawn_old[key], -1.0, 1.0) for key in METRICS
        },
        changed=int((before != after).sum()),
        turned=int(((before == y) != (after == y)).sum()),
    )


def _relabelled(*columns: Ints) -> tuple[int, tuple[Ints, ...]]:
    """Labels renumbered over the classes that occur at all: with 100,000 classes most do not."""
    seen = np.zeros(max(int(c.max()) for c in columns) + 1, bool)
    for column in columns:
        seen[column] = True
    number = np.cumsum(seen) - 1
    return int(seen.sum()), tuple(number[c] for c in columns)


POISSON_TABLE = np.searchsorted(
    np.cumsum(np.exp(-1.0) / np.cumprod(np.maximum(np.arange(12), 1.0))), (np.arange(65_536) + 0.5) / 65_536
).astype(np.uint8)


def poisson_weights(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Poisson(1) variates by a table over 16 random bits: twenty times as fast as `Generator.poisson`."""
    return POISSON_TABLE[rng.integers(0, 65_536, size=shape, dtype=np.uint16)]


def _counts(
    labels: tuple[Ints, ...], column: int, weights: NDArray[np.uint8] | None, classes: int
) -> tuple[Floats, Floats, Floats]:
    """(draws, classes) true, predicted and hit counts; one row without weights."""
    y, predicted = labels[0], labels[column]
    hit = np.flatnonzero(y == predicted)
    rows = np.ones((1, len(y))) if weights is None else weights
    result = np.empty((3, len(rows), classes))
    for draw, drawn in enumerate(rows):
        w = drawn.astype(np.float64)
        result[0, draw] = np.bincount(y, w, classes)
        result[1, draw] = np.bincount(predicted, w, classes)
        result[2, draw] = np.bincount(y[hit], w[hit], classes)
    return result[0], result[1], result[2]


def _values(true: Floats, predicted: Floats, hits: Floats) -> dict[str, Floats]:
    return {key: metric.measure(true, predicted, hits) for key, metric in METRICS.items()}


def _interval(value: float, draws: Floats, low: float, high: float) -> list[float]:
    ends = value + np.quantile(draws, [0.025, 0.975]) - draws.mean()
    return [float(v) for v in np.clip(ends, low, high)]


def judge(effect: Effect, metric: Metric) -> tuple[bool, str]:
    """Whether the change is recommended, and the sentence that says why.

    It is only when the 95 % interval of the difference in the goal's metric excludes harm it is worth the
    change, and enough rows speak.
    """
    low, high = effect.difference_interval[metric.key]
    where = f"on {effect.rows:,} rows the fit had not seen"
    if effect.changed == 0:
        return False, f"not recommended: no prediction changes {where}, the model already serves this goal"
    speaking = effect.turned if metric.sign > 0 else effect.changed
    harmless = low > 0 if metric.sign > 0 else high < 0
    if harmless and speaking < ENOUGH_CHANGES:
        return False, f"not recommended: only {speaking} predictions change sides {where}, too few to judge"
    if low > 0 or high < 0:
        verb, ends = ("rises", (low, high)) if low > 0 else ("falls", (-high, -low))
        sentence = f"{metric.words} {verb} by {_points(ends[0])} to {_points(ends[1])} points {where}"
        if not harmless:
            return False, f"not recommended: {sentence}"
        if abs(effect.after[metric.key] - effect.before[metric.key]) < WORTH:
            return False, f"not recommended: {sentence}, too little to matter"
        return True, f"recommended: {sentence}"
    change = f"{_points(low, sign=True)} to {_points(high, sign=True)} points {where}"
    return False, f"not recommended: the change in {metric.words} is {change}, harm is not excluded"


def _points(value: float, *, sign: bool = False) -> str:
    """A share in percentage points, with two decimals where one would hide it."""
    plus = "+" if sign and value > 0 else ""
    text = f"{plus}{100 * value:.1f}"
    return text if text.strip("+-") != "0.0" else f"{plus}{100 * value:.2f}"
