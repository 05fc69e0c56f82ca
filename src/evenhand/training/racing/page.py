"""The race as one self-contained HTML page."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape

import numpy as np
from markupsafe import Markup

from evenhand.report.charts import Dot, dots, svg
from evenhand.report.formats import plain, shortened
from evenhand.report.pages import render_page
from evenhand.training.racing.following import next_steps
from evenhand.training.racing.result import RaceResult, cells, facts, is_recommended

PHONE = 190  # width of the plotting area beside the names, in CSS pixels
SEVERITY = {"take": "sound", "keep": "sound", "tie": "note", "unknown": "warning"}
BADGES = {"take": "take", "keep": "keep", "tie": "not sure", "unknown": "not sure"}


def to_html(result: RaceResult) -> str:
    """The document: verdict, figure, leaderboard, what failed, how it was judged; no script, no request.

    Args:
        result: of :func:`evenhand.training.race`.
    """
    done = [
        (entry, cells(result, entry), is_recommended(result, entry))
        for entry in result.entries
        if entry.value is not None
    ]
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
        charts=_charts(result),
        overhead=f"{overhead:.0%}" if math.isfinite(overhead) else "",
    )


def repr_html(result: RaceResult, height: int = 760) -> str:
    """The page for a notebook cell: an isolated frame, so that neither page can disturb the other's styles.

    Args:
        result: of :func:`evenhand.training.race`. height: of the frame, in CSS pixels.
    """
    title = escape(f"evenhand race on {plain(result.name)}", quote=True)
    return (
        f'<iframe title="{title}" sandbox="allow-popups allow-popups-to-escape-sandbox" style="width:100%;'
        f'height:{int(height)}px;border:1px solid #8884;border-radius:8px" '
        f'srcdoc="{escape(to_html(result), quote=True)}"></iframe>'
    )


def _charts(result: RaceResult) -> dict[str, Markup]:
    """Differences to plain training with their intervals, in the order of the leaderboard: wide, and for a phone.

    Two figures of which the page shows one: scaled down to a phone the letters of the wide one could not be read.
    """
    scale = 100 if result.share else 1
    rows, short = [], []
    for entry in result.entries:
        if entry.difference is None or not np.isfinite(entry.difference.value):
            continue
        low, high = entry.difference.interval
        known = bool(np.isfinite(low))
        row = Dot(
            entry.name,
            scale * entry.difference.value,
            scale * low if known else None,
            scale * high if known else None,
            filled=entry.corrected,
            marked=is_recommended(result, entry),
        )
        rows.append(row)
        short.append(replace(row, name=f"{shortened(plain(entry.remedy), 20)}{' + c.' if entry.corrected else ''}"))
    if not rows:
        return {}
    unit = ", percentage points" if result.share else ""
    return {
        "wide": Markup(svg(dots(rows, f"difference to plain training{unit}"), "race")),
        "narrow": Markup(svg(dots(short, f"difference{unit}", width=PHONE), "race-narrow")),
    }
