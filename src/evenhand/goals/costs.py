"""What decisions cost: per class, by pairs of classes, or a whole matrix, never larger in memory than it was given.

``C[y, j]`` is the cost of deciding j where y is true. It is held as ``miss_y`` for every wrong answer, plus an extra
for single pairs: ``C[y, j] = miss_y [y != j] + extra[y, j]``, with `extra` sparse, or dense where the user gave a dense
matrix. Source: Elkan, "The foundations of cost-sensitive learning" (2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from evenhand.counts import to_numpy
from evenhand.declared import Floats, InputError, Ints


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs of decisions, built by :func:`as_costs`.

    Attributes:
        miss: (K,) cost of any wrong answer to class y.
        extra: (K, K) sparse CSR or dense array that is added, at [true, decided]; None where every mistake on a class
            costs the same.
    """

    miss: Floats
    extra: Any = None

    @property
    def classes(self) -> int:
        """K."""
        return len(self.miss)

    def of(self, y: Ints, decided: Ints) -> Floats:
        """(n,) costs of decisions."""
        cost = np.where(y == decided, 0.0, self.miss[y])
        if self.extra is not None:
            found = self.extra[y, decided]
            cost = cost + np.asarray(found.toarray() if sparse.issparse(found) else found, np.float64).ravel()
        return np.asarray(cost)


def as_costs(given: Any, classes: int) -> Costs:
    """Costs from any of the forms a user may have.

    Args:
        given: one of
            (K,) numbers above 0: what each missed row of a class costs, whatever was answered;
            (K, K) dense array or SciPy sparse matrix: ``C[true, decided]``, taken literally (pairs that a sparse matrix
            does not store cost nothing);
            (true, decided, cost): three vectors of one length; pairs not listed cost 1, right answers 0;
            a `Costs`.
        classes: K.

    Raises:
        InputError: another shape, NaN or infinity, classes out of range, a pair listed twice, or a class that would
            cost nothing to decide whatever is true.

    Example:
        >>> costs = as_costs(([0, 2], [1, 0], [10.0, 0.5]), 3)
        >>> costs.of(np.array([0, 0, 1, 2, 2]), np.array([1, 2, 1, 0, 1])).tolist()
        [10.0, 1.0, 0.0, 0.5, 1.0]
    """
    if isinstance(given, Costs):
        found = given
    elif sparse.issparse(given):
        found = _from_matrix(sparse.csr_array(given, dtype=np.float64), classes)
    elif isinstance(given, (tuple, list)) and len(given) == 3 and (np.ndim(given[0]) == 1):
        found = _from_triples([to_numpy(part) for part in given], classes)
    else:
        array = to_numpy(given)
        if array.dtype.kind not in "iuf":
            raise InputError(f"costs must be numbers but are {array.dtype}; pass one per class, or a matrix")
        found = Costs(array.astype(np.float64)) if array.ndim == 1 else _from_matrix(array.astype(np.float64), classes)
    _check(found, classes)
    return found


def _from_triples(columns: list[NDArray[Any]], classes: int) -> Costs:
    true, decided, cost = columns
    lengths = {len(true), len(decided), len(cost)}
    if len(lengths) != 1 or true.dtype.kind not in "iuf" or decided.dtype.kind not in "iuf":
        raise InputError(
            f"costs by pairs need three vectors (true, decided, cost) of one length but got lengths {len(true)}, "
            f"{len(decided)} and {len(cost)}; give one cost per pair of class numbers"
        )
    index = np.stack([true, decided]).astype(np.float64)
    if index.size and (not np.isfinite(index).all() or index.min() < 0 or index.max() >= classes or (index % 1).any()):
        raise InputError(
            f"costs by pairs name classes from 0 to {classes - 1} but hold {float(index.min()):g} to "
            f"{float(index.max()):g}; number the classes as the logits do"
        )
    y, j = index.astype(np.int64)
    if len(np.unique(y * classes + j)) < len(y):
        raise InputError("costs by pairs list a pair of classes twice; give every pair one cost")
    usual = np.where(y == j, 0.0, 1.0)
    return Costs(np.ones(classes), sparse.csr_array((cost.astype(np.float64) - usual, (y, j)), (classes, classes)))


def _from_matrix(matrix: Any, classes: int) -> Costs:
    if matrix.ndim != 2 or matrix.shape != (classes, classes):
        raise InputError(
            f"expected a cost for each class ({classes},) or a matrix ({classes}, {classes}) of costs [true, decided], "
            f"got shape {matrix.shape}; pass one of them, or (true, decided, cost) vectors"
        )
    if not sparse.issparse(matrix):
        right = np.diagonal(matrix)
        first = np.where(np.arange(classes) == 0, matrix[:, -1], matrix[:, 0])  # any wrong answer of each row
        same = matrix == first[:, None]
        np.fill_diagonal(same, True)
        if not right.any() and bool(same.all()) and first.min() > 0:
            return Costs(first.copy())  # every mistake on a class costs the same: an offset serves it
    return Costs(np.zeros(classes), matrix)


def _check(costs: Costs, classes: int) -> None:
    stored = None if costs.extra is None else (costs.extra.data if sparse.issparse(costs.extra) else costs.extra)
    if costs.miss.shape != (classes,):
        raise InputError(
            f"costs must hold one number for each of the {classes} classes but have shape {costs.miss.shape}; "
            "give them in class order"
        )
    if not np.isfinite(costs.miss).all() or (stored is not None and not np.isfinite(stored).all()):
        raise InputError("costs must be finite but hold NaN or infinity; give every mistake a number")
    if costs.extra is None:
        if costs.miss.min() <= 0:
            raise InputError(
                f"the cost of missing a class must be above 0 but class {int(costs.miss.argmin())} has "
                f"{float(costs.miss.min()):g}; a small number makes it cheap"
            )
        return
    total = np.asarray(abs(costs.extra).sum(axis=0)).ravel() + (costs.miss.sum() - costs.miss)
    free = np.flatnonzero(total == 0)
    if len(free):
        raise InputError(
            f"deciding class {int(free[0])} costs nothing whatever is true, so it would always be decided; give its "
            "mistakes a cost (pairs that a sparse matrix does not store cost 0)"
        )
