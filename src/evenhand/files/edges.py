"""Sparse confusion: the distinct (true, predicted) pairs of a labels-only input, counted in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evenhand.declared import Ints

PENDING = 1 << 22


class Edges(NamedTuple):
    """Distinct pairs, ordered by true then predicted class; each (E,) int64."""

    true: Ints
    predicted: Ints
    rows: Ints


@dataclass
class EdgeCounter:
    """Counts pairs as they come; memory grows with the distinct pairs, not with K squared or the rows."""

    classes: int
    _keys: list[Ints] = field(default_factory=list)
    _counts: list[Ints] = field(default_factory=list)
    _pending: int = 0

    def add(self, true: Ints, predicted: Ints) -> None:
        """Count one more piece of equally long, checked label vectors."""
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
        if not self._keys:
            empty = np.zeros(0, dtype=np.int64)
            return Edges(empty, empty, empty)
        self._merge()
        keys, counts = self._keys[0], self._counts[0]
        return Edges(keys // self.classes, keys % self.classes, counts)
