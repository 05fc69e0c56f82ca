"""The race in a terminal: the answer, the leaderboard, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evenhand.report.formats import plain, shortened
from evenhand.training.racing.entries import Entry
from evenhand.training.racing.following import next_steps
from evenhand.training.racing.result import cells, facts, is_recommended

if TYPE_CHECKING:
    from evenhand.training.racing.result import RaceResult

TITLES = {
    "value": "goal", "difference": "vs plain", "interval": "95 % interval", "p": "p", "accuracy": "acc", "head": "head",
    "medium": "medium", "tail": "tail", "nll": "nll", "ece": "ece", "count_distance": "count dist", "tau": "tau",
    "seconds": "s",
}  # fmt: skip
SPARED = ("nll", "ece", "medium", "head", "seconds", "p", "accuracy")  # a narrow terminal goes without, in this order
LONGEST = 60  # characters of a name


def to_text(result: RaceResult, width: int | None = None) -> str:
    """The leaderboard and the recommendation.

    Args:
        result: of :func:`evenhand.training.race`.
        width: columns of the terminal: sentences are wrapped, and the table goes without columns until it fits, and
            at last without the interval of tau and with short names. None for a file, where lines have any length.
    """
    unit = " (vs plain in points)" if result.share else ""
    counts = "; count dist: less is better" if any(entry.metrics for entry in result.entries) else ""
    legend = f"{result.words} and the rest on the judging rows{unit}, p after Holm, * better than plain at 5 %{counts}"
    prose = [f"{plain(result.name)} · {' · '.join(facts(result))}", "", plain(result.verdict.sentence), "", legend]
    lines = [line for text in prose for line in _wrapped(text, width)]
    done = [entry for entry in result.entries if entry.value is not None]
    if done:
        lines += [f"  {line}" for line in _table(result, done, None if width is None else width - 2)]
    for entry in result.entries:
        if entry.value is None:
            lines += _wrapped(f"  {_name(entry)}: {plain(entry.why)}", width)
        elif entry.why and not entry.corrected:
            only = f"only {entry.seeds} of {result.plan.seeds} seeds, {plain(entry.why)}"
            lines += _wrapped(f"  {_name(entry)}: {only}", width)
    for note in result.notes:
        lines += _wrapped(f"note: {shortened(plain(note), 300)}", width)
    steps = next_steps(result)
    return "\n".join([*lines, *([""] if steps else []), *steps])


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None or not text:
        return [text]
    return textwrap.wrap(text, max(20, width), break_on_hyphens=False, subsequent_indent="  " if text[0] == " " else "")


def _table(result: RaceResult, entries: Sequence[Entry], width: int | None) -> list[str]:
    keys = [key for key in TITLES if not (key == "accuracy" and result.metric == "accuracy")]
    rows = [(_mark(result, entry), cells(result, entry)) for entry in entries]
    found = _laid_out(rows, keys)
    for spared in SPARED:
        if width is None or len(found[0]) <= width:
            return found
        keys = [key for key in keys if key != spared]
        found = _laid_out(rows, keys)
    if width is not None and len(found[0]) > width:
        rows = [(name, shown | {"tau": shown["tau"].partition(" ")[0]}) for name, shown in rows]
        found = _laid_out(rows, keys)
    if width is not None and len(found[0]) > width:
        found = _laid_out([(name.replace(" + correction", " + corr."), shown) for name, shown in rows], keys, " ")
    return found


def _laid_out(rows: Sequence[tuple[str, dict[str, str]]], keys: Sequence[str], gap: str = "  ") -> list[str]:
    """Lines of equal length."""
    first = max(len(name) for name, _ in rows)
    wide = {key: max(len(TITLES[key]), *(len(found[key]) for _, found in rows)) for key in keys}
    head = " " * first + "".join(f"{gap}{TITLES[key]:>{wide[key]}}" for key in keys)
    return [head, *(f"{name:<{first}}" + "".join(f"{gap}{f[key]:>{wide[key]}}" for key in keys) for name, f in rows)]


def _mark(result: RaceResult, entry: Entry) -> str:
    arrow = "> " if is_recommended(result, entry) else "  "
    return f"{arrow}{_name(entry)}{' *' if entry.better else ''}"


def _name(entry: Entry) -> str:
    return shortened(plain(entry.name), LONGEST)
