"""The likelihood of a class prior on unlabelled rows, and its maximum: EM with a Dirichlet prior, accelerated.

With p_i(c) the posterior of row i under the prior pi, the likelihood ratio of another prior q is
``prod_i sum_c (q_c / pi_c) p_i(c)``. Posteriors are normalised in the log domain, once; after that a pass over the
rows is two matrix-vector products per cache-sized block. Nothing is K x K.

Sources: Saerens et al., "Adjusting the outputs of a classifier to new a priori probabilities" (2002),
https://doi.org/10.1162/089976602753284446; Walker and Ni, "Anderson acceleration for fixed-point iterations" (2011),
https://doi.org/10.1137/10078356X.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Floats, Ints
from evenhand.scanning import bad_rows
from evenhand.tilt import BLOCK_CELLS, Singles, map_blocks

GROUPS = 32  # partial sums of K numbers held at once
BLOCK_ROWS = 4_096  # longer single-precision sums would lose the sixth digit
PASSES = 20
MEMORY = 6  # steps that the acceleration remembers
ROUNDING = 1e-7  # of single precision, per row: a fall of the objective below it means nothing
TOLERANCE = 2e-3  # of the sampling error: finer steps would move q by less than another draw of the rows does
TINY = 1e-300

Bools = NDArray[np.bool_]
T = TypeVar("T")


def posteriors(
    logits: NDArray[np.floating[Any]],
    scale: float | Floats,
    offset: Floats,
    threads: int = 1,
    order: Ints | None = None,
) -> Singles:
    """(n, K) float32 ``softmax(scale z + offset)``, computed block by block; a class at -inf gets zero.

    Args:
        order: (n,) permutation of the rows; as they are if None.

    Raises:
        InputError: a row holds NaN, +inf or nothing but -inf.
    """
    p = np.empty(logits.shape, np.float32)
    constant, factor = offset.astype(np.float32), np.asarray(scale, np.float32)
    wrong = np.zeros(len(p), bool)

    def block(rows: slice) -> None:
        e = p[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            some = logits[rows] if order is None else logits[order[rows]]
            np.multiply(some, factor, out=e, casting="same_kind")
            e += constant
            top = e.max(axis=1, keepdims=True)
            wrong[rows] = ~np.isfinite(top[:, 0])
            e -= top
        np.exp(e, out=e)
        e /= (e @ np.ones(e.shape[1], np.float32))[:, None]

    map_blocks(block, row_blocks(p.shape), threads)
    if wrong.any():
        bad = np.flatnonzero(wrong) if order is None else np.sort(order[wrong])
        raise bad_rows("logits", bad.astype(np.int64))
    return p


def row_blocks(shape: tuple[int, ...]) -> list[slice]:
    """Slices over the rows that fit the cache."""
    step = int(np.clip(BLOCK_CELLS // shape[1], 4, BLOCK_ROWS))
    return [slice(at, min(shape[0], at + step)) for at in range(0, shape[0], step)]


def sum_blocks(
    p: Singles, block: Callable[[Singles, slice], tuple[NDArray[np.floating[Any]], ...]], threads: int
) -> list[Floats]:
    """Sums over all blocks of the arrays that `block` returns, in float64."""
    blocks = row_blocks(p.shape)
    step = -(-len(blocks) // GROUPS)
    groups = [blocks[at : at + step] for at in range(0, len(blocks), step)]

    def group(tasks: list[slice]) -> list[Floats]:
        total: list[Floats] = []
        for rows in tasks:
            values = block(p[rows], rows)
            total = [np.asarray(v, np.float64) for v in values] if not total else [
                t + v for t, v in zip(total, values, strict=True)
            ]  # fmt: skip
        return total

    return [np.sum(parts, axis=0) for parts in zip(*map_blocks(group, groups, threads), strict=True)]


def moments(p: Singles, threads: int = 1) -> tuple[Floats, Floats]:
    """(K,) means of p_i(c) and of p_i(c)^2."""

    def block(e: Singles, rows: slice) -> tuple[NDArray[np.floating[Any]], ...]:  # noqa: ARG001
        one = np.ones(len(e), np.float32)
        return one @ e, one @ (e * e)

    mean, square = sum_blocks(p, block, threads)
    return mean / len(p), square / len(p)


def expectation(p: Singles, prior: Floats, q: Floats, threads: int = 1) -> tuple[float, Floats]:
    """One pass: the log-likelihood ratio ``l(q) = sum_i log sum_c (q_c / pi_c) p_i(c)``, and the soft counts under q.

    Args:
        p: (n, K) posteriors under `prior`. prior, q: (K,).

    Returns:
        l(q), and (K,) ``sum_i p_i(c) (q_c / pi_c) / sum_j p_i(j) (q_j / pi_j)``, which sum to n.
    """
    ratio = ratios(prior, q)

    def block(e: Singles, rows: slice) -> tuple[NDArray[np.floating[Any]], ...]:  # noqa: ARG001
        d = e @ ratio
        return np.log(d.astype(np.float64)).sum(keepdims=True), (1 / d) @ e

    value, columns = sum_blocks(p, block, threads)
    return float(value[0]), columns * ratio


def row_likelihoods(p: Singles, prior: Floats, q: Floats, threads: int = 1) -> Floats:
    """(n,) ``log sum_c (q_c / pi_c) p_i(c)``, the log-likelihood ratio of every row."""
    ratio = ratios(prior, q)
    parts = map_blocks(lambda rows: np.log((p[rows] @ ratio).astype(np.float64)), row_blocks(p.shape), threads)
    return np.concatenate(parts)


def ratios(prior: Floats, q: Floats) -> Singles:
    """(K,) q / prior, within single precision; 0 where the prior is 0, since no row has mass there."""
    return np.where(prior > 0, np.clip(q / np.maximum(prior, TINY), 1e-30, 1e30), 0).astype(np.float32)


@dataclass(frozen=True)
class Dirichlet:
    """What is believed of q before the rows are seen: `strength` rows distributed like `centre`.

    Attributes:
        centre: (K,) sums to 1. strength: rows, above 0; inf holds q at the centre.
        free: (K,) classes that are known to have moved: no prior on them, and on the others only within their group.
    """

    centre: Floats
    strength: float
    free: Bools

    def maximise(self, soft: Floats) -> Floats:
        """M-step: the q that maximises ``sum_c soft_c log q_c`` plus the log prior."""
        share = soft / soft.sum()
        rest = self.centre.copy() if np.isinf(self.strength) else soft + self.strength * self.centre
        rest[self.free] = 0
        kept = share[~self.free].sum()
        return np.asarray(np.where(self.free, share, rest * (kept / max(rest.sum(), TINY))))

    def log_density(self, q: Floats) -> float:
        """Up to a constant; 0 where the strength is infinite, which leaves no choice."""
        if np.isinf(self.strength):
            return 0.0
        held = (self.centre > 0) & ~self.free
        q_rest = q[held] / max(float(q[held].sum()), TINY)
        return float(self.strength * (self.centre[held] @ np.log(np.maximum(q_rest, TINY))))


@dataclass(frozen=True)
class Maximum:
    """The maximum found. Attributes: q, soft: (K,), soft counts at q. log_likelihood: l(q). passes; converged."""

    q: Floats
    soft: Floats
    log_likelihood: float
    passes: int
    converged: bool


def maximise_likelihood(
    p: Singles, prior: Floats, belief: Dirichlet, *, start: Floats, passes: int = PASSES, threads: int = 1
) -> Maximum:
    """Maximum a posteriori of q by EM on log q with Anderson acceleration.

    A step is taken as the EM step combined with the `MEMORY` steps before it; where the objective falls, the memory is
    dropped and the plain EM step, which never falls, is taken from the best point. It ends when an EM step moves q by
    less than 0.2 % of the sampling error, ``sum_c q_c (log q'_c - log q_c)^2 < 4e-6 (K - 1) / n``.

    Args:
        p: (n, K) posteriors under `prior` (K,). belief: the Dirichlet prior. start: (K,) first guess, above 0.
        passes: over the rows, at most.
    """
    n, k = p.shape
    alive = (prior > 0) & (start > 0)
    x = np.log(np.where(alive, start, 1.0))
    best: tuple[float, Floats, Floats, Floats, float] | None = None
    points: list[Floats] = []
    images: list[Floats] = []
    converged = False
    done = 0
    while done < passes and not converged:
        q = _normalised(x, alive)
        value, soft = expectation(p, prior, q, threads)
        done += 1
        objective = value + belief.log_density(q)
        if best is not None and objective < best[0] - ROUNDING * n and points:
            points, images = [], []
            x = best[3]
            continue
        image = _log(belief.maximise(soft), alive)
        now = _log(q, alive)
        best = (objective, q, soft, image, value)
        converged = float(q @ (image - now) ** 2) < TOLERANCE**2 * (k - 1) / n
        points, images = [*points, now][-MEMORY:], [*images, image][-MEMORY:]
        x = _mixed(points, images, np.sqrt(q))
    if best is None:
        return Maximum(start, start * n, 0.0, 0, False)
    return Maximum(_normalised(best[3], alive), best[2], best[4], done, converged)


def _mixed(points: list[Floats], images: list[Floats], weight: Floats) -> Floats:
    """Anderson's step: the combination of the images whose combined residual is smallest."""
    if len(points) < 2:
        return images[-1]
    residuals = np.array([(g - x) * weight for x, g in zip(points, images, strict=True)])
    differences = np.diff(residuals, axis=0).T
    gamma = np.linalg.lstsq(differences, residuals[-1], rcond=1e-8)[0]
    step = -(np.diff(np.array(images), axis=0).T @ gamma)
    longest = float(np.abs(step).max())
    return np.asarray(images[-1] + step * min(1.0, 3.0 / max(longest, TINY)))


def _log(q: Floats, alive: Bools) -> Floats:
    return np.log(np.where(alive, np.maximum(q, TINY), 1.0))


def _normalised(x: Floats, alive: Bools) -> Floats:
    e = np.where(alive, np.exp(x - x[alive].max()), 0.0)
    return np.asarray(e / e.sum())
