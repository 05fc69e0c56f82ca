"""Deferred re-weighting: class weights that begin late in training, when the features are learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.declared import InputError
from evenhand.losses.modules.arguments import checked_weight
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.weights import class_weights


class DeferredReweighting:
    """Switch a loss to other class weights from epoch `start` on; the schedule that LDAM is published with.

    Args:
        loss: any softmax loss of this package.
        start: first epoch with the weights; the authors take 160 of 200.
        weight: (K,) weights, a rule's name, or a dictionary by class name. Default: ``effective-number``, which needs a
            loss built with counts.
        beta: of the default's effective number, 0.9999.

    Attributes:
        epoch: the last epoch told, None before the first.

    Call :meth:`step` at the start of every epoch. Both weight vectors live in the loss and move with it.

    Raises:
        InputError: weights that the loss cannot take, no counts for a rule.

    Source: Cao et al., 2019, https://arxiv.org/abs/1906.07413; Cui et al., 2019, https://arxiv.org/abs/1901.05555.

    Example:
        >>> from evenhand.losses.modules.margins import LDAMLoss
        >>> loss = LDAMLoss([1000, 10])
        >>> deferred = DeferredReweighting(loss, start=160)
        >>> for epoch in (0, 160):
        ...     deferred.step(epoch)
        ...     print(loss.weight is None)
        True
        False
        >>> deferred.state_dict()
        {'epoch': 160}
    """

    def __init__(self, loss: SoftmaxLoss, start: int, weight: Any = None, *, beta: float = 0.9999) -> None:
        if not isinstance(loss, SoftmaxLoss):
            raise InputError(f"expected a softmax loss of evenhand, got {type(loss).__name__}; see losses.build")
        if weight is None:
            if loss.counts is None:
                raise InputError("deferred weights need counts: build the loss with counts=, or give weight= here")
            weight = class_weights(loss.counts, "effective-number", beta=beta, absent="largest")
        self.loss, self.start = loss, start
        self.epoch: int | None = None
        loss.keep("early_weight", loss.weight)
        late = checked_weight(weight, loss.counts).float()
        loss.keep("deferred_weight", late.to(next((held.device for held in loss.buffers()), late.device)))

    @property
    def active(self) -> bool:
        """Whether the late weights are in force."""
        return self.epoch is not None and self.epoch >= self.start

    def step(self, epoch: int) -> None:
        """Tell the epoch that begins.

        Raises:
            InputError: not a whole number of 0 or more.
        """
        self.epoch = _checked_epoch(epoch)
        self._switch()

    def state_dict(self) -> dict[str, int | None]:
        """What a resumed run must know: the epoch. Start and weights belong to the plan that builds the object."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Take up a run where it was left, weights included.

        Raises:
            InputError: not a state of :meth:`state_dict`.
        """
        if not isinstance(state, dict) or set(state) != {"epoch"}:
            got = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise InputError(f"expected a state with the key 'epoch', got {got}; save state_dict() of this")
        self.epoch = None if state["epoch"] is None else _checked_epoch(state["epoch"])
        self._switch()

    def _switch(self) -> None:
        late, early = self.loss.get_buffer("deferred_weight"), self.loss._buffers["early_weight"]
        self.loss.weight = late if self.active else early


def _checked_epoch(epoch: Any) -> int:
    if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or epoch < 0:
        raise InputError(f"expected epoch to be a whole number of 0 or more, got {epoch!r}; count epochs from 0")
    return int(epoch)
