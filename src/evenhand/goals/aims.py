"""What a user states beside the name of a goal: costs, a prior, wanted counts; and the frequencies that rules need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenhand.declared import Floats, Ints
from evenhand.goals.costs import Costs


@dataclass(frozen=True, eq=False)
class Aim:
    """What a rule may know about the classes; it never sees the labels of the rows.

    Attributes:
        log_prior: (K,) log frequencies of the classes in the rows, finite.
        wanted: (K,) counts that predictions should meet, or None. costs: what mistakes cost, or None.
        stated_prior: (K,) class probabilities where the model will be used, summing to 1, or None.
        groups: (K,) 0 head, 1 medium, 2 tail; None where no goal asks for them.
    """

    log_prior: Floats
    wanted: Floats | None = None
    costs: Costs | None = None
    stated_prior: Floats | None = None
    groups: Ints | None = None


def frequency_groups(frequency: Floats) -> Ints:
    """(K,) 0 for the most frequent third of the classes (head), 1 for the next (medium), 2 for the rarest (tail).

    The same thirds as `evenhand.counts.groups`, for frequencies that are no whole numbers.

    Example:
        >>> frequency_groups(np.array([0.1, 0.6, 0.3])).tolist()
        [2, 0, 1]
    """
    k = len(frequency)
    order, third = np.argsort(-frequency, kind="stable"), round(k / 3)
    result = np.ones(k, np.int64)
    result[order[:third]] = 0
    result[order[k - third :]] = 2
    return result
