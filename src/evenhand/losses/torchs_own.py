"""torch's own cross-entropy for the laws that it has, without its NaN for batches in which nothing counts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.losses.law import Law, check_smoothing
from evenhand.losses.reduction import Empty, Reduction, divide
from evenhand.losses.rows import is_traced
from evenhand.losses.targets import index_target, logits_shape


def torch_takes(logits: Tensor, target: Tensor, law: Law, class_dim: int) -> bool:
    """Whether torch has the law, the target holds class indices, the logits are float32 or float64 with the classes
    where torch looks for them, and the weights fit."""
    if not law.torch_can or target.dtype != torch.int64:
        return False
    dims = logits.dim()
    usual = logits.is_floating_point() and logits.element_size() >= 4
    placed = dims == 1 or class_dim in ((1, -1) if dims == 2 else (1,))
    weight = law.class_weight  # torch has no gradient for it
    fits = weight is None or (
        isinstance(weight, Tensor) and len(weight) == logits.shape[min(1, dims - 1)] and not weight.requires_grad
    )
    return usual and dims > 0 and placed and fits and check_smoothing(law)


def torchs_loss(
    logits: Tensor, target: Tensor, law: Law, ignore_index: int, reduction: Reduction, empty: Empty
) -> Tensor:
    """The reduced loss of what :func:`torch_takes`.

    Raises:
        InputError: a target of another shape than the logits', labels out of range.
    """
    weight = None if law.class_weight is None else law.class_weight.to(logits.device, logits.dtype)
    options: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "label_smoothing": float(law.label_smoothing),
    }
    if logits.device.type != "cpu" or is_traced(logits) or is_traced(target):
        return _unread(logits, target, reduction, empty, options)
    try:
        loss = F.cross_entropy(logits, target, reduction=reduction, **options)
    except (IndexError, RuntimeError, ValueError):
        index_target(target, *logits_shape(logits), ignore_index)  # says what is wrong with the target, if that is it
        raise
    # a number that lies on the CPU can be read: looking for rows that count before the loss takes a tenth of its time
    if reduction == "mean" and empty == "zero" and loss.item() != loss.item():
        return _unread(logits, target, reduction, empty, options)
    return loss


def _unread(logits: Tensor, target: Tensor, reduction: Reduction, empty: Empty, options: dict[str, Any]) -> Tensor:
    """The loss where no value can be looked at, or where torch's mean is NaN."""
    weight = options["weight"]
    index, counted = index_target(target, *logits_shape(logits), options["ignore_index"], traced=is_traced(logits))
    if reduction != "mean" or empty == "nan":
        return F.cross_entropy(logits, target, reduction=reduction, **options)
    if weight is None:
        mean = F.cross_entropy(logits, target, **options)
        return mean if counted is None and len(index) else torch.where(_any(counted), mean, torch.zeros_like(mean))
    # torch's own weighted mean has a NaN gradient where all weights of the batch are 0
    total = F.cross_entropy(logits, target, reduction="sum", **options)
    rows = weight[index]
    return divide(total, (rows if counted is None else rows.where(counted, 0.0)).sum(), empty)


def _any(counted: Tensor | None) -> Tensor:
    return torch.tensor(False) if counted is None else counted.any()
