"""The likelihood of ``softmax(beta z + o + A tau)`` on labelled rows, in blocks of rows and threads over blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Floats, Ints
from evenhand.threads import one_blas_thread

Singles = NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R")
Value = tuple[float, Floats, Floats]  # log-likelihood, gradient, observed information
FLOOR = np.float32(-1e4)  # stands for -inf below the row's maximum: exp() of it is zero, products with it are not NaN
BLOCK_CELLS = 262_144
SAFE_RANGE = np.float32(40)  # exp(-40) squared, and one over it, are far inside single precision


def centred_rows(z: NDArray[np.floating]) -> Singles:
    """Logits with every row's maximum subtracted, float32, -inf replaced by -10,000 (its posterior stays zero)."""
    with np.errstate(over="ignore"):  # a mask of -1e300 becomes -inf
        out = np.array(z, dtype=np.float32)
    out -= out.max(axis=1, keepdims=True)
    return np.maximum(out, FLOOR, out=out)


@dataclass(frozen=True)
class Part:
    """Rows that share one offset and one set of directions (folds of a cross-fitted prior differ in them).

    Attributes: rows: slice into the row arrays. offset: (K,). directions: (K, D).
    """

    rows: slice
    offset: Floats
    directions: Floats


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of ``softmax(beta z + o + A tau)`` with its first two derivatives, as a function of the rows.

    Attributes:
        z: (n, K) float32 logits, every row's maximum subtracted. y: (n,) true classes. parts: how rows are treated.
    """

    z: Singles
    y: Ints
    parts: tuple[Part, ...]
    threads: int = 1

    @property
    def rows(self) -> int:
        """Rows of all parts together."""
        return sum(len(range(*part.rows.indices(len(self.z)))) for part in self.parts)

    def beginning(self, rows: int) -> Likelihood | None:
        """The same of about `rows` rows, the first ones of every part; None if there are not twice as many."""
        if self.rows < 2 * rows:
            return None
        parts = []
        for part in self.parts:
            start, stop, _ = part.rows.indices(len(self.z))
            length = -(-(stop - start) * rows // self.rows)
            parts.append(replace(part, rows=slice(start, min(stop, start + length))))
        return replace(self, parts=tuple(parts))

    def __call__(self, theta: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient (1 + D,) and observed information (1 + D, 1 + D) at ``theta = (beta, tau_1, ...)``."""
        tasks = []
        rows = max(4, BLOCK_CELLS // self.z.shape[1])
        for part in self.parts:
            constant = (part.offset + part.directions @ theta[1:]).astype(np.float32)
            design = _design(part.directions)
            start, stop, _ = part.rows.indices(len(self.z))
            for at in range(start, stop, rows):
                tasks.append((slice(at, min(stop, at + rows)), float(theta[0]), constant, design, part))
        results = map_blocks(lambda t: _block(self.z[t[0]], self.y[t[0]], *t[1:]), tasks, self.threads)
        values, gradients, information = zip(*results, strict=True)
        return float(sum(values)), np.sum(gradients, axis=0), np.sum(information, axis=0)


def map_blocks(function: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Results in order, by threads when there is more than one; NumPy releases the lock inside its loops."""
    if threads <= 1 or len(items) <= 1:
        return [function(item) for item in items]
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def _design(directions: Floats) -> Singles:
    """Columns [1, A, A_i A_j]: one matrix product with them gives all moments of A under the posterior."""
    k, d = directions.shape
    products = (directions[:, :, None] * directions[:, None, :]).reshape(k, d * d)
    return np.concatenate([np.ones((k, 1)), directions, products], axis=1).astype(np.float32)


def exponentials(z: Singles, y: Ints, beta: float, constant: Singles) -> tuple[Singles, Floats]:
    """``exp(beta z + constant - m)`` (rows, K) with a constant m per row, and its exponent at the true class (rows,).

    The rows have their maximum at zero (`centred_rows`), so unless the constant has a wide range, one m for all rows
    keeps the largest term of every row, and its square, far from underflow: no pass to look for the maximum.
    """
    e = z * np.float32(beta)
    top = constant.max()
    if beta >= 0 and top - constant.min() <= SAFE_RANGE:
        e += constant - top
    else:
        e += constant
        e -= e.max(axis=1, keepdims=True)
    u_true = e[np.arange(len(z)), y].astype(np.float64)
    np.exp(e, out=e)
    return e, u_true


def _block(
    z: Singles, y: Ints, beta: float, constant: Singles, design: Singles, part: Part
) -> tuple[float, Floats, Floats]:
    """One block: p = softmax(beta z + constant); E and Cov of (z, A) under p; their gap to the true class."""
    rows, d = np.arange(len(z)), part.directions.shape[1]
    e, u_true = exponentials(z, y, beta, constant)
    moments = (e @ design).astype(np.float64)
    total = moments[:, :1]
    mean_a = moments[:, 1 : 1 + d] / total
    mean_aa = moments[:, 1 + d :].reshape(len(z), d, d) / total[:, :, None]
    e *= z
    first = (e @ design[:, : 1 + d]).astype(np.float64) / total
    mean_z, mean_za = first[:, 0], first[:, 1:]
    mean_zz = np.einsum("ij,ij->i", e, z).astype(np.float64) / total[:, 0]
    gradient = np.concatenate([[(z[rows, y] - mean_z).sum()], (part.directions[y] - mean_a).sum(axis=0)])
    information = np.empty((1 + d, 1 + d))
    information[0, 0] = np.maximum(mean_zz - mean_z**2, 0).sum()
    information[0, 1:] = information[1:, 0] = (mean_za - mean_z[:, None] * mean_a).sum(axis=0)
    information[1:, 1:] = (mean_aa - mean_a[:, :, None] * mean_a[:, None, :]).sum(axis=0)
    return float((u_true - np.log(total[:, 0])).sum()), gradient, information
