"""The page of the answer: `answer.md` with its figures and tables filled in from stored runs.

In the text ``{{level stdlib weights accuracy}}`` stands for a figure and ``{{table counts}}`` for a table; the first
word is a method of :class:`Page`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.question.data import BALANCED
from benchmarks.question.hindsight import hindsight_table
from benchmarks.question.remedies import BY_NAME, KEY, PLAIN
from benchmarks.question.store import Run
from benchmarks.question.summary import Figure, Results, Told, at_epoch, decision, final
from benchmarks.question.tables import number, short, written

TEMPLATE = Path(__file__).with_name("answer.md")
PLACE = re.compile(r"\{\{([^{}]+)\}\}")
# Keys of a figure at a checkpoint, scale, digits, whether a level is written with its sign.
FIGURES: dict[str, tuple[tuple[str, ...], float, int, bool]] = {
    "accuracy": (("natural", "accuracy"), 100.0, 1, False),
    "balanced": (("balanced", "accuracy"), 100.0, 1, False),
    "tail": (("recall", "tail"), 100.0, 1, False),
    "distance": (("natural", "count distance"), 100.0, 1, False),
    "never": (("natural", "never predicted"), 1.0, 0, False),
    "slope": (("natural", "slope"), 1.0, 2, True),
    "tau": (("tau",), 1.0, 2, True),
    "beta": (("beta",), 1.0, 2, False),
    "ece": (("natural", "ece"), 1.0, 3, False),
    "corrected": (("minus log prior", "balanced", "accuracy"), 100.0, 1, False),
}
WORDS = {
    "tail": "tail recall", "balanced": "balanced accuracy", "distance": "count distance", "never": "never predicted",
    "corrected": "balanced accuracy minus log prior",
}  # fmt: skip
COUNTED = (
    PLAIN, "sqrt", "weights", "sampler", "class-balanced", "balanced-softmax", "double", "focal-2", "focal-2-alpha",
    "cosine", "ldam-drw", "lstm-head", "lstm-head-weights",
)  # fmt: skip
FOCAL = (PLAIN, *(f"focal-{g}" for g in (0.5, 1, 2, 5)), *(f"focal-{g}-alpha" for g in (0.5, 1, 2, 5)), "weights")
SLOW = (PLAIN, "focal-2", "weights", "double", "balanced-softmax")
UNTILTED = (PLAIN, "focal-2")  # what minus log prior is for: from others the prior is out already
DECIDED = (PLAIN, "sqrt", "weights", "double", "balanced-softmax", "cosine", "ldam-drw")


class Page:
    """Figures and tables by name.

    Args:
        results: of all sets. longer: of stdlib with more epochs, or None. race: lines of `racehindsight`, one per set.
    """

    def __init__(self, results: Results, longer: Results | None, race: Sequence[Mapping[str, Any]]) -> None:
        self.results, self.longer, self.race = results, longer or Results([]), race

    def filled(self, text: str) -> str:
        """The text with everything in place."""
        return PLACE.sub(lambda found: self._one(found[1].split()), text)

    def _one(self, words: list[str]) -> str:
        name, *rest = words
        if name == "table":
            return "\n".join(getattr(self, f"table_{rest[0].replace('-', '_')}")(*rest[1:]))
        source = self.longer if name.startswith("longer-") else self.results
        return str(getattr(self, f"told_{name.removeprefix('longer-').replace('-', '_')}")(source, *rest))

    # Words in the text.

    def told_level(self, source: Results, name: str, remedy: str, figure: str, epoch: str = "") -> str:
        """Mean over seeds and half its interval."""
        _, scale, digits, signed = FIGURES[figure]
        return number(source.mean(name, remedy, _figure(figure, epoch)), scale, digits, signed=signed)

    def told_mean(self, source: Results, name: str, remedy: str, figure: str, epoch: str = "") -> str:
        """Mean over seeds."""
        _, scale, digits, signed = FIGURES[figure]
        return short(source.mean(name, remedy, _figure(figure, epoch)), scale, digits, signed=signed)

    def told_change(self, source: Results, name: str, remedy: str, figure: str, reference: str = PLAIN) -> str:
        """Difference to another training on the same seeds."""
        _, scale, digits, _ = FIGURES[figure]
        return number(source.difference(name, remedy, _figure(figure), reference=reference), scale, digits, signed=True)

    def told_changes(self, source: Results, remedy: str, figure: str, reference: str = PLAIN) -> str:
        """The same on every set, in their order."""
        return ", ".join(self.told_change(source, name, remedy, figure, reference) for name in source.sets)

    def told_farthest(self, source: Results, remedy: str, figure: str) -> str:
        """The largest absolute difference to plain training over the sets."""
        _, scale, digits, _ = FIGURES[figure]
        found = [abs(source.difference(name, remedy, _figure(figure)).mean) for name in source.sets]
        return f"{scale * max(found):.{digits}f}"

    def told_span(self, source: Results, remedy: str, figure: str, *names: str) -> str:
        """Smallest and largest difference to plain training over some sets."""
        _, scale, digits, _ = FIGURES[figure]
        found = [source.difference(name, remedy, _figure(figure)).mean for name in names]
        return f"{scale * min(found):+.{digits}f} to {scale * max(found):+.{digits}f}"

    def told_decided(self, source: Results, name: str, remedy: str, told: str, test: str = "natural") -> str:
        """Accuracy by a decision minus that of plain training's largest score; ``fix-accuracy`` for instance."""
        return number(_decided(source, name, remedy, told.replace("-", " ", 1), test), 100.0, signed=True)

    def told_decided_everywhere(self, source: Results, remedy: str, told: str, test: str = "natural") -> str:
        """The same on every set."""
        return ", ".join(self.told_decided(source, name, remedy, told, test) for name in source.sets)

    def told_fixed(self, source: Results, name: str, remedy: str, told: str, measure: str, test: str) -> str:
        """Level by a decision, of ``accuracy`` or ``count-distance``."""
        return number(
            source.mean(name, remedy, decision(told.replace("-", " ", 1), test, measure.replace("-", " "))), 100.0
        )

    def told_races(self, source: Results) -> str:  # noqa: ARG002
        """On how many sets the race is within one standard error."""
        return f"{sum(bool(line['within']) for line in self.race)} of {len(self.race)}"

    def told_seeds(self, source: Results) -> str:
        """How many seeds every set has, for the main trainings and all others."""
        sentences = []
        for name in source.sets:
            main, others = (
                _range(len(source.of(name, remedy)) for remedy in source.remedies(name) if (remedy in KEY) == key)
                for key in (True, False)
            )
            sentences.append(f"{name} {main}" + ("" if others in ("", main) else f" ({others} for the side trainings)"))
        return ", ".join(sentences)

    def told_hours(self, source: Results) -> str:
        """Processor time of all runs, those with more epochs included."""
        runs = [run for held in (source, self.longer) for seeds in held.runs.values() for run in seeds.values()]
        return f"{sum(run['seconds']['all'] for run in runs) / 3600:.1f}"

    def told_recommended(self, source: Results) -> str:
        """How many corrections `evenhand fix` recommended, how many made their metric worse on test rows, by what."""
        lost = [loss for held in source.runs.values() for run in held.values() for loss in _losses(run)]
        worse = [loss for loss in lost if loss > 0]
        return (
            f"{len(lost)} recommended corrections {len(worse)} made things worse, by {max(worse, default=0):.1f} points"
        )

    # Tables.

    def table_counts(self, name: str) -> list[str]:
        """Levels of a set at the last epoch."""
        header = ["training", "accuracy", "balanced accuracy", "count distance", "slope", "tau", "beta",
                  "never predicted", "first finding", "seeds"]  # fmt: skip
        r = self.results
        levels = ("accuracy", "balanced", "distance", "slope", "tau")
        rows = [
            [BY_NAME[m].words, *(self.told_level(r, name, m, f) for f in levels),
             *(self.told_mean(r, name, m, f) for f in ("beta", "never")), r.causes(name, m), str(len(r.of(name, m)))]
            for m in COUNTED if r.of(name, m)
        ]  # fmt: skip
        return written(header, rows)

    def table_mirror(self) -> list[str]:
        """Slopes over the epochs."""
        return self._over_epochs(self.results, self.results.sets, ("weights", "double"), ("slope",))

    def table_slow(self, *names: str) -> list[str]:
        """What the long run does on some sets."""
        return self._over_epochs(self.results, names, SLOW, ("tail", "accuracy", "tau"))

    def table_longer(self, name: str) -> list[str]:
        """The same for the runs with more epochs."""
        kept = [remedy for remedy in SLOW if self.longer.of(name, remedy)]
        return self._over_epochs(self.longer, (name,), kept, ("tail", "accuracy", "balanced", "corrected", "tau"))

    def _over_epochs(
        self, source: Results, names: Sequence[str], remedies: Sequence[str], figures: Sequence[str]
    ) -> list[str]:
        epochs = sorted({epoch for name in names for epoch in source.epochs(name)})
        rows = [
            [name, BY_NAME[remedy].words, WORDS.get(figure, figure),
             *(self.told_mean(source, name, remedy, figure, str(epoch)) for epoch in epochs)]
            for name in names for remedy in remedies for figure in figures
            if figure != "corrected" or remedy in UNTILTED
        ]  # fmt: skip
        return written(["set", "training", "figure", *map(str, epochs)], rows)

    def table_focal(self) -> list[str]:
        """Levels of tau and beta, differences of the others."""
        rows = []
        for figure, words in (("tau", "tau"), ("beta", "beta"), ("balanced", "balanced accuracy"),
                              ("tail", "recall of the rarest third")):  # fmt: skip
            for remedy in FOCAL:
                told = self.told_level if figure in ("tau", "beta") or remedy == PLAIN else self.told_change
                rows.append(
                    [words, BY_NAME[remedy].words, *(told(self.results, n, remedy, figure) for n in self.results.sets)]
                )
        return written(["figure", "training", *self.results.sets], rows)

    def table_decided(self) -> list[str]:
        """What each training becomes by correction."""
        header = ["set", "training", "accuracy, as trained", "fix --goal accuracy", "balanced accuracy, as trained",
                  "the loss's own rule", "fix --goal balanced-accuracy"]  # fmt: skip
        columns = (("natural", "argmax"), ("natural", "fix-accuracy"), ("balanced", "argmax"),
                   ("balanced", "rule-balanced-accuracy"), ("balanced", "fix-balanced-accuracy"))  # fmt: skip

        def cell(name: str, remedy: str, test: str, told: str) -> str:
            if (remedy, told) == (PLAIN, "argmax"):
                return self.told_fixed(self.results, name, PLAIN, "argmax", "accuracy", test)
            return self.told_decided(self.results, name, remedy, told, test)

        rows = [
            [name, BY_NAME[remedy].words, *(cell(name, remedy, *column) for column in columns)]
            for name in self.results.sets
            for remedy in DECIDED
        ]
        return written(header, rows)

    def table_choice(self) -> list[str]:
        """Chosen on validation rows beside best on test rows."""
        return hindsight_table(self.results)

    def table_race(self) -> list[str]:
        """What the race recommends beside what its judging half puts first."""
        header = ["set", "recommended", "best on the judging half", "plain", "recommended", "best", "points lost",
                  "error", "within"]  # fmt: skip
        rows = [
            [line["set"], line["recommended"], line["best"],
             *(f"{100 * line[key]:.1f}" for key in ("plain", "value", "best value")),
             *(f"{100 * line[key]:.2f}" for key in ("gap", "error")), "yes" if line["within"] else "no"]
            for line in self.race
        ]  # fmt: skip
        return written(header, rows)


def _figure(name: str, epoch: str = "") -> Figure:
    path = FIGURES[name][0]
    return at_epoch(int(epoch), *path) if epoch else final(*path)


def _decided(source: Results, name: str, remedy: str, told: str, test: str) -> Told:
    reference = decision("argmax", test, "accuracy")
    return source.difference(name, remedy, decision(told, test, "accuracy"), against=reference)


def _losses(run: Run) -> Iterable[float]:
    """Points that each recommended correction loses against the largest score, on test rows."""
    counts = "balanced" if run["set"] in BALANCED else "natural"
    for goal, test, measure, sign in (
        ("fix accuracy", "natural", "accuracy", -1), ("fix balanced-accuracy", "balanced", "accuracy", -1),
        ("fix counts", counts, "count distance", 1),
    ):  # fmt: skip
        told = run["decisions"][goal]
        if told.get("recommended"):
            yield 100.0 * sign * (told[test][measure] - run["decisions"]["argmax"][test][measure])


def _range(found: Iterable[int]) -> str:
    numbers = sorted(set(found))
    return " to ".join(map(str, numbers[:1] + numbers[1:][-1:]))
