"""Classes whose probability goes to one other class: the soft counterpart of a lopsided pair of errors.

For calibrated probabilities and any two classes, ``sum over rows of a of p_b`` and ``sum over rows of b of p_a`` both
estimate ``sum_i p_a p_b``. A class a that is merely disfavoured by a factor f has the first f times too large, towards
all its neighbours, and the second right. If rows of a were labelled b in training, p_b holds what p_a lacks: the first
sum is large towards b alone, and the second next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenhand.declared import Floats, Ints
from evenhand.likelihood import Singles

BLOCK_CELLS = 1_000_000
CANDIDATES = 10  # classes that lack most rows
RARE = 4.6  # nats beyond the choice of a class among all: a false discovery rate of one in a hundred
STRONG = 1.5  # true rows per expected row, so that the class is not merely a little disfavoured


@dataclass(frozen=True)
class Leak:
    """One directed pair: `source` loses `flow` rows of probability to `destination`.

    Attributes:
        share: mean probability of the destination on rows of the source.
        nats: how unlikely so many rows of the source are, by the probabilities.
    """

    source: int
    destination: int
    flow: float
    share: float
    nats: float


def find_leaks(z: Singles, y: Ints, beta: float, constant: Floats, gap: Floats) -> list[Leak]:
    """Pairs of classes between which probability leaks, largest first.

    Args:
        z: (n, K) centred logits. y: (n,). beta, constant (K,): ``p = softmax(beta z + constant)``.
        gap: (K,) true minus soft counts.
    """
    rows = np.bincount(y, minlength=z.shape[1]).astype(np.float64)
    sources, nats = _lacking(rows, gap)
    if not len(sources):
        return []
    joint, seen, back = _sums(z, y, beta, constant.astype(np.float32), sources)
    found = []
    for i, a in enumerate(sources):
        excess = np.maximum(seen[i] - joint[i], 0.0)
        excess[a] = 0.0
        b = int(np.argmax(excess))
        flow = float(min(seen[i][b] - back[i][b], gap[a]))
        disfavoured = rows[a] / (rows[a] - gap[a])
        one_way = seen[i][b] > 5 * disfavoured * back[i][b] and seen[i][b] > STRONG * joint[i][b]
        second = float(np.partition(excess, -2)[-2])
        alone = excess[b] > 0.5 * excess.sum() or (excess[b] > 0.3 * excess.sum() and excess[b] > 3 * second)
        # Rows of a weak model look like many classes; but of all these only b has too much.
        gains = np.partition(-gap, -2)[-2:]
        alone |= bool(-gap[b] == gains[1] and gains[1] > 0.6 * gap[a] and gains[0] < 0.3 * gap[a])
        if one_way and alone and -gap[b] > 0.3 * flow and seen[i][b] > 0.2 * rows[a]:
            found.append(Leak(int(a), b, flow, float(seen[i][b] / rows[a]), float(nats[i])))
    return found


def _lacking(rows: Floats, gap: Floats) -> tuple[Ints, Floats]:
    """Classes with far more rows than expected, and a Poisson bound on it in nats; false discoveries controlled."""
    soft = np.maximum(rows - gap, 1e-9)
    nats = np.where(rows > STRONG * soft, rows * np.log(np.maximum(rows, 1e-9) / soft) - gap, 0.0)
    order = np.argsort(-nats, kind="stable")[:CANDIDATES]
    passed = np.flatnonzero(nats[order] > np.log(len(rows) / np.arange(1, len(order) + 1)) + RARE)
    order = order[: passed[-1] + 1] if len(passed) else order[:0]
    return order, nats[order]


def _sums(z: Singles, y: Ints, beta: float, constant: Singles, sources: Ints) -> tuple[Floats, Floats, Floats]:
    """Per source and class: ``sum_i p_source p_c``, p_c over rows of the source, p_source over rows of c."""
    n, k = z.shape
    joint, seen, back = (np.zeros((len(sources), k)) for _ in range(3))
    step = max(1, BLOCK_CELLS // k)
    for start in range(0, n, step):
        p = z[start : start + step] * np.float32(beta) + constant
        p -= p.max(axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        labels = y[start : start + step]
        joint += p[:, sources].T @ p
        for i, a in enumerate(sources):
            seen[i] += p[labels == a].sum(axis=0)
            back[i] += np.bincount(labels, p[:, a], k)
    return joint, seen, back


def concentrated(gap: Floats, information: Floats, leaks: list[Leak]) -> float:
    """Share of the class biases beyond sampling noise that lies in the classes of the leaks."""
    beyond = gap**2 - information
    classes = np.unique([[leak.source, leak.destination] for leak in leaks])
    total = float(beyond.sum())
    return float(beyond[classes].sum()) / total if total > 0 else 0.0
