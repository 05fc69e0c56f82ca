"""Sigmoid losses that count easy entries less: focal and asymmetric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.multilabel.base import SigmoidLoss
from evenhand.losses.multilabel.law import SigmoidLaw, check_sigmoid_law


class SigmoidFocalLoss(SigmoidLoss):
    """``alpha y (1 - p)^gamma (-log p) + (1 - alpha) (1 - y) p^gamma (-log(1 - p))``, p = sigmoid(z).

    Args:
        counts, **options: as in :class:`SigmoidLoss`. The paper's mean has ``denominator="positives"``.
        alpha: share of the positives in [0, 1], one number or (K,); None weighs neither.
        gamma: focusing >= 0, one number or (K,); 0 with ``alpha=None`` is binary cross-entropy.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002.

    Example:
        >>> criterion = SigmoidFocalLoss(gamma=2.0, alpha=0.25)
        >>> round(criterion(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])).item(), 6)
        0.008722
    """

    alpha: float | Tensor | None
    gamma: float | Tensor

    def __init__(self, counts: Any = None, *, alpha: Any = 0.25, gamma: Any = 2.0, **options: Any) -> None:
        super().__init__(counts, **options)
        self.keep("alpha", alpha)
        self.keep("gamma", gamma)
        if self.alpha is not None and torch.as_tensor(self.alpha).max() > 1:
            raise InputError(
                f"expected alpha in [0, 1], the share of the positives, got {str(alpha)[:80]}; 0.25 is usual"
            )

    def law(self) -> SigmoidLaw:
        """Weights alpha and 1 - alpha, gamma on both sides."""
        a, b = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        return SigmoidLaw(positive_weight=a, negative_weight=b, gamma_positive=self.gamma, gamma_negative=self.gamma)


class AsymmetricLoss(SigmoidLoss):
    """ASL: ``y (1 - p)^gamma_pos (-log p) + (1 - y) q^gamma_neg (-log(1 - q))``, ``q = max(p - clip, 0)``.

    Args:
        counts, **options: as in :class:`SigmoidLoss`. The authors sum (``reduction="sum"``).
        gamma_pos, gamma_neg: focusing >= 0, a number or (K,). The paper has 0 and 4; the authors' code 1 and 4.
        clip: probability below which a negative is left alone.
        detach_focus: whether the focusing factors are constants for the gradient, as in the authors' own training.

    Source: Ridnik et al., Asymmetric Loss For Multi-Label Classification, 2021, https://arxiv.org/abs/2009.14119.

    Example:
        >>> criterion = AsymmetricLoss()
        >>> criterion(torch.tensor([[-4.0]]), torch.tensor([[0.0]])).item()
        0.0
    """

    gamma_pos: float | Tensor
    gamma_neg: float | Tensor

    def __init__(
        self,
        counts: Any = None,
        *,
        gamma_pos: Any = 0.0,
        gamma_neg: Any = 4.0,
        clip: float = 0.05,
        detach_focus: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(counts, **options)
        self.keep("gamma_pos", gamma_pos)
        self.keep("gamma_neg", gamma_neg)
        self.clip, self.detach_focus = clip, detach_focus
        check_sigmoid_law(self.law(), self.known_classes or 1)

    def law(self) -> SigmoidLaw:
        """Two gammas and the clip."""
        return SigmoidLaw(
            gamma_positive=self.gamma_pos,
            gamma_negative=self.gamma_neg,
            clip=self.clip,
            detach_focus=self.detach_focus,
        )
