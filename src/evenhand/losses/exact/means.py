"""Exact weighted means over micro-batches and ranks.

The mean of a weighted loss is a quotient, ``sum_i w_i l_i / sum_i w_i``. Adding up or averaging the quotients of
micro-batches or ranks gives another quantity, because their denominators differ: on long-tailed labels its gradient is
10 to 60 % off. Here every micro-batch and rank contributes its numerator, and all are divided once by the one
denominator of the optimiser step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from evenhand.counts import ClassCounts, to_numpy
from evenhand.declared import InputError
from evenhand.losses.denominators import wide_type
from evenhand.losses.reduction import RowLosses


class MeanLoss(Protocol):
    """What :func:`exact_mean` needs of a loss; every loss module here has it."""

    reduction: str
    fixed_denominator: Tensor | None

    def denominator(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """0-dim tensor: what the mean over these targets divides by."""
        ...


@contextmanager
def exact_mean(
    criterion: MeanLoss,
    targets: Iterable[Tensor] | None = None,
    *,
    sample_weights: Iterable[Tensor] | None = None,
    denominator: float | Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    averaged_by: float | None = None,
) -> Iterator[Tensor]:
    """Inside, ``criterion(logits, target)`` is its numerator over the denominator D of the whole optimiser step.

    The losses of the micro-batches then add up to the mean over all their rows, and so do their gradients. With
    `group`, D is summed over the ranks (one number, one communication per step), and the loss is multiplied by
    `averaged_by`, since data parallelism averages what should be added: the *average* of the ranks' losses and
    gradients is exact.

    Args:
        criterion: a loss module with ``reduction="mean"``. What it divided by before is restored at the end, also after
            an exception, so that contexts can be nested.
        targets: the targets of all micro-batches of this step on this rank.
        sample_weights: the sample weights that go with them, if the calls get any.
        denominator: instead of targets: this rank's part of D, for instance from :func:`expected_denominator`.
        group: ranks that hold other rows of the same step; None if this process has them all. Ranks that hold other
            *classes* of the same rows do not belong to it.
        averaged_by: what the framework divides the gradient by afterwards. By default the size of the group, as
            DistributedDataParallel and FSDP do; 1 where gradients are summed; times the number of micro-batches under
            ``Accelerator.backward`` and Lightning's ``accumulate_grad_batches``.

    Yields:
        D, a 0-dim tensor. The first target or the class weights decide where it lives; with NCCL that must be the GPU.

    Raises:
        InputError: a loss of another kind or reduction; neither or both of targets and denominator; wrong labels.

    Example:
        >>> from evenhand.losses.modules.base import SoftmaxLoss
        >>> criterion = SoftmaxLoss(torch.tensor([0.5, 4.0]))
        >>> logits, target = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> with exact_mean(criterion, target.split(2)) as total:
        ...     parts = [criterion(z, y).item() for z, y in zip(logits.split(2), target.split(2))]
        >>> round(sum(parts), 6), round(criterion(logits, target).item(), 6), total.item()
        (0.598537, 0.598537, 5.0)
    """
    check_mean(criterion)
    total = summed(_local(criterion, targets, sample_weights, denominator), group)
    factor = gradient_divisor(group, averaged_by)
    before = criterion.fixed_denominator
    criterion.fixed_denominator = total / factor
    try:
        yield total
    finally:
        criterion.fixed_denominator = before


def expected_denominator(criterion: Any, rows: int, counts: Any = None) -> float:
    """``rows * E[w]``, with ``E[w] = sum_k pi_k w_k``: a denominator that needs no labels and no communication.

    Dividing by it makes every row's influence the same in all steps, where the exact mean lets the rows of a step share
    one unit. The loss is then only equal to the weighted mean on average over steps, but its gradient is an unbiased
    estimate of that of the weighted sum over the training set, which the weighted mean of a small batch is not.

    Args:
        criterion: a softmax loss module; only its class weights matter.
        rows: that count in the optimiser step, on this rank (with ``exact_mean(group=...)``) or on all.
        counts: what the rows are drawn by: training counts, or the sampler's rates; by default the criterion's.

    Raises:
        InputError: no counts although the loss has weights; another number of classes.

    Example:
        >>> from evenhand.losses.modules.base import SoftmaxLoss
        >>> expected_denominator(SoftmaxLoss(torch.tensor([0.5, 4.0]), counts=[700, 100]), rows=64)
        60.0
    """
    weight = criterion.law().class_weight
    if weight is None or criterion.mean_denominator == "count":
        return float(rows)
    counts = criterion.counts if counts is None else counts
    if counts is None:
        raise InputError(
            "the expected weight of a row needs to know how rows are drawn: give counts= to it or the loss"
        )
    drawn = counts.counts.astype(float) if isinstance(counts, ClassCounts) else to_numpy(counts).astype(float)
    if drawn.shape != tuple(weight.shape) or not drawn.sum() > 0 or (drawn < 0).any():
        raise InputError(
            f"expected counts of shape ({len(weight)},), as the weights have, of 0 or more, got shape "
            f"{drawn.shape} with sum {drawn.sum()}; give rows per class or the sampler's rates"
        )
    return float(rows * (drawn @ weight.cpu().double().numpy()) / drawn.sum())


class WeightedAccumulation:
    """The exact mean where the targets of later micro-batches are not known yet: add sums, divide once at the end.

    Each micro-batch backpropagates its numerator; before the optimiser step all gradients are divided by the step's
    denominator. The gradients of the step must come from these losses alone.

    With automatic mixed precision, scale the tensor as usual, unscale before finishing, and clip after it::

        for z, y in micro_batches:
            scaler.scale(step.add(criterion.rows(z, y))).backward()
        scaler.unscale_(optimizer)
        step.finish(optimizer)
        scaler.step(optimizer)
        scaler.update()

    A sum over many rows can overflow float16 gradients where a mean does not; `guess` prevents it.

    Args:
        group: ranks that hold other rows of the same step, as in :func:`exact_mean`.
        averaged_by: what the framework divides the gradients by, as in :func:`exact_mean`.
        guess: rough size of the denominator of the step, the same on all ranks, for instance the number of rows. What
            :meth:`add` returns is divided by it, :meth:`finish` takes it out again; the result does not depend on it.

    Raises:
        InputError: a guess that is not positive.

    Example:
        >>> from evenhand.losses.modules.base import SoftmaxLoss
        >>> criterion, head = SoftmaxLoss(torch.tensor([0.5, 4.0])), torch.nn.Linear(3, 2)
        >>> x, target, step = torch.ones(4, 3), torch.tensor([0, 0, 1, 0]), WeightedAccumulation()
        >>> for features, labels in zip(x.split(2), target.split(2)):
        ...     step.add(criterion.rows(head(features), labels)).backward()
        >>> mean = step.finish(head.parameters())
        >>> torch.allclose(mean, criterion(head(x), target))
        True
    """

    def __init__(
        self, *, group: dist.ProcessGroup | None = None, averaged_by: float | None = None, guess: float = 1.0
    ) -> None:
        if not guess > 0:
            raise InputError(f"expected guess to be a positive number, got {guess}; the number of rows is usual")
        self.group, self.averaged_by, self.guess = group, averaged_by, float(guess)
        self.reset()

    def reset(self) -> None:
        """Forget the micro-batches so far: after an exception, together with the gradients."""
        self._sums: Tensor | None = None

    def add(self, rows: RowLosses, denominator: Tensor | None = None) -> Tensor:
        """Take a micro-batch.

        Args:
            rows: what ``criterion.rows(logits, target)`` returned.
            denominator: what to add to D instead of the sum of the rows' weights, e.g. ``rows.denominator("count")``.

        Returns:
            0-dim tensor to backpropagate: the sum of the numerators, divided by the guess.
        """
        numerator = rows.numerator.sum()
        share = rows.denominator() if denominator is None else denominator
        sums = torch.stack([numerator.detach(), share.detach().to(numerator)]).to(wide_type(numerator))
        self._sums = sums if self._sums is None else self._sums + sums
        return numerator / self.guess

    def finish(self, gradients_of: torch.optim.Optimizer | Iterable[Tensor]) -> Tensor:
        """Turn the accumulated gradients into those of the exact mean, in place, and start the next step.

        On every rank, after the last backward pass and before clipping and the optimiser step.

        Args:
            gradients_of: the optimiser, or its parameters. DTensor parameters (FSDP2) are scaled shard by shard.

        Returns:
            0-dim tensor: the exact mean over all micro-batches and ranks, for the log.

        Raises:
            InputError: nothing was added.
        """
        if self._sums is None:
            raise InputError("finish() expects at least one micro-batch since the last step; call add(rows) for each")
        numerator, total = summed(self._sums, self.group)
        self.reset()
        some = total > 0
        safe = total.where(some, 1.0)
        factor = (self.guess * gradient_divisor(self.group, self.averaged_by) / safe).where(some, 0.0)
        _scale(gradients_of, factor)
        mean: Tensor = (numerator / safe).where(some, 0.0).float()
        return mean


def check_mean(criterion: Any) -> None:
    """Refuse a loss whose denominator cannot be fixed.

    Raises:
        InputError: no softmax loss module of this package, or another reduction than the mean.
    """
    if not hasattr(criterion, "fixed_denominator"):
        raise InputError(
            f"expected a softmax loss module of evenhand, got {type(criterion).__name__}; for multi-label losses use "
            "WeightedAccumulation with their rows(), for torch's own loss losses.build('weighted', ...)"
        )
    if criterion.reduction != "mean":
        raise InputError(
            f"expected a loss with reduction='mean', got {criterion.reduction!r}, which divides by nothing; build it "
            "with reduction='mean'"
        )


def summed(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """`values` summed over the ranks of a group; unchanged without a group."""
    if group is None:
        return values
    total = values.detach().clone()
    dist.all_reduce(total, group=group)
    return total


def gradient_divisor(group: dist.ProcessGroup | None, averaged_by: float | None) -> float:
    """What the framework divides gradients by: as told, or the number of ranks.

    Raises:
        InputError: told 0 or less.
    """
    if averaged_by is None:
        return 1.0 if group is None else float(dist.get_world_size(group))
    if not averaged_by > 0:
        raise InputError(
            f"expected averaged_by to be a positive number, got {averaged_by}; 1 where gradients are added"
        )
    return float(averaged_by)


def _local(
    criterion: MeanLoss,
    targets: Iterable[Tensor] | None,
    sample_weights: Iterable[Tensor] | None,
    denominator: float | Tensor | None,
) -> Tensor:
    if (targets is None) == (denominator is None):
        raise InputError("exact_mean expects either the targets of the step's micro-batches or a denominator; give one")
    if targets is None:
        return torch.as_tensor(denominator).detach()
    if isinstance(targets, Tensor):
        raise InputError(
            "expected targets to be a list with one tensor per micro-batch, got one tensor; wrap it: [target]"
        )
    batches = list(targets)
    weights = [None] * len(batches) if sample_weights is None else list(sample_weights)
    if not batches or len(weights) != len(batches):
        raise InputError(
            f"expected targets and sample_weights of the same one or more micro-batches, got {len(batches)} and "
            f"{len(weights)}; give one tensor for each"
        )
    return torch.stack([criterion.denominator(y, u) for y, u in zip(batches, weights, strict=True)]).sum()


@torch.no_grad()
def _scale(gradients_of: torch.optim.Optimizer | Iterable[Tensor], factor: Tensor) -> None:
    if isinstance(gradients_of, torch.optim.Optimizer):
        gradients_of = [p for part in gradients_of.param_groups for p in part["params"]]
    for parameter in gradients_of:
        gradient: Any = parameter.grad
        if gradient is not None:
            local = gradient.to_local() if hasattr(gradient, "to_local") else gradient
            local.mul_(factor.to(local.device))
