"""The tilt on its scale, and what moving it would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import altair as alt
import numpy as np

from evenhand.declared import Floats, InputError
from evenhand.report.charts.style import APART, BAND, EXPECTED, HALF, INK, MUTED, OVER, UNDER, drawn_from, layered
from evenhand.report.formats import fixed
from evenhand.report.wording import METRICS, tilt_matters

if TYPE_CHECKING:
    from evenhand.auditing import Audit

SOLID: Final = [1, 0]
CURVES: Final[dict[str, tuple[str, list[int]]]] = {
    "accuracy": (OVER, SOLID),
    "balanced_accuracy": (UNDER, [7, 3]),
    "macro_f1": (EXPECTED, [2, 2]),
    "count_distance": (INK, SOLID),
}
MARKS: Final = ((0.0, "plain"), (0.5, "square root"), (1.0, "balanced"), (2.0, "twice"))


def tau_path(audit: Audit) -> alt.VConcatChart:
    """The metrics and the distance of the counts as tau * log prior is added to the logits, marked where best."""
    path = audit.tau_path
    if path is None:
        raise InputError(
            "a tau path needs logits or probabilities, but this audit has none to compute it from; save the logits"
        )
    upper = _curves(audit, path, ["accuracy", "balanced_accuracy", "macro_f1"], 205, "score")
    lower = _curves(audit, path, ["count_distance"], 75, "count distance", below="tau * log prior added to the logits")
    chart: alt.VConcatChart = alt.VConcatChart(vconcat=[upper, lower], spacing=12).resolve_scale(**APART)
    return chart


def _curves(
    audit: Audit, path: dict[str, Any], keys: Sequence[str], height: int, title: str, below: str | None = None
) -> alt.LayerChart:
    tau = np.asarray(path["tau"], np.float64)
    x_axis = alt.Axis(tickCount=7, labels=below is not None, ticks=below is not None)
    x_scale = alt.Scale(domain=[float(tau[0]), float(tau[-1])], nice=False)
    x = alt.X("tau:Q", title=below, scale=x_scale, axis=x_axis)
    rows, best = _points(path, tau, keys)
    scale = alt.Scale(domain=_range([float(row["value"]) for row in rows]), nice=False)
    y = alt.Y("value:Q", title=title, axis=alt.Axis(tickCount=4), scale=scale)
    colour, dash = _coding(keys)
    layers = [
        drawn_from(rows).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash),
        drawn_from(best).mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour),
    ]
    fitted = None if audit.tilt is None else audit.tilt.get("tau")
    if fitted is not None and tau[0] <= fitted <= tau[-1]:
        here = drawn_from([{"tau": float(fitted), "label": f"tau = {fixed(fitted)}"}]).encode(x=x)
        layers.append(here.mark_rule(color=MUTED, strokeDash=[4, 3]))
        if below is None:
            left = fitted > (tau[0] + tau[-1]) / 2
            text = here.mark_text(
                align="right" if left else "left", dx=-6 if left else 6, dy=6, color=MUTED, fontSize=12
            )
            layers.append(text.encode(text="label:N", y=alt.value(0)))
    return layered(layers, HALF, height)


def _range(values: Sequence[float]) -> list[float]:
    """From zero, unless all values are so far from it that their differences would vanish."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low < 0.6 * high:
        return [0.0, 1.12 * high]
    spread = max(high - low, 0.01)
    return [max(0.0, low - 0.15 * spread), high + 0.3 * spread]


def _points(
    path: dict[str, Any], tau: Floats, keys: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The curves, and where each is best."""
    rows, best = [], []
    for key in keys:
        values = np.asarray(path[key], np.float64)
        line = zip(tau, values, strict=True)
        rows += [{"tau": float(t), "value": float(v), "curve": METRICS[key]} for t, v in line if np.isfinite(v)]
        at = (path.get("best") or {}).get(key)
        if at is not None:
            best.append({"tau": float(at), "value": float(np.interp(at, tau, values)), "curve": METRICS[key]})
    return rows, best


def _coding(keys: Sequence[str]) -> tuple[alt.Color, alt.StrokeDash]:
    legend = None
    if len(keys) > 1:
        legend = alt.Legend(orient="top", title=None, symbolType="stroke", symbolSize=260)
    names = [METRICS[key] for key in keys]
    colours, dashes = (alt.Scale(domain=names, range=[CURVES[key][i] for key in keys]) for i in (0, 1))
    return alt.Color("curve:N", scale=colours, legend=legend), alt.StrokeDash("curve:N", scale=dashes, legend=legend)


def tilt(audit: Audit) -> alt.LayerChart:
    """tau and its interval on a scale with the marks 0 (plain), 0.5 (square root), 1 (balanced) and 2 (twice)."""
    found = audit.tilt or {}
    tau = float(found["tau"])
    low, high = (float(v) for v in found.get("tau_interval") or (tau, tau))
    scale = alt.Scale(domain=[min(-0.5, low - 0.2), max(2.5, high + 0.2)], nice=False)
    axis = alt.Axis(grid=False, tickCount=7, labelOverlap=True)
    title = "tau: how many times the class prior was divided out"
    x = alt.X("tau:Q", title=title, scale=scale, axis=axis)
    places = drawn_from([{"tau": at, "label": text} for at, text in MARKS]).encode(x=x)
    one = drawn_from([{"tau": tau, "low": low, "high": high, "label": f"{tau:.2f}"}]).encode(x=x)
    colour = OVER if tilt_matters(audit) else INK
    middle = alt.value(38)
    name = places.mark_text(color=MUTED, fontSize=12, baseline="bottom")
    span = one.mark_rule(color=colour, strokeWidth=6, opacity=0.4)
    value = one.mark_text(color=colour, fontSize=15, fontWeight="bold", dy=-15)
    layers = [
        places.mark_rule(color=BAND, strokeWidth=1.5),
        name.encode(text="label:N", y=alt.value(-6)),
        span.encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=middle),
        one.mark_point(filled=True, color=colour, size=130, opacity=1).encode(y=middle),
        value.encode(text="label:N", y=middle),
    ]
    return layered(layers, HALF, 64)
