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

from evenhand.correction.effects import judge, measure_effect
from evenhand.declared import Floats, InputError, Ints
from evenhand.goals import METRICS, REPORTED, Aim, Calibrated, Goal, find_goal, frequency_groups
from evenhand.priors import SMOOTHING, smoothed_log_prior
from evenhand.tilt import BLOCK_CELLS, FLOOR, Likelihood, Part, Singles, Value, climb, map_blocks

START_ROWS = 2_000
MIN_BETA = 1e-3  # a scale of zero or less would turn masked classes loose and reverse every ranking


def fold_edges(rows: int, folds: int, group: Ints | None = None) -> list[slice]:
    """Consecutive slices of nearly equal length, cut between groups only; empty ones are left out.

    Args:
        rows, folds: how many. group: (rows,) numbers, the rows of each in a run.

    Example:
        >>> fold_edges(6, 2, np.array([4, 4, 4, 4, 1, 0]))
        [slice(0, 4, None), slice(4, 6, None)]
    """
    edges = np.linspace(0, rows, folds + 1).astype(int)
    if group is not None:
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(group[:rows])) + 1, [rows]])
        edges = cuts[np.abs(cuts[:, None] - edges).argmin(axis=0)]
    return [slice(int(a), int(b)) for a, b in pairwise(edges) if b > a]


def fold_numbers(folds: Sequence[slice], rows: int) -> Ints:
    """(rows,) the number of each row's fold; rows behind the last fold are dealt out in turn.

    Example:
        >>> fold_numbers([slice(0, 2), slice(2, 5)], 7).tolist()
        [0, 0, 1, 1, 1, 0, 1]
    """
    number = np.repeat(np.arange(len(folds)), [fold.stop - fold.start for fold in folds])
    return np.concatenate([number, np.arange(rows - len(number)) % len(folds)])


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


def self_counted_fit(
    z: Singles, y: Ints, parts: Sequence[Part], counts: Ints, *, start: Floats | None = None, threads: int = 1
) -> Floats:
    """(beta, tau) of ``softmax(beta z + o + tau log n)`` where the counts n are those of the rows it is fitted to.

    A row's own label raises the log count of its class by ``log (n + 1/2) / (n - 1/2)``, so that tau comes out too
    large, and tends to 1 where z is noise. Its expected part of the gradient, ``sum_i (1 - p_i) log (n + 1/2) / (n -
    1/2)`` with p_i the probability of the true class, is taken out by a Newton step. The step ends at tau = 0: label
    counts more even than chance, of a stratified sample, would carry it on to large negative values.

    Args:
        parts: offsets and the one direction, for the rows to fit to. counts: (K,) their labels. start: (2,) guess.
    """
    likelihood = Likelihood(z, y, tuple(parts), threads)
    if start is None and len(y) > 2 * START_ROWS:
        start = _newton(Likelihood(z, y, _some(parts, len(y)), threads), np.array([1.0, 0.0]))
    theta = _newton(likelihood, np.array([1.0, 0.0]) if start is None else start)
    n = counts.astype(np.float64)
    own = np.where(n > 0, np.log((n + SMOOTHING) / np.maximum(n - SMOOTHING, SMOOTHING)), 0.0)
    missed = -np.expm1(row_log_likelihood(z, y, max(float(theta[0]), MIN_BETA), at(parts, theta), threads))
    size = len(y)
    labels = np.concatenate([y[part.rows] for part in within(parts, slice(0, size), size)])
    leak = float(missed @ own[labels])
    value = likelihood(theta)
    step = _step((value[0], np.array([0.0, -leak]), value[2]))
    taken = float(np.clip(theta[1] / max(-float(step[1]), 1e-300), 0.0, 1.0))
    return _clipped(theta + taken * step)


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
        theta, value = climb(likelihood, theta, value, step)
    return theta


def _clipped(theta: Floats) -> Floats:
    return np.concatenate([[max(float(theta[0]), MIN_BETA)], theta[1:]])


def row_log_likelihood(
    z: Singles, y: Ints, beta: float | Floats, parts: Sequence[Part], threads: int = 1, top: Singles | None = None
) -> Floats:
    """(rows of all parts,) ``log softmax(beta z + c)[y]`` with c the parts' offsets, in the order of the parts."""
    calibrated = Calibrated(z, beta, tuple(parts), top=top)

    def block(task: tuple[slice, Singles]) -> Floats:
        e = calibrated.scores(*task)
        e -= e.max(axis=1, keepdims=True)
        own = e[np.arange(len(e)), y[task[0]]].astype(np.float64)
        np.exp(e, out=e)
        return np.asarray(own - np.log((e @ np.ones(e.shape[1], np.float32)).astype(np.float64)))

    return np.concatenate(map_blocks(block, calibrated.blocks(), threads))


@dataclass(frozen=True)
class FoldModel:
    """A correction for the rows of one fold.

    Attributes: beta: scale, one number or (K,). own: the fold's rows with their constants. rest: all other rows, on
    which the goal's decision is worked out.
    """

    rows: slice
    beta: float | Floats
    own: tuple[Part, ...]
    rest: tuple[Part, ...]


def decide_folds(
    z: Singles, models: Sequence[FoldModel], goal: Goal, *, aim: Aim, masked: bool = False, threads: int = 1
) -> Ints:
    """(n,) predictions of every row by the correction of its fold."""
    after = np.empty(sum(m.rows.stop - m.rows.start for m in models), np.int64)
    for m in models:
        decision = goal.rule(Calibrated(z, m.beta, m.rest, masked, threads), aim, None)
        after[m.rows] = Calibrated(z, m.beta, m.own, masked, threads).choose([decision])[0]
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
        goal: a name of `evenhand.goals.GOALS` that needs nothing stated. start: (1 + D,) the fit on all rows.
        log_prior: (K,) log of the evaluation prior; the labels stand in if None.
        folds: slices of rows. seed: of the bootstrap.

    Returns:
        goal, before, after, after_interval, difference_interval (metric -> value), recommended, why, scale, offset:
        the corrected scores are ``scale * logits + offset``; a goal that is no offset is not part of it.

    Raises:
        InputError: an unknown goal, or one that needs costs or a prior.
    """
    n, k = z.shape
    slices = fold_edges(n, folds)
    masked = bool(z.min() <= FLOOR)
    chosen = find_goal(goal)
    if chosen.needs:
        raise InputError(f"the goal {goal} needs {chosen.needs} stated; use evenhand fix, which takes them")
    fits = leave_out_fits(z, y, parts, slices, start=start, threads=threads)
    models = [
        FoldModel(
            fold,
            float(theta[0]),
            at(within(parts, fold, n), theta),
            at(without(parts, fold, n), theta),
        )
        for fold, theta in zip(slices, fits.folds, strict=True)
    ]
    known = smoothed_log_prior(np.bincount(y, minlength=k)) if log_prior is None else log_prior
    aim = Aim(known, groups=frequency_groups(known))
    metric = chosen.metric.bound(aim)
    after = decide_folds(z, models, chosen, aim=aim, masked=masked, threads=threads)
    metrics = {key: METRICS[key] for key in REPORTED} | {metric.key: metric}
    # A tilt and a scale match no class's count; only a decision that was fitted to the other folds does.
    numbers, matched = fold_numbers(slices, n) if chosen.fitted else None, metric.key == "count_distance"
    raw = decide_raw(z, threads)
    effect = measure_effect(y, raw, after, metrics=metrics, folds=numbers, matched=matched, seed=seed)
    recommended, why = judge(effect, metric)
    constant = at(parts, fits.full)
    decision = chosen.rule(Calibrated(z, float(fits.full[0]), constant, masked, threads), aim, None)
    extra = decision.offset if decision.additive else np.zeros(k)
    offset = np.mean([p.offset for p in constant], axis=0) + extra
    return effect.as_dict() | {
        "goal": goal,
        "recommended": recommended,
        "why": why,
        "scale": float(fits.full[0]),
        "offset": offset - offset.mean(),
    }


def decide_raw(z: Singles, threads: int = 1) -> Ints:
    """(n,) argmax of the scores as they are."""
    rows = max(4, BLOCK_CELLS // z.shape[1])
    blocks = [slice(start, start + rows) for start in range(0, len(z), rows)]
    return np.concatenate(map_blocks(lambda b: z[b].argmax(axis=1), blocks, threads))
