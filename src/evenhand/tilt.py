"""The law of evenhand: how many times has the prior been divided out of a model?

Training with class weights w and sampler rates q converges to ``p(y|x) w_y q_y / pi_y`` up to normalisation, so the
log-odds of class y are shifted by ``t_y = log w_y + log(q_y / pi_y)``. Held-out labels tell what a finished model
holds of it: fit ``softmax(beta z + o + A tau)`` by maximum likelihood, where the columns of A are directions (K,) and
``o`` is the known difference between the evaluation and the training prior. Along ``A = log pi``, tau counts how often
the prior was divided out: 0 for plain training, 1 for balanced weights, 2 for weights on top of a balanced sampler.

The log-likelihood is concave in (beta, tau), an exponential family: Newton's method needs a handful of passes.

Sources: Elkan, "The foundations of cost-sensitive learning" (2001); Saerens et al., "Adjusting the outputs of a
classifier to new a priori probabilities" (2002), https://doi.org/10.1162/089976602753284446; Menon et al., "Long-tail
learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314; Guo et al., "On calibration of modern neural
networks" (2017), https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from evenhand.declared import Floats, InputError, Ints
from evenhand.likelihood import BLOCK_CELLS as BLOCK_CELLS
from evenhand.likelihood import FLOOR as FLOOR
from evenhand.likelihood import Likelihood as Likelihood
from evenhand.likelihood import Part as Part
from evenhand.likelihood import Singles as Singles
from evenhand.likelihood import Value as Value
from evenhand.likelihood import centred_rows as centred_rows
from evenhand.likelihood import exponentials as exponentials
from evenhand.likelihood import map_blocks as map_blocks

START_ROWS = 2_000  # rows on which a fit of more than twice as many begins
MANY_ROWS = 2_000  # from here on the likelihood is quadratic within a standard error of its maximum
LAST_STEP = 1e-2  # nats: a tenth of a standard error from the maximum of a quadratic, one more step leads onto it
CHI2_95 = float(chdtri(1, 0.05))


@dataclass(frozen=True)
class ScoreTest:
    """Rao's test of tau = 0 at beta = 1: statistic ``z = U / sqrt(I)``, one-step estimate ``tau = U / I``."""

    z: float
    tau: float
    standard_error: float


@dataclass(frozen=True)
class TiltFit:
    """Maximum-likelihood fit of (beta, tau).

    Attributes:
        beta, tau: estimates; tau has one entry per direction. beta_interval, tau_interval: 95 %, of (D, 2) for tau.
        information: (1 + D, 1 + D) observed information at the estimate.
        log_likelihood: at the estimate; identity: at (1, 0); rows: n.
        converged: whether Newton's method met its tolerance. score: the test at (1, 0) along the first direction.
    """

    beta: float
    tau: Floats
    beta_interval: tuple[float, float]
    tau_interval: Floats
    information: Floats
    log_likelihood: float
    identity: float
    rows: int
    converged: bool
    score: ScoreTest

    @property
    def standard_error(self) -> Floats:
        """(D,) standard errors of tau."""
        return np.sqrt(np.diag(_covariance(self.information))[1:])


def fit_tilt(
    z: NDArray[np.floating],
    y: Ints,
    directions: Floats,
    *,
    offset: Floats | None = None,
    start: Floats | None = None,
    threads: int = 1,
) -> TiltFit:
    """Fit ``softmax(beta z + offset + directions @ tau)`` to labels by maximum likelihood.

    Args:
        z: (n, K) logits. y: (n,) true classes.
        directions: (K,) or (K, D), for instance the centred log prior; what is to be measured.
        offset: (K,) known constant, for instance log(evaluation prior / training prior); None for none.
        start: (1 + D,) first guess; (1, 0, ...) if None.
        threads: threads over blocks of rows.

    Returns:
        Estimates with 95 % profile-likelihood intervals.

    Raises:
        InputError: shapes that do not fit, labels out of range, NaN or +inf, or a direction that is constant (nothing
            could be measured along it).

    Limits:
        Asymptotic intervals; below about 20 rows they are too short. A direction that hardly varies over the classes
        that the model confuses gives a wide interval, not an error.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> prior = np.array([0.7, 0.2, 0.1]); y = rng.choice(3, 4000, p=prior)
        >>> z = rng.normal(size=(4000, 3)); z[np.arange(4000), y] += 1  # knows nothing of the prior
        >>> fit = fit_tilt(z, y, np.log(prior))
        >>> bool(abs(fit.tau[0] - 1) < 0.1), bool(abs(fit.beta - 1) < 0.1)
        (True, True)
    """
    columns, known = _checked(z, y, directions, offset)
    if np.ptp(columns, axis=0).min() < 1e-9:
        raise InputError(
            "expected a direction that differs between classes, got a constant one; with equal class frequencies "
            "there is no tilt to measure"
        )
    likelihood = Likelihood(centred_rows(z), y, (Part(slice(None), known, columns - columns.mean(axis=0)),), threads)
    return maximise(likelihood, start=start)


def _checked(z: NDArray[np.floating], y: Ints, directions: Floats, offset: Floats | None) -> tuple[Floats, Floats]:
    """Directions (K, D) and offset (K,), once everything fits together."""
    columns = directions[:, None] if directions.ndim == 1 else directions
    known = np.zeros(len(columns)) if offset is None else offset
    k = z.shape[-1]
    if (
        z.ndim != 2
        or not len(z)
        or y.shape != (len(z),)
        or columns.shape[:1] + known.shape != (k, k)
        or columns.ndim > 2
    ):
        raise InputError(
            f"expected logits (n, K), labels (n,), directions (K,) or (K, D) and an offset (K,), got {z.shape}, "
            f"{y.shape}, {directions.shape} and {known.shape}; pass arrays of the same rows and classes"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= k:
        raise InputError(
            f"expected whole-number labels from 0 to {k - 1}, got {y.dtype} from {y.min()} to {y.max()}; "
            "number the classes from zero and drop rows without one"
        )
    if not (np.isfinite(columns).all() and np.isfinite(known).all() and np.isfinite(z.max(axis=1)).all()):
        raise InputError(
            "expected finite directions and offset and a finite largest logit in every row, got NaN or infinity; "
            "remove these rows, and smooth the counts before taking logarithms"
        )
    return columns, known


def maximise(likelihood: Likelihood, *, start: Floats | None = None, tolerance: float = 1e-6) -> TiltFit:
    """Newton's method with step halving from (1, 0, ...) or `start`, then the profile intervals.

    Many rows are started from the optimum of a few: most steps then cost little.
    """
    d = likelihood.parts[0].directions.shape[1]
    origin = np.concatenate([[1.0], np.zeros(d)])
    at_origin = likelihood(origin)
    theta, value = origin, at_origin
    few = likelihood.beginning(START_ROWS)
    if few is not None:
        start = optimum(few, origin if start is None else start, tolerance=tolerance)[0]
    if start is not None:
        begin = likelihood(start)
        theta, value = (start, begin) if begin[0] > at_origin[0] else (origin, at_origin)
    theta, value, converged = optimum(likelihood, theta, value, tolerance=tolerance)
    return _describe(likelihood, theta, value, at_origin, converged)


def optimum(
    likelihood: Likelihood, theta: Floats, value: Value | None = None, *, tolerance: float = 1e-6
) -> tuple[Floats, Value, bool]:
    """Where Newton's method leads from theta, the value there, and whether it met its tolerance; no intervals."""
    value = likelihood(theta) if value is None else value
    for _ in range(30):
        step = _newton_step(value[1], value[2], reach=np.maximum(1.0, np.abs(theta) * (np.arange(len(theta)) == 0)))
        drop = float(step @ value[1])
        if drop < tolerance * 2:
            return theta, value, True
        if drop < LAST_STEP and likelihood.rows >= MANY_ROWS:
            return theta + step, (value[0] + drop / 2, value[1] * 0, value[2]), True
        theta, value = climb(likelihood, theta, value, step)
    return theta, value, False


def climb(likelihood: Likelihood, theta: Floats, value: Value, step: Floats) -> tuple[Floats, Value]:
    """Take a step, halved until the likelihood falls by no more than its rounding: the new theta and its value."""
    trial = likelihood(theta + step)
    while trial[0] < value[0] - 1e-7 * abs(value[0]) and np.abs(step).max() > 1e-9:
        step = step / 2
        trial = likelihood(theta + step)
    return theta + step, trial


def _covariance(information: Floats) -> Floats:
    """Inverse information; a direction that the rows say nothing about gets a huge variance, not none.

    Where every row is certain, single-precision rounding leaves eigenvalues around zero, some of them negative.
    """
    values, vectors = np.linalg.eigh(information)
    floor = 1e-10 * max(float(np.trace(information)), 1e-6)
    return np.asarray((vectors / np.maximum(values, floor)) @ vectors.T)


def _newton_step(gradient: Floats, information: Floats, reach: float | Floats = 1.0) -> Floats:
    ridge = 1e-9 * np.trace(information) * np.eye(len(gradient)) + 1e-12 * np.eye(len(gradient))
    step = np.linalg.solve(information + ridge, gradient)
    # Beyond one unit (beta: beyond doubling) the quadratic model says nothing: a long step lands where every posterior
    # is 0 or 1, the information vanishes, and no further step leads back.
    return step * min(1.0, float((reach / np.maximum(np.abs(step), 1e-300)).min()))


def _describe(
    likelihood: Likelihood,
    theta: Floats,
    value: tuple[float, Floats, Floats],
    at_origin: tuple[float, Floats, Floats],
    converged: bool,
) -> TiltFit:
    intervals = np.array([profile_interval(likelihood, theta, value, j) for j in range(len(theta))])
    u, i = float(at_origin[1][1]), max(float(at_origin[2][1, 1]), 1e-300)
    return TiltFit(
        beta=float(theta[0]),
        tau=theta[1:].copy(),
        beta_interval=(float(intervals[0, 0]), float(intervals[0, 1])),
        tau_interval=intervals[1:],
        information=value[2],
        log_likelihood=value[0],
        identity=at_origin[0],
        rows=len(likelihood.y),
        converged=converged,
        score=ScoreTest(z=u / i**0.5, tau=u / i, standard_error=i**-0.5),
    )


def profile_interval(
    likelihood: Likelihood, theta: Floats, value: tuple[float, Floats, Floats], index: int
) -> tuple[float, float]:
    """Where twice the drop of the likelihood, maximised over the other parameters, reaches 3.84.

    The quadratic approximation is exact enough beyond some hundred rows of a well-behaved model: it is tried first and
    corrected once when the drop is off by more than 5 %.
    """
    covariance = _covariance(value[2])
    error = float(np.sqrt(max(covariance[index, index], 0.0)))
    if likelihood.rows >= MANY_ROWS:  # Wald and profile agree to a hundredth of the error: measured in the tests
        half = error * CHI2_95**0.5
        return float(theta[index] - half), float(theta[index] + half)
    ends = []
    for sign in (-1.0, 1.0):
        length = CHI2_95**0.5
        for _ in range(4):
            drop = _profile_drop(likelihood, theta, value[0], covariance, index, sign * length * error)
            if abs(drop - CHI2_95) < 0.02 * CHI2_95 or drop <= 0 or not np.isfinite(drop):
                break
            length *= float(np.clip((CHI2_95 / drop) ** 0.5, 0.5, 2.0))
        ends.append(float(theta[index] + sign * length * error))
    return ends[0], ends[1]


def _profile_drop(
    likelihood: Likelihood, theta: Floats, best: float, covariance: Floats, index: int, shift: float
) -> float:
    """2 (l_max - max over the other parameters of l) with parameter `index` moved by `shift`."""
    others = np.arange(len(theta)) != index
    moved = theta + covariance[:, index] / max(covariance[index, index], 1e-300) * shift
    value = likelihood(moved)
    for _ in range(8):
        step = np.zeros(len(theta))
        step[others] = _newton_step(value[1][others], value[2][np.ix_(others, others)])
        if float(step @ value[1]) < 1e-4:
            break
        moved = moved + step
        value = likelihood(moved)
    return 2.0 * (best - value[0])


def score_test(z: NDArray[np.floating], y: Ints, direction: Floats, *, offset: Floats | None = None) -> ScoreTest:
    """Test tau = 0 at beta = 1 in one pass: ``U = a'(n - s)``, ``I = sum_i Var_{p_i}(a)``.

    Here n and s are the (K,) true and soft counts and ``a`` is the centred `direction`. ``U / I`` is the first Newton
    step towards tau. Source: Rao (1948), https://doi.org/10.1017/S0305004100023987.

    Raises:
        InputError: shapes that do not fit, labels out of range, NaN or +inf.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> prior = np.array([0.7, 0.2, 0.1]); y = rng.choice(3, 500, p=prior)
        >>> z = rng.normal(size=(500, 3)); z[np.arange(500), y] += 1.0
        >>> bool(score_test(z, y, np.log(prior)).z > 5)
        True
    """
    if direction.ndim != 1:
        raise InputError(f"expected one direction (K,), got {direction.shape}; test one at a time, or use fit_tilt")
    columns, known = _checked(z, y, direction, offset)
    a = columns - columns.mean(axis=0)
    _, gradient, information = Likelihood(centred_rows(z), y, (Part(slice(None), known, a),))(np.array([1.0, 0.0]))
    u, i = float(gradient[1]), max(float(information[1, 1]), 1e-300)
    return ScoreTest(z=u / i**0.5, tau=u / i, standard_error=i**-0.5)


def fit_beta(likelihood: Likelihood, start: float = 1.0) -> tuple[float, float]:
    """One-dimensional Newton for the inverse temperature alone: (beta, log-likelihood)."""
    few = likelihood.beginning(START_ROWS)
    beta = np.array([start if few is None else fit_beta(few, start)[0]])
    value = likelihood(beta)
    for _ in range(30):
        step = float(value[1][0]) / max(float(value[2][0, 0]), 1e-12)
        step = float(np.clip(step, -1.0 - beta[0], max(5.0, beta[0])))
        drop = abs(step * float(value[1][0]))
        if drop < 2e-4:
            break
        if drop < LAST_STEP and likelihood.rows >= MANY_ROWS:
            return float(beta[0]) + step, value[0] + drop / 2
        beta, value = climb(likelihood, beta, value, np.array([step]))
    return float(beta[0]), value[0]
