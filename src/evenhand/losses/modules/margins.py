"""LDAM: larger margins for rarer classes; and the cosine head that margins are meant for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evenhand.losses.law import Law
from evenhand.losses.modules.arguments import as_counts, in_range, rows_or_one
from evenhand.losses.modules.base import SoftmaxLoss


class LDAMLoss(SoftmaxLoss):
    """``-w_y log softmax(s (z - m_y [k = y]))_y`` with ``m_y`` proportional to ``n_y^(-1/4)``.

    z are cosines, from :class:`CosineLinear`; the margin is taken off before the scale, so it counts ``s m_y`` nats.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        max_margin: margin of the rarest class, 0.5; 0 is the cosine head alone.
        scale: s, 30.
        exponent: 1/4.
        **options: those of :class:`SoftmaxLoss`. The authors add weights late: :class:`DeferredReweighting`.

    Raises:
        InputError: no counts, a number out of range.

    Limits:
        The authors answer the largest cosine; :meth:`correction` solves the margins out of it. With plain logits
        instead of cosines the scale makes the first steps very large: set ``scale=1``.

    Source: Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, 2019,
        https://arxiv.org/abs/1906.07413.

    Example:
        >>> loss = LDAMLoss([160, 10])
        >>> [round(m, 3) for m in loss.margin.tolist()]
        [7.5, 15.0]
    """

    def __init__(
        self, counts: Any, max_margin: float = 0.5, *, scale: float = 30.0, exponent: float = 0.25, **options: Any
    ) -> None:
        known = as_counts(counts)
        super().__init__(counts=known, **options)
        self.max_margin = in_range("max_margin", max_margin, 0, 1e6, "0.5 is the authors' choice for cosines")
        self.s = checked_scale(scale)
        rows = rows_or_one(known)
        power = in_range("exponent", exponent, 0, 10, "0.25 is the authors' choice")
        self.keep("scale", np.full(known.classes, self.s))
        self.keep("margin", self.s * self.max_margin * (rows.min() / rows) ** power)

    def law(self) -> Law:
        """Scale, and the margin in nats."""
        return self.with_changes(scale=self.scale, margin=self.margin)


class CosineLinear(nn.Module):
    """A last layer whose outputs are cosines: ``z_k = <x, W_k> / (|x| |W_k|)``, in [-1, 1].

    Scale them by the loss (:class:`LDAMLoss`, :class:`GCLLoss`): unscaled, with K classes, no probability can exceed
    ``e / (e + (K - 1) / e)``.

    Args:
        in_features: D. out_features: K.
        generator: source of the initial weights, uniform on the directions.

    Shape:
        (..., D) to (..., K). ``weight`` is (K, D), as in :class:`torch.nn.Linear`; there is no bias.

    Source: Cao et al., 2019, https://arxiv.org/abs/1906.07413; Wang et al., CosFace, 2018,
        https://arxiv.org/abs/1801.09414.

    Example:
        >>> head = CosineLinear(4, 3)
        >>> bool((head(torch.randn(5, 4)).abs() <= 1.000001).all())
        True
    """

    def __init__(self, in_features: int, out_features: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(F.normalize(torch.randn(out_features, in_features, generator=generator), dim=1))

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) cosines of (..., D) features; a feature vector of zeros has cosine 0 with everything."""
        return F.linear(F.normalize(input, dim=-1), F.normalize(self.weight, dim=1))

    def extra_repr(self) -> str:
        """Sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def checked_scale(scale: float) -> float:
    """The scale of cosine logits, above 0."""
    return in_range("scale", scale, 1e-6, 1e6, "30 is the authors' choice for cosines")
