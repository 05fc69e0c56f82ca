"""Distribution-balanced loss: weights for labels that occur together."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.multilabel.base import SigmoidLoss
from evenhand.losses.multilabel.law import SigmoidLaw, check_sigmoid_law


class DistributionBalancedLoss(SigmoidLoss):
    """Binary cross-entropy re-balanced for labels that occur together, and tolerant of negatives.

    With n_k rows that have class k, of N::

        r_ik = (1 / n_k) / sum_j y_ij / n_j             r^_ik = alpha + sigmoid(beta (r_ik - mu))
        u    = z + kappa / lambda log(n_k / (N - n_k))
        loss = r^_ik [ y (1 - p)^gamma softplus(-u) + (1 - y) / lambda q^gamma softplus(lambda u) ]

    where ``p = sigmoid(u)`` and ``q = sigmoid(lambda u)``. A row without any label has r^ = alpha + 1. A class without
    rows counts as one row.

    Args:
        counts: n. rows: N. **options: as in :class:`SigmoidLoss`.
        alpha, beta, mu: of the smoothing of r; the paper has mu 0.2 on COCO and 0.3 on VOC. ``rebalance=False`` leaves
            the weights out.
        negative_scale: lambda; 1 is off. kappa: factor of the bias; 0 is off.
        gamma: focusing; 0 is off. The authors' code also doubles the focal loss, which only changes the learning rate.

    Limits:
        The bias kappa / lambda log(...) is that of the authors' code; the paper's text has no lambda in it.

    Source: Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets, 2020,
    https://arxiv.org/abs/2007.09654.

    Example:
        >>> criterion = DistributionBalancedLoss([90, 5], rows=100)
        >>> loss = criterion(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        >>> round(loss.item(), 4)
        0.1233
    """

    offset: Tensor
    inverse: Tensor

    def __init__(
        self,
        counts: Any,
        *,
        rows: int,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        negative_scale: float = 2.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
        rebalance: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(counts, rows=rows, **options)
        self.alpha, self.beta, self.mu, self.gamma = alpha, beta, mu, gamma
        self.negative_scale, self.kappa, self.rebalance = negative_scale, kappa, rebalance
        if not 0 < negative_scale < float("inf"):
            raise InputError(f"expected negative_scale above 0, got {negative_scale}; 2 is usual, 1 is off")
        self.keep("offset", kappa / negative_scale * self.log_odds())
        self.keep("inverse", 1 / np.maximum(1, np.asarray(self.positives)))
        check_sigmoid_law(self.law(), self.classes)

    def law(self) -> SigmoidLaw:
        """Bias, lambda, gamma, and the weights of the entries."""
        smooth = partial(rebalanced, inverse=self.inverse, alpha=self.alpha, beta=self.beta, mu=self.mu)
        return SigmoidLaw(
            offset=self.offset if self.kappa else None,
            gamma_positive=self.gamma,
            gamma_negative=self.gamma,
            negative_scale=self.negative_scale,
            entry_weight=smooth if self.rebalance else None,
        )

    def _certainty(self) -> tuple[bool, str]:
        if self.rebalance:
            return False, "the weights depend on the row's other labels; the threshold is that of the loss without them"
        return super()._certainty()


def rebalanced(target: Tensor, *, inverse: Tensor, alpha: float, beta: float, mu: float) -> Tensor:
    """(n, K) smoothed weights ``alpha + sigmoid(beta (r - mu))``, ``r_ik = (1 / n_k) / sum_j y_ij / n_j``.

    Args:
        target: (n, K) in [0, 1]. inverse: (K,) 1 / n.
    """
    inverse = inverse.to(target)
    ratio = inverse / (target * inverse).sum(1, keepdim=True)  # not @: autocast would round it to half precision
    return torch.sigmoid(beta * (ratio - mu)) + alpha
