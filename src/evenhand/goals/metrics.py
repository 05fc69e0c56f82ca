"""Figures of merit: what a goal wants, from three count vectors, or row by row where pairs of classes count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from evenhand.declared import Floats, Ints
from evenhand.goals.aims import Aim, frequency_groups
from evenhand.goals.costs import Costs

Formula = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True, eq=False)
class Metric:
    """A figure of merit from counts: ``measure(true, predicted, hits)`` over the last axis, one value per leading axis.

    Attributes: key: its name in results. words: how a sentence names it. formula: of the three count vectors. sign: +1
        where more is better, else -1. share: whether it lies in [0, 1]; sentences then give points.
    """

    key: str
    words: str
    formula: Formula
    sign: int = 1
    share: bool = True

    def measure(self, true: Floats, predicted: Floats, hits: Floats) -> Floats:
        """(...) values of (..., K) counts."""
        return self.formula(true, predicted, hits)

    def bound(self, aim: Aim) -> Metric:  # noqa: ARG002
        """The same metric for what a user stated: costs, a prior, wanted counts, groups."""
        return self

    def narrowed(self, classes: Ints) -> Metric:  # noqa: ARG002
        """The same metric where only the counts of these classes are passed, all others being zero."""
        return self


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


def g_mean(true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG001
    """Geometric mean of the recalls of the classes that occur; a class that is never hit counts as half a hit.

    Without the half, one missed class out of 500 would make it zero, whatever the others do.
    """
    occurs = true > 0
    logs = np.where(occurs, np.log(np.maximum(hits, 0.5) / np.maximum(true, 1)), 0.0)
    return np.asarray(np.exp(logs.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)))


@dataclass(frozen=True, eq=False)
class WorstGroup(Metric):
    """Smallest mean recall among head, medium and tail, over the classes that occur.

    Attributes: groups: (K,) group number per class; None to rank the classes by their true counts.
    """

    groups: Ints | None = None

    def measure(self, true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG002
        """(...) values of (..., K) counts."""
        rank = true if true.ndim == 1 else true.reshape(-1, true.shape[-1]).sum(axis=0)
        groups = frequency_groups(rank) if self.groups is None else self.groups
        recall, occurs = hits / np.maximum(true, 1), true > 0
        worst = np.full(true.shape[:-1], np.inf)
        for number in range(int(groups.max()) + 1):
            here = groups == number
            rows = occurs[..., here].sum(axis=-1)
            mean = recall[..., here].sum(axis=-1) / np.maximum(rows, 1)
            worst = np.minimum(worst, np.where(rows > 0, mean, np.inf))
        return np.where(np.isfinite(worst), worst, 0.0)

    def bound(self, aim: Aim) -> Metric:
        """With the groups of the aim."""
        return replace(self, groups=aim.groups)

    def narrowed(self, classes: Ints) -> Metric:
        """The groups of these classes."""
        return self if self.groups is None else replace(self, groups=self.groups[classes])


@dataclass(frozen=True, eq=False)
class PriorAccuracy(Metric):
    """Accuracy under another prior, ``sum_c q_c hits_c / true_c`` over the classes that occur, q scaled to sum to 1.

    Attributes: weight: (K,) the stated prior q; None for equal ones.
    """

    weight: Floats | None = None

    def measure(self, true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG002
        """(...) values of (..., K) counts."""
        weight = np.ones(true.shape[-1]) if self.weight is None else self.weight
        mass = (weight * (true > 0)).sum(axis=-1)
        return np.asarray((weight * hits / np.maximum(true, 1)).sum(axis=-1) / np.maximum(mass, 1e-300))

    def bound(self, aim: Aim) -> Metric:
        """With the stated prior."""
        return replace(self, weight=aim.stated_prior)

    def narrowed(self, classes: Ints) -> Metric:
        """The weights of these classes."""
        return self if self.weight is None else replace(self, weight=self.weight[classes])


@dataclass(frozen=True, eq=False)
class CountDistance(Metric):
    """Total variation between predicted and true (or wanted) counts, ``sum_c |m_c - w_c| / 2 N``, in [0, 1].

    Attributes: wanted: (K,) shares that are wanted; None for the true counts. unseen: wanted share of classes left out.
    """

    wanted: Floats | None = None
    unseen: float = 0.0

    def measure(self, true: Floats, predicted: Floats, hits: Floats) -> Floats:  # noqa: ARG002
        """(...) values of (..., K) counts."""
        rows = np.maximum(true.sum(axis=-1), 1)
        aimed = true if self.wanted is None else self.wanted * rows[..., None]
        return np.asarray(np.abs(aimed - predicted).sum(axis=-1) / (2 * rows) + self.unseen / 2)

    def bound(self, aim: Aim) -> Metric:
        """Against the wanted counts, where they are stated."""
        return self if aim.wanted is None else replace(self, wanted=aim.wanted / aim.wanted.sum())

    def narrowed(self, classes: Ints) -> Metric:
        """The wanted shares of these classes, and the sum of all others."""
        if self.wanted is None:
            return self
        kept = self.wanted[classes]
        return replace(self, wanted=kept, unseen=float(self.wanted.sum() - kept.sum()))


@dataclass(frozen=True, eq=False)
class MeanCost(Metric):
    """Mean cost per row; it depends on pairs of classes, so it is measured row by row with `per_row`."""

    costs: Costs | None = None

    def per_row(self, y: Ints, decided: Ints) -> Floats:
        """(n,) cost of each decision; 1 per mistake where no costs are stated."""
        return (y != decided).astype(np.float64) if self.costs is None else self.costs.of(y, decided)

    def bound(self, aim: Aim) -> Metric:
        """With the stated costs."""
        return replace(self, costs=aim.costs)


def error_rate(true: Floats, predicted: Floats, hits: Floats) -> Floats:
    """Share of wrong rows: the mean cost of mistakes that cost 1 each."""
    return 1.0 - accuracy(true, predicted, hits)


METRICS: dict[str, Metric] = {
    m.key: m
    for m in (
        Metric("accuracy", "accuracy", accuracy),
        Metric("balanced_accuracy", "balanced accuracy", balanced_accuracy),
        Metric("macro_f1", "macro F1", macro_f1),
        CountDistance("count_distance", "the distance between predicted and true counts", accuracy, -1),
        Metric("g_mean", "the geometric mean of the recalls", g_mean),
        WorstGroup("worst_group", "the recall of the worst group", balanced_accuracy),
        PriorAccuracy("prior_accuracy", "accuracy under the stated prior", accuracy),
        MeanCost("cost", "the mean cost", error_rate, -1, share=False),
    )
}
REPORTED = ("accuracy", "balanced_accuracy", "macro_f1", "count_distance")  # shown for every goal
