"""Other packages' losses behind the conformance suite's adapter; each is imported only when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.subject import Loss, Subject


@dataclass(frozen=True)
class Peer:
    """A package.

    Attributes:
        package: its name on the package index. module: what is imported. load: gives its losses.
    """

    package: str
    module: str
    load: Callable[[], tuple[Subject, ...]]


def _subject(name: str, make: Callable[..., Loss], offers: str, *, per_cell: bool = False) -> Subject:
    return Subject(name, make, frozenset(offers.split()), per_cell)


def evenhand() -> tuple[Subject, ...]:
    from tests.conformance.ours import SIGMOID, SOFTMAX

    return SOFTMAX, SIGMOID


def torch() -> tuple[Subject, ...]:
    import torch.nn.functional as F

    def make(ignore_index: int | None = None, **options: Any) -> Loss:
        skip = {} if ignore_index is None else {"ignore_index": ignore_index}
        return lambda logits, target: F.cross_entropy(logits, target, **options, **skip)

    return (_subject("torch", make, "softmax weight ignore_index label_smoothing soft dims none sum"),)


def torchvision() -> tuple[Subject, ...]:
    from torchvision.ops import sigmoid_focal_loss

    def make(gamma: float, alpha: float = -1) -> Loss:
        return lambda logits, target: sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma, reduction="mean")

    return (_subject("torchvision", make, "sigmoid alpha"),)


def kornia() -> tuple[Subject, ...]:
    from kornia.losses.focal import binary_focal_loss_with_logits, focal_loss

    def softmax(gamma: float = 0.0, reduction: str = "mean", **options: Any) -> Loss:
        return lambda logits, target: focal_loss(logits, target, None, gamma, reduction, **options)

    def sigmoid(gamma: float, alpha: float | None = None) -> Loss:
        return lambda logits, target: binary_focal_loss_with_logits(logits, target, alpha, gamma, "mean")

    return (
        _subject("kornia", softmax, "softmax gamma weight ignore_index dims none sum", per_cell=True),
        _subject("kornia", sigmoid, "sigmoid alpha"),
    )


def monai() -> tuple[Subject, ...]:
    from monai.losses import FocalLoss

    def softmax(gamma: float = 0.0, **options: Any) -> Loss:
        loss = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma, **options)
        if "ignore_index" in options:  # then, and only then, its mean divides by rows
            return lambda logits, target: loss(logits, target[:, None]) / logits.shape[1]
        return lambda logits, target: loss(logits, target[:, None])

    def sigmoid(gamma: float, alpha: float | None = None) -> Loss:
        return FocalLoss(gamma=gamma, alpha=alpha)

    return (
        _subject("MONAI", softmax, "softmax gamma weight ignore_index dims none sum", per_cell=True),
        _subject("MONAI", sigmoid, "sigmoid alpha"),
    )


def balanced_loss() -> tuple[Subject, ...]:
    from balanced_loss import Loss as BalancedLoss

    beta = 0.999

    def softmax(weight: Any = None) -> Loss:
        if weight is None:
            return BalancedLoss("cross_entropy")
        # its weights are (1 - beta) / (1 - beta^n), normalised: take the n that give these weights
        share = [(1 - beta) * float(min(w for w in weight if w > 0) / w) if w > 0 else 0.0 for w in weight]
        rows = [math.log1p(-x) / math.log(beta) for x in share]
        return BalancedLoss("cross_entropy", beta=beta, samples_per_class=rows, class_balanced=True, safe=True)

    return (_subject("balanced-loss", softmax, "softmax weight"),)


def focal_loss_torch() -> tuple[Subject, ...]:
    from focal_loss.focal_loss import FocalLoss

    def softmax(gamma: float = 0.0, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Loss:
        loss = FocalLoss(gamma, weights=weight, ignore_index=ignore_index, reduction=reduction)
        return lambda logits, target: loss(logits.softmax(-1), target)

    return (_subject("focal-loss-torch", softmax, "softmax gamma weight ignore_index none sum"),)


def timm() -> tuple[Subject, ...]:
    from timm.loss import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel, LabelSmoothingCrossEntropy

    def softmax(gamma: float | None = None, label_smoothing: float = 0.0) -> Loss:
        if gamma is None:
            return LabelSmoothingCrossEntropy(label_smoothing)
        return AsymmetricLossSingleLabel(gamma_pos=gamma, gamma_neg=0.0, eps=0.0)

    def sigmoid(gamma: float) -> Loss:
        return AsymmetricLossMultiLabel(gamma_neg=gamma, gamma_pos=gamma, clip=0.0, reduction="mean")

    return _subject("timm", softmax, "softmax gamma label_smoothing"), _subject("timm", sigmoid, "sigmoid")


PEERS = {
    "evenhand": Peer("evenhand", "evenhand.losses", evenhand),
    "torch": Peer("torch", "torch", torch),
    "torchvision": Peer("torchvision", "torchvision", torchvision),
    "kornia": Peer("kornia", "kornia", kornia),
    "monai": Peer("monai", "monai", monai),
    "balanced-loss": Peer("balanced-loss", "balanced_loss", balanced_loss),
    "focal-loss-torch": Peer("focal-loss-torch", "focal_loss", focal_loss_torch),
    "timm": Peer("timm", "timm", timm),
}
