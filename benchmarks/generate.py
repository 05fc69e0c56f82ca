"""Predictions of a known kind, written once: exact posteriors of a Gaussian world with the class prior divided out.

Scores are ``d (x + d e_y)`` with x standard normal: log-likelihood ratios, so that the tilt is exactly one. The noise
of a row is a random stretch of one long pool, which writes files at the speed of the disk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

POOL = 4_000_000
DISTANCE = 3.0
RIGHT = 0.7
CHUNK = 5_000_000


def zipf_counts(classes: int) -> NDArray[np.int64]:
    """Training rows per class, falling as one over the rank."""
    return np.maximum(1, 1_000_000 // np.arange(1, classes + 1))


def draw_labels(rng: np.random.Generator, counts: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """(rows,) labels from the prior of the counts."""
    return np.searchsorted(np.cumsum(counts / counts.sum())[:-1], rng.random(rows)).astype(np.int64)


def scores(folder: Path, rows: int, classes: int) -> dict[str, str]:
    """Files of logits (rows, classes) float32, target and train_counts; written unless they are there."""
    paths = {key: folder / f"scores-{rows}x{classes}-{key}.npy" for key in ("logits", "target", "train_counts")}
    if not all(path.exists() for path in paths.values()):
        rng = np.random.default_rng(0)
        counts = zipf_counts(classes)
        target = draw_labels(rng, counts, rows)
        pool = rng.standard_normal(POOL + classes, dtype=np.float32) * np.float32(DISTANCE)
        half_done = folder / "half-done.npy"
        logits = open_memmap(half_done, "w+", np.float32, (rows, classes))
        for row, start in enumerate(rng.integers(0, POOL, rows)):
            logits[row] = pool[start : start + classes]
            logits[row, target[row]] += np.float32(DISTANCE**2)
        logits.flush()
        del logits
        np.save(paths["target"], target)
        np.save(paths["train_counts"], counts)
        half_done.rename(paths["logits"])
    return {key: str(path) for key, path in paths.items()}


def labels(folder: Path, rows: int, classes: int) -> dict[str, str]:
    """A Parquet file with int64 columns target and predicted; 70 % right, the rest drawn from the prior."""
    path = folder / f"labels-{rows}x{classes}.parquet"
    if not path.exists():
        rng, counts = np.random.default_rng(0), zipf_counts(classes)
        parts = []
        for start in range(0, rows, CHUNK):
            size = min(CHUNK, rows - start)
            target, other = draw_labels(rng, counts, size), draw_labels(rng, counts, size)
            predicted = np.where(rng.random(size) < RIGHT, target, other)
            parts.append(pl.DataFrame({"target": target, "predicted": predicted}))
        half_done = folder / "half-done.parquet"
        pl.concat(parts, rechunk=False).write_parquet(half_done)
        half_done.rename(path)
    return {"path": str(path)}


def prepare(kind: str, folder: str, rows: int, classes: int) -> object:
    """The work of a child process that writes files, so that the benchmark's own process stays small."""
    make = {"scores": scores, "labels": labels}[kind]
    return lambda: make(Path(folder), rows, classes)
