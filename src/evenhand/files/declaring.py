"""What the file and the options say about the training, checked and put into `Declared`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.counts import in_class_order, is_keyed
from evenhand.declared import Declared, Floats, InputError
from evenhand.files.checks import Array
from evenhand.files.vectors import read_vector
from evenhand.weights import available_rules, class_weights

REDUCTIONS = ("mean", "sum", "none")


def parse_config(config: str | bytes | Mapping[str, object] | None) -> dict[str, Any]:
    """The `config` of a predictions file as a dictionary; each known key checked for its type."""
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"config must be a JSON object but does not parse ({error}); write it with json.dumps"
            ) from error
    if not isinstance(config, Mapping):
        raise InputError(f"config must be a JSON object but is a {type(config).__name__}; write a dictionary")
    fields = {str(key): value for key, value in config.items() if value is not None}
    for key, (holds, expected) in CONFIG_RULES.items():
        if key in fields and not holds(fields[key]):
            raise InputError(f"config field {key} must be {expected} but is {fields[key]!r:.60}; correct or remove it")
    return fields


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)  # type: ignore[arg-type]


CONFIG_RULES: dict[str, tuple[Any, str]] = {
    "loss": (lambda value: isinstance(value, str), "a string"),
    "label_smoothing": (
        lambda value: _is_number(value) and 0 <= value < 1,
        "a number from 0 up to but not including 1",
    ),
    "reduction": (lambda value: value in REDUCTIONS, "one of mean, sum, none"),
    "batch_size": (lambda value: _is_integer(value) and value > 0, "a positive integer"),
    "gamma": (_is_number, "a finite number"),
    "ignore_index": (_is_integer, "an integer"),
}


def per_class(value: Any, *, text: bool = False) -> Array:
    """A vector given as array, sequence, tensor or path."""
    if isinstance(value, (str, os.PathLike)):
        return read_vector(value, text=text)
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(in_class_order(value, "a vector")[1] if is_keyed(value) else value)
    except ValueError as error:
        raise InputError(
            f"a vector with one value per class was expected but the values are ragged ({error})"
        ) from error


def numbers(name: str, value: Any) -> Floats:
    """A vector of real numbers of any length as float64."""
    array = per_class(value)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iufb":
        raise InputError(
            f"{name} must be a vector of numbers, one per class, but has shape {array.shape} and type {array.dtype}; "
            "save it as float64"
        )
    return array.astype(np.float64)


def train_counts(value: Any) -> Floats:
    """Rows per class: finite, not negative, not all zero."""
    counts = numbers("train_counts", value)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise InputError("train_counts must be finite and not negative in every class; count the training labels again")
    if not counts.any():
        raise InputError("train_counts are zero in every class; count the training labels again")
    if counts.sum() < 1.01 and (counts % 1 != 0).any():  # taken as counts, they would be one row's worth of evidence
        raise InputError(
            f"train_counts must be rows per class but sum to {counts.sum():.3g}, as class frequencies do; multiply "
            "them by the number of training rows"
        )
    return counts


def class_weight(value: Any, counts: Floats | None = None) -> Floats:
    """Loss weights as given, or by a rule; only what no loss accepts is refused, the rest is evidence."""
    if isinstance(value, (str, os.PathLike)) and not Path(value).suffix and not Path(value).exists():
        return _weights_by_rule(str(value), counts)
    weight = numbers("class_weight", value)
    if (weight < 0).any():
        raise InputError(f"class_weight must not be negative but class {int(np.argmax(weight < 0))} has "
                         f"{weight[weight < 0][0]:g}; pass the weights the loss was given")  # fmt: skip
    if not weight.any():
        raise InputError("class_weight is zero in every class, so no loss was ever counted; pass the weights in use")
    return weight


def _weights_by_rule(rule: str, counts: Floats | None) -> Floats:
    """(K,) weights of a named rule; a class without rows gets 0, which no row ever meets."""
    if rule not in available_rules():
        raise InputError(
            f"class_weight should be a file or one of the rules {', '.join(available_rules())} but is {rule[:40]!r}; "
            "give the weights the loss was given"
        )
    if counts is None:
        raise InputError(f"the weight rule {rule} needs the training counts; pass them with --train-counts")
    try:
        return class_weights(counts, rule, absent="zero")
    except InputError as error:
        raise InputError(f"the weight rule {rule} cannot be applied: {error}") from error


def sampler_rate(value: Any, classes: int, counts: Floats | None) -> Floats:
    """Probability of drawing each class, up to scale: a rule's name, a vector or a file."""
    if isinstance(value, str) and value in ("balanced", "sqrt"):
        if counts is None:
            raise InputError(f"the sampler rule {value} needs the training counts; pass them with --train-counts")
        drawn: Floats = np.sqrt(counts) if value == "sqrt" else (counts > 0).astype(np.float64)
        return drawn / float(drawn.sum())
    rate = numbers("sampler_rate", value)
    if not np.isfinite(rate).all() or (rate < 0).any() or not rate.any():
        raise InputError(
            "sampler_rate must be finite, not negative and not all zero; pass the rate of drawing each class"
        )
    if len(rate) > classes:
        raise InputError(
            f"sampler_rate has {len(rate)} entries but the predictions have {classes} classes; give how often each "
            "class is drawn, not the weight of every row, or balanced where all classes are drawn equally often"
        )
    same_length("sampler_rate", len(rate), classes)
    return rate


def class_names(value: Any) -> tuple[str, ...]:
    """Names as plain strings; duplicates are tolerated, they are only shown."""
    array = per_class(value, text=True)
    if array.ndim != 1 or (array.dtype.hasobject and not all(isinstance(name, str) for name in array.tolist())):
        raise InputError(
            f"class_names must be one string per class but has shape {array.shape}; save a list of strings"
        )
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in array.tolist())


def same_length(name: str, length: int, classes: int) -> None:
    """Refuse a per-class vector of another length than K."""
    if length != classes:
        raise InputError(f"{name} has {length} entries but the predictions have {classes} classes; give one per class")


def declare(fields: Mapping[str, Any], config: Mapping[str, Any], classes: int) -> Declared:
    """`Declared` from already parsed per-class vectors and a parsed config."""
    counts, names = fields.get("train_counts"), fields.get("class_names")
    if counts is not None:
        same_length("train_counts", len(counts), classes)
    if names is not None:
        same_length("class_names", len(names), classes)
    sampler = fields.get("sampler")
    known = {key: config[key] for key in ("loss", "reduction", "batch_size", "gamma", "ignore_index") if key in config}
    return Declared(
        train_counts=counts,
        class_weight=fields.get("class_weight"),
        sampler_rate=None if sampler is None else sampler_rate(sampler, classes, counts),
        class_names=names,
        label_smoothing=float(config.get("label_smoothing", 0.0)),
        extra={key: value for key, value in config.items() if key not in CONFIG_RULES},
        **known,
    )


def is_path(value: object) -> bool:
    """Whether `value` names a file rather than holding the numbers."""
    return isinstance(value, (str, Path, os.PathLike))
