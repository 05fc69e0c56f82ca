"""What each figure shows, in words: its caption, and its text for those who cannot see it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evenhand.report.formats import fixed, interval, number
from evenhand.report.wording import metric_name, pattern_line

if TYPE_CHECKING:
    from evenhand.auditing import Audit


def counts_takeaway(audit: Audit) -> str:
    """What the main figure shows, for those who cannot see it."""
    table = audit.table
    over = int((np.asarray(audit.predicted) > np.asarray(table["interval_high"])).sum())
    under = int((np.asarray(audit.predicted) < np.asarray(table["interval_low"])).sum())
    if not over + under:
        return f"{pattern_line(audit)} Every class lies inside the 95% band of sampling noise."
    return (
        f"{pattern_line(audit)} {over + under:,} of {audit.classes:,} classes lie outside the 95% band of sampling "
        f"noise, where chance alone puts 1 in 20: {over:,} predicted too often, {under:,} too rarely."
    )


def ratio_takeaway(audit: Audit) -> str:
    """What the slope of the ratio figure means."""
    slope = audit.pattern.get("slope")
    note = "Half a row is added to both counts, so that classes that are never predicted have a place."
    lines = "The level line is agreement, the sloping one the fit with its 95% interval."
    if slope is None or not math.isfinite(slope):
        return f"Above 1 a class is predicted too often, below 1 too rarely. {note}"
    factor = 10.0 ** (slope - 1.0)
    if 0.8 <= factor <= 1.25:
        said = "The ratio hardly changes with the class frequency"
    else:
        said = f"Where a class has ten times as many rows, its predicted-to-true ratio is {factor:.2g} times as large"
    span = audit.pattern.get("slope_interval")
    fit = f"predicted counts follow true counts with slope {fixed(slope, sign=True)} {interval(span, 2)}".rstrip()
    return f"{said}: {fit}. {lines} {note}"


def tau_path_takeaway(audit: Audit) -> str:
    """Where each metric is best along the path."""
    path = audit.tau_path or {}
    tau, best = np.asarray(path.get("tau", [0.0]), dtype=np.float64), path.get("best") or {}
    parts = []
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "count_distance"):
        at = best.get(key)
        if at is not None and path.get(key) is not None:
            value = float(np.interp(at, tau, np.asarray(path[key], dtype=np.float64)))
            parts.append(f"{metric_name(key)} at tau {fixed(at)} ({number(value)})")
    rows = f"{path['rows']:,} rows" if path.get("rows") else "a sample of the rows"
    goal = "Best " + ", ".join(parts) + "." if parts else ""
    return f"{goal} 0 is the model as it is. Computed on {rows}; no single tau is best for every goal.".strip()


def tilt_takeaway(audit: Audit) -> str:
    """The value of tau in words."""
    tilt = audit.tilt or {}
    tau = float(tilt.get("tau") or 0.0)
    said = f"tau is {fixed(tau)} {interval(tilt.get('tau_interval'), 2)}".rstrip()
    if tau <= -0.25:
        return f"{said}: the class prior was multiplied in again instead of divided out."
    if tau <= 0.25:
        return f"{said}: no tilt beyond what soundly trained networks show."
    nearest = min(
        ((0.5, "about half, as square-root weights do"), (1, "about once"), (2, "about twice")),
        key=lambda m: abs(m[0] - tau),
    )
    return f"{said}: the class prior was divided out {nearest[1] if tau < 2.4 else 'more than twice'}."
