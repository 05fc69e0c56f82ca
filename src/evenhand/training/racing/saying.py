"""The verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from evenhand.correction.effects import ENOUGH_CHANGES
from evenhand.goals import Metric
from evenhand.report.formats import plain as one_line
from evenhand.report.formats import shortened
from evenhand.training.racing.comparing import Drawn, Estimate, estimate
from evenhand.training.racing.entries import Entry, Verdict
from evenhand.training.remedies import PLAIN

UNKNOWN = Estimate(np.nan, np.nan, (np.nan, np.nan), np.nan, 0)


@dataclass(frozen=True, eq=False)
class Choice:
    """What the choosing half chose.

    Attributes:
        taken: the candidate. best: with the best value there. gap: of `best` to `taken`, None where they are the same.
        simplest: the one that adds least to plain training among those within a standard error of the best.
    """

    taken: Entry
    best: Entry
    gap: Estimate | None
    simplest: Entry


def told_choice(
    choice: Choice, plain: Entry, metric: Metric, *, rows: int, seeds: int, corrected: Entry | None = None
) -> Verdict:
    """The verdict on a choice, from `rows` judging rows and so many seeds; `corrected` is plain with its correction."""
    taken, where = choice.taken, f"on {rows:,} rows that had no part in the choice"
    simpler = "" if choice.simplest is taken else choice.simplest.name

    def verdict(kind: str, sentence: str, entry: Entry = taken) -> Verdict:
        return Verdict(entry, kind, sentence, choice.best.name, choice.gap, "" if entry is plain else simpler)

    if seeds < 2:
        others = [entry for entry in (plain, corrected) if entry is not None and entry is not taken]
        levels = " and ".join(f"that of {_name(entry)} {_level(entry)}" for entry in others)
        against = f", {levels}" if levels else ""
        return verdict(
            "unknown",
            f"Too little data to say: one seed tells nothing of another. On this seed {_name(taken)} was chosen on "
            f"the choosing rows; {where}, its {metric.words} is {_level(taken)}{against}. Race at least 3 seeds.",
        )
    if taken is plain:
        return verdict(
            "keep",
            f"Keep plain training as it is: {metric.words} {_level(plain)} {where}, {seeds} seeds; nothing that asks "
            f"for more is better by more than its standard error.{_missed(choice, metric)}",
        )
    return _against_plain(choice, plain, metric, f"{where}, {seeds} seeds", verdict)


def _against_plain(
    choice: Choice, plain: Entry, metric: Metric, where: str, verdict: Callable[..., Verdict]
) -> Verdict:
    """What the judging rows say of a candidate other than plain training."""
    taken, found = choice.taken, choice.taken.difference or UNKNOWN
    least, most = found.interval if metric.sign > 0 else (-found.interval[1], -found.interval[0])
    levels, moved = f"{metric.words} {_level(plain)} -> {_level(taken)}", _ends(found, metric)
    less = ""
    if choice.simplest is not taken and (choice.simplest.remedy, choice.simplest.corrected) != (PLAIN, True):
        less = f" {_name(choice.simplest)} asks for less and is not distinguishable from it on the choosing rows."
    if least > 0 and speaks(taken):
        return verdict("take", f"Take {_name(taken)}: {levels}, {moved} {where}.{less}")
    if least > 0:
        return verdict(
            "tie",
            f"Too little data to say: {_name(taken)} is ahead, {levels}, but only {taken.speaking} of the judging "
            "rows tell it from plain training; give more valid rows.",
        )
    if most <= 0:
        sentence = f"Keep plain training: {_name(taken)} was ahead where it was chosen, but {levels}, {moved} {where}."
        return verdict("keep", sentence, plain)
    return verdict(
        "tie",
        f"Too little data to say: {_name(taken)} is ahead, but {levels} is {moved} {where}, and it may as well be "
        f"nothing.{less}",
    )


def _missed(choice: Choice, metric: Metric) -> str:
    """What keeping plain training may give up."""
    best = choice.best
    if best is choice.taken:
        return ""
    beyond = "" if best.difference is None else f"; on the judging rows it is {_ends(best.difference, metric)}"
    return f" {_name(best)} is not distinguishable from it on the choosing rows and asks for more{beyond}."


def beside_correction(verdict: Verdict, metric: Metric, judged: Mapping[tuple[str, bool], Drawn]) -> Verdict:
    """Say what a remedy brings beyond plain training with a correction, which asks for no other training."""
    entry, simple = verdict.entry, judged.get((PLAIN, True))
    if entry is None or entry.remedy == PLAIN or simple is None:
        return verdict
    beyond = estimate(judged[(entry.remedy, entry.corrected)], simple)
    low, high = beyond.interval
    if not np.isfinite(low):
        return replace(verdict, beyond=beyond)
    moved = _ends(beyond, metric)
    if (low if metric.sign > 0 else -high) > 0:
        more = f" Beyond plain + correction, that is {moved}."
    elif verdict.kind == "take":
        more = (
            f" {_name(entry)} is not distinguishable from plain + correction on the judging rows ({moved}): "
            "take that if training again is dear."
        )
    else:  # it may be no better than plain training: which of two unknowns is the cheaper one is no advice
        more = ""
    return replace(verdict, beyond=beyond, sentence=verdict.sentence + more)


def _name(entry: Entry) -> str:
    return shortened(one_line(entry.name), 60)


def _level(entry: Entry) -> str:
    return f"{(entry.value or UNKNOWN).value:.3f}"


def _ends(found: Estimate, metric: Metric) -> str:
    low, high = (_change(end, metric) for end in found.interval)
    return f"{low} to {high}{' points' if metric.share else ''}"


def _change(value: float, metric: Metric) -> str:
    return f"{100 * value:+.1f}" if metric.share else f"{value:+.3g}"


def speaks(entry: Entry) -> bool:
    """Whether rows enough differ: one row of a class with no other has no variance that rows could tell."""
    return entry.speaking >= ENOUGH_CHANGES
