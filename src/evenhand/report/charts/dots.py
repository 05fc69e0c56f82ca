"""Values with their intervals, one row each, against a reference line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from evenhand.report.charts.style import BAND, INK, MUTED, OVER, UNDER, WIDE, drawn_from, layered
from evenhand.report.formats import plain, shortened

ROW = 22
LABEL = 42


@dataclass(frozen=True)
class Dot:
    """One row: its name, value and interval (None for none), whether it is filled, and whether it is marked."""

    name: str
    value: float
    low: float | None
    high: float | None
    filled: bool = False
    marked: bool = False


def dots(rows: Sequence[Dot], title: str, *, reference: float = 0.0, width: int = WIDE - 320) -> alt.LayerChart:
    """A dot and a rule per row, in the order given, and a line at the reference.

    Args:
        rows: at least one. title: of the axis. reference: where the line stands. width: of the plotting area.
    """
    names = [f"{number + 1}. {shortened(plain(row.name), LABEL)}" for number, row in enumerate(rows)]
    records = [
        {
            "row": name,
            "value": row.value,
            "low": row.value if row.low is None else row.low,
            "high": row.value if row.high is None else row.high,
        }
        for name, row in zip(names, rows, strict=True)
    ]
    extent = 8 * max(map(len, names))  # browsers have wider fonts than the renderer measures with
    y = alt.Y(
        "row:N", sort=names, title=None, axis=alt.Axis(labelLimit=380, minExtent=extent, ticks=False, domain=False)
    )
    ends = [reference, *(e for row in rows for e in (row.value, row.low, row.high) if e is not None)]
    room = 0.04 * (max(ends) - min(ends)) or 1.0  # a dot at the edge would lie on the names
    scale = alt.Scale(domain=[min(ends) - room, max(ends) + room], nice=False, zero=False)
    x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=max(3, width // 80)))
    layers = [drawn_from([{"value": reference}]).mark_rule(color=INK, strokeWidth=1.2).encode(x=x)]
    for marked, colour in ((True, UNDER), (False, MUTED)):
        some = [record for record, row in zip(records, rows, strict=True) if row.marked is marked]
        if some:
            rule = drawn_from(some).mark_rule(color=colour if marked else BAND, strokeWidth=3)
            layers.append(rule.encode(y=y, x=alt.X("low:Q", title=title), x2="high:Q"))
    for filled in (True, False):
        some = [record for record, row in zip(records, rows, strict=True) if row.filled is filled]
        if some:
            layers.append(drawn_from(some).mark_point(filled=filled, color=OVER, size=70, opacity=1).encode(x=x, y=y))
    return layered(layers, width, ROW * len(rows))
