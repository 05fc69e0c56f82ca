"""What to do with the logits of a model trained with a loss: the loss's own decision rule at test time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.counts import to_numpy
from evenhand.declared import Floats, InputError

GOALS = ("accuracy", "balanced-accuracy")


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """``argmax_k scale_k z_k + offset_k``: decides for a goal from the logits of a model trained with a certain loss.

    Attributes:
        goal: ``accuracy`` (on data with the training prior) or ``balanced-accuracy``.
        scale: (K,) float64, ones for most losses. offset: (K,) float64, nats, -inf where a class must not be answered.
        exact: whether the rule follows from the loss's minimiser (for a model that reached it on the training
            distribution); False where it is the authors' habit only.
        why: the reason, in a sentence.
    """

    goal: str
    scale: Floats
    offset: Floats
    exact: bool
    why: str

    def apply(self, logits: Any) -> Any:
        """(..., K) ``scale * logits + offset``, a NumPy array or tensor as `logits` is one.

        Raises:
            InputError: the last axis is not K.
        """
        self.check(logits)
        if hasattr(logits, "new_tensor"):
            return logits * logits.new_tensor(self.scale) + logits.new_tensor(self.offset)
        array = to_numpy(logits)
        return array * self.scale.astype(array.dtype) + self.offset.astype(array.dtype)

    def predict(self, logits: Any) -> Any:
        """(...) int64, the class of the largest adjusted logit."""
        return self.apply(logits).argmax(-1)

    def check(self, logits: Any) -> None:
        """Refuse logits of another number of classes.

        Raises:
            InputError: the last axis is not K.
        """
        if not getattr(logits, "shape", ()) or logits.shape[-1] != len(self.offset):
            raise InputError(
                f"expected logits with {len(self.offset)} classes on the last axis, got shape {np.shape(logits)}; "
                "pass the raw scores of the model trained with this loss"
            )
