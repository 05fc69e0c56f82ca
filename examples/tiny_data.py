"""Generated rows for the examples: twenty classes, the first 40 times as frequent as the last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES, FEATURES = 20, 20
PRIOR = 40.0 ** (-np.arange(CLASSES) / (CLASSES - 1))
PRIOR /= PRIOR.sum()


def long_tailed(rows: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (rows, 20) and labels."""
    rng = np.random.default_rng(seed)
    y = rng.choice(CLASSES, size=rows, p=PRIOR)
    x = rng.normal(size=(rows, FEATURES))
    x[np.arange(rows), y] += 2.0
    return x.astype(np.float32), y


def counts(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows per class."""
    return np.bincount(y, minlength=CLASSES)
