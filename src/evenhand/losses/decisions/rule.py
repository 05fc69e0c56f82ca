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
        """(..., K) ``scale * logits + offset``, a NumPy array or tensor as `logits` is one, of the same floating type.

        Raises:
            InputError: the last axis is not K.
        """
        self.check(logits)
        z = as_scores(logits)
        if hasattr(z, "new_tensor"):
            return z * z.new_tensor(self.scale) + z.new_tensor(self.offset)
        return z * self.scale.astype(z.dtype) + self.offset.astype(z.dtype)

    def predict(self, logits: Any) -> Any:
        """(...) int64, the class of the largest adjusted logit; half precision is compared in float32, without ties."""
        self.check(logits)
        return self.apply(as_scores(logits, least_bytes=4)).argmax(-1)

    def check(self, logits: Any) -> None:
        """Refuse logits of another number of classes.

        Raises:
            InputError: the last axis is not K.
        """
        shape = tuple(logits.shape) if hasattr(logits, "shape") else np.shape(logits)
        if not shape or shape[-1] != len(self.offset):
            raise InputError(
                f"expected logits with {len(self.offset)} classes on the last axis, got shape {shape}; "
                "pass the raw scores of the model trained with this loss"
            )


def as_scores(logits: Any, *, least_bytes: int = 2) -> Any:
    """A floating-point tensor or array of `logits`: whole-number scores would cut off what is added to them.

    Args:
        logits: tensor, array or list. least_bytes: floating types narrower than this become float32.
    """
    if hasattr(logits, "new_tensor"):
        return logits if logits.is_floating_point() and logits.element_size() >= least_bytes else logits.float()
    array = to_numpy(logits)
    if array.dtype.kind != "f":
        return array.astype(np.float64)
    return array if array.dtype.itemsize >= least_bytes else array.astype(np.float32)
