"""The losses as functions: per-row negative log-likelihood, per-row losses, and their reduction."""

from __future__ import annotations

from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.losses.dense import adjusted_statistics
from evenhand.losses.law import PLAIN, Law, check_law, check_smoothing, row_losses
from evenhand.losses.reduction import Denominator, Empty, Reduction, RowLosses, check_choice, divide, reduce
from evenhand.losses.rows import arithmetic, is_traced
from evenhand.losses.soft import soft_row_losses
from evenhand.losses.targets import (
    Layout,
    check_tensors,
    flatten_logits,
    index_target,
    is_distributed,
    logits_shape,
    per_row,
    soft_target,
)


def nll(
    logits: Tensor,
    target: Tensor,
    *,
    offset: Tensor | None = None,
    scale: Tensor | None = None,
    margin: Tensor | None = None,
    temperature: Tensor | None = None,
    ignore_index: int = -100,
    class_dim: int = 1,
) -> Tensor:
    """Per-row negative log-likelihood of adjusted logits: ``-log softmax(t_y (s z + o) - m_y [k = y])_y``.

    Args:
        logits: (K,), (N, K), (N, K, d1, ...) or, with ``class_dim=-1``, (..., K) floats. Half precision is computed in
            float32.
        target: class indices of the logits' shape without the class axis, or soft targets of the logits' shape.
        offset: (K,) ``o``, nats. The log prior makes it balanced softmax.
        scale: (K,) ``s``. margin: (K,) ``m``, nats, taken off the target's logit. temperature: (K,) ``t``, by target.
        ignore_index: target value whose rows get 0.
        class_dim: axis of the classes.

    Returns:
        Nats, of the shape of the logits without the class axis; float32, or float64 for float64 logits.

    Raises:
        InputError: shapes or types that do not fit, labels out of range.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> [round(x, 3) for x in nll(logits, torch.tensor([0, 1])).tolist()]
        [0.127, 2.127]
        >>> prior = torch.tensor([0.9, 0.1])
        >>> [round(x, 3) for x in nll(logits, torch.tensor([0, 1]), offset=prior.log()).tolist()]
        [0.015, 4.212]
    """
    law = Law(scale=scale, offset=offset, margin=margin, temperature=temperature)
    return losses_by_row(logits, target, law, ignore_index=ignore_index, class_dim=class_dim).numerator


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    law: Law = PLAIN,
    *,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
    ignore_index: int = -100,
    class_dim: int = 1,
    reduction: Reduction = "mean",
    denominator: Denominator | float | Tensor = "weights",
    empty: Empty = "zero",
) -> Tensor:
    """Any softmax loss of the family, reduced; plain, with float32 or float64 logits, it is torch's, bit for bit.

    Args:
        logits, target, ignore_index, class_dim: as in :func:`nll`.
        law: the loss's parameters.
        sample_weight: one factor per row, of the target's shape; it multiplies numerator and denominator.
        extra: one number per row for the law's shape, for instance the feature norm of influence-balanced loss.
        reduction, denominator, empty: as in :func:`evenhand.losses.reduce`.

    Returns:
        0-dim tensor, or the target's shape for ``reduction="none"``; float32, or float64 for float64 logits.

    Raises:
        InputError: shapes, types or names that do not fit, labels out of range, soft targets with ``ignore_index``.

    Example:
        >>> logits, target = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])
        >>> weighted = Law(class_weight=torch.tensor([0.5, 1.5]))
        >>> round(cross_entropy(logits, target, weighted).item(), 6)
        1.626928
    """
    check_tensors(logits, target)
    check_options(reduction, denominator, empty)
    if is_distributed(logits):
        from evenhand.losses.sharded import sharded_cross_entropy

        return sharded_cross_entropy(
            logits,
            target,
            law,
            sample_weight=sample_weight,
            extra=extra,
            ignore_index=ignore_index,
            class_dim=class_dim,
            reduction=reduction,
            denominator=denominator,
            empty=empty,
        )
    asked = sample_weight is not None or extra is not None or not isinstance(denominator, str)
    if not asked and denominator == "weights" and law.torch_can and _torch_takes(logits, target, law, class_dim):
        return _by_torch(logits, target, law, ignore_index, reduction, empty)
    rows = losses_by_row(
        logits, target, law, sample_weight=sample_weight, extra=extra, ignore_index=ignore_index, class_dim=class_dim
    )
    return reduce(rows, reduction, denominator=denominator, empty=empty)


def losses_by_row(
    logits: Tensor,
    target: Tensor,
    law: Law = PLAIN,
    *,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
    ignore_index: int = -100,
    class_dim: int = 1,
) -> RowLosses:
    """The losses before reduction: numerators and weights in the target's shape; arguments as :func:`cross_entropy`."""
    check_tensors(logits, target)
    if is_distributed(logits):
        from evenhand.losses.sharded import sharded_losses_by_row

        options: dict[str, Any] = {"ignore_index": ignore_index, "class_dim": class_dim}
        return sharded_losses_by_row(logits, target, law, sample_weight=sample_weight, extra=extra, **options)
    layout = flatten_logits(logits, class_dim)
    check_law(law, layout.logits.shape[1])
    weight = per_row("sample_weight", sample_weight, layout.positions, layout.logits)
    more = per_row("extra", extra, layout.positions, layout.logits)
    if target.is_floating_point():
        shares = soft_target(target, layout, logits, ignore_index, class_dim)
        rows = soft_row_losses(layout.logits, shares, law, weight, more)
    else:
        rows = _hard(layout, target, law, ignore_index, weight, more)
    return RowLosses(*(x.reshape(layout.positions) for x in rows))


def check_options(reduction: str, denominator: object, empty: str) -> None:
    """Refuse words that mean nothing, also where this call would not need them.

    Raises:
        InputError: another name for the reduction, the denominator or the empty batch.
    """
    check_choice("reduction", reduction, get_args(Reduction))
    check_choice("empty", empty, get_args(Empty))
    if isinstance(denominator, str):
        check_choice("denominator", denominator, get_args(Denominator))


def _hard(
    layout: Layout, target: Tensor, law: Law, ignore_index: int, weight: Tensor | None, extra: Tensor | None
) -> RowLosses:
    logits, classes = layout.logits, layout.logits.shape[1]
    index, counted = index_target(target, classes, layout.positions, ignore_index, traced=is_traced(logits))
    return row_losses(
        adjusted_statistics(logits, index, law),
        index,
        law,
        direction=_direction(logits, law),
        counted=counted,
        sample_weight=weight,
        extra=extra,
    )


def _direction(logits: Tensor, law: Law) -> Tensor | None:
    return law.direction(logits.shape[1], logits.new_empty(0, dtype=arithmetic(logits)))


def _torch_takes(logits: Tensor, target: Tensor, law: Law, class_dim: int) -> bool:
    """Class indices, float32 or float64, classes where torch looks for them, and weights that fit."""
    dims = logits.dim()
    usual = target.dtype == torch.int64 and logits.is_floating_point() and logits.element_size() >= 4
    placed = dims == 1 or class_dim in ((1, -1) if dims == 2 else (1,))
    weight = law.class_weight  # torch has no gradient for it
    fits = weight is None or (
        isinstance(weight, Tensor) and len(weight) == logits.shape[min(1, dims - 1)] and not weight.requires_grad
    )
    return usual and dims > 0 and placed and fits and check_smoothing(law)


def _by_torch(
    logits: Tensor, target: Tensor, law: Law, ignore_index: int, reduction: Reduction, empty: Empty
) -> Tensor:
    index, counted = index_target(target, *logits_shape(logits), ignore_index, traced=is_traced(logits))
    weight = None if law.class_weight is None else law.class_weight.to(logits.device, logits.dtype)
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "label_smoothing": float(law.label_smoothing),
    }
    if reduction != "mean" or empty == "nan":
        return F.cross_entropy(logits, target, reduction=reduction, **options)
    if weight is None:
        mean = F.cross_entropy(logits, target, **options)
        return mean if counted is None and len(index) else torch.where(_any(counted), mean, torch.zeros_like(mean))
    # torch's own weighted mean has a NaN gradient where all weights of the batch are 0
    total = F.cross_entropy(logits, target, reduction="sum", **options)
    rows = weight[index]
    return divide(total, (rows if counted is None else rows.where(counted, 0.0)).sum(), empty)


def _any(counted: Tensor | None) -> Tensor:
    return torch.tensor(False) if counted is None else counted.any()
