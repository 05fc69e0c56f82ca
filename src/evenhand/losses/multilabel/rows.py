"""The one pass of the sigmoid losses: value and slope together, block by block in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from evenhand.losses.multilabel.law import SigmoidLaw, adjusted, entry_losses, is_off
from evenhand.losses.rows import arithmetic, is_traced, softplus

_CPU_BLOCK = 1 << 17  # cells: the pass holds about eight blocks of float32 at a time
_DEVICE_BLOCK = 1 << 24


def summed_losses(
    logits: Tensor, target: Tensor, law: SigmoidLaw, *, counted: Tensor | None = None, by_row: bool = True
) -> Tensor:
    """Losses of (N, K) logits, summed over the classes of a row or entry by entry.

    Args:
        logits: (N, K) floats. target: (N, K) numbers in [0, 1] of any type; anything finite where not counted.
        law: parameters.
        counted: (N, K) bool, False where an entry is ignored; None if all count.
        by_row: whether to sum over the classes.

    Returns:
        (N,) or (N, K), float32, or float64 for float64 logits; differentiable in the logits twice, in the target and
        the law's tensors where they ask for it.
    """
    law = law.beside(logits.new_empty(0, dtype=arithmetic(logits)))
    learned = torch.is_grad_enabled() and any(x.requires_grad for x in (target, *law.tensors))
    if learned or is_traced(logits) or is_traced(target):
        return _plain(logits, target, counted, law, by_row)
    wanted = torch.is_grad_enabled() and logits.requires_grad
    out: Tensor = _Blockwise.apply(logits, target, counted, law, by_row, wanted)  # type: ignore[no-untyped-call]
    return out


def _plain(logits: Tensor, target: Tensor, counted: Tensor | None, law: SigmoidLaw, by_row: bool) -> Tensor:
    z = logits.to(arithmetic(logits))
    y = target.to(z.dtype)
    if counted is not None:  # masked before the arithmetic, so that an ignored NaN has no gradient either
        z, y = z.where(counted, 0.0), y.where(counted, 0.0)
    loss = entry_losses(z, y, law)
    loss = loss if counted is None else loss.where(counted, 0.0)
    return loss.sum(1) if by_row else loss


class _Blockwise(torch.autograd.Function):
    """The slope is made beside the value, from the same exponentials, and is all that the backward pass needs."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, counted: Tensor | None, law: SigmoidLaw, by_row: bool, wanted: bool
    ) -> Tensor:
        wide = arithmetic(logits)
        out = torch.empty(logits.shape[:1] if by_row else logits.shape, dtype=wide, device=logits.device)
        # of the wide type even for half logits: a scaled loss brings back what half precision would have flushed to 0
        slopes = torch.empty(logits.shape, dtype=wide, device=logits.device) if wanted else None
        for part in _blocks(logits):
            z, y = logits[part].to(wide), target[part].to(wide)
            loss, slope = _value_and_slope(z, y, law, wanted, hard=_is_hard(target, y))
            if counted is not None:
                loss = loss.where(counted[part], 0.0)
            out[part] = loss.sum(1) if by_row else loss
            if slopes is not None and slope is not None:
                slopes[part] = slope if counted is None else slope.where(counted[part], 0.0)
        ctx.save_for_backward(logits, target, counted, slopes)
        ctx.law, ctx.by_row = law, by_row
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, counted, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate this gradient: it must be made of plain operations
            out = _plain(logits, target, counted, ctx.law, ctx.by_row)
            (gradient,) = torch.autograd.grad(out, logits, grad_outputs=upstream, create_graph=True)
        else:
            gradient = (slopes * (upstream[:, None] if ctx.by_row else upstream)).to(logits.dtype)
        return gradient, None, None, None, None, None


def _blocks(logits: Tensor) -> Iterator[slice]:
    rows, classes = logits.shape
    step = max(1, (_CPU_BLOCK if logits.device.type == "cpu" else _DEVICE_BLOCK) // max(1, classes))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _is_hard(target: Tensor, y: Tensor) -> bool:
    """Whether every target is 0 or 1; for numbers on a GPU the answer is no, since the host would have to wait."""
    if not target.is_floating_point():
        return True
    return target.device.type == "cpu" and torch.equal(y * y, y)


def _value_and_slope(
    z: Tensor, y: Tensor, law: SigmoidLaw, wanted: bool, *, hard: bool
) -> tuple[Tensor, Tensor | None]:
    """(loss, d loss / d z) of a block, the same as :func:`entry_losses` and its gradient."""
    u = adjusted(z, law)
    loss, slope = _hard(u, y, law, wanted) if hard and law.clip == 0 else _soft(u, y, law, wanted)
    if law.entry_weight is not None:
        weight = law.entry_weight(y)
        loss = loss * weight
        slope = slope if slope is None else slope * weight
    return loss, slope if slope is None or law.scale is None else slope * law.scale


def _hard(u: Tensor, y: Tensor, law: SigmoidLaw, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Targets 0 or 1: one term instead of two, ``c p^g softplus(t)`` with ``t = -u`` or ``lambda u``."""
    steepness = y.mul(-(1 + law.negative_scale)).add_(law.negative_scale)
    t = u * steepness
    nll = softplus(t)
    wrong = torch.sigmoid(t)
    factor = _chosen(y, law.positive_weight, _over(law.negative_weight, law.negative_scale))
    gamma = _chosen(y, law.gamma_positive, law.gamma_negative)
    focused = not is_off(gamma, 0)
    if focused:
        factor = _power(wrong, gamma) * factor
    loss = nll * factor
    if not wanted:
        return loss, None
    if not focused or law.detach_focus:
        return loss, wrong.mul_(factor).mul_(steepness)
    slope = t.neg_().sigmoid_().mul_(nll).mul_(gamma).add_(wrong).mul_(factor)
    return loss, slope.mul_(steepness)


def _soft(u: Tensor, y: Tensor, law: SigmoidLaw, wanted: bool) -> tuple[Tensor, Tensor | None]:
    v = u if law.negative_scale == 1 else u * law.negative_scale
    loss, slope = _positive(u, law)
    negative, negative_slope = _negative(v, law)
    share = y * law.positive_weight
    rest = (1 - y) * law.negative_weight
    loss = (loss * share).add_(negative.mul_(_over(rest, law.negative_scale)))
    return loss, (slope * share).add_(negative_slope.mul_(rest)) if wanted else None


def _positive(u: Tensor, law: SigmoidLaw) -> tuple[Tensor, Tensor]:
    nll, missing = softplus(-u), torch.sigmoid(-u)
    if is_off(law.gamma_positive, 0):
        return nll, -missing
    focus = _power(missing, law.gamma_positive)
    if law.detach_focus:
        return nll * focus, -missing * focus
    slope = torch.sigmoid(u).mul_(nll).mul_(law.gamma_positive).add_(missing).mul_(focus)
    return nll * focus, slope.neg_()


def _negative(v: Tensor, law: SigmoidLaw) -> tuple[Tensor, Tensor]:
    """Loss and slope by ``v = lambda u``; with a clip, ``dq/dv = p (1 - p)``."""
    if law.clip > 0:
        return _clipped(v, law)
    nll, p = softplus(v), torch.sigmoid(v)
    if is_off(law.gamma_negative, 0):
        return nll, p
    focus = _power(p, law.gamma_negative)
    if law.detach_focus:
        return nll * focus, p * focus
    slope = torch.sigmoid(-v).mul_(nll).mul_(law.gamma_negative).add_(p).mul_(focus)
    return nll * focus, slope


def _clipped(v: Tensor, law: SigmoidLaw) -> tuple[Tensor, Tensor]:
    """``d/dq q^g (-log(1 - q)) = q^g (g (-log(1 - q)) / q + 1 / (1 - q))``, finite as q -> 0 for every g."""
    clip, at = law.clip, math.log(law.clip / (1 - law.clip))
    p, missing = torch.sigmoid(v), torch.sigmoid(-v)
    q = torch.expm1((at - v).clamp_(max=0.0)).mul_(p).mul_(clip - 1)
    left = clip + missing  # 1 - q, without the cancellation for large q
    nll = torch.where(q < 0.5, -torch.log1p(-q.clamp(max=0.5)), -torch.log(left))
    active = v > at
    rise = p.mul_(missing).mul_(active)
    if is_off(law.gamma_negative, 0):
        return nll, rise.div_(left)
    focus = _power(q, law.gamma_negative)
    steep = left.reciprocal_()
    if not law.detach_focus:
        steep = (nll / q.clamp(min=torch.finfo(q.dtype).tiny)).mul_(law.gamma_negative).add_(steep)
    return nll.mul_(focus).mul_(active), rise.mul_(focus).mul_(steep)


def _power(base: Tensor, gamma: float | Tensor) -> Tensor:
    """``base^gamma``; 4 is the usual gamma of negatives and two squares are several times faster than a power."""
    return base.square().square_() if is_off(gamma, 4) else base.pow(gamma)


def _chosen(y: Tensor, positive: Any, negative: Any) -> Any:
    """`positive` where y is 1 and `negative` where it is 0; one number where they are the same number."""
    if not isinstance(positive, Tensor) and not isinstance(negative, Tensor) and positive == negative:
        return positive
    return y * (positive - negative) + negative


def _over(value: Any, divisor: float) -> Any:
    return value if divisor == 1 else value / divisor
