"""What makes labels and scores usable: checked once, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import InputError, Ints

Array = NDArray[Any]

LABEL_CHUNK = 1 << 20


@contextmanager
def parsing(where: str, remedy: str) -> Iterator[None]:
    """Turn whatever a parser of untrusted bytes raises into one sentence; let the operating system's errors through."""
    try:
        yield
    except (InputError, OSError):
        raise
    except MemoryError as error:
        raise InputError(
            f"{where} does not fit into memory; split it and audit the parts with `evenhand tally`"
        ) from error
    except BaseException as error:
        # Polars' Rust code panics on some damaged files, and its PanicException is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        found = _other_format(where)
        if found is not None:
            raise InputError(
                f"{where} is {found}, whatever its name says; save the arrays again in the format of that ending"
            ) from error
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InputError(f"{where} cannot be read ({reason}); {remedy}") from error


MAGIC: dict[bytes, tuple[str, tuple[str, ...]]] = {  # first bytes: what that is, and under which endings it belongs
    **{bytes([0x80, v]): ("a Python pickle, which is never opened because it can run code", ()) for v in range(2, 6)},
    b"\x93NUMPY": ("an npy file", (".npy",)),
    b"PK\x03\x04": ("a zip or npz archive", (".npz",)),
    b"PAR1": ("a Parquet file", (".parquet", ".pq")),
    b"\x89HDF": ("an HDF5 file", ()),
    b"\x1f\x8b": ("a gzip archive", ()),
}


def _other_format(where: str) -> str | None:
    """What the first bytes of a file say that it is, where its parser found something else than its name promised."""
    try:
        with Path(where).open("rb") as file:
            head = file.read(8)
    except (OSError, ValueError):
        return None
    ending = Path(where).suffix.lower()
    return next((what for magic, (what, own) in MAGIC.items() if head.startswith(magic) and ending not in own), None)


def check_scores(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse scores that are not (N, K) floating-point numbers with K of at least two."""
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are never unpickled; save it as a plain float32 array")
    if len(shape) != 2:
        raise InputError(
            f"{name} must have two axes, rows and classes, but its shape is {shape}; save one row per example"
        )
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise InputError(f"{name} must be float16, float32 or float64 but is {dtype}; save the raw scores as float32")
    if shape[1] < 2:
        raise InputError(
            f"{name} has {shape[1]} class column(s) but an audit needs at least 2; save one column per class"
        )
    if shape[0] == 0:
        raise InputError(f"{name} holds no rows; save the predictions of at least one example")


def check_label_type(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse labels that are not a vector of numbers."""
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are never unpickled; save it as a plain int64 array")
    if len(shape) != 1:
        raise InputError(f"{name} must be one class number per row but its shape is {shape}; save a vector of length N")
    if dtype.kind not in "iufb":
        raise InputError(f"{name} must hold class numbers but is {dtype}; save integers from 0 to K - 1")
    if shape[0] == 0:
        raise InputError(f"{name} holds no rows; save the labels of at least one example")


def check_labels(name: str, values: Array, *, classes: int | None, ignore_index: int | None, first_row: int = 0) -> int:
    """Largest label among `values`, or -1 when every row is ignored; refuses what is not a class number.

    `classes` None means that the number of classes is not known yet; `first_row` is the position of `values[0]`.
    """
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.floor(values))
        if not whole.all():
            row = int(np.argmin(whole))
            raise InputError(
                f"{name} must hold whole class numbers but row {first_row + row} is {values[row]:g}; "
                "save integers from 0 to K - 1"
            )
    kept = values if ignore_index is None else values[values != ignore_index]
    if kept.size == 0:
        return -1
    low, high = int(kept.min()), int(kept.max())
    if low < 0:
        row = first_row + int(np.argmax(values == low))
        raise InputError(
            f"{name} must not be negative but row {row} is {low}; to leave such rows out, set the ignore index to {low}"
        )
    if classes is not None and high >= classes:
        row = first_row + int(np.argmax(values == high))
        raise InputError(
            f"{name} must lie between 0 and {classes - 1} ({classes} classes) but row {row} is {high}; "
            "number the classes from 0 and save a score for every class"
        )
    return high


def scan_labels(name: str, values: Array, *, classes: int | None, ignore_index: int | None) -> int:
    """`check_labels` over a long, perhaps memory-mapped, vector, a chunk at a time."""
    check_label_type(name, values.shape, values.dtype)
    return max(
        check_labels(
            name, values[start : start + LABEL_CHUNK], classes=classes, ignore_index=ignore_index, first_row=start
        )
        for start in range(0, len(values), LABEL_CHUNK)
    )


def to_int64(values: Array) -> Ints:
    """Checked labels as int64, without a copy where they already are."""
    return np.ascontiguousarray(values, dtype=np.int64)
