"""Columns as numbers: standardised, hashed, as sequences; everything is learned from the training rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from evenhand.declared import Floats, InputError
from evenhand.report.formats import plain, shortened
from evenhand.training.rows import Inputs, Ragged, TableRows
from evenhand.training.tables import (
    Columns,
    Notes,
    feature_columns,
    group_numbers,
    joined_text,
    label_text,
    number_classes,
    read_frame,
    same_schema,
    split_frame,
)

BUCKETS = 1 << 18
LEAST_ROWS = 2  # training rows that an n-gram must occur in
VALID_SHARE = 0.3
MOST_CATEGORIES = 1000
FEW_WORDS = 4.0  # texts shorter than this on average are hashed by letters: names and titles share few whole words


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A table ready for training.

    Attributes:
        train, valid: rows. class_names: K names in class order. group: (N valid,) groups, rows of one of which must
            stay together, or None. notes: what was decided on the way.
    """

    train: TableRows
    valid: TableRows
    class_names: list[str]
    group: NDArray[np.int64] | None
    notes: list[str]


def load(path: Path, columns: Columns, *, valid: Path | None = None, seed: int = 0) -> TrainingData:
    """Read a table and turn it into rows for the built-in models.

    Numbers are standardised; columns that are constant over the training rows are dropped and named. Texts become
    bags of hashed n-grams with TF-IDF weights: of words and pairs of words, or of two to four letters where texts have
    fewer than four words on average. Columns of lists are sequences, one number per step and column.

    Args:
        path: Parquet, CSV, Arrow or npz file, see :func:`evenhand.training.tables.read_frame`. columns: what they are.
        valid: another such file with the rows to judge on; without it and without a split column 30 % of every class
            are held out. seed: of that split.

    Raises:
        InputError: the table cannot be used; one sentence. OSError: a file cannot be read.
    """
    notes = Notes()
    frame = read_frame(path, columns)
    if valid is None:
        first, second = split_frame(frame, columns, notes, share=VALID_SHARE, seed=seed)
        where = path.name
    else:
        needed = Columns(**{**vars(columns), "split": None, "ignore": ()})
        first, second, where = frame, read_frame(valid, needed), valid.name
    names, y, y_valid = number_classes(label_text(first, columns.label), label_text(second, columns.label))
    *parts, buckets = _encode(first, second, columns, notes, where)
    group = None if columns.group is None else group_numbers(second, columns.group)
    train, judged = (
        TableRows(inputs, torch.from_numpy(target.astype(np.int64)), buckets, tuple(names))
        for inputs, target in zip(parts, (y, y_valid), strict=True)
    )
    return TrainingData(train, judged, names, group, notes.lines)


def _encode(
    first: pl.DataFrame, second: pl.DataFrame, columns: Columns, notes: Notes, where: str
) -> tuple[Inputs, Inputs, int]:
    numbers, vectors, steps = feature_columns(first, columns)
    same_schema(second, [*numbers, *vectors, *steps, *columns.text, *columns.category], where)
    dense = _dense(first, second, numbers, vectors, columns, notes)
    sequences = _sequences(first, second, steps, notes)
    tokens = _tokens(first, second, columns.text, notes)
    if dense is None and sequences is None and tokens is None:
        raise InputError("expected a feature that differs between training rows, found only constants; add features")
    nothing = (None, None)
    (a, b), (c, d, buckets), (e, f) = dense or nothing, tokens or (None, None, 0), sequences or nothing
    return Inputs(a, c, e), Inputs(b, d, f), buckets


def _dense(
    first: pl.DataFrame,
    second: pl.DataFrame,
    numbers: Sequence[str],
    vectors: Sequence[str],
    columns: Columns,
    notes: Notes,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Number columns, vectors and categories side by side, standardised by the training rows; constants left out."""
    train, valid, names = [], [], []
    for name in numbers:
        train.append(first[name].cast(pl.Float64).to_numpy()[:, None])
        valid.append(_as_numbers(second[name], name)[:, None])
        names.append([name])
    for name in vectors:
        train.append(first[name].to_numpy().astype(np.float64))
        valid.append(second[name].to_numpy().astype(np.float64))
        names.append([f"{name}[{d}]" for d in range(train[-1].shape[1])])
    train, valid = _filled(train, valid, names, columns, notes)
    for name in columns.category:
        known = sorted(_category_text(first[name]).drop_nulls().unique().to_list())
        if len(known) > MOST_CATEGORIES:
            raise InputError(f"expected a few categories in {name!r}, found {len(known):,}; name it with --text")
        for part, frame in ((train, first), (valid, second)):
            found = np.array(_category_text(frame[name]).to_list(), dtype=object)
            part.append((found[:, None] == np.array(known, dtype=object)).astype(np.float64))
        names.append([f"{name}={value}" for value in known])
    if not train:
        return None
    x, x_valid, labels = np.concatenate(train, 1), np.concatenate(valid, 1), [name for part in names for name in part]
    spread = x.std(axis=0)
    kept = spread > 1e-12 * np.maximum(1.0, np.abs(x).max(axis=0))
    if not kept.all():
        constant = [label for label, stays in zip(labels, kept, strict=True) if not stays]
        shown = ", ".join(repr(shortened(plain(name), 40)) for name in constant[:5])
        notes.add(f"constant over the training rows and left out: {shown}{', ...' if len(constant) > 5 else ''}")
    if not kept.any():
        return None
    mean, scale = x[:, kept].mean(axis=0), spread[kept]
    # A value far outside of what training saw would drown all others.
    moved = (np.clip((part[:, kept] - mean) / scale, -1e3, 1e3).astype(np.float32) for part in (x, x_valid))
    a, b = (torch.from_numpy(part) for part in moved)
    return a, b


def _category_text(column: pl.Series) -> pl.Series:
    """Categories as text; a file in which one is missing may hold the whole numbers of the other as fractions."""
    if column.dtype.is_float():
        column = column.fill_nan(None)
        if bool((column.drop_nulls() == column.drop_nulls().floor()).all()):
            column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String)


def _as_numbers(column: pl.Series, name: str) -> Floats:
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise InputError(f"expected numbers in {name!r} of the valid rows too, found {column.dtype}; save both alike")
    return np.asarray(column.cast(pl.Float64).to_numpy())


def _filled(
    train: list[Floats], valid: list[Floats], names: list[list[str]], columns: Columns, notes: Notes
) -> tuple[list[Floats], list[Floats]]:
    """Missing numbers become the median of the training rows, if that was asked for.

    Raises:
        InputError: missing numbers otherwise, infinite ones always; naming the column.
    """
    for number, (a, b, labels) in enumerate(zip(train, valid, names, strict=True)):
        for part in (a, b):
            if np.isinf(part).any():
                column = labels[int(np.isinf(part).any(axis=0).argmax())]
                raise InputError(f"expected finite numbers in {plain(column)!r}, found infinite ones; replace them")
        gaps = [np.isnan(part) for part in (a, b)]
        if not (gaps[0].any() or gaps[1].any()):
            continue
        column = plain(labels[int((gaps[0].any(axis=0) | gaps[1].any(axis=0)).argmax())])
        missing = int(gaps[0].sum() + gaps[1].sum())
        if not columns.impute:
            raise InputError(
                f"expected a number in every row of {column!r}, but {missing:,} are missing or NaN; fill them, "
                "leave the column out with --ignore, or take the median with --impute"
            )
        with np.errstate(all="ignore"):
            median = np.array([np.median(col[~np.isnan(col)]) if (~np.isnan(col)).any() else 0.0 for col in a.T])
        train[number], valid[number] = (np.where(np.isnan(part), median, part) for part in (a, b))
        notes.add(f"{missing:,} missing numbers of {column!r} replaced by the median of the training rows")
    return train, valid


def _sequences(
    first: pl.DataFrame, second: pl.DataFrame, names: Sequence[str], notes: Notes
) -> tuple[Ragged, Ragged] | None:
    """List columns as channels of one sequence, standardised by the training steps."""
    if not names:
        return None
    parts: list[tuple[Floats, NDArray[np.int64]]] = []
    for frame, where in ((first, "training"), (second, "valid")):
        lengths = frame[names[0]].list.len().fill_null(0).cast(pl.Int64).to_numpy()
        channels = []
        for name in names:
            other = frame[name].list.len().fill_null(0).cast(pl.Int64).to_numpy()
            if (other != lengths).any():
                row = int((other != lengths).argmax())
                raise InputError(
                    f"expected sequences of one length in a row, but row {row} of the {where} rows has {lengths[row]} "
                    f"in {names[0]!r} and {other[row]} in {name!r}; keep one of them with --ignore"
                )
            flat = frame.filter(lengths > 0)[name].explode().cast(pl.Float64).to_numpy()
            if not np.isfinite(flat).all():
                raise InputError(f"expected finite numbers in the sequences of {name!r}, found others; replace them")
            channels.append(flat)
        parts.append((np.stack(channels, 1), lengths))
    values = parts[0][0]
    if not len(values):
        raise InputError(f"expected sequences with at least one step in {names[0]!r}, found only empty ones; fill them")
    mean, spread = values.mean(axis=0), values.std(axis=0)
    kept = spread > 1e-12
    if not kept.all():
        left_out = ", ".join(repr(plain(name)) for name, stays in zip(names, kept, strict=True) if not stays)
        notes.add(f"constant over the training rows and left out: {left_out}")
    if not kept.any() and not any(lengths.std() > 0 for _, lengths in parts):
        return None
    empty = sum(int((lengths == 0).sum()) for _, lengths in parts)
    if empty:
        notes.add(f"{empty:,} rows have an empty sequence")
    if not kept.any():
        kept[:1] = True  # the length alone may tell the class
    spread = np.where(spread > 1e-12, spread, 1.0)
    a, b = (
        Ragged(
            torch.from_numpy(((flat - mean) / spread)[:, kept].astype(np.float32)),
            torch.from_numpy(np.cumsum(lengths) - lengths),
        )
        for flat, lengths in parts
    )
    return a, b


def _tokens(
    first: pl.DataFrame, second: pl.DataFrame, names: Sequence[str], notes: Notes
) -> tuple[Ragged, Ragged, int] | None:
    """Hashed n-grams of the text columns, weighted by TF-IDF of the training rows; and how many."""
    if not names:
        return None
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    texts = [joined_text(frame, names) for frame in (first, second)]
    empty = sum(not text.strip() for part in texts for text in part)
    if not any(text.strip() for text in texts[0]):
        raise InputError(f"expected text in {names[0]!r}, found only empty ones; name the right column with --text")
    if empty:
        notes.add(f"{empty:,} rows have no text: only their other columns can tell their class")
    words = float(np.mean([len(text.split()) for text in texts[0]]))
    letters = words < FEW_WORDS
    options: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (2, 4)} if letters else {"ngram_range": (1, 2)}
    if not letters:
        options["token_pattern"] = r"(?u)\b\w+\b"
    hashing = HashingVectorizer(n_features=BUCKETS, alternate_sign=False, norm=None, **options)
    counted = [hashing.transform(part) for part in texts]
    notes.add(f"texts hashed by {'2 to 4 letters' if letters else 'words and pairs of words'}")
    # What occurs in one training row cannot be learned from; without it the table of embeddings is a fraction as large.
    seen = np.asarray((counted[0] > 0).sum(axis=0)).ravel()
    kept = np.flatnonzero(seen >= LEAST_ROWS)
    if not len(kept):
        raise InputError(
            f"expected words that more than one text of {names[0]!r} has, found none; is it a column of ids?"
        )
    counted = [part.tocsr()[:, kept] for part in counted]
    weigh = TfidfTransformer(sublinear_tf=True).fit(counted[0])
    a, b = (_ragged(weigh.transform(part)) for part in counted)
    return a, b, len(kept)


def _ragged(matrix: Any) -> Ragged:
    return Ragged(
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.indptr[:-1].astype(np.int64)),
        torch.from_numpy(matrix.data.astype(np.float32)),
    )
