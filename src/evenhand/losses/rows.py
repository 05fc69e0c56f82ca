"""The one pass over the logits: what every softmax loss needs to know of a row, O(rows) numbers.

All arithmetic is float32 for half-precision logits. The pass runs in blocks that fit the processor's cache. For losses
that are not reduced, and half precision, nothing of size rows x classes is kept for the backward pass but the logits
themselves, unless the batch is smaller than a block; reduced ones keep their gradient (:mod:`evenhand.losses.reduced`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

_CPU_BLOCK = 1 << 20  # cells per thread: 4 MB of float32, in the shared cache; threads wait at the end of every step
_MOST_THREADS = 8  # bounds the block
_KEPT_CELLS = 1 << 20  # a softmax of at most 4 MB of float32 is kept: it costs no more memory than a block
_DEVICE_BLOCK = 1 << 26  # cells: bounds the temporary memory on a GPU, where small blocks would only add launches
_LINEAR_FROM = 40.0  # exp(-40) is below the rounding of float64; torch's default of 20 is not


class RowStatistics(NamedTuple):
    """What a softmax loss needs to know of a row.

    With adjusted logits ``z~`` and target y:

    Attributes:
        gap: (N,) ``logsumexp_{k != y} z~_k - z~_y``, the log odds against the target. ``softplus(gap)`` is the
            negative log-likelihood with full relative precision; ``logsumexp(z~) - z~_y`` loses it for rows the model
            is sure of, because the two terms cancel.
        target_logit: (N,) ``z~_y``.
        mean: (N,) ``sum_k direction_k z~_k``, or None where no direction was asked for.
    """

    gap: Tensor
    target_logit: Tensor
    mean: Tensor | None = None


class Adjustment(NamedTuple):
    """What turns logits into adjusted ones, and the direction of their mean; see :func:`dense_statistics`."""

    scale: Tensor | None = None
    offset: Tensor | None = None
    row_scale: Tensor | None = None
    pair_offset: Tensor | None = None
    direction: Tensor | None = None


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, exact to rounding in float32 and float64."""
    return F.softplus(x, threshold=_LINEAR_FROM)


def dense_statistics(
    logits: Tensor,
    target: Tensor,
    *,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    row_scale: Tensor | None = None,
    pair_offset: Tensor | None = None,
    direction: Tensor | None = None,
) -> RowStatistics:
    """Row statistics of the adjusted logits ``z~_ik = t_i (s_k z_ik + o_k + r_ik)``.

    Args:
        logits: (N, K) floats. target: (N,) int64 in [0, K).
        scale: (K,) ``s``. offset: (K,) ``o``. row_scale: (N,) ``t``. pair_offset: (N, K) ``r``; -inf takes a class
            out of a row.
        direction: (K,) what :attr:`RowStatistics.mean` weighs the adjusted logits with.

    Returns:
        Statistics in float32, or float64 for float64 logits; differentiable in everything but the target, twice.
    """
    wide = arithmetic(logits)
    scale, offset, row_scale, pair_offset, direction = (
        None if x is None else x.to(logits.device, wide) for x in (scale, offset, row_scale, pair_offset, direction)
    )
    arguments = (logits, target, scale, offset, row_scale, pair_offset, direction)
    if _needsplain_statistics(logits, scale, offset, row_scale, pair_offset, direction):
        gap, target_logit, mean = plain_statistics(*arguments)
    else:
        gap, target_logit, mean = _Blockwise.apply(*arguments)  # type: ignore[no-untyped-call]
    return RowStatistics(gap, target_logit, None if direction is None else mean)


def arithmetic(logits: Tensor) -> torch.dtype:
    """float32 for half-precision logits, their own type otherwise."""
    return torch.float32 if logits.element_size() < 4 else logits.dtype


def is_traced(x: Tensor) -> bool:
    """Whether torch.compile, torch.func, forward-mode differentiation or a tensor subclass looks on: then in-place
    blocks are out of place."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter):
        return True
    transformed: bool = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return transformed


def _needsplain_statistics(logits: Tensor, *learnable: Tensor | None) -> bool:
    learned = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in learnable)
    return learned or is_traced(logits)


def plain_statistics(
    logits: Tensor,
    target: Tensor,
    scale: Tensor | None,
    offset: Tensor | None,
    row_scale: Tensor | None,
    pair_offset: Tensor | None,
    direction: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in whole-tensor operations: for compilers, vmap, learnable parameters and second derivatives."""
    z = logits.to(arithmetic(logits))
    z = z if scale is None else z * scale
    z = z if offset is None else z + offset
    z = z if pair_offset is None else z + pair_offset
    z = z if row_scale is None else z * row_scale[:, None]
    column = target[:, None]
    target_logit = z.gather(1, column)[:, 0]
    others = torch.logsumexp(z.scatter(1, column, float("-inf")), 1)
    mean = (
        target_logit[:0].detach() if direction is None else (z * direction).sum(1)
    )  # z @ direction: half under autocast
    return others - target_logit, target_logit, mean


class _Blockwise(torch.autograd.Function):
    """Row statistics block by block; the backward pass of large batches recomputes the exponentials."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, *adjustment: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        keeps = ctx.needs_input_grad[0] and logits.numel() <= _KEPT_CELLS
        softmax = logits.new_empty(logits.shape, dtype=arithmetic(logits)) if keeps else None
        others, target_logit, mean = sweep(logits, target, adjustment, out=softmax)
        ctx.save_for_backward(logits, target, others, softmax, *adjustment)
        ctx.set_materialize_grads(False)
        return others - target_logit, target_logit, mean

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, target, others, softmax, *adjustment = ctx.saved_tensors
        unused = (None,) * (1 + len(adjustment))
        if not ctx.needs_input_grad[0]:
            return (None, *unused)
        if torch.is_grad_enabled():  # somebody will differentiate this gradient: it must be made of plain operations
            return _differentiable_gradient(logits, target, adjustment, upstream), *unused
        if softmax is None:
            return sweep_back(logits, target, others, adjustment, upstream), *unused
        out = softmax.clone()  # a retained graph comes here again
        return sweep_back(out, target, others, adjustment, upstream, out=out, swept=True).to(logits.dtype), *unused


def sweep(
    logits: Tensor, target: Tensor, adjustment: Sequence[Tensor | None], *, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) ``logsumexp_{k != y} z~_k``, ``z~_y`` and ``direction . z~``, block by block and without gradient.

    Args:
        logits: (N, K). target: (N,) int64.
        adjustment: scale, offset, row_scale, pair_offset and direction as in :func:`dense_statistics`, all in the type
            of the arithmetic. Without a direction the last result is empty.
        out: (N, K) in the type of the arithmetic, for instance the logits themselves, that is left with what
            :func:`slope_of_block` takes; None where nobody needs it.
    """
    rows, direction = len(logits), adjustment[-1]
    others, target_logit, mean = (
        torch.empty(size, dtype=arithmetic(logits), device=logits.device)
        for size in (rows, rows, 0 if direction is None else rows)
    )
    for part, block in blocks(logits, adjustment, out):
        others[part], target_logit[part], along = sweep_block(block, target[part, None], direction)
        if along is not None:
            mean[part] = along
    return others, target_logit, mean


def sweep_block(block: Tensor, column: Tensor, direction: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """(n,) log-sum-exp over the other classes, target logit and ``direction . z~`` of adjusted logits.

    In the target's place the block gets the largest of the other logits before its softmax is taken. The share r of
    that place then tells the sum over the others without cancellation, as ``exp(top) (1 - r) / r`` with r <= 1/2: one
    pass less than looking for the largest share. The block is left with this softmax.

    Args:
        block: (n, K), overwritten. column: (n, 1) int64 targets. direction: (K,) or None.
    """
    own = block.gather(1, column).squeeze(1)
    # out=, since autocast would take the product in half precision
    mean = None if direction is None else torch.mv(block, direction, out=block.new_empty(len(block)))
    block.scatter_(1, column, float("-inf"))
    # a row with one class left keeps a finite number: its r is 1, and the sum over the others 0
    top = block.amax(1, keepdim=True).clamp_(min=torch.finfo(block.dtype).min)
    block.scatter_(1, column, top)
    torch.softmax(block, 1, out=block)
    return top.sub_(torch.logit(block.gather(1, column))).squeeze(1), own, mean


def slope_of_block(
    block: Tensor, column: Tensor, adjustment: Sequence[Tensor | None], upstream: Sequence[Tensor | None]
) -> None:
    """Turn what :func:`sweep_block` left in a block into the gradient by the logits.

    Args:
        block: (n, K), overwritten. column: (n, 1) targets. adjustment: as it was, for these rows.
        upstream: (n,) gradients by gap, target logit and mean; None where there is none.
    """
    by_gap, by_target, by_mean = (None if u is None else u.unsqueeze(1) for u in upstream)
    scale, _, row_scale, _, direction = adjustment
    if by_gap is None:
        block.zero_()
    else:
        # 1 - r is at least 1/2, and 0 where no other class is left
        block.mul_(by_gap / torch.rsub(block.gather(1, column), 1).clamp_(min=0.5))
    at_target = by_target if by_gap is None else (-by_gap if by_target is None else by_target - by_gap)
    if at_target is not None:
        block.scatter_(1, column, at_target)
    if direction is not None and by_mean is not None:
        block.addcmul_(by_mean, direction)
    if row_scale is not None:
        block.mul_(row_scale.unsqueeze(1))
    if scale is not None:
        block.mul_(scale)


def sweep_back(
    logits: Tensor,
    target: Tensor,
    others: Tensor,
    adjustment: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    *,
    out: Tensor | None = None,
    swept: bool = False,
) -> Tensor:
    """(N, K) gradient of the row statistics by the logits: of the gap, the softmax over the other classes, and -1 at
    the target; then through ``t_i s_k``.

    Args:
        logits, target, adjustment: as :func:`sweep` had them. others: its first result.
        upstream: (N,) gradients by gap, target logit and mean; None where there is none.
        out: (N, K) of the logits' type to write to, or the logits themselves; None for a new tensor.
        swept: whether :func:`sweep` has left its softmax in place of the logits.
    """
    gradient = torch.empty_like(logits) if out is None else out
    # a finite number where no other class is left, which then has nothing to share but its own place
    middle = others.clamp(min=torch.finfo(others.dtype).min)[:, None]
    scale, offset, row_scale, _, direction = adjustment
    for part, block in blocks(logits, (None,) * 5 if swept else adjustment, gradient):
        column = target[part, None]
        if not swept:
            block.scatter_(1, column, middle[part])
            torch.softmax(block, 1, out=block)
        by_row = [None if u is None else u[part] for u in upstream]
        slope_of_block(block, column, (scale, offset, part_of(row_scale, part), None, direction), by_row)
        if block.data_ptr() != gradient[part].data_ptr():
            gradient[part].copy_(block)
    return gradient


def rows_of(x: Tensor, part: slice) -> Tensor:
    """Some rows; all of them as they are, since a view costs as much as a small product."""
    return x if part.stop - part.start == len(x) else x[part]


def part_of(x: Tensor | None, part: slice) -> Tensor | None:
    """:func:`rows_of` of what may not be there."""
    return None if x is None else rows_of(x, part)


def _block_cells(logits: Tensor) -> int:
    on_cpu = logits.device.type == "cpu"
    return _CPU_BLOCK * min(torch.get_num_threads(), _MOST_THREADS) if on_cpu else _DEVICE_BLOCK


def _differentiable_gradient(
    logits: Tensor, target: Tensor, adjustment: list[Tensor | None], upstream: tuple[Tensor | None, ...]
) -> Tensor:
    outputs = plain_statistics(logits, target, *adjustment)
    pairs = [(out, u) for out, u in zip(outputs, upstream, strict=True) if u is not None and out.requires_grad]
    (gradient,) = torch.autograd.grad(
        [out for out, _ in pairs], logits, grad_outputs=[u for _, u in pairs], create_graph=True
    )
    return gradient


def blocks(logits: Tensor, adjustment: Any, out: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """(rows, adjusted logits of these rows in a buffer that may be overwritten); the buffer is `out` if it can be."""
    scale, offset, row_scale, pair_offset, _ = adjustment
    rows, classes = logits.shape
    wide = arithmetic(logits)
    step = max(1, _block_cells(logits) // max(1, classes))
    direct = out is not None and out.dtype == wide and out.is_contiguous()
    buffer = out if direct else None
    if buffer is None:
        buffer = torch.empty((min(step, rows), classes), dtype=wide, device=logits.device)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        raw = rows_of(logits, part)
        block = rows_of(buffer, part if direct else slice(0, part.stop - start))
        if scale is not None and offset is not None and raw.dtype == wide:
            torch.addcmul(offset, raw, scale, out=block)
        else:
            if block.data_ptr() != raw.data_ptr():
                block.copy_(raw)
            if scale is not None:
                block.mul_(scale)
            if offset is not None:
                block.add_(offset)
        if pair_offset is not None:
            block.add_(rows_of(pair_offset, part))
        if row_scale is not None:
            block.mul_(rows_of(row_scale, part).unsqueeze(1))
        yield part, block
