"""CIFAR-10/100-LT with the recipe that most papers share, from your own copy of CIFAR, beside their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import cifardata, measure
from benchmarks.cifardata import Images
from benchmarks.cifarnet import ResNet32
from evenhand import losses
from evenhand.counts import groups, log_prior
from evenhand.losses import DeferredReweighting

EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 200, 128, 0.1, 0.9, 2e-4
WARM_UP, DEFERRED, DROPS = 5, 160, (160, 180)
COSINE_SCALE = 30.0

# Test accuracy in per cent. a: zhangyongshun/BagofTricks-LT, trick_gallery.md, one run, best test epoch. b:
# wang22ti/DDC, README, mean and standard deviation over seeds. c: google-research/logit_adjustment, README.
PUBLISHED: dict[tuple[str, float], dict[str, str]] = {
    ("cifar10", 100): {
        "cross-entropy": "70.36 a; 71.25 ± 0.10 b; 71.36 c", "weighted": "68.30 a", "sqrt": "68.30 a",
        "focal": "71.56 a", "class-balanced": "70.48 a", "ldam": "73.66 a", "ldam-drw": "77.73 a; 77.97 ± 0.17 b",
        "drw": "74.82 a", "balanced-softmax": "77.54 a", "logit-adjusted": "77.89 c", "post-hoc": "77.32 c",
        "cdt": "77.10 a", "vs": "80.29 ± 0.23 b",
    },
    ("cifar100", 100): {
        "cross-entropy": "38.32 a; 38.06 ± 1.03 b; 39.87 c", "weighted": "32.27 a", "sqrt": "38.36 a",
        "focal": "37.22 a", "class-balanced": "38.97 a", "ldam": "38.88 a", "ldam-drw": "42.47 a; 42.73 ± 0.28 b",
        "drw": "41.62 a", "balanced-softmax": "42.99 a", "logit-adjusted": "44.06 c", "post-hoc": "44.07 c",
        "cdt": "39.59 a", "vs": "42.67 ± 0.48 b",
    },
    ("cifar10", 50): {
        "cross-entropy": "74.81 a", "weighted": "76.80 a", "sqrt": "77.78 a", "focal": "77.91 a",
        "class-balanced": "77.48 a", "ldam": "79.01 a", "ldam-drw": "81.60 a", "drw": "79.82 a",
        "balanced-softmax": "81.11 a", "cdt": "81.81 a",
    },
    ("cifar100", 50): {
        "cross-entropy": "43.85 a", "weighted": "36.51 a", "sqrt": "42.77 a", "focal": "41.79 a",
        "class-balanced": "43.78 a", "ldam": "43.59 a", "ldam-drw": "47.29 a", "drw": "46.80 a",
        "balanced-softmax": "46.55 a", "cdt": "44.83 a",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """A loss with its options; `deferred`: effective-number weights from epoch 160; `cosine`: normalised head."""

    loss: str
    options: dict[str, Any] = field(default_factory=dict)
    deferred: bool = False
    cosine: bool = False


WAYS = {
    "cross-entropy": Way("cross-entropy"),
    "weighted": Way("weighted"),
    "sqrt": Way("weighted", {"rule": "sqrt"}),
    "focal": Way("focal", {"gamma": 1.0}),
    "class-balanced": Way("class-balanced"),
    "ldam": Way("ldam", cosine=True),
    "ldam-drw": Way("ldam", deferred=True, cosine=True),
    "drw": Way("cross-entropy", deferred=True),
    "balanced-softmax": Way("balanced-softmax"),
    "logit-adjusted": Way("logit-adjusted"),
    "cdt": Way("cdt"),
    "vs": Way("vs", {"gamma": 0.2, "tau": 1.2}),
}


@dataclass(frozen=True)
class Plan:
    """epochs of the run; the recipe's epochs 5, 160 and 180 scale with it."""

    epochs: int = EPOCHS
    device: str = "cpu"

    def at(self, epoch: int) -> int:
        return round(epoch * self.epochs / EPOCHS)

    def rate(self, epoch: int) -> float:
        """Linear warm-up over the first 5 of 200 epochs, then a hundredth from 160 and a hundredth of that from 180."""
        if epoch < self.at(WARM_UP):
            return RATE * (epoch + 1) / self.at(WARM_UP)
        return RATE * 0.01 ** sum(epoch >= self.at(drop) for drop in DROPS)


def epochs_of(made: nn.Module, images: Images, way: Way, counts: np.ndarray, seed: int, plan: Plan) -> Iterator[int]:
    """Train, yielding after every epoch."""
    criterion = losses.build(way.loss, counts, **way.options).to(plan.device)
    deferred = DeferredReweighting(criterion, plan.at(DEFERRED)) if way.deferred else None
    optimiser = torch.optim.SGD(made.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = (torch.from_numpy(v).to(plan.device) for v in (images.pixels, images.labels))
    for epoch in range(plan.epochs):
        if deferred:
            deferred.step(epoch)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(epoch)
        made.train()
        for rows in torch.randperm(len(images), generator=generator).to(plan.device).split(BATCH):
            optimiser.zero_grad(set_to_none=True)
            inputs = cifardata.normalised(cifardata.augmented(pixels[rows], generator))
            criterion(made(inputs), labels[rows]).backward()
            optimiser.step()
        yield epoch


def scores(made: nn.Module, pixels: Tensor, *, cosine: bool) -> np.ndarray:
    made.eval()
    with torch.no_grad():
        told = torch.cat([made(cifardata.normalised(piece)) for piece in pixels.split(1000)])
    return (told * COSINE_SCALE if cosine else told).double().cpu().numpy()


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float((logits.argmax(axis=1) == labels).mean())


def run(train: Images, test: Images, classes: int, way: Way, seed: int, plan: Plan) -> dict[str, float]:
    """Accuracy in per cent at the last and at the best test epoch, and after logit adjustment of the last."""
    torch.manual_seed(seed)
    counts = np.bincount(train.labels, minlength=classes)
    made = ResNet32(classes, cosine=way.cosine).to(plan.device)
    pixels = torch.from_numpy(test.pixels).to(plan.device)
    best = (-1.0, -1)
    for epoch in epochs_of(made, train, way, counts, seed, plan):
        told = scores(made, pixels, cosine=way.cosine)
        best = max(best, (accuracy(told, test.labels), -epoch))
    right = told.argmax(axis=1) == test.labels
    return {
        "last": accuracy(told, test.labels),
        "best test epoch": best[0],
        "best epoch": -best[1] + 1,
        "post-hoc": accuracy(told - log_prior(counts), test.labels),
        **{name: 100 * float(right[np.isin(test.labels, members)].mean()) for name, members in groups(counts).items()},
    }


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder with cifar-10-batches-bin or cifar-100-binary (the binary version).")  # fmt: skip
@click.option("--dataset", type=click.Choice(tuple(cifardata.LAYOUTS)), default="cifar10", show_default=True)
@click.option("--imbalance", type=click.FloatRange(1), default=100.0, show_default=True, help="Largest over smallest.")
@click.option("--remedy", "remedies", multiple=True, type=click.Choice(tuple(WAYS)), default=("cross-entropy",),
              show_default=True, help="May be repeated.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Networks per remedy.")
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True, help="The recipe has 200.")
@click.option("--device", default=None, help="Where to train; cuda where there is one.")
def command(
    data: Path,
    dataset: str,
    imbalance: float,
    remedies: tuple[str, ...],
    seeds: int,
    epochs: int,
    device: str | None,
) -> None:
    """CIFAR-10/100-LT, ResNet-32, 200 epochs, beside the published numbers.

    Papers report the best epoch on the test set. That is optimistic, so the last epoch stands beside it.

    \b
    python -m benchmarks cifar --data DIR --remedy cross-entropy --remedy balanced-softmax --seeds 3
    """
    images, test = cifardata.read(data, dataset)
    classes = cifardata.LAYOUTS[dataset].classes
    plan = Plan(epochs, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    click.echo(json.dumps(measure.machine() | {"device": plan.device}))
    published = PUBLISHED.get((dataset, imbalance), {})
    for remedy in remedies:
        for seed in range(seeds):
            train = cifardata.long_tailed(images, classes, imbalance, seed)
            told = run(train, test, classes, WAYS[remedy], seed, plan)
            line = {"dataset": dataset, "imbalance": imbalance, "remedy": remedy, "seed": seed, "epochs": epochs}
            line |= {"train rows": len(train)} | {name: round(value, 2) for name, value in told.items()}
            beside = {"published": published.get(remedy)}
            if remedy == "cross-entropy":
                beside["published, post-hoc"] = published.get("post-hoc")
            click.echo(json.dumps(line | beside))
