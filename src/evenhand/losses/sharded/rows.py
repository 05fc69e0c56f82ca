"""Row statistics over class shards: the ranks' blockwise sweeps, joined by two exchanges of O(rows) numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from evenhand.losses.law import Law
from evenhand.losses.rows import RowStatistics, arithmetic, softplus, sweep, sweep_back
from evenhand.losses.sharded.layout import ClassShard
from evenhand.losses.sharded.pairs import pair_offsets


def sharded_statistics(
    block: Tensor, index: Tensor, law: Law, shard: ClassShard, direction: Tensor | None
) -> RowStatistics:
    """Row statistics of all classes under the law's scale, offset and temperature, the same on every rank of the group.

    Args:
        block: (N, K_r) logits of this rank's classes. index: (N,) int64 in [0, K).
        law: parameters. shard: which classes the block holds. direction: (K,) of the mean, or None.

    Raises:
        InputError: the law has offsets per pair of classes of an unknown kind.
    """
    wide, device = arithmetic(block), block.device
    part = slice(shard.first, shard.first + block.shape[1])
    scale, offset = (None if x is None else x.to(device, wide) for x in (law.scale, law.offset))
    row_scale = None if law.temperature is None else law.temperature.to(device, wide)[index]
    along = None if direction is None else direction[part].contiguous()
    local = [None if x is None else x[part] for x in (scale, offset)]
    pairs = None if law.pair_offset is None else _pair_offsets(law.pair_offset, block, index, shard, part, *local)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (scale, offset, row_scale)):
        block = _adjusted(block, scale, offset, pairs, row_scale, part, shard.group)
        local, pairs, row_scale = [None, None], None, None
    adjustment = (*local, row_scale, pairs, along)
    gap, target_logit, mean = _Joined.apply(block, index, shard, *adjustment)  # type: ignore[no-untyped-call]
    return RowStatistics(gap, target_logit, None if direction is None else mean)


def add_over_ranks(values: Tensor, groups: Sequence[dist.ProcessGroup]) -> Tensor:
    """The sum over ranks; backward, each rank's gradient is its own, since all ranks hold the same loss."""
    for group in groups:
        values = _Sum.apply(values, group)  # type: ignore[no-untyped-call]
    return values


class _Joined(torch.autograd.Function):
    """Sweeps over this rank's classes, joined. A rank that lacks a row's target sweeps with its class 0 in that place,
    and puts it back: :func:`sweep` leaves one class out of every row.
    """

    @staticmethod
    def forward(
        ctx: Any, block: Tensor, index: Tensor, shard: ClassShard, *adjustment: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        inside = (index >= shard.first) & (index < shard.first + block.shape[1])
        column = (index - shard.first).where(inside, 0)
        rest, at_column, mean = _sweep(block, column, adjustment)
        own = torch.where(inside, rest, torch.logaddexp(rest, at_column))
        others, target_logit, mean = _join(own, at_column.where(inside, 0.0), mean, shard.group)
        ctx.save_for_backward(block, column, inside, rest, at_column, others, *adjustment)
        ctx.set_materialize_grads(False)
        return others - target_logit, target_logit, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        block, column, inside, rest, at_column, others, *adjustment = ctx.saved_tensors
        unused = (None,) * (2 + len(adjustment))
        if not ctx.needs_input_grad[0] or block.shape[1] == 0:
            return torch.zeros_like(block) if ctx.needs_input_grad[0] else None, *unused
        by_gap, by_target, by_mean = (torch.zeros_like(others) if u is None else u for u in upstream)
        # sweep_back shares by_gap among this rank's classes alone: hand it their part of the softmax
        part = by_gap * _share(rest, others)
        wanted = torch.where(inside, by_target - by_gap, by_gap * _share(at_column, others))
        local = (part, wanted + part, None if upstream[2] is None else by_mean)
        return sweep_back(block, column, rest, adjustment, local), *unused


class _Sum(torch.autograd.Function):
    """Forward the sum over ranks, backward the identity."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:  # noqa: ARG004
        total = values.detach().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return upstream, None


class _SumOfGradients(torch.autograd.Function):
    """Forward the identity, backward the sum over ranks: for parameters that every rank has whole and uses in part."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        total = upstream.clone()
        if ctx.group is not None:
            dist.all_reduce(total, group=ctx.group)
        return total, None


@torch.no_grad()
def _pair_offsets(
    rule: Any, block: Tensor, index: Tensor, shard: ClassShard, part: slice, scale: Tensor | None, offset: Tensor | None
) -> Tensor:
    """Offsets per pair, from one more pass and exchange: their rule asks for shares of the softmax over all classes."""
    z = block.detach().to(arithmetic(block))
    z = z if scale is None else z * scale
    z = z if offset is None else z + offset
    gap, target_logit, _ = _Joined.apply(z, index, shard, *[None] * 5)  # type: ignore[no-untyped-call]
    return pair_offsets(rule, z, index, part, -softplus(gap), target_logit + softplus(gap))


def _sweep(block: Tensor, column: Tensor, adjustment: Sequence[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    if block.shape[1]:
        return sweep(block, column, adjustment)
    none = torch.zeros(len(block), dtype=arithmetic(block), device=block.device)
    nothing = torch.full_like(none, float("-inf"))  # the logsumexp of no class
    return nothing, nothing, none if adjustment[-1] is not None else none[:0]


def _join(
    own: Tensor, target_logit: Tensor, mean: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One exchange of maxima, one of sums."""
    if group is None:
        return own, target_logit, mean
    top = own.clamp(min=torch.finfo(own.dtype).min)
    dist.all_reduce(top, dist.ReduceOp.MAX, group=group)
    sums = torch.stack([torch.exp(own - top), target_logit, *([mean] if len(mean) else [])])
    dist.all_reduce(sums, group=group)
    return sums[0].log() + top, sums[1], sums[2] if len(mean) else mean


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``exp(part - whole)``, 0 for an empty part."""
    return torch.where(part.isneginf(), 0.0, torch.exp(part - whole))


def _adjusted(
    block: Tensor,
    scale: Tensor | None,
    offset: Tensor | None,
    pairs: Tensor | None,
    row_scale: Tensor | None,
    part: slice,
    group: dist.ProcessGroup | None,
) -> Tensor:
    """Adjusted logits in plain operations, for learnable parameters."""
    whole: list[Tensor | None] = []
    for values in (scale, offset, row_scale):
        learned = values is not None and values.requires_grad
        whole.append(_SumOfGradients.apply(values, group) if learned else values)  # type: ignore[no-untyped-call]
    z = block.to(arithmetic(block))
    z = z if whole[0] is None else z * whole[0][part]
    z = z if whole[1] is None else z + whole[1][part]
    z = z if pairs is None else z + pairs
    return z if whole[2] is None else z * whole[2][:, None]
