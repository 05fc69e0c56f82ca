"""Losses row by row in float64, written from the papers' formulas with loops; slow, and with no code of evenhand's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Row = Callable[[Sequence[float], int, Sequence[float]], tuple[float, float]]


def negative_log_likelihood(z: Sequence[float], y: int) -> float:
    """``log(1 + sum_{k != y} exp(z_k - z_y))``, without cancellation for confident rows."""
    gaps = [z[k] - z[y] for k in range(len(z)) if k != y and z[k] != -math.inf]
    if not gaps:
        return 0.0
    top = max(0.0, *gaps) if gaps else 0.0
    others = math.fsum(math.exp(gap - top) for gap in gaps)
    return math.log1p(others) if top == 0 else top + math.log(math.exp(-top) + others)


def probability_of_error(z: Sequence[float], y: int) -> float:
    """``1 - p_y`` with full relative precision."""
    return -math.expm1(-negative_log_likelihood(z, y))


def focal_row(z: Sequence[float], y: int, gamma: float) -> float:
    """``(1 - p_y)^gamma (-log p_y)``."""
    return probability_of_error(z, y) ** gamma * negative_log_likelihood(z, y)


def focal_gradient(z: Floats, target: Sequence[int], gamma: float, weight: Sequence[float] | None = None) -> Floats:
    """(N, K) gradient of the weighted mean focal loss, ``w_y phi'(L) (p_k - [k = y]) / sum w``."""
    rows, classes = z.shape
    weights = [1.0 if weight is None else float(weight[y]) for y in target]
    gradient = np.zeros((rows, classes))
    for i, y in enumerate(target):
        row = [float(x) for x in z[i]]
        loss, error = negative_log_likelihood(row, y), probability_of_error(row, y)
        slope = error**gamma + gamma * (1 - error) * loss * error ** (gamma - 1)
        for k in range(classes):
            share = -error if k == y else math.exp(-negative_log_likelihood(row, k))
            gradient[i, k] = weights[i] * slope * share
    return gradient / math.fsum(weights)


def focal_mean(
    z: Floats,
    target: Sequence[int],
    gamma: float = 0.0,
    weight: Sequence[float] | None = None,
    ignore_index: int | None = None,
) -> float:
    """``sum_i w_y phi(L_i) / sum_i w_y`` over the rows that are not ignored; gamma 0 is cross-entropy."""
    kept = [i for i, y in enumerate(target) if y != ignore_index]
    weights = [1.0 if weight is None else float(weight[target[i]]) for i in kept]
    losses = [focal_row([float(x) for x in z[i]], target[i], gamma) for i in kept]
    return math.fsum(w * loss for w, loss in zip(weights, losses, strict=True)) / math.fsum(weights)


def smoothed_mean(z: Floats, target: Sequence[int], share: float, weight: Sequence[float] | None = None) -> float:
    """torch's label smoothing: ``(1 - e) w_y L_y + e / K sum_k w_k L_k``, over ``sum w_y``."""
    classes = z.shape[1]
    w = [1.0] * classes if weight is None else [float(x) for x in weight]
    total = 0.0
    for i, y in enumerate(target):
        losses = [negative_log_likelihood([float(x) for x in z[i]], k) for k in range(classes)]
        total += (1 - share) * w[y] * losses[y]
        total += share / classes * math.fsum(w[k] * losses[k] for k in range(classes))
    return total / math.fsum(w[y] for y in target)


def sigmoid_focal_mean(z: Floats, target: Floats, gamma: float, alpha: float | None = None) -> float:
    """Mean over all entries of ``alpha_t (1 - p_t)^gamma (-log p_t)``, p = sigmoid(z)."""
    total = 0.0
    for row, wanted in zip(z, target, strict=True):
        for x, y in zip(row, wanted, strict=True):
            loss = negative_log_likelihood([0.0, float(x)], 1 if y else 0)
            share = 1.0 if alpha is None else alpha if y else 1 - alpha
            total += share * (-math.expm1(-loss)) ** gamma * loss
    return total / z.size


def sigmoid_focal_gradient(z: Floats, target: Floats, gamma: float) -> Floats:
    """(N, K) gradient of :func:`sigmoid_focal_mean`."""
    gradient = np.zeros(z.shape)
    for index, x in np.ndenumerate(z):
        y = 1 if target[index] else 0
        loss = negative_log_likelihood([0.0, float(x)], y)
        error = -math.expm1(-loss)
        slope = error**gamma + gamma * (1 - error) * loss * error ** (gamma - 1)
        gradient[index] = slope * error * (-1 if y else 1)
    return gradient / z.size


def registered_mean(name: str, z: Floats, target: Sequence[int], counts: Sequence[float], reduction: str) -> Any:
    """A registered loss with its default options: rows, their sum, or their mean over the weights."""
    pairs = [ROWS[name]([float(x) for x in z[i]], y, counts) for i, y in enumerate(target)]
    if reduction == "none":
        return np.array([loss for loss, _ in pairs])
    total = math.fsum(loss for loss, _ in pairs)
    return total if reduction == "sum" else total / math.fsum(weight for _, weight in pairs)


def _plain(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return negative_log_likelihood(z, y), 1.0


def _weighted(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    weight = sum(counts) / (len(counts) * counts[y])
    return weight * negative_log_likelihood(z, y), weight


def _class_balanced(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    beta = 0.9999  # Cui et al. 2019, equation 12, weights with mean 1
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    weight = raw[y] * len(counts) / sum(raw)
    return weight * negative_log_likelihood(z, y), weight


def _focal(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return focal_row(z, y, 2.0), 1.0


def _ldam(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    margins = [n**-0.25 for n in counts]  # Cao et al. 2019, equation 13; the largest margin is 0.5, s is 30
    margin = 0.5 * margins[y] / max(margins)
    moved = [30.0 * (x - margin * (k == y)) for k, x in enumerate(z)]
    return negative_log_likelihood(moved, y), 1.0


def _prior(counts: Sequence[float]) -> list[float]:
    return [n / sum(counts) for n in counts]


def _adjusted(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return negative_log_likelihood([x + math.log(p) for x, p in zip(z, _prior(counts), strict=True)], y), 1.0


def _balanced_softmax(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    top = max(z)
    terms = [n * math.exp(x - top) for n, x in zip(counts, z, strict=True)]  # Ren et al. 2020, equation 4
    return -math.log(terms[y] / math.fsum(terms)), 1.0


def _cdt(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return negative_log_likelihood([x * (n / max(counts)) ** 0.3 for x, n in zip(z, counts, strict=True)], y), 1.0


def _vs(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    moved = [x * (n / max(counts)) ** 0.3 + math.log(p) for x, n, p in zip(z, counts, _prior(counts), strict=True)]
    return negative_log_likelihood(moved, y), 1.0


def _poly(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return negative_log_likelihood(z, y) + probability_of_error(z, y), 1.0


def _generalised(loss: float, q: float = 0.7) -> float:
    return (1 - math.exp(-loss) ** q) / q


def _gce(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return _generalised(negative_log_likelihood(z, y)), 1.0


def _gla(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return _generalised(_adjusted(z, y, counts)[0]), 1.0


def _gca(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    rho = (counts[y] / max(counts)) ** (1 / 3)
    weight = 1 / _prior(counts)[y]
    return weight * _generalised(negative_log_likelihood([x / rho for x in z], y)), weight


def _smoothed(z: Sequence[float], y: int, share: float) -> float:
    each = [negative_log_likelihood(z, k) for k in range(len(z))]
    return (1 - share) * each[y] + share * math.fsum(each) / len(z)


def _label_aware(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    rise = (counts[y] - min(counts)) / (max(counts) - min(counts))  # Zhong et al. 2021, the concave form
    return _smoothed(z, y, 0.3 * math.sin(math.pi / 2 * rise)), 1.0


def _over_smoothed(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return _smoothed(z, y, 0.9), 1.0


def _influence(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    raw = [1 / n for n in counts]
    weight = raw[y] * len(raw) / sum(raw)
    p = [math.exp(-negative_log_likelihood(z, k)) for k in range(len(z))]
    pull = math.fsum(abs(share - (k == y)) for k, share in enumerate(p))  # Park et al. 2021, equation 9, |h| = 1
    return weight * 1000.0 / (pull + 1e-3) * negative_log_likelihood(z, y), weight


def _seesaw(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    share = [math.exp(-negative_log_likelihood(z, k)) for k in range(len(z))]
    moved = []
    for k, x in enumerate(z):
        mitigation = (counts[k] / counts[y]) ** 0.8 if counts[k] < counts[y] else 1.0
        ratio = share[k] / max(share[y], 1e-2)
        compensation = ratio**2.0 if ratio > 1 else 1.0
        moved.append(x + (math.log(mitigation * compensation) if k != y else 0.0))
    return negative_log_likelihood(moved, y), 1.0


def _seql(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    rare = [p < 0.5 / len(counts) for p in _prior(counts)]  # gamma 1: every rare class leaves, unless it is the target
    return negative_log_likelihood([-math.inf if rare[k] and k != y else x for k, x in enumerate(z)], y), 1.0


def _gcl(z: Sequence[float], y: int, counts: Sequence[float]) -> tuple[float, float]:
    return negative_log_likelihood([30.0 * (x - 0.5 * (k == y)) for k, x in enumerate(z)], y), 1.0  # without clouds


ROWS: dict[str, Row] = {
    "cross-entropy": _plain,
    "weighted": _weighted,
    "class-balanced": _class_balanced,
    "focal": _focal,
    "ldam": _ldam,
    "balanced-softmax": _balanced_softmax,
    "logit-adjusted": _adjusted,
    "cdt": _cdt,
    "vs": _vs,
    "poly": _poly,
    "gce": _gce,
    "gla": _gla,
    "gca": _gca,
    "label-aware-smoothing": _label_aware,
    "los": _over_smoothed,
    "influence-balanced": _influence,
    "seesaw": _seesaw,
    "seql": _seql,
    "gcl": _gcl,
}
