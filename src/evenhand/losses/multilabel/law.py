"""The small law of the sigmoid losses: every class of a row is its own yes-or-no question."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.rows import softplus
from evenhand.losses.targets import per_class

LARGEST = 1e30  # stands for infinity: 0 * inf would turn a masked class into NaN
_NEAREST = 1e-15  # log odds above the clip below which the loss is smaller than any rounding


@dataclass(frozen=True, eq=False)
class SigmoidLaw:
    """Parameters of one sigmoid loss; what is off is left out.

    For row i, class k, target ``y`` in [0, 1] and ``u = scale_k z_ik + offset_k``::

        p    = sigmoid(u)                       q = max(sigmoid(lambda u) - clip, 0)
        loss = r_ik [ a_k y (1 - p)^g+ (-log p)  +  b_k / lambda (1 - y) q^g- (-log(1 - q)) ]

    Attributes:
        scale: (K,) s. offset: (K,) o, nats.
        positive_weight: a, one number or (K,), >= 0. negative_weight: b, likewise.
        gamma_positive: g+, one number or (K,), >= 0. gamma_negative: g-, likewise.
        clip: probability in [0, 1) taken off every negative: those below it are left alone.
        negative_scale: lambda > 0, how steep the loss is for negatives.
        detach_focus: whether the focusing factors ``(1 - p)^g+`` and ``q^g-`` are constants for the gradient.
        entry_weight: r, a function from (n, K) targets to (n, K) weights, row by row; no gradient flows through it.
    """

    scale: Tensor | None = None
    offset: Tensor | None = None
    positive_weight: float | Tensor = 1.0
    negative_weight: float | Tensor = 1.0
    gamma_positive: float | Tensor = 0.0
    gamma_negative: float | Tensor = 0.0
    clip: float = 0.0
    negative_scale: float = 1.0
    detach_focus: bool = False
    entry_weight: Callable[[Tensor], Tensor] | None = None

    @property
    def torch_can(self) -> bool:
        """Whether it is ``torch.nn.functional.binary_cross_entropy_with_logits`` without any option."""
        held = (self.scale, self.offset, self.entry_weight)
        factors = (self.positive_weight, self.negative_weight, self.negative_scale)
        powers = (self.gamma_positive, self.gamma_negative, self.clip)
        return all(x is None for x in held) and all(is_off(x, 1) for x in factors) and all(is_off(x, 0) for x in powers)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor among the parameters."""
        return tuple(x for x in (getattr(self, name) for name in _PER_CLASS) if isinstance(x, Tensor))

    def beside(self, like: Tensor) -> SigmoidLaw:
        """The same law with its tensors on the device and in the type of `like`."""
        held = {name: getattr(self, name) for name in _PER_CLASS}
        moved: dict[str, Any] = {name: x.to(like) for name, x in held.items() if isinstance(x, Tensor)}
        return replace(self, **moved)


def is_off(value: float | Tensor, neutral: float) -> bool:
    """Whether a parameter is the plain number that leaves the loss as it is."""
    return not isinstance(value, Tensor) and value == neutral


def check_sigmoid_law(law: SigmoidLaw, classes: int) -> None:
    """Refuse a law that was made for another number of classes or that is no loss.

    Raises:
        InputError: a class-wise vector of another length, a negative gamma, a clip outside [0, 1), lambda <= 0.
    """
    for name in _PER_CLASS:
        value = getattr(law, name)
        if isinstance(value, Tensor):
            per_class(name, value, classes)
        elif value is not None and not (0 <= value < math.inf):
            raise InputError(f"expected {name} to be a finite number of 0 or more, got {value}; 0 to 5 is usual")
    if not 0 <= law.clip < 1:
        raise InputError(f"expected clip to be a probability in [0, 1), got {law.clip}; 0.05 is usual, 0 is off")
    if not 0 < law.negative_scale < math.inf:
        raise InputError(f"expected negative_scale above 0, got {law.negative_scale}; 2 is usual, 1 is off")


def adjusted(z: Tensor, law: SigmoidLaw) -> Tensor:
    """``scale z + offset``, with infinities made finite."""
    u = z if law.scale is None else z * law.scale
    u = u if law.offset is None else u + law.offset
    return u.clamp(-LARGEST, LARGEST)


def entry_losses(z: Tensor, target: Tensor, law: SigmoidLaw) -> Tensor:
    """(N, K) losses of (N, K) logits and targets, in plain operations that can be differentiated again.

    Written with ``(1 - p)^g = exp(-g softplus(u))``: as a power of ``1 - p`` it has an infinite slope at p = 1 for
    0 < g < 1, and autograd turns a saturated entry into NaN.
    """
    u = adjusted(z, law)
    positive = law.positive_weight * target * positive_loss(u, law)
    loss = positive + law.negative_weight * (1 - target) * negative_loss(u, law)
    return loss if law.entry_weight is None else loss * law.entry_weight(target.detach()).detach()


def positive_loss(u: Tensor, law: SigmoidLaw) -> Tensor:
    """``(1 - p)^g+ (-log p)``."""
    if is_off(law.gamma_positive, 0):
        return softplus(-u)
    return _focus(-law.gamma_positive * softplus(u), law) * softplus(-u)


def negative_loss(u: Tensor, law: SigmoidLaw) -> Tensor:
    """``q^g- (-log(1 - q)) / lambda``."""
    v = u if law.negative_scale == 1 else u * law.negative_scale
    if law.clip > 0:
        return _clipped(v, law) / law.negative_scale
    loss = softplus(v)
    if not is_off(law.gamma_negative, 0):
        loss = _focus(-law.gamma_negative * softplus(-v), law) * loss
    return loss if law.negative_scale == 1 else loss / law.negative_scale


def _clipped(v: Tensor, law: SigmoidLaw) -> Tensor:
    """The negative loss above the clip, 0 below it.

    ``sigmoid(v) - sigmoid(c) = sigmoid(v) sigmoid(-c) (1 - exp(c - v))``: the difference itself would cancel near c.
    """
    clip, at = law.clip, math.log(law.clip / (1 - law.clip))
    above = (v - at).clamp(min=_NEAREST)
    rest = -torch.expm1(-above)
    q = (1 - clip) * torch.sigmoid(v) * rest
    loss = torch.where(q < 0.5, -torch.log1p(-q.clamp(max=0.5)), -torch.log(clip + torch.sigmoid(-v)))
    if not is_off(law.gamma_negative, 0):
        log_q = math.log1p(-clip) - softplus(-v) + torch.log(rest)
        loss = _focus(law.gamma_negative * log_q, law) * loss
    return torch.where(v > at, loss, torch.zeros_like(loss))


def _focus(logarithm: Any, law: SigmoidLaw) -> Tensor:
    focus: Tensor = torch.exp(logarithm)
    return focus.detach() if law.detach_focus else focus


_PER_CLASS = ("scale", "offset", "positive_weight", "negative_weight", "gamma_positive", "gamma_negative")
