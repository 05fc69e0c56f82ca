"""What the figures show, as arrays: every chart has its numbers here, so that they can be read and tested undrawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from evenhand.report.formats import plain, shortened

if TYPE_CHECKING:
    from evenhand.auditing import Audit
    from evenhand.declared import Floats, Ints

Order = Literal["frequency", "class", "name"]
MAX_MARKS = 1_000  # beyond this many classes neighbouring marks would share a pixel
BINS = 500
LABEL = 22


@dataclass(frozen=True)
class Counts:
    """True, predicted and expected counts along one order of the classes, averaged in bins when there are many.

    Attributes:
        order: what the classes are sorted by.
        permutation: (K,) class at each rank.
        edges: (B + 1,) ranks where bins begin; bin b holds the classes ``permutation[edges[b]:edges[b + 1]]``.
        true, predicted, expected, low, high: (B,) mean per class of the bin; ``expected`` is None for labels only.
        side: (B,) +1 predicted above the band, -1 below, 0 inside.
    """

    order: Order
    permutation: Ints
    edges: Ints
    true: Floats
    predicted: Floats
    expected: Floats | None
    low: Floats
    high: Floats
    side: Ints

    @property
    def binned(self) -> bool:
        """Whether a mark stands for several classes."""
        return len(self.true) < len(self.permutation)

    @property
    def logarithmic(self) -> bool:
        """Whether the counts span more than a factor of twenty, which a plain axis cannot show."""
        high = max(self.true.max(), self.predicted.max(), self.high.max(), 1.0)
        return bool(high > 20 * max(self.true.min(), 0.5) or high > 20 * max(self.predicted.min(), 0.5))


def orders(audit: Audit) -> tuple[Order, ...]:
    """The orders worth offering: by name only when there are names."""
    return ("frequency", "class") if audit.declared.class_names is None else ("frequency", "class", "name")


def permutation(audit: Audit, order: Order) -> Ints:
    """(K,) classes sorted by true count (most frequent first), by index or by name; ties keep the class order."""
    if order == "frequency":
        return np.argsort(-np.asarray(audit.true), kind="stable")
    if order == "name":
        names = [plain(name).casefold() for name in audit.table["name"]]
        return np.array(sorted(range(audit.classes), key=names.__getitem__), dtype=np.int64)
    return np.arange(audit.classes)


def counts_along(audit: Audit, order: Order) -> Counts:
    """The curves of the main figure.

    In a bin of m classes the band is that of the mean count: half-widths add in quadrature and are divided by m.
    """
    K = audit.classes
    ranks = permutation(audit, order)
    B = K if K <= MAX_MARKS else BINS
    edges = np.round(np.linspace(0, K, B + 1)).astype(np.int64)
    size = np.diff(edges).astype(np.float64)

    def mean(values: object) -> Floats:
        sorted_values = np.asarray(values, dtype=np.float64)[ranks]
        return np.add.reduceat(sorted_values, edges[:-1]) / size

    table = audit.table
    true, predicted = np.asarray(audit.true, np.float64), np.asarray(audit.predicted, np.float64)
    low, high = (np.asarray(table[key], np.float64) for key in ("interval_low", "interval_high"))
    centre, mean_predicted = mean(true), mean(predicted)
    band_low = np.maximum(centre - np.sqrt(mean((true - low) ** 2) / size), 0.0)
    band_high = centre + np.sqrt(mean((high - true) ** 2) / size)
    return Counts(
        order=order,
        permutation=ranks,
        edges=edges,
        true=centre,
        predicted=mean_predicted,
        expected=None if audit.expected is None else mean(audit.expected),
        low=band_low,
        high=band_high,
        side=(mean_predicted > band_high).astype(np.int64) - (mean_predicted < band_low),
    )


@dataclass(frozen=True)
class Ratios:
    """Predicted over true against the true count, one mark per class or per cell of a log-log grid.

    Attributes:
        true: (M,) true count. ratio: (M,) (predicted + 0.5) / (true + 0.5). classes: (M,) classes per mark.
        side: (M,) +1 above, -1 below, 0 inside the band of the class; for a cell, of its median.
        line_true: (2,) ends of the fitted line. line, line_low, line_high: (2,) ratio on it, or None without a slope.
        absent: classes without a row, which have no ratio.
    """

    true: Floats
    ratio: Floats
    classes: Floats
    side: Ints
    line_true: Floats
    line: Floats | None
    line_low: Floats | None
    line_high: Floats | None
    absent: int


def ratios(audit: Audit) -> Ratios:
    """The points and the fitted line of the ratio figure.

    The slope of ``log predicted`` on ``log true`` is ``audit.pattern["slope"]``, so the log ratio falls with
    ``slope - 1``; the line is drawn through the mean point of the classes.
    """
    seen = np.asarray(audit.true) > 0
    true = np.asarray(audit.true, np.float64)[seen]
    predicted = np.asarray(audit.predicted, np.float64)[seen]
    low, high = (np.asarray(audit.table[key], np.float64)[seen] for key in ("interval_low", "interval_high"))
    ratio = (predicted + 0.5) / (true + 0.5)
    side = (predicted > high).astype(np.int64) - (predicted < low)
    x, y = np.log(true), np.log(ratio)
    ends = np.array([x.min(), x.max()]) if len(x) else np.zeros(2)
    slope = audit.pattern.get("slope")
    line = line_low = line_high = None
    if slope is not None and np.isfinite(slope) and ends[1] > ends[0]:
        lo, hi = audit.pattern.get("slope_interval") or (slope, slope)
        # A slope known to nothing at all (every answer the same class) would leave the range of floating point.
        fan = [np.exp(np.clip(y.mean() + (s - 1.0) * (ends - x.mean()), -30, 30)) for s in (slope, lo, hi)]
        line, line_low, line_high = fan[0], np.minimum(fan[1], fan[2]), np.maximum(fan[1], fan[2])
    classes = np.ones(len(x))
    if len(x) > MAX_MARKS:
        x, y, classes, side = _cells(x, y, side)
    return Ratios(np.exp(x), np.exp(y), classes, side, np.exp(ends), line, line_low, line_high, int((~seen).sum()))


def _cells(x: Floats, y: Floats, side: Ints, across: int = 44, up: int = 30) -> tuple[Floats, Floats, Floats, Ints]:
    """Centres of the filled cells of a grid over (x, y), points in each, and the side of most of them."""
    columns = np.minimum(((x - x.min()) / max(np.ptp(x), 1e-12) * across).astype(np.int64), across - 1)
    lines = np.minimum(((y - y.min()) / max(np.ptp(y), 1e-12) * up).astype(np.int64), up - 1)
    cell, inverse, size = np.unique(columns * up + lines, return_inverse=True, return_counts=True)
    balance = np.bincount(inverse, weights=side) / size
    return (
        x.min() + (cell // up + 0.5) * np.ptp(x) / across,
        y.min() + (cell % up + 0.5) * np.ptp(y) / up,
        size.astype(np.float64),
        (balance > 0.5).astype(np.int64) - (balance < -0.5),
    )


def short_labels(audit: Audit, classes: Ints) -> list[str]:
    """Axis labels for these classes: cleaned, cut to about 20 characters, made unique by the class number."""
    names = [shortened(plain(audit.table["name"][k]), LABEL) for k in classes]
    often = Counter(names)
    return [
        name if name and often[name] == 1 else f"{name} #{k}".strip() for name, k in zip(names, classes, strict=True)
    ]
