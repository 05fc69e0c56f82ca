"""Does a correction serve its goal on rows it has not seen, and does it ever do harm? Trained networks, real data."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import correctionpeers as peers
from benchmarks.correctionnets import MODELS, scored
from benchmarks.correctionpriors import PriorTrial, prior_trials
from benchmarks.correctionspeed import LARGE, USUAL, Speed, speeds
from benchmarks.correctionsummary import Line, all_lines, harm, read, recovery, trial_json
from benchmarks.correctiontables import show
from benchmarks.correctiontrial import EVALUATIONS, Trial, trials, tried_goals
from benchmarks.measure import machine
from benchmarks.realdata import SETS
from evenhand.goals import GOALS, Goal

QUICK_EPOCHS, QUICK_ROWS = 1, (500, 50)


def speed_row(found: Speed) -> str:
    goal = "" if found.goal is None else f"{found.goal:g} {found.unit}"
    met = {None: "", True: "yes", False: "no"}[found.met]
    fast = "" if found.fast is None else f"{found.fast:.3g}"
    cost = f"{found.value:.3g} {found.unit}"
    return f"| {found.shape} | {found.name} | {cost} | {found.seconds:.2g} s | {fast} | {goal} | {met} |"


def measure_speed(quick: bool, absent: dict[str, str], as_json: bool) -> None:
    shapes = (QUICK_ROWS,) if quick else (USUAL, LARGE)
    if not as_json:
        click.echo(
            "| scores | what | cost | processor time | fast passes | goal | met |\n|---|---|---|---|---|---|---|"
        )
    for shape in shapes:
        for found in speeds(shape, runs=1 if quick or shape == LARGE else 5, absent=absent, judged=not quick):
            told = {"kind": "speed", **asdict(found), "met": found.met}
            click.echo(json.dumps(told) if as_json else speed_row(found))


def chosen_of(choices: tuple[str, ...], text: str, option: str) -> list[str]:
    if text == "all":
        return list(choices)
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in chosen if part not in choices]
    if unknown or not chosen:
        raise click.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(choices)}", param_hint=option
        )
    return chosen


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the real sets.")
@click.option("--sets", default="all", show_default=True, help=f"all, or some of {', '.join(SETS)}.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="Of splits and training runs.")
@click.option("--goals", default="all", show_default=True, help=f"all, or some of {', '.join(GOALS)}.")
@click.option("--models", default="all", show_default=True, help=f"all, or some of {', '.join(MODELS)}.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder that keeps the scores.")
@click.option("--speed", is_flag=True, help="Measure what fitting costs, on made-up scores.")
@click.option(
    "--lines",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure nothing: sum up what --json printed before. Give it once per file.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--quick", is_flag=True, help="One epoch, one seed, small speed cases: shows that it runs.")
def command(
    data: Path | None, sets: str, seeds: int, goals: str, models: str, cache: Path | None, speed: bool, as_json: bool,
    quick: bool, lines: tuple[Path, ...],
) -> None:  # fmt: skip
    """Fit corrections on half of the held-out rows, judge them and their peers on the other half."""
    chosen_sets = chosen_of(tuple(SETS), sets, "--sets")
    asked, unstated = tried_goals(chosen_of(tuple(GOALS), goals, "--goals"))
    chosen_models = chosen_of(tuple(MODELS), models, "--models")
    if bool(lines) == (data is not None or speed):
        raise click.UsageError("give --data, the folder of the real sets, and --speed, either or both; or only --lines")
    if lines:
        sum_up(*read(lines), as_json=as_json)
        return
    absent = peers.missing()
    for module, how in absent.items():
        click.echo(f"without {module}: {how}", err=True)
    for name in unstated:
        click.echo(f"goal {name} left out: it needs something this benchmark does not state", err=True)
    if as_json:
        click.echo(json.dumps(machine()))
    if speed:
        measure_speed(quick, absent, as_json)
    if data is not None:
        with tempfile.TemporaryDirectory() as folder:
            kept = cache or Path(folder)
            measure_goals(data, chosen_sets, 1 if quick else seeds, asked, chosen_models, kept, absent, as_json, quick)


def measure_goals(
    data: Path, sets: list[str], seeds: int, goals: list[Goal], models: list[str], cache: Path,
    absent: dict[str, str], as_json: bool, quick: bool,
) -> None:  # fmt: skip
    found: list[Trial] = []
    priors: list[PriorTrial] = []
    for name in sets:
        for seed in range(seeds):
            for model in models:
                answers = scored(name, model, seed, data=data, cache=cache, epochs=QUICK_EPOCHS if quick else None)
                run: dict[str, Any] = {"data": name, "seed": seed, "model": model, "absent": absent}
                new = [t for e in EVALUATIONS for t in trials(answers, goals, evaluation=e, **run)]
                moved = prior_trials(answers, **run)
                found, priors = found + new, priors + list(moved)
                click.echo(f"{name}, seed {seed}, {model}: {len(new)} corrections", err=True)
                if as_json:
                    for told in [trial_json(t) for t in new] + [{"kind": "prior", **asdict(p)} for p in moved]:
                        click.echo(json.dumps(told))
    sum_up(all_lines(found), found, priors, as_json=as_json)


def sum_up(lines: list[Line], found: list[Trial], priors: list[PriorTrial], *, as_json: bool) -> None:
    if not as_json:
        show(lines, found, priors)
        return
    for told in [*({"kind": "line", **asdict(one)} for one in lines), harm(found), *recovery(found)]:
        click.echo(json.dumps(told))
