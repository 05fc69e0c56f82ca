"""What a race comes to: the candidates of the leaderboard, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evenhand.training.racing.comparing import Estimate
from evenhand.training.remedies import PLAIN, Remedy


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
        simpler: the simplest candidate within a standard error of `best` there, "" where that is the recommended one.
        beyond: of the recommended one to plain training with its correction, on the judging half; None where it is one
            of the plain ones or that is missing.
    """

    entry: Entry | None
    kind: str
    sentence: str
    best: str = ""
    gap: Estimate | None = None
    simpler: str = ""
    beyond: Estimate | None = None


def simplicity(entry: Entry, remedy: Remedy) -> int:
    """How much a candidate adds to plain training: a correction 1, another loss or sampler 2, a schedule or head 3."""
    steps = 0 if remedy.name == PLAIN else 3 if remedy.schedule != "one-stage" or remedy.cosine else 2
    return steps + entry.corrected
