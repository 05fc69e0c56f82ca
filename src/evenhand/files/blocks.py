"""Predictions as row blocks: what the one pass of an audit consumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Declared, InputError, Ints
from evenhand.files.checks import Array, check_scores, scan_labels, to_int64
from evenhand.files.edges import EdgeCounter, Edges

Kind = Literal["logits", "probs", "predicted"]

EDGE_CHUNK = 1 << 20


@dataclass(frozen=True)
class Block:
    """Some consecutive rows, ignored ones already dropped.

    Attributes:
        scores: (R, K) float16, float32 or float64 logits or probabilities, or None for labels only.
        predicted: (R,) int64 predicted classes, or None unless the input gave them.
        target: (R,) int64 true classes.
        row_id: (R,) int64, the ids given, else the position in the input before ignored rows were dropped.
    """

    scores: NDArray[np.floating[Any]] | None
    predicted: Ints | None
    target: Ints
    row_id: Ints


class Source(Protocol):
    """Where rows come from: arrays in memory or mapped from disk, or a table that is streamed."""

    @property
    def random_access(self) -> bool:
        """Whether `span` works."""
        ...

    @property
    def positions(self) -> int | None:
        """Rows stored, ignored ones included, or None when unknown."""
        ...

    def blocks(self, rows: int) -> Iterator[Block]:
        """One pass over the rows."""
        ...

    def span(self, start: int, stop: int) -> Block | None:
        """The rows at positions start to stop - 1, or None where only one pass is possible."""
        ...

    def edges(self, classes: int) -> Edges | None:
        """Distinct (true, predicted) pairs with their counts, or None when there are scores."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """Rows held in arrays of equal length; memory-mapped ones are read only where a block asks."""

    scores: Array | None
    predicted: Array | None
    target: Array
    row_id: Array | None
    ignore_index: int | None
    bfloat16: bool = False
    random_access: bool = True

    @property
    def positions(self) -> int:
        """Rows stored, ignored ones included."""
        return len(self.target)

    def blocks(self, rows: int) -> Iterator[Block]:
        """One pass, at most `rows` rows each."""
        for start in range(0, self.positions, rows):
            block = self.span(start, start + rows)
            if len(block.target):
                yield block

    def span(self, start: int, stop: int) -> Block:
        """The rows at positions start to stop - 1 that are not ignored."""
        target = to_int64(self.target[start:stop])
        predicted = None if self.predicted is None else to_int64(self.predicted[start:stop])
        scores = None if self.scores is None else self._floats(self.scores[start:stop])
        if self.row_id is None:
            row_id = np.arange(start, start + len(target), dtype=np.int64)
        else:
            row_id = to_int64(self.row_id[start:stop])
        if self.ignore_index is not None:
            keep = target != self.ignore_index
            if not keep.all():
                scores = None if scores is None else scores[keep]
                predicted = None if predicted is None else predicted[keep]
                target, row_id = target[keep], row_id[keep]
        return Block(scores=scores, predicted=predicted, target=target, row_id=row_id)

    def _floats(self, part: Array) -> NDArray[np.floating[Any]]:
        if self.bfloat16:
            # bfloat16 is the upper half of a float32.
            return (part.astype(np.uint32) << 16).view(np.float32)
        # A member inside a zip file starts at any byte: unaligned rows are copied once here, not in every statistic.
        return np.require(part, dtype=part.dtype.newbyteorder("="), requirements=["C", "A"])

    def edges(self, classes: int) -> Edges | None:
        """Distinct (true, predicted) pairs with their counts; None when there are scores."""
        if self.scores is not None or self.predicted is None:
            return None
        counter = EdgeCounter(classes)
        for block in self.blocks(EDGE_CHUNK):
            if block.predicted is not None:
                counter.add(block.target, block.predicted)
        return counter.edges()


@dataclass(frozen=True)
class Predictions:
    """A model's predictions with their true labels, opened but not read.

    Attributes:
        name: file name, or "predictions".
        kind: what the scores are; ``"predicted"`` when there are only labels. Never guessed from values.
        classes: K.
        declared: what the user said about the training.
        train: predictions on training rows, if given.
        rows: rows that count, ignored ones left out; None when only the pass itself can tell.
        source: where the rows come from.
    """

    name: str
    kind: Kind
    classes: int
    declared: Declared
    train: Predictions | None
    rows: int | None
    source: Source

    @property
    def random_access(self) -> bool:
        """Whether `span` works, so that threads may each take row ranges."""
        return self.source.random_access

    @property
    def positions(self) -> int | None:
        """Rows stored, ignored ones included: the end of the last `span`. None for a stream of unknown length."""
        return self.source.positions

    def blocks(self, rows: int) -> Iterator[Block]:
        """One pass over all rows in blocks of at most `rows` rows."""
        return self.source.blocks(rows)

    def span(self, start: int, stop: int) -> Block | None:
        """Rows at positions start to stop - 1 (ignored ones dropped), or None unless `random_access`."""
        return self.source.span(start, stop)

    def edges(self) -> Edges | None:
        """Distinct (true, predicted) pairs and their counts, each (E,) int64, for labels only; else None."""
        return self.source.edges(self.classes) if self.kind == "predicted" else None


def array_source(
    *,
    scores: Array | None,
    predicted: Array | None,
    target: Array,
    row_id: Array | None,
    ignore_index: int | None,
    kind: Kind,
    classes: int | None,
    bfloat16: bool = False,
) -> tuple[ArraySource, int, int]:
    """Check arrays against each other; returns the source, the largest label plus one, and the rows that count."""
    if scores is not None:
        check_scores(kind, scores.shape, np.dtype(np.float32) if bfloat16 else scores.dtype)
        classes = scores.shape[1]
    highest = scan_labels("target", target, classes=classes, ignore_index=ignore_index)
    if predicted is not None:
        highest = max(highest, scan_labels("predicted", predicted, classes=classes, ignore_index=None))
    if row_id is not None:
        scan_labels("row_id", row_id, classes=None, ignore_index=None)
    for name, other in ((kind if scores is not None else "", scores), ("predicted", predicted), ("row_id", row_id)):
        if other is not None and len(other) != len(target):
            raise InputError(
                f"{name} has {len(other)} rows but target has {len(target)}; save both from the same pass over the data"
            )
    kept = len(target) if ignore_index is None else int(np.count_nonzero(target != ignore_index))
    if kept == 0:
        raise InputError(f"every target equals ignore_index {ignore_index}, so no rows are left; check ignore_index")
    return ArraySource(scores, predicted, target, row_id, ignore_index, bfloat16), highest + 1, kept


@dataclass(frozen=True)
class ShiftedSource:
    """Another source whose row ids begin at `offset`: one part of a larger set of rows."""

    inner: Source
    offset: int

    @property
    def random_access(self) -> bool:
        """As the source within."""
        return self.inner.random_access

    @property
    def positions(self) -> int | None:
        """As the source within; positions are those of the part."""
        return self.inner.positions

    def blocks(self, rows: int) -> Iterator[Block]:
        """One pass."""
        return (replace(block, row_id=block.row_id + self.offset) for block in self.inner.blocks(rows))

    def span(self, start: int, stop: int) -> Block | None:
        """The rows at positions start to stop - 1 of the part."""
        block = self.inner.span(start, stop)
        return None if block is None else replace(block, row_id=block.row_id + self.offset)

    def edges(self, classes: int) -> Edges | None:
        """As the source within: pairs have no ids."""
        return self.inner.edges(classes)


def shifted(predictions: Predictions, offset: int) -> Predictions:
    """The same predictions with `offset` added to every row id.

    Example:
        >>> from evenhand.files import from_arrays
        >>> part = shifted(from_arrays(predicted=[0, 1], target=[1, 1]), 100)
        >>> part.span(0, 2).row_id
        array([100, 101])
    """
    return replace(predictions, source=ShiftedSource(predictions.source, offset)) if offset else predictions
