"""From calibrated posteriors to a decision that serves a goal, judged row by row by folds that have not seen the row.

The decision of the goal is mixed with a second one: with the most probable class, so that a rule which the rows do not
bear out is drawn back (never below the argmax of the calibrated scores on held-out rows), or, where the user asks for a
metric to stay above a value, with the decision that serves that metric best. How much of the second is mixed in is
read from held-out rows; the share used on a fold is chosen on the other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evenhand.correction.crossfit import FoldModel
from evenhand.correction.effects import class_counts_of
from evenhand.declared import Floats, InputError, Ints
from evenhand.goals import Aim, Calibrated, Decision, Goal, MeanCost, Metric, find_goal
from evenhand.goals.decisions import path, softmax_rows
from evenhand.tilt import Singles, map_blocks

SHRINKAGE = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_ODDS = 2.0 ** np.linspace(-8, 8, 21)
COMPROMISES = np.concatenate([[0.0], _ODDS / (1 + _ODDS), [1.0]])  # even in the logarithm of the multiplier
RANKS = (1, 5, 10)
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class Limit:
    """A metric that must not fall below a value. goal: the goal that serves it, which names it. least: the value."""

    goal: Goal
    least: float


@dataclass(frozen=True, eq=False)
class Served:
    """A decision and what it does to rows it has not seen.

    Attributes:
        decision: for new rows. share: of the second decision in it. share_tuned: the same where the decision is worked
            out on the rows that are decided, see `Correction.tuned_to`. after: (n,) decided classes.
        final: (n,) classes that `decision` itself decides with the folds' calibrations; None where it is no rule of
            the rows.
        confidence: (n,) calibrated posterior of the decided class. rank: (n,) classes that score above the true one.
    """

    decision: Decision
    share: float
    share_tuned: float
    final: Ints | None
    after: Ints
    confidence: Singles
    rank: Ints


def parse_limit(at_least: object, goal: Goal) -> Limit | None:
    """``("accuracy", 0.8)`` or ``{"accuracy": 0.8}`` as a limit.

    Raises:
        InputError: another form, an unknown metric, the goal's own metric, or a value outside (0, 1).
    """
    if at_least is None:
        return None
    pair = next(iter(at_least.items())) if isinstance(at_least, dict) and len(at_least) == 1 else at_least
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
        raise InputError(
            f"at_least names one metric and its value but {at_least!r:.60} came; pass for instance {{'accuracy': 0.8}}"
        )
    name, least = pair[0].replace("_", "-"), pair[1]
    allowed = ("accuracy", "balanced-accuracy", "macro-f1", "g-mean", "worst-group")
    if name not in allowed or name == goal.name:
        raise InputError(
            f"at_least takes another metric than that of the goal {goal.name}, among {', '.join(allowed)}, got "
            f"{name!r:.40}; choose one of them"
        )
    if isinstance(least, bool) or not isinstance(least, (int, float)) or not 0 < least < 1:
        raise InputError(f"at_least {name} must be a share between 0 and 1, got {least!r:.40}; 0.8 is 80 %")
    return Limit(find_goal(name), float(least))


def serve(
    goal: Goal,
    aim: Aim,
    final: Calibrated,
    models: Sequence[FoldModel],
    y: Ints,
    *,
    limit: Limit | None = None,
) -> Served:
    """The decision for new rows, and cross-fitted decisions on the rows at hand.

    The rules of the folds start from the final one: they see the same rows but a fifth, and no labels. Class
    frequencies are those of all rows, as in the metrics: a recall divides by the class's rows, and frequencies that
    left out the fold would favour classes that are rare outside it, whose recalls then count the more.

    Args:
        goal, aim: what is wanted. final: calibrated posteriors of all rows with a label that can be judged.
        models: the folds' own calibrations, covering the same rows. y: (n,) their labels.

    Raises:
        InputError: the limit cannot be met; the sentence says what can be reached.
    """
    second = find_goal("accuracy") if limit is None else limit.goal
    shares = COMPROMISES if limit is not None else SHRINKAGE if goal.shrunk else np.zeros(1)
    prior = np.exp(aim.log_prior)
    ends = goal.rule(final, aim, None), second.rule(final, aim, None)
    paths = []
    for m in models:
        rest = replace(final, beta=m.beta, parts=m.rest)
        starts = (end if g.fitted else None for g, end in zip((goal, second), ends, strict=True))
        pair = [g.rule(rest, aim, start) for g, start in zip((goal, second), starts, strict=True)]
        paths.append(path(pair[0], pair[1], prior, shares))
    decided = np.concatenate(
        [replace(final, beta=m.beta, parts=m.own).choose(p) for m, p in zip(models, paths, strict=True)], axis=1
    )
    metrics = [goal.metric.bound(aim)] + ([] if limit is None else [limit.goal.metric.bound(aim)])
    folds = [m.rows for m in models]
    best, others = _shares(y, decided, folds, len(aim.log_prior), metrics, limit)
    after = np.concatenate([decided[at, fold] for at, fold in zip(others, folds, strict=True)])
    judged = [
        _judge_rows(replace(final, beta=m.beta, parts=m.own), p[at], y, after)
        for m, p, at in zip(models, paths, others, strict=True)
    ]
    confidence, rank = (np.concatenate(column) for column in zip(*judged, strict=True))
    whole = path(ends[0], ends[1], prior, shares)
    decision, tuned, known = (whole[best] if len(shares) > 1 else ends[0]), best, None
    if goal.fitted and limit is None and len(shares) > 1:
        # Of the final decision, which knows the posteriors of all rows: labels enter by the folds' calibrations alone.
        known = np.concatenate([replace(final, beta=m.beta, parts=m.own).choose(whole) for m in models], axis=1)
        tuned = _shares(y, known, folds, len(aim.log_prior), metrics, None)[0]
    same = None if known is None else known[best]
    return Served(decision, float(shares[best]), float(shares[tuned]), same, after, confidence, rank)


def _shares(
    y: Ints, decided: Ints, folds: Sequence[slice], classes: int, metrics: Sequence[Metric], limit: Limit | None
) -> tuple[int, list[int]]:
    """Which share to use: on new rows, and for each fold, where only the rows outside it speak."""
    if len(decided) == 1:
        return 0, [0] * len(folds)
    everything = slice(0, len(y))
    values = [_values(y, decided, folds, classes, metric) for metric in metrics]
    best = [_best(metrics, [v[index] for v in values], limit) for index in range(len(folds) + 1)]
    if best[-1] is None and limit is not None:
        words, reached = limit.goal.metric.words, float(values[1][-1].max())
        raise InputError(
            f"{words} of at least {limit.least:g} cannot be reached: the best on {everything.stop:,} held-out rows is "
            f"{reached:.3f}; ask for less or improve the model"
        )
    final = best[-1] or 0
    return final, [final if b is None else b for b in best[:-1]]


def _values(y: Ints, decided: Ints, folds: Sequence[slice], classes: int, metric: Metric) -> list[Floats]:
    """For each fold, and last for none left out: (decisions,) values of the metric on the rows outside the fold."""
    if isinstance(metric, MeanCost):
        cost = np.stack([[metric.per_row(y[f], d[f]).sum() for d in decided] for f in folds])
        rows = np.array([f.stop - f.start for f in folds])
        return [(cost.sum(axis=0) - c) / (rows.sum() - r) for c, r in zip(cost, rows, strict=True)] + [
            cost.sum(axis=0) / rows.sum()
        ]
    result: list[list[float]] = [[] for _ in range(len(folds) + 1)]
    for d in decided:
        counts = np.stack([class_counts_of(y[f], d[f], classes) for f in folds])
        total = counts.sum(axis=0)
        for index, left_out in enumerate([*counts, np.zeros_like(total)]):
            result[index].append(float(metric.measure(*(total - left_out))))
    return [np.array(values) for values in result]


def _best(metrics: Sequence[Metric], values: Sequence[Floats], limit: Limit | None) -> int | None:
    """The share with the best value of the goal that keeps the limit; the smallest one among equals."""
    merit = metrics[0].sign * values[0]
    if limit is not None:
        merit = np.where(values[1] >= limit.least, merit, -np.inf)
    best = int(merit.argmax())
    return best if np.isfinite(merit[best]) else None


def _judge_rows(calibrated: Calibrated, decision: Decision, y: Ints, after: Ints) -> tuple[Singles, Ints]:
    """Posterior of the class decided, and how many classes score above the true one."""

    def block(task: tuple[slice, Singles]) -> tuple[Singles, Ints]:
        at = task[0]
        e, rows = calibrated.scores(*task), np.arange(at.stop - at.start)
        p = softmax_rows(e.copy())
        merit = e + decision.offset.astype(np.float32) if decision.additive else decision.utilities(p)
        own = merit[rows, y[at]]
        return p[rows, after[at]], np.asarray((merit > own[:, None]).sum(axis=1))

    found = map_blocks(block, calibrated.blocks(), calibrated.threads)
    confidence, rank = (np.concatenate(column) for column in zip(*found, strict=True))
    return confidence, rank


def measure_ranks(rank: Ints, classes: int) -> dict[str, float]:
    """Share of rows whose true class is among the k best: k as text -> share."""
    return {str(k): float((rank < k).mean()) for k in RANKS if k < classes}


def measure_abstention(y: Ints, after: Ints, confidence: Singles) -> list[dict[str, float]]:
    """Accuracy on the rows that are answered, when the least confident ones are left out.

    Returns:
        For each of several coverages: threshold (for ``Correction.predict(abstain_below=...)``), coverage, accuracy and
        its 95 % interval (normal approximation with two rows of each kind added, Agresti and Coull 1998).
    """
    right = y == after
    result = []
    for coverage in COVERAGES:
        threshold = 0.0 if coverage == 1 else float(np.quantile(confidence, 1 - coverage))
        answered = confidence >= threshold
        rows, hits = int(answered.sum()), int(right[answered].sum())
        centre = (hits + 2) / (rows + 4)
        half = 1.96 * (centre * (1 - centre) / (rows + 4)) ** 0.5
        result.append(
            {
                "threshold": threshold,
                "coverage": rows / len(y),
                "accuracy": hits / max(rows, 1),
                "low": max(0.0, centre - half),
                "high": min(1.0, centre + half),
            }
        )
    return result
