"""What an epoch of draws costs: 10,000,000 rows of 10,000 classes, beside torch's samplers, every case in a process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import fresh, machine, median

GOAL = 3.0  # seconds per epoch
MULTINOMIAL = 2**24  # more categories are refused by torch.multinomial
BATCH = 256


@dataclass(frozen=True)
class Size:
    """Rows and classes; Zipf counts, every class has a row."""

    rows: int = 10_000_000
    classes: int = 10_000


@dataclass(frozen=True)
class Row:
    """A case: seconds (median of wall and processor time) of building and of one epoch, or why there is none."""

    sampler: str
    epoch: str
    build: float | None = None
    first: float | None = None
    seconds: float | None = None
    cpu: float | None = None
    met: bool | None = None
    refused: str = ""


def labels(size: Size) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    prior = 1 / np.arange(1, size.classes + 1)
    drawn = rng.choice(size.classes, size.rows, p=prior / prior.sum())
    drawn[: size.classes] = np.arange(size.classes)
    return rng.permutation(drawn)


def ours(y: NDArray[np.int64], power: float = 0.0, **options: Any) -> Any:
    from evenhand.training.samplers import ClassPowerSampler

    return ClassPowerSampler(y, power, **options)


def weighted(y: NDArray[np.int64]) -> Any:
    """torch's usual way to a balanced epoch."""
    import torch
    from torch.utils.data import WeightedRandomSampler

    return WeightedRandomSampler(torch.from_numpy(1.0 / np.bincount(y)[y]), len(y))


def shuffled(y: NDArray[np.int64]) -> Any:
    from torch.utils.data import RandomSampler

    return RandomSampler(range(len(y)))


SAMPLERS: dict[str, Callable[[NDArray[np.int64]], Any]] = {
    "evenhand balanced": lambda y: ours(y, 0.0),
    "evenhand square root": lambda y: ours(y, 0.5),
    "evenhand natural": lambda y: ours(y, 1.0),
    "evenhand balanced, independent": lambda y: ours(y, 0.0, replacement=True),
    "evenhand balanced, 1 of 8 ranks": lambda y: ours(y, 0.0, num_replicas=8, rank=3),
    "torch WeightedRandomSampler": weighted,
    "torch RandomSampler": shuffled,
}


def arrays(sampler: Any) -> int:
    return len(sampler.indices())


def one_by_one(sampler: Iterable[int]) -> int:
    count = 0
    for _ in sampler:
        count += 1
    return count


def batches(sampler: Any) -> int:
    """As a loader asks for them."""
    from torch.utils.data import BatchSampler

    return sum(len(batch) for batch in BatchSampler(sampler, BATCH, drop_last=False))


EPOCHS: dict[str, Callable[[Any], int]] = {
    "as arrays": arrays,
    "one by one": one_by_one,
    f"in batches of {BATCH}": batches,
}


def case(sampler: str, epoch: str, rows: int, classes: int) -> Callable[[], dict[str, Any]]:
    """For :func:`benchmarks.measure.fresh`: the epoch is timed; building and the first index are told."""
    y = labels(Size(rows, classes))
    SAMPLERS[sampler](np.arange(100) % 10)  # imports

    begin = time.perf_counter()
    built = SAMPLERS[sampler](y)
    build = time.perf_counter() - begin
    begin = time.perf_counter()
    next(iter(built))
    first = time.perf_counter() - begin

    def work() -> dict[str, Any]:
        return {"draws": EPOCHS[epoch](built), "build": build, "first": first}

    return work


def measured(sampler: str, epoch: str, size: Size, runs: int) -> Row:
    row = Row(sampler, epoch)
    if sampler == "torch WeightedRandomSampler" and size.rows > MULTINOMIAL:
        return replace(row, refused=refusal(size))
    found = [fresh("benchmarks.samplers:case", sampler=sampler, epoch=epoch, **asdict(size)) for _ in range(runs)]
    seconds = median(found, "seconds")
    full = (size.rows, size.classes) == (Size.rows, Size.classes)
    return replace(
        row,
        build=min(run.result["build"] for run in found),
        first=min(run.result["first"] for run in found),
        seconds=seconds,
        cpu=median(found, "cpu"),
        met=seconds < GOAL if full and sampler.startswith("evenhand") else None,
    )


def refusal(size: Size) -> str:
    """What torch says to this many categories."""
    import torch

    try:
        torch.multinomial(torch.ones(size.rows), 1)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


def line(row: Row) -> str:
    if row.refused:
        return f"{row.sampler:34}{row.epoch:20}refused: {row.refused}"
    mark = {True: "met", False: "NOT MET", None: ""}[row.met]
    return f"{row.sampler:34}{row.epoch:20}{row.build:8.2f}{row.first:9.4f}{row.seconds:9.2f}{row.cpu:9.2f}  {mark}"


@click.command()
@click.option("--rows", default=Size.rows, show_default=True, help="Rows of the data, and draws per epoch.")
@click.option("--classes", default=Size.classes, show_default=True, help="Classes, with Zipf counts.")
@click.option("--sampler", "names", multiple=True, type=click.Choice(list(SAMPLERS)), help="Only this; repeatable.")
@click.option("--runs", default=3, show_default=True, help="Runs per case, each in its own process; the median counts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def command(rows: int, classes: int, names: tuple[str, ...], runs: int, as_json: bool) -> None:
    """Time of an epoch of a class sampler; goal: below 3 s for 10,000,000 rows and 10,000 classes."""
    about, size = machine(), Size(rows, classes)
    click.echo(json.dumps(about) if as_json else "\n".join(f"{key}: {value}" for key, value in about.items()) + "\n")
    if not as_json:
        click.echo(f"{rows:,} rows, {classes:,} classes; seconds: build, first index, epoch, its processor time")
    for sampler in names or SAMPLERS:
        for epoch in EPOCHS:
            if epoch == "as arrays" and sampler.startswith("torch"):
                continue
            row = measured(sampler, epoch, size, runs)
            click.echo(json.dumps({"kind": "row", **asdict(row)}) if as_json else line(row))
