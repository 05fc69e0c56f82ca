"""Known wrong orders of a class-wise vector: how weights or labels get shuffled in real code.

Weights computed with ``np.unique`` on string labels are in string order (0, 1, 10, 100, 2, ...); an index that starts
at one, or a class missing in a batch, shifts them; ``value_counts()`` and ``Counter.most_common()`` sort by frequency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evenhand.declared import Floats, Ints


@dataclass(frozen=True)
class Order:
    """A permutation with a name: position c of the wrong vector holds what belongs to class ``index[c]``."""

    name: str
    index: Ints

    def apply(self, vector: Floats) -> Floats:
        """The vector as it looks in this wrong order."""
        return np.asarray(vector[self.index])


def known_orders(counts: Floats, names: Sequence[str] | None = None) -> Iterator[Order]:
    """Every named order of K classes that differs from the identity.

    Args:
        counts: (K,) training counts, for the frequency orders (ties keep class order, as value_counts does).
        names: class names, for their alphabetical order.
    """
    k = len(counts)
    identity = np.arange(k)
    as_text = np.argsort(np.array([str(i) for i in range(k)]), kind="stable")
    candidates: list[tuple[str, Ints]] = [
        ("sorted as text (0, 1, 10, 100, 2, ...)", as_text),
        ("sorted as text, inverted", np.argsort(as_text, kind="stable")),
        ("reversed", identity[::-1]),
    ]
    one_based = np.argsort(np.array([str(i + 1) for i in range(k)]), kind="stable")
    candidates.append(("sorted as text, counted from one", one_based))
    candidates.append(("sorted as text, counted from one, inverted", np.argsort(one_based, kind="stable")))
    for label, key in (("most frequent first", -counts), ("least frequent first", counts)):
        order = np.argsort(key, kind="stable")
        candidates += [(label, order), (f"{label}, inverted", np.argsort(order, kind="stable"))]
    if names is not None:
        alphabet = "class names in alphabetical order"
        for label, keys in ((alphabet, list(names)), (f"{alphabet}, ignoring case", [n.casefold() for n in names])):
            order = np.array(sorted(range(k), key=keys.__getitem__))
            candidates += [(label, order), (f"{label}, inverted", np.argsort(order, kind="stable"))]
    for shift in (1, -1, 2, -2, 3, -3):
        if abs(shift) < k:
            candidates.append((f"shifted by {shift:+d}", np.roll(identity, shift)))
    seen = {identity.tobytes()}
    for name, index in candidates:
        index = np.ascontiguousarray(index, dtype=np.int64)
        if index.tobytes() not in seen:
            seen.add(index.tobytes())
            yield Order(name, index)


def weighted_correlation(x: Floats, y: Floats, weight: Floats) -> float:
    """Pearson correlation with weights; 0 where one of the vectors is constant.

    Example:
        >>> import numpy as np
        >>> round(weighted_correlation(np.array([0.0, 1, 2]), np.array([1.0, 3, 5]), np.ones(3)), 6)
        1.0
    """
    w = weight / max(float(weight.sum()), 1e-300)
    dx, dy = x - float(w @ x), y - float(w @ y)
    norm = float(np.sqrt((w @ dx**2) * (w @ dy**2)))
    return float(w @ (dx * dy)) / norm if norm > 1e-12 else 0.0
