"""Warnings about a training plan, in plain words: one small function per warning, most serious first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from evenhand.declared import Floats, Ints
from evenhand.forecast_result import Advice as Advice
from evenhand.forecast_result import Forecast
from evenhand.orders import known_orders


def advise(result: Forecast) -> tuple[Advice, ...]:
    """All warnings that apply to a forecast, faults first."""
    found = [advice for check in CHECKS if (advice := check(result)) is not None]
    return tuple(sorted(found, key=lambda advice: ("fault", "warning", "note").index(advice.severity)))


def wrong_order(weight: Floats, counts: Ints | Floats, names: tuple[str, ...] | None) -> str | None:
    """Name of the order in which weights follow the counts although they do not in class order; None if they do.

    Weights of any usual rule fall as counts rise, so their ranks are opposite. If they are not in class order but are
    under another order that programs produce by accident, that order is the likely mistake.

    Example:
        >>> counts = np.geomspace(10, 1000, 12)
        >>> as_text = sorted(range(12), key=str)  # 0, 1, 10, 11, 2, ...
        >>> wrong_order(1 / counts[as_text], counts, None)
        'sorted as text (0, 1, 10, 100, 2, ...)'
    """
    if _agreement(weight, counts) < -0.995:
        return None
    rising = _agreement(weight, counts) > 0.995
    for order in known_orders(np.asarray(counts, np.float64), names):
        exact = _agreement(weight, counts[order.index]) < -0.9995
        # Reversed weights of sorted counts also rise with the counts: then the exact shape decides.
        if exact and not (rising and _log_correlation(weight, counts) > 0.9999):
            return order.name
    alike = np.abs(np.diff(np.sort(_logs(weight)) - np.sort(-_logs(counts)))).max(initial=0.0) < 1e-6
    return "some other order" if alike and not rising else None


def _agreement(weight: Floats, counts: Ints | Floats) -> float:
    """Spearman correlation over the pairs where both are positive; -1 when either is constant (nothing to misorder)."""
    both = (weight > 0) & (counts > 0)
    if both.sum() < 3 or np.ptp(weight[both]) == 0 or np.ptp(counts[both]) == 0:
        return -1.0
    return float(np.corrcoef(rankdata(weight[both]), rankdata(counts[both]))[0, 1])


def _log_correlation(weight: Floats, counts: Ints | Floats) -> float:
    both = (weight > 0) & (counts > 0)
    return float(np.corrcoef(np.log(weight[both]), np.log(counts[both]))[0, 1])


def _logs(values: Ints | Floats) -> Floats:
    """Logarithms of the positive entries."""
    return np.log(values[values > 0])


def _misordered(result: Forecast) -> Advice | None:
    order = wrong_order(result.class_weight, result.counts, result.names) if result.weighted else None
    if order is None:
        return None
    how = (
        f"they fit another class order: {order}"
        if order != "some other order"
        else "sorted, the two lists fit each other exactly"
    )
    return Advice(
        "misordered-weights",
        "fault",
        f"The weights do not follow the counts class by class, but {how}; rebuild them by class index.",
    )


def _inverted(result: Forecast) -> Advice | None:
    if result.tau > -0.15 or _misordered(result) is not None:
        return None
    return Advice(
        "inverted-weights",
        "fault",
        f"The plan favours the frequent classes (tau {result.tau:.2f}): weights must fall as counts rise;"
        " pass 1 / frequency, not frequency.",
    )


def _double(result: Forecast) -> Advice | None:
    if result.tau <= 1.2:
        return None
    both = "weights and a sampler" if result.weighted and result.sampled else "this plan"
    return Advice(
        "double-correction",
        "fault",
        f"With {both} the prior is divided out {result.tau:.2f} times: rare classes will be predicted far more often"
        " than they occur and frequent ones hardly; use the weights or the sampler, not both, and not the weights"
        " twice.",
    )


def _full(result: Forecast) -> Advice | None:
    if not 0.8 <= result.tau <= 1.2:
        return None
    loss = 100 * (result.plain.accuracy - result.expected.accuracy)
    return Advice(
        "full-correction",
        "warning",
        f"The plan divides the prior out once: right if every class matters equally, but accuracy is expected to fall"
        f" (by about {loss:.0f} points in the model classifier) and counts to flatten; for accuracy train without"
        " weights, for a compromise use rule 'sqrt'.",
    )


def _smoothing(result: Forecast) -> Advice | None:
    if result.smoothing_flips:
        many = f"{result.smoothing_flips} class{'es' if result.smoothing_flips > 1 else ''}"
        return Advice(
            "smoothing-with-weights",
            "fault",
            f"Label smoothing is weighted too: the weights differ by a factor of {result.weight_ratio:,.0f}, beyond the"
            f" {result.smoothing_threshold:,.0f} where even certain rows of {many} are best answered with the heaviest"
            " class; drop the smoothing or cap the weights.",
        )
    if result.certain_probability < 0.5 and result.weight_ratio > 2:
        return Advice(
            "smoothing-with-weights",
            "warning",
            f"Label smoothing is weighted too: certain rows of the lightest class keep a probability of only"
            f" {result.certain_probability:.2f} at the optimum; drop the smoothing or cap the weights.",
        )
    return None


def _small_batch(result: Forecast) -> Advice | None:
    if result.slope_kept >= 0.9 or result.plan.batch_size is None:
        return None
    return Advice(
        "small-batch",
        "warning",
        f"Batches of {result.plan.batch_size} divide by their own weights and keep {result.slope_kept:.0%} of the"
        f" weights' slope: no class can count more than {result.plan.batch_size} times an average row; use larger"
        " batches per denominator or reduction='sum' divided by the number of rows.",
    )


def _one_class(result: Forecast) -> Advice | None:
    chance = result.one_class_batches
    if chance is None or chance < 0.05 or result.weight_ratio < 1.5 or result.plan.reduction != "mean":
        return None
    return Advice(
        "one-class-batches",
        "warning",
        f"{chance:.0%} of the batches hold one class only, and there reduction='mean' cancels the weights; use larger"
        " batches or a sampler.",
    )


def _noisy(result: Forecast) -> Advice | None:
    if result.effective_rows > 0.1 and result.weight_ratio < 1000:
        return None
    return Advice(
        "noisy-weights",
        "warning",
        f"The weights differ by a factor of {result.weight_ratio:,.0f}: a batch's gradient averages over about"
        f" {max(result.effective_rows, 0.001):.1%} of its rows, so training is noisy and the heaviest rows are soon"
        " memorised; cap the weights (rule 'capped') or use 'sqrt'.",
    )


def _absent(result: Forecast) -> Advice | None:
    missing = np.flatnonzero(result.counts == 0)
    if not missing.size:
        return None
    return Advice(
        "absent-classes",
        "warning",
        f"{_classes(missing, result.names)} no rows: nothing is learned about {_them(missing)}, and no weight can"
        " change that; collect rows or drop the outputs.",
    )


def _zero(result: Forecast) -> Advice | None:
    lost = np.flatnonzero((result.counts > 0) & ((result.class_weight == 0) | (result.draw_rate == 0)))
    if not lost.size:
        return None
    batch = result.plan.batch_size
    empty = float(result.draw_rate[result.class_weight == 0].sum()) ** batch if batch else 0.0
    tail = f" {empty:.1%} of the batches have no weight at all and a NaN loss." if empty > 1e-3 else ""
    return Advice(
        "zero-weights",
        "fault",
        f"{_classes(lost, result.names)} rows but weight or sampling rate 0: {_them(lost)} will never be predicted;"
        f" give a positive value.{tail}",
    )


def _repeated(result: Forecast) -> Advice | None:
    present = result.counts > 0
    times = result.draw_rate[present] * result.counts.sum() / result.counts[present]
    if not result.sampled or times.max() < 20:
        return None
    return Advice(
        "repeated-rows",
        "note",
        f"The sampler repeats the rows of the rarest class {times.max():,.0f} times in every pass; watch the training"
        " and validation recall of rare classes drift apart.",
    )


def _foreign(result: Forecast) -> Advice | None:
    if not result.weighted or isinstance(result.plan.class_weight, str) or result.weight_ratio < 1.5:
        return None
    if abs(_agreement(result.class_weight, result.counts)) > 0.5 or _misordered(result) is not None:
        return None
    return Advice(
        "foreign-weights",
        "warning",
        "The weights hardly depend on these counts; check that they were computed from this training set.",
    )


def _classes(index: Ints, names: tuple[str, ...] | None) -> str:
    shown = ", ".join(str(k) if names is None else repr(names[k]) for k in index[:5]) + (
        ", ..." if index.size > 5 else ""
    )
    return f"{index.size} classes ({shown}) have" if index.size > 1 else f"Class {shown} has"


def _them(index: Ints) -> str:
    return "them" if index.size > 1 else "it"


CHECKS: tuple[Callable[[Forecast], Advice | None], ...] = (
    _misordered,
    _inverted,
    _double,
    _zero,
    _smoothing,
    _full,
    _small_batch,
    _one_class,
    _noisy,
    _foreign,
    _absent,
    _repeated,
)
