"""A table on disk as training rows: which columns are features, what is refused, and what is said about the rest."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from evenhand.declared import InputError
from evenhand.report.formats import plain, shortened
from evenhand.training.splitting import held_out


def _read_ipc(path: Path) -> pl.DataFrame:
    return pl.scan_ipc(path, glob=False, hive_partitioning=False).collect()


# Polars takes a name with brackets for a pattern, and would read p1.parquet where p[1].parquet is asked for.
READERS: dict[str, Any] = {
    ".parquet": partial(pl.read_parquet, glob=False, hive_partitioning=False),
    ".csv": partial(pl.read_csv, glob=False),
    ".arrow": _read_ipc,
    ".feather": _read_ipc,
}
SPLIT_NAMES = {"train": ("train", "training"), "valid": ("valid", "val", "validation", "dev", "test")}


@dataclass(frozen=True)
class Columns:
    """What the columns are.

    Attributes:
        label: the class. text: columns of text. category: columns of a few names, one number each. ignore: left out.
        group: rows with the same value stay on one side of a split. split: tells train from valid rows.
        impute: whether missing numbers become the median of the training rows; otherwise they are refused.
    """

    label: str
    text: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    impute: bool = False

    def __post_init__(self) -> None:
        """Refuse a column of two roles: a class that is also a feature tells itself.

        Raises:
            InputError: there is one. Only a group may be a feature too.
        """
        roles = ("label", "text", "category", "ignore", "split", "group")
        held: dict[str, str] = {}
        for role in roles:
            for name in [value for value in np.atleast_1d(getattr(self, role) or ()).tolist() if value]:
                if name in held and not (role == "group" and held[name] in ("text", "category")):
                    raise InputError(
                        f"expected one role for each column, got {name!r:.60} as --{held[name]} and --{role}; keep one"
                    )
                held[name] = role

    @property
    def named(self) -> tuple[str, ...]:
        """Every column that is named."""
        rest = (self.group, self.split)
        return (self.label, *self.text, *self.category, *self.ignore, *(name for name in rest if name is not None))


@dataclass
class Notes:
    """What was decided on the way, to be told to the user."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Tell it once."""
        if line not in self.lines:
            self.lines.append(line)


def read_frame(path: Path, columns: Columns) -> pl.DataFrame:
    """The table, with all named columns there.

    Args:
        path: Parquet, CSV or Arrow file, or npz whose arrays have one entry per row: 1-D arrays are columns, (N, D)
            arrays are D numbers per row, (N, T, D) arrays are sequences.

    Raises:
        InputError: another ending, a damaged file, a named column that is missing, no rows. OSError: not readable.
    """
    suffix = path.suffix.lower()
    if suffix != ".npz" and suffix not in READERS:
        raise InputError(
            f"expected a file ending in {', '.join([*READERS, '.npz'])}, got {path.name!r}; save it as one"
        )
    if suffix == ".npz":
        frame = _read_npz(path)
    else:
        with path.open("rb"):
            pass  # a missing or forbidden file is an OSError that names it
        try:
            frame = READERS[suffix](path)
        except (pl.exceptions.PolarsError, ValueError) as error:
            reason = shortened(str(error).splitlines()[0], 120)
            raise InputError(f"expected {path.name} to be a {suffix[1:]} table, but {reason}; save it again") from error
    if suffix == ".csv":
        _refuse_repeated_names(path)
    missing = next((name for name in columns.named if name not in frame.columns), None)
    if missing is not None:
        there = ", ".join(repr(shortened(plain(name), 40)) for name in frame.columns[:12])
        raise InputError(f"expected a column {missing!r} in {path.name}, found {there}; name the column as it stands")
    if not len(frame):
        raise InputError(f"expected rows in {path.name}, found none; check what wrote it")
    _refuse_rows_without_class(frame[columns.label], path)
    return frame


def _refuse_rows_without_class(column: pl.Series, path: Path) -> None:
    if column.dtype.is_float():
        column = column.fill_nan(None)
    rows = column.is_null().arg_true()
    if len(rows):
        which = ", ".join(f"{row:,}" for row in rows[:5].to_list()) + (", ..." if len(rows) > 5 else "")
        raise InputError(
            f"expected a class in every row, but {len(rows):,} of the {len(column):,} rows of {path.name} "
            f"{'has' if len(rows) == 1 else 'have'} none in {column.name!r} (counted from 0: {which}); remove "
            f"{'it' if len(rows) == 1 else 'them'} from the file"
        )


def _refuse_repeated_names(path: Path) -> None:
    """Polars renames the second of two columns: a second label would become a feature that tells the class."""
    options: dict[str, Any] = {"infer_schema": False, "truncate_ragged_lines": True, "glob": False}
    header = pl.read_csv(path, has_header=False, n_rows=1, **options).row(0)
    twice = next((name for name in header if name is not None and header.count(name) > 1), None)
    if twice is not None:
        name = shortened(plain(twice), 40)
        raise InputError(f"expected different column names in {path.name}, got {name!r} twice; rename or drop one")


def _read_npz(path: Path) -> pl.DataFrame:
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        # NumPy's own sentence recommends to unpickle the file.
        reason = "it holds objects" if "Object arrays" in str(error) else "it is damaged or another kind of file"
        raise InputError(
            f"expected {path.name} to be an npz file of plain arrays, but {reason}; save it with np.savez, without "
            "objects"
        ) from error
    if not arrays:
        raise InputError(f"expected arrays in {path.name}, found none; save features and labels in it")
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    rows = max(lengths.values())
    odd = next((name for name, length in lengths.items() if length != rows), None)
    if odd is not None:
        raise InputError(
            f"expected every array of {path.name} to have {rows:,} rows, but {odd!r} has {lengths[odd]:,}; keep other "
            "arrays in another file"
        )
    columns: list[pl.Series] = []
    for name, array in arrays.items():
        if array.ndim <= 2:
            columns.append(pl.Series(name, array))
        elif array.ndim == 3:
            columns += [pl.Series(f"{name}.{d}", array[:, :, d].tolist()) for d in range(array.shape[2])]
        else:
            raise InputError(f"expected arrays of 1 to 3 axes, but {name!r} has {array.ndim}; reshape it")
    return pl.DataFrame(columns)


def label_text(frame: pl.DataFrame, label: str) -> np.ndarray[Any, Any]:
    """(N,) the classes as they are named, whole numbers as numbers.

    Raises:
        InputError: fractions or lists.
    """
    column = frame[label]
    if column.dtype.is_float():
        whole = column.drop_nans()
        if len(whole) < len(column) or not bool((whole == whole.floor()).all()):
            raise InputError(f"expected classes in {label!r}, found fractions or NaN; is it the right column?")
        column = column.cast(pl.Int64, strict=False)
        if column.null_count():
            raise InputError(f"expected classes in {label!r}, found numbers beyond 2^63; is it the right column?")
    if column.dtype.is_integer():
        return column.to_numpy()
    if column.dtype not in (pl.String, pl.Categorical, pl.Boolean) and not isinstance(column.dtype, pl.Enum):
        raise InputError(f"expected classes in {label!r}, found {column.dtype}; name a column of names or numbers")
    return np.array(column.cast(pl.String).to_list(), dtype=object)


def number_classes(train: np.ndarray[Any, Any], valid: np.ndarray[Any, Any]) -> tuple[list[str], Any, Any]:
    """Class names in order (numbers by value, names as text), and both label columns as numbers from 0.

    Numbers on one side and text on the other are the same class where the number is written like the text.

    Raises:
        InputError: one class only, or a class of the valid rows that no training row has.

    Example:
        >>> number_classes(np.array([10, 9, 9]), np.array(["9", "10"], dtype=object))
        (['9', '10'], array([1, 0, 0]), array([0, 1]))
    """
    # Never by a cast to the other's type: that cuts text to its length and wraps numbers, into classes that exist.
    named: Any = str if (train.dtype == object) != (valid.dtype == object) else (lambda value: value)
    known = sorted(set(train.tolist()))
    if len(known) < 2:
        raise InputError(
            f"expected at least two classes in the training rows, found one, {known[0]!r:.60}; check the label"
        )
    number = {named(name): position for position, name in enumerate(known)}
    there = list(map(named, valid.tolist()))
    unseen = sorted(set(there) - set(number))
    if unseen:
        shown = ", ".join(repr(shortened(plain(name), 80)) for name in unseen[:3])
        raise InputError(
            f"expected every class of the valid rows among the training rows, but {len(unseen):,} "
            f"{'has' if len(unseen) == 1 else 'have'} no training row: {shown}{', ...' if len(unseen) > 3 else ''}; "
            f"leave {'its' if len(unseen) == 1 else 'their'} rows out of valid or add training rows"
        )
    names = [shortened(plain(name), 400) for name in known]
    y, y_valid = (
        np.fromiter((number[name] for name in part), np.int64) for part in (map(named, train.tolist()), there)
    )
    return names, y, y_valid


def split_frame(
    frame: pl.DataFrame, columns: Columns, notes: Notes, *, share: float, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train and valid rows: by the split column, else at random, by group where there is one.

    Raises:
        InputError: a split column without train or valid rows.
    """
    if columns.split is not None:
        return _split_by_column(frame, columns.split, notes)
    target = np.unique(label_text(frame, columns.label).astype(str), return_inverse=True)[1]
    group = np.arange(len(frame)) if columns.group is None else group_numbers(frame, columns.group)
    chosen = held_out(target, group, share=share, seed=seed)
    if not chosen.any():
        raise InputError(_why_none_is_held_out(target, group, columns.group))
    alone = int((np.bincount(target[~chosen], minlength=target.max() + 1) > 0).sum())
    unjudged = alone - len(np.unique(target[chosen]))
    if unjudged:
        why = "one row or one group" if columns.group else "one row"
        notes.add(f"{unjudged} of {alone} classes have too few rows to be in both parts ({why}): trained, not judged")
    return frame.filter(~chosen), frame.filter(chosen)


def _why_none_is_held_out(target: Any, group: Any, column: str | None) -> str:
    if column is None:
        return (
            f"expected classes of several rows, to hold some out, but each of the {target.max() + 1:,} has one, which "
            "stays in training; is it the right column? Else give --valid FILE"
        )
    if len(np.unique(group)) == 1:
        return (
            f"expected several groups in {column!r}, to hold some out, but all rows have one value, and a group cannot "
            "be split; leave --group out or give --valid FILE"
        )
    return (
        f"expected classes of several groups in {column!r}, to hold some out, but every group is the only one of a "
        "class, which stays in training; leave --group out or give --valid FILE"
    )


def _split_by_column(frame: pl.DataFrame, split: str, notes: Notes) -> tuple[pl.DataFrame, pl.DataFrame]:
    names = frame[split].cast(pl.String).str.to_lowercase()
    empty = names.null_count()
    if empty:
        notes.add(f"{empty:,} rows without a value in {plain(split)!r} are not used")
    found = set(names.drop_nulls().unique().to_list())
    train = next((name for name in SPLIT_NAMES["train"] if name in found), None)
    valid = next((name for name in SPLIT_NAMES["valid"] if name in found), None)
    if train is None or valid is None:
        shown = ", ".join(repr(shortened(plain(name), 30)) for name in sorted(found)[:5])
        raise InputError(
            f"expected the values train and valid (or val, dev, test) in {split!r}, found {shown}; give --valid FILE"
        )
    rest = sorted(found - {train, valid})
    if rest:
        notes.add(f"rows of the split {', '.join(map(repr, map(plain, rest)))} are not used")
    return frame.filter(names == train), frame.filter(names == valid)


def group_numbers(frame: pl.DataFrame, column: str) -> np.ndarray[Any, Any]:
    """(N,) a number per distinct value; rows without a value are a group each."""
    values = frame[column].fill_nan(None) if frame[column].dtype.is_float() else frame[column]
    ranks = values.rank("dense").cast(pl.Int64).to_numpy().astype(np.float64)
    alone = np.isnan(ranks)
    return np.where(alone, -1 - np.arange(len(ranks)), ranks).astype(np.int64)


def feature_columns(frame: pl.DataFrame, columns: Columns) -> tuple[list[str], list[str], list[str]]:
    """Names of the number columns, of fixed-size vectors of numbers, and of the sequences.

    Raises:
        InputError: a column of another kind that is not named, or none at all.
    """
    numbers: list[str] = []
    vectors: list[str] = []
    steps: list[str] = []
    for name, kind in frame.schema.items():
        if name in columns.named:
            continue
        inner = getattr(kind, "inner", None)
        if kind.is_numeric() or kind == pl.Boolean:
            numbers.append(name)
        elif isinstance(kind, pl.Array) and inner is not None and inner.is_numeric():
            vectors.append(name)
        elif isinstance(kind, pl.List) and inner is not None and inner.is_numeric():
            steps.append(name)
        else:
            raise InputError(
                f"expected numbers in the column {shortened(plain(name), 60)!r}, found {kind}; name it with --text, "
                "--category or --ignore"
            )
    if not (numbers or vectors or steps or columns.text or columns.category):
        raise InputError("expected at least one feature column beside the label, found none; name texts with --text")
    return numbers, vectors, steps


def same_schema(valid: pl.DataFrame, names: Iterable[str], where: str) -> None:
    """Refuse valid rows that lack a column of the training rows.

    Raises:
        InputError: naming the column.
    """
    missing = next((name for name in names if name not in valid.columns), None)
    if missing is not None:
        raise InputError(
            f"expected the column {missing!r} in {where} as in the training rows; save it with that column"
        )


def joined_text(frame: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """(N,) the text columns of each row in one text; a missing one is empty."""
    parts = [frame[name].cast(pl.String).fill_null("").to_list() for name in names]
    return ["\n".join(row) for row in zip(*parts, strict=True)]
