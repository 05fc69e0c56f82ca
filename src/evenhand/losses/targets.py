"""Targets and layouts: any shape in, (rows, classes) and (rows,) out, with every mistake named."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.rows import arithmetic, is_traced


class Layout(NamedTuple):
    """Logits with the classes last, and how to put per-row results back into the target's shape."""

    logits: Tensor
    positions: tuple[int, ...]


class IndexTarget(NamedTuple):
    """Class indices that can be gathered with.

    Attributes:
        classes: (N,) int64 in [0, K); 0 where a row is ignored.
        counted: (N,) bool, or None where it is known that no row is ignored.
    """

    classes: Tensor
    counted: Tensor | None


def check_tensors(logits: object, target: object) -> None:
    """Refuse arrays and lists, which have no gradient, and tensors on two devices.

    Raises:
        InputError: something else than tensors, or not beside each other.
    """
    if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
        check_tensor("logits", logits)
        check_tensor("target", target)
    elif logits.device != target.device:
        raise InputError(
            f"expected logits and target on one device, got {logits.device} and {target.device}; move one with "
            "target.to(logits.device)"
        )


def check_tensor(name: str, value: object) -> None:
    """Refuse an argument that is no tensor.

    Raises:
        InputError: that.
    """
    if not isinstance(value, Tensor):
        advice = "pass its .weight" if hasattr(value, "weight") else "use torch.as_tensor"
        raise InputError(f"expected {name} to be a torch tensor, got {type(value).__name__}; {advice}")


def is_distributed(logits: Tensor) -> bool:
    """Whether logits are a DTensor; asked without importing what is slow to import."""
    return hasattr(logits, "device_mesh")


def flatten_logits(logits: Tensor, class_dim: int = 1) -> Layout:
    """(N, K) logits from (K,), (N, K, d1, ...) or, with ``class_dim=-1``, (..., K).

    Raises:
        InputError: no floating-point numbers, no class axis, fewer than one class.
    """
    if not logits.is_floating_point():
        raise InputError(f"expected floating-point logits, got {logits.dtype}; pass the raw scores of the last layer")
    if logits.dim() == 0:
        raise InputError("expected logits with a class axis, got a single number; pass shape (N, K)")
    if logits.dim() == 1:
        return Layout(logits[None], ())
    if logits.dim() == 2 and class_dim in (1, -1) and logits.shape[1]:
        return Layout(logits, (len(logits),))
    try:
        last = logits.movedim(class_dim, -1)
    except IndexError:
        raise InputError(
            f"expected class_dim to be an axis of the logits of shape {tuple(logits.shape)}, got {class_dim}; "
            "it is 1 for (N, K, ...) and -1 for (..., K)"
        ) from None
    if last.shape[-1] == 0:
        raise InputError(f"expected at least one class, got logits of shape {tuple(logits.shape)}; pass shape (N, K)")
    return Layout(last.reshape(-1, last.shape[-1]), tuple(last.shape[:-1]))


def logits_shape(logits: Tensor, class_dim: int = 1) -> tuple[int, tuple[int, ...]]:
    """(K, shape of the target) of logits that :func:`flatten_logits` accepts."""
    if logits.dim() == 1:
        return logits.shape[0], ()
    shape = list(logits.shape)
    return shape.pop(class_dim), tuple(shape)


def index_target(
    target: Tensor, classes: int, positions: tuple[int, ...], ignore_index: int, *, traced: bool = False
) -> IndexTarget:
    """Flat class indices for K classes and a target of shape `positions`, checked.

    The range is checked on the CPU only: on a GPU the check would make the host wait, and the device stops by itself.

    Raises:
        InputError: not whole numbers, another shape than the logits', a label outside [0, K).
    """
    if target.dtype not in _INTEGERS:
        raise InputError(f"expected class indices of an integer type, got {target.dtype}; use target.long()")
    if tuple(target.shape) != positions:
        raise InputError(
            f"expected a target of shape {positions} for these logits, got {tuple(target.shape)}; "
            f"{_shape_advice(target, classes, positions)}"
        )
    flat = (target if target.dim() == 1 else target.reshape(-1)).long()
    if traced or flat.device.type != "cpu" or is_traced(flat):
        counted = flat != ignore_index
        return IndexTarget(flat.where(counted, 0), counted)
    if not len(flat) or _all_count(flat, classes, ignore_index):
        return IndexTarget(flat, None)
    counted = flat != ignore_index
    index = flat.where(counted, 0)
    low, high = (int(x) for x in index.aminmax())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        advice = f"give ignore_index={wrong} if these rows should not count"
        if high == classes and low >= int(counted.all()):
            advice = f"subtract 1 if classes are numbered from 1, or {advice}"
        if classes == 1:
            advice = "a network with one output per row answers yes or no: use losses.SigmoidLoss, or two outputs"
        raise InputError(f"expected labels in [0, {classes}) for {classes} classes, got {wrong}; {advice}")
    return IndexTarget(index, counted)


def _shape_advice(target: Tensor, classes: int, positions: tuple[int, ...]) -> str:
    """What somebody who gave whole numbers of another shape most likely meant."""
    rows = math.prod(positions)
    if 1 < target.numel() == rows * classes:
        return "give one-hot targets as floats, with target.float(), or class indices"
    if target.numel() == rows:
        return "reshape it with target.reshape(...)"
    return "classes are on axis 1 of (N, K, ...), or on the last axis with class_dim=-1"


def _all_count(flat: Tensor, classes: int, ignore_index: int) -> bool:
    """Whether one look at the extremes shows that every label is a class and none is ignored: the usual batch."""
    low, high = (int(x) for x in flat.aminmax())
    return low >= 0 and high < classes and not low <= ignore_index <= high


def soft_target(target: Tensor, layout: Layout, logits: Tensor, ignore_index: int, class_dim: int) -> Tensor:
    """(N, K) probabilities in the type of the arithmetic.

    Raises:
        InputError: another shape than the logits', rows to ignore, or (on the CPU) a negative entry.
    """
    if ignore_index >= 0:
        raise InputError(
            f"ignore_index={ignore_index} cannot be used with soft targets, which name no single class; give such rows "
            "sample_weight 0"
        )
    if target.shape != logits.shape:
        raise InputError(
            f"expected soft targets of the logits' shape {tuple(logits.shape)}, got {tuple(target.shape)}; give one "
            "probability per class, or class indices of an integer type"
        )
    if target.device.type == "cpu" and target.numel() and not (is_traced(target) or is_traced(logits)):
        least = float(target.detach().min())
        if least < 0:
            raise InputError(f"expected soft targets of 0 or more, got {least:g}; give probabilities, not scores")
    return flatten_logits(target, class_dim).logits.to(arithmetic(layout.logits))


def per_class(name: str, value: Tensor | None, classes: int) -> None:
    """Refuse a class-wise vector of another length."""
    if value is None:
        return
    check_tensor(name, value)
    if tuple(value.shape) != (classes,):
        raise InputError(
            f"expected {name} of shape ({classes},), one number per class of the logits, got {tuple(value.shape)}; "
            "check class_dim, or build the loss for this number of classes"
        )


def per_row(name: str, value: Tensor | None, positions: tuple[int, ...], like: Tensor) -> Tensor | None:
    """A row-wise argument, flat and in the type of the arithmetic."""
    if value is None:
        return None
    check_tensor(name, value)
    if tuple(value.shape) != positions:
        raise InputError(
            f"expected {name} of the target's shape {positions}, got {tuple(value.shape)}; give one number per row"
        )
    return value.reshape(-1).to(like.device, arithmetic(like))


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
