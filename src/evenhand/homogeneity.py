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
from scipy.sparse import coo_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg
from scipy.special import bdtr, chdtrc

from evenhand.declared import Floats, Ints


@dataclass(frozen=True)
class Homogeneity:
    """Stuart-Maxwell test of equal true and predicted counts: statistic, degrees of freedom, p-value.

    The chi-square p-value is conservative (too large) below about 100 rows per class.
    """

    statistic: float
    df: int
    p: float


def stuart_maxwell(edge_true: Ints, edge_predicted: Ints, edge_count: Ints, classes: int) -> Homogeneity:
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
    w = edge_count.astype(np.float64)
    flow = (np.bincount(edge_predicted, w, classes) - np.bincount(edge_true, w, classes)).astype(np.float64)
    graph = coo_array((w, (edge_true, edge_predicted)), shape=(classes, classes)).tocsr()
    graph = graph + graph.T
    degree = np.asarray(graph.sum(axis=0), dtype=np.float64).ravel()
    active = degree > 0
    _, label = connected_components(graph, directed=False)
    df = int(active.sum()) - len(np.unique(label[active]))
    statistic = float(flow @ _solve_laplacian(graph, degree, flow))
    return Homogeneity(statistic, df, float(chdtrc(df, statistic)) if df else 1.0)


def _solve_laplacian(graph: coo_array, degree: Floats, flow: Floats) -> Floats:
    """Solve ``L x = flow`` on the classes with errors; flow sums to zero in every component, so a solution exists."""
    active = np.flatnonzero(degree > 0)
    laplacian = (diags_array(degree) - graph).tocsr()[active][:, active]
    inverse = diags_array(1.0 / degree[active])
    solution = np.zeros(len(degree))
    solution[active], _ = cg(laplacian, flow[active], rtol=1e-10, atol=0.0, maxiter=5_000, M=inverse)
    return solution


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


def benjamini_hochberg(p: Floats, tested: NDArray[np.bool_] | None = None) -> Floats:
    """q-values: the smallest false discovery rate at which each test is called; 1 where not `tested`.

    Written out because importing scipy.stats for its ``false_discovery_control`` costs more than a whole audit.

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
        ranked = p[order] * len(order) / np.arange(1, len(order) + 1)
        q[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return q


def count_noise(false_positive: Ints, false_negative: Ints) -> Floats:
    """(K,) standard deviation of predicted - true counts if predictions followed the truth: sqrt(FP + FN)."""
    return np.asarray(np.sqrt((false_positive + false_negative).astype(np.float64)))


def noise_floor(false_positive: Ints, false_negative: Ints, rows: int) -> float:
    """Expected total variation between predicted and true counts if they agreed: sum of sqrt(2 / pi) sd over 2 N."""
    return float(np.sqrt(2 / np.pi) * count_noise(false_positive, false_negative).sum() / (2 * max(rows, 1)))


def lopsided_pairs(edge_true: Ints, edge_predicted: Ints, edge_count: Ints, classes: int) -> dict[str, Any]:
    """Every pair of classes once: errors there and back, exact test of their equality, false-discovery controlled.

    Returns:
        Arrays of equal length: true, predicted (the direction with more errors), rows, back, q_value.
    """
    k = classes
    low, high = np.minimum(edge_true, edge_predicted), np.maximum(edge_true, edge_predicted)
    key, inverse = np.unique(low * k + high, return_inverse=True)
    upward = edge_true < edge_predicted
    up = np.bincount(inverse[upward], edge_count[upward], len(key)).astype(np.int64)
    down = np.bincount(inverse[~upward], edge_count[~upward], len(key)).astype(np.int64)
    first, second = key // k, key % k
    forward = up >= down
    return {
        "true": np.where(forward, first, second),
        "predicted": np.where(forward, second, first),
        "rows": np.maximum(up, down),
        "back": np.minimum(up, down),
        "q_value": benjamini_hochberg(mcnemar(up, down)),
    }
