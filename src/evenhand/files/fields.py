"""What an input holds, by name: which kind of predictions, which facts about the training, how many classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.declared import InputError
from evenhand.files import declaring
from evenhand.files.blocks import Kind, Predictions


def parse_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parse train_counts, class_weight, class_names; leave the sampler until K is known."""
    parsers = {
        "train_counts": declaring.train_counts,
        "class_weight": declaring.class_weight,
        "class_names": declaring.class_names,
    }
    return {key: parsers[key](value) if key in parsers else value for key, value in values.items()}


def class_count(fields: Mapping[str, Any]) -> int | None:
    """K as far as names or training counts tell it."""
    for key in ("class_names", "train_counts"):
        if key in fields:
            return len(fields[key])
    return None


def at_least_two(classes: int) -> int:
    """K, which must leave a choice."""
    if classes < 2:
        raise InputError(
            f"the labels name {classes} class but an audit needs at least 2; pass --class-names or all labels"
        )
    return classes


def kind_of(name: str, columns: Mapping[str, Any]) -> Kind:
    """Which of logits, probs, predicted the input holds, in this order; refuses input without target or any of them."""
    found = ", ".join(" ".join(column.split())[:40] for column in sorted(columns)[:12]) or "nothing"
    if "target" not in columns:
        raise InputError(
            f"{name} must hold target, the true classes, but holds {found}; save the labels under that name"
        )
    kinds: tuple[Kind, ...] = ("logits", "probs", "predicted")
    for kind in kinds:
        if kind in columns:
            return kind
    raise InputError(f"{name} must hold logits, probs or predicted beside target but holds {found}; save one of them")


def same_model(train: Predictions | None, classes: int) -> None:
    """Refuse predictions on training rows that come from a model with other classes."""
    if train is not None and train.classes != classes:
        raise InputError(
            f"the training predictions have {train.classes} classes but the predictions have {classes}; use one model"
        )
