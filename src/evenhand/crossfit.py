"""Cross-fitting: every row is judged by a correction whose fit has not seen its label.

The parameters of a fold's correction come from the full fit by one Newton step on the other folds: from the optimum
of all rows that step lands within a small fraction of the standard error, and all folds together cost one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Floats, Ints
from evenhand.goals import METRICS, Calibrated, Goal, Metric, find_goal
from evenhand.priors import smoothed_log_prior
from evenhand.tilt import BLOCK_CELLS, FLOOR, Likelihood, Part, Singles, map_blocks

DRAWS = 200
START_ROWS = 2_000
MIN_BETA = 1e-3  # a scale of zero or less would turn masked classes loose and reverse every ranking
ENOUGH_CHANGES = 10  # fewer rows that become right or wrong say nothing, whatever their direction
Value = tuple[float, Floats, Floats]


def fold_edges(rows: int, folds: int) -> list[slice]:
    """Consecutive slices of nearly equal length; empty ones are left out."""
    edges = np.linspace(0, rows, folds + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges) if b > a]


def within(parts: Sequence[Part], rows: slice, size: int) -> tuple[Part, ...]:
    """The parts cut down to the rows of a slice."""
    low, high, _ = rows.indices(size)
    result = []
    for part in parts:
        start, stop, _ = part.rows.indices(size)
        start, stop = max(start, low), min(stop, high)
        if stop > start:
            result.append(Part(slice(start, stop), part.offset, part.directions))
    return tuple(result)


def without(parts: Sequence[Part], rows: slice, size: int) -> tuple[Part, ...]:
    """The parts cut down to the rows outside a slice."""
    low, high, _ = rows.indices(size)
    return within(parts, slice(0, low), size) + within(parts, slice(high, size), size)


def at(parts: Sequence[Part], theta: Floats, bias: Floats | None = None) -> tuple[Part, ...]:
    """The parts with everything but ``beta z`` in their offsets: known offset, tilt and, where given, class biases."""
    extra = 0.0 if bias is None else bias
    return tuple(Part(p.rows, p.offset + p.directions @ theta[1:] + extra, p.directions[:, :0]) for p in parts)


@dataclass(frozen=True)
class Fits:
    """theta = (beta, tau_1, ...) fitted on all rows, and for each fold on the rows outside it."""

    full: Floats
    folds: tuple[Floats, ...]


def leave_out_fits(
    z: Singles, y: Ints, parts: Sequence[Part], folds: Sequence[slice], *, start: Floats | None = None, threads: int = 1
) -> Fits:
    """Maximum likelihood of ``softmax(beta z + o + A tau)`` on all rows and on the rows outside each fold.

    Args:
        z: (n, K) centred logits. y: (n,) labels. parts: offsets o and directions A by rows.
        folds: slices of rows. start: (1 + D,) first guess, best the optimum itself; from 2,000 rows if None.
    """
    n = len(y)
    theta = np.concatenate([[1.0], np.zeros(parts[0].directions.shape[1])]) if start is None else start
    if start is None and n > 2 * START_ROWS:
        theta = _newton(Likelihood(z, y, _some(parts, n), threads), theta)
    pieces = [Likelihood(z, y, within(parts, fold, n), threads) for fold in folds]
    values = [piece(theta) for piece in pieces]
    total = _total(values)
    if not _close(total, n):
        theta = _newton(Likelihood(z, y, tuple(parts), threads), theta)
        values = [piece(theta) for piece in pieces]
        total = _total(values)
    fits = []
    for fold, own in zip(folds, values, strict=True):
        rest = (total[0] - own[0], total[1] - own[1], total[2] - own[2])
        if _close(rest, n):
            fits.append(theta + _step(rest))
        else:
            fits.append(_newton(Likelihood(z, y, without(parts, fold, n), threads), theta))
    return Fits(_clipped(theta + _step(total)), tuple(_clipped(t) for t in fits))


def _some(parts: Sequence[Part], rows: int) -> tuple[Part, ...]:
    """About `START_ROWS` rows, the first ones of every part."""
    result = []
    for part in parts:
        start, stop, _ = part.rows.indices(rows)
        length = -(-(stop - start) * START_ROWS // rows)
        result.append(Part(slice(start, min(stop, start + length)), part.offset, part.directions))
    return tuple(result)


def _total(values: Sequence[Value]) -> Value:
    v, g, i = zip(*values, strict=True)
    return float(sum(v)), np.sum(g, axis=0), np.sum(i, axis=0)


def _close(value: Value, rows: int) -> bool:
    """Whether one Newton step is enough: about 3 standard errors away at most, and rows for a quadratic likelihood."""
    return rows >= START_ROWS and float(_step(value) @ value[1]) < 10.0


def _step(value: Value) -> Floats:
    information = value[2] + (1e-9 * np.trace(value[2]) + 1e-12) * np.eye(len(value[1]))
    step = np.linalg.solve(information, value[1])
    return np.asarray(step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-300)))


def _newton(likelihood: Likelihood, theta: Floats) -> Floats:
    """Newton's method with step halving."""
    value = likelihood(theta)
    for _ in range(30):
        step = _step(value)
        if float(step @ value[1]) < 1e-5:
            break
        trial = likelihood(theta + step)
        while trial[0] < value[0] - 1e-7 * abs(value[0]) and np.abs(step).max() > 1e-9:
            step = step / 2
            trial = likelihood(theta + step)
        theta, value = theta + step, trial
    return theta


def _clipped(theta: Floats) -> Floats:
    return np.concatenate([[max(float(theta[0]), MIN_BETA)], theta[1:]])


def row_log_likelihood(z: Singles, y: Ints, beta: float, parts: Sequence[Part], threads: int = 1) -> Floats:
    """(rows of all parts,) ``log softmax(beta z + c)[y]`` with c the parts' offsets, in the order of the parts."""
    calibrated = Calibrated(z, beta, tuple(parts))

    def block(task: tuple[slice, Singles]) -> Floats:
        e = calibrated.scores(*task)
        e -= e.max(axis=1, keepdims=True)
        own = e[np.arange(len(e)), y[task[0]]].astype(np.float64)
        np.exp(e, out=e)
        return np.asarray(own - np.log((e @ np.ones(e.shape[1], np.float32)).astype(np.float64)))

    return np.concatenate(map_blocks(block, calibrated.blocks(), threads))


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
    """Whether the change is recommended, and the sentence that says why."""
    low, high = effect.difference_interval[metric.key]
    rows = f"{effect.rows:,} rows the fit had not seen"
    if effect.changed == 0:
        return False, f"not recommended: no prediction changes on {rows}"
    gain = low if metric.sign > 0 else -high
    enough = effect.turned >= ENOUGH_CHANGES or (metric.sign < 0 and effect.changed >= ENOUGH_CHANGES)
    points = f"{_points(low)} to {_points(high)} points on {rows}"
    if gain > 0 and enough:
        return True, f"recommended: {metric.words} changes by {points}"
    if gain > 0:
        return False, f"not recommended: only {effect.turned} of {rows} become right or wrong, too few to judge"
    return False, f"not recommended: the change in {metric.words} is {points}, harm is not excluded"


def _points(value: float) -> str:
    """A share as percentage points with its sign, two decimals where one would hide it."""
    text = f"{100 * value:+.1f}"
    return f"{100 * value:+.2f}" if text in ("+0.0", "-0.0") else text


@dataclass(frozen=True)
class FoldModel:
    """A correction for the rows of one fold.

    Attributes: beta: scale. own: the fold's rows with their constants. rest: all other rows, on which the goal's offset
    is worked out. log_prior: (K,) log evaluation prior.
    """

    rows: slice
    beta: float
    own: tuple[Part, ...]
    rest: tuple[Part, ...]
    log_prior: Floats


def decide_folds(
    z: Singles,
    models: Sequence[FoldModel],
    goal: Goal,
    *,
    wanted: Floats | None = None,
    masked: bool = False,
    threads: int = 1,
) -> Ints:
    """(n,) predictions of every row by the correction of its fold."""
    after = np.empty(sum(m.rows.stop - m.rows.start for m in models), np.int64)
    for m in models:
        offset = goal.rule(Calibrated(z, m.beta, m.rest, masked, threads), m.log_prior, wanted)
        after[m.rows] = Calibrated(z, m.beta, m.own, masked, threads).decide(offset)
    return after


def crossfit_effect(
    z: Singles,
    y: Ints,
    *,
    parts: Sequence[Part],
    goal: str = "accuracy",
    start: Floats | None = None,
    log_prior: Floats | None = None,
    folds: int = 2,
    threads: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """What the correction along given directions brings, without choosing a model: the audit's block ``fix``.

    Args:
        z: (n, K) centred logits of rows in random order. y: (n,) labels.
        parts: offset and directions by rows, as in `evenhand.tilt.Likelihood`.
        goal: a name of `evenhand.goals.GOALS`. start: (1 + D,) the fit on all rows.
        log_prior: (K,) log of the evaluation prior; the labels outside each fold stand in if None.
        folds: slices of rows. seed: of the bootstrap.

    Returns:
        goal, before, after, after_interval, difference_interval (metric -> value), recommended, why, scale, offset:
        the corrected scores are ``scale * logits + offset``.
    """
    n, k = z.shape
    slices = fold_edges(n, folds)
    masked = bool(z.min() <= FLOOR)
    chosen = find_goal(goal)
    fits = leave_out_fits(z, y, parts, slices, start=start, threads=threads)
    models = [
        FoldModel(
            fold,
            float(theta[0]),
            at(within(parts, fold, n), theta),
            at(without(parts, fold, n), theta),
            rest_log_prior(y, fold, k) if log_prior is None else log_prior,
        )
        for fold, theta in zip(slices, fits.folds, strict=True)
    ]
    after = decide_folds(z, models, chosen, masked=masked, threads=threads)
    effect = measure_effect(y, decide_raw(z, threads), after, seed=seed)
    recommended, why = judge(effect, chosen.metric)
    constant = at(parts, fits.full)
    known = smoothed_log_prior(np.bincount(y, minlength=k)) if log_prior is None else log_prior
    extra = chosen.rule(Calibrated(z, float(fits.full[0]), constant, masked, threads), known, None)
    offset = np.mean([p.offset for p in constant], axis=0) + extra
    return effect.as_dict() | {
        "goal": goal,
        "recommended": recommended,
        "why": why,
        "scale": float(fits.full[0]),
        "offset": offset - offset.mean(),
    }


def rest_log_prior(y: Ints, fold: slice, classes: int) -> Floats:
    """(K,) log prior of the labels outside a fold."""
    return smoothed_log_prior(np.bincount(y, minlength=classes) - np.bincount(y[fold], minlength=classes))


def decide_raw(z: Singles, threads: int = 1) -> Ints:
    """(n,) argmax of the scores as they are."""
    rows = max(4, BLOCK_CELLS // z.shape[1])
    blocks = [slice(start, start + rows) for start in range(0, len(z), rows)]
    return np.concatenate(map_blocks(lambda b: z[b].argmax(axis=1), blocks, threads))
