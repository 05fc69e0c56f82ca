"""The law and its derivatives by the row statistics, in as few operations as it takes.

:func:`evenhand.losses.law.row_losses` says the same for autograd. Where the gradient is made together with the loss,
sixty small operations recorded and played back would cost more than the logits of a small batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from evenhand.losses.law import Law
from evenhand.losses.rows import RowStatistics, rows_of, softplus
from evenhand.losses.shapes import Point


class RowWeights(NamedTuple):
    """What a row's loss is multiplied with, (N,) or one number for all.

    Attributes:
        loss: class weight times sample weight. smoothing: of the smoothing: that, or the sample weight alone where the
            smoothing is weighted by the class it falls on.
    """

    loss: Tensor | float
    smoothing: Tensor | float

    def times(self, factor: Tensor | float) -> RowWeights:
        """Both times one number."""
        loss = self.loss * factor
        return RowWeights(loss, loss if self.smoothing is self.loss else self.smoothing * factor)

    def part(self, rows: slice) -> RowWeights:
        """Those of some rows."""
        loss, smoothing = (rows_of(x, rows) if isinstance(x, Tensor) and x.dim() else x for x in self)
        return RowWeights(loss, smoothing)


class Slopes(NamedTuple):
    """(N,) derivatives by gap, target logit and mean; None where there is none."""

    gap: Tensor
    target_logit: Tensor | None = None
    mean: Tensor | None = None


def row_weights(
    law: Law, index: Tensor, counted: Tensor | None, sample_weight: Tensor | None, like: Tensor
) -> RowWeights:
    """The weights of rows with the targets `index`; 0 where a row is not counted."""
    sample: Tensor | float = 1.0 if sample_weight is None else sample_weight
    weight = sample if law.class_weight is None else law.class_weight.to(like).index_select(0, index) * sample
    if counted is not None:
        weight = torch.where(counted, weight, like.new_zeros(()))
    if not law.smooths or law.spreads_evenly:
        return RowWeights(weight, weight)
    return RowWeights(weight, sample if counted is None else torch.where(counted, sample, like.new_zeros(())))


def losses_and_slopes(
    statistics: RowStatistics,
    index: Tensor,
    law: Law,
    weights: RowWeights,
    *,
    direction: Tensor | None = None,
    counted: Tensor | None = None,
    extra: Tensor | None = None,
) -> tuple[Tensor, Slopes]:
    """The rows' weighted losses and their derivatives; arguments as of :func:`evenhand.losses.law.row_losses`.

    With weights w and v of loss and smoothing, ``l = z~_y + L`` and ``D = sum(direction)``, 1 where even::

        loss      = w (1 - e) phi(gap) + v e (D l - mean) + w z_loss l^2
        d / dz~_y = v e D + 2 w z_loss l
        d / dmean = -v e
        d / dgap  = w (1 - e) phi'(gap) + (1 - p) d / dz~_y
    """
    gap, own, mean = statistics
    margin = None if law.margin is None else law.margin.to(gap).index_select(0, index)
    if margin is not None:
        gap = gap + margin
        own = own - margin if mean is not None or law.z_loss else own
    nll, wrong = softplus(gap), torch.sigmoid(gap)
    loss, slope = (nll, wrong) if law.shape is None else _shaped(law.shape, Point(gap, nll, wrong, index, extra))
    if mean is None or direction is None:
        by_target = by_mean = None
        loss, slope = loss * weights.loss, slope * weights.loss
    else:
        smoothing = law.label_smoothing
        share = smoothing.to(gap).index_select(0, index) if isinstance(smoothing, Tensor) else smoothing
        even = 1 / len(direction) if law.spreads_evenly else None
        if margin is not None:
            mean = mean - margin * (direction.index_select(0, index) if even is None else even)
        by_target = by_mean = _filled(weights.smoothing * share, gap)
        mass = own + nll
        if even is None:
            total = direction.sum()
            by_target, mass = by_target * total, mass * total
        weight = weights.loss * (1 - share)
        loss = torch.addcmul(loss * weight, by_mean, mass - mean)
        slope, by_mean = torch.addcmul(slope * weight, by_target, wrong), by_mean.neg()
    if law.z_loss:
        normaliser = own + nll
        pull = 2 * law.z_loss * weights.loss * normaliser
        loss, slope = torch.addcmul(loss, pull, normaliser, value=0.5), torch.addcmul(slope, pull, wrong)
        by_target = pull if by_target is None else by_target + pull
    if counted is None:
        return loss, Slopes(slope, by_target, by_mean)
    # where(), not a product: an ignored row may have infinite logits
    by_target, by_mean = (None if x is None else x.where(counted, 0.0) for x in (by_target, by_mean))
    return loss.where(counted, 0.0), Slopes(slope.where(counted, 0.0), by_target, by_mean)


def _filled(value: Tensor | float, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) and value.dim() else torch.full_like(like, 1.0) * value


def _shaped(shape: Any, at: Point) -> tuple[Tensor, Tensor]:
    """(N,) phi and its slope: the shape's own, or autograd's for a shape that only has a value."""
    if hasattr(shape, "with_slope"):
        pair: tuple[Tensor, Tensor] = shape.with_slope(at)
        return pair
    leaf = at.gap.detach().requires_grad_()
    with torch.enable_grad():
        loss: Tensor = shape(leaf, at.target, at.extra)
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), slope
