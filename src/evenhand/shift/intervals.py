"""Intervals of an estimated prior: draws from the observed information, without ever forming it.

The information of q is ``H = sum_i r_i r_i' + diag(prior)`` with ``r_i(c) = p_i(c) / (pi_c D_i)``, K x K if written
out. Draws from N(0, H^-1) come from solving ``H x = noise`` with noise of covariance H, all draws at once by conjugate
gradients: a few products of the posteriors with a narrow matrix.

Source: Papandreou and Yuille, "Gaussian sampling by local perturbations" (2010),
https://proceedings.neurips.cc/paper/2010/hash/6a61d423d02a1c56250dc23ae7ff12f3-Abstract.html.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincc, betaincinv

from evenhand.declared import Floats
from evenhand.homogeneity import benjamini_hochberg
from evenhand.shift.likelihood import TINY, Dirichlet, Maximum, ratios
from evenhand.tilt import Singles

CELLS = 50_000_000  # scores that the information is taken from
WORK = 2_400_000_000  # products per iteration; decides the number of draws
DRAWS = (48, 256)
ITERATIONS = 40
JEFFREYS = 0.5  # rows of prior for a class that no other prior holds

AS_BEFORE, MORE, LESS, UNCLEAR = "as before", "more often", "less often", "too few rows to judge"


@dataclass(frozen=True)
class Uncertainty:
    """What the rows leave open.

    Attributes:
        centre: (K,) one Newton step from q towards the maximum under the wide prior. error: (K,) standard errors.
        draws: (K, B) deviations from the centre.
    """

    centre: Floats
    error: Floats
    draws: Floats


@dataclass(frozen=True)
class _Information:
    """H in the coordinates x = (q' - q) / sqrt(q), where its diagonal varies little.

    Attributes:
        rows: (m, K) posteriors. inverse: (m, 1) 1 / D_i. a: (K,) sqrt(q) / pi. scale: rows that one row stands for.
        ridge: (K,) diagonal of the prior. loose: (K,) unit vector: the prior holds the shape of the classes within
            their group but not the size of the group, ``diag(ridge) - s s'`` with s = sqrt(ridge) loose.
    """

    rows: Singles
    inverse: Singles
    a: Floats
    scale: float
    ridge: Floats
    loose: Floats

    @classmethod
    def at(cls, rows: Singles, prior: Floats, q: Floats, belief: Dirichlet, n_eff: float) -> _Information:
        """The information at q, from some of the rows."""
        possible = prior > 0
        own = np.where(belief.free, JEFFREYS, np.maximum(belief.strength * belief.centre, 1e-12))
        ridge = np.where(possible, own / np.maximum(q, TINY), 1.0)
        loose = np.where(belief.free, 0.0, np.sqrt(ridge * q))
        inverse = (1 / (rows @ ratios(prior, q))).astype(np.float32)[:, None]
        a = np.where(possible, np.sqrt(q) / np.maximum(prior, TINY), 0.0)
        return cls(rows, inverse, a, n_eff / len(rows), ridge, loose / max(float(np.linalg.norm(loose)), TINY))

    def times(self, x: Floats) -> Floats:
        """H x for (K, B) columns."""
        y = (self.rows @ (self.a[:, None] * x).astype(np.float32)) * self.inverse
        root = np.sqrt(self.ridge)[:, None]
        return np.asarray(self.scale * self._back(y) + root * self._shape(root * x))

    def noise(self, draws: int, rng: np.random.Generator) -> Floats:
        """(K, draws) with covariance H."""
        of_rows = self._back(rng.standard_normal((len(self.rows), draws), np.float32))
        of_prior = self._shape(rng.standard_normal((len(self.a), draws)))
        return np.asarray(self.scale**0.5 * of_rows + np.sqrt(self.ridge)[:, None] * of_prior)

    def diagonal(self) -> Floats:
        """(K,) of H, the prior counted in full."""
        step = max(1, 4_000_000 // len(self.a))
        squares = np.zeros(len(self.a))
        for at in range(0, len(self.rows), step):
            part = self.rows[at : at + step]
            squares += (self.inverse[at : at + step, 0] ** 2) @ (part * part)
        return np.asarray(self.ridge + self.scale * self.a**2 * squares)

    def _back(self, y: Singles) -> Floats:
        return np.asarray(self.a[:, None] * (self.rows.T @ (y * self.inverse)), np.float64)

    def _shape(self, x: Floats) -> Floats:
        return np.asarray(x - self.loose[:, None] * (self.loose @ x))


def uncertainty(
    p: Singles,
    prior: Floats,
    found: Maximum,
    belief: Dirichlet,
    *,
    n_eff: float,
    rng: np.random.Generator,
) -> Uncertainty:
    """Laplace approximation of q around `found` under the (wide) Dirichlet prior `belief`.

    Args:
        p: (n, K) posteriors under `prior`. n_eff: rows that the likelihood is worth.
    """
    n, k = p.shape
    held = max(1, CELLS // k)
    rows = p if n <= held else p[np.sort(rng.choice(n, held, replace=False))]
    draws = int(np.clip(WORK // (4 * rows.size), *DRAWS))
    q = np.maximum(found.q, 1e-12 * (prior > 0))
    root = np.sqrt(q)
    information = _Information.at(rows, prior, q, belief, n_eff)
    noise, diagonal = information.noise(draws, rng), information.diagonal()
    gradient = _gradient(found.soft, q, belief, n_eff / n)
    solved = solve(information.times, np.column_stack([noise, root, gradient]), diagonal)
    # Frequencies sum to one: the part of every solution that changes their sum is taken out.
    along = solved[:, -2] / max(float(root @ solved[:, -2]), TINY)
    x = solved - along[:, None] * (root @ solved)[None, :]
    deviations = root[:, None] * x[:, :draws]
    least = root * np.sqrt(np.maximum((1 - q) / diagonal, 0))
    error = np.maximum(np.sqrt((deviations**2).mean(axis=1)), least)
    centre = np.maximum(q + root * x[:, -1], 0.05 * q)
    return Uncertainty(centre / centre.sum(), error, deviations)


def _gradient(soft: Floats, q: Floats, belief: Dirichlet, scale: float) -> Floats:
    """Of log-likelihood and log prior in x, less its part along sqrt(q), which the sum of q forbids."""
    safe = np.maximum(q, TINY)
    rest = ~belief.free
    own = np.where(rest, belief.strength * belief.centre, 0.0)
    pull = np.where(rest, own / safe - own.sum() / max(float(q[rest].sum()), TINY), 0.0)
    root = np.sqrt(q)
    gradient = np.where(q > 0, root * (scale * soft / safe + pull), 0.0)
    return np.asarray(gradient - root * (root @ gradient))


def solve(product: Callable[[Floats], Floats], right: Floats, diagonal: Floats, *, tolerance: float = 0.01) -> Floats:
    """Conjugate gradients for several right sides at once, preconditioned by the diagonal.

    Args:
        product: X (K, B) -> H X. right: (K, B). diagonal: (K,) of H. tolerance: relative, of the residual.
    """
    x = np.zeros_like(right)
    r = right.copy()
    s = r / diagonal[:, None]
    direction = s.copy()
    rho = (r * s).sum(axis=0)
    goal = tolerance**2 * rho
    for _ in range(ITERATIONS):
        if (rho <= goal).all():
            break
        image = product(direction)
        step = rho / np.maximum((direction * image).sum(axis=0), TINY)
        x += step * direction
        r -= step * image
        s = r / diagonal[:, None]
        before, rho = rho, (r * s).sum(axis=0)
        direction = s + (rho / np.maximum(before, TINY)) * direction
    return x


def beta_shape(q: Floats, error: Floats) -> tuple[Floats, Floats]:
    """(a, b) of the beta distribution with this mean and standard deviation."""
    size = np.maximum(q * (1 - q) / np.maximum(error**2, TINY) - 1, 1e-3)
    return q * size, (1 - q) * size


def class_intervals(q: Floats, error: Floats, alpha: float) -> Floats:
    """(K, 2) intervals of level ``1 - alpha``: of Clopper and Pearson, with the rows that the error corresponds to.

    Example:
        >>> import numpy as np
        >>> class_intervals(np.array([0.5]), np.array([0.05]), 0.05).round(2).tolist()
        [[0.4, 0.6]]
    """
    a, b = beta_shape(q, error)
    low = betaincinv(np.maximum(a, 1e-8), b + 1, alpha / 2)
    return np.column_stack([np.where(a > 1e-8, low, 0.0), betaincinv(a + 1, np.maximum(b, 1e-8), 1 - alpha / 2)])


def class_q_values(q: Floats, error: Floats, prior: Floats) -> Floats:
    """(K,) q-values that a class has moved: two-sided tails of the same beta distributions, false-discovery controlled.

    The estimate is drawn towards pi and its error holds the width of the prior, which makes the p-values too large
    rather than too small.
    """
    a, b = beta_shape(q, error)
    up = betainc(np.maximum(a, 1e-8), b + 1, prior)
    down = betaincc(a + 1, np.maximum(b, 1e-8), prior)
    tails = np.minimum(1.0, 2 * np.where(q > prior, up, down))
    return benjamini_hochberg(np.asarray(tails), prior > 0)


def verdicts(q: Floats, interval: Floats, prior: Floats, q_values: Floats, alpha: float) -> list[str]:
    """(K,) words: more often, less often, as before, or too few rows to judge (half and double are both possible)."""
    result = np.full(len(q), AS_BEFORE, dtype=object)
    result[(interval[:, 0] < prior / 2) & (interval[:, 1] > prior * 2)] = UNCLEAR
    sure = q_values < alpha
    result[sure & (q > prior)] = MORE
    result[sure & (q < prior)] = LESS
    return [str(word) for word in result]
