"""Is the race's recommendation the best remedy in hindsight? Chosen on one half of fresh rows, judged on the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import measure
from benchmarks.question import data, networks
from benchmarks.question.command import chosen
from evenhand.training import Recipe, race

EPOCHS = {"names18": 5, "banking77": 8, "clinc150_lt": 20, "avonet": 20, "kanjivg_radical": 20, "stdlib": 5}
DEFAULT_SETS = (
    "clinc150_lt", "names18", "banking77", "avonet", "kanjivg_radical", "ua_device", "ud_finnish_morph", "onet_titles",
)  # fmt: skip


def fresh(part: data.QuestionSet) -> tuple[tuple[torch.Tensor, torch.Tensor], np.ndarray]:
    """Validation and test rows together, and the groups that must stay together; the race halves them."""
    rows = (part.validation, part.test)
    length = max(one.inputs.shape[1] for one in rows)

    def wide(inputs: np.ndarray) -> np.ndarray:
        return np.pad(inputs, [(0, 0), (0, length - inputs.shape[1]), *[(0, 0)] * (inputs.ndim - 2)])

    inputs, labels = np.concatenate([wide(one.inputs) for one in rows]), np.concatenate([one.labels for one in rows])
    group = np.concatenate([one.groups for one in rows])
    return (torch.from_numpy(inputs), torch.from_numpy(labels)), group


def run(part: data.QuestionSet, goal: str, *, seeds: int, epochs: int, remedies: str | None) -> dict[str, Any]:
    """One race; the recommended candidate and the one that the judging half, in hindsight, puts first."""
    valid, group = fresh(part)
    train = (torch.from_numpy(part.train.inputs), torch.from_numpy(part.train.labels))
    found = race(
        lambda: networks.network(part, "linear", torch.initial_seed() % 2**31), train, valid,
        remedies=remedies, seeds=seeds, budget=f"{epochs}epochs", goal=goal, counts=part.counts, group=group,
        recipe=Recipe(learning_rate=2e-3), name=part.name,
    )  # fmt: skip
    able = [entry for entry in found.entries if entry.value is not None and entry.seeds == seeds]
    best, taken = max(able, key=lambda entry: found.sign * entry.value.value), found.recommended
    plain = next(entry for entry in able if entry.name == "plain")
    gap = None if taken is None else found.sign * (best.value.value - taken.value.value)
    return {
        "set": part.name, "goal": goal, "recommended": None if taken is None else taken.name, "best": best.name,
        "plain": plain.value.value, "value": None if taken is None else taken.value.value,
        "best value": best.value.value, "gap": gap, "error": best.value.error, "overhead": found.overhead,
        "within": gap is not None and gap <= best.value.error, "candidates": len(able), "seconds": found.wall,
        "trainings": found.trainings, "rows": found.rows,
    }  # fmt: skip


@click.command()
@click.option("--data", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder of the real sets.")  # fmt: skip
@click.option("--sets", default=",".join(DEFAULT_SETS), show_default=True, help="Which sets, comma-separated.")
@click.option("--goal", "goals", multiple=True, default=("balanced-accuracy",), show_default=True)
@click.option("--seeds", type=click.IntRange(2), default=3, show_default=True, help="Trainings per remedy.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Instead of the set's own number.")
@click.option("--remedies", default=None, help="For the race; its default where not given.")
def command(
    folder: Path, sets: str, goals: tuple[str, ...], seeds: int, epochs: int | None, remedies: str | None
) -> None:
    """The race on real sets: what it recommends, and what fresh rows put first.

    \b
    python -m benchmarks racehindsight --data DIR
    """
    torch.set_num_threads(1)
    click.echo(json.dumps(measure.machine()))
    for name in chosen(sets, data.SETS, "sets"):
        part = data.load(name, folder, 0)
        for goal in goals:
            told = run(part, goal, seeds=seeds, epochs=epochs or EPOCHS.get(name, 8), remedies=remedies)
            click.echo(json.dumps(told))
