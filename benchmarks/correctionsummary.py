"""What trials of corrections add up to: lines (one per goal and network), harm and recovery; JSON of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.correctionpriors import PriorTrial
from benchmarks.correctiontrial import ARGMAX, DRAWS, FIXED, OURS, TUNED, Trial, holm
from evenhand.goals import GOALS

RECOVERY = {"doubly-weighted": 0.80, "weighted": 0.93}


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
    return {"kind": "trial", **told, "gain": trial.gain}


def read(paths: Iterable[Path]) -> tuple[list[Line], list[Trial], list[PriorTrial]]:
    """What `--json` wrote. Lines are read, not made anew: their intervals need draws, which no file keeps."""
    kinds: dict[str, type[Any]] = {"line": Line, "trial": Trial, "prior": PriorTrial}
    found: dict[str, dict[tuple[Any, ...], Any]] = {kind: {} for kind in kinds}
    for path in paths:
        for number, text in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            try:
                told = json.loads(text)
                if told["kind"] not in kinds:
                    continue  # the machine, or a sum that is made anew over all files
                one = _made(kinds[told["kind"]], told)
            except (ValueError, KeyError, TypeError) as error:
                raise click.UsageError(
                    f"line {number} of {path} is not one that this benchmark writes; give what its --json printed"
                ) from error
            key = tuple(told.get(name) for name in ("data", "seed", "model", "evaluation", "goal", "new"))
            if key in found[told["kind"]]:
                raise click.UsageError(f"line {number} of {path} repeats an earlier one; give every run once")
            found[told["kind"]][key] = one
    lines, runs, priors = (list(found[kind].values()) for kind in kinds)
    if _counts(lines) != _counts(runs):
        raise click.UsageError("the lines are not those of the trials: give whole outputs of runs that ended")
    return lines, runs, priors


def _made(kind: type[Any], told: dict[str, Any]) -> Any:
    values = {"draws": {}, **told} if kind is Trial else told
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _counts(found: list[Line] | list[Trial]) -> dict[tuple[str, str, str, str], int]:
    counts: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for one in found:
        counts[one.data, one.model, one.evaluation, one.goal] += one.seeds if isinstance(one, Line) else 1
    return counts
