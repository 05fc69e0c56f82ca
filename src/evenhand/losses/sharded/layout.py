"""Where the classes and the rows of distributed logits lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch.distributed as dist
from torch import Tensor

from evenhand.declared import InputError


@dataclass(frozen=True)
class ClassShard:
    """The classes ``[first, first + K_r)`` out of K that this rank's block of logits holds.

    Attributes:
        first: the block's first class.
        classes: K, of all ranks together.
        group: the ranks that hold the other classes of the same rows; None if this rank has them all.
    """

    first: int
    classes: int
    group: dist.ProcessGroup | None

    @classmethod
    def of_rank(cls, classes: int, group: dist.ProcessGroup | None) -> tuple[Self, int]:
        """This rank's shard, and the number of its classes, when K classes are cut as ``torch.chunk`` and DTensor do.

        All ranks get ``ceil(K / ranks)`` classes, but the last ones fewer, or none.
        """
        ranks, rank = (1, 0) if group is None else (dist.get_world_size(group), dist.get_rank(group))
        first, size = chunk(classes, ranks, rank)
        return cls(first, classes, group), size


class Placed(NamedTuple):
    """This rank's block of the logits and what the other ranks hold.

    Attributes:
        block: (N, K_r), rows of this rank, differentiable.
        positions: shape of the target of these rows.
        shard: the classes of the block.
        row_groups: groups over which other rows of the batch are spread.
        mesh: of the DTensor, None for a plain block.
        placements: those that a row-wise DTensor needs to fit.
    """

    block: Tensor
    positions: tuple[int, ...]
    shard: ClassShard
    row_groups: tuple[dist.ProcessGroup, ...] = ()
    mesh: Any = None
    placements: Any = None

    def rows_of_this_rank(self, values: Tensor | None) -> Any:
        """A row-wise argument as a plain tensor: a DTensor is moved to where the rows are.

        Raises:
            InputError: a DTensor beside logits that are none.
        """
        if values is None or not hasattr(values, "device_mesh"):
            return values
        if self.mesh is None:
            raise InputError(
                "got a DTensor of row-wise values beside a plain block of logits; pass its local tensor, to_local()"
            )
        moved: Any = values
        return moved.redistribute(self.mesh, self.placements).to_local()


def place(logits: Tensor, shard: ClassShard | None, class_dim: int) -> Placed:
    """The rank's block from a DTensor, or from a plain block and its shard.

    Raises:
        InputError: no floating-point numbers; a plain block without shard, or one that does not fit; a DTensor of
            partial sums or with its classes on two mesh dimensions; a DTensor with a shard.
    """
    if not logits.is_floating_point():
        raise InputError(f"expected floating-point logits, got {logits.dtype}; pass the raw scores of the last layer")
    axis = class_axis(logits, class_dim)
    if hasattr(logits, "device_mesh"):
        if shard is not None:
            raise InputError("a DTensor knows its classes already; leave shard out, or pass its local tensor")
        return _of_dtensor(logits, axis)
    if shard is None:
        raise InputError("a plain block of logits needs shard=ClassShard(first, classes, group); or pass a DTensor")
    size = logits.shape[axis]
    if not 0 <= shard.first <= shard.first + size <= shard.classes:
        raise InputError(
            f"expected a block within {shard.classes} classes, got {size} classes from class {shard.first} on; check "
            "first and classes"
        )
    return Placed(*_flat(logits, axis), shard)


def class_axis(logits: Tensor, class_dim: int) -> int:
    """Axis of the classes, counted from the front; 0 for a single row.

    Raises:
        InputError: no such axis.
    """
    dims = logits.dim()
    if dims == 0 or (dims > 1 and not -dims <= class_dim < dims):
        raise InputError(
            f"expected class_dim to be an axis of the logits of shape {tuple(logits.shape)}, got {class_dim}; it is 1 "
            "for (N, K, ...) and -1 for (..., K)"
        )
    return 0 if dims == 1 else class_dim % dims


def chunk(classes: int, ranks: int, rank: int) -> tuple[int, int]:
    """(first, size) of a rank's part of the classes."""
    most = -(-classes // ranks)
    first = min(rank * most, classes)
    return first, min(most, classes - first)


def _of_dtensor(logits: Any, axis: int) -> Placed:
    from torch.distributed.tensor import Replicate, Shard

    mesh, placements = logits.device_mesh, logits.placements
    if any(type(p) not in (Shard, Replicate) for p in placements):
        raise InputError(
            f"expected logits that are sharded or replicated on every mesh dimension, got {placements}; redistribute "
            "partial sums first"
        )
    by_class = [i for i, p in enumerate(placements) if p.is_shard() and p.dim % logits.dim() == axis]
    by_row = [i for i, p in enumerate(placements) if p.is_shard() and i not in by_class]
    if len(by_class) > 1:
        raise InputError("expected the classes on one mesh dimension, got two; redistribute one of them to the rows")
    group = mesh.get_group(by_class[0]) if by_class else None
    shard, _ = ClassShard.of_rank(logits.shape[axis], group)
    block, positions = _flat(logits.to_local(), axis)
    fitting = [
        Shard(p.dim % logits.dim() - (p.dim % logits.dim() > axis)) if i in by_row else Replicate()
        for i, p in enumerate(placements)
    ]
    return Placed(block, positions, shard, tuple(mesh.get_group(i) for i in by_row), mesh, fitting)


def _flat(local: Tensor, axis: int) -> tuple[Tensor, tuple[int, ...]]:
    if local.dim() == 1:
        return local[None], ()
    last = local.movedim(axis, -1)
    positions = tuple(last.shape[:-1])
    rows = 1
    for length in positions:
        rows *= length
    return last.reshape(rows, last.shape[-1]), positions
