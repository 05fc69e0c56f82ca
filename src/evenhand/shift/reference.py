"""What labelled rows of a model tell before its unlabelled rows are judged: calibration, effective prior, confusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.correction import fit_correction
from evenhand.declared import Floats
from evenhand.files.opening import as_array
from evenhand.shift.confusion import Confusion, count_pairs, predicted_labels
from evenhand.shift.likelihood import moments, posteriors

__all__ = ["Reference", "labelled_reference"]


@dataclass(frozen=True, eq=False)
class Reference:
    """A calibrated model and the rows it was calibrated on. Built by `labelled_reference`.

    Attributes:
        scale, offset: ``softmax(scale z + offset)`` are posteriors under `prior`; offset is (K,), scale
            one number or (K,).
        prior: (K,) mean calibrated posterior of the labelled rows, the prior that the posteriors really have.
        square: (K,) mean of these posteriors squared.
        rows: N labelled rows. confusion: their predicted against their true classes, sparse.
        model: the calibration model chosen. names_hash: SHA-256 of the class names, or None.
        log_likelihood: model -> held-out nats per row.
    """

    scale: float | Floats
    offset: Floats
    prior: Floats
    square: Floats
    rows: int
    confusion: Confusion
    model: str
    names_hash: str | None
    log_likelihood: dict[str, float]

    @property
    def classes(self) -> int:
        """K."""
        return len(self.prior)


def labelled_reference(
    logits: Any,
    target: Any,
    *,
    train_counts: Any = None,
    class_names: Any = None,
    threads: int = 1,
    seed: int = 0,
) -> Reference:
    """Calibrate a model on labelled rows, as the reference that unlabelled rows are compared with.

    The calibration is that of `evenhand.fit_correction` for the goal accuracy: temperature, tilt and class biases, as
    much of it as held-out likelihood bears out. The effective prior is the mean of the calibrated posteriors, not the
    raw counts: an error that the calibration leaves is then in both sides of the comparison and cancels.

    Args:
        logits: (N, K) scores of rows that the model was not trained on. target: (N,) true classes.
        train_counts: (K,) training rows per class, which steady the calibration of rare classes. class_names: (K,).

    Raises:
        InputError: what `evenhand.fit_correction` refuses.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.choice(3, 2000, p=[0.6, 0.3, 0.1]); z = rng.normal(size=(2000, 3)); z[np.arange(2000), y] += 1
        >>> labelled_reference(z, y).prior.round(1).tolist()
        [0.6, 0.3, 0.1]

    Source: Alexandari et al., "Maximum likelihood with bias-corrected calibration" (2020),
    https://arxiv.org/abs/1901.06852.
    """
    fit = fit_correction(
        logits, target, goal="accuracy", train_counts=train_counts, class_names=class_names, threads=threads, seed=seed
    )
    scores, labels = as_array("logits", logits), as_array("target", target).astype(np.int64)
    p = posteriors(scores, fit.scale, fit.offset, threads)
    mean, square = moments(p, threads)
    return Reference(
        scale=fit.scale,
        offset=fit.offset,
        prior=mean / mean.sum(),
        square=square,
        rows=len(labels),
        confusion=count_pairs(labels, predicted_labels(p, threads), len(mean)),
        model=fit.model,
        names_hash=fit.names_hash,
        log_likelihood=dict(fit.evidence["log_likelihood"]),
    )
