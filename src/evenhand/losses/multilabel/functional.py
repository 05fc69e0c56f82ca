"""Sigmoid losses as functions: per-row losses of multi-label targets, and their reduction."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.multilabel.law import SigmoidLaw, check_sigmoid_law
from evenhand.losses.multilabel.rows import summed_losses
from evenhand.losses.reduction import Empty, Reduction, RowLosses, check_choice, reduce
from evenhand.losses.rows import arithmetic, is_traced
from evenhand.losses.targets import check_tensors, flatten_logits

EntryDenominator = Literal["elements", "positives", "rows"]
PLAIN = SigmoidLaw()


class Entries(NamedTuple):
    """Logits and targets with the classes last.

    Attributes:
        logits: (N, K). target: (N, K), 0 where an entry is ignored.
        counted: (N, K) bool, or None where it is known that no entry is ignored.
        positions: shape of the rows in the caller's tensors.
    """

    logits: Tensor
    target: Tensor
    counted: Tensor | None
    positions: tuple[int, ...]


def sigmoid_cross_entropy(
    logits: Tensor,
    target: Tensor,
    law: SigmoidLaw = PLAIN,
    *,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = -1,
    class_dim: int = 1,
    reduction: Reduction = "mean",
    denominator: EntryDenominator | float | Tensor = "elements",
    empty: Empty = "zero",
) -> Tensor:
    """Any sigmoid loss of the family, reduced; plain, with float32 or float64 logits, it is torch's, bit for bit.

    Args:
        logits: (K,), (N, K), (N, K, d1, ...) or, with ``class_dim=-1``, (..., K) floats. Half precision is computed in
            float32.
        target: of the logits' shape, numbers in [0, 1] of any type, or `ignore_index`.
        law: the loss's parameters.
        sample_weight: one factor per row, of the logits' shape without the class axis; it multiplies numerator and
            denominator.
        ignore_index: target value of the entries that do not count, outside [0, 1]; None if there are none.
        class_dim: axis of the classes.
        reduction: ``mean``, ``sum`` or ``none`` (entry by entry, as torch does).
        denominator: of the mean: ``elements`` (entries that count, torch's meaning), ``positives`` (sum of the
            targets, the focal paper's; a batch without any is divided by 1), ``rows`` (rows with an entry that counts),
            or a number or 0-dim tensor, for instance the sum over all micro-batches.
        empty: mean of a batch in which nothing counts: ``zero`` (0, zero gradient) or ``nan`` (torch).

    Returns:
        0-dim tensor, or the logits' shape for ``reduction="none"``; float32, or float64 for float64 logits.

    Raises:
        InputError: shapes, types or names that do not fit, targets outside [0, 1].

    Example:
        >>> logits, target = torch.tensor([[3.0, -2.0, 0.0]]), torch.tensor([[1, 0, 1]])
        >>> round(sigmoid_cross_entropy(logits, target).item(), 4)
        0.2896
        >>> focal = SigmoidLaw(gamma_positive=2.0, gamma_negative=2.0)
        >>> round(sigmoid_cross_entropy(logits, target, focal, denominator="positives").item(), 4)
        0.0876
    """
    check_choice("reduction", reduction, get_args(Reduction))
    check_choice("empty", empty, get_args(Empty))
    if isinstance(denominator, str):
        check_choice("denominator", denominator, get_args(EntryDenominator))
    entries = flatten_entries(logits, target, ignore_index, class_dim)
    check_sigmoid_law(law, entries.logits.shape[1])
    usual = sample_weight is None and isinstance(denominator, str) and denominator == "elements"
    if usual and law.torch_can and _torch_takes(logits, entries, empty):
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction=reduction)
    if reduction == "none":
        return _entry_by_entry(entries, law, sample_weight, logits, class_dim)
    kind = denominator if isinstance(denominator, str) else "elements"
    rows = _row_losses(entries, law, sample_weight, kind)
    total = denominator if not isinstance(denominator, str) else rows.weight.sum()
    if kind == "positives" and isinstance(total, Tensor):
        total = torch.where(total == 0, torch.ones_like(total), total)
    return reduce(rows, reduction, denominator=total, empty=empty)


def sigmoid_row_losses(
    logits: Tensor,
    target: Tensor,
    law: SigmoidLaw = PLAIN,
    *,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = -1,
    class_dim: int = 1,
    denominator: EntryDenominator = "elements",
) -> RowLosses:
    """The losses before reduction: per row the sum over its classes, and what the row adds to the denominator.

    Arguments as :func:`sigmoid_cross_entropy`. Numerators and weights of micro-batches and ranks may be summed
    separately and divided once.

    Example:
        >>> rows = sigmoid_row_losses(torch.zeros(2, 3), torch.tensor([[1, 0, -1], [0, 0, 1]]))
        >>> rows.weight.tolist(), round(rows.numerator.sum().item() / rows.weight.sum().item(), 4)
        ([2.0, 3.0], 0.6931)
    """
    check_choice("denominator", denominator, get_args(EntryDenominator))
    entries = flatten_entries(logits, target, ignore_index, class_dim)
    check_sigmoid_law(law, entries.logits.shape[1])
    rows = _row_losses(entries, law, sample_weight, denominator)
    return RowLosses(*(x.reshape(entries.positions) for x in rows))


def flatten_entries(logits: Tensor, target: Tensor, ignore_index: int | None = -1, class_dim: int = 1) -> Entries:
    """(N, K) logits and targets, checked.

    The range is checked on the CPU only: on a GPU the check would make the host wait.

    Raises:
        InputError: another shape than the logits', complex targets, targets outside [0, 1], an ignore_index inside.
    """
    check_tensors(logits, target)
    layout = flatten_logits(logits, class_dim)
    if target.is_complex() or target.shape != logits.shape:
        raise InputError(
            f"expected one target in [0, 1] per logit, shape {tuple(logits.shape)}, got {target.dtype} of shape "
            f"{tuple(target.shape)}; turn class indices into columns with torch.nn.functional.one_hot"
        )
    if ignore_index is not None and 0 <= ignore_index <= 1:
        raise InputError(
            f"expected ignore_index outside [0, 1], the values of targets, got {ignore_index}; -1 is usual"
        )
    flat = _flat(target, class_dim)
    if ignore_index is None or target.dtype == torch.bool:
        _check_range(flat, None)
        return Entries(layout.logits, flat, None, layout.positions)
    counted = _counted(flat, ignore_index)
    return Entries(layout.logits, flat if counted is None else flat.where(counted, 0), counted, layout.positions)


def _flat(target: Tensor, class_dim: int) -> Tensor:
    if target.dim() == 1:
        return target[None]
    last = target.movedim(class_dim, -1)
    return last.reshape(-1, last.shape[-1])


def _counted(target: Tensor, ignore_index: int) -> Tensor | None:
    """Which entries count; None where all are seen to."""
    if target.device.type == "cpu" and not is_traced(target) and _in_range(target):
        return None
    counted = target != ignore_index
    _check_range(target, counted)
    return counted


def _check_range(target: Tensor, counted: Tensor | None) -> None:
    if target.dtype == torch.bool or target.device.type != "cpu" or is_traced(target):
        return
    checked = target if counted is None else target[counted]
    if not _in_range(checked):
        wrong = checked[~((checked >= 0) & (checked <= 1))][0].item()
        raise InputError(
            f"expected targets in [0, 1], got {wrong:g}; give ignore_index={wrong:g} if these entries should not count"
        )


def _in_range(target: Tensor) -> bool:
    if target.numel() == 0:
        return True
    low, high = target.detach().aminmax()
    return bool((low >= 0) & (high <= 1))


def _torch_takes(logits: Tensor, entries: Entries, empty: Empty) -> bool:
    return logits.element_size() >= 4 and entries.counted is None and (empty == "nan" or logits.numel() > 0)


def _row_losses(entries: Entries, law: SigmoidLaw, sample_weight: Tensor | None, kind: EntryDenominator) -> RowLosses:
    logits, target, counted, _ = entries
    numerator = summed_losses(logits, target, law, counted=counted)
    counts = torch.ones_like(numerator, dtype=torch.bool) if counted is None else counted.any(1)
    if kind == "positives":
        weight = target.detach().sum(1, dtype=numerator.dtype)
    elif kind == "rows":
        weight = counts.to(numerator.dtype)
    elif counted is None:
        weight = torch.full_like(numerator, logits.shape[1], requires_grad=False)
    else:
        weight = counted.sum(1).to(numerator.dtype)
    row = row_weight(sample_weight, entries)
    if row is not None:
        numerator, weight = numerator * row, weight * row
    return RowLosses(numerator, weight, counts)


def row_weight(sample_weight: Tensor | None, entries: Entries) -> Tensor | None:
    """Sample weights of the flat rows, (N,), in the type of the arithmetic.

    Raises:
        InputError: another shape than the rows'.
    """
    if sample_weight is None:
        return None
    if tuple(sample_weight.shape) != entries.positions:
        raise InputError(
            f"expected sample_weight of shape {entries.positions}, one number per row, got "
            f"{tuple(sample_weight.shape)}; weights by class belong into the law"
        )
    return sample_weight.reshape(-1).to(entries.logits.device, arithmetic(entries.logits))


def _entry_by_entry(
    entries: Entries, law: SigmoidLaw, sample_weight: Tensor | None, logits: Tensor, class_dim: int
) -> Tensor:
    loss = summed_losses(entries.logits, entries.target, law, counted=entries.counted, by_row=False)
    row = row_weight(sample_weight, entries)
    loss = loss if row is None else loss * row[:, None]
    if logits.dim() == 1:
        return loss[0]
    return loss.reshape(*entries.positions, loss.shape[1]).movedim(-1, class_dim)
