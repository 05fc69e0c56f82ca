"""The same statistics through the usual libraries, in blocks of rows so that memory suffices.

Every function takes a memory-mapped (N, K) float32 array and int64 labels and returns accuracy, balanced_accuracy,
macro_f1, nll, ece (15 equal-width bins) and the total of the counts. True, predicted and right counts per class, the
sums of the posteriors and of their squares are computed on the way. No tilt, no cause and no fix is among them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15

Scores = NDArray[np.float32]
Labels = NDArray[np.int64]


def evenhand(z: Scores, y: Labels) -> dict[str, float]:
    """The whole audit, which holds all of these figures and more."""
    from evenhand import audit

    found = audit(logits=z, target=y)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")
    return {name: float(found.metrics[name]) for name in names} | {"rows": float(found.true.sum())}


def scikit_learn(z: Scores, y: Labels, block: int = 10_000) -> dict[str, float]:
    """SciPy's log-softmax, scikit-learn's metrics."""
    from scipy.special import log_softmax
    from sklearn import metrics

    n, k = z.shape
    top, confidence, soft, square, nll = np.empty(n, np.int64), np.empty(n), np.zeros(k), np.zeros(k), 0.0
    for start in range(0, n, block):
        rows = slice(start, start + block)
        logs = log_softmax(z[rows], axis=1)
        nll -= float(logs[np.arange(len(logs)), y[rows]].sum(dtype=np.float64))
        p = np.exp(logs)
        soft += p.sum(axis=0, dtype=np.float64)
        square += (p * p).sum(axis=0, dtype=np.float64)
        top[rows] = logs.argmax(axis=1)
        confidence[rows] = p.max(axis=1)
    counts = metrics.confusion_matrix(y, top, labels=np.arange(k))
    _, _, f1, support = metrics.precision_recall_fscore_support(y, top, zero_division=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predicted classes without rows are left out of the mean, as elsewhere
        balanced = metrics.balanced_accuracy_score(y, top)
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = np.bincount(index, (top == y) - confidence, BINS)
    return {
        "accuracy": float(metrics.accuracy_score(y, top)),
        "balanced_accuracy": float(balanced),
        "macro_f1": float(f1.mean()),
        "nll": nll / n,
        "ece": float(np.abs(gap).sum() / n),
        "rows": float(min(counts.sum(), support.sum())),
    }


def at_once(z: Scores, y: Labels, rows: int) -> dict[str, float]:
    """The same as it is mostly written: softmax of the whole array, one call per metric; on the first rows only."""
    from scipy.special import softmax
    from sklearn import metrics

    z, y = z[:rows], y[:rows]
    p = softmax(z, axis=1)
    top, confidence = p.argmax(axis=1), p.max(axis=1)
    classes = np.arange(z.shape[1])
    soft, square = p.sum(axis=0, dtype=np.float64), (p**2).sum(axis=0, dtype=np.float64)
    counts = metrics.confusion_matrix(y, top, labels=classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = metrics.balanced_accuracy_score(y, top)
        nll = metrics.log_loss(y, p, labels=classes)
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = np.bincount(index, (top == y) - confidence, BINS)
    return {
        "accuracy": float(metrics.accuracy_score(y, top)),
        "balanced_accuracy": float(balanced),
        "macro_f1": float(metrics.f1_score(y, top, average="macro", labels=classes, zero_division=0.0)),
        "nll": float(nll),
        "ece": float(np.abs(gap).sum() / len(y)),
        "rows": float(counts.sum()) if soft.sum() >= square.sum() else 0.0,
    }


def torchmetrics(z: Scores, y: Labels, block: int = 10_000) -> dict[str, float]:
    """A collection of torchmetrics, updated batch by batch; its compute groups share what they can."""
    import torch
    from torchmetrics import MetricCollection
    from torchmetrics import classification as c

    n, k = z.shape
    plain = {"num_classes": k}
    parts: dict[str, Any] = {
        "accuracy": c.MulticlassAccuracy(average="micro", **plain),
        "balanced_accuracy": c.MulticlassAccuracy(average="macro", **plain),
        "macro_f1": c.MulticlassF1Score(average="macro", **plain),
        "counts": c.MulticlassStatScores(average=None, **plain),
        "ece": c.MulticlassCalibrationError(n_bins=BINS, **plain),
    }
    collection = MetricCollection(parts)
    soft, square, nll = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64), 0.0
    with torch.inference_mode():
        for start in range(0, n, block):
            logits = torch.from_numpy(np.array(z[start : start + block]))
            target = torch.from_numpy(np.array(y[start : start + block]))
            logs = torch.log_softmax(logits, dim=1)
            nll += float(torch.nn.functional.nll_loss(logs, target, reduction="sum"))
            p = logs.exp_()
            soft += p.sum(dim=0)
            square += (p * p).sum(dim=0)
            collection.update(p, target)
        found = collection.compute()
    result = {name: float(found[name]) for name in ("accuracy", "balanced_accuracy", "macro_f1", "ece")}
    return result | {"nll": nll / n, "rows": float(found["counts"][:, 4].sum())}


# Rows at a time: as an evaluation loop has them, and the number at which each library was fastest where we measured.
PEERS = {
    "scikit-learn + SciPy, whole array at once": (at_once, 100_000),
    "scikit-learn + SciPy, 100,000 rows at a time": (scikit_learn, 100_000),
    "scikit-learn + SciPy, 10,000 rows at a time": (scikit_learn, 10_000),
    "torchmetrics, 1,000 rows at a time": (torchmetrics, 1_000),
    "torchmetrics, 10,000 rows at a time": (torchmetrics, 10_000),
}


def prepare(peer: str, logits: str, target: str, rows: int) -> object:
    """The statistics of one peer over the first rows of a file, imports done and warmed up on a few rows."""
    z, y = np.load(logits, mmap_mode="r")[:rows], np.load(target)[:rows]
    if peer == "evenhand":
        return lambda: evenhand(z, y)
    function, block = PEERS[peer]
    function(z[:200], y[:200], block)
    return lambda: function(z, y, block)
