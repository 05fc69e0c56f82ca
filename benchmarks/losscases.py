"""What the losses benchmark times: the same batch through torch, the usual eager code, and evenhand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evenhand.losses.functional import cross_entropy
from evenhand.losses.law import Law
from evenhand.losses.linear import linear_cross_entropy
from evenhand.losses.shapes import Focal

Work = Callable[[], Tensor]
GAMMA, SHARE = 2.0, 0.1


@dataclass(frozen=True)
class Settings:
    """Everything at once: scale, offset, margin, focal, class weights, uniform smoothing, sample weights."""

    scale: Tensor
    offset: Tensor
    margin: Tensor
    weight: Tensor
    sample_weight: Tensor

    @property
    def law(self) -> Law:
        return Law(
            scale=self.scale,
            offset=self.offset,
            margin=self.margin,
            shape=Focal(GAMMA),
            class_weight=self.weight,
            label_smoothing=SHARE,
            smoothing_mass="uniform",
        )


def settings(rows: int, classes: int, device: str = "cpu") -> Settings:
    generator = torch.Generator().manual_seed(1)
    by_class = [torch.rand(classes, generator=generator).to(device) for _ in range(4)]
    scale, offset, margin, weight = by_class
    return Settings(scale + 0.5, offset, margin, weight + 0.1, torch.rand(rows, generator=generator).to(device) + 0.5)


def usual(logits: Tensor, target: Tensor, with_: Settings) -> Tensor:
    """All options as one writes them by hand, with the rows' losses before any weight."""
    adjusted = logits * with_.scale + with_.offset
    adjusted = adjusted.scatter_add(1, target[:, None], -with_.margin[target][:, None])
    log_p = F.log_softmax(adjusted, 1)
    loss = -log_p.gather(1, target[:, None])[:, 0]
    focal = (1 - torch.exp(-loss)) ** GAMMA * loss
    smooth = -log_p.mean(1)
    weight = with_.weight[target] * with_.sample_weight
    return (weight * ((1 - SHARE) * focal + SHARE * smooth)).sum() / weight.sum()


def dense_works(rows: int, classes: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Work]:
    """Forward and backward of every contender on one batch; each returns its loss."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator).to(device, dtype).requires_grad_()
    target = torch.randint(classes, (rows,), generator=generator).to(device)
    with_ = settings(rows, classes, device)
    weight, law = with_.weight.to(dtype), with_.law

    def both(loss: Callable[[], Tensor]) -> Work:
        def work() -> Tensor:
            logits.grad = None
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            return value.detach()

        return work

    return {
        "torch": both(lambda: F.cross_entropy(logits, target)),
        "evenhand, options off": both(lambda: cross_entropy(logits, target)),
        "torch, weighted": both(lambda: F.cross_entropy(logits, target, weight)),
        "evenhand, all options": both(lambda: cross_entropy(logits, target, law, sample_weight=with_.sample_weight)),
        "usual code, all options": both(lambda: usual(logits, target, with_)),
    }


def same_bits(rows: int, classes: int) -> bool:
    """Whether value and gradient without options are torch's, bit for bit."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, classes, generator=generator)
    target = torch.randint(classes, (rows,), generator=generator)
    found = []
    for loss in (F.cross_entropy, cross_entropy):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, target)
        value.backward()
        found.append((value.detach(), leaf.grad))
    return all(torch.equal(x, y) for x, y in zip(*found, strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True)
class HeadBatch:
    """Features, classifier weight and labels of a last layer; both want gradients."""

    features: Tensor
    head: Tensor
    target: Tensor


def head_batch(
    rows: int, width: int, classes: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> HeadBatch:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, width, generator=generator).to(device, dtype)
    head = torch.empty(classes, width, device=device, dtype=dtype).normal_(std=width**-0.5)
    target = torch.randint(classes, (rows,), generator=generator).to(device)
    return HeadBatch(features.requires_grad_(), head.requires_grad_(), target)


def linear_losses(batch: HeadBatch, with_: Settings | None = None) -> dict[str, Work]:
    """The loss from the features: dense, torch's chunks, evenhand's; forward only."""
    x, head, y = batch.features, batch.head, batch.target
    torchs = torch.nn.LinearCrossEntropyOptions()
    losses: dict[str, Work] = {
        "dense": lambda: F.cross_entropy(F.linear(x, head), y),
        "evenhand linear": lambda: linear_cross_entropy(x, head, y),
        "torch linear": lambda: F.linear_cross_entropy(x, head, y, options=torchs),
    }
    if with_ is not None:
        law = with_.law
        losses["evenhand linear, all options"] = lambda: linear_cross_entropy(
            x, head, y, law, sample_weight=with_.sample_weight
        )
    return losses


def trained(batch: HeadBatch, loss: Work) -> Work:
    """Forward and backward."""

    def work() -> Tensor:
        batch.features.grad = batch.head.grad = None
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    return work


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


def interleaved(
    works: dict[str, Work], repetitions: int, *, warm: int = 2, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of every repetition, A B C A B C ..., after a warm-up; by the wall's clock or the processor's.

    On a machine that does other work, wall time tells who was interrupted; on one thread, processor time does not.
    """
    now = CLOCKS[clock]
    on_gpu = torch.cuda.is_available()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repetition in range(-warm, repetitions):
        for name, work in works.items():
            begin = now()
            work()
            if on_gpu:
                torch.cuda.synchronize()
            if repetition >= 0:
                seconds[name].append(now() - begin)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    """Median over the rounds of one's time over the other's: what slows the machine down for a while slows both."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def micro_batch_errors(
    classes: int, imbalance: float, rows: int, count: int, trials: int = 20, width: int = 64
) -> dict[str, float]:
    """Median relative error of a linear head's gradient against the weighted mean over all micro-batches.

    Classes are drawn from an exponential profile, weighted by inverse frequency.
    """
    generator = torch.Generator().manual_seed(0)
    prior = imbalance ** (-torch.arange(classes, dtype=torch.float64) / (classes - 1))
    prior /= prior.sum()
    weight = (1 / (prior * classes)).float()
    names = ("mean of means", "numerators and denominators")
    errors: list[tuple[float, float]] = []
    for _ in range(trials):
        x = torch.randn(rows * count, width, generator=generator)
        head = 0.1 * torch.randn(classes, width, generator=generator)
        y = torch.multinomial(prior, rows * count, replacement=True, generator=generator)
        errors.append(_errors(x, head, y, weight, rows))
    return {name: statistics.median(each) for name, each in zip(names, zip(*errors, strict=True), strict=True)}


def _errors(x: Tensor, head: Tensor, y: Tensor, weight: Tensor, rows: int) -> tuple[float, float]:
    """Of the mean of the micro-batches' means, and of their numerators over the denominator of all."""
    truth = _gradient(head.double(), lambda h: F.cross_entropy(x.double() @ h.T, y, weight.double()))
    parts = list(zip(x.split(rows), y.split(rows), strict=True))
    means = sum(_gradient(head, lambda h, a=a, b=b: F.cross_entropy(a @ h.T, b, weight)) for a, b in parts) / len(parts)
    law, total = Law(class_weight=weight), weight[y].sum()
    exact = sum(
        _gradient(head, lambda h, a=a, b=b: cross_entropy(a @ h.T, b, law, denominator=total)) for a, b in parts
    )
    return float((means - truth).norm() / truth.norm()), float((exact - truth).norm() / truth.norm())


def _gradient(head: Tensor, loss: Callable[[Tensor], Tensor]) -> Any:
    leaf = head.clone().requires_grad_()
    loss(leaf).backward()  # type: ignore[no-untyped-call]
    return leaf.grad
