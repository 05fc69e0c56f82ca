"""Rows per class, and what follows from them alone: the prior, the imbalance, head, medium and tail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.arrays import in_class_order as in_class_order
from evenhand.arrays import is_keyed as is_keyed
from evenhand.arrays import to_numpy as to_numpy
from evenhand.arrays import whole_numbers
from evenhand.declared import Floats, InputError, Ints

MAX_CLASSES = 10_000_000
_BLOCK = 1 << 20  # rows counted at a time: bincount copies its input to int64, so a whole column would double in memory


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Rows per class, in class order.

    Build it with :func:`class_counts` (from labels) or :meth:`from_counts` (from counts).

    Attributes:
        counts: (K,) int64, rows of class k at index k, read-only.
        names: K class names in the same order, or None.

    Example:
        >>> counts = ClassCounts.from_counts({"cat": 90, "dog": 9, "newt": 1, "yeti": 0})
        >>> counts.total, counts.classes, counts.imbalance_ratio, counts.absent.tolist()
        (100, 4, 90.0, [3])
        >>> counts.prior.tolist()
        [0.9, 0.09, 0.01, 0.0]
        >>> {group: index.tolist() for group, index in counts.groups.items()}
        {'head': [0], 'medium': [1, 2], 'tail': [3]}
    """

    counts: Ints
    names: tuple[str, ...] | None = None

    @classmethod
    def from_counts(cls, counts: Any, names: Iterable[str] | None = None) -> ClassCounts:
        """Counts that are known already: an array of K whole numbers, or a mapping from name to count.

        Args:
            counts: (K,) whole numbers of 0 or more, K >= 2, at least one row in all; a mapping gives the names too. A
                mapping by class index (``Counter(labels)``, pandas ``value_counts()``) may have any order.
            names: K names, all different.

        Raises:
            InputError: the counts are not that, the names do not fit them, or class indices are missing.
        """
        if is_keyed(counts):
            keys, counts = in_class_order(counts, "counts")
            names = keys if names is None else names
        array = whole_numbers(to_numpy(counts), "counts")
        if array.ndim != 1:
            raise InputError(
                f"Expected one count per class, a 1-D array, and got shape {array.shape}; give one number per class."
            )
        if array.size and array.min() < 0:
            raise InputError(
                f"Expected counts of 0 or more, but class {int(array.argmin())} has {int(array.min())};"
                " check what the vector holds."
            )
        return _checked(array, _checked_names(names))

    @property
    def total(self) -> int:
        """N, the number of rows."""
        return int(self.counts.sum())

    @property
    def classes(self) -> int:
        """K, the number of classes, absent ones included."""
        return int(self.counts.size)

    @property
    def prior(self) -> Floats:
        """(K,) float64, pi_k = n_k / N; 0 for absent classes. See :func:`log_prior` for its logarithm."""
        return self.counts / self.total

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest class over rows of the smallest class that has any."""
        present = self.counts[self.counts > 0]
        return float(present.max() / present.min())

    @property
    def absent(self) -> Ints:
        """Indices of the classes without a row, int64."""
        return np.flatnonzero(self.counts == 0).astype(np.int64)

    @property
    def effective_classes(self) -> float:
        """exp of the prior's entropy (nats): how many equally frequent classes would be as uncertain; K if all are."""
        prior = self.prior[self.counts > 0]
        return float(np.exp(-(prior * np.log(prior)).sum()))

    @property
    def groups(self) -> dict[str, Ints]:
        """Class indices of ``head``, ``medium`` and ``tail``; see :func:`groups`."""
        return groups(self.counts)

    def effective_number(self, beta: float = 0.9999) -> Floats:
        """(K,) float64 effective number of rows per class; see :func:`effective_number`."""
        return effective_number(self.counts, beta)


def class_counts(
    labels: Any,
    *,
    classes: int | None = None,
    ignore_index: int | str | None = None,
    names: Iterable[str] | None = None,
) -> ClassCounts:
    """Count the rows of each class.

    Args:
        labels: whole numbers in [0, K) of any shape (NumPy, torch, a list), or strings. Strings are classes by name.
        classes: K. Without it and without names, K is the largest label + 1: classes that come after the last label
            seen are then missing, so give K where it is known.
        ignore_index: label whose rows do not count, for instance -100 or the padding's label.
        names: K class names in class order. For strings the default is all names found, sorted as text ("10" comes
            before "2"); this must be the order of the model's outputs.

    Returns:
        ClassCounts with int64 counts of length K.

    Raises:
        InputError: no rows, fewer than two classes, labels outside [0, K), fractional labels, unknown names.

    Limits:
        At most 10,000,000 classes; larger labels are taken for row ids. Memory is O(K), beyond the labels themselves.

    Example:
        >>> class_counts([0, 1, 1, 2, -100], ignore_index=-100).counts.tolist()
        [1, 2, 1]
        >>> animals = class_counts(["newt", "cat", "cat"])
        >>> animals.names, animals.counts.tolist()
        (('cat', 'newt'), [2, 1])
    """
    given = _checked_names(names)
    if given is not None and classes not in (None, len(given)):
        raise InputError(f"Expected {classes} names for classes={classes}, got {len(given)}; give one name per class.")
    array = to_numpy(labels)
    if array.dtype.kind in "USO":
        return _count_strings(array.ravel().tolist(), classes, ignore_index, given)
    if isinstance(ignore_index, str):
        raise InputError(f"The labels are numbers, so ignore_index={ignore_index!r} must be a number too.")
    rows = array.ravel()
    return _checked(_count_integers(rows, classes if given is None else len(given), ignore_index), given)


def groups(counts: Any) -> dict[str, Ints]:
    """Split the classes into head, medium and tail: thirds of the classes by frequency rank.

    The head is the round(K / 3) most frequent classes, the tail the round(K / 3) rarest, medium the rest. Equal counts
    are ordered by class index. Absent classes are part of the tail. The rule needs no threshold, so that it means the
    same at 2 classes (head 1, tail 1) and at 100,000, at 50 rows a class and at 50,000.

    Args:
        counts: (K,) counts, or ClassCounts.

    Returns:
        ``{"head", "medium", "tail"}``, each an int64 array of class indices, most frequent first.

    Example:
        >>> {name: index.tolist() for name, index in groups([5, 100, 1, 20, 5]).items()}
        {'head': [1, 3], 'medium': [0], 'tail': [4, 2]}
    """
    array = counts_array(counts)
    order = np.argsort(-array, kind="stable").astype(np.int64)
    third = round(array.size / 3)
    return {"head": order[:third], "medium": order[third : array.size - third], "tail": order[array.size - third :]}


def log_prior(counts: Any, *, smoothing: float = 0.5) -> Floats:
    """log pi_k = log(n_k / N), finite for absent classes too.

    Smoothing touches only the classes without a row: they are taken to have `smoothing` rows. N stays the sum of the
    counts given, so for classes that are present the result is exact. Not centred: subtract the mean where the
    direction alone matters (a softmax does not see a constant).

    Args:
        counts: (K,) counts, whole or not, or ClassCounts.
        smoothing: rows an absent class is taken to have, > 0.

    Returns:
        (K,) float64, in nats.

    Raises:
        InputError: counts negative, not finite or all zero; smoothing not above 0.

    Example:
        >>> log_prior([3, 1, 0]).round(4).tolist()
        [-0.2877, -1.3863, -2.0794]
    """
    if not smoothing > 0:
        raise InputError(f"Expected smoothing above 0 rows, got {smoothing!r}; 0.5 is a common choice.")
    array = counts_array(counts)
    return np.asarray(np.log(np.where(array > 0, array, smoothing)) - np.log(array.sum()))


def effective_number(counts: Any, beta: float = 0.9999) -> Floats:
    """Effective number of rows per class, E_k = (1 - beta^n_k) / (1 - beta): rows that overlap count for less.

    beta = 0 gives 1 for every class, beta -> 1 gives n_k. Computed with expm1 and log1p, exact also for few rows and
    beta near 1.

    Args:
        counts: (K,) counts, or ClassCounts.
        beta: in [0, 1).

    Returns:
        (K,) float64; 0 for absent classes.

    Source:
        Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples, https://arxiv.org/abs/1901.05555

    Example:
        >>> effective_number([1, 10, 1_000_000]).round(3).tolist()
        [1.0, 9.996, 10000.0]
    """
    if not 0 <= beta < 1:
        raise InputError(f"Expected beta in [0, 1), got {beta!r}; 0.9999 is the usual choice.")
    array = counts_array(counts)
    if beta == 0:
        return (array > 0).astype(np.float64)
    return np.asarray(np.expm1(array * np.log1p(beta - 1.0)) / (beta - 1.0), np.float64)


def counts_array(counts: Any) -> Floats:
    """(K,) float64 counts, whole or not, from an array, a sequence, a tensor, a mapping or ClassCounts, checked.

    Raises:
        InputError: not 1-D, fewer than two classes, a negative or non-finite entry, or no rows at all.
    """
    if isinstance(counts, ClassCounts):
        return counts.counts.astype(np.float64)
    array = to_numpy(in_class_order(counts, "counts")[1] if is_keyed(counts) else counts)
    if array.dtype.kind not in "iufb" or array.ndim != 1 or array.size < 2:
        raise InputError(
            f"Expected counts as a 1-D array of at least 2 numbers, got {array.dtype} of shape {array.shape};"
            " give one count per class."
        )
    values = array.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise InputError(
            f"Expected finite counts of 0 or more, but class {bad[0]} has {values[bad[0]]:g};"
            " check what the vector holds."
        )
    if not values.any():
        raise InputError(f"Expected at least one row, but all {values.size} counts are 0; check what was counted.")
    return values


def _count_integers(rows: NDArray[Any], classes: int | None, ignore_index: int | None) -> Ints:
    """Counts per class, block by block."""
    counts = np.zeros(classes or 0, np.int64)
    for start in range(0, rows.size, _BLOCK):
        block = whole_numbers(rows[start : start + _BLOCK], "labels")
        if ignore_index is not None:
            block = block[block != ignore_index]
        if not block.size:
            continue
        low, high = int(block.min()), int(block.max())
        limit = MAX_CLASSES if classes is None else classes
        if low < 0 or high >= limit:
            raise InputError(
                f"Expected labels from 0 to {limit - 1}, found {low if low < 0 else high};"
                " give ignore_index= for rows that must not count, or classes= if K is another."
            )
        more = np.bincount(block, minlength=counts.size)
        more[: counts.size] += counts
        counts = more.astype(np.int64, copy=False)
    return counts


def _count_strings(
    rows: list[Any], classes: int | None, ignore: int | str | None, names: tuple[str, ...] | None
) -> ClassCounts:
    """Counts per name, in the order of `names`, or of the sorted names found."""
    found = Counter(rows)
    odd = next((label for label in found if not isinstance(label, str)), None)
    if odd is not None or None in found:
        raise InputError(
            f"Expected labels that are all whole numbers or all strings, found {odd!r} among them; drop or fill it."
        )
    if ignore is not None:
        found.pop(str(ignore), None)
    order: Sequence[str] = sorted(found) if names is None else names
    unknown = sorted(set(found) - set(order))
    if unknown:
        raise InputError(f"Expected labels among the {len(order)} names given, found {unknown[0]!r}; add it to names.")
    if classes is not None and classes != len(order):
        raise InputError(
            f"Expected {classes} classes, found {len(order)} different labels; give names= with all classes in order."
        )
    return _checked(np.array([found[name] for name in order], np.int64), tuple(order))


def _checked_names(names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    given = tuple(str(name) for name in names)
    double = next((name for name, times in Counter(given).items() if times > 1), None)
    if double is not None:
        raise InputError(f"Expected {len(given)} different class names, but {double!r} occurs twice; rename one.")
    return given


def _checked(counts: Ints, names: tuple[str, ...] | None) -> ClassCounts:
    if counts.size < 2:
        raise InputError(
            f"Expected at least 2 classes, found {counts.size}; give classes= or names= if others exist without rows."
        )
    if not counts.any():
        raise InputError("Expected at least one row that counts, found none; check the labels and ignore_index.")
    if names is not None and len(names) != counts.size:
        raise InputError(f"Expected {counts.size} names, one per class, got {len(names)}; give them in class order.")
    frozen = counts.astype(np.int64, copy=True)
    frozen.setflags(write=False)
    return ClassCounts(frozen, names)
