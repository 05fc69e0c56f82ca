"""A model and its correction as one module, for `torch.compile`, `torch.export` and ONNX."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from evenhand.correction import Correction
from evenhand.declared import InputError

__all__ = ["CorrectedModule"]

OUTPUTS = ("scores", "posterior", "classes")


class CorrectedModule(nn.Module):
    """A model whose logits are corrected: the argmax of its output is what `Correction.predict` decides.

    It holds every correction, also decisions that are no offset per class (macro F1, a matrix of costs), which no layer
    can. The correction lives in buffers: it follows ``to(device)``, is part of the ``state_dict``, and a state that was
    saved with the classes in another order is refused.

    Args:
        model: returns logits (..., K), or an output with the attribute ``logits``, as Hugging Face models do; the other
            parts of such an output stay as they are.
        correction: for the same classes. output: ``scores`` (corrected logits, or the utilities of a decision that is
            no offset), ``posterior`` (calibrated probabilities, the goal left out) or ``classes`` (int64).
        class_names: (K,) names in the model's order, compared with those of the correction.

    Shape: the model's own. float16 and bfloat16 logits become float32.

    Raises:
        InputError: another output name, other class names, or logits of another number of classes.

    Example:
        >>> fix = Correction(1.0, np.array([0.0, 1.0]), "accuracy", "tilt", {}, 100, 5, recommended=True, why="")
        >>> CorrectedModule(nn.Identity(), fix)(torch.tensor([[0.5, 0.0], [2.0, 0.0]])).argmax(-1).tolist()
        [1, 0]
    """

    scale: Tensor
    offset: Tensor
    goal_offset: Tensor
    gain: Tensor
    charge: Tensor
    extra: Tensor
    true: Tensor
    decided: Tensor
    cost: Tensor
    names_hash: Tensor

    def __init__(
        self,
        model: nn.Module,
        correction: Correction,
        *,
        output: str = "scores",
        class_names: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise InputError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r:.40}; scores is common")
        correction.check(correction.classes, class_names)
        self.model = model
        self.output = output
        self.goal = correction.goal
        for name, array in _buffers(correction).items():
            self.register_buffer(name, torch.from_numpy(array))
        self.additive = correction.additive

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output with corrected logits in place of its own."""
        found = self.model(*args, **kwargs)
        if isinstance(found, Tensor):
            return self.correct(found)
        if not hasattr(found, "logits"):
            raise InputError(f"expected logits or an output with logits, got {type(found).__name__}; wrap the model so")
        return type(found)(**{**found, "logits": self.correct(found.logits)})

    def correct(self, logits: Tensor) -> Tensor:
        """What becomes of logits (..., K)."""
        if logits.shape[-1] != self.offset.shape[0]:
            raise InputError(
                f"the correction is for {self.offset.shape[0]} classes but the logits have {logits.shape[-1]}; use the "
                "correction that was fitted for this model"
            )
        wide = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        moved = wide * self.scale.to(wide.dtype) + self.offset.to(wide.dtype)
        if self.output == "posterior":
            return (moved - self.goal_offset.to(wide.dtype)).softmax(-1)
        if not self.additive:
            moved = self._utilities(moved)
        return moved.argmax(-1) if self.output == "classes" else moved

    def _utilities(self, moved: Tensor) -> Tensor:
        """Expected utilities of every class, see `evenhand.goals.decisions`; impossible classes stay at -inf."""
        p = moved.softmax(-1)
        u = p * self.gain.to(p.dtype) - self.charge.to(p.dtype)
        if self.extra.numel():
            u = u - p @ self.extra.to(p.dtype)
        if self.cost.numel():
            u = u.index_add(-1, self.decided, -(p[..., self.true] * self.cost.to(p.dtype)))
        return torch.where(moved == -torch.inf, moved, u)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        """Refuse a state whose class names differ; `others` ends with the list of errors."""
        came, own = state_dict.get(f"{prefix}names_hash"), self.names_hash
        if came is not None and came.any() and own.any() and not torch.equal(came.to(own.device), own):
            others[-1].append("the state holds a correction for other class names, or for another order of them")
            return
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        """Goal, classes and output."""
        return f"goal={self.goal!r}, classes={len(self.offset)}, output={self.output!r}"


def _buffers(correction: Correction) -> dict[str, np.ndarray[Any, Any]]:
    """Every number of a correction, those that are absent as zeros or of length 0."""
    k, decision = correction.classes, correction.decision
    none = np.zeros(k)
    numbers: dict[str, Any] = {
        "scale": np.broadcast_to(correction.scale, (k,)),
        "offset": correction.offset,
        "goal_offset": none if correction.goal_offset is None else correction.goal_offset,
        "gain": none if decision is None else decision.gain,
        "charge": none if decision is None or decision.charge is None else decision.charge,
        "extra": np.zeros((0, 0)),
        "cost": np.zeros(0),
    }
    places = {"true": np.zeros(0, np.int64), "decided": np.zeros(0, np.int64)}
    if decision is not None and sparse.issparse(decision.extra):
        pairs = decision.extra.tocoo()
        numbers["cost"] = pairs.data
        places = {"true": pairs.row.astype(np.int64), "decided": pairs.col.astype(np.int64)}
    elif decision is not None and decision.extra is not None:
        numbers["extra"] = np.asarray(decision.extra)
    names = bytes.fromhex(correction.names_hash or "") or bytes(hashlib.sha256().digest_size)
    floats = {name: np.array(array, np.float32) for name, array in numbers.items()}
    return floats | places | {"names_hash": np.frombuffer(names, np.uint8).copy()}
