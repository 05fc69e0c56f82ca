"""The race as one self-contained HTML page."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from evenhand.report.charts import Dot, dots, svg
from evenhand.report.pages import render_page
from evenhand.training.racing.result import RaceResult, cells, facts, next_steps

SEVERITY = {"take": "sound", "keep": "sound", "tie": "note", "unknown": "warning"}
BADGES = {"take": "take", "keep": "keep", "tie": "not sure", "unknown": "not sure"}


def to_html(result: RaceResult) -> str:
    """The document: verdict, figure, leaderboard, what failed, how it was judged; no script, no request.

    Args:
        result: of :func:`evenhand.training.race`.
    """
    done = [(entry, cells(result, entry)) for entry in result.entries if entry.value is not None]
    overhead = result.overhead
    headline, mark, rest = result.verdict.sentence.partition(". ")
    return render_page(
        "race.html.j2",
        scripted=False,
        result=result,
        headline=(headline + mark).replace(" -> ", " → "),
        rest=rest,
        facts=facts(result),
        steps=next_steps(result),
        severity=SEVERITY[result.verdict.kind],
        badge=BADGES[result.verdict.kind],
        done=done,
        undone=[entry for entry in result.entries if entry.why and not entry.corrected],
        chart=_chart(result),
        overhead=f"{overhead:.0%}" if math.isfinite(overhead) else "",
    )


def _chart(result: RaceResult) -> Markup | None:
    """Differences to plain training with their intervals, in the order of the leaderboard."""
    scale = 100 if result.share else 1
    rows = []
    for entry in result.entries:
        if entry.difference is None or not np.isfinite(entry.difference.value):
            continue
        low, high = entry.difference.interval
        known = bool(np.isfinite(low))
        rows.append(
            Dot(
                entry.name,
                scale * entry.difference.value,
                scale * low if known else None,
                scale * high if known else None,
                filled=entry.corrected,
                marked=entry is result.verdict.entry,
            )
        )
    if not rows:
        return None
    unit = ", percentage points" if result.share else ""
    return Markup(svg(dots(rows, f"difference to plain training{unit}"), "race"))
