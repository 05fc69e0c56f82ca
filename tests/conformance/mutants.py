"""Losses with the mistakes that circulate, to see that the properties catch them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Mutant = Callable[..., Callable[[Tensor, Tensor], Tensor]]


def rows_of(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float | None, ignore_index: int | None, share: float
) -> tuple[Tensor, Tensor]:
    """Losses and weights, written the usual way."""
    skip = -100 if ignore_index is None else ignore_index
    loss = F.cross_entropy(logits, target, reduction="none", ignore_index=skip, label_smoothing=share)
    factor = torch.ones_like(loss) if weight is None else weight[target.clamp(min=0)]
    if gamma is not None:
        loss = (1 - torch.exp(-loss)) ** gamma * loss
    counted = target != skip
    return loss * factor * counted, factor * counted


def reduced(loss: Tensor, weight: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.sum() / weight.sum()
    return loss.sum() if reduction == "sum" else loss


def usual(
    before: Callable[[Tensor], Tensor] = lambda z: z,
    after: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda value, z, y: value,
    gamma_error: float = 0.0,
    share_error: float = 0.0,
) -> Mutant:
    """The usual way, with a mistake before or after."""

    def make(weight=None, gamma=None, ignore_index=None, label_smoothing=None, reduction="mean"):
        focus = None if gamma is None else gamma + gamma_error
        share = 0.0 if label_smoothing is None else label_smoothing + share_error

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            rows, weights = rows_of(before(logits), target, weight, focus, ignore_index, share)
            return after(reduced(rows, weights, reduction), logits, target)

        return loss

    return make


def by_rows(weight=None, gamma=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    """Divides a weighted sum by the number of rows."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        rows, weights = rows_of(logits, target, weight, gamma, ignore_index, label_smoothing)
        return reduced(rows, torch.ones_like(weights), reduction)

    return loss


def copied(weight=None, gamma=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    """Takes the probability from the weighted cross-entropy."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        rows, weights = rows_of(logits, target, weight, None, ignore_index, label_smoothing)
        return reduced(rows if gamma is None else (1 - torch.exp(-rows)) ** gamma * rows, weights, reduction)

    return loss


def detached(weight=None, gamma=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    """Keeps the focal factor out of the gradient."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        rows, weights = rows_of(logits, target, weight, None, ignore_index, label_smoothing)
        return reduced(rows if gamma is None else (1 - torch.exp(-rows.detach())) ** gamma * rows, weights, reduction)

    return loss


def torchs_own(gamma=None, ignore_index=None, **options):
    skip = {} if ignore_index is None else {"ignore_index": ignore_index}
    return lambda logits, target: F.cross_entropy(logits, target, **options, **skip)


def overflowing(weight=None, gamma=None, ignore_index=None, label_smoothing=0.0, reduction="mean"):
    return lambda logits, target: (
        -(logits.exp() / logits.exp().sum(1, keepdim=True)).log().gather(1, target[:, None]).mean()
    )


def flat_only(**options):
    plain = usual()(**options)
    return lambda logits, target: plain(logits.reshape(-1, logits.shape[1]), target.reshape(-1))


def in_place(logits: Tensor) -> Tensor:
    with torch.no_grad():
        logits -= logits.amax(1, keepdim=True)
    return logits


def branching(logits: Tensor) -> Tensor:
    return logits if logits.max() < 1e9 else logits / 2


MUTANTS: dict[str, tuple[Mutant, set[str]]] = {
    "divided by rows": (
        by_rows,
        {
            "weighted mean",
            "weighted focal",
            "equal weights",
            "missing classes",
            "reductions",
            "ignored rows",
            "ignored, weighted",
        },
    ),
    "divided by cells": (
        usual(after=lambda value, z, y: value / z.shape[1]),
        {"mean over rows", "cross-entropy", "focal", "smoothing", "weighted smoothing", "some weights 0"},
    ),
    "weighted probability": (copied, {"weighted focal"}),
    "detached focus": (detached, {"gradcheck", "gradgradcheck"}),
    "focal by autograd": (usual(), {"sharp focal", "confident rows", "all ignored", "all weights 0"}),
    "torch": (torchs_own, {"one-hot", "all ignored", "weight types", "bf16, weighted"}),
    "one class special": (usual(before=lambda z: z + (torch.arange(z.shape[1]) == 0)), {"permutation"}),
    "logits held small": (usual(after=lambda value, z, y: value + 1e-3 * z.square().mean()), {"shift"}),
    "grows with rows": (usual(after=lambda value, z, y: value * len(z)), {"rows twice"}),
    "flat batches only": (flat_only, {"more axes"}),
    "writes to its input": (usual(before=in_place), {"inputs"}),
    "decides by values": (usual(before=branching), {"compile", "vmap"}),
    "wrong gamma": (usual(gamma_error=0.5), {"gamma 0", "focal"}),
    "always smooths": (usual(share_error=0.01), {"smoothing 0", "smoothing"}),
    "overflows": (overflowing, {"huge logits"}),
    "one percent off": (usual(after=lambda value, z, y: value * 1.01), {"bf16", "fp16", "cross-entropy"}),
    "has parameters": (
        usual(after=lambda value, z, y: value * torch.ones((), requires_grad=True)),
        {"frozen logits"},
    ),
    "multiplies matrices": (usual(before=lambda z: z @ torch.eye(z.shape[1], dtype=z.dtype)), {"autocast"}),
}
