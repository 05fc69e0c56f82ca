"""CLINC150-LT on a CPU: remedies and post-hoc adjustment beside the reference table, chosen on validation rows."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import clincdata, measure
from benchmarks.clincdata import BagNetwork, LongTail, Texts
from benchmarks.lossrace import paired
from evenhand import losses
from evenhand.counts import log_prior
from evenhand.losses import DeferredReweighting

EPOCHS, BATCH = 20, 128
EMBEDDING_RATE, HEAD_RATE = 0.01, 0.003
TAUS = (0.0, 0.5, 1.0, 1.5, 2.0)
COSINE_SCALE = 30.0
PLAIN = "cross-entropy"
# Test accuracy in per cent, one seed, at imbalance 10, 50 and 100: README of the data sets.
REFERENCE = {10.0: {0.0: 81.2, 0.5: 82.1, 1.0: 82.1}, 50.0: {0.0: 64.8, 0.5: 68.2, 1.0: 69.8},
             100.0: {0.0: 57.6, 0.5: 62.0, 1.0: 64.1}}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One way of training under the budget; the options are those of `losses.build`."""

    name: str
    loss: str = "cross-entropy"
    options: dict[str, Any] = field(default_factory=dict)
    cosine: bool = False
    deferred: bool = False
    dropout: float = 0.0
    sampler: bool = False


WAYS = (
    Way(PLAIN),
    Way("balanced weights", "weighted"),
    Way("square-root weights", "weighted", {"rule": "sqrt"}),
    Way("balanced sampler", sampler=True),
    Way("focal, gamma 2", "focal", {"gamma": 2.0}),
    Way("focal, gamma 2, balanced alpha", "focal", {"gamma": 2.0, "alpha": "balanced"}),
    Way("balanced softmax", "balanced-softmax"),
    Way("LDAM-DRW (cosine head)", "ldam", cosine=True, deferred=True),
    Way("cosine head, cross-entropy", "ldam", {"max_margin": 0.0}, cosine=True),
    Way("label-aware smoothing", "label-aware-smoothing"),
    Way("cross-entropy, dropout 0.5", dropout=0.5),
    Way("balanced softmax, dropout 0.5", "balanced-softmax", dropout=0.5),
    Way("cosine head, label smoothing 0.1", "ldam", {"max_margin": 0.0, "label_smoothing": 0.1}, cosine=True),
    Way("cosine head, dropout 0.5", "ldam", {"max_margin": 0.0}, cosine=True, dropout=0.5),
)


def trained(data: LongTail, way: Way, seed: int, epochs: int) -> BagNetwork:
    """Adam at two rates, both falling linearly to 0 from epoch to epoch; every way sees the same shuffles.

    The embedding's Adam moves only the words of the batch. The dense one goes on moving a word for some ten steps after
    it was seen, which costs three points of accuracy here.
    """
    torch.manual_seed(seed)
    made = BagNetwork(data.vocabulary, len(data.counts), cosine=way.cosine, dropout=way.dropout)
    criterion = losses.build(way.loss, data.counts, **way.options)
    deferred = DeferredReweighting(criterion, round(0.8 * epochs)) if way.deferred else None
    optimisers = [torch.optim.SparseAdam(made.embedding.parameters(), lr=EMBEDDING_RATE),
                  torch.optim.Adam(made.head.parameters(), lr=HEAD_RATE)]  # fmt: skip
    schedules = [torch.optim.lr_scheduler.LinearLR(one, 1.0, 0.0, total_iters=epochs) for one in optimisers]
    rng, labels = np.random.default_rng(seed), torch.from_numpy(data.train.labels)
    chance = 1 / data.counts[data.train.labels]
    for epoch in range(epochs):
        if deferred:
            deferred.step(epoch)
        n = len(labels)
        order = rng.choice(n, n, p=chance / chance.sum()) if way.sampler else rng.permutation(n)
        for rows in np.split(order, range(BATCH, n, BATCH)):
            made.zero_grad()
            criterion(made(*data.train.batch(rows)), labels[rows]).backward()
            for optimiser in optimisers:
                optimiser.step()
        for schedule in schedules:
            schedule.step()
    return made.eval()


def scores(made: BagNetwork, texts: Texts) -> np.ndarray:
    with torch.no_grad():
        told = made(*texts.batch(np.arange(len(texts)))).double().numpy()
    return told * COSINE_SCALE if isinstance(made.head, losses.CosineLinear) else told


def figures(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Accuracy in per cent, over all classes and thirds of them by rank; how many classes are never predicted."""
    predicted = logits.argmax(axis=1)
    right = predicted == labels
    thirds = np.array_split(np.arange(len(counts)), 3)
    named = zip(("many", "medium", "few"), thirds, strict=True)
    return {
        "accuracy": 100 * float(right.mean()),
        **{name: 100 * float(right[np.isin(labels, members)].mean()) for name, members in named},
        "never": float(len(counts) - len(np.unique(predicted))),
    }


def run(data: LongTail, way: Way, seed: int, epochs: int = EPOCHS) -> dict[float, dict[str, Any]]:
    """tau -> figures on the test rows and accuracy on the validation rows, of one trained network."""
    made = trained(data, way, seed, epochs)
    held_out, test = scores(made, data.validation), scores(made, data.test)
    level = log_prior(data.counts)
    return {
        tau: figures(test - tau * level, data.test.labels, data.counts)
        | {"validation": figures(held_out - tau * level, data.validation.labels, data.counts)["accuracy"]}
        for tau in TAUS
    }


Told = dict[tuple[str, float], list[dict[str, Any]]]
OWN = ("imbalance", "way", "seed", "tau", "rows")  # what a stored line says beside the figures


def chosen(told: Told) -> tuple[str, float]:
    """The way and tau with the best mean accuracy on validation rows; test rows play no part."""
    return max(told, key=lambda key: np.mean([one["validation"] for one in told[key]]))


def spread(values: Sequence[float]) -> str:
    middle, half = paired(list(values), [0.0] * len(values))
    return f"{middle:.1f}" + (f" ± {half:.1f}" if np.isfinite(half) else "")


def table(factor: float, told: Told, rows: int) -> list[str]:
    """Markdown: plain training at the taus of the reference, then every way at the tau its validation rows choose."""
    lines = [f"### Imbalance {factor:g} ({rows:,} training rows)", "",
             "| training | tau | test accuracy | many / medium / few | never predicted | validation | reference |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    keys = [(PLAIN, tau) for tau in (0.0, 0.5, 1.0)]
    for name in dict.fromkeys(name for name, _ in told):
        best = chosen({key: runs for key, runs in told.items() if key[0] == name})
        keys += [] if best in keys else [best]
    winner = chosen(told)
    for key in keys:
        runs = told[key]
        mean = {name: float(np.mean([one[name] for one in runs])) for name in runs[0]}
        reference = REFERENCE.get(factor, {}).get(key[1], "") if key[0] == PLAIN else ""
        name = f"**{key[0]}** (chosen)" if key == winner else key[0]
        lines.append(
            f"| {name} | {key[1]:g} | {spread([one['accuracy'] for one in runs])} | {mean['many']:.1f} / "
            f"{mean['medium']:.1f} / {mean['few']:.1f} | {mean['never']:.1f} | {mean['validation']:.1f} | {reference} |"
        )
    return [*lines, ""]


def stored(paths: Sequence[Path]) -> dict[float, tuple[int, Told]]:
    """Imbalance -> training rows and figures, from the lines of `--json`, with the ways in their own order."""
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    places = [way.name for way in WAYS]
    lines.sort(key=lambda line: (places.index(line["way"]), line["tau"], line["seed"]))
    told: dict[float, tuple[int, Told]] = {}
    for line in sorted(lines, key=lambda line: line["imbalance"]):
        _, runs = told.setdefault(line["imbalance"], (line["rows"], {}))
        runs.setdefault((line["way"], line["tau"]), []).append({k: v for k, v in line.items() if k not in OWN})
    return told


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None,
              help="Folder of the real sets.")  # fmt: skip
@click.option("--imbalance", "factors", multiple=True, type=click.FloatRange(1), default=(10.0, 50.0, 100.0),
              show_default=True, help="Imbalance factors; may be repeated.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Networks per way.")
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True, help="The budget of every way.")
@click.option("--ways", default="", help="Only ways whose name contains one of these, comma-separated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per network and tau.")
@click.option("--read", "paths", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Train nothing; print the tables of lines that --json wrote. May be repeated.")  # fmt: skip
def command(
    data: Path | None,
    factors: tuple[float, ...],
    seeds: int,
    epochs: int,
    ways: str,
    as_json: bool,
    paths: tuple[Path, ...],
) -> None:
    """CLINC150-LT: the reference table again, and what remedies reach under its budget.

    \b
    python -m benchmarks clinc --data DIR
    python -m benchmarks clinc --data DIR --imbalance 100 --seeds 1
    """
    if paths:
        for factor, (rows, told) in stored(paths).items():
            click.echo("\n".join(table(factor, told, rows)))
        return
    if data is None:
        raise click.UsageError("expected --data with the folder of the real sets, or --read with stored lines")
    torch.set_num_threads(1)
    words = [word for word in ways.split(",") if word]
    wanted = [way for way in WAYS if not words or way.name == PLAIN or any(word in way.name for word in words)]
    if not as_json:
        click.echo(json.dumps(measure.machine()) + "\n")
    for factor in factors:
        part = clincdata.load(data, factor)
        told = defaultdict(list)
        for seed in range(seeds):
            for way in wanted:
                for tau, found in run(part, way, seed, epochs).items():
                    told[way.name, tau].append(found)
                    if as_json:
                        line = {"imbalance": factor, "way": way.name, "seed": seed, "tau": tau, "rows": len(part.train)}
                        click.echo(json.dumps(line | found))
        if not as_json:
            click.echo("\n".join(table(factor, told, len(part.train))))
