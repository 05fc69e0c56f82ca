"""What features, classifier weight and bias must be for the linear losses, each mistake in one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.counting import Counting
from evenhand.losses.linear.chunks import Head
from evenhand.losses.targets import check_tensor


def check_head(head: Head, target: Tensor, step: int | None, counting: Counting | None) -> tuple[int, ...]:
    """The shape of the target.

    Raises:
        InputError: shapes, types or devices that do not fit together, soft targets, no rows per chunk.
    """
    features, weight, bias = head
    for name, value in (("features", features), ("weight", weight), ("target", target)):
        check_tensor(name, value)
    if bias is not None:
        check_tensor("bias", bias)
    _check_shapes(features, weight, bias)
    _check_types(features, weight, bias)
    positions = tuple(features.shape[:-1])
    if target.is_floating_point():
        raise InputError(
            f"expected class indices, got soft targets of type {target.dtype}; the linear losses would have to hold "
            "targets as large as the logits: use the loss on logits"
        )
    if tuple(target.shape) != positions:
        raise InputError(
            f"expected a target of shape {positions}, one class per vector of features, got {tuple(target.shape)}; "
            "features are (..., D) and the target is (...)"
        )
    devices = {str(x.device) for x in (features, weight, bias, target) if x is not None}
    if len(devices) > 1:
        raise InputError(
            f"expected features, weight, bias and target on one device, got {' and '.join(sorted(devices))}; move them "
            "with .to(features.device)"
        )
    if step is not None and step < 1:
        raise InputError(f"expected chunk_rows to be at least 1, got {step}; leave it out for the built-in rule")
    if counting is not None and counting.classes != len(weight):
        raise InputError(
            f"expected counting for {len(weight)} classes, one per row of weight, got one for {counting.classes}; "
            f"use Counting({len(weight)})"
        )
    return positions


def product_type(features: Tensor) -> torch.dtype:
    """Type of the matrix products: autocast's where it is on."""
    return torch.get_autocast_dtype(features.device.type) if _is_autocast(features) else features.dtype


def _check_shapes(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or not len(weight):
        raise InputError(
            f"expected weight of shape (K, D), one row per class, got {tuple(weight.shape)}; pass linear.weight"
        )
    if features.dim() < 1 or features.shape[-1] != weight.shape[1]:
        raise InputError(
            f"expected features of shape (..., {weight.shape[1]}) for a weight of shape {tuple(weight.shape)}, got "
            f"{tuple(features.shape)}; pass what the last layer takes, not logits"
        )
    if bias is not None and tuple(bias.shape) != (len(weight),):
        raise InputError(
            f"expected bias of shape ({len(weight)},), one number per class, got {tuple(bias.shape)}; pass linear.bias"
        )


def _is_autocast(features: Tensor) -> bool:
    return torch.is_autocast_enabled(features.device.type) and features.dtype != torch.float64


def _check_types(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for name, x in (("features", features), ("weight", weight), ("bias", bias)):
        if x is not None and not x.is_floating_point():
            raise InputError(f"expected floating-point {name}, got {x.dtype}; convert with .float()")
    if not _is_autocast(features) and features.dtype != weight.dtype:
        raise InputError(
            f"expected features and weight of one type, got {features.dtype} and {weight.dtype}; convert one of them, "
            "or call the loss inside torch.autocast"
        )
