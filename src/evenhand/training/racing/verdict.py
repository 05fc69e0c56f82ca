"""The leaderboard and the recommendation: chosen on one half of the valid rows, measured on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenhand.correction.effects import ENOUGH_CHANGES
from evenhand.declared import Ints
from evenhand.goals import Metric
from evenhand.training.racing.board import Key, Result
from evenhand.training.racing.comparing import Bootstrap, Decisions, Drawn, Estimate, estimate, holm
from evenhand.training.racing.judging import Judge
from evenhand.training.racing.plan import Plan
from evenhand.training.remedies import PLAIN, Remedy

LEVEL = 0.05
UNKNOWN = Estimate(np.nan, np.nan, (np.nan, np.nan), np.nan, 0)
AVERAGED = (
    "accuracy", "balanced_accuracy", "macro_f1", "count_distance", "head", "medium", "tail", "nll", "ece",
    "never_predicted",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entry:
    """One candidate of the leaderboard: a remedy, with or without its correction.

    Attributes:
        remedy: its name. corrected: whether its post-hoc correction is applied. state: ``finished``, ``stopped`` or
            ``failed``. why: in words, where it is not finished. seeds: seeds that finished.
        metrics: means over seeds on the judging half. value: the goal's metric there. difference: to plain training,
            uncorrected, on the same seeds and rows; larger is better or worse as the metric has it.
        speaking: judging rows on which it and plain training differ. p: of the difference, adjusted by Holm for all
            candidates; NaN where it cannot be told, also with some seeds stopped, since those left are the luckier
            ones. better: whether it is better than plain training at 5 %, on rows enough to speak.
        choosing: the goal's metric on the choosing half.
        tau, tau_interval: mean over seeds. seconds: mean training time.
    """

    remedy: str
    corrected: bool
    state: str
    why: str = ""
    seeds: int = 0
    metrics: Mapping[str, float | None] | None = None
    value: Estimate | None = None
    difference: Estimate | None = None
    speaking: int = 0
    p: float = np.nan
    better: bool = False
    choosing: float = np.nan
    tau: float | None = None
    tau_interval: tuple[float, float] | None = None
    beta: float | None = None
    seconds: float = np.nan

    @property
    def name(self) -> str:
        """As the leaderboard has it."""
        return f"{self.remedy} + correction" if self.corrected else self.remedy


@dataclass(frozen=True, eq=False)
class Verdict:
    """What to do.

    Attributes:
        entry: the recommended candidate, None where nothing can be said. kind: ``take``, ``keep``, ``tie`` or
            ``unknown``. sentence: in words. best: the candidate with the best value on the choosing half.
        gap: of `best` to the recommended one, on the choosing half; None where they are the same.
        beyond: of the recommended one to plain training with its correction, on the judging half; None where it is one
            of the plain ones or that is missing.
    """

    entry: Entry | None
    kind: str
    sentence: str
    best: str = ""
    gap: Estimate | None = None
    beyond: Estimate | None = None


def simplicity(entry: Entry, remedy: Remedy) -> int:
    """How much a candidate adds to plain training: a correction 1, another loss or sampler 2, a schedule or head 3."""
    steps = 0 if remedy.name == PLAIN else 3 if remedy.schedule != "one-stage" or remedy.cosine else 2
    return steps + entry.corrected


def leaderboard(plan: Plan, judge: Judge, results: Mapping[Key, Result]) -> tuple[list[Entry], Verdict]:
    """All candidates, best first, and the verdict."""
    judged, chosen = (_Half(judge, rows, results) for rows in (~judge.choosing, judge.choosing))
    entries = [
        entry
        for remedy in plan.remedies
        for entry in _entries(remedy, [results[key] for key in plan.runs if key[0] == remedy.name and key in results])
    ]
    plain = judged.drawn.get((PLAIN, False))
    compared = [_measured(entry, judged, chosen, plain) for entry in entries]
    adjusted = holm([e.difference.p if e.difference and e.seeds == plan.seeds else np.nan for e in compared])
    sign = judge.metric.sign
    final = [
        replace(entry, p=p, better=p < LEVEL and _speaks(entry) and _gain(entry, sign) > 0)
        for entry, p in zip(compared, adjusted, strict=True)
    ]
    final.sort(key=lambda entry: (entry.value is None, -sign * entry.value.value if entry.value else 0.0))
    verdict = decide(final, plan, judge, chosen)
    return final, _beside_correction(verdict, judge.metric, judged)


class _Half:
    """One half of the valid rows: bootstrap draws of every candidate."""

    def __init__(self, judge: Judge, rows: Any, results: Mapping[Key, Result]) -> None:
        y: Ints = judge.target[rows]
        group = None if judge.group is None else judge.group[rows]
        bootstrap = Bootstrap(y, judge.metric, judge.counts.classes, group=group)
        decisions: dict[tuple[str, bool], dict[int, Any]] = {}
        for (remedy, seed), result in results.items():
            for name, corrected in (("raw", False), ("corrected", True)):
                if name in result.arrays:
                    decisions.setdefault((remedy, corrected), {})[seed] = result.arrays[name][rows].astype(np.int64)
        self.y, self.metric, self.decisions = y, judge.metric, decisions
        self.drawn: dict[tuple[str, bool], Drawn] = {key: Drawn.of(bootstrap, d) for key, d in decisions.items()}

    def speaking(self, one: tuple[str, bool], other: tuple[str, bool]) -> int:
        """Rows that differ between two candidates, summed over their common seeds: right or wrong, or as decided.

        Where only counts matter, another class is a difference also if both are wrong.
        """
        a, b = self.decisions[one], self.decisions[other]
        seeds = sorted(set(a) & set(b))
        if self.metric.sign < 0:
            return int(np.any([a[s] != b[s] for s in seeds], axis=0).sum())
        return int(np.count_nonzero(np.sum([(a[s] == self.y) * 1 - (b[s] == self.y) for s in seeds], axis=0)))


def _entries(remedy: Remedy, results: Sequence[Result]) -> list[Entry]:
    """The remedy without and with its correction, or why there is nothing to show."""
    done = [result for result in results if result.state == "finished"]
    others = [result for result in results if result.state != "finished"]
    reasons = dict.fromkeys((r.state, r.record.get("why", "")) for r in others)
    why = "; ".join(f"{state} with {_seeds_of(others, state, reason)}: {reason}" for state, reason in reasons)
    if not done:
        return [Entry(remedy.name, False, others[0].state if others else "open", why or "not trained")]
    taus = [r.record for r in done if r.record.get("tau") is not None]
    tau = float(np.mean([r["tau"] for r in taus])) if taus else None
    ends = [r["tau_interval"] for r in taus if r.get("tau_interval")]
    common: dict[str, Any] = {
        "state": "finished",
        "why": why,
        "seeds": len(done),
        "tau": tau,
        "tau_interval": tuple(map(float, np.mean(ends, axis=0))) if ends else None,
        "beta": float(np.mean([r["beta"] for r in taus])) if taus else None,
        "seconds": float(np.mean([r.record["seconds"] for r in done])),
    }
    entries = [Entry(remedy.name, False, metrics=_means(done, "raw"), **common)]
    if all("corrected" in r.arrays for r in done):
        entries.append(Entry(remedy.name, True, metrics=_means(done, "corrected"), **common))
    return entries


def _seeds_of(others: Sequence[Result], state: str, reason: str) -> str:
    seeds = [str(r.key[1]) for r in others if (r.state, r.record.get("why", "")) == (state, reason)]
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"


def _means(done: Sequence[Result], part: str) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key in AVERAGED:
        values = [r.record[part][key] for r in done if r.record[part].get(key) is not None]
        found[key] = float(np.mean(values)) if values else None
    return found


def _measured(entry: Entry, judged: _Half, chosen: _Half, plain: Drawn | None) -> Entry:
    key = (entry.remedy, entry.corrected)
    if key not in judged.drawn:
        return entry
    entry = replace(entry, value=estimate(judged.drawn[key]), choosing=estimate(chosen.drawn[key]).value)
    if plain is None or key == (PLAIN, False):
        return entry
    difference = estimate(judged.drawn[key], plain)
    return replace(entry, difference=difference, speaking=judged.speaking(key, (PLAIN, False)))


def _speaks(entry: Entry) -> bool:
    """Whether rows enough differ: one row of a class with no other has no variance that rows could tell."""
    return entry.speaking >= ENOUGH_CHANGES


def _gain(entry: Entry, sign: int) -> float:
    return sign * entry.difference.value if entry.difference else 0.0


def decide(entries: Sequence[Entry], plan: Plan, judge: Judge, chosen: _Half) -> Verdict:
    """The simplest candidate within one standard error of the best on the choosing half.

    Its effect is told from the judging half, which had no part in the choice: the best of many is always partly lucky,
    and on the rows that made it the best it would look better than it is.

    Source: the one-standard-error rule, Breiman et al., Classification and Regression Trees (1984), section 3.4.3.
    """
    metric = judge.metric
    able = [entry for entry in entries if entry.value is not None and entry.seeds == plan.seeds]
    plain = next((entry for entry in able if (entry.remedy, entry.corrected) == (PLAIN, False)), None)
    if plain is None:
        why = next((entry.why for entry in entries if entry.remedy == PLAIN), "") or "it did not finish"
        return Verdict(None, "unknown", f"Nothing can be said: plain training, the reference, is missing ({why}).")
    best = max(able, key=lambda entry: metric.sign * entry.choosing)
    near: list[tuple[int, float, Entry, Estimate | None]] = []
    for entry in able:
        gap = None
        if entry is not best:
            drawn = (chosen.drawn[(e.remedy, e.corrected)] for e in (best, entry))
            gap = estimate(*drawn)
            # With one seed no error is known: then only the best itself is near the best.
            if not metric.sign * gap.value <= (gap.error if np.isfinite(gap.error) else 0.0):
                continue
        near.append((simplicity(entry, plan.remedy(entry.remedy)), -metric.sign * entry.choosing, entry, gap))
    _, _, taken, gap = min(near, key=lambda one: one[:2])
    return _told(taken, plain, best, gap, plan, judge)


def _told(taken: Entry, plain: Entry, best: Entry, gap: Estimate | None, plan: Plan, judge: Judge) -> Verdict:
    metric = judge.metric
    rows = int((~judge.choosing).sum())
    where = f"on {rows:,} rows that had no part in the choice"
    seeds = f"{plan.seeds} seeds" if plan.seeds > 1 else "one seed"
    tie = ""
    if taken is not best:
        tie = f" {best.name} is not distinguishable from it on the choosing rows and asks for more"
        if taken is plain and best.difference is not None and plan.seeds > 1:
            tie += f"; on the judging rows it is {_ends(best.difference, metric)}"
        tie += "."
    if plan.seeds < 2:
        against = "" if taken is plain else f" against {_level(plain)} of plain training"
        sentence = (
            f"Too little data to say: one seed tells nothing of another. On this seed {taken.name} was ahead where it "
            f"was chosen ({metric.words} {_level(taken)}{against} {where}); race at least 3 seeds."
        )
        return Verdict(taken, "unknown", sentence, best.name, gap)
    if taken is plain:
        sentence = (
            f"Keep plain training as it is: {metric.words} {_level(plain)} {where}, {seeds}; nothing that asks "
            f"for more is better by more than its standard error.{tie}"
        )
        return Verdict(taken, "keep", sentence, best.name, gap)
    difference = taken.difference or UNKNOWN
    low, high = difference.interval
    moved = _ends(difference, metric)
    levels = f"{metric.words} {_level(plain)} -> {_level(taken)}"
    if metric.sign * (low if metric.sign > 0 else high) > 0:
        if not _speaks(taken):
            sentence = (
                f"Too little data to say: {taken.name} is ahead, {levels}, but only {taken.speaking} of the judging "
                f"rows tell it from plain training; give more valid rows.{tie}"
            )
            return Verdict(taken, "tie", sentence, best.name, gap)
        return Verdict(taken, "take", f"Take {taken.name}: {levels}, {moved} {where}, {seeds}.{tie}", best.name, gap)
    if metric.sign * (high if metric.sign > 0 else low) <= 0:
        sentence = (
            f"Keep plain training: {taken.name} was ahead where it was chosen, but {levels}, {moved} {where}, {seeds}."
        )
        return Verdict(plain, "keep", sentence, best.name, gap)
    sentence = (
        f"Too little data to say: {taken.name} is ahead, but {levels} is {moved} {where}, {seeds}, and it may as well "
        f"be nothing.{tie}"
    )
    return Verdict(taken, "tie", sentence, best.name, gap)


def _beside_correction(verdict: Verdict, metric: Metric, judged: _Half) -> Verdict:
    """Say what a remedy brings beyond plain training with a correction, which asks for no other training."""
    entry, simple = verdict.entry, judged.drawn.get((PLAIN, True))
    if entry is None or entry.remedy == PLAIN or simple is None:
        return verdict
    beyond = estimate(judged.drawn[(entry.remedy, entry.corrected)], simple)
    low, high = beyond.interval
    if not np.isfinite(low):
        return replace(verdict, beyond=beyond)
    moved = _ends(beyond, metric)
    if (low if metric.sign > 0 else -high) > 0:
        more = f" Beyond plain + correction, that is {moved}."
    else:
        more = (
            f" {entry.name} is not distinguishable from plain + correction on the judging rows ({moved}): take that if "
            "training again is dear."
        )
    return replace(verdict, beyond=beyond, sentence=verdict.sentence + more)


def _level(entry: Entry) -> str:
    return f"{(entry.value or UNKNOWN).value:.3f}"


def _ends(found: Estimate, metric: Metric) -> str:
    low, high = (_change(end, metric) for end in found.interval)
    return f"{low} to {high}{' points' if metric.share else ''}"


def _change(value: float, metric: Metric) -> str:
    return f"{100 * value:+.1f}" if metric.share else f"{value:+.3g}"


__all__ = ["Decisions", "Entry", "Verdict", "decide", "leaderboard", "simplicity"]
