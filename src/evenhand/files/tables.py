"""Parquet, Arrow IPC and CSV: streamed through Polars, never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evenhand.declared import InputError, Ints
from evenhand.files.blocks import Block
from evenhand.files.checks import Array, check_labels, parsing, to_int64
from evenhand.files.edges import EdgeCounter, Edges

if TYPE_CHECKING:
    import polars as pl

BATCH_BYTES = 1 << 25
EDGE_BATCH = 1 << 18
SAVE_AGAIN = "write the table again"


@dataclass(frozen=True)
class TableSource:
    """A scan of a table; each pass reads it anew, batch by batch.

    `scores` is None, one list column, or K number columns; `kind` names it in messages.
    """

    name: str
    frame: pl.LazyFrame
    kind: str
    scores: tuple[str, ...]
    width: int | None
    predicted: bool
    row_id: bool
    ignore_index: int | None
    label_classes: int
    positions: int | None
    seekable: bool
    random_access: bool = False

    def span(self, start: int, stop: int) -> Block | None:  # noqa: ARG002
        """None: a table is read from front to back."""
        return None

    def blocks(self, rows: int) -> Iterator[Block]:
        """One pass in file order, at most `rows` rows each."""
        columns = [*self.scores, "target", *["predicted"] * self.predicted, *["row_id"] * self.row_id]
        batch = max(rows, BATCH_BYTES // (4 * (self.width or 0) + 24))
        first = kept = 0
        with parsing(self.name, SAVE_AGAIN):
            for frame in self._parts(self.frame.select(columns), batch):
                for part in frame.iter_slices(rows):
                    block = self._block(part, first)
                    first += part.height
                    kept += len(block.target)
                    if len(block.target):
                        yield block
        if kept == 0:
            raise no_rows(self.name, self.ignore_index)

    def _parts(self, frame: pl.LazyFrame, batch: int) -> Iterator[pl.DataFrame]:
        """Pieces in file order. Slices where seeking is cheap: a stream reads ahead and holds four times as much."""
        if self.positions is None or not self.seekable:
            yield from frame.collect_batches(chunk_size=batch, maintain_order=True, lazy=True)
            return
        for start in range(0, self.positions, batch):
            yield frame.slice(start, batch).collect(engine="streaming")

    def _block(self, part: pl.DataFrame, first: int) -> Block:
        target = self._labels(part, "target", first, self.ignore_index)
        predicted = self._labels(part, "predicted", first, None) if self.predicted else None
        scores = self._scores(part, first) if self.scores else None
        row_id = np.arange(first, first + part.height, dtype=np.int64)
        if self.row_id:
            row_id = to_int64(labels_of(part["row_id"], "row_id", first))
        if self.ignore_index is not None:
            keep = target != self.ignore_index
            scores = None if scores is None else scores[keep]
            predicted = None if predicted is None else predicted[keep]
            target, row_id = target[keep], row_id[keep]
        return Block(scores, predicted, target, row_id)

    def _labels(self, part: pl.DataFrame, column: str, first: int, ignore_index: int | None) -> Ints:
        values = labels_of(part[column], column, first)
        check_labels(column, values, classes=self.label_classes, ignore_index=ignore_index, first_row=first)
        return to_int64(values)

    def _scores(self, part: pl.DataFrame, first: int) -> Array:
        if len(self.scores) > 1:
            return np.ascontiguousarray(
                part.select(number_of(part, column, first) for column in self.scores).to_numpy()
            )
        series = part[self.scores[0]]
        lengths = series.list.len() if hasattr(series.dtype, "inner") and "List" in str(series.dtype) else None
        if series.null_count() or (lengths is not None and (lengths != self.width).any()):
            bad = series.is_null() if lengths is None else (lengths != self.width).fill_null(value=True)
            raise InputError(
                f"{self.kind} must hold {self.width} scores in every row but row {first + (bad.arg_max() or 0)} "
                "does not; write rows of one length"
            )
        flat = series.explode()
        if flat.null_count():
            row = first + (flat.is_null().arg_max() or 0) // (self.width or 1)
            raise InputError(f"{self.kind} has an empty (null) score in row {row}; write a number for every class")
        return flat.to_numpy().reshape(part.height, -1)

    def edges(self, classes: int) -> Edges | None:
        """Distinct (true, predicted) pairs of a labels-only table."""
        import polars as pl

        kept = self.frame.select("target", "predicted")
        if self.ignore_index is not None:
            kept = kept.filter(pl.col("target") != self.ignore_index)
        counter = EdgeCounter(classes)
        with parsing(self.name, SAVE_AGAIN):
            for part in kept.collect_batches(chunk_size=EDGE_BATCH, maintain_order=False, lazy=True):
                counter.add(to_int64(part["target"].to_numpy()), to_int64(part["predicted"].to_numpy()))
        return counter.edges()


def no_rows(name: str, ignore_index: int | None) -> InputError:
    """The error for a table that ends before its first row that counts."""
    if ignore_index is None:
        return InputError(f"{name} holds no rows; save the predictions of at least one example")
    return InputError(
        f"every target in {name} equals ignore_index {ignore_index}, so no rows are left; check ignore_index"
    )


def labels_of(series: pl.Series, column: str, first: int) -> Array:
    """A label column as NumPy, refused when a row is empty."""
    if series.null_count():
        row = first + (series.is_null().arg_max() or 0)
        raise InputError(f"{column} is empty (null) in row {row}; write a class number in every row")
    values: Array = series.to_numpy()
    return values


def number_of(part: pl.DataFrame, column: str, first: int) -> pl.Series:
    """One score column, refused when a row is empty."""
    series = part[column]
    if series.null_count():
        row = first + (series.is_null().arg_max() or 0)
        raise InputError(f"{column} is empty (null) in row {row}; write a number in every row")
    return series
