"""Two classes that changed names, seen in the scores: the more the model prefers one, the more often it is the other.

Between two classes any sound model leans to the right side, however weak it is and however it is tilted: a tilt moves
the point where it changes sides, not the direction. A falling relation is what a swap leaves, and nothing else does.
Counting errors cannot see it where the classes are hard, because then few rows are answered as either.
"""

from __future__ import annotations

import numpy as np

from evenhand.declared import Ints
from evenhand.likelihood import Singles
from evenhand.mapping import LabelMap
from evenhand.tally import Tally

CANDIDATES = 30
SURELY = 6.0  # standard errors; among 30 pairs of 100,000 classes chance stays below one in a hundred thousand
STEEP = 0.4  # nats of log odds per unit of difference: that of a sound model is near one
FEWEST = 4  # rows of each class


def find_swap(t: Tally, z: Singles, y: Ints) -> LabelMap | None:
    """The pair of classes that is most surely swapped, as a renaming; None if there is none.

    Args:
        t: whose errors choose the pairs to look at. z: (n, K) logits of the row sample. y: (n,) labels.
    """
    best: tuple[float, int, int] | None = None
    for a, b in _candidates(t):
        first, second = (z[np.flatnonzero(y == c)] for c in (a, b))
        if min(len(first), len(second)) < FEWEST:
            continue
        lean = [np.clip(rows[:, a].astype(np.float64) - rows[:, b], -30, 30) for rows in (first, second)]
        within = sum(float(((x - x.mean()) ** 2).sum()) for x in lean) / (len(first) + len(second) - 2)
        between = float(lean[0].mean() - lean[1].mean())
        error = float(np.sqrt(within * (1 / len(first) + 1 / len(second)))) + 1e-9
        if (
            between / error < -SURELY
            and between / (within + 1e-9) < -STEEP
            and (best is None or between / error < best[0])
        ):
            best = (between / error, a, b)
    return None if best is None else _renaming(t, best[1], best[2])


def _candidates(t: Tally) -> list[tuple[int, int]]:
    """Pairs of classes with most rows on the other's side, less those on their own."""
    low, high = np.minimum(t.edge_true, t.edge_predicted), np.maximum(t.edge_true, t.edge_predicted)
    pair, where = np.unique(low.astype(np.int64) * t.classes + high, return_inverse=True)
    crossed = np.bincount(where, t.edge_count)
    a, b = pair // t.classes, pair % t.classes
    wrong = crossed - np.minimum(t.hits[a] + t.hits[b], 3 * crossed)
    chosen = np.argsort(-wrong, kind="stable")[:CANDIDATES]
    return [(int(a[i]), int(b[i])) for i in chosen]


def _renaming(t: Tally, a: int, b: int) -> LabelMap:
    true_of = np.arange(t.classes)
    true_of[[a, b]] = b, a
    rows = int(t.true[a] + t.true[b])
    crossed = ((t.edge_true == a) & (t.edge_predicted == b)) | ((t.edge_true == b) & (t.edge_predicted == a))
    before, after = float(t.hits[a] + t.hits[b]) / rows, float(t.edge_count[crossed].sum()) / rows
    return LabelMap(true_of, None, 2, rows, before, after)
