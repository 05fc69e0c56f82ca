"""Sparse confusion: the distinct (true, predicted) pairs of a labels-only input, counted in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Ints

PENDING = 1 << 22
DENSE_CLASSES = 2048
Keys = NDArray[Any]  # true * K + predicted: uint32 where K squared fits, else int64
Counts = NDArray[Any]  # uint32 up to four billion rows, else int64
Indices = NDArray[np.int32]


class Edges(NamedTuple):
    """Distinct pairs, ordered by true then predicted class; classes are (E,) int32, rows (E,) int64."""

    true: Indices
    predicted: Indices
    rows: Ints


class EdgeCounter:
    """Counts pairs as they come.

    Up to `DENSE_CLASSES` classes the cells fit 32 MB and are counted directly, eight times faster than by sorting.
    Beyond, right rows are counted per class, and the keys of wrong rows wait in a buffer. A full buffer is sorted,
    counted and merged into the sorted keys so far: memory grows with the distinct pairs, not with K squared.
    """

    def __init__(self, classes: int, *, pending: int = PENDING) -> None:
        """Nothing counted; `pending` is the number of wrong rows that are sorted together."""
        self.classes = classes
        self._cells = np.zeros(classes * classes, np.int64) if classes <= DENSE_CLASSES else None
        key_type = np.uint32 if classes * classes <= 1 << 32 else np.int64
        self._right = np.zeros(classes, np.int64)
        # Pages of an untouched buffer take no memory, so small inputs stay small.
        self._pending: Keys = np.empty(0 if self._cells is not None else pending, key_type)
        self._waiting = 0
        self._keys: Keys = np.empty(0, key_type)
        self._counts: Counts = np.empty(0, np.uint32)
        self._rows = 0

    def add(self, true: Ints, predicted: Ints) -> None:
        """Count one more piece of equally long, checked label vectors."""
        if self._cells is not None:
            np.add.at(self._cells, true * self.classes + predicted, 1)
            return
        wrong = np.flatnonzero(true != predicted)  # taking rows by index is several times faster than by a mask
        self._right += np.bincount(true, minlength=self.classes)
        missed = true[wrong]
        self._right -= np.bincount(missed, minlength=self.classes)
        keys = missed * self.classes + predicted[wrong]
        while len(keys):
            taken = min(len(keys), len(self._pending) - self._waiting)
            self._pending[self._waiting : self._waiting + taken] = keys[:taken]
            self._waiting += taken
            keys = keys[taken:]
            if self._waiting == len(self._pending):
                self._merge()

    def _merge(self) -> None:
        new = self._pending[: self._waiting]
        new.sort()
        self._put(*run_lengths(new))
        self._waiting = 0
        if len(self._keys) > 2 * len(self._pending):  # so that no pair is moved by more than a few merges per doubling
            self._pending = np.empty(len(self._keys) // 2, self._pending.dtype)

    def _put(self, keys: Keys, counts: Ints) -> None:
        self._rows += int(counts.sum())
        if self._rows >= 1 << 32:
            self._counts = self._counts.astype(np.int64, copy=False)
        self._keys, self._counts = merge_counts(self._keys, self._counts, keys, counts)

    def edges(self) -> Edges:
        """All pairs so far."""
        k = self.classes
        if self._cells is not None:
            keys: Keys = np.flatnonzero(self._cells)
            counts = self._cells[keys]
        else:
            self._merge()
            right = np.flatnonzero(self._right)
            # Kept merged, so that the pairs without right rows are freed.
            self._put((right * (k + 1)).astype(self._keys.dtype), self._right[right])
            self._right[:] = 0
            keys, counts = self._keys, self._counts.astype(np.int64)
        return Edges((keys // k).astype(np.int32), (keys % k).astype(np.int32), counts)


def run_lengths(ordered: Keys) -> tuple[Keys, Ints]:
    """Distinct values of a sorted array and how often each occurs.

    Example:
        >>> [x.tolist() for x in run_lengths(np.array([2, 2, 5, 7, 7, 7]))]
        [[2, 5, 7], [2, 1, 3]]
    """
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return ordered[starts], np.diff(starts, append=len(ordered))


def merge_counts(keys: Keys, counts: Counts, new_keys: Keys, new_counts: Ints) -> tuple[Keys, Counts]:
    """The union of two sorted lists of distinct keys, with the counts of equal keys added.

    Neither is sorted again: the second is looked up in the first and what is missing is put in its place.

    Example:
        >>> a, b = (np.array([2, 5]), np.array([10, 20])), (np.array([1, 5, 9]), np.array([3, 4, 5]))
        >>> [x.tolist() for x in merge_counts(*a, *b)]
        [[1, 2, 5, 9], [3, 10, 24, 5]]
    """
    new_counts = new_counts.astype(counts.dtype, copy=False)
    if not len(keys):
        return new_keys, new_counts
    place = np.searchsorted(keys, new_keys)
    missing = keys[np.minimum(place, len(keys) - 1)] != new_keys
    before = np.cumsum(missing)
    size = len(keys) + int(before[-1]) if len(before) else len(keys)
    place += before - missing
    old = np.ones(size, bool)
    old[place[missing]] = False
    merged_keys, merged_counts = np.empty(size, keys.dtype), np.zeros(size, counts.dtype)
    merged_keys[old], merged_counts[old] = keys, counts
    merged_keys[place] = new_keys
    merged_counts[place] += new_counts
    return merged_keys, merged_counts
