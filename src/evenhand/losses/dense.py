"""Row statistics of dense logits under a law."""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.losses.law import Law
from evenhand.losses.rows import Adjustment, RowStatistics, arithmetic, dense_statistics


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
