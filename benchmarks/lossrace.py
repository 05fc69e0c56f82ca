"""Which loss, on real data: every softmax loss trained alike, decided by argmax and by its own rule, over seeds."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn

from benchmarks import measure, realdata
from evenhand import losses

HIDDEN, BATCH, RATE, DECAY = 256, 128, 2e-3, 1e-2
REFERENCE = "cross-entropy"
DEFAULT_SETS = ("names18", "ua_device", "avonet", "kanjivg_radical", "clinc150_lt")


@dataclass(frozen=True)
class Remedy:
    """A loss with the options its authors (or our defaults) give; `cosine` heads normalise features and weights."""

    name: str
    build: Callable[[Any, int], nn.Module]
    cosine: bool = False


def made(name: str, **options: Any) -> Callable[[Any, int], nn.Module]:
    return lambda counts, _: losses.build(name, counts, **options)


REMEDIES = (
    Remedy(REFERENCE, made("cross-entropy")),
    Remedy("weighted balanced", made("weighted")),
    Remedy("weighted sqrt", made("weighted", rule="sqrt")),
    Remedy("class-balanced .999", made("class-balanced", beta=0.999)),
    Remedy("focal 1", made("focal", gamma=1.0)),
    Remedy("focal 2", made("focal", gamma=2.0)),
    Remedy("focal 2 + weights", made("focal", gamma=2.0, weight="balanced")),
    Remedy("balanced-softmax", made("balanced-softmax")),
    Remedy("logit-adjusted .5", made("logit-adjusted", tau=0.5)),
    Remedy("vs", made("vs")),
    Remedy("cdt", made("cdt")),
    Remedy("poly", made("poly")),
    Remedy("gla", made("gla")),
    Remedy("label-aware-smoothing", made("label-aware-smoothing")),
    Remedy("ldam", made("ldam"), cosine=True),
    Remedy("cosine head alone", made("ldam", max_margin=0.0), cosine=True),  # tells the head's part from the margins'
    Remedy("seesaw", made("seesaw")),
)


class Network(nn.Module):
    def __init__(self, inputs: int, classes: int, *, cosine: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU())
        self.head = nn.Linear(HIDDEN, classes, bias=not cosine)
        self.cosine = cosine

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        if self.cosine:
            unit = nn.functional.normalize
            return unit(hidden, dim=-1) @ unit(self.head.weight, dim=-1).T
        return self.head(hidden)


def trained_logits(
    data: realdata.RealSet, remedy: Remedy, counts: np.ndarray, seed: int
) -> tuple[nn.Module, np.ndarray]:
    """The criterion and the test logits of a network trained with it; every remedy sees the same batches."""
    torch.manual_seed(seed)
    network = Network(data.train.features.shape[1], data.classes, cosine=remedy.cosine)
    criterion = remedy.build(counts, data.epochs)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    features, labels = torch.from_numpy(data.train.features), torch.from_numpy(data.train.labels)
    steps = data.epochs * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(data.epochs):
        for rows in torch.randperm(len(labels), generator=order).split(BATCH):
            optimiser.zero_grad()
            criterion(network(features[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return criterion, network(torch.from_numpy(data.test.features)).numpy()


def scores(predicted: np.ndarray, target: np.ndarray, classes: int) -> dict[str, float]:
    """Accuracy, balanced accuracy over the classes that have test rows, and count distance (total variation)."""
    hit = np.bincount(target, predicted == target, minlength=classes)
    rows = np.bincount(target, minlength=classes)
    present = rows > 0
    answered = np.bincount(predicted, minlength=classes)
    return {
        "accuracy": float(hit.sum() / rows.sum()),
        "balanced accuracy": float((hit[present] / rows[present]).mean()),
        "count distance": float(np.abs(answered - rows).sum() / 2 / rows.sum()),
    }


def run(data: realdata.RealSet, remedy: Remedy, seed: int) -> dict[str, float]:
    """All figures of one trained network."""
    counts = np.bincount(data.train.labels, minlength=data.classes)
    criterion, logits = trained_logits(data, remedy, counts, seed)
    told = {
        f"{metric}, argmax": value for metric, value in scores(logits.argmax(1), data.test.labels, data.classes).items()
    }
    for goal, metric in (("accuracy", "accuracy"), ("balanced-accuracy", "balanced accuracy")):
        predicted = criterion.correction(goal).predict(logits.astype(np.float64))
        told[f"{metric}, rule"] = scores(predicted, data.test.labels, data.classes)[metric]
    return told


def paired(values: list[float], reference: list[float]) -> tuple[float, float]:
    """Mean difference and half of its 95 % interval over seeds (Student's t); infinite with one seed."""
    difference = [a - b for a, b in zip(values, reference, strict=True)]
    if len(difference) < 2:
        return difference[0], float("inf")
    error = statistics.stdev(difference) / len(difference) ** 0.5
    return statistics.mean(difference), float(scipy.stats.t.ppf(0.975, len(difference) - 1) * error)


COLUMNS = (
    "accuracy, argmax",
    "balanced accuracy, argmax",
    "count distance, argmax",
    "accuracy, rule",
    "balanced accuracy, rule",
)


def table(name: str, told: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = [f"{name}", f"  {'':24s}" + "".join(f"{column:>27s}" for column in COLUMNS)]
    for remedy, runs in told.items():
        cells = ""
        for column in COLUMNS:
            values = [one[column] for one in runs]
            reference = [one[column] for one in told[REFERENCE]]
            cell = f"{statistics.mean(values):.3f}"
            if remedy != REFERENCE:
                middle, half = paired(values, reference)
                cell += f" ({middle:+.3f} ±{half:.3f})"
            cells += f"{cell:>27s}"
        lines.append(f"  {remedy:24s}{cells}")
    return lines


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder of the real sets.",
)
@click.option("--sets", default=",".join(DEFAULT_SETS), show_default=True, help="Which sets, comma-separated.")
@click.option("--remedies", default="", help="Only remedies whose name contains one of these, comma-separated.")
@click.option("--seeds", default=3, show_default=True, help="Networks per remedy and set.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per network.")
def command(data: Path, sets: str, remedies: str, seeds: int, as_json: bool) -> None:
    """Train every loss alike on real sets; argmax beside the loss's own decision rule.

    \b
    python -m benchmarks lossrace --data DIR
    python -m benchmarks lossrace --data DIR --sets names18 --remedies focal --seeds 5
    """
    wanted = [word for word in remedies.split(",") if word]
    chosen = [r for r in REMEDIES if not wanted or r.name == REFERENCE or any(word in r.name for word in wanted)]
    if not as_json:
        click.echo(json.dumps(measure.machine()))
    for name in sets.split(","):
        told: dict[str, list[dict[str, float]]] = defaultdict(list)
        for seed in range(seeds):
            part = realdata.load(name, data, seed=seed)
            for remedy in chosen:
                figures = run(part, remedy, seed)
                told[remedy.name].append(figures)
                if as_json:
                    click.echo(json.dumps({"set": name, "remedy": remedy.name, "seed": seed} | figures))
        if not as_json:
            shape = {
                "classes": part.classes,
                "train": len(part.train.labels),
                "test": len(part.test.labels),
                "epochs": part.epochs,
            }
            click.echo("\n".join(table(f"{name} {shape}", told)))
