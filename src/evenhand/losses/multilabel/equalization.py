"""EQLv2: weights that follow how strongly each class has been pushed up and pushed down so far."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.multilabel.base import SigmoidLoss
from evenhand.losses.multilabel.functional import flatten_entries, row_weight
from evenhand.losses.multilabel.law import SigmoidLaw
from evenhand.losses.reduction import RowLosses
from evenhand.losses.rows import arithmetic


class EqualizationV2Loss(SigmoidLoss):
    """Binary cross-entropy with positives weighted up and negatives weighted down where negatives have prevailed.

    With the positive and negative gradients of class k summed over training, ``g = positive / negative``::

        f    = sigmoid(steepness (g - mu))
        loss = (1 + alpha (1 - f)) y (-log p) + f (1 - y) (-log(1 - p))

    After the loss of a training batch its weighted gradients ``a y (1 - p)`` and ``b (1 - y) p`` are added to the sums;
    with torch.distributed initialised, those of all ranks. In ``eval()`` the sums stay. They are in the ``state_dict``
    (float32, kept so under ``half()``), so that a resumed training goes on with the same weights. A class that has
    had no gradient yet weighs 1 on both sides.

    Args:
        counts: (K,) training rows per class, or None with `classes` given. **options: as in :class:`SigmoidLoss`; the
            authors' mean has ``denominator="rows"``.
        steepness, mu, alpha: the paper's gamma 12, mu 0.8 and alpha 4.

    Limits:
        Every forward pass in training adds to the sums, also one that is repeated by activation checkpointing.

    Source: Tan et al., Equalization Loss v2, 2021, https://arxiv.org/abs/2012.08548.

    Example:
        >>> criterion = EqualizationV2Loss(classes=2)
        >>> for _ in range(2):
        ...     loss = criterion(torch.zeros(4, 2), torch.tensor([[1, 0]] * 4))
        >>> criterion.gradient_ratio().tolist()[1]
        0.0
    """

    positive_gradient: Tensor
    negative_gradient: Tensor

    def __init__(
        self, counts: Any = None, *, steepness: float = 12.0, mu: float = 0.8, alpha: float = 4.0, **options: Any
    ) -> None:
        super().__init__(counts, **options)
        if self.known_classes is None:
            raise InputError("EQLv2 keeps sums per class and must know their number: build it with classes= or counts=")
        self.steepness, self.mu, self.alpha = steepness, mu, alpha
        for name in ("positive_gradient", "negative_gradient"):
            self.register_buffer(name, torch.zeros(self.known_classes))

    def gradient_ratio(self) -> Tensor:
        """(K,) g, the positive over the negative gradients so far."""
        return self.positive_gradient / (self.negative_gradient + 1e-10)

    def law(self) -> SigmoidLaw:
        """The weights of the present sums."""
        f = torch.sigmoid(self.steepness * (self.gradient_ratio() - self.mu))
        unseen = (self.positive_gradient + self.negative_gradient) == 0
        return SigmoidLaw(
            positive_weight=torch.where(unseen, 1.0, 1 + self.alpha * (1 - f)),
            negative_weight=torch.where(unseen, 1.0, f),
        )

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The reduced loss with the weights so far; in training the batch's gradients are added to the sums."""
        loss = super().forward(input, target, sample_weight)
        self._collect(input, target, sample_weight)
        return loss

    def rows(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> RowLosses:
        """Losses before reduction; in training the batch's gradients are added to the sums."""
        found = super().rows(input, target, sample_weight)
        self._collect(input, target, sample_weight)
        return found

    @torch.no_grad()
    def _collect(self, input: Tensor, target: Tensor, sample_weight: Tensor | None) -> None:
        if not self.training:
            return
        entries = flatten_entries(input, target, self.ignore_index, self.class_dim)
        row = row_weight(sample_weight, entries)
        z = entries.logits.to(arithmetic(entries.logits))
        y = entries.target.to(z)
        up, down = y * torch.sigmoid(-z), (1 - y) * torch.sigmoid(z)
        if entries.counted is not None:
            up, down = up.where(entries.counted, 0.0), down.where(entries.counted, 0.0)
        if row is not None:
            up, down = up * row[:, None], down * row[:, None]
        law = self.law()
        found = torch.stack((up.sum(0) * law.positive_weight, down.sum(0) * law.negative_weight))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found)
        self.positive_gradient.add_(found[0].to(self.positive_gradient))
        self.negative_gradient.add_(found[1].to(self.negative_gradient))

    def _certainty(self) -> tuple[bool, str]:
        return False, "the weights moved during training; the threshold is that of their last values"
