"""Offsets r of the law that depend on the target as well as on the class: seesaw, SEQL, GCL. O(N K), never K x K."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Seesaw:
    """``log M_yk + log C_yk`` from (K,) `rows` seen per class; see :class:`SeesawLoss`."""

    rows: Tensor
    p: float
    q: float
    epsilon: float

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K) offsets, 0 at the target."""
        log_share = torch.log_softmax(logits, 1)
        own = log_share.gather(1, target[:, None]).clamp(min=math.log(self.epsilon))
        compensation = self.q * (log_share - own).clamp(min=0)
        log_rows = self.rows.to(logits.device).clamp(min=1).to(logits.dtype).log()
        return compensation + self.p * (log_rows - log_rows[target][:, None]).clamp(max=0)


@dataclass(frozen=True, eq=False)
class Dropped:
    """0, or -inf with probability `gamma` where `rare` is 1 and the class is not the target; see :class:`SEQLLoss`."""

    rare: Tensor
    gamma: float
    generator: torch.Generator | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K) offsets."""
        draw = torch.rand(logits.shape, device=logits.device, dtype=logits.dtype, generator=self.generator)
        drop = (draw < self.gamma) & (self.rare.to(logits.device) > 0)
        offset = torch.zeros_like(logits).masked_fill(drop, -torch.inf)
        return offset.scatter(1, target[:, None], 0.0)


@dataclass(frozen=True, eq=False)
class Cloud:
    """``-spread_k min(|e|, 1)`` with e normal of standard deviation 1/3; see :class:`GCLLoss`."""

    spread: Tensor
    generator: torch.Generator | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """(N, K) offsets."""
        noise = torch.randn(logits.shape, device=logits.device, dtype=logits.dtype, generator=self.generator)
        return noise.abs_().div_(-3.0).clamp_(min=-1.0).mul_(self.spread.to(logits))
