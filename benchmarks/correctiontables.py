"""The tables of the correction benchmark, from a run that just ended or from the lines of earlier ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import click
import numpy as np

from benchmarks.correctionpriors import PriorTrial
from benchmarks.correctionsummary import Line, harm, recovery
from benchmarks.correctiontrial import Trial
from evenhand.goals import GOALS


def points(value: float, share: bool) -> str:
    return f"{100 * value:.1f}" if share else f"{value:.3f}"


def gap(value: float, ends: tuple[float, float], share: bool) -> str:
    low, high = (points(end, share) for end in ends)
    return f"{'+' if value >= 0 else ''}{points(value, share)} ({low} to {high})"


def line_row(found: Line) -> str:
    share = GOALS[found.goal].metric.share
    return (
        f"| {found.data} | {found.model} | {found.evaluation} | {found.goal} | {points(found.argmax, share)} | "
        f"{points(found.ours, share)} | {gap(found.gain, found.gain_interval, share)} | "
        f"{found.best_peer} {points(found.peer, share)} | {gap(found.over_peer, found.over_peer_interval, share)} | "
        f"{found.recommended} of {found.seeds} |"
    )


HEADER = (
    "| set | model | rows | goal | argmax | evenhand | gain (95 %) | best peer | over it (95 %) | recommended |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def goal_lines(lines: list[Line]) -> Iterator[str]:
    """Per goal and rows: each model's mean gain over the sets, which are independent, and how the peers compare."""
    models = list(dict.fromkeys(one.model for one in lines))
    yield f"| goal | rows | {' | '.join(models)} | above | within noise | below |"
    yield "|---" * (len(models) + 5) + "|"
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for one in lines:
        groups[one.evaluation, one.goal].append(one)
    for (evaluation, goal), group in groups.items():
        above, within, below = beside_peers(group)
        gains = [_mean_gain([one for one in group if one.model == model]) for model in models]
        yield f"| {goal} | {evaluation} | {' | '.join(gains)} | {len(above)} | {len(within)} | {len(below)} |"


def _mean_gain(group: list[Line]) -> str:
    if not group:
        return ""
    share = GOALS[group[0].goal].metric.share
    mean = float(np.mean([one.gain for one in group]))
    half = float(np.hypot.reduce([(one.gain_interval[1] - one.gain_interval[0]) / 2 for one in group])) / len(group)
    return gap(mean, (mean - half, mean + half), share)


def beside_peers(lines: list[Line]) -> tuple[list[Line], list[Line], list[Line]]:
    """Those above the best peer, within noise of it and below it, by 95 % intervals that are not adjusted."""
    above = [one for one in lines if one.over_peer_interval[0] > 0]
    below = [one for one in lines if one.over_peer_interval[1] < 0]
    within = [one for one in lines if one.over_peer_interval[0] <= 0 <= one.over_peer_interval[1]]
    return above, within, below


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


def show(lines: list[Line], found: list[Trial], priors: list[PriorTrial]) -> None:
    click.echo(HEADER)
    for one in lines:
        click.echo(line_row(one))
    click.echo("")
    for text in goal_lines(lines):
        click.echo(text)
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
    above, within, below = beside_peers(lines)
    sentence = (
        f"{len(lines)} lines: above the best peer in {len(above)}, within noise of it in "
        f"{len(within)}, below it in {len(below)} (95 %, not adjusted)"
    )
    listed = "".join(f"\n  below: {b.data} {b.model} {b.evaluation} {b.goal} {b.over_peer:+.4f}" for b in below)
    return sentence + listed
