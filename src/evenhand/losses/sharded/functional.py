"""Softmax losses of class-sharded heads: every rank holds the logits of some classes, nobody holds them all.

Per step the ranks exchange one maximum and two or three sums per row, forward; nothing backward. The gradient of the
features is summed by the head itself, see :class:`torch.distributed.tensor.parallel.ColwiseParallel`.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.law import PLAIN, Law, check_law, row_losses
from evenhand.losses.reduction import Denominator, Empty, Reduction, RowLosses, check_choice, divide
from evenhand.losses.rows import arithmetic
from evenhand.losses.sharded.layout import ClassShard, Placed, place
from evenhand.losses.sharded.rows import add_over_ranks, sharded_statistics
from evenhand.losses.targets import index_target, per_row


def sharded_cross_entropy(
    logits: Tensor,
    target: Tensor,
    law: Law = PLAIN,
    *,
    shard: ClassShard | None = None,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
    ignore_index: int = -100,
    class_dim: int = -1,
    reduction: Reduction = "mean",
    denominator: Denominator | float | Tensor = "weights",
    empty: Empty = "zero",
) -> Tensor:
    """Any softmax loss of the family from class shards; the value and the gradient of the unsharded loss.

    Loss modules call it by themselves when they are given a DTensor: ``criterion(logits, target)`` is all it takes.

    Args:
        logits: a DTensor with the classes sharded over one mesh dimension, evenly or not, and rows split or repeated
            over the others; or this rank's block, (N, K_r) or (..., K_r), with `shard`.
        target: class indices in [0, K), the rows of this rank, the same on all ranks of the class group; or a DTensor.
        law: the loss's parameters; class-wise vectors whole, (K,), on every rank.
        shard: which classes a plain block holds. Not needed for a DTensor.
        sample_weight, extra: one number per row of this rank.
        ignore_index: target value whose rows do not count.
        class_dim: axis of the classes.
        reduction, empty: as in :func:`evenhand.losses.reduce`. ``none`` returns the rows of this rank.
        denominator: as in :func:`evenhand.losses.reduce`. Where a DTensor's rows are split over a mesh dimension,
            numerators and denominators are summed over it apart and divided once. A number is taken as it is.

    Returns:
        A plain tensor, the same on all ranks for ``mean`` and ``sum``. Gradients arrive where the logits come from;
        over split rows they must be added, as DTensor parameters do, not averaged.

    Raises:
        InputError: shapes, placements or names that do not fit, labels out of range, soft targets, offsets per pair of
            classes other than those of seesaw, SEQL and GCL.

    Limits:
        First derivatives only. Noise of SEQL and GCL is drawn by each rank for its own classes: give their generators
        another seed on every rank.

    Example:
        >>> block, target = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([2])
        >>> whole = ClassShard(first=0, classes=3, group=None)  # one rank that has all classes
        >>> round(sharded_cross_entropy(block, target, shard=whole).item(), 6)
        1.407606
    """
    check_choice("reduction", reduction, get_args(Reduction))
    placed = place(logits, shard, class_dim)
    rows = _rows(placed, target, law, sample_weight, extra, ignore_index)
    if reduction == "none":
        return rows.numerator
    numerator = rows.numerator.sum()
    if reduction == "sum":
        return add_over_ranks(numerator, placed.row_groups)
    if isinstance(denominator, str):
        check_choice("denominator", denominator, get_args(Denominator))
        both = add_over_ranks(torch.stack([numerator, rows.denominator(denominator)]), placed.row_groups)
        return divide(both[0], both[1], empty)
    total = torch.as_tensor(denominator, dtype=numerator.dtype, device=numerator.device)
    return divide(add_over_ranks(numerator, placed.row_groups), total, empty)


def sharded_losses_by_row(
    logits: Tensor,
    target: Tensor,
    law: Law = PLAIN,
    *,
    shard: ClassShard | None = None,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
    ignore_index: int = -100,
    class_dim: int = -1,
) -> RowLosses:
    """The losses of this rank's rows before reduction; arguments as :func:`sharded_cross_entropy`.

    Example:
        >>> whole = ClassShard(first=0, classes=2, group=None)
        >>> weighted = Law(class_weight=torch.tensor([0.5, 4.0]))
        >>> rows = sharded_losses_by_row(torch.zeros(2, 2), torch.tensor([0, 1]), weighted, shard=whole)
        >>> rows.weight.tolist()
        [0.5, 4.0]
    """
    return _rows(place(logits, shard, class_dim), target, law, sample_weight, extra, ignore_index)


def _rows(
    placed: Placed, target: Tensor, law: Law, sample_weight: Tensor | None, extra: Tensor | None, ignore_index: int
) -> RowLosses:
    block, shard, positions = placed.block, placed.shard, placed.positions
    check_law(law, shard.classes)
    local: Any = placed.rows_of_this_rank(target)
    if local.is_floating_point():
        raise InputError(
            "class-sharded losses expect class indices, got soft targets; pass the index of each row's class as int64"
        )
    index, counted = index_target(local, shard.classes, positions, ignore_index)
    direction = law.direction(shard.classes, block.new_empty(0, dtype=arithmetic(block)))
    rows = row_losses(
        sharded_statistics(block, index, law, shard, direction),
        index,
        law,
        direction=direction,
        counted=counted,
        sample_weight=per_row("sample_weight", placed.rows_of_this_rank(sample_weight), positions, block),
        extra=per_row("extra", placed.rows_of_this_rank(extra), positions, block),
    )
    return RowLosses(*(x.reshape(positions) for x in rows))
