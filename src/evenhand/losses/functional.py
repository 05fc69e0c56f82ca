"""The losses as functions: per-row negative log-likelihood, per-row losses, and their reduction."""

from __future__ import annotations

from typing import Any, get_args

from torch import Tensor

from evenhand.losses.dense import HardRows, adjusted_statistics, hard_row_losses
from evenhand.losses.law import PLAIN, Law, check_law
from evenhand.losses.reduced import can_reduce, reduced_loss
from evenhand.losses.reduction import Denominator, Empty, Reduction, RowLosses, check_choice, reduce
from evenhand.losses.rows import is_traced
from evenhand.losses.soft import soft_row_losses
from evenhand.losses.targets import (
    Layout,
    check_tensors,
    flatten_logits,
    index_target,
    is_distributed,
    per_row,
    soft_target,
)
from evenhand.losses.torchs_own import torch_takes, torchs_loss

REDUCTIONS, DENOMINATORS, EMPTY = get_args(Reduction), get_args(Denominator), get_args(Empty)


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
        >>> import torch
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
        >>> import torch
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
    plain = sample_weight is None and extra is None and isinstance(denominator, str) and denominator == "weights"
    if plain and torch_takes(logits, target, law, class_dim):
        return torchs_loss(logits, target, law, ignore_index, reduction, empty)
    options: dict[str, Any] = {"sample_weight": sample_weight, "extra": extra, "ignore_index": ignore_index}
    fixed = (sample_weight, extra, denominator)
    if reduction != "none" and not target.is_floating_point() and can_reduce(logits, law, *fixed):
        rows = _hard_rows(flatten_logits(logits, class_dim), target, law, **options)
        return reduced_loss(rows, law, reduction=reduction, denominator=denominator, empty=empty)
    every = losses_by_row(logits, target, law, class_dim=class_dim, **options)
    return reduce(every, reduction, denominator=denominator, empty=empty)


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
    if target.is_floating_point():
        weight, more = _row_wise(layout, law, sample_weight, extra)
        shares = soft_target(target, layout, logits, ignore_index, class_dim)
        rows = soft_row_losses(layout.logits, shares, law, weight, more)
    else:
        hard = _hard_rows(layout, target, law, sample_weight, extra, ignore_index)
        rows = hard_row_losses(hard, adjusted_statistics(hard.logits, hard.index, law), law)
    return RowLosses(*(x.reshape(layout.positions) for x in rows))


def check_options(reduction: str, denominator: object, empty: str) -> None:
    """Refuse words that mean nothing, also where this call would not need them.

    Raises:
        InputError: another name for the reduction, the denominator or the empty batch.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("empty", empty, EMPTY)
    if isinstance(denominator, str):
        check_choice("denominator", denominator, DENOMINATORS)


def _row_wise(
    layout: Layout, law: Law, sample_weight: Tensor | None, extra: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Sample weight and extra, flat, once the law fits."""
    check_law(law, layout.logits.shape[1])
    return (
        per_row("sample_weight", sample_weight, layout.positions, layout.logits),
        per_row("extra", extra, layout.positions, layout.logits),
    )


def _hard_rows(
    layout: Layout,
    target: Tensor,
    law: Law,
    sample_weight: Tensor | None,
    extra: Tensor | None,
    ignore_index: int,
) -> HardRows:
    weight, more = _row_wise(layout, law, sample_weight, extra)
    logits, positions = layout
    index, counted = index_target(target, logits.shape[1], positions, ignore_index, traced=is_traced(logits))
    return HardRows(logits, index, counted, weight, more)
