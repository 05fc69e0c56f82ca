"""Means over seeds and paired 95 % intervals of stored runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.lossrace import paired
from benchmarks.question.data import SETS
from benchmarks.question.remedies import BY_NAME, PLAIN
from benchmarks.question.store import Run

Figure = Callable[[Run], float | None]


def final(*path: str) -> Figure:
    """A figure of the last checkpoint, by its keys."""
    return lambda run: _at(run["curve"][-1], path)


def decision(name: str, *path: str) -> Figure:
    """A figure of one of the decisions tried on the trained network."""
    return lambda run: _at(run["decisions"].get(name), path)


def at_epoch(epoch: int, *path: str) -> Figure:
    """A figure of one checkpoint, None where the run has no such checkpoint."""
    return lambda run: next((_at(point, path) for point in run["curve"] if point["epoch"] == epoch), None)


def _at(held: object, path: Sequence[str]) -> float | None:
    for name in path:
        if not isinstance(held, dict):
            return None
        held = held.get(name)
    return held if isinstance(held, int | float) else None


@dataclass(frozen=True)
class Told:
    """A mean over seeds with half of its 95 % interval (Student's t); `half` is infinite with one seed."""

    mean: float
    half: float
    seeds: int

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.mean))

    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.mean) > self.half


class Results:
    """Stored runs of some sets, all remedies of a set compared on the seeds that its plain runs have."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs: dict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
        for run in runs:
            self.runs[run["set"], run["remedy"]][run["seed"]] = run

    @property
    def sets(self) -> list[str]:
        return [name for name in SETS if (name, PLAIN) in self.runs]

    def remedies(self, name: str) -> list[str]:
        return [remedy for remedy in BY_NAME if (name, remedy) in self.runs]

    def of(self, name: str, remedy: str) -> dict[int, Run]:
        return self.runs.get((name, remedy), {})

    def mean(self, name: str, remedy: str, figure: Figure) -> Told:
        return self._told([figure(run) for run in self.of(name, remedy).values()])

    def difference(
        self, name: str, remedy: str, figure: Figure, *, reference: str = PLAIN, against: Figure | None = None
    ) -> Told:
        """Mean over seeds of the figure minus the reference's on the same seed."""
        ours, theirs = self.of(name, remedy), self.of(name, reference)
        pairs = [(figure(ours[seed]), (against or figure)(theirs[seed])) for seed in ours if seed in theirs]
        return self._told([None if a is None or b is None else a - b for a, b in pairs])

    def causes(self, name: str, remedy: str) -> str:
        """What the audit named first, most often first."""
        named = Counter(run["audit"]["cause"] for run in self.of(name, remedy).values())
        several = len(named) > 1
        return ", ".join(f"{cause} {count}x" if several else cause for cause, count in named.most_common())

    def epochs(self, name: str, remedy: str = PLAIN) -> list[int]:
        runs = self.of(name, remedy).values()
        return sorted({point["epoch"] for run in runs for point in run["curve"]})

    @staticmethod
    def _told(values: Sequence[float | None]) -> Told:
        held = [value for value in values if value is not None]
        if not held:
            return Told(float("nan"), float("inf"), 0)
        middle, half = paired(held, [0.0] * len(held))
        return Told(middle, half, len(held))
