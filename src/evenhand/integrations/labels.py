"""Labels of any kind as class numbers, and values per class given by label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import InputError, Ints

Array = NDArray[Any]


def class_numbers(values: Array, classes: Array) -> Ints:
    """(n,) position of each label among the classes, which may be in any order.

    Raises:
        InputError: a label that is no class.

    Example:
        >>> class_numbers(np.array(["b", "a"]), np.array(["b", "c", "a"])).tolist()
        [0, 2]
    """
    order = np.argsort(classes, kind="stable")
    place = order[np.minimum(np.searchsorted(classes, values, sorter=order), len(classes) - 1)]
    strange = np.flatnonzero(classes[place] != values)
    if len(strange):
        raise InputError(
            f"{len(strange)} rows have labels that are not among the {len(classes)} classes, such as "
            f"{values[strange[0]]!r:.40}; leave them out or name all classes"
        )
    return np.asarray(place, np.int64)


def by_class(name: str, values: Any, classes: Array) -> Any:
    """Values in the order of the classes, where they are given as label -> value; anything else as it is.

    Raises:
        InputError: a class has no value, or there is a value for an unknown class.

    Example:
        >>> by_class("prior", {"dog": 0.25, "cat": 0.75}, np.array(["cat", "dog"])).tolist()
        [0.75, 0.25]
    """
    if not isinstance(values, Mapping):
        return values
    labels = classes.tolist()
    missing = [label for label in labels if label not in values]
    unknown = [key for key in values if key not in labels]
    if missing or unknown:
        what = f"no value for {missing[0]!r:.40}" if missing else f"a value for {unknown[0]!r:.40}, which is no class"
        raise InputError(f"{name} has {what}; give one value for each of the {len(labels)} classes")
    return np.array([values[label] for label in labels], dtype=np.float64)
