"""Learnable parts of a law moved into the classifier, where autograd reaches them without the logits."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.law import Law, row_losses
from evenhand.losses.linear.chunks import Head
from evenhand.losses.rows import RowStatistics


def is_learned(law: Law, *row_wise: Tensor | None, classes: int, like: Tensor) -> bool:
    """Whether a gradient must flow into the law or a row-wise argument, besides the head.

    Asked of the law itself on one made-up row, so that parameters held by a shape are found too.
    """
    if not torch.is_grad_enabled():
        return False
    if any(x is not None and x.requires_grad for x in (law.scale, law.offset, law.temperature, *row_wise)):
        return True
    zero = like.new_zeros(1)
    direction = law.direction(classes, like)
    index = torch.zeros(1, dtype=torch.int64, device=like.device)
    statistics = RowStatistics(zero, zero, None if direction is None else zero)
    rows = row_losses(statistics, index, law, direction=direction, extra=zero)
    return rows.numerator.requires_grad or rows.weight.requires_grad


def folded(head: Head, law: Law, index: Tensor) -> tuple[Head, Law]:
    """The head and law with learnable scale, offset and temperature in the head: ``t_y (s_k (w_k . x + b_k) + o_k)`` is
    ``(s_k w_k) . (t_y x) + t_y (s_k b_k + o_k)``, a product with one more column where there is a temperature.

    Raises:
        InputError: a learnable temperature and offsets per pair of classes, which the temperature multiplies.
    """
    features, weight, bias = head
    if _learnable(law.scale) or _learnable(law.offset) or _learnable(law.temperature):
        if law.scale is not None:
            scale = law.scale.to(weight)
            weight, bias = weight * scale[:, None], None if bias is None else bias * scale
        if law.offset is not None:
            offset = law.offset.to(weight)
            bias = offset if bias is None else bias + offset
        law = replace(law, scale=None, offset=None)
    if law.temperature is not None and law.temperature.requires_grad:
        if law.pair_offset is not None:
            raise InputError(
                "a learnable temperature cannot be combined with offsets per pair of classes in the linear losses; "
                "detach the temperature, or use the loss on logits"
            )
        by_row = law.temperature.to(features)[index][:, None]
        features, law = features * by_row, replace(law, temperature=None)
        if bias is not None:
            features, weight = torch.cat([features, by_row], 1), torch.cat([weight, bias[:, None]], 1)
            bias = None
    return Head(features, weight, bias), law


def _learnable(x: Tensor | None) -> bool:
    return x is not None and x.requires_grad
