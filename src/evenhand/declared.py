"""What the user says about the training: the evidence no other tool asks for.

Everything here is optional. Each field that is given lets the audit claim more; nothing is guessed in its place
except the training counts, for which the evaluation counts stand in (and the report says so).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class InputError(ValueError):
    """Unusable input, told in one sentence: what was expected, what came, what to do. The CLI exits with 2."""


@dataclass(frozen=True)
class Declared:
    """Facts about the training that came with the predictions.

    Attributes:
        train_counts: (K,) rows per class in the training set, float64, or None.
        class_weight: the loss weights exactly as they were given, float64, or None. Deliberately **not** validated:
            a wrong length, zeros, NaN or infinities are evidence (cause ``incomplete-weights``), not an input error.
        sampler_rate: (K,) probability of drawing class k, float64, any positive scale, or None.
        class_names: (K,) names, untrusted text, or None.
        loss: name of the training loss, for instance ``"cross-entropy"`` or ``"focal"``, or None.
        label_smoothing: the smoothing mass e in [0, 1).
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or None when unknown.
        batch_size: rows per optimiser step, or None when unknown.
        gamma: focusing parameter of a focal loss, or None.
        ignore_index: target value whose rows were dropped, or None.
        extra: whatever else the ``config`` JSON held.
    """

    train_counts: Floats | None = None
    class_weight: Floats | None = None
    sampler_rate: Floats | None = None
    class_names: tuple[str, ...] | None = None
    loss: str | None = None
    label_smoothing: float = 0.0
    reduction: str | None = None
    batch_size: int | None = None
    gamma: float | None = None
    ignore_index: int | None = None
    extra: dict[str, object] = field(default_factory=dict)
