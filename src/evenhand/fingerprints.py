"""What the numbers of a weight vector betray: whether they were computed from counts, and in which order they stand.

Weights computed from counts are not any numbers. ``N / (K n_c)`` has harmonic mean 1 whatever the counts are, and the
inverses of ``s / n_c`` have a common measure because counts are integers. Other weights have neither.
"""

from __future__ import annotations

import numpy as np

from evenhand.declared import Floats, Ints
from evenhand.orders import Order, known_orders
from evenhand.regression import CountSlope, count_slope

SURELY = 15.0  # nats by which a wrong order must beat the class order: about 12, and 3 for having tried some twenty
LARGEST_UNIT = 5000  # rows of the rarest class up to which a common measure is sought
CLASSES_TRIED = 60


def made_from_counts(weight: Floats) -> bool:
    """Whether positive weights are balanced weights, or inverse counts or their roots on any scale.

    Weights typed by hand are fractions of small integers too: what three digits can write does not count.

    Example:
        >>> import numpy as np
        >>> counts = np.array([913.0, 402, 77, 31, 250])
        >>> made_from_counts(counts.sum() / (5 * counts)), made_from_counts(3.7 / np.sqrt(counts))
        (True, True)
        >>> made_from_counts(np.array([1.0, 1.5, 2.5, 1.25, 3.0]))
        False
        >>> made_from_counts(np.random.default_rng(0).uniform(1, 2, 5))
        False
    """
    if all(abs(w - float(f"{w:.3g}")) <= 1e-6 * w for w in weight[:CLASSES_TRIED].tolist()):
        return False
    if abs(float(np.mean(1.0 / weight)) - 1.0) < 1e-5:
        return True
    return any(_common_measure(weight ** (-1.0 / power)) for power in (1.0, 0.5))


def _common_measure(inverse: Floats) -> bool:
    """Whether all numbers are integer multiples of one number, the smallest being at most `LARGEST_UNIT` of it."""
    ratio = np.unique(inverse / inverse.min())[:CLASSES_TRIED]
    if ratio[-1] > 20 * LARGEST_UNIT or len(ratio) < 5:
        return False
    multiples = np.arange(1, LARGEST_UNIT + 1)[:, None] * ratio
    off = np.abs(multiples - np.round(multiples)) - 1e-6 * multiples
    return bool((off.max(axis=1) < 1e-3).any())


def sampled_order(counts: Floats, log_weight: Floats, names: tuple[str, ...] | None) -> Order | None:
    """The named order under which sampled counts fall with the weights as exactly as a sample can, unlike as given.

    Under the right order the counts of a sample are a multinomial draw from a power of the weights. So the likelihoods
    decide, and what the order leaves over must be no more than sampling noise. Orders by frequency are left out:
    sorting by the sampled counts themselves makes any weights fit.

    Args:
        counts: (K,) of the sample. log_weight: (K,) as declared.
    """
    given = count_slope(counts, -log_weight)
    if given is None:
        return None
    flat = _fit(counts, np.full(len(counts), counts.mean()))
    best: tuple[float, Order] | None = None
    for order in known_orders(counts, names):
        if "frequent" in order.name:
            continue
        in_order = np.empty(len(counts))
        in_order[order.index] = log_weight
        fit = count_slope(counts, -in_order)
        if fit is None or not 0.35 < fit.slope < 2.5 or not _only_noise(fit):
            continue
        value = _fit(counts, fit.fitted)
        if value - flat > SURELY and (best is None or value > best[0]):
            best = (value, order)
    return best[1] if best is not None and best[0] - _fit(counts, given.fitted) > SURELY else None


def _fit(counts: Floats, mean: Floats) -> float:
    """Multinomial log-likelihood of counts, up to a constant."""
    seen = counts > 0
    return float(counts[seen] @ np.log(mean[seen] / mean.sum()))


def _only_noise(fit: CountSlope) -> bool:
    mu = fit.fitted
    error = float(np.sqrt((2 * mu**2 + mu).sum()) / max(float((mu**2).sum()), 1e-300))
    return fit.dispersion < 0.1 + 2 * error


def sorted_by_frequency(counts: Floats, log_weight: Floats) -> Order | None:
    """Weights that rise or fall along the class index without a break, while the counts do not.

    That is what ``value_counts()`` and ``most_common()`` leave behind. By chance eight numbers stand in order once in
    twenty thousand times; if the classes themselves are numbered by frequency, their counts follow the weights.
    """
    if len(log_weight) < 8 or len(np.unique(log_weight.round(9))) < max(5, len(log_weight) // 4):
        return None
    steps = np.diff(log_weight)
    if not ((steps >= 0).all() or (steps <= 0).all()):
        return None
    given = count_slope(counts, -log_weight)
    if given is None or given.slope > 0.7 or (abs(given.slope) > 0.35 and _only_noise(given)):
        return None
    key: Ints = np.argsort(-counts if steps.sum() > 0 else counts, kind="stable")
    return Order("most frequent first" if steps.sum() > 0 else "least frequent first", key)


def elsewhere(counts: Floats, weight: Floats) -> bool:
    """Whether balanced weights imply class shares that the sample has too, but on other classes.

    ``w = N / (K n_c)`` tells the share of every class, ``1 / (K w_c)``. Sorted, shares and counts then differ by no
    more than chance, while class by class they do not fit at all.
    """
    share = 1.0 / (len(weight) * weight)
    mean = counts.sum() * share
    if abs(share.sum() - 1) > 1e-4 or mean.min() < 5:
        return False
    sorted_misfit = float(((np.sort(counts) - np.sort(mean)) ** 2 / np.sort(mean)).sum())
    return sorted_misfit < 2 * len(weight) and float(((counts - mean) ** 2 / mean).sum()) > 10 * len(weight)
