"""Goals: what a correction is for, how it is measured, and which decision serves it.

Every goal is one entry of `GOALS`: a metric, and a rule that turns calibrated posteriors into a decision. Calibrated
posteriors are enough for all of them: a rule never sees the labels of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.declared import Floats, InputError
from evenhand.goals import rules
from evenhand.goals.aims import Aim, frequency_groups
from evenhand.goals.costs import Costs, as_costs
from evenhand.goals.decisions import Decision
from evenhand.goals.metrics import METRICS, REPORTED, CountDistance, MeanCost, Metric
from evenhand.goals.posteriors import Calibrated
from evenhand.goals.rules import Rule, match_counts

__all__ = [
    "GOALS", "METRICS", "REPORTED", "Aim", "Calibrated", "Costs", "CountDistance", "Decision", "Goal", "MeanCost",
    "Metric",
    "as_costs",
    "find_goal", "frequency_groups", "match_counts", "score", "stated_prior",
]  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What a correction aims at.

    Attributes:
        name: as users write it. metric: what must improve. sentence: the goal in plain words.
        rule: (calibrated posteriors, aim, a decision to start from or None) -> decision.
        needs: what a user must state beside the name: "costs", "prior" or nothing.
        fitted: whether the decision depends on the rows, so that it can be worked out anew on unlabelled ones.
        shrunk: whether mixtures with the most probable class are tried on held-out rows.
    """

    name: str
    metric: Metric
    rule: Rule
    sentence: str
    needs: str = ""
    fitted: bool = False
    shrunk: bool = True


GOALS = {
    g.name: g
    for g in (
        Goal("accuracy", METRICS["accuracy"], rules.most_probable, "as many rows right as possible", shrunk=False),
        Goal(
            "balanced-accuracy",
            METRICS["balanced_accuracy"],
            rules.divide_by_prior,
            "every class equally often right, however rare it is",
        ),
        Goal(
            "macro-f1",
            METRICS["macro_f1"],
            rules.balance_f1,
            "every class found and not overused: the mean of the classes' F1",
            fitted=True,
        ),
        Goal(
            "g-mean",
            METRICS["g_mean"],
            rules.balance_recalls,
            "no class left behind: the geometric mean of the classes' recalls",
            fitted=True,
        ),
        Goal(
            "worst-group",
            METRICS["worst_group"],
            rules.lift_worst_group,
            "the worst of head, medium and tail as good as possible",
            fitted=True,
        ),
        Goal(
            "counts",
            METRICS["count_distance"],
            rules.meet_counts,
            "every class predicted as often as it occurs",
            fitted=True,
            shrunk=False,
        ),
        Goal("cost", METRICS["cost"], rules.least_cost, "mistakes as cheap as possible", needs="costs"),
        Goal(
            "prior",
            METRICS["prior_accuracy"],
            rules.move_to_prior,
            "as many rows right as possible where the classes have the stated frequencies",
            needs="prior",
        ),
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


def score(
    goal: str, target: Any, decided: Any, *, classes: int, costs: Any = None, prior: Any = None, frequency: Any = None
) -> float:
    """The value of a goal's metric, for scorers.

    Args:
        goal: a name of `GOALS`. target, decided: (n,) class numbers. classes: K.
        costs: for ``cost``, any form `as_costs` takes. prior: (K,) for ``prior``. frequency: (K,) training counts that
            make up head, medium and tail for ``worst-group``; the targets' own if None.

    Example:
        >>> score("macro-f1", [0, 0, 1], [0, 1, 1], classes=2)
        0.6666666666666666
        >>> score("cost", [0, 0, 1], [0, 1, 1], classes=2, costs=[6.0, 1.0])
        2.0
    """
    y, j = np.asarray(target, np.int64), np.asarray(decided, np.int64)
    counts = [np.bincount(v, minlength=classes).astype(np.float64) for v in (y, j, y[y == j])]
    known = counts[0] if frequency is None else np.asarray(frequency, np.float64)
    aim = Aim(
        log_prior=np.log(known + 0.5),
        costs=None if costs is None else as_costs(costs, classes),
        stated_prior=stated_prior(prior, classes),
        groups=frequency_groups(known),
    )
    metric = find_goal(goal).metric.bound(aim)
    if isinstance(metric, MeanCost):
        return float(metric.per_row(y, j).mean())
    return float(metric.measure(*counts))


def stated_prior(values: Any, classes: int) -> Floats | None:
    """(K,) shares above 0 that sum to 1, or None.

    Raises:
        InputError: another length, negative, not finite or all zero.
    """
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (classes,) or array.dtype.kind not in "iuf":
        raise InputError(
            f"prior must hold one number for each of the {classes} classes but has shape {array.shape} and type "
            f"{array.dtype}; give a vector in class order"
        )
    if not np.isfinite(array).all() or array.min() < 0 or array.max() <= 0:
        raise InputError("prior must be finite, zero or more and not all zero; pass how frequent each class will be")
    # A class said never to occur keeps a millionth of an equal share: its logarithm must stay finite.
    share = np.maximum(array / array.sum(), 1e-6 / classes)
    return np.asarray(share / share.sum(), dtype=np.float64)
