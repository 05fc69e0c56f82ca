"""The reduced loss of dense logits and its gradient in one go: what a training step on (N, K) logits runs.

The gradient of a mean or sum is known up to one factor when the loss is: it is written over the softmax while that is
in cache. Nothing else of the size of the logits is kept, and the backward pass has nothing left to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evenhand.losses.dense import HardRows, adjustment, hard_row_losses
from evenhand.losses.law import Law
from evenhand.losses.reduction import Denominator, Empty, Reduction, divide
from evenhand.losses.rows import (
    Adjustment,
    RowStatistics,
    arithmetic,
    blocks,
    is_traced,
    part_of,
    plain_statistics,
    rows_of,
    slope_of_block,
    sweep_block,
)
from evenhand.losses.slopes import RowWeights, losses_and_slopes, row_weights


@dataclass(eq=False, slots=True)  # frozen ones take three times as long to make
class Plan:
    """Everything about one call.

    Attributes:
        rows: of the call. law: the loss. change: what it does to the logits.
        factor: slope of the reduced loss by every numerator. weights: of the rows, times the factor.
    """

    rows: HardRows
    law: Law
    change: Adjustment
    factor: Tensor | float
    weights: RowWeights


def can_reduce(logits: Tensor, law: Law, *row_wise: Tensor | float | str | None) -> bool:
    """Whether only the logits are being learned, in float32 or float64, and nothing looks on.

    Half-precision gradients are left to a backward pass, which rounds them after the factor from above, not before.
    """
    return (
        torch.is_grad_enabled()
        and logits.requires_grad
        and logits.dtype == arithmetic(logits)
        and law.is_fixed
        and not any(isinstance(x, Tensor) and x.requires_grad for x in row_wise)
        and not is_traced(logits)
    )


def reduced_loss(
    rows: HardRows, law: Law, *, reduction: Reduction, denominator: Denominator | float | Tensor, empty: Empty
) -> Tensor:
    """0-dim mean or sum of losses for which :func:`can_reduce` holds; words as of :func:`evenhand.losses.reduce`."""
    weights = row_weights(law, rows.index, rows.counted, rows.sample_weight, rows.logits)
    total = 1.0 if reduction == "sum" else _total(rows, weights, denominator)
    factor = _inverse(total)
    plan = Plan(rows, law, adjustment(rows.logits, rows.index, law), factor, weights.times(factor))
    loss: Tensor = _Reduced.apply(rows.logits, plan)  # type: ignore[no-untyped-call]
    return loss * (total / total) if empty == "nan" and isinstance(total, Tensor) else loss


class _Reduced(torch.autograd.Function):
    """The loss; its gradient is made in the forward pass.

    The first backward pass uses the gradient up. A second one, which needs ``retain_graph=True``, makes it again.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, plan: Plan) -> Tensor:
        loss, ctx.ready = _loss_and_gradient(logits, plan)
        ctx.save_for_backward(logits)
        ctx.plan = plan
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        plan: Plan = ctx.plan
        if torch.is_grad_enabled():  # somebody will differentiate this gradient: it must be made of plain operations
            (logits,) = ctx.saved_tensors
            (slope,) = torch.autograd.grad(_plain_loss(logits, plan), logits, upstream, create_graph=True)
            return slope, None
        gradient: Tensor | None = ctx.ready
        ctx.ready = None
        if gradient is None:
            (logits,) = ctx.saved_tensors
            _, gradient = _loss_and_gradient(logits, plan)
        # reading a number that lies on the CPU is free, and one is what most training steps send
        if upstream.device.type == "cpu" and upstream.item() == 1:
            return gradient, None
        return gradient.mul_(upstream), None


def _loss_and_gradient(logits: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    scale, offset, row_scale, _, direction = plan.change
    sums = []
    for part, block in blocks(logits, plan.change, gradient):
        index = rows_of(plan.rows.index, part)
        column = index.unsqueeze(1)
        others, own, mean = sweep_block(block, column, direction)
        losses, slopes = losses_and_slopes(
            RowStatistics(others.sub_(own), own, mean),
            index,
            plan.law,
            plan.weights.part(part),
            direction=direction,
            counted=part_of(plan.rows.counted, part),
            extra=part_of(plan.rows.extra, part),
        )
        slope_of_block(block, column, (scale, offset, part_of(row_scale, part), None, direction), slopes)
        sums.append(losses.sum())
    if not sums:
        return logits.new_zeros(()) * plan.factor, gradient
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(), gradient


def _plain_loss(logits: Tensor, plan: Plan) -> Tensor:
    """The same loss in operations that autograd can differentiate twice."""
    gap, own, mean = plain_statistics(logits, plan.rows.index, *plan.change)
    statistics = RowStatistics(gap, own, None if plan.change.direction is None else mean)
    return hard_row_losses(plan.rows, statistics, plan.law).numerator.sum() * plan.factor


def _inverse(total: Tensor | float) -> Tensor | float:
    """One over it, and 0 for 0; a number that lies on the CPU is read, which is faster than computing with it."""
    if isinstance(total, Tensor):
        if total.device.type != "cpu":
            return divide(torch.ones_like(total), total)
        total = total.item()
    return 1 / total if total else 0.0


def _total(rows: HardRows, weights: RowWeights, denominator: Denominator | float | Tensor) -> Tensor | float:
    """What the mean divides by: a number where it is known without looking, and not 0."""
    like = rows.logits
    if not isinstance(denominator, str):
        return torch.as_tensor(denominator, dtype=like.dtype, device=like.device)
    if denominator == "weights" and isinstance(weights.loss, Tensor):
        return weights.loss.sum()
    if rows.counted is not None:
        return rows.counted.sum().to(like.dtype)
    return float(len(rows.index)) or like.new_zeros(())
