"""The figure of the question: true, predicted and expected counts per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import altair as alt
import numpy as np

from evenhand.report.charts.style import (
    BAND,
    EXPECTED,
    INK,
    MUTED,
    OVER,
    SIDES,
    UNDER,
    WIDE,
    drawn_from,
    layered,
)
from evenhand.report.series import BINS, Counts, Order, counts_along, short_labels

if TYPE_CHECKING:
    from evenhand.auditing import Audit

HEIGHT: Final = 340
FEW: Final = 30  # up to here every class has its name on the axis
DASH: Final = "M-1-.18h2v.36h-2z"  # a stroke as a filled shape: the legend of bars and ticks has no strokes
ORDERED: Final[dict[Order, str]] = {
    "frequency": "classes, most frequent first", "class": "classes in index order", "name": "classes by name",
}  # fmt: skip
BAND_NAME, EXPECTED_NAME = "noise band (95%)", "expected (soft counts)"


def counts(audit: Audit, order: Order) -> alt.LayerChart:
    """True, predicted and expected counts per class along one order of the classes, with the band of sampling noise."""
    data = counts_along(audit, order)
    labels = short_labels(audit, data.permutation) if len(data.true) <= FEW else []
    x, y = _class_axis(data, labels, audit.classes), _count_axis(data)
    base = drawn_from(_records(data, labels)).encode(x=x)
    full, narrow = (alt.RelativeBandSize(band=share) for share in (0.62, 0.4))
    band = base.mark_bar(opacity=0.75, width=full) if labels else base.mark_area(opacity=0.75, interpolate="step")
    true = base.mark_tick(thickness=2.5, width=full) if labels else base.mark_line(strokeWidth=1.7, interpolate="step")
    soft = base.mark_line(strokeWidth=1.1, opacity=0.8, interpolate="step")
    soft = base.mark_tick(thickness=2, width=narrow) if labels else soft
    layers = [band.encode(y=y("low"), y2="high:Q", color=alt.datum(BAND_NAME)), *_stems(data, labels, x, y)]
    layers.append(true.encode(y=y("true"), color=alt.datum("true")))
    if data.expected is not None:
        layers.append(soft.encode(y=y("expected"), color=alt.datum(EXPECTED_NAME)))
    size = 70 if labels else 26 if len(data.true) <= 150 else 14
    points = base.mark_point(filled=True, opacity=0.95, size=size)
    layers.append(points.encode(y=y("predicted"), **_legend(data)))
    return layered(layers, WIDE, HEIGHT)


def _legend(data: Counts) -> dict[str, Any]:
    """Colour and shape of every series in one legend above the plot."""
    named = {"true": (INK, DASH), EXPECTED_NAME: (EXPECTED, DASH), BAND_NAME: (BAND, "square")}
    if data.expected is None:
        del named[EXPECTED_NAME]
    named |= {SIDES[1]: (OVER, "triangle-up"), SIDES[-1]: (UNDER, "triangle-down"), SIDES[0]: (MUTED, "circle")}
    legend = alt.Legend(
        orient="top", title=None, direction="horizontal", symbolSize=70, labelLimit=220, columnPadding=18
    )
    domain = list(named)
    colours, shapes = (alt.Scale(domain=domain, range=[pair[i] for pair in named.values()]) for i in (0, 1))
    return {
        "color": alt.Color("side:N", scale=colours, legend=legend),
        "shape": alt.Shape("side:N", scale=shapes, legend=legend),
    }


def _class_axis(data: Counts, labels: Sequence[str], classes: int) -> alt.X:
    title = ORDERED[data.order]
    if data.binned:
        title += f" ({BINS} groups of about {round(classes / BINS):,} neighbours, mean per class)"
    if labels:
        axis = alt.Axis(labelAngle=0 if len(labels) <= 6 else -35, labelLimit=180, grid=False, ticks=False)
        return alt.X("class:O", sort=None, title=title, axis=axis)
    scale = alt.Scale(domain=[-0.5, len(data.true) - 0.5], nice=False, zero=False)
    share = classes / len(data.true)
    axis = alt.Axis(grid=False, tickCount=8, labelExpr=f"format(datum.value * {share:.6g}, ',.0f')")
    return alt.X("rank:Q", title=title, scale=scale, axis=axis)


def _count_axis(data: Counts) -> Any:
    """The vertical channel for a column: logarithmic with room for zero, or plain where the counts span little."""
    top = float(max(data.true.max(), data.predicted.max(), data.high.max(), 1.0))
    if data.logarithmic:
        steps = (1, 3) if top < 3e4 else (1,)
        values = [0.0, *(m * 10.0**e for e in range(int(np.log10(top)) + 1) for m in steps if m * 10.0**e <= top)]
        scale = alt.Scale(type="symlog", constant=1, domain=[0, top * 1.15], nice=False)
    else:
        values = _round_steps(top)
        scale = alt.Scale(type="linear", domain=[0, top * 1.05], nice=False)
    axis = alt.Axis(title="rows per class", values=values, format=",d" if top >= 5 else ",.1f")
    return lambda column: alt.Y(f"{column}:Q", scale=scale, axis=axis)


def _round_steps(top: float) -> list[float]:
    raw = top / 5
    size = 10.0 ** np.floor(np.log10(raw))
    step = float(size * min((m for m in (1, 2, 5, 10) if m * size >= raw), default=10))
    return [round(i * step, 6) for i in range(int(top / step) + 1)]


def _records(data: Counts, labels: Sequence[str]) -> list[dict[str, Any]]:
    columns = {"true": data.true, "predicted": data.predicted, "low": data.low, "high": data.high}
    if data.expected is not None:
        columns["expected"] = data.expected
    return [
        _place(labels, b)
        | {key: round(float(values[b]), 3) for key, values in columns.items()}
        | {"side": SIDES[int(data.side[b])]}
        for b in range(len(data.true))
    ]


def _place(labels: Sequence[str], at: int) -> dict[str, Any]:
    return {"class": labels[at]} if labels else {"rank": at}


def _stems(data: Counts, labels: Sequence[str], x: alt.X, y: Any) -> list[alt.Chart]:
    """From the true to the predicted count of every class outside the band, all stems of one side in a single path.

    One rule mark per class would weigh 200 bytes each; a line broken at nulls draws the same with twenty.
    """
    layers = []
    for side in (1, -1):
        points: list[dict[str, Any]] = []
        for at in np.flatnonzero(data.side == side).tolist():
            for value in (round(float(data.true[at]), 3), round(float(data.predicted[at]), 3), None):
                points.append(_place(labels, at) | {"count": value, "step": len(points)})
        if points:
            width = 1.0 if len(data.true) > 150 else 1.6
            line = drawn_from(points).mark_line(
                strokeWidth=width, opacity=0.45, invalid="break-paths-show-path-domains"
            )
            layers.append(line.encode(x=x, y=y("count"), order="step:Q", color=alt.datum(SIDES[side])))
    return layers
