"""Offsets per pair of classes on a class shard: the rules of :mod:`evenhand.losses.pair_offsets`, block by block."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.pair_offsets import Cloud, Dropped, Seesaw


@singledispatch
def pair_offsets(
    rule: Any,
    block: Tensor,  # noqa: ARG001
    index: Tensor,  # noqa: ARG001
    part: slice,  # noqa: ARG001
    log_share_of_target: Tensor,  # noqa: ARG001
    log_normaliser: Tensor,  # noqa: ARG001
) -> Tensor:
    """(N, K_r) offsets of a rule for this rank's classes; without gradient.

    Args:
        rule: a law's ``pair_offset``.
        block: (N, K_r) logits after scale and offset. index: (N,) targets in [0, K). part: the block's classes.
        log_share_of_target: (N,) log softmax at the target. log_normaliser: (N,) logsumexp, both over all classes.

    Raises:
        InputError: a rule that nothing is known about.
    """
    raise InputError(
        f"offsets per pair of classes of type {type(rule).__name__} may look at all classes, which no rank of a "
        "class-sharded head has; use seesaw, seql or gcl, or an unsharded head"
    )


@pair_offsets.register
def _(
    rule: Seesaw, block: Tensor, index: Tensor, part: slice, log_share_of_target: Tensor, log_normaliser: Tensor
) -> Tensor:
    own = log_share_of_target.clamp(min=math.log(rule.epsilon))
    compensation = rule.q * (block - (log_normaliser + own)[:, None]).clamp(min=0)
    log_rows = rule.rows.to(block.device).clamp(min=1).to(block.dtype).log()
    return compensation + rule.p * (log_rows[part] - log_rows[index][:, None]).clamp(max=0)


@pair_offsets.register
def _(rule: Dropped, block: Tensor, index: Tensor, part: slice, *_: Tensor) -> Tensor:
    inside = (index >= part.start) & (index < part.stop)
    # the rule keeps every row's target: a column more stands for the targets that lie elsewhere
    column = torch.where(inside, index - part.start, block.shape[1])
    local = replace(rule, rare=F.pad(rule.rare[part], (0, 1)))
    return local(F.pad(block, (0, 1)), column)[:, :-1].contiguous()


@pair_offsets.register
def _(rule: Cloud, block: Tensor, index: Tensor, part: slice, *_: Tensor) -> Tensor:
    return replace(rule, spread=rule.spread[part])(block, index)
