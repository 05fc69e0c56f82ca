"""Sparse confusion: the distinct (true, predicted) pairs of a labels-only input, counted in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evenhand.declared import Ints

PENDING = 1 << 22
DENSE_CLASSES = 2048


class Edges(NamedTuple):
    """Distinct pairs, ordered by true then predicted class; each (E,) int64."""

    true: Ints
    predicted: Ints
    rows: Ints


@dataclass
class EdgeCounter:
    """Counts pairs as they come.

    Up to `DENSE_CLASSES` classes the cells fit 32 MB and are counted directly, eight times faster than by sorting;
    beyond, memory grows with the distinct pairs, not with K squared.
    """

    classes: int
    _keys: list[Ints] = field(default_factory=list)
    _counts: list[Ints] = field(default_factory=list)
    _pending: int = 0
    _cells: Ints | None = None

    def __post_init__(self) -> None:
        if self.classes <= DENSE_CLASSES:
            self._cells = np.zeros(self.classes * self.classes, dtype=np.int64)

    def add(self, true: Ints, predicted: Ints) -> None:
        """Count one more piece of equally long, checked label vectors."""
        if self._cells is not None:
            np.add.at(self._cells, true * self.classes + predicted, 1)
            return
        keys, counts = np.unique(true * self.classes + predicted, return_counts=True)
        self._keys.append(keys)
        self._counts.append(counts)
        self._pending += len(keys)
        if self._pending > PENDING:
            self._merge()

    def _merge(self) -> None:
        keys, inverse = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.zeros(len(keys), dtype=np.int64)
        np.add.at(counts, inverse, np.concatenate(self._counts))
        self._keys, self._counts, self._pending = [keys], [counts], 0

    def edges(self) -> Edges:
        """All pairs so far."""
        if self._cells is not None:
            keys = np.flatnonzero(self._cells)
            counts = self._cells[keys]
        else:
            self._merge()
            keys, counts = self._keys[0], self._counts[0]
        return Edges(keys // self.classes, keys % self.classes, counts)
