"""Label smoothing by class size, and over-smoothing for classifier re-training."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import numpy as np

from evenhand.declared import Floats, InputError
from evenhand.losses.law import Law, SmoothingMass
from evenhand.losses.modules.arguments import as_counts, in_range
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.reduction import check_choice

Curve = Literal["concave", "linear", "convex", "exp"]


class LabelAwareSmoothingLoss(SoftmaxLoss):
    """``w_y [-(1 - e_y) log p_y - e_y / K sum_k log p_k]``: frequent classes are smoothed more than rare ones.

    With ``x = (n_y - n_min) / (n_max - n_min)``: concave ``e = tail + (head - tail) sin(pi x / 2)``, linear
    ``tail + (head - tail) x``, convex ``head + (head - tail) sin(3 pi / 2 + pi x / 2)``, exp
    ``tail + (head - tail) x^power``.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`.
        head: e of the most frequent class, in [0, 1). The authors: 0.3 for ImageNet and iNaturalist, 0.4 for CIFAR-100
            and Places.
        tail: e of the rarest class: 0, and 0.1.
        curve: how e rises with the rows.
        power: of ``exp``.
        smoothing_mass: ``uniform``, or torch's ``weighted``; they differ with weights only.
        **options: those of :class:`SoftmaxLoss`, without ``label_smoothing``.

    Raises:
        InputError: no counts, head or tail out of range, an unknown curve.

    Limits:
        If all classes have the same number of rows, all have ``tail``.

    Source: Zhong et al., Improving Calibration for Long-Tailed Recognition, 2021, https://arxiv.org/abs/2104.00466.

    Example:
        >>> loss = LabelAwareSmoothingLoss([100, 50, 0], head=0.4, tail=0.1, curve="linear")
        >>> [round(e, 3) for e in loss.smoothing.tolist()]
        [0.4, 0.25, 0.1]
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("label_smoothing",)

    def __init__(
        self,
        counts: Any,
        head: float = 0.3,
        tail: float = 0.0,
        *,
        curve: Curve = "concave",
        power: float = 2.0,
        smoothing_mass: SmoothingMass = "uniform",
        **options: Any,
    ) -> None:
        if "label_smoothing" in options:
            raise InputError("label-aware smoothing takes head= and tail= instead of label_smoothing; remove it")
        known = as_counts(counts)
        super().__init__(counts=known, smoothing_mass=smoothing_mass, **options)
        check_choice("curve", curve, get_args(Curve))
        for name, value in (("head", head), ("tail", tail)):
            in_range(name, value, 0, 1 - 1e-6, "smoothing is a share of the target's mass")
        in_range("power", power, 1e-6, 100, "1 is linear")
        self.head, self.tail, self.curve = head, tail, curve
        self.keep("smoothing", _smoothing(known.counts.astype(np.float64), head, tail, curve, power))

    def law(self) -> Law:
        """Smoothing by class."""
        return self.with_changes(label_smoothing=self.smoothing)


class LOSLoss(SoftmaxLoss):
    """Label over-smoothing, ``w_y [-(1 - e) log p_y - e / K sum_k log p_k]`` with e near 1.

    For the second stage: frozen features, the classifier trained anew. Targets are hardly above uniform, so that the
    classifier cannot grow large norms for frequent classes. No counts are needed to train.

    Args:
        counts: (K,) rows per class; only :meth:`correction` needs them.
        label_smoothing: e; 0.9 here. Try 0.9 to 0.99.
        weight: (K,) class weights, a rule's name, a dictionary by class name, or None.
        smoothing_mass: ``uniform``, or torch's ``weighted``; they differ with weights only.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: e out of range.

    Limits:
        For probabilities undo the smoothing by :meth:`correction`; the softmax itself is almost flat.

    Source: Sun et al., Rethinking Classifier Re-Training in Long-Tailed Recognition: Label Over-Smooth Can Balance,
        2025, https://arxiv.org/abs/2403.00250.

    Example:
        >>> import torch
        >>> loss = LOSLoss(label_smoothing=0.9)
        >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
        1.0269
    """

    def __init__(
        self,
        counts: Any = None,
        label_smoothing: float = 0.9,
        *,
        weight: Any = None,
        smoothing_mass: SmoothingMass = "uniform",
        **options: Any,
    ) -> None:
        super().__init__(
            weight, counts=counts, label_smoothing=label_smoothing, smoothing_mass=smoothing_mass, **options
        )


def _smoothing(rows: Floats, head: float, tail: float, curve: str, power: float) -> Floats:
    """(K,) e by class."""
    x = (rows - rows.min()) / max(1.0, np.ptp(rows))
    if curve == "convex":
        return np.asarray(head + (head - tail) * np.sin(np.pi * (1.5 + x / 2)))
    rise = {"concave": np.sin(np.pi * x / 2), "linear": x, "exp": x**power}[curve]
    return np.asarray(tail + (head - tail) * rise)
