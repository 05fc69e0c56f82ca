"""The race itself: its overhead, and whether what it recommends is the best in hindsight on rows it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import measure, realdata
from evenhand import training
from evenhand.training.models import built_in
from evenhand.training.rows import TensorRows

DEFAULT_SETS = ("names18", "avonet", "kanjivg_radical", "ua_device", "clinc150_lt", "banking77")
GOALS = ("accuracy", "balanced-accuracy", "macro-f1")
QUICK = {"classes": 50, "rows": 20_000, "features": 64}


def generated(seed: int, rows: int) -> TensorRows:
    """Zipf counts over 50 classes, overlapping Gaussian clouds."""
    classes, features = QUICK["classes"], QUICK["features"]
    share = 1 / np.arange(1, classes + 1)
    centre = np.random.default_rng(0).normal(size=(classes, features)) * 0.35
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), np.maximum(20, (rows * share / share.sum()).astype(int)))
    x = centre[y] + rng.normal(size=(len(y), features))
    return TensorRows(torch.tensor(x, dtype=torch.float32), torch.tensor(y))


def told(result: training.RaceResult) -> dict[str, Any]:
    """What a race recommends beside what the judging rows show to be best; these had no part in the choice."""
    done = [entry for entry in result.entries if entry.value is not None]
    best, taken = done[0], result.recommended
    plain = next(entry for entry in done if entry.name == "plain")
    gap = result.sign * (best.value.value - taken.value.value)
    return {
        "plain": plain.value.value,
        "recommended": taken.name,
        "value": taken.value.value,
        "interval": list(taken.value.interval),
        "difference to plain": None if taken.difference is None else list(taken.difference.interval),
        "best in hindsight": best.name,
        "gap": gap,
        "standard error of the best": best.value.error,
        "within": gap <= best.value.error,
        "verdict": result.verdict.kind,
        "trainings": result.trainings,
        "overhead": result.overhead,
    }


@click.command()
@click.option("--quick", is_flag=True, help="The overhead only, on generated rows.")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the real sets.")
@click.option("--sets", default=",".join(DEFAULT_SETS), show_default=True)
@click.option("--goals", default=",".join(GOALS), show_default=True)
@click.option("--remedies", help="As for evenhand race; the default there if left out.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--epochs", type=float, help="Per training; the set's own if left out, 20 with --quick.")
def command(
    quick: bool, data: Path | None, sets: str, goals: str, remedies: str | None, seeds: int, epochs: float | None
) -> None:
    """Race on generated rows (overhead) or on real sets (recommendation against hindsight); one JSON line each.

    \b
    python -m benchmarks race --quick
    python -m benchmarks race --data DIR --sets names18,avonet --seeds 3
    """
    torch.set_num_threads(1)
    click.echo(json.dumps(measure.machine()))
    if quick:
        train, valid = generated(1, QUICK["rows"]), generated(2, QUICK["rows"] // 4)
        model = built_in("mlp", train, QUICK["classes"])
        chosen = remedies or "weighted,crt,ldam-drw"
        # The first training of a process loads the compiler of torch, seconds that no second race in it would pay.
        training.fit(model(), train, steps=2)
        result = training.race(model, train, valid, remedies=chosen, seeds=seeds, budget=f"{epochs or 20}epochs")
        click.echo(json.dumps({"set": "generated", "steps": result.steps, "wall": result.wall} | told(result)))
        return
    if data is None:
        raise click.UsageError("Name the folder of the real sets with --data, or use --quick.")
    for name in sets.split(","):
        part = realdata.load(name, data, seed=0)
        train, valid = (
            TensorRows(torch.from_numpy(p.features), torch.from_numpy(p.labels)) for p in (part.train, part.test)
        )
        model = built_in("mlp", train, part.classes)
        for goal in goals.split(","):
            budget = f"{epochs or part.epochs}epochs"
            result = training.race(model, train, valid, remedies=remedies, seeds=seeds, budget=budget, goal=goal)
            shape = {"set": name, "goal": goal, "classes": part.classes, "judging rows": result.rows["judging"]}
            click.echo(json.dumps(shape | told(result)))


__all__ = ["DEFAULT_SETS", "command", "generated", "told"]
