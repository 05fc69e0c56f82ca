"""The question's tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.question.data import BALANCED
from benchmarks.question.remedies import BY_NAME, PLAIN
from benchmarks.question.summary import Figure, Results, Told, at_epoch, decision, final

Cells = Sequence[str]
LONG_RUN = ("plain", "focal-2", "weights", "focal-2-alpha", "double", "balanced-softmax")
DECIDED = (
    "plain", "focal-2", "sqrt", "weights", "focal-2-alpha", "double", "balanced-softmax", "cosine", "ldam-drw",
    "lstm-head-weights",
)  # fmt: skip
PER_CENT = 100.0
# Heading, keys of the figure at the last epoch, scale, digits, whether rows but the first are differences from plain.
OVERVIEW: tuple[tuple[str, tuple[str, ...], float, int, bool], ...] = (
    ("tau: how many times the prior was divided out", ("tau",), 1.0, 2, False),
    ("beta: by how much the logits would have to be stretched", ("beta",), 1.0, 2, False),
    ("Slope of log predicted on log true counts", ("natural", "slope"), 1.0, 2, False),
    ("Accuracy, natural test", ("natural", "accuracy"), PER_CENT, 1, True),
    ("Balanced accuracy", ("balanced", "accuracy"), PER_CENT, 1, True),
    ("Recall of the rarest third", ("recall", "tail"), PER_CENT, 1, True),
    ("Macro F1, natural test", ("natural", "macro F1"), PER_CENT, 1, True),
    ("Count distance, natural test", ("natural", "count distance"), PER_CENT, 1, True),
    ("Classes with test rows that are never predicted", ("natural", "never predicted"), 1.0, 0, False),
)


def written(header: Cells, rows: Iterable[Cells]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def number(told: Told, scale: float = 1.0, digits: int = 1, *, signed: bool = False) -> str:
    if not told.known:
        return ""
    sign = "+" if signed else ""
    text = f"{scale * told.mean:{sign}.{digits}f}"
    return text if told.half == float("inf") else f"{text} ± {scale * told.half:.{digits}f}"


def short(told: Told, scale: float = 1.0, digits: int = 1, *, signed: bool = False) -> str:
    return number(Told(told.mean, float("inf"), told.seeds), scale, digits, signed=signed)


def beside_plain(results: Results, name: str, remedy: str, figure: Figure) -> str:
    """The level for plain training, the paired difference for every other remedy, in points."""
    if remedy == PLAIN:
        return number(results.mean(name, PLAIN, figure), PER_CENT)
    return number(results.difference(name, remedy, figure), PER_CENT, signed=True)


def overview(results: Results) -> list[str]:
    """One table per figure: trainings down, sets across, the largest score at the last epoch."""
    named = [remedy for remedy in BY_NAME if any(results.of(name, remedy) for name in results.sets)]
    lines: list[str] = []
    for heading, path, scale, digits, differences in OVERVIEW:
        rows = [
            [
                BY_NAME[remedy].words,
                *(_beside(results, name, remedy, final(*path), scale, digits, differences) for name in results.sets),
            ]
            for remedy in named
        ]
        lines += [f"### {heading}", "", *written(["training", *results.sets], rows), ""]
    return lines


def _beside(
    results: Results, name: str, remedy: str, figure: Figure, scale: float, digits: int, differences: bool
) -> str:
    if differences and remedy != PLAIN:
        return number(results.difference(name, remedy, figure), scale, digits, signed=True)
    return number(results.mean(name, remedy, figure), scale, digits)


def main_table(results: Results, name: str) -> list[str]:
    """Largest score at the last epoch: levels of plain training, paired differences of the others."""
    header = ["training", "accuracy", "balanced accuracy", "macro F1", "count distance", "head / medium / tail",
              "never predicted", "slope", "tau", "beta", "NLL", "ECE", "first finding"]  # fmt: skip

    def row(remedy: str) -> Cells:
        def mean(digits: int, *path: str, scale: float = 1.0, signed: bool = False) -> str:
            return short(results.mean(name, remedy, final(*path)), scale, digits, signed=signed)

        groups = " / ".join(mean(1, "recall", group, scale=PER_CENT) for group in ("head", "medium", "tail"))
        return [
            BY_NAME[remedy].words,
            *(beside_plain(results, name, remedy, final(*path)) for path in (
                ("natural", "accuracy"), ("balanced", "accuracy"), ("natural", "macro F1"),
                ("natural", "count distance"))),
            groups, mean(0, "natural", "never predicted"), mean(2, "natural", "slope", signed=True),
            number(results.mean(name, remedy, final("tau")), digits=2, signed=True), mean(2, "beta"),
            mean(2, "natural", "nll"), mean(3, "natural", "ece"), results.causes(name, remedy),
        ]  # fmt: skip

    return written(header, map(row, results.remedies(name)))


def decision_table(results: Results, name: str) -> list[str]:
    """The same networks under other decisions; differences are against the largest score of plain training."""
    header = ["training", "accuracy: argmax", "fix --goal accuracy", "balanced: argmax", "own rule",
              "fix --goal balanced-accuracy", "count distance: argmax", "fix --goal counts"]  # fmt: skip

    def cell(remedy: str, test: str, measure: str, told: str) -> str:
        figure, reference = decision(told, test, measure), decision("argmax", test, measure)
        if remedy == PLAIN and told == "argmax":
            return number(results.mean(name, PLAIN, figure), PER_CENT)
        return number(results.difference(name, remedy, figure, against=reference), PER_CENT, signed=True)

    def row(remedy: str) -> Cells:
        accuracy, balanced = ("natural", "accuracy"), ("balanced", "accuracy")
        distance = ("balanced" if name in BALANCED else "natural", "count distance")
        wanted = [
            (*accuracy, "argmax"), (*accuracy, "fix accuracy"), (*balanced, "argmax"),
            (*balanced, "rule balanced-accuracy"), (*balanced, "fix balanced-accuracy"), (*distance, "argmax"),
            (*distance, "fix counts"),
        ]  # fmt: skip
        return [BY_NAME[remedy].words, *(cell(remedy, *one) for one in wanted)]

    return written(header, [row(remedy) for remedy in DECIDED if results.of(name, remedy)])


def long_run_table(results: Results, name: str) -> list[str]:
    """Checkpoints of one training: what 'in the long run' does."""
    kept: list[tuple[str, Callable[[int], Figure], float, int]] = [
        ("tail recall", lambda e: at_epoch(e, "recall", "tail"), PER_CENT, 1),
        ("accuracy", lambda e: at_epoch(e, "natural", "accuracy"), PER_CENT, 1),
        ("never predicted", lambda e: at_epoch(e, "natural", "never predicted"), 1.0, 0),
        ("slope", lambda e: at_epoch(e, "natural", "slope"), 1.0, 2),
        ("tau", lambda e: at_epoch(e, "tau"), 1.0, 2),
        ("beta", lambda e: at_epoch(e, "beta"), 1.0, 2),
    ]
    epochs = results.epochs(name)
    rows = [
        [BY_NAME[remedy].words, words, *(short(results.mean(name, remedy, made(e)), scale, digits) for e in epochs)]
        for remedy in LONG_RUN
        if results.of(name, remedy)
        for words, made, scale, digits in kept
    ]
    return written(["training", "figure", *(f"epoch {epoch}" for epoch in epochs)], rows)


def document(results: Results) -> str:
    """All tables of all sets, for docs/the-question-tables.md."""
    lines = [
        "# The question: all tables",
        "",
        "Made by `python -m benchmarks question`; what they mean is told in [the answer](the-question.md). Figures are",
        "means over seeds, in per cent or points where they are shares; ± is half a 95 % interval (Student's t over",
        "seeds, not corrected for the number of comparisons). Accuracy, balanced accuracy, macro F1 and count distance",
        "are levels in the plain row and differences from it, on the same seeds, in the others. Recall of head, medium",
        "and tail is the mean over thirds of the classes by training frequency.",
        "",
    ]
    lines += ["## All sets beside each other", "", *overview(results)]
    for name in results.sets:
        seeds = len(results.of(name, PLAIN))
        lines += [f"## {name} ({seeds} seed{'s' * (seeds != 1)})", "", *main_table(results, name), ""]
        lines += ["The same networks under other decisions:", "", *decision_table(results, name), ""]
        lines += ["Over the epochs of one training:", "", *long_run_table(results, name), ""]
    return "\n".join(lines)
