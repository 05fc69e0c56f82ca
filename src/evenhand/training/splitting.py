"""Rows in two parts: by class, so that both know every class they can, and by group, so that none is on both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

OWN_STREAM = 0x5EED


def held_out(target: Any, group: Any, *, share: float, seed: int, keep_all: bool = True) -> np.ndarray[Any, Any]:
    """(N,) bool, the rows of the second part: about `share` of every class, whole groups only.

    A class of several groups has some on both sides. A class of a single group is in the first part, or, without
    `keep_all`, on either side by chance.

    Args:
        target: (N,) classes. group: (N,) groups. share: of the rows. seed: of the order.
        keep_all: whether the first part must have every class.

    Example:
        >>> chosen = held_out(np.repeat([0, 1, 2], [60, 6, 1]), np.arange(67), share=1 / 3, seed=0)
        >>> np.bincount(np.repeat([0, 1, 2], [60, 6, 1])[chosen], minlength=3).tolist()
        [20, 2, 0]
    """
    # Rows are often drawn, or parted before, with `default_rng(0)`: its numbers again would tie these halves to those.
    rng = np.random.default_rng([OWN_STREAM, seed])
    _, group = np.unique(group, return_inverse=True)
    groups, classes = int(group.max()) + 1, int(target.max()) + 1
    # Every group counts for its most frequent class: a pair (group, class) per row, the fullest pair of each group.
    pair, rows = np.unique(group * classes + target, return_counts=True)
    order = np.lexsort((rng.random(len(pair)), rows, pair // classes))
    last = np.append(np.flatnonzero(np.diff(pair[order] // classes)), len(pair) - 1)
    main = (pair[order] % classes)[last]
    size = np.bincount(group, minlength=groups)
    shuffled = np.lexsort((rng.random(groups), main))
    before = np.cumsum(size[shuffled]) - size[shuffled]
    total = np.bincount(main, size, classes)
    begin = np.cumsum(total) - total
    position = (before + size[shuffled] / 2 - begin[main[shuffled]]) / np.maximum(total[main[shuffled]], 1)
    taken = np.zeros(groups, bool)
    taken[shuffled] = position > 1 - share
    # A small class would round to nothing on one side.
    number = np.bincount(main, minlength=classes)
    several = np.flatnonzero(number > 1)
    for k in several[np.isin(several, main[taken], invert=True)]:
        taken[rng.choice(np.flatnonzero(main == k))] = True
    if keep_all:
        _give_back(taken, group, target, classes)
    else:
        # Classes of one group go either way: all on one side, the other would know nothing of the rarest.
        alone = np.flatnonzero(number[main] == 1)
        taken[alone] = rng.random(len(alone)) < share
    return np.asarray(taken[group])


def _give_back(taken: Any, group: Any, target: Any, classes: int) -> None:
    """Groups return to the first part until it has every class; in place."""
    while True:
        first = np.bincount(target[~taken[group]], minlength=classes)
        lost = np.flatnonzero((first == 0) & (np.bincount(target, minlength=classes) > 0))
        if not len(lost):
            return
        taken[group[np.flatnonzero((target == lost[0]) & taken[group])[0]]] = False
