"""Training rows that batches are gathered from: dense features, token bags, sequences, or any torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from evenhand.counts import to_numpy
from evenhand.declared import InputError

CHECKED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PIECE = 1 << 22  # numbers that are looked at in one go


class Rows(Protocol):
    """What :func:`evenhand.training.fit` trains on: N rows with a target each."""

    @property
    def target(self) -> Tensor:
        """(N,) int64 classes."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def batch(self, index: Tensor) -> Any:
        """What the model is called with for the rows at these positions, (n,) int64."""
        ...


class Ragged(NamedTuple):
    """Rows of unequal length, one after the other.

    Attributes:
        values: (M,) int64 token ids or (M, D) float32 vectors, M the total length. start: (n,) int64, where each row
            begins; empty rows are allowed. weight: (M,) float32, of the tokens, or None.

    Example:
        >>> bags = Ragged(torch.tensor([7, 8, 9]), torch.tensor([0, 2, 2]))
        >>> bags.lengths.tolist(), bags.take(torch.tensor([2, 0])).values.tolist()
        ([2, 0, 1], [9, 7, 8])
    """

    values: Tensor
    start: Tensor
    weight: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """(n,) int64 entries per row."""
        end = torch.cat([self.start[1:], self.start.new_tensor([len(self.values)])])
        return end - self.start

    def take(self, index: Tensor) -> Ragged:
        """The rows at these positions."""
        lengths = self.lengths[index]
        end = lengths.cumsum(0)
        start = end - lengths
        within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(start, lengths)
        place = torch.repeat_interleave(self.start[index], lengths) + within
        return Ragged(self.values[place], start, None if self.weight is None else self.weight[place])

    def to(self, device: torch.device) -> Ragged:
        """On another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return Ragged(self.values.to(device), self.start.to(device), weight)


class Inputs(NamedTuple):
    """One batch for the built-in models; parts that the data do not have are None.

    Attributes:
        dense: (n, D) float32. tokens: bags of token ids. sequence: sequences of vectors.
    """

    dense: Tensor | None = None
    tokens: Ragged | None = None
    sequence: Ragged | None = None

    def to(self, device: torch.device) -> Inputs:
        """On another device."""
        dense, tokens, sequence = self
        return Inputs(
            None if dense is None else dense.to(device),
            None if tokens is None else tokens.to(device),
            None if sequence is None else sequence.to(device),
        )


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Rows that lie in one tensor: ``inputs[i]`` belongs to ``target[i]``.

    Args:
        inputs: (N, ...) of any type. target: (N,) int64.
    """

    inputs: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: Tensor) -> Tensor:
        """(n, ...)."""
        return self.inputs.index_select(0, index)


@dataclass(frozen=True, eq=False)
class TableRows:
    """Rows of a table for the built-in models.

    Args:
        inputs: the parts, all of N rows. target: (N,) int64. buckets: number of token ids, 0 without tokens.
        class_names: (K,) for notes, or None.
    """

    inputs: Inputs
    target: Tensor
    buckets: int = 0
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: Tensor) -> Inputs:
        """The parts at these positions."""
        dense, tokens, sequence = self.inputs
        return Inputs(
            None if dense is None else dense[index],
            None if tokens is None else tokens.take(index),
            None if sequence is None else sequence.take(index),
        )

    def take(self, index: Tensor) -> TableRows:
        """The rows at these positions, as rows of their own."""
        return TableRows(self.batch(index), self.target[index], self.buckets, self.class_names)


@dataclass(frozen=True, eq=False)
class DatasetRows:
    """Rows of a map-style torch data set whose items are ``(input, class)``, collated as torch's loader does.

    Args:
        dataset: has ``__len__`` and ``__getitem__``. target: (N,) int64, the classes of all items in order.
    """

    dataset: Any
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: Tensor) -> Any:
        """The collated inputs."""
        return default_collate([self.dataset[i][0] for i in index.tolist()])


@dataclass(frozen=True, eq=False)
class PickedRows:
    """Some rows of others.

    Args:
        rows: the others. index: (n,) int64 positions.
    """

    rows: Rows
    index: Tensor

    @property
    def target(self) -> Tensor:
        """(n,) int64 classes."""
        return self.rows.target[self.index]

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, index: Tensor) -> Any:
        """What the others give for the rows at these positions."""
        return self.rows.batch(self.index[index])


def as_rows(data: Any) -> Rows:
    """Rows out of what a user has.

    Args:
        data: rows already, a pair ``(inputs, target)`` of tensors or arrays (float64 arrays, not tensors, become
            torch's default type), or a torch data set of (input, class).
            A data set with ``targets`` or ``tensors`` tells its classes without being read through.

    Raises:
        InputError: lengths differ, no row, targets that are no whole numbers of 0 or more.

    Example:
        >>> len(as_rows((torch.zeros(3, 2), [0, 1, 1])))
        3
    """
    if hasattr(data, "batch") and hasattr(data, "target"):
        rows: Rows = data
        return rows
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple):
        inputs = data[0] if isinstance(data[0], Tensor) else torch.as_tensor(np.asarray(data[0]))
        if inputs is not data[0] and inputs.dtype is torch.float64:
            inputs = inputs.to(torch.get_default_dtype())  # NumPy's usual floats are not those of a network
        return TensorRows(inputs, as_target(data[1], len(inputs)))
    if isinstance(data, (Tensor, np.ndarray)):
        raise InputError(
            f"expected (inputs, target) or a torch data set, got an array {tuple(data.shape)}; give the classes too"
        )
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError(
            f"expected (inputs, target) or a torch data set with a length, got {type(data).__name__}; an iterable data "
            "set cannot be drawn from by class"
        )
    known = getattr(data, "targets", None)
    if known is None and hasattr(data, "tensors"):
        known = data.tensors[-1]
    return DatasetRows(data, as_target(_read_classes(data) if known is None else known, len(data)))


def require_finite(rows: Rows, which: str) -> None:
    """Refuse NaN and infinite inputs where they lie in one tensor; other rows are not read through.

    Raises:
        InputError: how many rows have them, and the first.
    """
    if not isinstance(rows, TensorRows) or rows.inputs.dtype not in CHECKED or rows.inputs.layout != torch.strided:
        return
    width = max(1, rows.inputs[:1].numel())
    pieces = torch.split(rows.inputs, max(1, PIECE // width))  # not a second copy of all inputs
    odd = torch.cat([~torch.isfinite(piece).reshape(len(piece), -1).all(1).cpu() for piece in pieces])
    found = odd.nonzero()[:, 0]
    if len(found):
        raise InputError(
            f"expected finite inputs, but {len(found):,} of the {len(rows):,} {which} rows "
            f"{'holds' if len(found) == 1 else 'hold'} NaN or infinite numbers, the first is row {int(found[0]):,} "
            "(counted from 0); fill them or leave those rows out"
        )


def _read_classes(data: Any) -> Sequence[Any]:
    return [int(data[i][1]) for i in range(len(data))]


def as_target(values: Any, rows: int) -> Tensor:
    """(N,) int64 classes, checked.

    Raises:
        InputError: another length, none, fractions or negative numbers.
    """
    array = to_numpy(values)
    if array.shape != (rows,):
        raise InputError(f"expected one class for each of the {rows:,} rows, got shape {array.shape}; give one per row")
    if not rows:
        raise InputError("expected at least one row, got none; check what was read")
    if array.dtype.kind not in "iu":
        raise InputError(f"expected classes as whole numbers, got {array.dtype}; number the classes from 0")
    if int(array.min()) < 0:
        raise InputError(f"expected classes of 0 or more, got {int(array.min())}; leave ignored rows out")
    return torch.from_numpy(array.astype(np.int64))
