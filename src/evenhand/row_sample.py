"""Rows kept with their scores: those with the smallest hashed ids, whatever the split of the rows, and the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Ints

Singles = NDArray[np.float32]

LEAD_CELLS = 2_000_000  # scores kept of the first rows, in file order
SAMPLE_CELLS = 5_000_000  # scores kept of the hashed row sample


def sample_size(classes: int) -> int:
    """Rows in the row sample: 5 million scores, but 2,000 to 20,000 rows.

    The tilt needs 20 to 100 rows, the per-class biases about 10 per class; more rows cost time and add nothing.
    """
    return int(np.clip(SAMPLE_CELLS // classes, 2_000, 20_000))


def lead_size(classes: int) -> int:
    """Rows with ids below this are kept in order, for what only neighbours show (a softmax over the batch)."""
    return int(np.clip(LEAD_CELLS // classes, 64, 4_096))


def row_hash(row_id: Ints) -> NDArray[np.uint64]:
    """SplitMix64 of the row ids: the k rows with the smallest hashes are the sample, whatever the split of the rows.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014),
    https://doi.org/10.1145/2714064.2660195.
    """
    x = row_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class RowSample:
    """Rows with their scores: ``scores`` (n, K) float32 are logits (of probabilities: their logarithms)."""

    row_id: Ints
    target: Ints
    scores: Singles

    @classmethod
    def empty(cls, classes: int) -> RowSample:
        """No rows."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, classes), np.float32))

    def take(self, index: NDArray[np.intp]) -> RowSample:
        """The rows at `index`."""
        return RowSample(self.row_id[index], self.target[index], self.scores[index])

    def smallest_hashes(self, rows: int) -> RowSample:
        """The `rows` rows with the smallest hashes, in the order of their hashes (ties by row id and target)."""
        if len(self.row_id) == 0:
            return self
        order = np.lexsort((self.target, self.row_id, row_hash(self.row_id)))[:rows]
        return self.take(order)

    def first(self, rows: int) -> RowSample:
        """The `rows` rows with the smallest ids, in the order of their ids."""
        order = np.argsort(self.row_id, kind="stable")[:rows]
        return self if len(order) == len(self.row_id) and np.all(np.diff(order) == 1) else self.take(order)


def join(parts: Sequence[RowSample]) -> RowSample:
    """Rows of all parts, one after another."""
    filled = [p for p in parts if len(p.row_id)] or list(parts[:1])
    if len(filled) == 1:
        return filled[0]
    return RowSample(*(np.concatenate([getattr(p, f) for p in filled]) for f in ("row_id", "target", "scores")))


def smallest(parts: Sequence[RowSample], rows: int) -> RowSample:
    """`RowSample.smallest_hashes` of all parts together; scores, which can be large, are copied once."""
    filled = [p for p in parts if len(p.row_id)] or list(parts[:1])
    if len(filled) == 1:
        return filled[0].smallest_hashes(rows)
    row_id, target = (np.concatenate([getattr(p, name) for p in filled]) for name in ("row_id", "target"))
    order = np.lexsort((target, row_id, row_hash(row_id)))[:rows]
    ends = np.cumsum([len(p.row_id) for p in filled])
    owner = np.searchsorted(ends, order, side="right")
    scores = np.empty((len(order), filled[0].scores.shape[1]), filled[0].scores.dtype)
    for number, part in enumerate(filled):
        at = np.flatnonzero(owner == number)
        scores[at] = part.scores[order[at] - (ends[number] - len(part.row_id))]
    return RowSample(row_id[order], target[order], scores)
