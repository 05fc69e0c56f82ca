"""Which rows an epoch draws, and in which order, when classes are drawn at given rates: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.counts import class_counts, effective_number, to_numpy
from evenhand.declared import Floats, InputError, Ints
from evenhand.training.sampling.permuting import MAX_SIZE, mixed, permute

Index = NDArray[np.int64]
_GOLDEN = (5**0.5 - 1) / 2
_ORDER, _WITHIN, _OFFSET, _CLASS, _ROW = range(5)  # what a key is for


@dataclass(frozen=True, eq=False)
class ClassRows:
    """The rows of a data set by class.

    Attributes:
        counts: (K,) int64 rows per class. first: (K,) int64, where the rows of each class begin in `order`.
        order: (N,) row numbers, class by class, within a class as in the data; 32 bits where they suffice.
    """

    counts: Ints
    first: Ints
    order: NDArray[Any]

    @classmethod
    def from_labels(cls, labels: Any, classes: int | None = None, absent: str = "error") -> ClassRows:
        """Group the rows by class.

        Args:
            labels: (N,) whole numbers in [0, K).
            classes: K, the largest label + 1 by default.
            absent: ``error`` refuses a class without rows, ``skip`` lets it be: it is never drawn.

        Raises:
            InputError: labels that are not that, no rows, fewer than two classes, or absent classes.
        """
        array = to_numpy(labels)
        if array.ndim != 1 or array.dtype.kind not in "iufb":
            raise InputError(
                f"expected labels as a 1-D array of class indices, one per row, got {array.dtype} of shape "
                f"{array.shape}; give the targets of the training set in the data set's order"
            )
        if not array.size:
            raise InputError("expected labels of at least one row, got none; check what was loaded")
        if array.min() < 0:
            raise InputError(
                f"expected class indices of 0 or more, but row {int(array.argmin())} has {array.min()}; rows without a "
                "class cannot be drawn: leave them out of the data set"
            )
        if absent not in ("error", "skip"):
            raise InputError(f"expected absent to be 'error' or 'skip', got {absent!r}; choose one")
        if array.size > MAX_SIZE:
            raise InputError(f"expected at most {MAX_SIZE:,} rows, got {array.size:,}; sample each part of the data")
        counts = class_counts(array, classes=classes).counts
        missing = np.flatnonzero(counts == 0)
        if missing.size and absent == "error":
            raise InputError(
                f"expected rows of every class, but class {missing[0]} has none"
                f"{f', and {missing.size - 1} others' if missing.size > 1 else ''}; nothing can be drawn from it: pass "
                "absent='skip' if the training set may lack it"
            )
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        return cls(counts, first, _grouped(array, counts.size))


@dataclass(frozen=True, eq=False)
class Epoch:
    """One epoch's draws, as a function of their position; see :meth:`rows`.

    Attributes:
        classes: the rows by class. rate: (K,) rates, any positive scale. total: draws of the epoch, M.
        quota: (K,) int64, draws of each class, sum M. cursor: (K,) int64, draws of each class in the epochs before.
        number: the epoch. seed: of the run. replacement: whether every draw is independent of the others.
    """

    classes: ClassRows
    rate: Floats
    total: int
    quota: Ints
    cursor: Ints
    number: int
    seed: int
    replacement: bool = False

    @cached_property
    def begins(self) -> Ints:
        """(K,) int64, slot of each class's first draw."""
        return np.asarray(np.cumsum(self.quota) - self.quota)

    @cached_property
    def class_of(self) -> NDArray[Any]:
        """(M,) class of each slot: a table is four times faster here than searching the ends for every draw."""
        small = np.uint16 if self.quota.size <= 2**16 else np.uint32
        return np.repeat(np.arange(self.quota.size, dtype=small), self.quota)

    def rows(self, position: Index) -> Index:
        """The rows drawn at some positions of the epoch.

        The M draws are the quotas, class after class, in random order: position -> slot -> class and how many-th draw
        of it. Each class is a pile of cards dealt from the top and shuffled anew when it is used up, over epochs too:
        draw p of a class with n rows is card ``p mod n`` of shuffle ``p div n``.

        Args:
            position: (n,) int64 in [0, M).

        Returns:
            (n,) int64 rows.
        """
        if self.replacement:
            return self._independent(position)
        slot = permute(position, self.total, mixed(self.seed, _ORDER, self.number))
        k = self.class_of[slot].astype(np.int64)
        count = self.classes.counts[k]
        shuffle, card = np.divmod(self.cursor[k] + slot - self.begins[k], count)
        row = permute(card, count, mixed(self.seed, _WITHIN, k, shuffle))
        return np.asarray(self.classes.order[self.classes.first[k] + row], np.int64)

    def _independent(self, position: Index) -> Index:
        """Class by its rate, then a row of it, both from the hash of the position."""
        share = np.cumsum(self.rate) / self.rate.sum()
        # the largest rate's class takes what rounding leaves above the last share: no class of rate 0 is ever drawn
        k = np.searchsorted(share, _uniform(self.seed, _CLASS, self.number, position), side="right")
        k = np.where(k < share.size, k, int(np.argmax(self.rate)))
        within = np.floor(_uniform(self.seed, _ROW, self.number, position) * self.classes.counts[k]).astype(np.int64)
        return np.asarray(self.classes.order[self.classes.first[k] + within], np.int64)


def power_rate(counts: Any, power: float) -> Floats:
    """(K,) float64, ``q_k = n_k^power / sum_j n_j^power`` over the classes that have rows, 0 for the others.

    1 draws as the data are, 0.5 by the square root, 0 all classes equally often; below 0 the rare ones more often.

    Args:
        counts: (K,) rows per class. power: in [-10, 10].

    Raises:
        InputError: another power.

    Example:
        >>> power_rate(np.array([900, 100, 0]), 0.5).tolist()
        [0.75, 0.25, 0.0]
    """
    if isinstance(power, bool) or not isinstance(power, int | float | np.number) or not -10 <= power <= 10:
        raise InputError(f"expected power between -10 and 10, got {power!r}; 1 is natural, 0.5 square root, 0 balanced")
    present = counts > 0
    rate = np.where(present, (counts / counts.max()).clip(min=1e-300), 1.0) ** float(power) * present
    return np.asarray(rate / rate.sum())


def effective_number_rate(counts: Any, beta: float) -> Floats:
    """(K,) float64, ``q_k`` proportional to ``n_k / E_k`` with ``E_k = (1 - beta^n_k) / (1 - beta)``, sum 1.

    Args:
        counts: (K,) rows per class; a class without rows gets 0. beta: in [0, 1); 0 draws as the data are.

    Raises:
        InputError: another beta.

    Example:
        >>> effective_number_rate(np.array([900, 100, 0]), 0.0).tolist()
        [0.9, 0.1, 0.0]
    """
    if isinstance(beta, bool) or not isinstance(beta, int | float | np.number) or not 0 <= beta < 1:
        raise InputError(f"expected beta in [0, 1), got {beta!r}; 0.999 is usual")
    rate = counts / np.where(counts > 0, effective_number(counts, beta), 1.0)
    return np.asarray(rate / rate.sum())


def quotas(rate: Floats, total: int, seed: int, epoch: int) -> Ints:
    """How often each class is drawn in an epoch: ``M q_k``, rounded up or down so that the sum is M.

    Systematic rounding: with ``C_k = M (q_1 + ... + q_k)`` and one offset u in [0, 1) for all classes,
    ``m_k = floor(C_k + u) - floor(C_(k-1) + u)``. Over u the mean of m_k is ``M q_k``. The offset moves by the
    golden ratio from epoch to epoch, so that what is rounded away in one epoch comes back in the next ones.

    Args:
        rate: (K,) rates, any positive scale. total: M. seed, epoch: whole numbers of 0 or more.

    Returns:
        (K,) int64.

    Example:
        >>> rate = np.array([0.5, 0.3, 0.2])
        >>> [quotas(rate, 7, seed=0, epoch=e).tolist() for e in range(3)], (7 * rate).round(1).tolist()
        ([[4, 2, 1], [4, 2, 1], [3, 2, 2]], [3.5, 2.1, 1.4])
    """
    whole, needed = _edges(rate, total)
    return np.diff(whole + (_offsets(seed, np.array([epoch])) >= needed), prepend=0)


def quotas_between(rate: Floats, total: int, seed: int, begin: int, end: int) -> Ints:
    """The sum of :func:`quotas` over epochs begin to end - 1, in O((epochs + K) log epochs).

    Example:
        >>> rate = np.array([0.5, 0.3, 0.2])
        >>> quotas_between(rate, 7, 0, 0, 3).tolist()
        [11, 6, 4]
    """
    whole, needed = _edges(rate, total)
    offsets = np.sort(_offsets(seed, np.arange(begin, end)))
    above = offsets.size - np.searchsorted(offsets, needed)  # epochs whose offset lifts the edge over a whole number
    return np.diff(offsets.size * whole + above, prepend=0)


def _edges(rate: Floats, total: int) -> tuple[Ints, Floats]:
    """``C_k`` as its whole part and the offset from which on ``floor(C_k + u)`` is one more."""
    upto = np.cumsum(rate)
    part, whole = np.modf(total * (upto / upto[-1]))
    return whole.astype(np.int64), 1.0 - part


def _offsets(seed: int, epochs: Ints) -> Floats:
    """u of each epoch, in the middle of one of 2^20 cells: rounding of ``C_k`` cannot carry a whole edge across."""
    u = (float(_uniform(seed, _OFFSET)) + epochs * _GOLDEN) % 1.0
    return np.asarray((np.floor(u * 2**20) + 0.5) / 2**20)


def _uniform(*numbers: Any) -> Floats:
    """float64 in [0, 1), 53 bits, from the hash of whole numbers."""
    high, low = (mixed(*numbers, part).astype(np.uint64) for part in (0, 1))
    return np.asarray(((high << np.uint64(21)) ^ (low >> np.uint64(11))) / 2.0**53)


def _grouped(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """Row numbers by class, in the order of the data within a class: a sort by 16-bit digits, O(N) each."""
    digits = labels if labels.dtype.kind in "iu" else labels.astype(np.int64)
    order = np.argsort(digits.astype(np.uint16), kind="stable")  # NumPy's stable sort of 16 bits is a radix sort
    if classes > 2**16:
        order = order[np.argsort((digits >> 16).astype(np.uint16)[order], kind="stable")]
    return order.astype(np.uint32 if labels.size < 2**32 else np.int64)
