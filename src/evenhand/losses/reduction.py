"""Per-row losses and their reduction: numerator and denominator stay apart until the very end."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from evenhand.declared import InputError

Reduction = Literal["mean", "sum", "none"]
Denominator = Literal["weights", "count"]
Empty = Literal["zero", "nan"]


class RowLosses(NamedTuple):
    """Losses before reduction, one entry per row (or per position of a dense prediction).

    Statistics that add: the numerators and the denominators of micro-batches, ranks and class shards may be summed
    separately and divided once, which is the exact mean over all of them. A mean of means is not.

    Attributes:
        numerator: omega_i * loss_i in nats, 0 where the row is ignored.
        weight: what the row adds to the denominator: class weight times sample weight, 0 where it is ignored.
        counted: bool, False where the row is ignored.
    """

    numerator: Tensor
    weight: Tensor
    counted: Tensor

    def denominator(self, kind: Denominator = "weights") -> Tensor:
        """0-dim tensor: the sum of the weights, or the number of rows that count."""
        return self.weight.sum() if kind == "weights" else self.counted.sum().to(self.weight.dtype)


def reduce(
    rows: RowLosses,
    reduction: Reduction = "mean",
    *,
    denominator: Denominator | float | Tensor = "weights",
    empty: Empty = "zero",
) -> Tensor:
    """``sum(numerator) / D``, the sum alone, or the rows themselves.

    Args:
        rows: what a loss returned before reduction.
        reduction: ``mean``, ``sum`` or ``none``.
        denominator: D of the mean: ``weights`` (the sum of the rows' weights, torch's meaning), ``count`` (the rows
            that are not ignored), or a positive number or 0-dim tensor: for instance the sum of the weights of all
            micro-batches, or the expected weight of a batch.
        empty: the mean when D is 0, as in a batch where every row is ignored: ``zero`` (0 with zero gradient) or
            ``nan`` (torch's answer).

    Returns:
        0-dim tensor for ``mean`` and ``sum``, the shape of the target for ``none``; float32, or float64 if the logits
        were.

    Raises:
        InputError: another name for the reduction, the denominator or the empty batch.

    Example:
        >>> import torch
        >>> rows = RowLosses(torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0]), torch.tensor([True, True]))
        >>> reduce(rows).item(), reduce(rows, denominator="count").item(), reduce(rows, "sum").item()
        (2.0, 4.0, 8.0)
    """
    check_choice("reduction", reduction, get_args(Reduction))
    if reduction == "none":
        return rows.numerator
    total = rows.numerator.sum()
    if reduction == "sum":
        return total
    return divide(total, as_denominator(rows, denominator), empty)


def divide(total: Tensor, denominator: Tensor, empty: Empty = "zero") -> Tensor:
    """``total / denominator``; where the denominator is 0, 0 with zero gradient, or NaN on request."""
    check_choice("empty", empty, get_args(Empty))
    if empty == "nan":
        return total / denominator
    none = denominator == 0  # where(), not `if`: asking a GPU tensor for its truth would make the host wait
    return torch.where(none, total * 0.0, total / torch.where(none, torch.ones_like(denominator), denominator))


def as_denominator(rows: RowLosses, denominator: Denominator | float | Tensor) -> Tensor:
    """The denominator as a 0-dim tensor beside the numerators."""
    if isinstance(denominator, str):
        check_choice("denominator", denominator, get_args(Denominator))
        return rows.denominator(denominator)
    return torch.as_tensor(denominator, dtype=rows.numerator.dtype, device=rows.numerator.device)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the choices."""
    if value not in choices:
        raise InputError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}; choose one of them")
