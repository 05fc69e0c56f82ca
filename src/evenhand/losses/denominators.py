"""The denominator of a weighted mean, from targets and weights alone: it is known before the forward pass."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.law import Law
from evenhand.losses.reduction import Denominator, check_choice
from evenhand.losses.targets import check_tensor, flatten_logits, index_target, per_class


def denominator_of(
    target: Tensor,
    law: Law | None = None,
    *,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    class_dim: int = 1,
    kind: Denominator = "weights",
) -> Tensor:
    """``sum_i u_i w_{y_i}`` over the rows that count: what the mean of a law divides by.

    Args:
        target: class indices of any shape, or soft targets with their classes on axis `class_dim`.
        law: only its ``class_weight`` matters; None for a loss without weights.
        sample_weight: (...) factor u of each row, of the target's shape (without the class axis of soft targets).
        ignore_index: class index of rows that do not count.
        class_dim: axis of the classes of soft targets.
        kind: ``weights``, or ``count`` for the number of rows that count.

    Returns:
        0-dim float64 tensor (float32 on devices without float64) where the class weights live, or where the target
        does if there are none.

    Raises:
        InputError: labels out of range, weights of another shape than the target, another kind.

    Example:
        >>> rare_counts_more = Law(class_weight=torch.tensor([0.5, 4.0]))
        >>> denominator_of(torch.tensor([0, 0, 1, -100]), rare_counts_more).item()
        5.0
    """
    check_choice("kind", kind, get_args(Denominator))
    check_tensor("target", target)
    if kind == "count":
        return _counted(target, ignore_index, class_dim)
    weight = None if law is None else law.class_weight
    if weight is not None:
        target = target.to(weight.device)
    of_row = _soft(target, weight, class_dim) if target.is_floating_point() else _hard(target, weight, ignore_index)
    if sample_weight is not None:
        if sample_weight.shape != of_row.shape:
            raise InputError(
                f"expected sample_weight of shape {tuple(of_row.shape)}, one number per row of the target, got "
                f"{tuple(sample_weight.shape)}; give one number per row"
            )
        of_row = of_row * sample_weight.detach().to(of_row)
    return of_row.sum()


def _counted(target: Tensor, ignore_index: int, class_dim: int) -> Tensor:
    if not target.is_floating_point():
        return (target != ignore_index).to(wide_type(target)).sum()
    rows = len(flatten_logits(target, class_dim).logits)
    return torch.tensor(float(rows), dtype=wide_type(target), device=target.device)


def _hard(target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    counted = target != ignore_index
    if weight is None:
        return counted.to(wide_type(target))
    index = index_target(target, len(weight), tuple(target.shape), ignore_index).classes
    of_row = weight.detach()[index].to(wide_type(weight)).reshape(target.shape)
    return of_row.where(counted, 0.0)


def _soft(target: Tensor, weight: Tensor | None, class_dim: int) -> Tensor:
    shares, positions = flatten_logits(target.detach(), class_dim)
    per_class("class_weight", weight, shares.shape[1])
    if weight is None:
        return shares.sum(1, dtype=wide_type(target)).reshape(positions)
    return (shares.to(wide_type(weight)) @ weight.detach().to(wide_type(weight))).reshape(positions)


def wide_type(like: Tensor) -> torch.dtype:
    """float64 where the device of a tensor has it."""
    return torch.float32 if like.device.type == "mps" else torch.float64
