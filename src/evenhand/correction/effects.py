"""What a change of predictions does to every metric, with intervals, and whether to recommend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Floats, Ints
from evenhand.goals import METRICS, REPORTED, CountDistance, MeanCost, Metric

DRAWS = 200
ENOUGH_CHANGES = 10  # fewer rows that become right or wrong say nothing, whatever their direction
MOST_GROUPS = 10  # of folds: more would only cost time
WORTH = 0.001  # a smaller gain is not worth changing a model, however certain it is; of costs, this share of them


@dataclass(frozen=True)
class Effect:
    """What a change of predictions does to every metric, on the same rows.

    Attributes:
        before, after: metric -> value. Where folds were given, `after` of a count distance is `before` plus the mean
            change over unions of folds, see :func:`measure_effect`. after_interval, difference_interval: metric -> 95 %
            interval, of the value after and of after minus before.
        changed: rows whose prediction changes. turned: rows that become right or wrong.
        missed: classes without a single hit, before and after.
    """

    rows: int
    before: dict[str, float]
    after: dict[str, float]
    after_interval: dict[str, list[float]]
    difference_interval: dict[str, list[float]]
    changed: int
    turned: int
    missed: tuple[int, int] = (0, 0)

    def as_dict(self) -> dict[str, Any]:
        """before, after, after_interval, difference_interval."""
        return {
            "before": self.before,
            "after": self.after,
            "after_interval": self.after_interval,
            "difference_interval": self.difference_interval,
        }


def measure_effect(
    y: Ints,
    before: Ints,
    after: Ints,
    *,
    metrics: Mapping[str, Metric] | None = None,
    folds: Ints | None = None,
    matched: bool = False,
    together: Ints | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Effect:
    """Metrics before and after with intervals by a paired Poisson bootstrap over rows.

    Every draw gives each row a Poisson(1) weight, the same before and after. The quantiles are taken around the mean
    of the draws: drawing rows twice adds noise to a count distance, which would shift a plain percentile interval.

    Args:
        y, before, after: (n,) true classes and the predictions without and with the correction.
        metrics: key -> metric; those of `evenhand.goals.REPORTED` if None.
        folds: (n,) number of the fold of each row, from 0, where `after` is cross-fitted; None where one decision,
            which has seen none of the rows, made it.
        matched: whether the decision was matched to counts: it then errs as the counts it was matched to did.
        together: (n,) group of each row, from 0: rows of one group are drawn together; None for every row alone.
        draws, seed: of the bootstrap.

    Counting errors of cross-fitted predictions cancel over all rows: what a fold has too many of, the others had too
    few of when its decision was matched to them. With v and u the variances, per row, of decisions around their
    posterior and of labels around it, the share of a class is off by ``(2 v + u) / n`` on n new rows, but by ``u / n``
    on the union of all k folds, and by ``((k / (k - 1))^2 (1 / q - 1) v + u / q) / n`` on the union of some that hold a
    share q of the rows. The change of a count distance is therefore the mean over unions with the largest q at which
    the part of v is 2 v / n or more: two of five folds. Predictions that were not matched err by ``(v + u) / (q n)``;
    at u = v, ``q' = 3 / ((k / (k - 1))^2 (1 / q - 1) + 1 / q)`` exaggerates them as much as the matched ones: three of
    five folds, for `before` where `matched`.

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
    asked = {key: METRICS[key] for key in REPORTED} if metrics is None else dict(metrics)
    outcomes = _Outcomes(y, before, after, asked, folds, matched=matched)
    first, second = ({key: float(v[0]) for key, v in found.items()} for found in outcomes.values(None))
    old, new = [], []
    rng = np.random.default_rng(seed)
    step = max(1, 1_000_000 // max(outcomes.occurring * outcomes.groups, len(y)))
    units = len(y) if together is None else int(together.max()) + 1
    for begin in range(0, draws, step):
        weights = poisson_weights(rng, (min(step, draws - begin), units))
        found = outcomes.values(weights if together is None else weights[:, together])
        old.append(found[0])
        new.append(found[1])
    drawn_old, drawn_new = ({key: np.concatenate([v[key] for v in rows]) for key in asked} for rows in (old, new))
    ends = {key: (0.0, 1.0, -1.0) if metric.share else (-np.inf, np.inf, -np.inf) for key, metric in asked.items()}
    return Effect(
        rows=len(y),
        before=first,
        after=second,
        after_interval={key: _interval(second[key], drawn_new[key], *ends[key][:2]) for key in asked},
        difference_interval={
            key: _interval(second[key] - first[key], drawn_new[key] - drawn_old[key], ends[key][2], ends[key][1])
            for key in asked
        },
        changed=int((before != after).sum()),
        turned=int(((before == y) != (after == y)).sum()),
        missed=(never_hit(y, before), never_hit(y, after)),
    )


class _Outcomes:
    """The rows, with labels renumbered over the classes that occur at all: with 100,000 classes most do not."""

    def __init__(
        self, y: Ints, before: Ints, after: Ints, metrics: Mapping[str, Metric], folds: Ints | None, *, matched: bool
    ) -> None:
        self.occurring, self.labels, classes = _relabelled(y, before, after)
        self.group = np.zeros(len(y), np.int64) if folds is None else _grouped(folds)
        # What no decision has changed counts the same before and after.
        joined = _joined(1 if folds is None else int(folds.max()) + 1)
        self.joined = joined if matched and bool((before != after).any()) else (joined[1], joined[1])
        self.groups = int(self.group.max()) + 1
        self.counted = {k: m.narrowed(classes) for k, m in metrics.items() if not isinstance(m, MeanCost)}
        self.cost = {
            k: (m.per_row(y, before), m.per_row(y, after)) for k, m in metrics.items() if isinstance(m, MeanCost)
        }

    def values(self, weights: NDArray[np.uint8] | None) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """(draws,) of every metric, before and after."""
        parts = [self._counts(column, weights) for column in (1, 2)]
        old, new = ({k: m.measure(*p.sum(axis=2)) for k, m in self.counted.items()} for p in parts)
        for key, metric in self.counted.items():
            if isinstance(metric, CountDistance) and self.groups > 1:
                on_old, on_new = (
                    metric.measure(*_unions(part, joined)).mean(axis=-1)
                    for part, joined in zip(parts, self.joined, strict=True)
                )
                new[key] = np.clip(old[key] + (on_new - on_old), 0.0, 1.0)
        for key, costs in self.cost.items():
            drawn = np.ones((1, len(self.group))) if weights is None else weights
            for found, cost in zip((old, new), costs, strict=True):
                found[key] = np.array([row @ cost / max(float(row.sum()), 1.0) for row in drawn])
        return old, new

    def _counts(self, column: int, weights: NDArray[np.uint8] | None) -> Floats:
        """(3, draws, groups, classes) true, predicted and hit counts; one draw without weights."""
        cells = self.groups * self.occurring
        y, predicted = (self.group * self.occurring + self.labels[c] for c in (0, column))
        hit = np.flatnonzero(y == predicted)
        rows = np.ones((1, len(y))) if weights is None else weights
        result = np.empty((3, len(rows), cells))
        for draw, drawn in enumerate(rows):
            w = drawn.astype(np.float64)
            result[0, draw] = np.bincount(y, w, cells)
            result[1, draw] = np.bincount(predicted, w, cells)
            result[2, draw] = np.bincount(y[hit], w[hit], cells)
        return result.reshape(3, len(rows), self.groups, self.occurring)


def _grouped(folds: Ints) -> Ints:
    """(n,) the folds, many of them merged into few groups."""
    k = int(folds.max()) + 1
    return folds * min(k, MOST_GROUPS) // k


def _joined(folds: int) -> tuple[int, int]:
    """How many groups of folds to join for matched decisions' before and after; see :func:`measure_effect`."""
    if folds == 1:
        return 1, 1
    groups, excess = min(folds, MOST_GROUPS), (folds / (folds - 1)) ** 2
    after = max(1, int(groups / (1 + 2 / excess)))
    before = round(groups * 3 / (excess * (groups / after - 1) + groups / after))
    return before, after


def _unions(counts: Floats, joined: int) -> Floats:
    """The same for every union of `joined` groups that follow each other, the first after the last."""
    total = counts.copy()
    for shift in range(1, joined):
        total += np.roll(counts, -shift, axis=2)
    return total


def _relabelled(*columns: Ints) -> tuple[int, tuple[Ints, ...], Ints]:
    """How many classes occur in any column, the columns renumbered over them, and which they are."""
    seen = np.zeros(max(int(c.max()) for c in columns) + 1, bool)
    for column in columns:
        seen[column] = True
    number = np.cumsum(seen) - 1
    return int(seen.sum()), tuple(number[c] for c in columns), np.flatnonzero(seen)


POISSON_TABLE = np.searchsorted(
    np.cumsum(np.exp(-1.0) / np.cumprod(np.maximum(np.arange(12), 1.0))), (np.arange(65_536) + 0.5) / 65_536
).astype(np.uint8)


def poisson_weights(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Poisson(1) variates by a table over 16 random bits: twenty times as fast as `Generator.poisson`."""
    return POISSON_TABLE[rng.integers(0, 65_536, size=shape, dtype=np.uint16)]


def _interval(value: float, draws: Floats, low: float, high: float) -> list[float]:
    ends = value + np.quantile(draws, [0.025, 0.975]) - draws.mean()
    return [float(v) for v in np.clip(ends, low, high)]


def never_hit(y: Ints, decided: Ints) -> int:
    """How many classes have rows but no right answer; `decided` may end before `y` does.

    Example:
        >>> import numpy as np
        >>> never_hit(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]))
        1
    """
    some = y[: len(decided)]
    return len(np.unique(y)) - len(np.unique(some[some == decided]))


def class_counts_of(y: Ints, decided: Ints, classes: int) -> Floats:
    """(3, K) true, predicted and hit counts."""
    return np.stack([np.bincount(v, minlength=classes) for v in (y, decided, y[y == decided])]).astype(np.float64)


def judge(effect: Effect, metric: Metric) -> tuple[bool, str]:
    """Whether the change is recommended, and the sentence that says why.

    It is only when the 95 % interval of the difference in the goal's metric excludes harm, it is worth the
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
    if harmless and metric.key == "g_mean" and effect.missed[1] > effect.missed[0]:
        # A recall of zero counts as that of half a hit, which is a large one where a class has few rows.
        return False, (
            f"not recommended: {effect.missed[1]} classes would never be right {where}, now {effect.missed[0]}, and "
            "the geometric mean counts them as if they had half a hit"
        )
    show = _points if metric.share else _plain
    unit = " points" if metric.share else ""
    if low > 0 or high < 0:
        verb, ends = ("rises", (low, high)) if low > 0 else ("falls", (-high, -low))
        sentence = f"{metric.words} {verb} by {show(ends[0])} to {show(ends[1])}{unit} {where}"
        if not harmless:
            return False, f"not recommended: {sentence}"
        least = WORTH if metric.share else WORTH * abs(effect.before[metric.key])
        if abs(effect.after[metric.key] - effect.before[metric.key]) < least:
            return False, f"not recommended: {sentence}, too little to matter"
        return True, f"recommended: {sentence}"
    change = f"{show(low, sign=True)} to {show(high, sign=True)}{unit} {where}"
    return False, f"not recommended: the change in {metric.words} is {change}, harm is not excluded"


def _plain(value: float, *, sign: bool = False) -> str:
    """A cost, in the units it was stated in."""
    return f"{'+' if sign and value > 0 else ''}{value:.3g}"


def _points(value: float, *, sign: bool = False) -> str:
    """A share in percentage points, with two decimals where one would hide it."""
    plus = "+" if sign and value > 0 else ""
    text = f"{plus}{100 * value:.1f}"
    return text if text.strip("+-") != "0.0" else f"{plus}{100 * value:.2f}"
