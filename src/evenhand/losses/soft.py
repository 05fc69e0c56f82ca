"""Soft targets: mixup, distillation, one-hot; elementwise, with the same value as class indices for the same labels."""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.law import Law
from evenhand.losses.reduction import RowLosses
from evenhand.losses.rows import arithmetic

_FARTHEST = 1e30


def soft_row_losses(
    logits: Tensor, target: Tensor, law: Law, sample_weight: Tensor | None = None, extra: Tensor | None = None
) -> RowLosses:
    """The law averaged over the target's classes: ``sum_k t_ik loss(z_i, k)``, with weight ``sum_k t_ik w_k``.

    torch divides a weighted mean over soft targets by the number of rows instead, so that a one-hot target and its
    index give different values there (pytorch issue 107680).

    Args:
        logits: (N, K). target: (N, K) shares, usually with sum 1. law: parameters. sample_weight: (N,).
        extra: (N,), for the shape.

    Raises:
        InputError: the law has a temperature, or offsets per pair of classes, which need one target class per row.
    """
    if law.temperature is not None or law.pair_offset is not None:
        raise InputError(
            "this loss treats the logits by the row's one target class and has no meaning for soft targets; pass class "
            "indices, or use another loss"
        )
    z = logits.to(arithmetic(logits))
    z = z if law.scale is None else z * law.scale.to(z)
    z = z if law.offset is None else z + law.offset.to(z)
    log_normaliser, nll, gap = _per_class(z, law)
    by_row = None if extra is None else extra[:, None]
    loss = nll if law.shape is None else law.shape(gap, torch.arange(z.shape[1], device=z.device), by_row)
    weighted = target if law.class_weight is None else target * law.class_weight.to(z)
    weight = weighted.sum(1)
    terms = _zero_where_absent(loss, weighted)
    terms = _smoothed(terms, z, weighted, target, log_normaliser, law)
    numerator = terms.sum(1)
    if law.z_loss:
        numerator = numerator + law.z_loss * (weighted * log_normaliser.square()).sum(1)
    if sample_weight is not None:
        numerator, weight = numerator * sample_weight, weight * sample_weight
    return RowLosses(numerator, weight, torch.ones_like(weight, dtype=torch.bool))


def _per_class(z: Tensor, law: Law) -> tuple[Tensor, Tensor, Tensor]:
    """Log-normaliser, nll and gap of every class as if it were the target, (N, K) or (N, 1)."""
    if law.margin is None and law.shape is None:
        log_normaliser = torch.logsumexp(z, 1, keepdim=True)
        nll = log_normaliser - z
        return log_normaliser, nll, nll
    nll = -torch.log_softmax(z, 1)
    safe = nll.clamp(min=torch.finfo(z.dtype).tiny, max=_FARTHEST)  # a masked class is infinitely far: 0 * inf is NaN
    gap = safe + torch.log(-torch.expm1(-safe))
    if law.margin is None:
        return torch.logsumexp(z, 1, keepdim=True), nll, gap
    margin = law.margin.to(z)
    gap = gap + margin
    nll = torch.nn.functional.softplus(gap, threshold=40.0)
    return z - margin + nll, nll, gap


def _zero_where_absent(loss: Tensor, share: Tensor) -> Tensor:
    """``loss * share``, 0 where the share is 0 even if the loss is infinite (a masked class)."""
    return torch.where(share == 0, torch.zeros_like(loss), loss) * share


def _smoothed(terms: Tensor, z: Tensor, weighted: Tensor, target: Tensor, log_normaliser: Tensor, law: Law) -> Tensor:
    classes = z.shape[1]
    share = law.label_smoothing.to(z) if isinstance(law.label_smoothing, Tensor) else law.label_smoothing
    direction = law.direction(classes, z)
    if direction is None:
        return terms
    mean = (z * direction).sum(1, keepdim=True)  # not a product of matrices: autocast would round it to half precision
    if law.margin is not None:
        mean = mean - law.margin.to(z) * direction
    mass = log_normaliser * direction.sum() - mean
    by_target = target if law.smoothing_mass == "weighted" else weighted
    return (1 - share) * terms + share * by_target * mass
