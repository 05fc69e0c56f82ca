"""Predicted over true against the true count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np

from evenhand.report.charts.counts import FEW
from evenhand.report.charts.style import EXPECTED, HALF, INK, MUTED, OVER, SIDES, UNDER, drawn_from, layered
from evenhand.report.series import Ratios, ratios

if TYPE_CHECKING:
    from evenhand.auditing import Audit
    from evenhand.declared import Floats


def ratio(audit: Audit) -> alt.LayerChart:
    """Predicted over true against the true count, log-log, with the fitted slope, its interval and the line y = 1."""
    data = ratios(audit)
    span = [*data.ratio, *([] if data.line is None else data.line), 0.5, 2.0]
    y_domain = [float(min(span)) / 1.25, float(max(span)) * 1.25]
    x_domain = [float(data.line_true[0]) / 1.15, float(data.line_true[1]) * 1.15]
    x_scale, scale = (alt.Scale(type="log", domain=domain, nice=False) for domain in (x_domain, y_domain))
    x = alt.X("true:Q", title="true rows of the class", scale=x_scale, axis=_log_axis(x_domain))
    y = alt.Y("ratio:Q", title="predicted ÷ true", scale=scale, axis=_log_axis(y_domain))
    rows = [
        {"true": round(float(t), 4), "ratio": float(f"{r:.5g}"), "classes": int(n), "side": SIDES[int(s)]}
        for t, r, n, s in zip(data.true, data.ratio, data.classes, data.side, strict=True)
    ]
    one = drawn_from([{"ratio": 1}]).mark_rule(color=INK, strokeWidth=1.2).encode(y=y)
    points = drawn_from(rows).mark_point(filled=True, opacity=0.7, clip=True).encode(x=x, y=y, **_marks(data))
    return layered([one, points, *_fit(data, x, y, scale)], HALF, 300)


def _marks(data: Ratios) -> dict[str, Any]:
    sides = list(SIDES.values())
    colours = alt.Scale(domain=sides, range=[OVER, UNDER, MUTED])
    shapes = alt.Scale(domain=sides, range=["triangle-up", "triangle-down", "circle"])
    size: Any = alt.value(70 if len(data.true) <= FEW else 24)
    if data.classes.max(initial=1) > 1:
        legend = alt.Legend(
            title="classes per mark", orient="bottom", direction="horizontal", values=_sizes(data.classes)
        )
        size = alt.Size("classes:Q", scale=alt.Scale(type="sqrt", range=[8, 160]), legend=legend)
    return {
        "color": alt.Color("side:N", scale=colours, legend=None),
        "shape": alt.Shape("side:N", scale=shapes, legend=None),
        "size": size,
    }


def _sizes(classes: Floats) -> list[float]:
    largest = float(classes.max())
    return [1.0, *(float(f"{v:.1g}") for v in (largest / 4, largest) if v >= 5)]


def _fit(data: Ratios, x: alt.X, y: alt.Y, scale: alt.Scale) -> list[alt.Chart]:
    if data.line is None or data.line_low is None or data.line_high is None:
        return []
    columns = {"true": data.line_true, "ratio": data.line, "low": data.line_low, "high": data.line_high}
    ends = drawn_from([{key: float(values[i]) for key, values in columns.items()} for i in (0, 1)]).encode(x=x)
    fan = ends.mark_area(color=EXPECTED, opacity=0.22, clip=True)
    line = ends.mark_line(color=EXPECTED, strokeWidth=2, clip=True)
    return [fan.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"), line.encode(y=y)]


def _log_axis(domain: Sequence[float]) -> alt.Axis:
    low, high = np.log10(domain[0]), np.log10(domain[1])
    steps = (1, 2, 5) if high - low < 1.2 else (1, 3) if high - low < 3.2 else (1,)
    values = [m * 10.0**e for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in steps]
    return alt.Axis(values=[float(f"{v:.3g}") for v in values if domain[0] <= v <= domain[1]], format=",~g")
