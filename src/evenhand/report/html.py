"""The audit as one self-contained HTML page: no network, no evaluated text, readable without scripts."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from markupsafe import Markup

from evenhand.report import captions, charts
from evenhand.report import formats as fm
from evenhand.report import wording as w
from evenhand.report.pages import render_page
from evenhand.report.series import counts_along, orders

if TYPE_CHECKING:
    from evenhand.auditing import Audit, Finding

STATIC_ROWS: Final = 200  # class rows that are readable without scripts
MAX_ROWS: Final = 20_000  # class rows in the page; JSON holds all
NAME_BYTES: Final = 1_000_000  # of class names in the page, so that long names cannot swell it


def to_html(audit: Audit) -> str:
    """The report as one HTML document that needs nothing else: styles, script, figures and data are inside.

    A content security policy in the page forbids every request and every script but its own, so that hostile class
    names can do nothing even if escaping failed. Up to 20,000 classes are in the table; beyond that those with the
    largest count error are, and the page says so.

    Args:
        audit: the audit.

    Returns:
        The document, text to be written as UTF-8; under 3 MB at 10,000 classes.
    """
    return _render(audit, compact=False)


def repr_html(audit: Audit, height: int = 760) -> str:
    """The report for a notebook cell: an isolated frame, so that neither page can disturb the other's styles.

    Args:
        audit: the audit.
        height: of the frame, in CSS pixels.

    Returns:
        An ``<iframe>`` fragment with the report inside. It holds one order of the main figure and the 200 classes with
        the largest count error; :func:`to_html` holds all.
    """
    page = escape(_render(audit, compact=True), quote=True)
    title = escape(f"evenhand audit of {fm.plain(audit.name)}", quote=True)
    return (
        f'<iframe title="{title}" sandbox="allow-scripts allow-popups allow-popups-to-escape-sandbox" '
        f'style="width:100%;height:{int(height)}px;border:1px solid #8884;border-radius:8px" srcdoc="{page}"></iframe>'
    )


def _render(audit: Audit, *, compact: bool) -> str:
    off = np.argsort(-np.abs(audit.predicted.astype(np.float64) - audit.true), kind="stable")
    kept = off[: STATIC_ROWS if compact else MAX_ROWS]
    data, rows = _class_data(audit, np.sort(kept)), _static_rows(audit, kept[:STATIC_ROWS])
    drawn = _drawings(audit, compact=compact)
    data["plots"] = {
        order: {key: view[key] for key in ("left", "width", "edges", "members")}
        for order, view in drawn["counts"].items()
        if len(kept) == audit.classes
    }
    first, *others = audit.findings
    return render_page(
        "report.html.j2",
        scripted=True,
        w=w,
        captions=captions,
        audit=audit,
        first=_finding(audit, first, main=True),
        others=[_finding(audit, other, main=False) for other in others],
        tiles=_tiles(audit),
        fix=w.fix_rows(audit),
        groups=w.group_rows(audit),
        pairs=[_pair(audit, pair) for pair in audit.worst_pairs[:25]],
        drawn=drawn,
        rows=rows,
        kept=len(kept),
        data=Markup(_embedded(data)),
        compact=compact,
    )


def _embedded(data: object) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or open another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finding(audit: Audit, finding: Finding, *, main: bool) -> dict[str, Any]:
    severity = w.severity_of(finding)
    known = [(key, label) for key, label in w.FRAMEWORKS.items() if finding.snippets.get(key)]
    known += [(key, fm.plain(key)) for key in finding.snippets if key not in w.FRAMEWORKS]
    return {
        "id": "main" if main else f"f-{fm.plain(finding.code)}-{fm.plain(finding.cause)}",
        "severity": severity,
        "severity_label": w.SEVERITY[severity],
        "finding": finding,
        "headline": w.headline(finding)[0],
        "proof": w.proof(audit, finding),
        "evidence": w.evidence_rows(finding.evidence),
        "snippets": [(label, finding.snippets[key]) for key, label in known],
        "link": w.DOCS.format(fm.plain(finding.cause)),
    }


def _tiles(audit: Audit) -> list[tuple[str, str, str]]:
    """The figures at a glance: label, value, what to compare it with."""
    n = f"n = {audit.rows:,}"
    tiles = [
        (w.metric_name(key), fm.number(audit.metrics.get(key)), n)
        for key in ("accuracy", "balanced_accuracy", "macro_f1")
    ]
    distance = audit.total_variation
    floor = distance.get("noise_floor")
    tiles.append(("count distance", fm.number(distance.get("hard")), f"noise alone: {fm.number(floor)}"))
    if distance.get("soft") is not None:
        tiles.append(("soft count distance", fm.number(distance["soft"]), "before the argmax"))
    for key in ("nll", "ece"):
        if audit.metrics.get(key) is not None:
            tiles.append((w.metric_name(key), fm.number(audit.metrics[key]), n))
    return tiles


def _pair(audit: Audit, pair: dict[str, Any]) -> dict[str, Any]:
    return {
        "true": w.class_parts(audit, int(pair["true"])),
        "predicted": w.class_parts(audit, int(pair["predicted"])),
        "rows": fm.number(pair["rows"]),
        "back": fm.number(pair["back"]),
        "p": fm.number(pair.get("q_value")),
    }


def _drawings(audit: Audit, *, compact: bool) -> dict[str, Any]:
    """Every figure as SVG; the main one once per order, with what a pointer or the arrow keys need to read it out."""
    drawn: dict[str, Any] = {"counts": {}, "tilt": None, "tau_path": None}
    wanted = orders(audit)[:1] if compact else orders(audit)
    for name, chart in charts.figures(audit).items():
        order = name.removeprefix("counts_by_")
        if order == name:
            drawn[name] = Markup(charts.svg(chart, name))
        elif order in wanted:
            text = charts.svg(chart, name)
            series = counts_along(audit, order)
            drawn["counts"][order] = {
                "svg": Markup(text),
                "left": charts.plot_left(text),
                "width": charts.WIDE,
                "edges": series.edges.tolist() if series.binned else None,
                "members": series.permutation.tolist(),
                "binned": series.binned,
                "logarithmic": series.logarithmic,
            }
    return drawn


def _numbers(values: Any, digits: int) -> list[float | int | None]:
    rounded = np.round(np.asarray(values, np.float64), digits)
    if digits == 0:
        return [int(v) if np.isfinite(v) else None for v in rounded]
    return [float(v) if np.isfinite(v) else None for v in rounded]


def _class_data(audit: Audit, kept: np.ndarray) -> dict[str, Any]:
    """The per-class table in columns, rounded to what is shown, for the classes kept."""
    shown = ("true", "predicted", "recall", "precision", "interval_low", "interval_high", "q_value", "verdict")
    table = {key: np.asarray(audit.table[key])[kept] for key in shown}
    limit = max(24, NAME_BYTES // max(len(kept), 1))
    verdicts, code = np.unique([fm.plain(v) for v in table["verdict"]], return_inverse=True)
    return {
        "id": kept.tolist(),
        "name": [_bounded(fm.plain(audit.table["name"][k]), min(limit, 400)) for k in kept],
        "true": _numbers(table["true"], 0),
        "predicted": _numbers(table["predicted"], 0),
        "expected": None if audit.expected is None else _numbers(np.asarray(audit.expected)[kept], 1),
        "recall": _numbers(table["recall"], 3),
        "precision": _numbers(table["precision"], 3),
        "low": _numbers(table["interval_low"], 1),
        "high": _numbers(table["interval_high"], 1),
        "q": [float(f"{v:.2g}") if np.isfinite(v) else None for v in np.asarray(table["q_value"], np.float64)],
        "verdict": code.tolist(),
        "verdicts": verdicts.tolist(),
        "classes": audit.classes,
    }


def _bounded(name: str, limit: int) -> str:
    """The name, cut so that it takes at most `limit` bytes in the page however it has to be escaped."""
    shown = name
    while len(_embedded(shown).encode()) - 2 > limit and len(shown) > 1:
        shown = shown[: len(shown) * 3 // 4]
    return shown if shown == name else shown + "…"


def _static_rows(audit: Audit, shown: np.ndarray) -> list[dict[str, Any]]:
    """The rows that are in the page's text, for readers without scripts."""
    table = audit.table
    return [
        {
            "id": int(k),
            "name": fm.shortened(fm.plain(table["name"][k]), 120),
            "true": fm.number(int(table["true"][k])),
            "predicted": fm.number(int(table["predicted"][k])),
            "sign": int(np.sign(int(table["predicted"][k]) - int(table["true"][k]))),
            "expected": None if audit.expected is None else fm.number(float(audit.expected[k]), 1),
            "recall": fm.number(float(table["recall"][k])),
            "precision": fm.number(float(table["precision"][k])),
            "band": f"{float(table['interval_low'][k]):,.0f} to {float(table['interval_high'][k]):,.0f}",
            "q": fm.number(float(table["q_value"][k])),
            "verdict": fm.plain(table["verdict"][k]),
        }
        for k in shown
    ]
