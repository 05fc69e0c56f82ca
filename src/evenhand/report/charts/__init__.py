"""The figures as Altair charts, the only place that imports Altair; their numbers come from ``evenhand.report.series``.

The colours are fixed in the static files and exchanged for CSS variables in the HTML page, which so can be dark.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import altair as alt
from altair.utils.schemapi import debug_mode

from evenhand.report.charts.counts import counts
from evenhand.report.charts.dots import Dot, dots
from evenhand.report.charts.ratio import ratio
from evenhand.report.charts.style import APART, WIDE, Chart, plot_left, save, svg
from evenhand.report.charts.tau import tau_path, tilt
from evenhand.report.formats import plain
from evenhand.report.series import orders
from evenhand.report.wording import facts, headline

if TYPE_CHECKING:
    from evenhand.auditing import Audit

__all__ = [
    "WIDE", "Chart", "Dot", "counts", "dots", "figure", "figures", "plot_left", "ratio", "save", "svg", "tau_path",
    "tilt",
]  # fmt: skip

TITLES: Final = {
    "counts_by_frequency": "True, predicted and expected counts, classes by frequency",
    "ratio": "Predicted over true, against the true count",
    "tau_path": "What adding tau * log prior would do",
    "tilt": "The tilt of the model",
}


def figures(audit: Audit) -> dict[str, Chart]:
    """Every figure that this audit supports, by name, ready to be changed or saved alone with :func:`save`.

    Args:
        audit: the audit.

    Returns:
        ``counts_by_frequency``, ``counts_by_class``, ``counts_by_name`` (with class names), ``ratio``, and where a tilt
        could be fitted ``tilt`` and ``tau_path``.
    """
    with debug_mode(False):  # checking every data point against the schema takes longer than drawing it
        drawn: dict[str, Chart] = {f"counts_by_{order}": counts(audit, order) for order in orders(audit)}
        drawn["ratio"] = ratio(audit)
        if audit.tilt is not None and audit.tilt.get("tau") is not None:
            drawn["tilt"] = tilt(audit)
        if audit.tau_path is not None:
            drawn["tau_path"] = tau_path(audit)
    return drawn


def figure(audit: Audit, path: str | Path) -> None:
    """Write one composed picture of the main figures.

    Args:
        audit: the audit.
        path: ends in ``.png`` or ``.svg``.

    Raises:
        InputError: another ending.
        OSError: the file cannot be written.
    """
    charts = figures(audit)
    drawn: dict[str, Any] = {name: charts[name].properties(title=TITLES[name]) for name in TITLES if name in charts}
    lower = alt.HConcatChart(hconcat=[drawn[name] for name in ("ratio", "tau_path") if name in drawn], spacing=50)
    rows = [drawn["counts_by_frequency"], lower.resolve_scale(**APART)]
    if "tilt" in drawn:
        rows.append(drawn["tilt"].properties(width=WIDE))
    title = alt.Title(
        textwrap.wrap(headline(audit.findings[0])[0], 105) or [""],
        subtitle=" · ".join([plain(audit.name), *facts(audit)]),
        fontSize=17,
        subtitleFontSize=13,
        offset=24,
        anchor="start",
    )
    whole = alt.VConcatChart(vconcat=rows, spacing=36, title=title)
    save(whole.resolve_scale(**APART), path)
