"""Does the audit name the right cause? Planted faults in synthetic worlds, and networks trained on real data."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.optimize import minimize
from tests.faults.auditor import Verdict, confusion, judge_case, miss_line, score
from tests.faults.cases import VARIANTS, Case
from tests.faults.planting import draw_settings, plant_variant
from tests.faults.training import RECIPES, Recipe, balanced, train
from tests.faults.worlds import Floats, Ints, Setting, difference, log_softmax

from benchmarks.realdata import SETS, RealSet, load

HIDDEN = 128
ORACLE_ROWS = 4000
DEFAULT_SETS = ("names18", "banking77", "avonet", "clinc150_lt")
SOUND_BETA = (0.7, 1.4)
SOUND_TAU = 0.25


def independent_fit(logits: Floats, target: Ints, direction: Floats, offset: Floats) -> tuple[float, float]:
    """(beta, share) of softmax(beta z + offset - share direction) by maximum likelihood, apart from the audit."""
    rows = np.random.default_rng(0).permutation(len(target))[:ORACLE_ROWS]
    z, y = logits[rows].astype(float), target[rows]
    own = z[np.arange(len(y)), y]

    def objective(parameters: Floats) -> tuple[float, Floats]:
        logs = log_softmax(parameters[0] * z + offset - parameters[1] * direction)
        p = np.exp(logs)
        by_beta = (p * z).sum(axis=1).mean() - own.mean()
        by_share = direction[y].mean() - (p @ direction).mean()
        return -float(logs[np.arange(len(y)), y].mean()), np.array([by_beta, by_share])

    best = minimize(objective, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, 50), (-20, 20)])
    return float(best.x[0]), float(best.x[1])


@dataclass(frozen=True)
class Trained:
    """One trained network, audited. `status` says whether it counts: effective, sound, no effect, or strained (a
    network without a fault whose calibration is outside what sound training shows)."""

    data: str
    fault: str
    seed: int
    first: str
    ok: bool
    status: str
    tau: float | None
    interval: tuple[float, float] | None
    beta: float
    share: float
    effect: float
    accuracy: float
    findings: tuple[tuple[str, str, float], ...]
    seconds: float


def acceptable_after_training(recipe: Recipe, tilt: Floats | None, share: float, data: RealSet) -> frozenset[str]:
    """Weights that training expressed by less than three quarters, as an independent fit tells, are partial too."""
    causes = recipe.acceptable
    if tilt is not None and share < 0.75 and causes & {"class-weights", "sampler", "double-correction"}:
        causes |= {"partial-weights"}
    if "double-correction" in causes and share < 0.65:
        causes |= {"class-weights", "sampler"}
    if data.shifted and causes & {"healthy", "class-weights", "sampler"}:
        causes |= {"prior-shift"}
    return causes


def planned_tilt(facts: dict[str, Any], counts: Floats) -> Floats | None:
    """log w + log(q / pi) as declared, or None when that is flat."""
    tilt = np.zeros(len(counts))
    if facts["class_weight"] is not None:
        tilt += np.log(facts["class_weight"])
    if facts["sampler"] is not None:
        tilt += np.log(np.maximum(facts["sampler"], 1e-12)) - np.log(counts / counts.sum())
    return tilt if np.ptp(tilt) > 1e-9 else None


def planted_effect(plain: Floats, recipe: Recipe, counts: Floats) -> tuple[float, float]:
    """(effect, nats per row) of the fault alone: the tilt it asks for, added to the scores of the plain network.

    Two networks differ by their training too, so what lies between them says little where a fault hardly acts: weights
    of nearly equally frequent classes. Weights in a wrong order must differ from those in the right one as well.
    Infinite where the fault is no tilt.
    """
    tilt = np.log(recipe.weight(counts))
    if recipe.sampler:
        tilt = tilt - np.log(np.maximum(counts, 1.0))
    if recipe.head != "linear" or np.ptp(tilt) < 1e-9:
        return np.inf, np.inf
    references = [plain]
    if "misordered-weights" in recipe.acceptable:
        references.append(plain + np.log(balanced(counts)))
    pairs = [difference(reference, plain + tilt) for reference in references]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def trained_cases(data: RealSet, faults: tuple[str, ...], seed: int) -> Iterator[Trained]:
    """Train the plain network first: its answers are what every fault is compared with."""
    scores = {}
    for fault in ("none", *(fault for fault in faults if fault != "none")):
        start = time.perf_counter()
        recipe = RECIPES[fault]
        predict = train(
            data.train.features, data.train.labels, data.classes, recipe, epochs=data.epochs, seed=seed, hidden=HIDDEN
        )
        scores[fault] = predict(data.test.features)
        if fault in faults:
            yield audited(data, fault, seed, scores["none"], scores[fault], start)


def audited(data: RealSet, fault: str, seed: int, plain: Floats, scores: Floats, start: float) -> Trained:
    recipe, target = RECIPES[fault], data.test.labels
    counts = np.bincount(data.train.labels, minlength=data.classes).astype(float)
    facts = recipe.facts(counts)
    log_prior = np.log(counts / counts.sum())
    offset = -log_prior if data.shifted else np.zeros(data.classes)
    tilt = planned_tilt(facts, counts)
    beta, share = independent_fit(scores, target, -log_prior if tilt is None else tilt, offset)
    between, planted = difference(plain.astype(float), scores.astype(float)), planted_effect(plain, recipe, counts)
    effect, nats = min(between[0], planted[0]), min(between[1], planted[1])
    setting = Setting(seed=seed, classes=data.classes, rows=len(target), profile=data.name)
    causes = acceptable_after_training(recipe, tilt, share, data)
    arrays = {"logits": scores, "target": target, "class_names": list(data.class_names), **facts}
    if recipe.sound:
        strained = not SOUND_BETA[0] <= beta <= SOUND_BETA[1] or abs(share) > SOUND_TAU
        status = "strained" if strained else "sound"
    else:
        status = "effective"
    case = Case("sound" if recipe.sound else fault, fault, setting, arrays, causes, "", effect, nats * len(target))
    verdict = judge_case(case)
    if status == "effective" and not case.effective:
        status = "no effect"
    accuracy = float((scores.argmax(axis=1) == target).mean())
    return Trained(
        data.name, fault, seed, verdict.first, verdict.ok, status, verdict.tau, verdict.interval, beta, share, effect,
        accuracy, verdict.findings, time.perf_counter() - start,
    )  # fmt: skip


def synthetic(draws: int, seed: int) -> Iterator[Verdict]:
    for name, way in VARIANTS.items():
        for setting in draw_settings(way, draws, seed=seed):
            case = plant_variant(name, setting)
            if case.sound or case.effective:
                verdict = judge_case(case)
                case.arrays.clear()
                yield verdict


def report_synthetic(verdicts: list[Verdict], as_json: bool) -> None:
    result = score(verdicts)
    if as_json:
        for verdict in verdicts:
            line = {"kind": "synthetic", "cause": verdict.case.cause, "variant": verdict.case.variant}
            line |= {"first": verdict.first, "ok": verdict.ok, "tau": verdict.tau, "interval": verdict.interval}
            click.echo(json.dumps(line | {"effect": verdict.case.effect, "setting": asdict(verdict.case.setting)}))
        return
    click.echo("Synthetic worlds: planted cause, then what was found first\n")
    click.echo(confusion(verdicts))
    click.echo(f"\nright first finding {result.right} of {result.effective} ({result.accuracy:.1%}); "
               f"sound cases accused {result.accused} of {result.sound} ({result.false_alarms:.1%})\n")  # fmt: skip
    for miss in result.misses:
        click.echo("  " + miss_line(miss))


def report_trained(results: list[Trained]) -> None:
    effective = [result for result in results if result.status == "effective"]
    sound = [result for result in results if result.status == "sound"]
    right, accused = sum(result.ok for result in effective), sum(not result.ok for result in sound)
    click.echo(
        f"\nTrained networks: right first finding {right} of {len(effective)}; "
        f"sound networks accused {accused} of {len(sound)}"
    )


def trained_line(result: Trained) -> str:
    interval = (
        "" if result.interval is None else f"{result.tau:+.2f} ({result.interval[0]:+.2f} to {result.interval[1]:+.2f})"
    )
    mark = {"no effect": "-", "strained": "~"}.get(result.status, "ok" if result.ok else "MISS")
    own = f"own fit: beta {result.beta:.2f} share {result.share:+.2f}"
    return (
        f"{result.data:17s} {result.fault:22s} {result.first:24s} {interval:26s} {mark:5s}"
        f"acc {result.accuracy:.3f}  {own}  effect {result.effect:.2f}"
    )


def one_of(choices: tuple[str, ...], text: str) -> tuple[str, ...]:
    if text == "all":
        return choices
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [part for part in chosen if part not in choices]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)} is not one of {', '.join(choices)}")
    return chosen


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the real sets.")
@click.option("--draws", default=4, show_default=True, help="Synthetic cases per variant; 0 skips them.")
@click.option("--seeds", default=1, show_default=True, help="Seeds, of the synthetic draws and of the training runs.")
@click.option("--sets", default=",".join(DEFAULT_SETS), show_default=True, help=f"all, or some of {', '.join(SETS)}.")
@click.option("--faults", default="all", show_default=True, help=f"all, or some of {', '.join(RECIPES)}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per case.")
def command(data: Path | None, draws: int, seeds: int, sets: str, faults: str, as_json: bool) -> None:
    """Plant faults, audit, and count right first findings and false accusations."""
    chosen_sets, chosen_faults = one_of(tuple(SETS), sets), one_of(tuple(RECIPES), faults)
    if draws:
        report_synthetic([verdict for seed in range(seeds) for verdict in synthetic(draws, seed)], as_json)
    if data is None:
        return
    results = []
    for name in chosen_sets:
        for seed in range(seeds):
            for result in trained_cases(load(name, data, seed=seed), chosen_faults, seed):
                results.append(result)
                click.echo(json.dumps({"kind": "trained", **asdict(result)}) if as_json else trained_line(result))
    if not as_json:
        report_trained(results)
