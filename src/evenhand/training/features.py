"""The size of the features that a model's last layer takes, for losses that hold back rows by their influence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evenhand.declared import InputError
from evenhand.training.stages import head_of


def logits_and_feature_norm(model: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
    """What the model answers, and (n,) the L1 norm of what its head was called with; the norm has no gradient.

    Args:
        model: returns logits (n, K). inputs: a batch.

    Raises:
        InputError: no head is found, or it is not called once with features (n, D): by its own weight, say.

    Example:
        >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 3))
        >>> logits, norm = logits_and_feature_norm(model, torch.tensor([[3.0, -4.0], [0.0, 1.0]]))
        >>> logits.shape, norm.tolist()
        (torch.Size([2, 3]), [7.0, 1.0])
    """
    seen: list[Tensor] = []

    def see(_head: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend(value.detach() for value in (*given, *named.values()))

    watching = head_of(model).register_forward_pre_hook(see, with_kwargs=True)
    try:
        logits = model(inputs)
    finally:
        watching.remove()
    if len(seen) != 1 or seen[0].ndim != 2 or len(seen[0]) != len(logits):
        shapes = [tuple(features.shape) for features in seen]
        raise InputError(
            f"expected the model to call its head once per batch with features (n, D), for this loss needs their size, "
            f"got {shapes or 'no call'}; let forward() end with self.head(features), or choose another remedy"
        )
    wide = torch.promote_types(seen[0].dtype, torch.float32)  # a sum of many half-precision features may overflow
    return logits, seen[0].abs().sum(1, dtype=wide)
