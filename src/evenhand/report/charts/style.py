"""How every figure looks, and how it becomes a file or part of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import altair as alt
import vl_convert as vlc

from evenhand.declared import InputError
from evenhand.output import write_bytes_atomically

# Blue and orange stay apart for all common forms of colour blindness; triangles tell the side without colour.
INK: Final = "#1c2330"
MUTED: Final = "#5d6676"
GRID: Final = "#e2e6ec"
BAND: Final = "#c9d0da"
OVER: Final = "#1f6fb5"
UNDER: Final = "#c2570c"
EXPECTED: Final = "#7a4fa3"
COLOURS: Final = {
    "ink": INK, "muted": MUTED, "grid": GRID, "band": BAND, "over": OVER, "under": UNDER, "expected": EXPECTED,
}  # fmt: skip
FONT: Final = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
WIDE: Final = 960
HALF: Final = 430
SIDES: Final = {1: "predicted too often", -1: "predicted too rarely", 0: "predicted, within noise"}
APART: Final[dict[str, Any]] = dict.fromkeys(("color", "shape", "size", "strokeDash"), "independent")

Chart = alt.Chart | alt.LayerChart | alt.VConcatChart | alt.HConcatChart

_VERSION: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
_DECIMALS: Final = re.compile(r"(\.\d)\d+(?![\de])")


def drawn_from(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    """A chart over these records."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def layered(layers: Sequence[alt.Chart], width: int, height: int) -> alt.LayerChart:
    """Layers drawn one over the other, the first at the bottom."""
    return alt.LayerChart(layer=list(layers), width=width, height=height)


def save(chart: Chart, path: str | Path) -> None:
    """Write a chart as a static picture, the kind chosen by the ending of the file name.

    Args:
        chart: any Altair chart.
        path: ends in ``.png`` (drawn at twice the size) or ``.svg``; an existing file is replaced when all is drawn.

    Raises:
        InputError: another ending.
        OSError: the file cannot be written; nothing is left behind.
    """
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in {".png", ".svg"}:
        raise InputError(f"a figure file ending in .png or .svg was expected, but {target.name!r} came; rename it")
    spec = _configured(chart, background="white")
    if kind == ".png":
        write_bytes_atomically(target, vlc.vegalite_to_png(spec, vl_version=_VERSION, scale=2))
    else:
        write_bytes_atomically(target, str(vlc.vegalite_to_svg(spec, vl_version=_VERSION)).encode())


def svg(chart: Chart, prefix: str) -> str:
    """A chart as SVG for the page: coloured by CSS variables, ids made unique by `prefix`, no style attributes."""
    text = str(vlc.vegalite_to_svg(_configured(chart, background="transparent"), vl_version=_VERSION))
    for name, colour in COLOURS.items():
        text = text.replace(f'"{colour}"', f'"var(--{name})"')
    # The renderer counts its ids up for as long as the process lives; the same figure must give the same page.
    for number, name in enumerate(dict.fromkeys(re.findall(r' id="([^"]+)"', text))):
        text = text.replace(f'id="{name}"', f'id="{prefix}-{number}"').replace(
            f"url(#{name})", f"url(#{prefix}-{number})"
        )
    # The page names the picture as a whole; announcing every mark of it would bury a screen reader.
    text = re.sub(r' (?:role|aria-[a-z]+)="[^"]*"', "", text)
    text = re.sub(r'<path class="(?:background|foreground)"[^>]*/>|<g></g>', "", text)
    text = re.sub(r' (?:d|transform)="[^"]*"', lambda found: _DECIMALS.sub(r"\1", found[0]), text)
    for needless in (' stroke-miterlimit="10"', ' opacity="1"', ' pointer-events="none"'):
        text = text.replace(needless, "")
    return re.sub(r'^<svg ([^>]*?) width="\d+" height="\d+"', r"<svg \1", text)


def plot_left(text: str) -> float:
    """Where the plotting area begins inside an SVG made by :func:`svg`, in its user units."""
    found = re.search(r'transform="translate\(([\d.]+),([\d.]+)\)"', text)
    return float(found[1]) if found else 0.0


def _configured(chart: Chart, *, background: str) -> dict[str, Any]:
    """The chart as a Vega-Lite specification in the house style."""
    label = {"labelFont": FONT, "titleFont": FONT, "labelFontSize": 12, "titleFontSize": 12, "titleColor": MUTED}
    axis = {"domainColor": BAND, "tickColor": BAND, "gridColor": GRID, "labelColor": MUTED, "titleFontWeight": 500}
    title = {"color": INK, "subtitleColor": MUTED, "anchor": "start", "frame": "group", "fontSize": 15, "offset": 10}
    spec: dict[str, Any] = chart.to_dict(validate=False)
    spec["config"] = {
        "axis": {**label, **axis, "titlePadding": 10},
        "legend": {**label, "labelColor": INK},
        "title": {**title, "font": FONT, "subtitleFont": FONT},
        "font": FONT,
        "view": {"stroke": None},
        "background": background,
        "aria": False,
    }
    return spec
