"""Logits made, used and overwritten chunk by chunk: what the linear losses are built on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evenhand.losses.dense import adjustment
from evenhand.losses.law import Law, row_losses
from evenhand.losses.reduction import RowLosses
from evenhand.losses.rows import Adjustment, RowStatistics, arithmetic, part_of, sweep, sweep_back
from evenhand.losses.slopes import losses_and_slopes, row_weights

LEAST_ROWS = 128  # fewer rows per product read the classifier so often that reading it takes longer than computing
_CPU_BYTES = 1 << 25  # 32 MB: what the last-level cache holds
_DEVICE_BYTES = 1 << 30
_MOST_BYTES = 1 << 31  # 128 rows of four million classes in float32
_PRODUCT_CELLS = 1 << 21  # logits in float32 at once where the product of half-precision numbers needs float32


def rows_per_chunk(rows: int, classes: int, cell_bytes: int, *, on_cpu: bool = True) -> int:
    """Rows whose logits are held at once: at least 128 where 2 GB allow it, else a quarter of the rows or 32 MB
    (1 GB on a GPU), whichever is less; evened out, so that the last chunk is not a small rest.

    Example:
        >>> rows_per_chunk(512, 100_000, 4), rows_per_chunk(256, 10_000, 4), rows_per_chunk(100_000, 500, 4)
        (128, 128, 16667)
    """
    row_bytes = max(1, classes * cell_bytes)
    aim = max(LEAST_ROWS, min((_CPU_BYTES if on_cpu else _DEVICE_BYTES) // row_bytes, rows // 4))
    step = max(1, min(aim, _MOST_BYTES // row_bytes, rows))
    return -(-rows // max(1, -(-rows // step))) if rows else 1


class Head(NamedTuple):
    """What gradients are for: (N, D) features, (K, D) classifier weight, (K,) bias or None."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class Task:
    """Everything else about one call.

    Attributes:
        law: the loss. index: (N,) int64 in [0, K). counted: (N,) bool or None. sample_weight, extra: (N,) or None.
        step: rows per chunk. compute: type of the matrix products.
        wanted: whether gradients by features, weight and bias are wanted.
        predicted: (N,) int64, filled with the class of the largest logit, or None.
        random: state of the random numbers when the call began, for laws that draw offsets.
    """

    law: Law
    index: Tensor
    counted: Tensor | None
    sample_weight: Tensor | None
    extra: Tensor | None
    step: int
    compute: torch.dtype
    wanted: tuple[bool, bool, bool]
    predicted: Tensor | None = None
    random: tuple[Any, ...] = ()

    def losses(self, statistics: RowStatistics, direction: Tensor | None, part: slice = slice(None)) -> RowLosses:
        """The law on the statistics of some rows."""
        counted, weight, extra = (
            None if x is None else x[part] for x in (self.counted, self.sample_weight, self.extra)
        )
        index = self.index[part]
        return row_losses(
            statistics, index, self.law, direction=direction, counted=counted, sample_weight=weight, extra=extra
        )


def statistics_of(head: Head, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) ``others``, target logit and mean of :func:`evenhand.losses.rows.sweep`, without gradient."""
    found = [sweep(logits, task.index[part], change) for part, logits, change in _chunks(_cast(head, task), task)]
    if not found:
        empty = head.features.new_empty(0, dtype=_wide(task.compute))
        return empty, empty, empty
    others, target_logit, mean = (torch.cat(x) for x in zip(*found, strict=True))
    return others, target_logit, mean


def gradients_of(head: Head, task: Task, others: Tensor, upstream: Sequence[Tensor | None]) -> Gradients:
    """Gradients of row statistics, given (N,) upstream gradients by gap, target logit and mean."""
    used = _cast(head, task)
    gradients = Gradients(head, used, task)
    for part, logits, change in _chunks(used, task):
        by_row = [None if u is None else u[part] for u in upstream]
        sweep_back(logits, task.index[part], others[part], change, by_row, out=logits)
        gradients.add(part, logits)
    return gradients


def losses_and_gradients(head: Head, task: Task, factor: Tensor) -> tuple[Tensor, Tensor, Gradients]:
    """(N,) numerators and weights, and the gradients of ``factor * numerator.sum()``: three products per chunk."""
    used = _cast(head, task)
    gradients = Gradients(head, used, task)
    wide = _wide(task.compute)
    like = head.features.new_empty(len(head.features), dtype=wide)
    weights, numerator = row_weights(task.law, task.index, task.counted, task.sample_weight, like), like
    for part, logits, change in _chunks(used, task):
        kept = logits if logits.dtype == wide else None  # half precision cannot hold the softmax exactly enough
        others, target_logit, mean = sweep(logits, task.index[part], change, out=kept)
        statistics = RowStatistics(others - target_logit, target_logit, None if change.direction is None else mean)
        numerator[part], slopes = losses_and_slopes(
            statistics,
            task.index[part],
            task.law,
            weights.part(part),
            direction=change.direction,
            counted=part_of(task.counted, part),
            extra=part_of(task.extra, part),
        )
        by_row = [None if u is None else u * factor for u in slopes]
        sweep_back(logits, task.index[part], others, change, by_row, out=logits, swept=kept is not None)
        gradients.add(part, logits)
    return numerator, torch.full_like(numerator, 1.0) * weights.loss, gradients


class Gradients:
    """Gradients by features, weight and bias while they grow; None where not wanted.

    Those by weight and bias are summed in float32 for half-precision numbers: rounding every chunk's share would cost
    precision that the dense product has.
    """

    def __init__(self, head: Head, used: Head, task: Task) -> None:
        wide = _wide(task.compute)
        self.head, self.used = head, used
        # unscaled float16 gradients underflow
        kept = wide if task.compute == torch.float16 else head.features.dtype
        self.features = torch.empty_like(head.features, dtype=kept) if task.wanted[0] else None
        self.weight = torch.empty_like(head.weight, dtype=wide) if task.wanted[1] else None
        self.bias = torch.zeros_like(head.bias, dtype=wide) if task.wanted[2] and head.bias is not None else None
        self.first = True
        if self.weight is not None and not (len(head.features) and wide == task.compute):
            self.weight.zero_()

    def add(self, part: slice, slope: Tensor) -> None:
        """Take (n, K) gradients by the logits of some rows, in the type of the products."""
        if self.bias is not None:
            self.bias += slope.sum(0, dtype=self.bias.dtype)
        if self.features is not None:
            to = self.features[part]
            if to.dtype == slope.dtype:
                torch.mm(slope, self.used.weight, out=to)
            else:
                to.copy_(torch.mm(slope, self.used.weight))
        if self.weight is not None:
            features = self.used.features[part]
            if self.weight.dtype == slope.dtype:
                self.weight.addmm_(slope.t(), features, beta=0 if self.first else 1)
            else:
                _add_wide_product(self.weight, slope, features)
        self.first = False

    def scaled(self, factor: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients times a 0-dim factor, in the types of what they are gradients of; this uses them up."""
        # reading a number that lies on the CPU is free, and one is what most training steps send
        skip = factor.device.type == "cpu" and factor.item() == 1
        held = (self.features, self.weight, self.bias)
        result = tuple(
            None if g is None or x is None else (g if skip else g.mul_(factor)).to(x.dtype)
            for g, x in zip(held, self.head, strict=True)
        )
        return result[0], result[1], result[2]


def _add_wide_product(total: Tensor, slope: Tensor, features: Tensor) -> None:
    """``total += slope^T features`` with half-precision factors and a float32 sum, a block of classes at a time."""
    on_device = slope.device.type == "cuda"
    step = max(1, _PRODUCT_CELLS // max(1, len(slope)))
    right = features if on_device else features.to(total.dtype)
    for start in range(0, slope.shape[1], step):
        left = slope[:, start : start + step].t()
        if on_device:
            total[start : start + step] += torch.mm(left, right, out_dtype=total.dtype)
        else:
            total[start : start + step].addmm_(left.to(total.dtype), right)


def _chunks(used: Head, task: Task) -> Iterator[tuple[slice, Tensor, Adjustment]]:
    """(rows, their logits in a buffer that may be overwritten, what the law does to them)."""
    features, weight, bias = used
    rows, classes = len(features), len(weight)
    buffer = features.new_empty((min(task.step, rows), classes))
    for start in range(0, rows, task.step):
        part = slice(start, min(start + task.step, rows))
        logits = buffer[: part.stop - start]
        if bias is None:
            torch.mm(features[part], weight.t(), out=logits)
        else:
            torch.addmm(bias, features[part], weight.t(), out=logits)
        if task.predicted is not None:
            torch.argmax(logits, 1, out=task.predicted[part])
        yield part, logits, adjustment(logits, task.index[part], task.law)


def _cast(head: Head, task: Task) -> Head:
    """The head in the type of the products: a copy under autocast only, where the dense product makes it too."""
    features, weight, bias = head
    return Head(features.to(task.compute), weight.to(task.compute), None if bias is None else bias.to(task.compute))


def _wide(compute: torch.dtype) -> torch.dtype:
    return arithmetic(torch.empty(0, dtype=compute))


def random_state(law: Law, device: torch.device) -> tuple[Any, ...]:
    """What must be put back so that a law that draws offsets draws the same again; empty for other laws."""
    if law.pair_offset is None:
        return ()
    own = getattr(law.pair_offset, "generator", None)
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device, None if own is None else own.get_state()


@contextmanager
def replayed(task: Task, device: torch.device) -> Iterator[None]:
    """Inside, random numbers are those of the first pass; afterwards they go on as if nothing had happened."""
    if not task.random:
        yield
        return
    on_cpu, on_device, of_own = task.random
    own = getattr(task.law.pair_offset, "generator", None)
    now = None if own is None else own.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(on_cpu)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)
        if own is not None:
            own.set_state(of_own)
        try:
            yield
        finally:
            if own is not None:
                own.set_state(now)
