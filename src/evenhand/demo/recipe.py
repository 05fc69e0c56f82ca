"""How the demo's network is trained: a plain value, so that a trained network can be found again by its recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Head = Literal["linear", "lstm"]


@dataclass(frozen=True)
class Recipe:
    """One way of training.

    Attributes:
        epochs: passes over the training rows. rows: training rows.
        head: ``"linear"``, or ``"lstm"`` to use the LSTM's state as logits.
        sampler: draw rows with replacement so that every class is drawn equally often.
        label_smoothing: as in ``nn.CrossEntropyLoss``.
        softmax: the network ends in a softmax of its own.
        micro_batch: gradients of this many rows each are accumulated to one batch (0: the batch is one piece). The
            loss takes its weighted mean within each piece.
        learning_rate: peak of the one-cycle schedule of Adam.
        batch_size: rows per optimiser step.
    """

    epochs: int = 5
    rows: int = 60_000
    head: Head = "linear"
    sampler: bool = False
    label_smoothing: float = 0.0
    softmax: bool = False
    micro_batch: int = 0
    learning_rate: float = 6e-3
    batch_size: int = 256

    def for_head(self, head: Head) -> Recipe:
        """This recipe with another head. One unit per class makes the LSTM large and slow: it gets two epochs, and a
        smaller learning rate, at which its units do not saturate at once.
        """
        if head == "linear":
            return replace(self, head=head)
        return replace(self, head=head, epochs=min(self.epochs, 2), learning_rate=min(self.learning_rate, 2e-3))
