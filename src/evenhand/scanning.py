"""The one pass over the rows: scores in cache-sized blocks, threads over spans of rows, a Tally out.

A block of scores is read once from memory and stays in the cache for everything that is computed from it. SciPy's
``log_softmax`` makes several passes over the whole array and runs at a quarter of the speed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Floats, InputError, Ints
from evenhand.tally import (
    BINS,
    Kind,
    RowSample,
    Singles,
    Tally,
    combine,
    count_edges,
    lead_size,
    row_hash,
    sample_size,
    tally_edges,
)
from evenhand.threads import one_blas_thread

if TYPE_CHECKING:
    from evenhand.files import Block, Predictions

BLOCK_CELLS = 262_144  # 1 MiB of float32: a block and its exponentials fit the second-level cache
BLOCK_ROWS = 4_096  # longer single-precision sums would lose the sixth digit
PLAIN_PEAK = 40.0  # exp(80), the square of the largest exponential, is far from overflow, and exp(-80) from underflow
SPAN_ROWS = 65_536  # rows whose labels are counted together, at most
SPAN_CELLS = 8_000_000  # scores read together: 32 MB of float32 per thread
Scores = NDArray[np.floating[Any]]


def workers() -> int:
    """Threads for the pass: the cores this process may use, at most 8 (memory bandwidth ends the gain there)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(8, cores))


class _Span:
    """Row-wise results of one span of rows, filled block by block."""

    def __init__(self, rows: int, classes: int) -> None:
        self.top = np.empty(rows, np.int64)
        self.confidence = np.empty(rows)
        self.row_nll = np.empty(rows)
        self.bad = np.zeros(rows, bool)
        self.soft = np.zeros(classes)
        self.soft_square = np.zeros(classes)
        self.minus_infinite = np.zeros(classes, np.int64)
        self.column_sum = np.zeros(classes)
        self.row_sum_error = 0.0


def _logits_block(z: Scores, target: Ints, span: _Span, at: slice, buffer: Singles) -> None:
    """softmax(z) of one block: p = exp(z - max) / S, with its column sums, argmax, confidence and row nll.

    Where no row's maximum is far from zero, p = exp(z) / S is as exact and saves a pass: single precision holds it.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        plain = z.dtype == np.float32 and bool(np.isfinite(z @ np.ones(z.shape[1], np.float32)).all())
    rows = np.arange(len(z))
    top = z.argmax(axis=1)
    peak = z[rows, top]
    if plain and float(np.abs(peak).max()) <= PLAIN_PEAK:
        e = buffer[: len(z)]
        np.exp(z, out=e)
        span.confidence[at] = np.minimum(_softmax_sums(e, z[rows, target], span, at) * np.exp(peak), 1.0)
        span.top[at] = top
        return
    # argmax returns the first NaN of a row, so a non-finite peak finds every NaN and +inf without another pass.
    bad = ~np.isfinite(peak)
    if bad.any():  # NaN, +inf, or a row that is -inf throughout
        span.bad[at] = bad
        peak = np.where(bad, 0, peak)
    e = buffer[: len(z)]
    if z.dtype == np.float16:  # the difference of two halves would be rounded to a half
        np.copyto(e, z)
        e -= peak[:, None].astype(np.float32)
    else:
        with np.errstate(over="ignore"):  # a mask of -1e300 becomes -inf
            np.subtract(z, peak[:, None], out=e, casting="unsafe")
    if bad.any():
        e[bad] = 0.0
    if not np.isfinite(e @ np.ones(e.shape[1], np.float32)).all():
        span.minus_infinite += np.isneginf(e).sum(axis=0)
    target_score = e[rows, target]
    np.exp(e, out=e)
    span.confidence[at] = _softmax_sums(e, target_score, span, at)
    span.top[at] = top


def _softmax_sums(e: Singles, target_score: Singles, span: _Span, at: slice) -> Singles:
    """Add the column sums of p = e / S and of its square, and the row nll, of exponentials e; returns 1 / S (rows,)."""
    total = e @ np.ones(e.shape[1], np.float32)
    share = 1.0 / total
    span.soft += share @ e
    np.multiply(e, e, out=e)
    span.soft_square += (share * share) @ e
    # A sure row's S is its target's exponential: rounding must not make that less than nothing.
    span.row_nll[at] = np.maximum(np.log(total, dtype=np.float64) - target_score.astype(np.float64), 0.0)
    return np.asarray(share)


def _probs_block(p: Scores, target: Ints, span: _Span, at: slice, buffer: Singles) -> None:
    """Probabilities of one block; rows are normalised, and how far they were from sum one is kept."""
    rows = np.arange(len(p))
    e = buffer[: len(p)]
    np.copyto(e, p, casting="unsafe")
    total = e @ np.ones(e.shape[1], np.float32)
    bad = ~np.isfinite(total) | (e.min(axis=1) < 0) | (total <= 0)
    if bad.any():
        span.bad[at] = bad
        e[bad] = 1.0
        total = e @ np.ones(e.shape[1], np.float32)
    span.row_sum_error = max(span.row_sum_error, float(np.abs(total - 1.0).max()))
    span.column_sum += np.ones(len(e), np.float32) @ e
    top = e.argmax(axis=1)
    share = 1.0 / total
    span.soft += share @ e
    span.top[at] = top
    span.confidence[at] = e[rows, top] * share
    with np.errstate(divide="ignore"):
        span.row_nll[at] = -np.log(e[rows, target].astype(np.float64) * share)
    np.multiply(e, e, out=e)
    span.soft_square += (share * share) @ e


def tally_span(
    scores: Scores,
    target: Ints,
    row_id: Ints,
    *,
    kind: Kind,
    predicted: Ints | None = None,
    threshold: np.uint64 | None = None,
) -> Tally:
    """Tally of consecutive rows held in memory or in a memory map.

    Args:
        scores: (R, K) logits or probabilities, float16, float32 or float64.
        target: (R,) true classes. row_id: (R,) ids. predicted: (R,) decoded classes, or None for the argmax.
        kind: ``logits`` or ``probs``.
        threshold: only rows whose hash is at most this can be in the sample (known when N is known); saves copies.

    Raises:
        InputError: scores hold NaN or +inf, a row is all -inf, or probabilities are negative; the sentence gives the
            number of such rows in this span and the first row ids.
    """
    n, k = scores.shape
    span = _Span(n, k)
    rows = int(np.clip(BLOCK_CELLS // k, 4, BLOCK_ROWS))
    buffer = np.empty((min(rows, n), k), np.float32)
    fill = _logits_block if kind == "logits" else _probs_block
    for start in range(0, n, rows):
        at = slice(start, min(n, start + rows))
        fill(scores[at], target[at], span, at, buffer)
    if span.bad.any():
        raise bad_rows(kind, row_id[span.bad])
    return _collect(scores, target, row_id, span, kind, predicted, threshold)


def _collect(
    scores: Scores,
    target: Ints,
    row_id: Ints,
    span: _Span,
    kind: Kind,
    predicted: Ints | None,
    threshold: np.uint64 | None,
) -> Tally:
    n, k = scores.shape
    decided = span.top if predicted is None else predicted
    hit = decided == target
    possible = np.isfinite(span.row_nll)
    key = target[~hit] * k + decided[~hit]
    edges = count_edges(key, k)
    hashes = row_hash(row_id)
    chosen = np.flatnonzero(hashes <= threshold) if threshold is not None else np.arange(n)
    limit = sample_size(k)
    if len(chosen) > limit:
        chosen = chosen[np.argpartition(hashes[chosen], limit - 1)[:limit]]
    # In the order of `smallest_hashes` already: a tally of one span is never combined, and folds need random order.
    chosen = chosen[np.lexsort((target[chosen], row_id[chosen], hashes[chosen]))]
    # Ids below the limit, not the first rows of this span: so that any split of the rows keeps the same ones.
    lead = np.flatnonzero(row_id < lead_size(k))
    lead = lead[np.argsort(row_id[lead], kind="stable")]
    return Tally(
        kind=kind,
        rows=n,
        true=np.bincount(target, minlength=k),
        predicted=np.bincount(decided, minlength=k),
        hits=np.bincount(target[hit], minlength=k),
        decoded=np.bincount(span.top, minlength=k),
        edge_true=edges[0],
        edge_predicted=edges[1],
        edge_count=edges[2],
        soft=span.soft,
        soft_square=span.soft_square,
        nll=float(span.row_nll[possible].sum()),
        impossible=int(n - possible.sum()),
        bins=confidence_bins(span.confidence, span.top == target),
        minus_infinite=span.minus_infinite,
        column_sum=span.column_sum,
        row_sum_error=span.row_sum_error,
        sample=RowSample(row_id[chosen], target[chosen], as_logits(scores[chosen], kind)),
        lead=RowSample(row_id[lead], target[lead], _raw(scores[lead])),
    )


def confidence_bins(confidence: Floats, hit: NDArray[np.bool_]) -> Floats:
    """(15, 3): rows, summed confidence and right rows per equal-width bin of confidence."""
    index = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    columns = [np.bincount(index, weights=w, minlength=BINS) for w in (np.ones(len(index)), confidence, hit)]
    return np.stack(columns, axis=1)


def as_logits(scores: Scores, kind: Kind) -> Singles:
    """Scores as float32 logits; a probability p becomes log p (zero: -inf)."""
    values = _raw(scores)
    if kind == "probs":
        with np.errstate(divide="ignore"):
            np.log(values, out=values)
    return values


def _raw(scores: Scores) -> Singles:
    with np.errstate(over="ignore"):
        return np.array(scores, dtype=np.float32)


def bad_rows(kind: Kind, row_id: Ints) -> InputError:
    """One sentence about rows that cannot be used."""
    some = ", ".join(str(i) for i in row_id[:5]) + (", ..." if len(row_id) > 5 else "")
    wanted = "finite logits" if kind == "logits" else "finite, non-negative probabilities"
    came = "NaN, +inf or nothing but -inf" if kind == "logits" else "NaN, infinite, negative or all-zero values"
    return InputError(
        f"expected {wanted}, got {came} in {len(row_id):,} row{'s' * (len(row_id) > 1)} (row {some}); "
        "remove these rows or find out where the model produced them"
    )


def sample_threshold(rows: int, classes: int) -> np.uint64 | None:
    """A hash below which, of `rows` rows, at least the sample size lie (six standard deviations of margin)."""
    wanted = sample_size(classes)
    enough = wanted + 6 * wanted**0.5 + 10
    return None if enough >= rows else np.uint64(int(enough / rows * 2**64))


def tally_block(block: Block, *, predictions: Predictions, threshold: np.uint64 | None = None) -> Tally:
    """Tally of one block of any kind of input."""
    k = predictions.classes
    if block.scores is None:
        if block.predicted is None:
            raise InputError("expected scores or predicted labels in every block, got neither; give one of them")
        true, predicted, count = count_edges(block.target * k + block.predicted, k)
        return tally_edges(true, predicted, count, classes=k)
    return tally_span(
        block.scores,
        block.target,
        block.row_id,
        kind=predictions.kind,
        predicted=block.predicted,
        threshold=threshold,
    )


def tally_predictions(predictions: Predictions, *, progress: Callable[[int], None] | None = None) -> Tally:
    """Tally of all rows: threads over spans of a random-access input, a loop over the blocks of a stream.

    Args:
        predictions: what `evenhand.files` opened.
        progress: called with the number of rows just done, from any thread.

    Raises:
        InputError: scores that cannot be used, or no rows at all.
    """
    k = predictions.classes
    step = int(np.clip(SPAN_CELLS // k, 64, SPAN_ROWS))
    edges = predictions.edges()
    if edges is not None:
        lead = first_labels(predictions)
        parts: Iterator[Tally] = iter([dataclasses.replace(tally_edges(*edges, classes=k), lead=lead)])
    elif predictions.random_access and predictions.positions is not None:
        parts = _threaded(predictions, predictions.positions, step)
    else:
        parts = (tally_block(block, predictions=predictions) for block in predictions.blocks(step))
    total = _combine_as_they_come(parts, progress)
    if total is None or total.rows == 0:
        raise InputError("expected at least one row to audit, got none; check ignore_index and that the file has rows")
    return dataclasses.replace(total, declared=predictions.declared)


def first_labels(predictions: Predictions) -> RowSample:
    """Target and predicted label of the first rows, in order; the label stands where the scores would."""
    limit = lead_size(predictions.classes)
    for block in predictions.blocks(limit):
        if block.predicted is not None:
            label = block.predicted[:limit, None].astype(np.float32)
            return RowSample(block.row_id[:limit], block.target[:limit], label)
    return RowSample.empty(1)


def _threaded(predictions: Predictions, rows: int, step: int) -> Iterator[Tally]:
    threshold = sample_threshold(rows, predictions.classes)
    # Small inputs are cut too, so that every core has work.
    step = int(np.clip(-(-rows // workers()), min(1024, step), step))

    def task(start: int) -> Tally:
        block = predictions.span(start, min(rows, start + step))
        if block is None:
            raise InputError("expected rows that can be read in any order, got a stream; read it block by block")
        return tally_block(block, predictions=predictions, threshold=threshold)

    with one_blas_thread(), ThreadPoolExecutor(workers()) as pool:
        yield from pool.map(task, range(0, rows, step))


class _Samples:
    """The row sample while it grows.

    Parts are copied at once into one array, whose pages exist only when written: with many classes a sample is large,
    copying it with every sum of tallies takes longer than the pass itself, and keeping its parts scatters the memory.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.limit = sample_size(classes)
        self.rows = 0
        self.held = RowSample.empty(classes)

    def add(self, part: RowSample) -> None:
        """Take the rows of a part, at most `limit` of them."""
        if self.rows == 0 and len(part.row_id):
            size = 3 * self.limit
            scores = np.empty((size, part.scores.shape[1]), part.scores.dtype)
            self.held = RowSample(np.empty(size, np.int64), np.empty(size, np.int64), scores)
        at = slice(self.rows, self.rows + len(part.row_id))
        self.held.row_id[at], self.held.target[at], self.held.scores[at] = part.row_id, part.target, part.scores
        self.rows = at.stop
        if self.rows > 2 * self.limit:
            kept, self.rows = self.result(), 0
            self.add(kept)

    def result(self) -> RowSample:
        """The rows with the smallest hashes so far."""
        at = slice(0, self.rows)
        filled = RowSample(self.held.row_id[at], self.held.target[at], self.held.scores[at])
        return filled.smallest_hashes(self.limit)


def _combine_as_they_come(parts: Iterator[Tally], progress: Callable[[int], None] | None) -> Tally | None:
    """Sum in the order of the rows, sixteen at a time, so that a long stream is never held as a list of tallies."""
    pending: list[Tally] = []
    samples: _Samples | None = None
    for part in parts:
        samples = samples or _Samples(part.classes)
        samples.add(part.sample)
        pending.append(dataclasses.replace(part, sample=RowSample.empty(part.classes)))
        if progress is not None:
            progress(part.rows)
        if len(pending) == 16:
            pending = [combine(pending)]
    return dataclasses.replace(combine(pending), sample=samples.result()) if samples is not None else None
