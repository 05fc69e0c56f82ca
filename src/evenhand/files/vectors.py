"""Vectors out of small files: counts, weights and names, one value per class."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.declared import InputError
from evenhand.files.checks import Array, parsing
from evenhand.files.containers import read_npy, read_npz

PathLike = str | os.PathLike[str]

HEADERS = {"name", "names", "class", "class_name", "class_names", "label", "labels"}


def read_vector(path: PathLike, *, text: bool = False) -> Array:
    """One value per class from a file: numbers as float64, or strings.

    Understood are npy, npz with a single array, a one-column Parquet file, csv and txt (one value per line, or one line
    of values), and a JSON list or object with the keys 0 to K - 1. A csv header is left out.

    Args:
        path: the file; its ending tells the format.
        text: read names, so that ``007`` stays ``007``.

    Returns:
        (K,) float64, or (K,) of strings when the values are not all numbers or `text` is set.

    Raises:
        InputError: the file cannot be read as one vector. OSError: it cannot be opened.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "counts.csv")
        ...     _ = file.write_text("count\\n120\\n30\\n")
        ...     read_vector(file)
        array([120.,  30.])
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in VECTOR_READERS:
        raise InputError(f"{path} should be a {', '.join(VECTOR_READERS)} file with one value per class; convert it")
    with parsing(str(path), "save one value per class"):
        values: Array = VECTOR_READERS[suffix](path, text)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"{path} should hold one value per class but has shape {values.shape}; save a vector")
    if text or values.dtype.kind in "SUT":
        return np.array([_as_text(value) for value in values.tolist()])
    if values.dtype.kind not in "iufb":
        raise InputError(f"{path} should hold numbers or strings but holds {values.dtype}; save a plain vector")
    return values.astype(np.float64)


def _as_text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _numbers_or_text(tokens: list[str], text: bool) -> Array:
    try:
        return np.array(tokens if text else [float(token) for token in tokens])
    except ValueError:
        return np.array(tokens)


def _read_npz(path: Path) -> Array:
    arrays = read_npz(path).arrays
    if len(arrays) != 1:
        raise InputError(f"{path} should hold one array but holds {len(arrays)}; save the vector alone")
    return next(iter(arrays.values()))


def _read_json(path: Path, text: bool) -> Array:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        if set(content) != {str(k) for k in range(len(content))}:
            raise InputError(
                f"{path} is an object whose keys are not 0 to {len(content) - 1}; save a list in class order"
            )
        content = [content[str(k)] for k in range(len(content))]
    number = (int, float)
    if not isinstance(content, list) or not all(isinstance(x, (str, *number)) for x in content):
        raise InputError(f"{path} should be a list of numbers or of strings; save one value per class")
    if all(isinstance(x, number) for x in content) and not text:
        return np.array(content, dtype=np.float64)
    return np.array([str(x) for x in content])


def _read_csv(path: Path, text: bool) -> Array:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=delimiter) if any(line)]
    if len(lines) == 1:
        return _numbers_or_text(lines[0], text)
    if any(len(line) != 1 for line in lines):
        raise InputError(f"{path} should have one column with one value per class; remove the other columns")
    tokens = [line[0] for line in lines]
    if tokens and tokens[0].lower() in HEADERS:
        return _numbers_or_text(tokens[1:], text)
    rest = _numbers_or_text(tokens[1:], text)
    if rest.dtype.kind == "f" and _numbers_or_text(tokens[:1], text).dtype.kind != "f":
        return rest
    return _numbers_or_text(tokens, text)


def _read_txt(path: Path, text: bool) -> Array:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if len(lines) == 1 and not text:
        lines = lines[0].replace(",", " ").split()
    return _numbers_or_text(lines, text)


def _read_parquet(path: Path) -> Array:
    import polars as pl

    frame = pl.read_parquet(path)
    if frame.width != 1:
        raise InputError(f"{path} should have one column but has {frame.width}; save one value per class")
    values: Array = frame.to_series().to_numpy()
    if values.dtype.hasobject:
        return np.array([str(value) for value in values.tolist()])
    return values


VECTOR_READERS: dict[str, Any] = {
    ".npy": lambda path, _: read_npy(path),
    ".npz": lambda path, _: _read_npz(path),
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_txt,
    ".parquet": lambda path, _: _read_parquet(path),
    ".json": _read_json,
}
