"""Does a correction serve its goal on rows it has not seen, and does it ever do harm? Trained networks, real data."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import correctionpeers as peers
from benchmarks.correctionnets import MODELS, scored
from benchmarks.correctionpriors import PriorTrial, prior_trials
from benchmarks.correctionspeed import LARGE, USUAL, Speed, speeds
from benchmarks.correctiontrial import (
    ARGMAX,
    DRAWS,
    EVALUATIONS,
    FIXED,
    OURS,
    TUNED,
    Trial,
    holm,
    trials,
    tried_goals,
)
from benchmarks.measure import machine
from benchmarks.realdata import SETS
from evenhand.goals import GOALS, Goal

RECOVERY = {"doubly-weighted": 0.80, "weighted": 0.93}
QUICK_EPOCHS, QUICK_ROWS = 1, (500, 50)


@dataclass(frozen=True)
class Line:
    """One line of the table: means over seeds, intervals over rows and seeds; gains are oriented: more is better."""

    data: str
    model: str
    evaluation: str
    goal: str
    seeds: int
    recommended: int
    argmax: float
    ours: float
    gain: float
    gain_interval: tuple[float, float]
    best_peer: str
    peer: float
    over_peer: float
    over_peer_interval: tuple[float, float]


def line(group: list[Trial]) -> Line:
    """The peer that did best on the very rows it is judged on stands for the peers, which favours it."""
    first = group[0]
    names = [name for name in first.values if name not in (OURS, TUNED, FIXED) and not name.startswith("evenhand's")]
    mean = {name: float(np.mean([t.values[name] for t in group])) for name in first.values}
    best = max(names, key=lambda name: first.sign * mean[name])
    gain, gain_interval = over(group, ARGMAX)
    more, more_interval = over(group, best)
    return Line(
        first.data, first.model, first.evaluation, first.goal, len(group), sum(t.recommended for t in group),
        mean[ARGMAX], mean[OURS], gain, gain_interval, best, mean[best], more, more_interval,
    )  # fmt: skip


def all_lines(found: list[Trial]) -> list[Line]:
    groups: dict[tuple[str, str, str, str], list[Trial]] = defaultdict(list)
    for trial in found:
        groups[trial.data, trial.model, trial.evaluation, trial.goal].append(trial)
    return [line(group) for group in groups.values()]


def over(group: list[Trial], other: str) -> tuple[float, tuple[float, float]]:
    """Mean advantage and its 95 % interval: seeds are drawn anew, and with each its own bootstrap over rows."""
    gaps = np.array([t.sign * (t.values[OURS] - t.values[other]) for t in group])
    draws = np.stack([t.sign * (t.draws[OURS] - t.draws[other]) for t in group])
    draws += (gaps - draws.mean(axis=1))[:, None]
    rng = np.random.default_rng(0)
    picks = rng.integers(len(group), size=(4000, len(group)))
    means = draws[picks, rng.integers(DRAWS, size=picks.shape)].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(gaps.mean()), (float(low), float(high))


def harm(found: list[Trial]) -> dict[str, Any]:
    """How often a correction was worse than the argmax on its own goal, recommended or not."""
    result: dict[str, Any] = {"kind": "harm"}
    for words, chosen in (
        ("recommended", [t for t in found if t.recommended]),
        ("not recommended", [t for t in found if not t.recommended]),
    ):
        rejected = holm([t.harm_p for t in chosen])
        result[words] = {
            "runs": len(chosen),
            "significantly worse (Holm, 5 %)": sum(rejected),
            "interval wholly below zero": sum(t.gain_interval[1] < 0 for t in chosen),
            "interval wholly above zero": sum(t.gain_interval[0] > 0 for t in chosen),
            "worse": sum(t.gain < 0 for t in chosen),
            "better": sum(t.gain > 0 for t in chosen),
            "promised gain, mean": float(np.mean([t.promised for t in chosen if _shared(t)] or [0.0])),
            "gain, mean": float(np.mean([t.gain for t in chosen if _shared(t)] or [0.0])),
            "worst": [
                [t.data, t.seed, t.model, t.evaluation, t.goal, round(t.gain, 4), round(t.harm_p, 5)]
                for t in sorted(chosen, key=lambda t: t.harm_p)[:5]
            ],
        }
    return result


def _shared(trial: Trial) -> bool:
    """Costs have units of their own and do not average with shares."""
    return GOALS[trial.goal].metric.share


def recovery(found: list[Trial]) -> list[dict[str, Any]]:
    """Accuracy of corrected tilted models as a share of the plainly trained model's, on natural rows."""
    rows = {(t.data, t.seed, t.model): t for t in found if t.goal == "accuracy" and t.evaluation == "natural"}
    result = []
    for model, goal in RECOVERY.items():
        for data in dict.fromkeys(key[0] for key in rows):
            pairs = [
                (rows[data, seed, "plain"], t)
                for (name, seed, kind), t in rows.items()
                if name == data and kind == model and (data, seed, "plain") in rows
            ]
            if pairs:
                plain, before, after = (
                    float(np.mean(values))
                    for values in zip(
                        *((p.values[ARGMAX], t.values[ARGMAX], t.values[OURS]) for p, t in pairs), strict=True
                    )
                )
                result.append(
                    {"kind": "recovery", "data": data, "model": model, "plain": plain, "before": before, "after": after,
                     "regained": after / plain, "goal": goal}
                )  # fmt: skip
    return result


def trial_json(trial: Trial) -> dict[str, Any]:
    told = {key: value for key, value in asdict(trial).items() if key != "draws"}
    return {"kind": "trial", **told, "gain": trial.gain, "gain_interval": trial.gain_interval}


def points(value: float, share: bool) -> str:
    return f"{100 * value:.1f}" if share else f"{value:.3f}"


def line_row(found: Line) -> str:
    share = GOALS[found.goal].metric.share

    def gap(value: float, ends: tuple[float, float]) -> str:
        low, high = (points(end, share) for end in ends)
        return f"{'+' if value >= 0 else ''}{points(value, share)} ({low} to {high})"

    return (
        f"| {found.data} | {found.model} | {found.evaluation} | {found.goal} | {points(found.argmax, share)} | "
        f"{points(found.ours, share)} | {gap(found.gain, found.gain_interval)} | "
        f"{found.best_peer} {points(found.peer, share)} | {gap(found.over_peer, found.over_peer_interval)} | "
        f"{found.recommended} of {found.seeds} |"
    )


HEADER = (
    "| set | model | rows | goal | argmax | evenhand | gain (95 %) | best peer | over it (95 %) | recommended |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def prior_lines(found: list[PriorTrial]) -> Iterator[str]:
    names = list(found[0].distances)
    yield "| set | new rows | " + " | ".join(names) + " | answers |"
    yield "|---" * (len(names) + 3) + "|"
    groups: dict[tuple[str, str], list[PriorTrial]] = defaultdict(list)
    for trial in found:
        groups[trial.data, trial.new].append(trial)
    for (data, new), group in groups.items():
        means = [f"{np.mean([t.distances[name] for t in group]):.3f}" for name in names]
        answers = [t.answer for t in group]
        said = ", ".join(f"{answers.count(a)} {a}" for a in dict.fromkeys(answers))
        yield f"| {data} | {new} | " + " | ".join(means) + f" | {said} |"


def speed_row(found: Speed) -> str:
    goal = "" if found.goal is None else f"{found.goal:g} {found.unit}"
    met = {None: "", True: "yes", False: "no"}[found.met]
    fast = "" if found.fast is None else f"{found.fast:.3g}"
    cost = f"{found.value:.3g} {found.unit}"
    return f"| {found.shape} | {found.name} | {cost} | {found.seconds:.2g} s | {fast} | {goal} | {met} |"


def show(found: list[Trial], priors: list[PriorTrial]) -> None:
    lines = all_lines(found)
    click.echo(HEADER)
    for one in lines:
        click.echo(line_row(one))
    click.echo(f"\n{peer_sentence(lines)}\n")
    counted = harm(found)
    for words in ("recommended", "not recommended"):
        click.echo(
            f"{words}: " + ", ".join(f"{key} {value}" for key, value in counted[words].items() if key != "worst")
        )
        for worst in counted[words]["worst"]:
            click.echo("  " + " ".join(map(str, worst)))
    click.echo("\n| set | model | plain | before | after | regained | goal |\n|---|---|---|---|---|---|---|")
    for r in recovery(found):
        click.echo(
            f"| {r['data']} | {r['model']} | {r['plain']:.3f} | {r['before']:.3f} | {r['after']:.3f} | "
            f"{r['regained']:.0%} | {r['goal']:.0%} |"
        )
    if priors:
        click.echo("")
        for text in prior_lines(priors):
            click.echo(text)


def peer_sentence(lines: list[Line]) -> str:
    below = [one for one in lines if one.over_peer_interval[1] < 0]
    above = [one for one in lines if one.over_peer_interval[0] > 0]
    sentence = (
        f"{len(lines)} lines: above the best peer in {len(above)}, within noise of it in "
        f"{len(lines) - len(above) - len(below)}, below it in {len(below)} (95 %, not adjusted)"
    )
    listed = "".join(f"\n  below: {b.data} {b.model} {b.evaluation} {b.goal} {b.over_peer:+.4f}" for b in below)
    return sentence + listed


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
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--quick", is_flag=True, help="One epoch, one seed, small speed cases: shows that it runs.")
def command(
    data: Path | None, sets: str, seeds: int, goals: str, models: str, cache: Path | None, speed: bool, as_json: bool,
    quick: bool,
) -> None:  # fmt: skip
    """Fit corrections on half of the held-out rows, judge them and their peers on the other half."""
    chosen_sets = chosen_of(tuple(SETS), sets, "--sets")
    asked, unstated = tried_goals(chosen_of(tuple(GOALS), goals, "--goals"))
    chosen_models = chosen_of(tuple(MODELS), models, "--models")
    if data is None and not speed:
        raise click.UsageError("give --data, the folder of the real sets, or --speed")
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
    if not as_json:
        show(found, priors)
        return
    for told in [*({"kind": "line", **asdict(one)} for one in all_lines(found)), harm(found), *recovery(found)]:
        click.echo(json.dumps(told))
