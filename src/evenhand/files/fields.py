"""What an input holds, by name: which kind of predictions, which facts about the training, how many classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evenhand.declared import InputError
from evenhand.files import declaring
from evenhand.files.blocks import Kind, Predictions

ALIASES = {
    "target": ("y_true", "label", "labels", "label_ids", "targets", "true", "true_label", "true_class", "actual",
               "ground_truth"),
    "predicted": ("y_pred", "pred", "preds", "prediction", "predictions", "predicted_label", "predicted_class"),
    "probs": ("y_proba", "y_prob", "proba", "probabilities"),
}  # fmt: skip
TALLY = {"edge_true", "edge_predicted", "column_sum"}  # arrays that only a tally holds


def parse_fields(values: Mapping[str, Any], counts: Any = None) -> dict[str, Any]:
    """Parse train_counts, class_weight, class_names; leave the sampler until K is known.

    Weights named by a rule follow from the training counts among the values, or from `counts`.
    """
    parsers = {"train_counts": declaring.train_counts, "class_names": declaring.class_names}
    parsed = {key: parsers[key](value) if key in parsers else value for key, value in values.items()}
    if "class_weight" in parsed:
        parsed["class_weight"] = declaring.class_weight(parsed["class_weight"], parsed.get("train_counts", counts))
    return parsed


def canonical(names: Iterable[str]) -> dict[str, str]:
    """Which of the names stand for target, predicted or probs under another usual name.

    Beside scores under their own name, other columns are not searched for scores or answers.

    Example:
        >>> canonical(["y_true", "Y_pred", "id"]), canonical(["target", "label"])
        ({'y_true': 'target', 'Y_pred': 'predicted'}, {})
    """
    held = list(names)
    found: dict[str, str] = {}
    scored = any(name in ("logits", "probs") or name.startswith(("logit_", "prob_")) for name in held)
    for role, aliases in ALIASES.items():
        if scored and role != "target":
            continue
        meant = [] if role in held else [name for name in held if name.lower() in aliases]
        if len(meant) > 1:
            raise InputError(
                f"{' and '.join(' '.join(name.split())[:40] for name in meant)} may both be meant as {role}; give the "
                f"right one the name {role}"
            )
        found |= dict.fromkeys(meant, role)
    return found


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


def kind_of(name: str, columns: Mapping[str, Any], held: Iterable[str] | None = None) -> Kind:
    """Which of logits, probs, predicted the input holds, in this order; refuses input without target or any of them.

    `held` are all names in the input, for the message, where `columns` are only those that matter.
    """
    names = sorted(columns if held is None else held)
    found = ", ".join(" ".join(column.split())[:40] for column in names[:12]) or "nothing"
    found += f" and {len(names) - 12} more" if len(names) > 12 else ""
    if set(names) >= TALLY:
        raise InputError(
            f"{name} is a tally, which holds counts but no rows; name the predictions, or for evenhand audit give it a "
            "name ending in .tally.npz"
        )
    if "target" not in columns:
        raise InputError(
            f"{name} must hold target (or y_true, label), the true classes, but holds {found}; save the labels under "
            "that name"
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
