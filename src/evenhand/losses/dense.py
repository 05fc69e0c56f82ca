"""Dense logits of rows with class indices, and their row statistics and losses under a law."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evenhand.losses.law import Law, row_losses
from evenhand.losses.reduction import RowLosses
from evenhand.losses.rows import Adjustment, RowStatistics, arithmetic, dense_statistics


@dataclass(eq=False, slots=True)  # frozen ones take three times as long to make
class HardRows:
    """Checked and flat: what a loss is computed from.

    Attributes:
        logits: (N, K). index: (N,) int64 in [0, K), any class where a row is not counted.
        counted: (N,) bool, or None if all are. sample_weight, extra: (N,) or None.
    """

    logits: Tensor
    index: Tensor
    counted: Tensor | None
    sample_weight: Tensor | None
    extra: Tensor | None


def hard_row_losses(rows: HardRows, statistics: RowStatistics, law: Law) -> RowLosses:
    """(N,) losses before reduction, from the statistics of these rows under the law."""
    direction = law.direction(rows.logits.shape[1], statistics.gap)
    return row_losses(
        statistics,
        rows.index,
        law,
        direction=direction,
        counted=rows.counted,
        sample_weight=rows.sample_weight,
        extra=rows.extra,
    )


def adjusted_statistics(logits: Tensor, index: Tensor, law: Law) -> RowStatistics:
    """Row statistics of (N, K) logits under the law's scale, offset, temperature and pair offsets."""
    return dense_statistics(logits, index, **adjustment(logits, index, law)._asdict())


def adjustment(logits: Tensor, index: Tensor, law: Law) -> Adjustment:
    """What the law does to (N, K) logits of these targets, in the type of the arithmetic."""
    like = logits.new_empty(0, dtype=arithmetic(logits))
    scale, offset = (None if x is None else x.to(like) for x in (law.scale, law.offset))
    pair_offset = None
    if law.pair_offset is not None:
        with torch.no_grad():
            z = logits.detach().to(like.dtype)
            z = z if scale is None else z * scale
            z = z if offset is None else z + offset
            pair_offset = law.pair_offset(z, index).to(like)
    row_scale = None if law.temperature is None else law.temperature.to(like)[index]
    return Adjustment(scale, offset, row_scale, pair_offset, law.direction(logits.shape[1], like))
