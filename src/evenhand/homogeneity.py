"""Do predicted and true counts differ, on the same rows? Tests that stay right when most cells are empty.

The usual software forms the K x K table and inverts a K x K matrix, and some of it adds half a row to every empty
cell: at 500 classes that invents 125,000 rows and answers p = 1 on inverted predictions. Here the Stuart-Maxwell
covariance is read as the Laplacian of the graph of errors and solved on its E edges.

Sources: Stuart, "A test for homogeneity of the marginal distributions in a two-way classification" (1955),
https://doi.org/10.2307/2333387; Maxwell (1970), https://doi.org/10.1192/bjp.116.535.651; McNemar (1947),
https://doi.org/10.1007/BF02295996; Benjamini and Hochberg (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import bdtr, chdtrc

from evenhand.declared import Floats, Ints

Labels = NDArray[np.integer[Any]]
STEP = 1 << 19  # edges that are sorted or searched together, so that millions of them need little extra memory
ALL_EDGES = 200_000  # tables with more errors than this keep only their most lopsided pairs
WORST_PAIRS = 1_000
FEW = 256  # rows of a pair up to which tests of equal counts are counted in a table


@dataclass(frozen=True)
class Homogeneity:
    """Stuart-Maxwell test of equal true and predicted counts: statistic, degrees of freedom, p-value.

    The chi-square p-value is conservative (too large) below about 100 rows per class.
    """

    statistic: float
    df: int
    p: float


def stuart_maxwell(edge_true: Labels, edge_predicted: Labels, edge_count: Ints, classes: int) -> Homogeneity:
    """Test that predicted and true counts agree, from the sparse table of errors.

    With ``d_c = predicted - true`` counts and V the Laplacian of the symmetrised error graph (``V_cc`` = false
    positives + false negatives, ``V_cd = -(n_cd + n_dc)``), ``X2 = d' V^+ d`` is chi-square with as many degrees of
    freedom as there are classes with an error minus connected components.

    Args:
        edge_true, edge_predicted, edge_count: (E,) distinct pairs with true != predicted. classes: K.

    Example:
        >>> import numpy as np
        >>> test = stuart_maxwell(np.array([0, 1]), np.array([1, 0]), np.array([30, 10]), 2)   # McNemar: 20^2 / 40
        >>> round(test.statistic, 6), test.df
        (10.0, 1)
    """
    if not len(edge_count):
        return Homogeneity(0.0, 0, 1.0)
    table = _table(edge_true, edge_predicted, edge_count.astype(np.float64), classes)
    lost, won = table @ np.ones(classes), table.T @ np.ones(classes)
    active = lost + won > 0
    df = int(active.sum()) - len(np.unique(component_labels(edge_true, edge_predicted, classes)[active]))
    flow = won - lost
    statistic = float(flow @ _solve_laplacian(table, lost + won, flow))
    return Homogeneity(statistic, df, float(chdtrc(df, statistic)) if df else 1.0)


def _table(true: Labels, predicted: Labels, weight: Floats, classes: int) -> csr_array:
    """The errors as a sparse table; edges in order, which tallies have, are used where they are."""
    if (true[1:] < true[:-1]).any():
        return coo_array((weight, (true, predicted)), shape=(classes, classes)).tocsr()
    # Bounds of another type than the columns would copy both.
    start = np.searchsorted(true, np.arange(classes + 1, dtype=true.dtype)).astype(predicted.dtype)
    return csr_array((weight, predicted, start), shape=(classes, classes))


def component_labels(edge_true: Labels, edge_predicted: Labels, classes: int) -> Ints:
    """(K,) number of the connected component of each class; edges inside what is already connected are left out.

    Example:
        >>> import numpy as np
        >>> component_labels(np.array([0, 3]), np.array([2, 0]), 5).tolist()
        [0, 1, 0, 0, 2]
    """
    label = np.arange(classes)
    for start in range(0, len(edge_true), STEP):
        a, b = label[edge_true[start : start + STEP]], label[edge_predicted[start : start + STEP]]
        open_ = np.flatnonzero(a != b)
        links = coo_array((np.ones(len(open_), bool), (a[open_], b[open_])), shape=(classes, classes))
        label = connected_components(links, directed=False)[1][label]
    return label.astype(np.int64)


def _solve_laplacian(table: csr_array, degree: Floats, flow: Floats) -> Floats:
    """Solve ``L x = flow`` on the classes with errors; flow sums to zero in every component, so a solution exists."""
    back = table.T  # the same arrays read by columns: the symmetrised table, twice as large, is never formed
    safe = np.where(degree > 0, degree, 1.0)

    def laplacian(x: Floats) -> Floats:
        x = x.ravel()
        return np.asarray(degree * x - table @ x - back @ x)

    operator = LinearOperator(table.shape, matvec=laplacian, dtype=np.float64)
    solution, _ = cg(operator, flow, rtol=1e-10, atol=0.0, maxiter=5_000, M=diags_array(1.0 / safe))
    return np.asarray(solution)


def mcnemar(false_positive: Ints, false_negative: Ints) -> Floats:
    """Exact two-sided p-value per class that false positives and false negatives are equally likely.

    Given FP + FN errors, FP is binomial(FP + FN, 1/2) if the class is predicted as often as it occurs.

    Args: false_positive, false_negative: (K,) counts. Returns: (K,) p-values; 1 where there are no errors.

    Example:
        >>> import numpy as np
        >>> mcnemar(np.array([10, 3, 0]), np.array([0, 3, 0])).round(4).tolist()
        [0.002, 1.0, 1.0]
    """
    smaller = np.minimum(false_positive, false_negative).astype(np.float64)
    total = (false_positive + false_negative).astype(np.float64)
    return np.asarray(np.minimum(1.0, 2.0 * bdtr(smaller, np.maximum(total, 1).astype(np.int64), 0.5)))


def benjamini_hochberg(p: Floats, tested: NDArray[np.bool_] | None = None, *, times: Ints | None = None) -> Floats:
    """q-values: the smallest false discovery rate at which each test is called; 1 where not `tested`.

    Written out because importing scipy.stats for its ``false_discovery_control`` costs more than a whole audit.

    Args:
        p: p-values. tested: which of them count. times: how many equal tests each p-value stands for; one if None.

    Example:
        >>> import numpy as np
        >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
        [0.04, 0.0533, 0.0533, 0.5]
    """
    mask = np.ones(len(p), bool) if tested is None else tested
    q = np.ones(len(p))
    chosen = np.flatnonzero(mask)
    order = chosen[np.argsort(p[chosen])]
    if len(order):
        rank = np.arange(1, len(order) + 1) if times is None else np.cumsum(times[order])
        ranked = p[order] * rank[-1] / rank
        q[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return q


def count_noise(false_positive: Ints, false_negative: Ints) -> Floats:
    """(K,) standard deviation of predicted - true counts if predictions followed the truth: sqrt(FP + FN)."""
    return np.asarray(np.sqrt((false_positive + false_negative).astype(np.float64)))


def noise_floor(false_positive: Ints, false_negative: Ints, rows: int) -> float:
    """Expected total variation between predicted and true counts if they agreed: sum of sqrt(2 / pi) sd over 2 N."""
    return float(np.sqrt(2 / np.pi) * count_noise(false_positive, false_negative).sum() / (2 * max(rows, 1)))


def lopsided_pairs(edge_true: Labels, edge_predicted: Labels, edge_count: Ints, classes: int) -> dict[str, Any]:
    """Pairs of classes: errors there and back, exact test of their equality, false-discovery controlled.

    All pairs are tested. Beyond 200,000 edges only the most lopsided pairs are returned, at least 1,000 of them: the
    pairs with the largest differences, ties first in the order of the classes or first in that of the true class.

    Returns:
        Arrays of equal length, ordered by the smaller then the larger class: true, predicted (the direction with more
        errors), rows, back, q_value; and ``distinct``, the number of pairs with an error.
    """
    limit = None if len(edge_count) <= ALL_EDGES else WORST_PAIRS
    lower = np.minimum(edge_true, edge_predicted)
    kept = np.empty((4, 0), np.int64)
    often, rare = np.zeros(FEW * FEW, np.int64), [np.empty((2, 0), np.int64)]
    for first, stop in _class_ranges(lower, classes):
        at = slice(None) if stop - first == classes else np.flatnonzero((lower >= first) & (lower < stop))
        pairs = _both_ways(edge_true[at], edge_predicted[at], edge_count[at], classes)
        rows, back = pairs[2], pairs[3]
        few = rows < FEW
        often += np.bincount(rows[few] * FEW + back[few], minlength=len(often))
        rare.append(pairs[2:, ~few])
        if limit is not None and kept.shape[1]:  # pairs that cannot come in need not be ranked
            pairs = pairs[:, rows - back >= (kept[2] - kept[3]).min()]
        kept = _most_lopsided(np.concatenate([kept, pairs], axis=1), limit)
    q, distinct = _pair_q_values(kept[2], kept[3], often, np.concatenate(rare, axis=1))
    return dict(zip(("true", "predicted", "rows", "back"), kept, strict=True)) | {"q_value": q, "distinct": distinct}


def _class_ranges(lower: Labels, classes: int) -> list[tuple[int, int]]:
    """Ranges of classes whose pairs, each counted at its smaller class, have about `STEP` edges."""
    ends = np.cumsum(np.bincount(lower, minlength=classes))
    cuts = np.searchsorted(ends, np.arange(STEP, len(lower), STEP)) + 1
    bounds = np.unique(np.concatenate([[0], np.minimum(cuts, classes), [classes]]))
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


def _both_ways(true: Labels, predicted: Labels, count: Ints, classes: int) -> Ints:
    """(4, P) true, predicted, rows, back of each pair once, from all edges of both directions."""
    if not len(count):
        return np.empty((4, 0), np.int64)
    narrow = np.min_scalar_type(classes)  # integers of two bytes are sorted by radix, ten times faster
    low, high = np.minimum(true, predicted).astype(narrow), np.maximum(true, predicted).astype(narrow)
    order = np.lexsort((high, low))
    low, high, count, upward = low[order], high[order], count[order], (true < predicted)[order]
    starts = np.flatnonzero(np.concatenate([[True], (low[1:] != low[:-1]) | (high[1:] != high[:-1])]))
    up, down = (np.add.reduceat(np.where(way, count, 0), starts) for way in (upward, ~upward))
    low, high = low[starts].astype(np.int64), high[starts].astype(np.int64)
    forward = up >= down
    return np.stack(
        [np.where(forward, low, high), np.where(forward, high, low), np.maximum(up, down), np.minimum(up, down)]
    )


def _most_lopsided(pairs: Ints, limit: int | None) -> Ints:
    """Pairs among the `limit` largest differences, with ties broken by position or by true class, in their order."""
    if limit is None or pairs.shape[1] <= limit:
        return pairs
    difference = pairs[2] - pairs[3]
    least = np.partition(difference, -limit)[-limit]
    tied = np.flatnonzero(difference == least)
    by_class = tied[np.argsort(pairs[0, tied], kind="stable")]
    return pairs[:, np.unique(np.concatenate([np.flatnonzero(difference > least), tied[:limit], by_class[:limit]]))]


def _pair_q_values(rows: Ints, back: Ints, often: Ints, rare: Ints) -> tuple[Floats, int]:
    """q-values of some pairs among all, and how many all are: few counts are small, so few tests differ.

    `often` counts the tests by ``rows * FEW + back``, `rare` (2, R) lists the others one by one.
    """
    cells = np.flatnonzero(often)
    p = mcnemar(np.concatenate([cells // FEW, rare[0]]), np.concatenate([cells % FEW, rare[1]]))
    times = np.concatenate([often[cells], np.ones(rare.shape[1], np.int64)])
    q = benjamini_hochberg(p, times=times)
    order = np.argsort(p)
    return q[order][np.searchsorted(p[order], mcnemar(rows, back))], int(times.sum())
