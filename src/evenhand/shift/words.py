"""An estimate of the prior in words and as JSON: the command line, notebooks and files say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evenhand.shift.intervals import UNCLEAR

if TYPE_CHECKING:
    from evenhand.shift import PriorEstimate

SCHEMA = "evenhand.shift/1"


def share(value: float) -> str:
    """A share of the rows in percent, with digits where they count.

    >>> share(0.1234), share(0.00123), share(0.0)
    ('12 %', '0.12 %', '0 %')
    """
    percent = 100 * value
    digits = 0 if percent >= 10 or percent == 0 else min(6, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{digits}f} %"


def sentence(found: PriorEstimate) -> str:
    """What a colleague would say first."""
    low, high = found.distance_interval
    if found.answer == "moved" and found.cross_check is not None and not found.cross_check.agrees:
        return "The new rows differ from the labelled ones, but not by their class frequencies alone."
    if found.answer == "moved":
        size = (
            f"{share(found.distance)} of the rows ({share(low)} to {share(high)}) belong to other classes than before"
        )
        return f"Class frequencies have moved: {size}."
    if found.answer == "same":
        return (
            "Class frequencies have not moved, as far as these rows can tell: at most "
            f"{share(found.possible)} of the rows could belong to other classes than before."
        )
    return (
        f"Too little data to say whether class frequencies have moved: a shift of {share(found.possible)} of the rows "
        "could go unnoticed."
    )


def proof(found: PriorEstimate) -> list[str]:
    """The numbers behind the sentence, one line each."""
    p = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
    lines = [f"test of no shift: {p} on {found.rows:,} rows"]
    if found.answer == "moved":
        unclear = sum(word == UNCLEAR for word in found.verdict)
        rest = f"; {unclear:,} have too few rows to judge" if unclear else ""
        lines.append(
            f"{len(found.moved):,} of {found.classes:,} classes moved for certain "
            f"(false discovery rate {share(found.alpha)}){rest}"
        )
    if not found.converged:
        lines.append(f"the estimate had not settled after {found.passes} passes; read the intervals with care")
    return [*lines, *_cross_check(found)]


def _cross_check(found: PriorEstimate) -> list[str]:
    check = found.cross_check
    if check is None:
        return []
    figures = f"count distance {check.distance:.3f}, {check.expected:.3f} by chance"
    if check.agrees:
        return [f"the predicted labels agree ({figures})"]
    return [
        f"the predicted labels do not fit a change of class frequencies alone ({figures}): the classes themselves look "
        "different, or the calibration is off, so trust neither the estimate nor a correction made from it"
    ]


def moved_lines(found: PriorEstimate, names: Sequence[str] | None, top: int) -> list[tuple[str, str, str, str, str]]:
    """The classes that moved most: name, before, now, interval, and how the change reads."""
    lines = []
    for c in found.moved[:top]:
        before, now = float(found.train_prior[c]), float(found.prior[c])
        low, high = found.interval[c]
        name = str(int(c)) if names is None else names[c]
        lines.append((name, share(before), share(now), f"{share(low)} to {share(high)}", change(before, now)))
    return lines


def change(before: float, now: float) -> str:
    """How a change of frequency is said.

    >>> change(0.1, 0.3), change(0.1, 0.115), change(0.2, 0.02), change(0.2, 0.0)
    ('3.0 times as often', '15 % more often', 'a tenth as often', 'hardly ever')
    """
    ratio = now / max(before, 1e-300)
    if ratio >= 1.5:
        return f"{ratio:.1f} times as often" if ratio < 10 else f"{ratio:.0f} times as often"
    if ratio >= 2 / 3:
        return f"{100 * abs(ratio - 1):.0f} % {'more' if ratio > 1 else 'less'} often"
    if ratio < 0.01:
        return "hardly ever"
    words = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 10: "a tenth"}
    part = round(1 / ratio)
    return f"{words.get(part, f'1/{part}')} as often"


def to_dict(found: PriorEstimate, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The estimate as JSON values, schema ``evenhand.shift/1`` (docs/shift.md); numbers that do not exist are None."""
    check = found.cross_check
    fix = found.correction()
    before, after = found.expected_accuracy
    return {
        "schema": SCHEMA,
        "rows": found.rows,
        "classes": found.classes,
        "labelled_rows": found.reference_rows,
        "answer": found.answer,
        "sentence": sentence(found),
        "alpha": found.alpha,
        "test": {
            "p_value": found.p_value,
            "statistic": found.statistic,
            "df": found.df,
            "likelihood_ratio": found.likelihood_ratio,
        },
        "distance": {
            "total_variation": found.distance,
            "interval": list(found.distance_interval),
            "possible": found.possible,
        },
        "cross_check": None
        if check is None
        else {"agrees": check.agrees, "distance": check.distance, "expected": check.expected, "limit": check.limit},
        "fit": {
            "strength": found.strength if math.isfinite(found.strength) else None,
            "passes": found.passes,
            "converged": found.converged,
        },
        "fix": {
            "recommended": fix.recommended,
            "why": fix.why,
            "expected_accuracy": {"before": before, "after": after},
        },
        "classes_table": _table(found, names),
    }


def _table(found: PriorEstimate, names: Sequence[str] | None) -> list[dict[str, Any]]:
    labels = None if found.cross_check is None else found.cross_check.prior.tolist()
    columns = zip(
        found.train_prior.tolist(),
        found.prior.tolist(),
        found.interval.tolist(),
        found.average.tolist(),
        found.q_value.tolist(),
        found.verdict,
        strict=True,
    )
    return [
        {
            "class": c,
            "name": str(c) if names is None else names[c],
            "before": before,
            "now": now,
            "interval": interval,
            "average_posterior": average,
            "by_predicted_labels": None if labels is None else labels[c],
            "q_value": q_value,
            "verdict": verdict,
        }
        for c, (before, now, interval, average, q_value, verdict) in enumerate(columns)
    ]
