"""One free bias per class: how much class bias there is at all, and in which direction it points.

``softmax(beta z + c + b)`` with a Gaussian prior on b, around the fitted tilt c. Its likelihood is the yardstick of
the tilt (which share of all class bias does one number explain?), and b is the vector to hold against declared
weights. Source: Alexandari et al., "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift
adaptation" (2020), https://arxiv.org/abs/1901.06852 (there without a prior on b).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from evenhand.declared import Floats, Ints
from evenhand.likelihood import BLOCK_CELLS, Part, Singles, exponentials, map_blocks
from evenhand.threads import one_blas_thread

PRIOR_SD = 1.0
GROUPS = 32  # partial sums of K numbers held at once: one per block would fill gigabytes at 100,000 classes


@dataclass(frozen=True)
class BiasFit:
    """Free class biases around a given constant.

    Attributes:
        bias: (K,) maximum a posteriori of the deviation from the constant. information: (K,) diagonal of the observed
            information, sum_i p_i(c)(1 - p_i(c)). log_likelihood: without the prior term.
        freedom: effective number of free parameters; half of it is the gain in likelihood that noise alone brings.
    """

    bias: Floats
    information: Floats
    log_likelihood: float
    freedom: float


def fit_biases(
    z: Singles,
    y: Ints,
    beta: float,
    parts: tuple[Part, ...],
    *,
    prior_sd: float = PRIOR_SD,
    threads: int = 1,
    iterations: int = 12,
    start: Floats | None = None,
) -> BiasFit:
    """Maximise ``sum_i log softmax(beta z_i + c + b)[y_i] - |b|^2 / (2 prior_sd^2)`` over b.

    The gradient is ``n - s(b) - b / prior_sd^2``: at the optimum soft counts meet true counts up to the prior. The
    variables are scaled by the square root of the diagonal information, after which few iterations suffice.

    Args:
        z: (n, K) centred logits, see `evenhand.tilt.centred_rows`. y: (n,) labels. beta: inverse temperature.
        parts: row slices with their constants c, held in ``offset`` (directions are not used).
        start: (K,) first guess of b; zeros if None.
    """
    k = z.shape[1]
    precision = 1.0 / prior_sd**2
    true = np.bincount(y, minlength=k).astype(np.float64)
    begin = np.zeros(k) if start is None else start
    _, soft, variance = soft_counts(z, y, beta, parts, begin, threads=threads)
    scale = 1.0 / np.sqrt(np.maximum(variance, soft * 0.25) + precision)

    def objective(u: Floats) -> tuple[float, Floats]:
        b = u * scale
        value, s, _ = soft_counts(z, y, beta, parts, b, threads=threads, squares=False)
        gradient = (true - s - precision * b) * scale
        return -(value - 0.5 * precision * float(b @ b)), -gradient

    options = {"maxiter": iterations, "maxcor": 8, "gtol": 1e-2}  # standard errors
    with one_blas_thread():  # the optimiser's own algebra is tiny: waking threads for it costs more than the passes
        result = minimize(objective, begin / scale, jac=True, method="L-BFGS-B", options=options)
    bias = result.x * scale
    value, _, variance = soft_counts(z, y, beta, parts, bias, threads=threads)
    freedom = float((variance / (variance + precision)).sum())
    return BiasFit(bias, variance, value, freedom)


def one_step_biases(log_likelihood: float, gap: Floats, information: Floats, *, prior_sd: float = PRIOR_SD) -> BiasFit:
    """The first Newton step of `fit_biases` with the diagonal information: enough where the biases are small.

    Args:
        log_likelihood: at zero bias. gap: (K,) true minus soft counts there.
        information: (K,) sum_i p_i(c)(1 - p_i(c)).
    """
    precision = 1.0 / prior_sd**2
    bias = gap / (information + precision)
    gain = float(gap @ bias - 0.5 * information @ bias**2)
    return BiasFit(bias, information, log_likelihood + gain, float((information / (information + precision)).sum()))


def soft_counts(
    z: Singles,
    y: Ints,
    beta: float,
    parts: tuple[Part, ...],
    bias: Floats,
    *,
    threads: int = 1,
    squares: bool = True,
) -> tuple[float, Floats, Floats]:
    """Log-likelihood, ``s_c = sum_i p_i(c)`` and ``sum_i p_i(c)(1 - p_i(c))`` of ``p = softmax(beta z + c + b)``.

    Without `squares` the third is ``s`` as well, an upper bound that costs nothing.
    """
    blocks = []
    rows = max(4, BLOCK_CELLS // z.shape[1])
    for part in parts:
        constant = (part.offset + bias).astype(np.float32)
        start, stop, _ = part.rows.indices(len(z))
        blocks += [(slice(at, min(stop, at + rows)), constant) for at in range(start, stop, rows)]
    step = -(-len(blocks) // GROUPS) or 1
    groups = [blocks[at : at + step] for at in range(0, len(blocks), step)]

    def group(tasks: list[tuple[slice, Singles]]) -> tuple[float, Floats, Floats]:
        value, soft, square = 0.0, np.zeros(z.shape[1]), np.zeros(z.shape[1])
        for at, constant in tasks:
            e, u_true = exponentials(z[at], y[at], beta, constant)
            total = e @ np.ones(e.shape[1], np.float32)
            share = 1.0 / total
            value += float((u_true - np.log(total.astype(np.float64))).sum())
            soft += share @ e
            if squares:
                np.multiply(e, e, out=e)
                square += (share * share) @ e
        return value, soft, square

    values, soft, square = zip(*map_blocks(group, groups, threads), strict=True)
    s = np.sum(soft, axis=0)
    return float(sum(values)), s, np.maximum(s - np.sum(square, axis=0), 0)


def explained_share(tilt_gain: float, free_gain: float, freedom: float) -> float | None:
    """Share of the class-bias likelihood that the tilt explains: ``(l2 - l1) / (l3 - freedom / 2 - l1)`` in [0, 1].

    Args:
        tilt_gain: l2 - l1, gain of beta + tau over beta alone. free_gain: l3 - l1, gain of free biases over beta alone.
        freedom: effective parameters of the free fit; half of it is what noise alone would gain.

    Returns:
        None where there is no class bias to explain (the free fit gains no more than noise would).
    """
    available = free_gain - freedom / 2
    if available <= 2 + np.sqrt(max(freedom, 0.0)):
        return None
    return float(np.clip(tilt_gain / available, 0.0, 1.0))
