"""Counting predictions while a loss is computed: what an audit by labels needs, without another pass over the data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evenhand.declared import Declared, Floats, InputError
from evenhand.losses.reduction import RowLosses
from evenhand.tally import Tally, empty_tally, tally_edges

_PENDING_ROWS = 1 << 20  # rows kept as they came until equal pairs are counted: 8 MB


class Counting:
    """True and predicted classes of all rows seen, and the loss by true class, gathered on the rows' own device.

    Adding a batch does not make the host wait for the device, except once per million rows. Memory is O(K) plus one
    entry per distinct pair of true and predicted class. Counts of different ranks or epochs add as tallies:
    ``first.tally() + second.tally()``.

    During training every batch is answered by the model of that step: the counts describe an epoch, not the final
    model, and training rows, not new ones. Start a new object (or :meth:`reset`) with each epoch.

    Args:
        classes: K.

    Raises:
        InputError: fewer than one class.

    Example:
        >>> counting = Counting(3)
        >>> counting.add(torch.tensor([0, 0, 2, -100]), torch.tensor([0, 1, 2, 1]))
        >>> tally = counting.tally()
        >>> tally.true.tolist(), tally.predicted.tolist(), tally.rows
        ([2, 0, 1], [1, 1, 1], 3)
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise InputError(f"expected classes to be at least 1, got {classes}; give the number of classes")
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        """Forget all rows."""
        self._pending: list[Tensor] = []
        self._pending_rows = 0
        self._pair = torch.empty(0, dtype=torch.int64)
        self._rows = torch.empty(0, dtype=torch.int64)
        self._loss = torch.zeros(2, self.classes, dtype=torch.float64)

    def add(
        self, target: Tensor, predicted: Tensor, losses: RowLosses | None = None, *, ignore_index: int = -100
    ) -> None:
        """Count rows; the linear losses call this, and for dense logits ``counting.add(target, logits.argmax(1))``.

        Args:
            target: true classes, any shape. predicted: predicted classes, of the same shape.
            losses: the rows' losses, from ``rows()`` of a loss module; without them :meth:`mean_loss` has nothing.
            ignore_index: target value whose rows are left out; so are the rows that `losses` does not count.

        Raises:
            InputError: shapes that differ.
        """
        if target.shape != predicted.shape:
            raise InputError(
                f"expected target and predicted of one shape, got {tuple(target.shape)} and {tuple(predicted.shape)}; "
                "take the argmax over the classes"
            )
        with torch.no_grad():
            true, answer = target.reshape(-1).long(), predicted.reshape(-1).long()
            counted = true != ignore_index
            if losses is not None:
                counted = counted & losses.counted.reshape(-1)
                self._add_losses(true.where(counted, 0), losses)
            # an ignored row keeps its place, with a pair that cannot occur: taking it out would make the host wait
            self._pending.append((true * self.classes + answer).where(counted, -1))
        self._pending_rows += len(true)
        if self._pending_rows >= _PENDING_ROWS:
            self._merge()

    def tally(self, declared: Declared | None = None) -> Tally:
        """The counts as a tally of labels, which :func:`evenhand.auditing.audit_tally` takes; tallies add.

        Args:
            declared: what is known about the training: counts, class weights, sampler, names.
        """
        self._merge()
        if not len(self._pair):
            return empty_tally("predicted", self.classes, declared)
        pair, rows = self._pair.cpu().numpy(), self._rows.cpu().numpy()
        return tally_edges(pair // self.classes, pair % self.classes, rows, classes=self.classes, declared=declared)

    def mean_loss(self) -> Floats:
        """(K,) float64, the mean loss of each true class in nats, class weights divided out; NaN without rows."""
        total, weight = self._loss.cpu().numpy()
        mean: Floats = np.full(self.classes, np.nan)
        np.divide(total, weight, out=mean, where=weight > 0)
        return mean

    def _add_losses(self, index: Tensor, losses: RowLosses) -> None:
        self._loss = self._loss.to(index.device)
        for total, values in zip(self._loss, (losses.numerator, losses.weight), strict=True):
            total.index_add_(0, index, values.detach().reshape(-1).to(total))

    def _merge(self) -> None:
        if not self._pending:
            return
        fresh = torch.cat(self._pending)
        fresh = fresh[fresh >= 0]
        pairs = torch.cat([self._pair.to(fresh.device), fresh])
        rows = torch.cat([self._rows.to(fresh.device), torch.ones_like(fresh)])
        self._pair, place = torch.unique(pairs, return_inverse=True)
        self._rows = torch.zeros_like(self._pair).index_add_(0, place, rows)
        self._pending, self._pending_rows = [], 0
