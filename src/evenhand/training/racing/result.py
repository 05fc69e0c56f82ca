"""The outcome of a race, and its faces: text, JSON, HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.report.formats import NONE, fixed, plain, shortened
from evenhand.training.racing.comparing import Estimate
from evenhand.training.racing.entries import Entry, Verdict
from evenhand.training.racing.plan import Plan
from evenhand.training.racing.settings import SCHEMA


@dataclass(frozen=True, eq=False, repr=False)
class RaceResult:
    """What a race found.

    Attributes:
        name: of the data. plan: the race. metric: key of the goal's metric. words: how a sentence names it.
        share: whether it lies in [0, 1]. sign: +1 where more is better.
        classes: K. rows: of ``train``, ``choosing`` and ``judging``. steps: per training.
        entries: the leaderboard, best first. verdict: the recommendation.
        notes: what was decided about the data. trainings: ``finished``, ``stopped``, ``failed``, ``reused`` (finished
            before, by this folder's earlier or other processes).
        wall, training: seconds of this process, and those of forward and backward passes and steps of the optimiser.
    """

    name: str
    plan: Plan
    metric: str
    words: str
    share: bool
    sign: int
    classes: int
    rows: dict[str, int]
    steps: int
    entries: Sequence[Entry]
    verdict: Verdict
    notes: Sequence[str]
    trainings: dict[str, int]
    wall: float
    training: float

    @property
    def overhead(self) -> float:
        """Share of this process's wall time outside of training, 0 to 1; NaN if it trained nothing."""
        return 1 - self.training / self.wall if self.training > 0 and self.wall > 0 else math.nan

    @property
    def recommended(self) -> Entry | None:
        """The candidate to take, None where plain training is missing."""
        return self.verdict.entry

    def to_dict(self) -> dict[str, Any]:
        """The race as JSON values, schema ``evenhand.race/1``."""
        entry, gap, beyond = self.verdict.entry, self.verdict.gap, self.verdict.beyond
        found = {
            "schema": SCHEMA,
            "name": self.name,
            "goal": self.plan.goal,
            "metric": self.metric,
            "classes": self.classes,
            "rows": self.rows,
            "seeds": self.plan.seeds,
            "steps": self.steps,
            "verdict": {
                "kind": self.verdict.kind,
                "candidate": None if entry is None else entry.name,
                "remedy": None if entry is None else entry.remedy,
                "corrected": None if entry is None else entry.corrected,
                "sentence": self.verdict.sentence,
                "best_where_chosen": self.verdict.best or None,
                "gap_to_best": None if gap is None else _estimate(gap),
                "simpler": self.verdict.simpler or None,
                "beyond_plain_with_correction": None if beyond is None else _estimate(beyond),
            },
            "leaderboard": [_entry(one) for one in self.entries],
            "notes": list(self.notes),
            "trainings": self.trainings,
            "time": {"wall": self.wall, "training": self.training, "overhead": self.overhead},
        }
        return dict(_finite(found))

    def html(self) -> str:
        """The self-contained report page."""
        from evenhand.training.racing.page import to_html

        return to_html(self)

    def to_text(self, width: int | None = None) -> str:
        """The leaderboard and the recommendation; with a `width` they are made to fit a terminal that is so wide."""
        from evenhand.training.racing.text import to_text

        return to_text(self, width)

    def _repr_html_(self) -> str:
        from evenhand.training.racing.page import repr_html

        return repr_html(self)

    def __repr__(self) -> str:
        entry, kind = self.verdict.entry, self.verdict.kind
        named = "nothing" if entry is None else shortened(plain(entry.name), 80)
        level = "" if entry is None or entry.value is None else f" ({self.words} {entry.value.value:.3f})"
        return (
            f"<RaceResult of {plain(self.name)[:80]!r}: {len(self.plan.remedies)} remedies x {self.plan.seeds} seeds, "
            f"{self.classes:,} classes\n {kind}: {named}{level}>"
        )

    def __str__(self) -> str:
        return self.to_text()


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "candidate": entry.name,
        "remedy": entry.remedy,
        "corrected": entry.corrected,
        "state": entry.state,
        "why": entry.why or None,
        "seeds": entry.seeds,
        "value": None if entry.value is None else _estimate(entry.value),
        "difference_to_plain": None if entry.difference is None else _estimate(entry.difference),
        "p_holm": entry.p,
        "better_than_plain": entry.better,
        "value_where_chosen": entry.choosing,
        "metrics": None if entry.metrics is None else dict(entry.metrics),
        "tau": entry.tau,
        "tau_interval": None if entry.tau_interval is None else list(entry.tau_interval),
        "beta": entry.beta,
        "seconds": entry.seconds,
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "error": found.error, "interval": list(found.interval), "p": found.p}


def _finite(value: Any) -> Any:
    """NaN and infinities are no JSON: null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def is_recommended(result: RaceResult, entry: Entry) -> bool:
    """Whether a face marks it; what is ahead with a single seed is no recommendation."""
    return entry is result.verdict.entry and result.verdict.kind != "unknown"


def facts(result: RaceResult) -> list[str]:
    """What the race was, in a few words each."""
    rows = result.rows
    seeds = result.plan.seeds
    return [
        f"{rows['train']:,} training rows",
        f"{rows['choosing']:,} rows to choose on, {rows['judging']:,} to judge on",
        f"{result.classes:,} classes",
        f"{len(result.plan.remedies)} remedies x {seeds} seed{'s' if seeds > 1 else ''}",
        f"{result.steps:,} steps each",
    ]


def cells(result: RaceResult, entry: Entry) -> dict[str, str]:
    """What every face shows of a finished candidate."""
    m = dict(entry.metrics or {})
    difference = entry.difference
    scale = 100 if result.share else 1
    digits = 1 if result.share else 3
    moved = interval = NONE
    if difference is not None:
        moved = fixed(scale * difference.value, digits, sign=True)
        if np.isfinite(difference.interval[0]):
            low, high = (fixed(scale * end, digits, sign=True) for end in difference.interval)
            interval = f"{low} to {high}"
    tau = NONE if entry.tau is None else fixed(entry.tau)
    if entry.tau_interval is not None:
        tau += f" ({fixed(entry.tau_interval[0])} to {fixed(entry.tau_interval[1])})"
    p = NONE if not math.isfinite(entry.p) else "<0.001" if entry.p < 0.001 else f"{entry.p:.3f}"
    found = {
        "value": fixed(None if entry.value is None else entry.value.value, 3),
        "difference": moved,
        "interval": interval,
        "p": p,
        "tau": tau,
        "seconds": fixed(entry.seconds, 1),
    }
    for key in ("accuracy", "head", "medium", "tail", "nll", "ece", "count_distance"):
        found[key] = fixed(m.get(key), 3)
    return found
