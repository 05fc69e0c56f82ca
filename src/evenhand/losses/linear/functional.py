"""The losses from features and classifier weight, without the N x K logits.

The last layer and the loss in one: a chunk of rows at a time, its logits are computed, used for the loss and its
gradient, and overwritten. With many classes the logits, and not the network, are what fills the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.losses.counting import Counting
from evenhand.losses.functional import cross_entropy, losses_by_row
from evenhand.losses.law import PLAIN, Law, check_law
from evenhand.losses.linear.autograd import Goal, reduced_loss, row_statistics
from evenhand.losses.linear.checks import check_head, product_type
from evenhand.losses.linear.chunks import Head, Task, random_state, rows_per_chunk
from evenhand.losses.linear.fold import folded, is_learned
from evenhand.losses.reduction import (
    Denominator,
    Empty,
    Reduction,
    RowLosses,
    as_denominator,
    check_choice,
    reduce,
)
from evenhand.losses.rows import arithmetic, is_traced
from evenhand.losses.targets import index_target, per_row

P = ParamSpec("P")
R = TypeVar("R")


def _outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """torch.compile calls the function as it is: its loops are made for the numbers of rows and classes they meet."""
    return torch.compiler.disable(function)  # type: ignore[no-any-return, no-untyped-call]


@_outside_graphs
def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    law: Law = PLAIN,
    *,
    bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    denominator: Denominator | float | Tensor = "weights",
    empty: Empty = "zero",
    chunk_rows: int | None = None,
    counting: Counting | None = None,
) -> Tensor:
    """``cross_entropy(F.linear(features, weight, bias), target, law, ...)`` without holding the logits.

    The gradient of a mean or sum is computed together with the loss, from logits that are then overwritten: three
    matrix products as for dense logits, and no second pass. Without reduction, and where the law itself is being
    learned, the backward pass computes the logits again: four products.

    Args:
        features: (..., D) floats, what the last layer takes.
        weight: (K, D), the last layer's, of the features' type (under autocast of any).
        target: (...) class indices of an integer type.
        law: the loss's parameters. Learnable scale, offset and temperature are moved into the classifier, which takes a
            copy of its size; without reduction offsets per pair of classes are drawn twice, from the same random
            numbers.
        bias: (K,) or None.
        sample_weight, extra: one number per row, of the target's shape, as in :func:`cross_entropy`.
        ignore_index, reduction, denominator, empty: as in :func:`cross_entropy`.
        chunk_rows: rows whose logits are held at once, or None for a rule made for many classes: at least 128.
        counting: :class:`Counting` that sees every row's target, the class of its largest logit (before the law), and
            its loss.

    Returns:
        0-dim tensor, or the target's shape for ``reduction="none"``; float32, or float64 for float64 features.

    Raises:
        InputError: shapes, types, devices or names that do not fit, labels out of range, soft targets.

    Differentiating the gradient again, and ``torch.func`` transforms, are possible but hold the logits.
    ``torch.compile`` leaves its graph for this call.

    Example:
        >>> features, head = torch.ones(4, 2), torch.nn.Linear(2, 3)
        >>> target = torch.tensor([0, 1, 2, 2])
        >>> loss = linear_cross_entropy(features, head.weight, target, bias=head.bias)
        >>> torch.allclose(loss, F.cross_entropy(head(features), target))
        True
    """
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    return _reduced(
        Head(features, weight, bias),
        target,
        law,
        sample_weight=sample_weight,
        extra=extra,
        ignore_index=ignore_index,
        reduction=reduction,
        denominator=denominator,
        empty=empty,
        step=chunk_rows,
        counting=counting,
    )


@_outside_graphs
def linear_nll(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    offset: Tensor | None = None,
    scale: Tensor | None = None,
    margin: Tensor | None = None,
    temperature: Tensor | None = None,
    ignore_index: int = -100,
    chunk_rows: int | None = None,
) -> Tensor:
    """``nll(F.linear(features, weight, bias), target, ...)``, per row, without holding the logits.

    Args:
        features, weight, target, bias, chunk_rows: as in :func:`linear_cross_entropy`.
        offset, scale, margin, temperature, ignore_index: as in :func:`nll`.

    Returns:
        Nats, of the target's shape; float32, or float64 for float64 features.

    Raises:
        InputError: as :func:`linear_cross_entropy`.

    Example:
        >>> features, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> [round(x, 4) for x in linear_nll(features, weight, torch.tensor([1])).tolist()]
        [2.1269]
    """
    law = Law(scale=scale, offset=offset, margin=margin, temperature=temperature)
    options: dict[str, Any] = {"bias": bias, "ignore_index": ignore_index, "chunk_rows": chunk_rows}
    return linear_rows(features, weight, target, law, **options).numerator


@_outside_graphs
def linear_rows(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    law: Law = PLAIN,
    *,
    bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
    ignore_index: int = -100,
    chunk_rows: int | None = None,
    counting: Counting | None = None,
) -> RowLosses:
    """The losses before reduction, numerators and weights in the target's shape.

    Args:
        features, weight, target, law, bias, sample_weight, extra, ignore_index, chunk_rows, counting: as in
            :func:`linear_cross_entropy`.

    Raises:
        InputError: as :func:`linear_cross_entropy`.

    Example:
        >>> rows = linear_rows(torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, -100]))
        >>> [round(x, 4) for x in rows.numerator.tolist()], rows.weight.tolist(), rows.counted.tolist()
        ([1.3863, 0.0], [1.0, 0.0], [True, False])
    """
    return _rows(
        Head(features, weight, bias),
        target,
        law,
        sample_weight=sample_weight,
        extra=extra,
        ignore_index=ignore_index,
        step=chunk_rows,
        counting=counting,
    )


def _reduced(
    head: Head,
    target: Tensor,
    law: Law,
    *,
    reduction: Reduction,
    denominator: Denominator | float | Tensor,
    empty: Empty,
    step: int | None,
    counting: Counting | None,
    **options: Any,
) -> Tensor:
    positions = check_head(head, target, step, counting)
    check_law(law, len(head.weight))
    if _is_foreign(head) and counting is None:
        named: dict[str, Any] = {"reduction": reduction, "denominator": denominator, "empty": empty}
        return cross_entropy(F.linear(*head), target, law, class_dim=-1, **named, **options)
    if not _is_foreign(head):
        flat, task = _task(head, target, law, positions, step=step, counting=counting, **options)
        goal = None if reduction == "none" else _goal(flat, task, law, reduction, denominator, empty)
        if goal is not None:
            loss, rows = reduced_loss(flat, task, goal)
            _count(counting, task, rows)
            return loss
    every = _rows(head, target, law, step=step, counting=counting, **options)
    return reduce(every, reduction, denominator=denominator, empty=empty)


def _rows(
    head: Head, target: Tensor, law: Law, *, step: int | None, counting: Counting | None, **options: Any
) -> RowLosses:
    positions = check_head(head, target, step, counting)
    check_law(law, len(head.weight))
    if _is_foreign(head):
        return _dense_rows(head, target, law, counting=counting, **options)
    flat, task = _task(head, target, law, positions, step=step, counting=counting, **options)
    direction = task.law.direction(len(head.weight), flat.features.new_empty(0, dtype=arithmetic_of(task)))
    rows = task.losses(row_statistics(flat, task), direction)
    _count(counting, task, rows)
    return RowLosses(*(x.reshape(positions) for x in rows))


def _goal(
    flat: Head, task: Task, law: Law, reduction: Reduction, denominator: Denominator | float | Tensor, empty: Empty
) -> Goal | None:
    """How to reduce, if the gradient can be made in the forward pass: None where something else than the head learns,
    or nothing does."""
    like = flat.features.new_empty(0, dtype=arithmetic_of(task))
    check_choice("empty", empty, ("zero", "nan"))
    row_wise = (task.sample_weight, task.extra, denominator if isinstance(denominator, Tensor) else None)
    if not any(task.wanted) or is_learned(law, *row_wise, classes=len(flat.weight), like=like):
        return None
    weight = like.new_ones(len(task.index)) if law.class_weight is None else law.class_weight.to(like)[task.index]
    weight = weight if task.sample_weight is None else weight * task.sample_weight
    counted = torch.ones_like(task.index, dtype=torch.bool) if task.counted is None else task.counted
    rows = RowLosses(weight, weight.where(counted, 0.0), counted)
    return Goal(reduction, as_denominator(rows, denominator), empty)


def _task(
    head: Head,
    target: Tensor,
    law: Law,
    positions: tuple[int, ...],
    *,
    sample_weight: Tensor | None,
    extra: Tensor | None,
    ignore_index: int,
    step: int | None,
    counting: Counting | None,
) -> tuple[Head, Task]:
    """Flat rows, checked, and everything that is done with them."""
    features, weight, bias = head
    index, counted = index_target(target, len(weight), positions, ignore_index)
    flat, law = folded(Head(features.reshape(-1, features.shape[-1]), weight, bias), law, index)
    compute = product_type(features)
    cell = torch.empty((), dtype=compute).element_size()
    learning = torch.is_grad_enabled()
    wanted = tuple(learning and x is not None and x.requires_grad for x in flat)
    like = features.new_empty(0, dtype=compute)
    task = Task(
        law=law,
        index=index,
        counted=counted,
        sample_weight=per_row("sample_weight", sample_weight, positions, like),
        extra=per_row("extra", extra, positions, like),
        step=step or rows_per_chunk(len(index), len(weight), cell, on_cpu=features.device.type == "cpu"),
        compute=compute,
        wanted=(wanted[0], wanted[1], wanted[2]),
        predicted=None if counting is None else torch.empty_like(index),
        random=random_state(law, features.device),
    )
    return flat, task


def arithmetic_of(task: Task) -> torch.dtype:
    """Type of the row statistics and losses."""
    return arithmetic(torch.empty(0, dtype=task.compute))


def _count(counting: Counting | None, task: Task, rows: RowLosses) -> None:
    if counting is not None and task.predicted is not None:
        counting.add(task.index, task.predicted, rows, ignore_index=-1)


def _is_foreign(head: Head) -> bool:
    """torch.func transforms and tensor subclasses need operations they can see through."""
    return any(x is not None and is_traced(x) for x in head)


def _dense_rows(
    head: Head,
    target: Tensor,
    law: Law,
    *,
    sample_weight: Tensor | None,
    extra: Tensor | None,
    ignore_index: int,
    counting: Counting | None,
) -> RowLosses:
    logits = F.linear(*head)
    options: dict[str, Any] = {"sample_weight": sample_weight, "extra": extra, "ignore_index": ignore_index}
    rows = losses_by_row(logits, target, law, class_dim=-1, **options)
    if counting is not None:
        counting.add(target, logits.argmax(-1), rows, ignore_index=ignore_index)
    return rows
