"""Class weights from counts, every rule in one table, and what small batches make of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.counts import ClassCounts, counts_array, effective_number, to_numpy
from evenhand.declared import Floats, InputError

ABSENT_POLICIES = ("error", "zero", "one", "largest", "smooth")
NORMALISATIONS = (None, "mean", "rows")


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules: `function` maps positive counts (K,) float64, and options, to weights (K,)."""

    function: Callable[..., Any]
    formula: str
    source: str


def class_weights(
    counts: Any, rule: str = "balanced", *, absent: str = "error", normalise: str | None = None, **options: float
) -> Floats:
    """Loss weights, one per class, for ``torch.nn.CrossEntropyLoss(weight=...)`` and its kin.

    A weight w_k shifts the log-odds that training learns by log w_k. The rule chooses how far: ``balanced`` divides the
    prior out (tau = 1), ``sqrt`` half of it (tau = 0.5), ``uniform`` nothing. A constant factor changes nothing under
    ``reduction="mean"``. N rows, K classes, n_k rows of class k, pi_k = n_k / N:

    ==================  ============================  ==============================================================
    rule                weight                        options
    ==================  ============================  ==============================================================
    balanced            N / (K n_k)                   equal to scikit-learn's ``compute_class_weight`` to the last bit
    inverse             N / n_k
    sqrt                sqrt(N / (K n_k))
    power               (N / (K n_k))^exponent        exponent (required); 0 uniform, 1 balanced
    effective-number    1 / E_k, mean 1               beta = 0.9999, E_k = (1 - beta^n_k) / (1 - beta)
    median-frequency    median(n) / n_k
    log                 1 / ln(offset + pi_k)         offset = 1.02
    capped              min(w_k, ratio * min w)       ratio = 10, w balanced
    smoothed            N' / (K (n_k + rows))         rows = 1, N' = N + K rows
    uniform             1
    ==================  ============================  ==============================================================

    Args:
        counts: (K,) rows per class, in the order of the model's outputs, or ClassCounts.
        rule: a name of :func:`available_rules`.
        absent: what a class without rows gets. ``error`` refuses; ``zero`` gives 0 (the class is never a target, so the
            loss does not change unless labels are smoothed); ``one`` gives 1; ``largest`` gives the largest weight of a
            class that has rows; ``smooth`` adds one row to every class before the rule is applied. Except for
            ``smooth``, K, N and the median are those of the classes that have rows.
        normalise: None keeps the rule's own scale; ``mean`` makes the weights of the classes that have rows average 1;
            ``rows`` makes the weight of an average row 1 (sum_k pi_k w_k = 1), which keeps the size of the loss under
            ``reduction="sum"``. ``balanced`` has that scale already.
        **options: the rule's own options, see the table.

    Returns:
        (K,) float64. Keep them float32 or better in training, whatever the logits are.

    Raises:
        InputError: unknown rule, policy or option, option out of range, or absent classes under ``absent="error"``.

    Limits:
        Weights change what is learned, they do not add information: read docs/weights.md before choosing.

    Source:
        balanced: King & Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868; effective-number: Cui et al.
        2019, https://arxiv.org/abs/1901.05555; median-frequency: Eigen & Fergus 2015, https://arxiv.org/abs/1411.4734;
        log: Paszke et al. 2016, https://arxiv.org/abs/1606.02147.

    Example:
        >>> class_weights([50] * 10 + [1000] * 490).round(3)[[0, 10]].tolist()
        [19.62, 0.981]
        >>> class_weights([900, 90, 10], "sqrt").round(3).tolist()
        [0.609, 1.925, 5.774]
        >>> class_weights([900, 100, 0], "capped", ratio=5, absent="largest").round(3).tolist()
        [0.556, 2.778, 2.778]
    """
    _check_choice("absent", absent, ABSENT_POLICIES)
    _check_choice("normalise", normalise, NORMALISATIONS)
    rows = counts_array(counts)
    if absent == "smooth" and not rows.all():
        rows = rows + 1.0
    present = rows > 0
    if absent == "error" and not present.all():
        raise InputError(_absent_message(np.flatnonzero(~present), counts))
    weights = _apply(rule, rows[present], options)
    if normalise == "mean":
        weights = weights / weights.mean()
    elif normalise == "rows":
        weights = weights * (rows.sum() / (rows[present] @ weights))
    filled = np.full(rows.size, {"one": 1.0, "largest": weights.max()}.get(absent, 0.0))
    filled[present] = weights
    return filled


def available_rules() -> dict[str, str]:
    """Every rule's name and formula, in the order of the table.

    Example:
        >>> available_rules()["balanced"]
        'N / (K n)'
    """
    return {name: rule.formula for name, rule in RULES.items()}


def effective_weights(class_weight: Any, draw_rate: Any, batch_size: int) -> Floats:
    """The weights that small batches really apply under ``reduction="mean"``.

    Each batch divides by the sum of its own weights, so a heavy row shrinks itself: averaged over batches of B rows
    drawn independently, class y acts with

        w~_y = B w_y E[1 / (w_y + S)],   S = the sum of the other B - 1 weights,

    which saturates near B. The expectation is exact up to rounding: E[1 / (w + S)] is the integral over s > 0 of
    exp(-s w) M(s)^(B-1), M(s) = sum_c q_c exp(-s w_c), by the trapezoidal rule in log s, which converges exponentially.

    Args:
        class_weight: (K,) loss weights >= 0, any scale.
        draw_rate: (K,) share of class k among the rows drawn, any positive scale (the counts, without a sampler).
        batch_size: rows per denominator: the micro-batch per device where gradients are accumulated or data parallel.

    Returns:
        (K,) float64. For B = 1 all ones (weights without effect), for B -> infinity w_y / sum_c q_c w_c.

    Raises:
        InputError: lengths differ, negative or non-finite entries, all weights 0, or batch_size below 1.

    Limits:
        Rows of a batch count as independent draws; a batch sampler that fixes the classes of a batch breaks that.
        Time O(K) times about 200 nodes, memory O(K).

    Example:
        >>> weights, rate = [1.0, 9.0], [0.9, 0.1]
        >>> [effective_weights(weights, rate, size).round(3).tolist() for size in (1, 8, 10_000)]
        [[1.0, 1.0], [0.712, 3.593], [0.556, 4.999]]
    """
    weights, rate = _nonnegative(class_weight, "class_weight"), _nonnegative(draw_rate, "draw_rate")
    if weights.size != rate.size:
        raise InputError(
            f"Expected as many weights as draw rates, got {weights.size} and {rate.size}; give one of each per class."
        )
    if not batch_size >= 1:
        raise InputError(f"Expected batch_size of 1 or more, got {batch_size}; give the rows per optimiser step.")
    rate = rate / rate.sum()
    average = rate @ weights
    if not average > 0:
        raise InputError("Expected a positive weight for some class that is drawn, got none; check class_weight.")
    distinct, where = np.unique(weights / average, return_inverse=True)
    share = np.bincount(where, weights=rate, minlength=distinct.size).astype(np.float64)
    return np.asarray((batch_size * distinct * _expected_reciprocal(distinct, share, batch_size))[where])


def _expected_reciprocal(weights: Floats, share: Floats, batch_size: int) -> Floats:
    """E[1 / (w + S)] for every w of `weights` (0 stands for any value where w = 0: it is multiplied by 0)."""
    positive = weights > 0
    step = 0.25  # error about exp(-pi^2 / step), below rounding
    low = np.log(1e-16 / (weights.max() + batch_size))
    # Beyond this s even the smallest positive weight has decayed to exp(-45).
    high = np.log(45.0 / weights[positive].min())
    total = np.zeros(weights.size)
    for s in np.exp(np.arange(low, high + step, step)):
        lost = -share @ np.expm1(-s * weights)  # 1 - M(s): exact where M is near 1 and is raised to a large power
        kept = share @ np.exp(-s * weights) if lost > 0.5 else 1.0
        if kept == 0.0 and batch_size > 1:
            break
        log_moment = np.log(kept) if lost > 0.5 and batch_size > 1 else np.log1p(-min(lost, 0.5))
        total += s * np.exp((batch_size - 1) * log_moment - s * weights)
    return np.where(positive, step * total, 0.0)


def _apply(rule: str, rows: Floats, options: dict[str, float]) -> Floats:
    if rule not in RULES:
        raise InputError(f"Expected a weight rule among {', '.join(RULES)}, got {rule!r}; choose one of them.")
    wanted = list(inspect.signature(RULES[rule].function).parameters.values())[1:]
    unknown = sorted(set(options) - {option.name for option in wanted})
    if unknown:
        takes = ", ".join(option.name for option in wanted) or "no options"
        raise InputError(f"The rule {rule!r} takes {takes}, and got {unknown[0]!r}; remove it or choose another rule.")
    missing = [option.name for option in wanted if option.default is option.empty and option.name not in options]
    if missing:
        raise InputError(f"The rule {rule!r} needs {missing[0]}=, which was not given; {RULES[rule].formula}.")
    with np.errstate(all="ignore"):  # an overflow is told below, in a sentence
        weights = np.asarray(RULES[rule].function(rows, **options), np.float64)
    if not (np.isfinite(weights).all() and weights.min() > 0):
        raise InputError(
            f"The rule {rule!r} with {options} gives weights that are not finite and positive; change them."
        )
    return weights


def _check_choice(what: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise InputError(f"Expected {what} to be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _absent_message(missing: Any, counts: Any) -> str:
    names = counts.names if isinstance(counts, ClassCounts) else None
    shown = ", ".join(str(k) if names is None else repr(names[k]) for k in missing[:5])
    more = ", ..." if missing.size > 5 else ""
    some = f"{missing.size} class{'es have' if missing.size > 1 else ' has'} no rows ({shown}{more})"
    return (
        f"Expected rows of every class, but {some}, for which a weight would be infinite;"
        " choose absent='zero', 'one', 'largest' or 'smooth'."
    )


def _nonnegative(values: Any, what: str) -> Floats:
    array = to_numpy(values).astype(np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all() or array.min() < 0 or not array.any():
        raise InputError(f"Expected {what} as a 1-D array of finite numbers >= 0, not all 0; got something else.")
    return array


def _in_range(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"Expected {what} between {low:g} and {high:g}, got {value!r}; choose another value.")


def _balanced(n: Floats) -> Floats:
    return np.asarray(n.sum() / (n.size * n))  # scikit-learn's operations in scikit-learn's order: equal bit for bit


def _power(n: Floats, exponent: float) -> Floats:
    _in_range("exponent", exponent, -10, 10)
    return np.asarray(_balanced(n) ** exponent)


def _effective(n: Floats, beta: float = 0.9999) -> Floats:
    inverse = 1.0 / (effective_number(n, beta) if n.size > 1 else np.ones(1))
    return np.asarray(inverse / inverse.mean())


def _log(n: Floats, offset: float = 1.02) -> Floats:
    _in_range("offset", offset, 1, np.inf)
    return np.asarray(1.0 / np.log1p((offset - 1.0) + n / n.sum()))


def _capped(n: Floats, ratio: float = 10.0) -> Floats:
    _in_range("ratio", ratio, 1, np.inf)
    weights = _balanced(n)
    return np.asarray(np.minimum(weights, ratio * weights.min()))


def _smoothed(n: Floats, rows: float = 1.0) -> Floats:
    _in_range("rows", rows, 0, np.inf)
    return _balanced(n + rows)


RULES: dict[str, Rule] = {
    "balanced": Rule(_balanced, "N / (K n)", "King & Zeng 2001; scikit-learn"),
    "inverse": Rule(lambda n: n.sum() / n, "N / n", ""),
    "sqrt": Rule(lambda n: np.sqrt(_balanced(n)), "sqrt(N / (K n))", ""),
    "power": Rule(_power, "(N / (K n))^exponent", ""),
    "effective-number": Rule(_effective, "(1 - beta) / (1 - beta^n), mean 1", "https://arxiv.org/abs/1901.05555"),
    "median-frequency": Rule(lambda n: np.median(n) / n, "median(n) / n", "https://arxiv.org/abs/1411.4734"),
    "log": Rule(_log, "1 / ln(offset + n / N)", "https://arxiv.org/abs/1606.02147"),
    "capped": Rule(_capped, "min(balanced, ratio * min(balanced))", ""),
    "smoothed": Rule(_smoothed, "N' / (K (n + rows)), N' = N + K rows", ""),
    "uniform": Rule(np.ones_like, "1", ""),
}
