"""Every metric as tau moves: what each goal would gain or lose if the tilt were set to another value."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from evenhand import metrics
from evenhand.declared import Ints
from evenhand.evidence import Evidence
from evenhand.likelihood import BLOCK_CELLS

GRID = np.round(np.arange(-0.5, 2.51, 0.125), 3)


def tau_path(e: Evidence) -> dict[str, Any] | None:
    """Metrics of ``argmax(beta z + o + tau log pi)`` over a grid of tau, on the row sample.

    Tau here is what is added to the logits: 0 leaves the model as it is (up to the known shift of the prior), the
    fitted tau undoes its tilt, fitted tau - 1 gives every class the same weight.

    Returns:
        Lists ``tau``, ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``count_distance``; ``best``: metric -> tau;
        ``rows``; ``fitted``. None where no tilt can be fitted.
    """
    if e.fit is None:
        return None
    step = e.log_prior - e.log_prior.mean()
    grid = np.unique(np.append(GRID, round(float(e.fit.tau[0]), 3)))
    rows = max(4, BLOCK_CELLS // e.classes)
    starts = range(0, len(e.y), rows)

    def block(start: int) -> Ints:
        z = e.z[start : start + rows] * np.float32(e.beta) + e.offset.astype(np.float32)
        return np.stack([(z + (t * step).astype(np.float32)).argmax(axis=1) for t in grid])

    with ThreadPoolExecutor(e.threads) as pool:
        top = np.concatenate(list(pool.map(block, starts)), axis=1)
    values = [_metrics(e.y, predicted, e.classes) for predicted in top]
    columns = {name: [v[name] for v in values] for name in values[0]}
    best = {
        name: float(grid[np.argmax(c) if name != "count_distance" else np.argmin(c)]) for name, c in columns.items()
    }
    return {"tau": grid.tolist(), **columns, "best": best, "rows": len(e.y), "fitted": float(e.fit.tau[0])}


def _metrics(y: Ints, predicted: Ints, classes: int) -> dict[str, float]:
    true, answered = np.bincount(y, minlength=classes), np.bincount(predicted, minlength=classes)
    hits = np.bincount(y[y == predicted], minlength=classes)
    return {
        "accuracy": float(hits.sum() / len(y)),
        "balanced_accuracy": metrics.balanced_accuracy(true, hits),
        "macro_f1": metrics.macro_f1(true, answered, hits),
        "count_distance": metrics.count_distance(true, answered),
    }
