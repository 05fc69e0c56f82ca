"""A correction put into a layer: any object with ``weight`` of K rows and ``bias``, as torch has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evenhand.declared import InputError

if TYPE_CHECKING:
    from evenhand.correction.result import Correction

FOLDED = "evenhand_correction"  # attribute of a layer that a correction was folded into


def fold_layer(correction: Correction, linear: Any, *, again: bool) -> None:
    """``weight *= scale``, ``bias = scale * bias + offset``, in place; see `Correction.fold_into`."""
    if not correction.additive:
        raise InputError(
            f"the decision for the goal {correction.goal} is no offset per class, so a layer cannot hold it; call "
            "predict, or fit with foldable=True"
        )
    earlier = getattr(linear, FOLDED, None)
    if earlier is not None and not again:
        raise InputError(
            f"a correction for {earlier} is folded into this layer already and another would add to it; load the "
            "uncorrected weights and pass again=True"
        )
    weight = getattr(linear, "weight", None)
    if weight is None or not hasattr(weight, "detach") or weight.shape[0] != correction.classes:
        came = type(linear).__name__ if weight is None else f"a weight of shape {tuple(weight.shape)}"
        raise InputError(
            f"expected a layer whose weight has {correction.classes} rows, one per class, got {came}; pass the last "
            "linear layer of the model"
        )
    values = weight.detach()
    offset = values.new_tensor(correction.offset)
    scale = correction.scale if isinstance(correction.scale, float) else values.new_tensor(correction.scale)
    if getattr(linear, "bias", None) is None:
        linear.bias = type(weight)(offset)
    else:
        linear.bias.detach().mul_(scale).add_(offset)
    values.mul_(scale if isinstance(scale, float) else scale[:, None])
    setattr(linear, FOLDED, correction.goal)
