"""The linear losses as autograd sees them: functions of features, classifier weight and bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.losses.dense import adjusted_statistics
from evenhand.losses.linear.chunks import (
    Gradients,
    Head,
    Task,
    gradients_of,
    losses_and_gradients,
    replayed,
    statistics_of,
)
from evenhand.losses.reduction import Empty, Reduction, RowLosses, divide, reduce
from evenhand.losses.rows import RowStatistics

Slopes = tuple[Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class Goal:
    """How the rows' losses become one number: the reduction, its 0-dim denominator, and the empty batch."""

    reduction: Reduction
    denominator: Tensor
    empty: Empty

    def factor(self) -> Tensor:
        """0-dim, the slope of the reduced loss by every numerator."""
        one = torch.ones_like(self.denominator)
        return one if self.reduction == "sum" else divide(one, self.denominator, self.empty)

    def reduced(self, rows: RowLosses) -> Tensor:
        """The reduced loss."""
        return reduce(rows, self.reduction, denominator=self.denominator, empty=self.empty)


def row_statistics(head: Head, task: Task) -> RowStatistics:
    """Row statistics of the head's logits, differentiable in the head; the backward pass makes the logits again."""
    gap, target_logit, mean = _Statistics.apply(*head, task)  # type: ignore[no-untyped-call]
    return RowStatistics(gap, target_logit, mean if task.law.smooths else None)


def reduced_loss(head: Head, task: Task, goal: Goal) -> tuple[Tensor, RowLosses]:
    """The reduced loss, whose gradient is computed at once, and the rows' losses without gradient."""
    loss, numerator, weight = _Reduced.apply(*head, task, goal)  # type: ignore[no-untyped-call]
    counted = torch.ones_like(task.index, dtype=torch.bool) if task.counted is None else task.counted
    return loss, RowLosses(numerator, weight, counted)


class _Statistics(torch.autograd.Function):
    """Row statistics; for losses that are not reduced, or whose law is itself being learned."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, task: Task
    ) -> tuple[Tensor, Tensor, Tensor]:
        with _full_precision(features):
            others, target_logit, mean = statistics_of(Head(features, weight, bias), task)
        ctx.save_for_backward(features, weight, bias, others)
        ctx.set_materialize_grads(False)
        ctx.task = task
        return others - target_logit, target_logit, mean

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        features, weight, bias, others = ctx.saved_tensors
        task: Task = ctx.task
        head = Head(features, weight, bias)
        with _full_precision(features), replayed(task, features.device):
            if torch.is_grad_enabled():
                return *_differentiable(head, task, upstream), None
            gradients = gradients_of(head, task, others, upstream)
        return *gradients.scaled(torch.ones(())), None


class _Reduced(torch.autograd.Function):
    """The reduced loss; its gradient is made in the forward pass, where the logits are at hand.

    The first backward pass uses the gradient up. A second one, which needs ``retain_graph=True``, makes it again.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, task: Task, goal: Goal
    ) -> tuple[Tensor, Tensor, Tensor]:
        with _full_precision(features):
            numerator, row_weight, ctx.ready = losses_and_gradients(
                Head(features, weight, bias), task, _early_factor(task, goal)
            )
            counted = torch.ones_like(task.index, dtype=torch.bool) if task.counted is None else task.counted
            loss = goal.reduced(RowLosses(numerator, row_weight, counted))
        ctx.save_for_backward(features, weight, bias)
        ctx.task, ctx.goal = task, goal
        ctx.mark_non_differentiable(numerator, row_weight)
        return loss, numerator, row_weight

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        task: Task = ctx.task
        goal: Goal = ctx.goal
        if torch.is_grad_enabled():
            head = Head(*ctx.saved_tensors)
            with _full_precision(head.features), replayed(task, head.features.device):
                return *_differentiable_reduced(head, task, goal, upstream), None, None
        gradients: Gradients | None = ctx.ready
        ctx.ready = None
        if gradients is None:
            head = Head(*ctx.saved_tensors)
            with _full_precision(head.features), replayed(task, head.features.device):
                *_rows, gradients = losses_and_gradients(head, task, _early_factor(task, goal))
        return *gradients.scaled(upstream * _late_factor(task, goal)), None, None


def _early_factor(task: Task, goal: Goal) -> Tensor:
    """What the slopes by the logits are multiplied with: all of the reduction's factor, but none for float16, in which
    one over the number of rows would underflow."""
    factor = goal.factor()
    return torch.ones_like(factor) if task.compute == torch.float16 else factor


def _late_factor(task: Task, goal: Goal) -> Tensor:
    factor = goal.factor()
    return factor if task.compute == torch.float16 else torch.ones_like(factor)


def _dense_statistics(head: Head, task: Task) -> RowStatistics:
    logits = F.linear(*(None if x is None else x.to(task.compute) for x in head))  # type: ignore[arg-type]
    return adjusted_statistics(logits, task.index, task.law)


def _differentiable(head: Head, task: Task, upstream: tuple[Tensor | None, ...]) -> Slopes:
    """The gradient in plain operations that can be differentiated again; this holds all logits."""
    statistics = _dense_statistics(head, task)
    pairs = [(out, u) for out, u in zip(statistics, upstream, strict=True) if out is not None and u is not None]
    return _slopes([out for out, _ in pairs], [u for _, u in pairs], head, task)


def _differentiable_reduced(head: Head, task: Task, goal: Goal, upstream: Tensor) -> Slopes:
    like = head.features.new_empty(0, dtype=upstream.dtype)
    rows = task.losses(_dense_statistics(head, task), task.law.direction(len(head.weight), like))
    return _slopes([goal.reduced(rows)], [upstream], head, task)


def _slopes(outputs: list[Tensor], upstream: list[Tensor], head: Head, task: Task) -> Slopes:
    asked = [x for x, wanted in zip(head, task.wanted, strict=True) if wanted and x is not None]
    found = iter(torch.autograd.grad(outputs, asked, upstream, create_graph=True, allow_unused=True))
    return tuple(next(found) if w and x is not None else None for x, w in zip(head, task.wanted, strict=True))


def _full_precision(features: Tensor) -> torch.autocast:
    """Types are chosen here; autocast would round the sums that must stay in float32."""
    return torch.autocast(features.device.type, enabled=False)
