"""Weighted means over ranks and micro-batches on long-tailed labels, in the processes of `ranks_sharded.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from evenhand.losses.exact import WeightedAccumulation, exact_mean
from evenhand.losses.modules.base import SoftmaxLoss

CLASSES, FEATURES, MICRO, ROWS = 100, 16, 4, 8
Batches = list[tuple[Tensor, Tensor]]


def long_tailed(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels with 100 times more rows of the first class than of the last, and balanced weights."""
    generator = torch.Generator().manual_seed(11)
    prior = 0.01 ** (torch.arange(CLASSES) / (CLASSES - 1))
    labels = torch.multinomial(prior, rows, replacement=True, generator=generator)
    return torch.randn(rows, FEATURES, generator=generator), labels, prior.sum() / CLASSES / prior


def head() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(FEATURES, CLASSES)


def whole_gradient(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    model = head().double()
    torch.nn.functional.cross_entropy(model(x.double()), y, weight=weight.double()).backward()
    return flat(model)


def flat(model: nn.Module) -> Tensor:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([(g.full_tensor() if hasattr(g, "full_tensor") else g).flatten() for g in gradients])


def error(ours: Tensor, whole: Tensor) -> float:
    return float((ours.double() - whole).norm() / whole.norm())


def synced_last(model: nn.Module, batches: Batches) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Micro-batches with the context under which their backward pass belongs: DDP communicates in the last."""
    for i, (x, y) in enumerate(batches):
        waits = i < len(batches) - 1 and isinstance(model, DistributedDataParallel)
        yield model.no_sync() if waits else nullcontext(), x, y


def today(model: nn.Module, criterion: SoftmaxLoss, batches: Batches, group: dist.ProcessGroup) -> None:
    for sync, x, y in synced_last(model, batches):
        with sync:
            (criterion(model(x), y) / len(batches)).backward()


def known(model: nn.Module, criterion: SoftmaxLoss, batches: Batches, group: dist.ProcessGroup) -> None:
    with exact_mean(criterion, [y for _, y in batches], group=group):
        for sync, x, y in synced_last(model, batches):
            with sync:
                criterion(model(x), y).backward()


def streamed(model: nn.Module, criterion: SoftmaxLoss, batches: Batches, group: dist.ProcessGroup) -> None:
    step = WeightedAccumulation(group=group, guess=50.0)
    for sync, x, y in synced_last(model, batches):
        with sync:
            step.add(criterion.rows(model(x), y)).backward()
    step.finish(model.parameters())


def wrapped(kind: str, group: dist.ProcessGroup, mesh: Any) -> nn.Module:
    if kind == "DDP":
        return DistributedDataParallel(head(), process_group=group)
    model = head()
    fully_shard(model, mesh=mesh)
    return model


def cases(place: Any) -> dict[str, dict[str, float]]:
    found = {}
    ways: dict[str, Callable[..., None]] = {"exact_mean": known, "WeightedAccumulation": streamed, "today": today}
    for ranks in (2, 4):
        mesh = place.four if ranks == 4 else place.grid["classes"]
        group = mesh.get_group()
        x, y, weight = long_tailed(ranks * MICRO * ROWS)
        whole = whole_gradient(x, y, weight)
        mine = slice(dist.get_rank(group) * MICRO * ROWS, (dist.get_rank(group) + 1) * MICRO * ROWS)
        batches = list(zip(x[mine].split(ROWS), y[mine].split(ROWS), strict=True))
        errors = {}
        for kind in ("DDP", "FSDP"):
            for name, way in ways.items():
                model = wrapped(kind, group, mesh)
                way(model, SoftmaxLoss(weight), batches, group)
                errors[f"{kind} {name}"] = error(flat(model), whole)
        found[f"exact on {ranks} ranks"] = errors
    return found
