"""What users hand over as arrays: lists, torch tensors, mappings and Series become NumPy arrays in class order."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import InputError, Ints


def to_numpy(values: Any) -> NDArray[Any]:
    """A NumPy array from whatever stands for one; torch tensors are recognised by `detach`, nothing is imported."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, (set, frozenset, str, bytes, Mapping)) or values is None:
        raise InputError(f"Expected an array or a sequence with an order, got {type(values).__name__}; give a list.")
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"Expected an array or a sequence of equal entries, got one NumPy refuses ({error})."
        ) from error


def is_keyed(values: Any) -> bool:
    """Whether entries come with their class: a mapping or a pandas Series."""
    return hasattr(values, "items") and hasattr(values, "keys")


def in_class_order(values: Any, what: str) -> tuple[tuple[Any, ...] | None, list[Any]]:
    """Names, or None where the keys are class indices, and the entries of a mapping or Series in class order.

    Whole-number keys are the classes themselves, whatever order they come in: ``Counter(labels)`` has the order of
    first sight, ``value_counts()`` that of frequency. Other keys are names, already in class order.

    Raises:
        InputError: whole-number keys that are not 0 to K - 1, each once.
    """
    pairs = list(values.items())
    keys = [key for key, _ in pairs]
    if not keys or not all(isinstance(key, Real) and not isinstance(key, bool) for key in keys):
        return tuple(keys), [entry for _, entry in pairs]
    classes = set(keys)
    missing = next((k for k in range(max(len(keys), 2)) if k not in classes), None)
    if missing is not None:
        raise InputError(
            f"Expected {what} by class index to have every class from 0 on, found no class {missing} among "
            f"{len(keys)}; add it (a class without rows has 0), or give a list in the order of the outputs."
        )
    return None, [entry for _, entry in sorted(pairs, key=lambda pair: float(pair[0]))]


def whole_numbers(array: NDArray[Any], what: str) -> Ints:
    """The array as int64 if nothing is lost by it."""
    if array.dtype.kind in "iub":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind != "f":
        raise InputError(f"Expected {what} to be whole numbers, got dtype {array.dtype}; convert them to integers.")
    wrong = np.flatnonzero(~(np.isfinite(array) & (np.floor(array) == array)).ravel())
    if wrong.size:
        raise InputError(
            f"Expected {what} to be whole numbers, but entry {wrong[0]} is {array.ravel()[wrong[0]]};"
            " were weights, shares or scores given instead?"
        )
    return array.astype(np.int64)
