"""Does choosing on validation rows find the best remedy? Choice and judgement never share a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.question.data import BALANCED
from benchmarks.question.remedies import BY_NAME, PLAIN
from benchmarks.question.store import Run
from benchmarks.question.summary import Results
from benchmarks.question.tables import Cells, written

GOALS = {"accuracy": "natural", "balanced accuracy": "balanced"}
FIXES = {"accuracy": "fix accuracy", "balanced accuracy": "fix balanced-accuracy"}
CROSSFITTED = {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"}

Candidate = tuple[str, str]


@dataclass(frozen=True)
class Choice:
    """What validation rows choose and what test rows say of it.

    Attributes:
        chosen, best: remedy and decision. gap: test points that the choice loses on the best in hindsight, mean over
            seeds. error: standard error of that gap over seeds. candidates: how many took part.
    """

    chosen: Candidate
    best: Candidate
    gap: float
    error: float
    candidates: int

    @property
    def within(self) -> bool:
        return self.gap <= self.error


def validation_score(run: Run, told: str, goal: str) -> float | None:
    """On validation rows; a fix is judged cross-fitted, because its rows are the validation rows themselves.

    None where the validation rows do not have the class frequencies of the goal: cross-fitted figures count rows alike.
    """
    held = run["decisions"][told]
    if told in FIXES.values():
        if run["set"] in BALANCED and goal == "accuracy":
            return None
        crossfitted = held["crossfitted"]
        return crossfitted.get(CROSSFITTED[goal], crossfitted.get(CROSSFITTED[goal].replace("_", "-")))
    return held["validation"][GOALS[goal]]["accuracy"]


def choose(results: Results, name: str, goal: str) -> Choice | None:
    """The candidate with the best mean validation score, beside the one with the best mean test score.

    Only trainings that have every seed of plain training take part.
    """
    decisions = ("argmax", f"rule {goal.replace(' ', '-')}", FIXES[goal])
    seeds = sorted(results.of(name, PLAIN))
    whole = [remedy for remedy in results.remedies(name) if set(seeds) <= set(results.of(name, remedy))]
    if len(seeds) < 2 or len(whole) < 2:
        return None
    scored: dict[Candidate, tuple[float, np.ndarray]] = {}
    for remedy in whole:
        runs = [results.of(name, remedy)[seed] for seed in seeds]
        for told in decisions:
            known = [validation_score(run, told, goal) for run in runs]
            test = [run["decisions"][told][GOALS[goal]]["accuracy"] for run in runs]
            if None not in known:
                scored[remedy, told] = (float(np.mean(np.array(known, float))), 100 * np.array(test))
    chosen = max(scored, key=lambda key: scored[key][0])
    best = max(scored, key=lambda key: float(scored[key][1].mean()))
    gap = scored[best][1] - scored[chosen][1]
    return Choice(chosen, best, float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5), len(scored))


def hindsight_table(results: Results) -> list[str]:
    def words(candidate: Candidate) -> str:
        return f"{BY_NAME[candidate[0]].words}, {candidate[1]}"

    rows: list[Cells] = []
    for name in results.sets:
        for goal in GOALS:
            found = choose(results, name, goal)
            if found:
                rows.append([name, goal, words(found.chosen), words(found.best), f"{found.gap:.2f} ± {found.error:.2f}",
                             "yes" if found.within else "no"])  # fmt: skip
    header = ["set", "goal", "chosen on validation rows", "best on test rows", "points lost ± standard error", "within"]
    return written(header, rows)
