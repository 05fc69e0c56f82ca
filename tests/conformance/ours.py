"""evenhand's own losses, behind the adapter."""

from __future__ import annotations

from typing import Any

from evenhand import losses

from .subject import Loss, Subject

EVERYTHING = frozenset(("softmax", "weight", "gamma", "ignore_index", "label_smoothing", "soft", "dims", "none", "sum"))


def softmax(gamma: float | None = None, **options: Any) -> Loss:
    """Cross-entropy, or focal loss with a gamma."""
    if gamma is None:
        return losses.build("cross-entropy", **options)
    return losses.build("focal", gamma=gamma, **options)


def sigmoid(gamma: float, alpha: float | None = None) -> Loss:
    """Multi-label focal loss."""
    return losses.build("sigmoid-focal", gamma=gamma, alpha=alpha)


SOFTMAX = Subject("evenhand", softmax, EVERYTHING)
SIGMOID = Subject("evenhand", sigmoid, frozenset(("sigmoid", "alpha")))
