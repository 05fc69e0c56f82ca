"""A tally that grows batch by batch, inside any evaluation loop and any framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evenhand.audit_figures import tally_scalars
from evenhand.auditing import Audit, audit_tally
from evenhand.declared import Declared, InputError
from evenhand.files import declaring
from evenhand.files.checks import check_scores, scan_labels, to_int64
from evenhand.files.fields import at_least_two, parse_fields
from evenhand.files.opening import as_array
from evenhand.row_sample import row_hash, sample_size
from evenhand.scanning import tally_span
from evenhand.tally import Kind, RowSample, Tally, combine, empty_tally
from evenhand.threads import one_blas_thread

PENDING = 16  # tallies that are added together: adding one by one would copy the row sample every time

__all__ = ["RunningTally", "declare", "many", "sample_threshold", "some_rows", "tally_batch"]


class RunningTally:
    """Everything an audit needs, collected while an evaluation loop runs; the scores of all rows are never kept.

    Memory is O(K), a row sample of 5 million scores at most (2,000 rows at least), and one entry per distinct pair of
    classes that was confused. The result is that of :func:`evenhand.audit` on all rows at once: exactly for counts, to
    rounding for sums.

    Args:
        classes: K. kind: what `add` gets: ``logits`` or ``probs`` (rows that sum to one).
        train_counts, class_weight, sampler, class_names, config: as in :func:`evenhand.audit`.
        ignore_index: target value whose rows are dropped, for instance -100 for tokens that are no labels.
        rank, ranks: where several processes see different rows of one evaluation: this one's number and how many. Rows
            are then numbered as ``DistributedSampler`` deals them out, so that tallies of all ranks can be added.

    Raises:
        InputError: fewer than two classes, another kind, or declared vectors of another length.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> running = RunningTally(3, train_counts=[700, 200, 100])
        >>> for batch in range(5):
        ...     running.add(rng.normal(size=(64, 3)), rng.integers(3, size=64))
        >>> running.tally().rows, sorted(running.scalars())[:3]
        (320, ['accuracy', 'accuracy_head', 'accuracy_medium'])
    """

    def __init__(
        self,
        classes: int,
        *,
        kind: Kind = "logits",
        train_counts: Any = None,
        class_weight: Any = None,
        sampler: Any = None,
        class_names: Any = None,
        config: str | Mapping[str, object] | None = None,
        ignore_index: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if kind not in ("logits", "probs"):
            raise InputError(f"expected kind 'logits' or 'probs', got {kind!r:.40}; for labels use tally_predictions")
        self.declared = declare(
            classes,
            train_counts=train_counts,
            class_weight=class_weight,
            sampler=sampler,
            class_names=class_names,
            config=config,
        )
        self.classes, self.kind, self.ignore_index = classes, kind, ignore_index
        self.rank, self.ranks = rank, ranks
        self.reset()

    def reset(self) -> None:
        """Forget all rows; call it before the next evaluation."""
        self.seen = 0
        self._parts: list[Tally] = []
        self._threshold: np.uint64 | None = None

    def add(self, scores: Any, target: Any, row_id: Any = None) -> None:
        """Count one batch.

        Args:
            scores: (B, K) or (B, T, K) floats: arrays or tensors, on any device and with or without a gradient.
            target: (B,) or (B, T) class indices.
            row_id: ids of the shape of `target` that belong to the rows, so that any split of them keeps the same row
                sample; by default the rows are numbered as they come.

        Raises:
            InputError: shapes that do not fit, scores that cannot be used, labels out of range.
        """
        ids = self.rank + self.ranks * self.seen if row_id is None else row_id
        part, came = tally_batch(
            scores,
            target,
            ids,
            classes=self.classes,
            kind=self.kind,
            step=self.ranks,
            ignore_index=self.ignore_index,
            threshold=self._threshold,
        )
        self._parts.append(part)
        self.seen += came
        if many([p.sample for p in self._parts], self.classes):
            self._parts = [combine(self._parts)]
            self._threshold = sample_threshold(self._parts[0].sample, self.classes)

    def tally(self) -> Tally:
        """The sum of all batches so far, with what was declared.

        Raises:
            InputError: no row was added.
        """
        self._parts = [combine([empty_tally(self.kind, self.classes, self.declared), *self._parts])]
        return some_rows(self._parts[0])

    def audit(self, *, goal: str = "accuracy", name: str = "evaluation") -> Audit:
        """The audit of all batches so far."""
        return audit_tally(self.tally(), goal=goal, name=name)

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """The numbers of :meth:`evenhand.Audit.scalars` without the search for causes: for the log of every epoch."""
        return tally_scalars(self.tally(), prefix)


def many(parts: Sequence[RowSample], classes: int) -> bool:
    """Whether it is time to add up: the parts of the row sample are many, or hold twice what will be kept of them."""
    return len(parts) >= PENDING or sum(len(p.row_id) for p in parts) > 2 * sample_size(classes)


def some_rows(tally: Tally) -> Tally:
    """The tally itself, unless it is empty.

    Raises:
        InputError: it is.
    """
    if tally.rows == 0:
        raise InputError("expected at least one row to audit, got none; add the scores and targets of every batch")
    return tally


def declare(classes: int, *, config: str | Mapping[str, object] | None = None, **vectors: Any) -> Declared:
    """`Declared` for K classes from the vectors `train_counts`, `class_weight`, `sampler`, `class_names`."""
    fields = parse_fields({name: value for name, value in vectors.items() if value is not None})
    return declaring.declare(fields, declaring.parse_config(config), at_least_two(classes))


def tally_batch(
    scores: Any,
    target: Any,
    row_id: Any,
    *,
    classes: int,
    kind: Kind = "logits",
    step: int = 1,
    ignore_index: int | None = None,
    threshold: np.uint64 | None = None,
) -> tuple[Tally, int]:
    """Tally of one batch, and how many rows came, ignored ones included.

    Args:
        scores: (..., K). target: of the shape before K. row_id: (B,) ids, or the first id, from which `step` leads on.
        classes: K. kind: ``logits`` or ``probs``. ignore_index: target value whose rows are dropped.
        threshold: see `sample_threshold`.

    Raises:
        InputError: as `RunningTally.add`.
    """
    z, y = as_array(kind, scores), as_array("target", target)
    if z.ndim < 2 or z.shape[-1] != classes or y.shape != z.shape[:-1]:
        raise InputError(
            f"expected {kind} of shape (rows, {classes}) and a target of shape (rows,), got {z.shape} and {y.shape}; "
            "pass the outputs and the true classes of the same batch"
        )
    z, y = z.reshape(-1, classes), y.reshape(-1)
    came = len(y)
    ids = row_id + step * np.arange(came) if isinstance(row_id, int) else as_array("row_id", row_id).reshape(-1)
    if len(ids) != came:
        raise InputError(f"expected one row_id for each of {came} targets, got {len(ids)}; pass those of this batch")
    keep = np.ones(came, bool) if ignore_index is None else y != ignore_index
    if not keep.any():
        return empty_tally(kind, classes), came
    check_scores(kind, z.shape, z.dtype)
    scan_labels("target", y, classes=classes, ignore_index=ignore_index)
    if not keep.all():
        z, y, ids = z[keep], y[keep], ids[keep]
    with one_blas_thread():
        return tally_span(z, to_int64(y), to_int64(ids), kind=kind, threshold=threshold), came


def sample_threshold(sample: RowSample, classes: int) -> np.uint64 | None:
    """The largest hash that can still enter a full row sample; None while every row can."""
    if len(sample.row_id) < sample_size(classes):
        return None
    return np.uint64(row_hash(sample.row_id).max())
