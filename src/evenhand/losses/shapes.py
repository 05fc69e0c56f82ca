"""Shapes phi of the negative log-likelihood: focal, poly, generalised cross-entropy, influence-balanced, DFT.

Every shape is written in the gap ``d = logsumexp_{k != y} z_k - z_y``, the log odds against the target, in which
``L = softplus(d)``, ``p = sigmoid(-d)`` and ``log(1 - p) = -softplus(-d)`` are all smooth. Written in ``p`` or ``L``,
as papers do, ``(1 - p)^gamma`` with 0 < gamma < 1 has an infinite slope at p = 1, and autograd turns a saturated row
into NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.losses.rows import softplus


class Point(NamedTuple):
    """Where a shape and its slope are asked for: what the slopes of all shapes are made of.

    Attributes:
        gap: (N,). nll: (N,) ``softplus(gap)``. wrong: (N,) ``1 - p = sigmoid(gap)``.
        target: (N,) int64. extra: (N,) of the caller, or None.
    """

    gap: Tensor
    nll: Tensor
    wrong: Tensor
    target: Tensor
    extra: Tensor | None


def focal(gap: Tensor, gamma: Tensor | float) -> Tensor:
    """``(1 - p)^gamma L``, with ``dphi/dL = (1 - p)^gamma + gamma p L (1 - p)^(gamma - 1)``.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002.
    """
    finite = gap.clamp(min=torch.finfo(gap.dtype).min)  # a row with one class left has gap -inf, and 0 * inf is NaN
    return torch.exp(-gamma * softplus(-finite)) * softplus(gap)


def poly(gap: Tensor, epsilon: float) -> Tensor:
    """``L + epsilon (1 - p)``, with ``dphi/dL = 1 + epsilon p``.

    Source: Leng et al., PolyLoss, 2022, https://arxiv.org/abs/2204.12511.
    """
    return softplus(gap) + epsilon * torch.sigmoid(gap)


def poly_focal(gap: Tensor, gamma: Tensor | float, epsilon: float) -> Tensor:
    """``(1 - p)^gamma L + epsilon (1 - p)^(gamma + 1)``.

    Source: Leng et al., PolyLoss, 2022, https://arxiv.org/abs/2204.12511.
    """
    return focal(gap, gamma) + epsilon * torch.exp(-(gamma + 1) * softplus(-gap))


def generalised(gap: Tensor, q: float) -> Tensor:
    """``(1 - p^q) / q``, with ``dphi/dL = p^q``; q -> 0 is cross-entropy, q = 1 is ``1 - p``.

    Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018, https://arxiv.org/abs/1805.07836.
    """
    return -torch.expm1(-q * softplus(gap)) / q


def confidence_weighted(gap: Tensor) -> Tensor:
    """``sg(p) L``, sg: no gradient: rows count by the probability the model already gives their target.

    Source: Wu et al., On the Generalization of SFT, 2025, https://arxiv.org/abs/2508.05629.
    """
    return torch.sigmoid(-gap).detach() * softplus(gap)


def influence_balanced(gap: Tensor, feature_norm: Tensor | float, alpha: float, epsilon: float) -> Tensor:
    """``alpha sg(1 / (2 (1 - p) |h|_1 + epsilon)) L``: the L1 norm of the softmax's error is ``2 (1 - p)``.

    Source: Park et al., Influence-Balanced Loss, 2021, https://arxiv.org/abs/2110.02444.
    """
    influence = 2 * torch.sigmoid(gap).detach() * feature_norm
    return alpha / (influence + epsilon) * softplus(gap)


@dataclass(frozen=True, eq=False)
class Focal:
    """:func:`focal` with one gamma >= 0, or (K,) of them by target class, and optional (K,) ``alpha`` factors.

    Unlike a class weight, alpha does not enter the denominator of the mean.
    """

    gamma: float | Tensor = 2.0
    alpha: float | Tensor | None = None

    def __call__(self, gap: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(N,) losses."""
        loss = focal(gap, _by_class(self.gamma, target, gap))
        return loss if self.alpha is None else loss * _by_class(self.alpha, target, gap)

    def with_slope(self, at: Point) -> tuple[Tensor, Tensor]:
        """(N,) losses and their slopes by the gap."""
        loss, slope = _focal_with_slope(at, _by_class(self.gamma, at.target, at.gap))
        if self.alpha is None:
            return loss, slope
        alpha = _by_class(self.alpha, at.target, at.gap)
        return loss * alpha, slope * alpha


@dataclass(frozen=True, eq=False)
class Poly:
    """:func:`poly`, or :func:`poly_focal` with a gamma."""

    epsilon: float = 1.0
    gamma: float = 0.0

    def __call__(self, gap: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(N,) losses."""
        return poly(gap, self.epsilon) if self.gamma == 0 else poly_focal(gap, self.gamma, self.epsilon)

    def with_slope(self, at: Point) -> tuple[Tensor, Tensor]:
        """(N,) losses and their slopes by the gap."""
        p = torch.exp(-at.nll)
        if self.gamma == 0:
            return torch.add(at.nll, at.wrong, alpha=self.epsilon), at.wrong * (1 + self.epsilon * p)
        loss, slope = _focal_with_slope(at, self.gamma)
        term = self.epsilon * torch.exp(-(self.gamma + 1) * softplus(-at.gap))
        return loss + term, slope + (self.gamma + 1) * p * term


@dataclass(frozen=True, eq=False)
class Generalised:
    """:func:`generalised`."""

    q: float = 0.7

    def __call__(self, gap: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(N,) losses."""
        return generalised(gap, self.q)

    def with_slope(self, at: Point) -> tuple[Tensor, Tensor]:
        """(N,) losses and their slopes by the gap."""
        power = -self.q * at.nll
        return torch.expm1(power) / -self.q, torch.exp(power) * at.wrong


@dataclass(frozen=True, eq=False)
class InfluenceBalanced:
    """:func:`influence_balanced`; `extra` is the (N,) L1 norm of the features before the last layer, 1 if not given."""

    alpha: float = 1000.0
    epsilon: float = 1e-3

    def __call__(self, gap: Tensor, target: Tensor, extra: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(N,) losses."""
        return influence_balanced(gap, 1.0 if extra is None else extra.to(gap), self.alpha, self.epsilon)

    def with_slope(self, at: Point) -> tuple[Tensor, Tensor]:
        """(N,) losses and their slopes by the gap."""
        influence = 2 * at.wrong * (1.0 if at.extra is None else at.extra.to(at.gap))
        factor = self.alpha / (influence + self.epsilon)
        return factor * at.nll, factor * at.wrong


def _focal_with_slope(at: Point, gamma: Tensor | float) -> tuple[Tensor, Tensor]:
    """``f L`` and ``f (1 - p) + gamma p f L`` with ``f = (1 - p)^gamma``."""
    log_wrong = F.logsigmoid(at.gap).clamp_(min=torch.finfo(at.gap.dtype).min)  # see focal()
    factor = log_wrong.mul_(gamma).exp_()
    loss = factor * at.nll
    p = torch.neg(at.nll).exp_()
    return loss, torch.addcmul(factor.mul_(at.wrong), p.mul_(gamma), loss)


def _by_class(value: float | Tensor, target: Tensor, like: Tensor) -> float | Tensor:
    return value.to(like)[target] if isinstance(value, Tensor) else value
