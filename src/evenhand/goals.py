"""Goals: what a correction is for, how it is measured, and which offsets serve it.

Every goal is one entry of `GOALS`: a metric computed from three count vectors, and a rule that turns calibrated
posteriors into one offset per class, to be added before the argmax. Calibrated posteriors are enough for all of them:
a rule never sees the labels of the rows.

Sources: Menon et al., "Long-tail learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314, for the
balanced accuracy; Elkan, "The foundations of cost-sensitive learning" (2001), for decisions on posteriors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evenhand.declared import Floats, InputError, Ints
from evenhand.tilt import BLOCK_CELLS, FLOOR, Part, Singles, map_blocks

ITERATIONS = 100


@dataclass(frozen=True)
class Metric:
    """A figure of merit from counts: ``measure(true, predicted, hits)`` over the last axis, one value per leading axis.

    Attributes: key: its name in results. words: how a sentence names it. sign: +1 where more is better, else -1.
    """

    key: str
    words: str
    measure: Callable[[Floats, Floats, Floats], Floats]
    sign: int = 1


def accuracy(true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG001
    """Share of right rows, ``sum_c hits_c / sum_c true_c``."""
    return np.asarray(hits.sum(axis=-1) / np.maximum(true.sum(axis=-1), 1))


def balanced_accuracy(true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG001
    """Mean of ``hits_c / true_c`` over the classes that occur."""
    return np.asarray((hits / np.maximum(true, 1)).sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1))


def macro_f1(true: Floats, predicted: Floats, hits: Floats) -> Floats:
    """Mean of ``2 hits_c / (true_c + predicted_c)`` over classes that occur or are predicted."""
    both = true + predicted
    return np.asarray((2 * hits / np.maximum(both, 1)).sum(axis=-1) / np.maximum((both > 0).sum(axis=-1), 1))


def count_distance(true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG001
    """Total variation between predicted and true counts, ``sum_c |predicted_c - true_c| / 2 N``, in [0, 1]."""
    return np.asarray(np.abs(true - predicted).sum(axis=-1) / np.maximum(2 * true.sum(axis=-1), 1))


METRICS = {
    m.key: m
    for m in (
        Metric("accuracy", "accuracy", accuracy),
        Metric("balanced_accuracy", "balanced accuracy", balanced_accuracy),
        Metric("macro_f1", "macro F1", macro_f1),
        Metric("count_distance", "the distance between predicted and true counts", count_distance, -1),
    )
}


@dataclass(frozen=True)
class Calibrated:
    """Posteriors ``softmax(beta z + c)`` of some rows, computed block by block and never held.

    Attributes:
        z: (n, K) centred logits, see `evenhand.tilt.centred_rows`. beta: inverse temperature, above 0.
        parts: row slices with their constants c in ``offset`` (directions are not used); other rows do not count.
        masked: whether any score of z is the stand-in for -inf.
    """

    z: Singles
    beta: float
    parts: tuple[Part, ...]
    masked: bool = False
    threads: int = 1

    def blocks(self) -> list[tuple[slice, Singles]]:
        """Row slices that fit the cache, with their constant."""
        rows = max(4, BLOCK_CELLS // self.z.shape[1])
        result = []
        for part in self.parts:
            constant = part.offset.astype(np.float32)
            start, stop, _ = part.rows.indices(len(self.z))
            result += [(slice(at, min(stop, at + rows)), constant) for at in range(start, stop, rows)]
        return result

    def scores(self, rows: slice, constant: Singles) -> Singles:
        """``beta z + constant`` of one block; masked classes are -inf whatever is added to them."""
        e = self.z[rows] * np.float32(self.beta)
        e += constant
        if self.masked:
            e[self.z[rows] <= FLOOR] = -np.inf
        return e

    def decide(self, offset: Floats) -> Ints:
        """(rows of all parts,) class of the largest score after adding `offset`, in the order of the parts."""
        b = offset.astype(np.float32)
        found = map_blocks(lambda t: self.scores(t[0], t[1] + b).argmax(axis=1), self.blocks(), self.threads)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def soft_counts(self) -> Floats:
        """(K,) expected rows per class, the sum of the posteriors."""

        def block(task: tuple[slice, Singles]) -> Floats:
            e = self.scores(*task)
            e -= e.max(axis=1, keepdims=True)
            np.exp(e, out=e)
            share = 1.0 / (e @ np.ones(e.shape[1], np.float32))
            return (share @ e).astype(np.float64)

        return np.asarray(np.sum(map_blocks(block, self.blocks(), self.threads), axis=0), dtype=np.float64)


Rule = Callable[[Calibrated, Floats, "Floats | None"], Floats]


@dataclass(frozen=True)
class Goal:
    """What a correction aims at.

    Attributes:
        name: as users write it. metric: what must improve. sentence: the goal in plain words.
        rule: (calibrated posteriors, log evaluation prior (K,), wanted counts (K,) or None) -> offset (K,).
    """

    name: str
    metric: Metric
    rule: Rule
    sentence: str


def _nothing(calibrated: Calibrated, log_prior: Floats, wanted: Floats | None) -> Floats:  # noqa: ARG001
    """The most probable class is right most often."""
    return np.zeros(len(log_prior))


def _divide_by_prior(calibrated: Calibrated, log_prior: Floats, wanted: Floats | None) -> Floats:  # noqa: ARG001
    """The largest p_c / pi_c maximises the mean recall (Menon et al. 2021)."""
    return -log_prior


def _match(calibrated: Calibrated, log_prior: Floats, wanted: Floats | None) -> Floats:  # noqa: ARG001
    return match_counts(calibrated, wanted)


def match_counts(calibrated: Calibrated, wanted: Floats | None = None) -> Floats:
    """Offsets b for which ``argmax(beta z + c + b)`` predicts every class as often as wanted.

    Dual ascent on the counts: ``b_c += eta log((wanted_c + 1) / (m_c + 1))`` with m the counts predicted now and eta
    decreasing. It ends when the counts differ from the wanted ones by a quarter of what they would differ by in
    another sample of as many rows, or after 100 passes. No label is used.

    Args:
        calibrated: the rows to match on.
        wanted: (K,) counts or shares; None for the soft counts, the number of rows each class is expected to have.

    Returns:
        (K,) offsets, the best ones seen.

    Limits:
        A class cannot be predicted more often than rows exist in which it can win; scores that are equal in many rows
        move together, so that their counts jump.

    Example:
        >>> z = np.log(np.array([[0.6, 0.4]] * 5 + [[0.55, 0.45]] * 5, dtype=np.float32))
        >>> rows = Calibrated(z, 1.0, (Part(slice(None), np.zeros(2), np.zeros((2, 0))),))
        >>> np.bincount(rows.decide(match_counts(rows))).tolist()
        [5, 5]
    """
    target = calibrated.soft_counts() if wanted is None else np.asarray(wanted, np.float64)
    k, b = len(target), np.zeros(len(target))
    best, best_distance = b, np.inf
    for iteration in range(ITERATIONS):
        decided = calibrated.decide(b)
        m = np.bincount(decided, minlength=k)
        target = target * (len(decided) / target.sum())
        distance = float(np.abs(m - target).sum())
        if distance < best_distance:
            best, best_distance = b, distance
        if distance <= 0.25 * float(np.sqrt(2 / np.pi * target).sum()):
            break
        b = b + np.log((target + 1) / (m + 1)) / (2 + iteration / 15)
    return best


GOALS = {
    g.name: g
    for g in (
        Goal("accuracy", METRICS["accuracy"], _nothing, "as many rows right as possible"),
        Goal(
            "balanced-accuracy",
            METRICS["balanced_accuracy"],
            _divide_by_prior,
            "every class equally often right, however rare it is",
        ),
        Goal("counts", METRICS["count_distance"], _match, "every class predicted as often as it occurs"),
    )
}


def find_goal(name: str) -> Goal:
    """The goal of that name.

    Raises:
        InputError: there is none.

    Example:
        >>> find_goal("counts").sentence
        'every class predicted as often as it occurs'
    """
    if name not in GOALS:
        raise InputError(f"expected a goal among {', '.join(GOALS)}, got {name!r:.60}; choose one of them")
    return GOALS[name]
