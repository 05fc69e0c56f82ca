"""Numbers per class from counts, from a rule's name, or from a dictionary by class name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenhand.counts import ClassCounts, in_class_order, is_keyed, to_numpy
from evenhand.declared import Floats, InputError
from evenhand.weights import available_rules, class_weights

ABSENT = "largest"


def named_vector(name: str, value: Any, counts: ClassCounts | None) -> Any:
    """`value` itself, unless it is the name of a rule of :func:`evenhand.class_weights` or a dictionary by class.

    A class without rows gets the largest weight of a class that has rows: finite, and without influence on the others.

    Raises:
        InputError: a rule without counts, an unknown rule, a dictionary that does not name every class once.
    """
    if isinstance(value, str):
        if counts is None:
            raise InputError(f"expected counts= with {name}={value!r}, a rule that needs them; give rows per class")
        rules = list(available_rules())
        if value not in rules:
            raise InputError(
                f"expected {name} to be a rule among {', '.join(rules)}, got {value!r}{near(value, rules)}"
            )
        return class_weights(counts, value, absent=ABSENT)
    if is_keyed(value):
        names, entries = in_class_order(value, name)
        return np.array([float(x) for x in entries]) if names is None else _by_name(name, dict(value), counts)
    return value


def as_counts(counts: Any) -> ClassCounts:
    """Counts of any accepted kind as :class:`ClassCounts`."""
    return counts if isinstance(counts, ClassCounts) else ClassCounts.from_counts(counts)


def log_prior(counts: ClassCounts) -> Floats:
    """(K,) float64 log prior, nats; a class without rows counts as one row, since log 0 would silence it for ever."""
    rows = rows_or_one(counts)
    logs: Floats = np.log(rows / rows.sum())
    return logs


def checked_weight(weight: Any, counts: ClassCounts | None) -> Tensor:
    """Weights as a float64 tensor.

    Raises:
        InputError: not one-dimensional, negative, not finite, or not one per class; see also :func:`named_vector`.
    """
    weight = named_vector("weight", weight, counts)
    values = weight.detach().cpu().double().numpy() if isinstance(weight, Tensor) else to_numpy(weight)
    if values.ndim != 1 or (counts is not None and len(values) != counts.classes):
        expected = "one weight per class, a 1-D tensor" if counts is None else f"{counts.classes} weights"
        raise InputError(f"expected weight to be {expected}, got shape {values.shape}; give one weight per class")
    values = values.astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        wrong = int(np.flatnonzero(~(np.isfinite(values) & (values >= 0)))[0])
        raise InputError(
            f"expected finite weights of 0 or more, but class {wrong} has {values[wrong]}; a class without rows "
            "needs a weight too, see evenhand.class_weights(absent=...)"
        )
    return torch.as_tensor(values)


def class_vector(name: str, value: Any, classes: int, *, low: float = 0.0) -> Floats:
    """(K,) float64 from one number or K of them, finite and at least `low`.

    Raises:
        InputError: another length, an entry that is not finite or below `low`.
    """
    values = (value.detach().cpu().double().numpy() if isinstance(value, Tensor) else to_numpy(value)).astype(
        np.float64
    )
    if values.shape not in ((), (classes,)):
        raise InputError(
            f"expected {name} to be one number or {classes} of them, got shape {values.shape}; give one per class"
        )
    full = np.broadcast_to(values, (classes,)).copy()
    wrong = np.flatnonzero(~(np.isfinite(full) & (full >= low)))
    if wrong.size:
        raise InputError(
            f"expected {name} to be finite and at least {low:g}, but class {wrong[0]} has {full[wrong[0]]:g}; "
            "correct that entry"
        )
    return full


def rows_or_one(counts: ClassCounts) -> Floats:
    """(K,) float64 rows per class; a class without rows counts as one row, so that logs and powers stay finite."""
    return np.maximum(counts.counts, 1).astype(np.float64)


def in_range(name: str, value: float, low: float, high: float, advice: str) -> float:
    """`value` if it lies in [low, high].

    Raises:
        InputError: it does not.
    """
    if not (isinstance(value, int | float | np.number) and low <= value <= high):
        limits = f"of {low:g} or more" if np.isinf(high) else f"between {low:g} and {high:g}"
        raise InputError(f"expected {name} {limits}, got {value!r}; {advice}")
    return float(value)


def near(word: str, known: Any) -> str:
    """`; did you mean ...?` with the most similar known word, or a plain request to choose one."""
    close = get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else "; choose one of them"


def _by_name(name: str, value: Mapping[Any, Any], counts: ClassCounts | None) -> Floats:
    if counts is None or counts.names is None:
        raise InputError(
            f"expected counts with class names beside {name} as a dictionary, which says which class is which output; "
            "give counts as a dictionary in output order"
        )
    missing = [known for known in counts.names if known not in value]
    if missing or len(value) != counts.classes:
        odd = next((key for key in value if key not in counts.names), None)
        wrong = f"{odd!r}, which is no class" if odd is not None else f"nothing for {missing[0]!r}"
        raise InputError(f"expected {name} for each of the {counts.classes} class names, got {wrong}; name them all")
    return np.array([float(value[known]) for known in counts.names])
