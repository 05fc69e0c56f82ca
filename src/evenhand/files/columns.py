"""Opening a table: which columns matter, of which type, and what is known before the pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evenhand.declared import InputError
from evenhand.files import declaring
from evenhand.files.blocks import Predictions
from evenhand.files.checks import check_labels, parsing
from evenhand.files.fields import at_least_two, canonical, class_count, kind_of, parse_fields, same_model
from evenhand.files.tables import EDGE_BATCH, SAVE_AGAIN, TableSource, labels_of, no_rows

if TYPE_CHECKING:
    import polars as pl

TEXT = (".csv", ".tsv")
TABLES = (".parquet", ".pq", ".arrow", ".ipc", ".feather", ".csv", ".tsv")
WIDE = {"logits": re.compile(r"logit_(0|[1-9][0-9]*)"), "probs": re.compile(r"prob_(0|[1-9][0-9]*)")}


def scan(path: Path) -> pl.LazyFrame:
    """A lazy scan by the file's ending."""
    import polars as pl

    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)
    if suffix in TEXT:
        separator = "\t" if suffix == ".tsv" else ","
        return pl.scan_csv(path, glob=False, separator=separator, infer_schema_length=10_000)
    return pl.scan_ipc(path, glob=False, hive_partitioning=False)


def open_table(
    path: Path,
    *,
    given: Mapping[str, Any],
    config: str | Mapping[str, object] | None,
    ignore_index: int | None,
    train: Predictions | None,
) -> Predictions:
    """`open_predictions` for a table; labels without scores are checked here, everything else in the pass."""
    parsed = declaring.parse_config(config)
    ignore_index = parsed.get("ignore_index") if ignore_index is None else ignore_index
    if ignore_index is not None:
        parsed["ignore_index"] = ignore_index
    with path.open("rb") as probe:  # permission and missing-file errors in the operating system's words
        if not probe.read(1):
            raise InputError(f"{path} is empty; save the predictions again")
    with parsing(str(path), SAVE_AGAIN):
        frame = scan(path)
        schema = dict(frame.collect_schema())
        renamed = canonical(schema)
        frame, schema = frame.rename(renamed), {renamed.get(name, name): kind for name, kind in schema.items()}
        columns = score_columns(schema)
        kind = kind_of(path.name, columns, schema)
        check_types(schema, columns, csv=path.suffix.lower() in TEXT)
        frame, width = typed(frame, schema, columns.get(kind, ()), kind)
        fields = parse_fields(given)
        rows, positions, seen = extent(frame, kind, ignore_index, class_count(fields), path)
    classes = width if width is not None else at_least_two(class_count(fields) or seen)
    same_model(train, classes)
    source = TableSource(
        name=str(path),
        frame=frame,
        kind=kind,
        scores=() if kind == "predicted" else columns[kind],
        width=width,
        predicted="predicted" in columns,
        row_id="row_id" in columns,
        ignore_index=ignore_index,
        label_classes=classes,
        positions=positions,
        seekable=path.suffix.lower() not in TEXT,
    )
    return Predictions(path.name, kind, classes, declaring.declare(fields, parsed, classes), train, rows, source)


def score_columns(schema: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The columns that matter by role; logit_0 ... logit_{K-1} stand for logits, prob_* for probs."""
    roles: dict[str, tuple[str, ...]] = {
        name: (name,) for name in ("target", "predicted", "row_id", "logits", "probs") if name in schema
    }
    for kind, pattern in WIDE.items():
        numbers = sorted(int(found[1]) for name in schema if (found := pattern.fullmatch(name)))
        if kind in roles or not numbers:
            continue
        stem = "logit_" if kind == "logits" else "prob_"
        if numbers != list(range(len(numbers))) or len(numbers) < 2:
            raise InputError(
                f"the columns {stem}* must be numbered 0 to K - 1 with at least two of them but are "
                f"{', '.join(map(str, numbers[:8]))}; write one per class"
            )
        roles[kind] = tuple(f"{stem}{k}" for k in numbers)
    return roles


def check_types(schema: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]], *, csv: bool) -> None:
    """Refuse columns that are not of numbers."""
    import polars as pl

    for label in ("target", "predicted", "row_id"):
        dtype = schema.get(label)
        if dtype is not None and not (dtype.is_integer() or dtype.is_float() or dtype == pl.Boolean):
            raise InputError(f"column {label} must hold class numbers but is {dtype}; write integers from 0 to K - 1")
    for kind in ("logits", "probs"):
        names = columns.get(kind, ())
        for name in names:
            dtype = schema[name]
            if len(names) == 1:
                inner = getattr(dtype, "inner", None)
                if (
                    not isinstance(dtype, (pl.List, pl.Array))
                    or not isinstance(inner, pl.DataType)
                    or not inner.is_float()
                ):
                    raise InputError(
                        f"column {name} must be a list of floating-point scores per row but is {dtype}; "
                        f"write a list column of float32, or one column {WIDE[kind].pattern[:5]}... per class"
                    )
            elif not (dtype.is_float() or (csv and dtype.is_integer())):
                raise InputError(f"column {name} must hold floating-point scores but is {dtype}; write float32")


def typed(
    frame: pl.LazyFrame, schema: Mapping[str, Any], scores: tuple[str, ...], kind: str
) -> tuple[pl.LazyFrame, int | None]:
    """The frame with one floating type for all number columns, and K as far as the score columns tell it."""
    import polars as pl

    if kind == "predicted":
        return frame, None
    if len(scores) > 1:
        half = getattr(pl, "Float16", None)
        same = len({schema[name] for name in scores}) == 1 and schema[scores[0]].is_float()
        common = schema[scores[0]] if same and schema[scores[0]] != half else pl.Float64
        return frame.with_columns(pl.col(scores).cast(common)), len(scores)
    dtype = schema[scores[0]]
    if isinstance(dtype, pl.Array):
        width = int(np.prod(dtype.shape))
    else:
        head = frame.select(scores[0]).head(1).collect()
        if not head.height:
            raise InputError(f"column {scores[0]} holds no rows; save the predictions of at least one example")
        width = len(head.item()) if head.item() is not None else 0
    if width < 2:
        raise InputError(
            f"{kind} has {width} score(s) per row but an audit needs at least 2 classes; write one per class"
        )
    return frame, width


def extent(
    frame: pl.LazyFrame,
    kind: str,
    ignore_index: int | None,
    classes: int | None,
    path: Path,
) -> tuple[int | None, int | None, int]:
    """Rows that count, rows stored, largest label plus one: by a pass for labels alone, else what is free to know."""
    import polars as pl

    if kind != "predicted":
        if path.suffix.lower() in TEXT:
            return None, None, 0
        stored = int(frame.select(pl.len()).collect().item())
        if not stored:
            raise no_rows(str(path), None)
        return (stored if ignore_index is None else None), stored, 0
    kept = pl.col("target") if ignore_index is None else pl.col("target").filter(pl.col("target") != ignore_index)
    schema = frame.collect_schema()
    values = {"target": kept, "predicted": pl.col("predicted")}
    checks = [check for name, column in values.items() for check in summary(name, column, schema[name])]
    pass_over = frame.select(pl.len().alias("stored"), kept.len().alias("kept"), *checks)
    facts = pass_over.collect(engine="streaming").row(0, named=True)
    if not facts["kept"]:
        raise no_rows(str(path), ignore_index)
    for column in ("target", "predicted"):
        low, high = facts[f"{column}_low"], facts[f"{column}_high"]
        sound = not facts[f"{column}_null"] and not facts[f"{column}_odd"] and low is not None and low >= 0
        if not sound or (classes is not None and high >= classes):
            raise first_fault(frame, column, classes, ignore_index if column == "target" else None)
    return facts["kept"], facts["stored"], int(max(facts["target_high"], facts["predicted_high"])) + 1


def summary(column: str, values: pl.Expr, dtype: pl.DataType) -> list[pl.Expr]:
    """Range of the rows that count, empty rows, and rows that are not whole numbers."""
    import polars as pl

    real = pl.col(column)
    odd = pl.lit(value=False)
    if dtype.is_float():
        odd = (real.is_nan() | real.is_infinite() | (real != real.floor())).any()
    return [
        values.min().alias(f"{column}_low"),
        values.max().alias(f"{column}_high"),
        pl.col(column).null_count().alias(f"{column}_null"),
        odd.alias(f"{column}_odd"),
    ]


def first_fault(frame: pl.LazyFrame, column: str, classes: int | None, ignore_index: int | None) -> InputError:
    """The error for the first row whose label is unusable; called once it is known that there is one."""
    first = 0
    for part in frame.select(column).collect_batches(chunk_size=EDGE_BATCH, maintain_order=True, lazy=True):
        try:
            check_labels(
                column,
                labels_of(part[column], column, first),
                classes=classes,
                ignore_index=ignore_index,
                first_row=first,
            )
        except InputError as error:
            return error
        first += part.height
    return InputError(f"column {column} cannot be read as class numbers; write integers from 0 to K - 1")
