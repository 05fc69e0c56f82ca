"""Costs of mistakes out of a file: per class, by pairs of classes, or a matrix."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from evenhand.declared import InputError
from evenhand.files.checks import parsing
from evenhand.files.containers import read_npy, read_npz
from evenhand.files.vectors import read_vector

COLUMNS = ("true", "decided", "cost")
SPARSE = {"csr": sparse.csr_array, "csc": sparse.csc_array}


def read_costs(path: Path, class_names: Sequence[str] | None = None) -> Any:
    """What `evenhand.goals.as_costs` takes, from a file.

    Understood are a csv, tsv or Parquet file with the columns true, decided and cost (class numbers, or names where
    names are known), an npy matrix, a sparse matrix as `scipy.sparse.save_npz` writes it (csr, csc or coo), and any
    vector that `evenhand.files.vectors.read_vector` reads: one cost per class.

    Raises:
        InputError: another content, an unknown class name. OSError: the file cannot be opened.
    """
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv", ".parquet"):
        columns = _table(path) if ending == ".parquet" else _text(path)
        if columns is not None:
            return _triples(path, columns, class_names)
    if ending == ".npy":
        return np.asarray(read_npy(path))
    if ending == ".npz":
        arrays = read_npz(path).arrays
        if "format" in arrays:
            return _sparse(path, arrays)
        if len(arrays) == 1:
            return np.asarray(next(iter(arrays.values())))
    return read_vector(path)


def _text(path: Path) -> list[Sequence[Any]] | None:
    """The three columns of a text table with that header, or None where the header is another."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with parsing(str(path), "save columns true, decided and cost"), path.open(encoding="utf-8-sig", newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=delimiter) if any(line)]
    if not lines or tuple(name.lower() for name in lines[0]) != COLUMNS:
        return None
    short = next((number for number, line in enumerate(lines[1:], 2) if len(line) != len(COLUMNS)), None)
    if short is not None:
        raise InputError(f"{path} should have the columns true, decided and cost, but line {short} has another number")
    return [[line[at] for line in lines[1:]] for at in range(3)]


def _table(path: Path) -> list[Sequence[Any]] | None:
    import polars as pl

    with parsing(str(path), "save columns true, decided and cost"):
        frame = pl.read_parquet(path)
    return [frame[name].to_list() for name in COLUMNS] if set(COLUMNS) <= set(frame.columns) else None


def _triples(path: Path, columns: list[Sequence[Any]], class_names: Sequence[str] | None) -> tuple[Any, Any, Any]:
    numbers = {name: number for number, name in enumerate(class_names or ())}

    def classes(values: Sequence[Any]) -> Any:
        named = [str(v) in numbers for v in values]
        if all(named) and len(named):
            return np.array([numbers[str(v)] for v in values])
        return _floats(path, values, "class numbers, or names that the predictions know")

    return classes(columns[0]), classes(columns[1]), _floats(path, columns[2], "numbers as costs")


def _floats(path: Path, values: Sequence[Any], what: str) -> Any:
    try:
        return np.array([float(v) for v in values])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} should hold {what}, but does not ({error}); correct the file") from error


def _sparse(path: Path, arrays: dict[str, Any]) -> Any:
    """A sparse matrix from the arrays of `scipy.sparse.save_npz`."""
    kind, names = str(np.asarray(arrays["format"]).astype(str)), set(arrays)
    with parsing(str(path), "write it with scipy.sparse.save_npz"):
        shape = tuple(int(n) for n in arrays["shape"])
        if kind in SPARSE and {"data", "indices", "indptr"} <= names:
            matrix = SPARSE[kind]((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
            matrix.check_format(full_check=True)
            return matrix
        if kind == "coo" and {"data", "row", "col"} <= names:
            return sparse.coo_array((arrays["data"], (arrays["row"], arrays["col"])), shape=shape)
    raise InputError(f"{path} holds a sparse matrix of another format than csr, csc and coo; convert it")
