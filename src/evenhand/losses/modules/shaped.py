"""Losses that are a shape of the negative log-likelihood: focal, poly, generalised, influence-balanced."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from evenhand.counts import to_numpy
from evenhand.declared import InputError
from evenhand.losses.law import Law
from evenhand.losses.modules.arguments import as_counts, class_vector, in_range, named_vector
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.shapes import Focal, Generalised, InfluenceBalanced, Poly
from evenhand.weights import class_weights


class FocalLoss(SoftmaxLoss):
    """``-alpha_y w_y (1 - p_y)^gamma_y log p_y`` with ``p = softmax(z)``: rows that are right already count less.

    The focus is taken from p, never from the weighted loss, as ``exp(-w L)`` in much copied code does.

    Args:
        counts: (K,) rows per class; only rules and :meth:`correction` need them.
        gamma: >= 0, one number or (K,) by target class; 0 is cross-entropy, 2 the authors' choice.
        alpha: one factor or (K,) by target class, or a rule's name with counts. It multiplies the loss and **stays out
            of the denominator** of the mean; ``weight`` is in both.
        weight: (K,) class weights, a rule's name, a dictionary by class name, or None.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: gamma or alpha negative, not finite, or not one per class.

    Limits:
        Focus is not balance: at the minimum one gamma keeps the order of ``p(y | x)``, so it does not move the decision
        between frequent and rare classes; weights, alpha and offsets do. The softmax of a focal model is not p, mostly
        too flat; :meth:`correction` solves for p where that matters.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002.

    Example:
        >>> import torch
        >>> loss = FocalLoss(gamma=2.0)
        >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 6)
        0.001804
    """

    def __init__(
        self, counts: Any = None, *, gamma: Any = 2.0, alpha: Any = None, weight: Any = None, **options: Any
    ) -> None:
        super().__init__(weight, counts=counts, **options)
        self.gamma: float | None = None
        self.alpha: float | None = None
        classes = None if self.counts is None and self.weight is None else self.classes
        self._hold("gamma", checked_gamma(gamma, classes))
        if alpha is not None:
            self._hold("alpha", checked_gamma(named_vector("alpha", alpha, self.counts), classes, "alpha"))

    def _hold(self, name: str, values: Any) -> None:
        """A number as an attribute, K of them as a buffer of the plural's name."""
        if np.ndim(values):
            self.keep(f"class_{name}", values)
        else:
            setattr(self, name, float(values))

    def law(self) -> Law:
        """The focal shape."""
        gamma: Any = self._buffers.get("class_gamma", self.gamma)
        return self.with_changes(shape=Focal(gamma, self._buffers.get("class_alpha", self.alpha)))


class PolyLoss(SoftmaxLoss):
    """``w_y (L + epsilon (1 - p))``, or with gamma ``w_y ((1 - p)^gamma L + epsilon (1 - p)^(gamma + 1))``; L = -log p.

    Args:
        counts: (K,) rows per class; only rules and :meth:`correction` need them.
        epsilon: >= -1 (>= 0 with gamma); 1 in most code, 2 in the paper for ImageNet; 0 is cross-entropy or focal loss.
        gamma: >= 0.
        weight: (K,) class weights, a rule's name, a dictionary by class name, or None.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: epsilon or gamma out of range: below, the loss would reward doubt.

    Source: Leng et al., PolyLoss, 2022, https://arxiv.org/abs/2204.12511.

    Example:
        >>> import torch
        >>> round(PolyLoss(epsilon=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.2461
    """

    def __init__(
        self, counts: Any = None, *, epsilon: float = 1.0, gamma: float = 0.0, weight: Any = None, **options: Any
    ) -> None:
        super().__init__(weight, counts=counts, **options)
        self.gamma = in_range("gamma", gamma, 0, np.inf, "0 is no focus")
        self.epsilon = in_range("epsilon", epsilon, -1 if gamma == 0 else 0, np.inf, "1 is usual")

    def law(self) -> Law:
        """The poly shape."""
        return self.with_changes(shape=Poly(self.epsilon, self.gamma))


class GeneralisedCrossEntropyLoss(SoftmaxLoss):
    """``w_y (1 - p_y^q) / q``: between cross-entropy (q -> 0) and the probability of error (q = 1).

    Rows that the model finds impossible, often mislabelled ones, lose their pull: the gradient carries a factor p^q.

    Args:
        counts: (K,) rows per class; only rules and :meth:`correction` need them.
        q: in (0, 1]; 0.7 is the authors' choice.
        weight: (K,) class weights, a rule's name, a dictionary by class name, or None.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: q out of range.

    Limits:
        Training can start slowly with many classes, where p^q is tiny.

    Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018, https://arxiv.org/abs/1805.07836.

    Example:
        >>> import torch
        >>> loss = GeneralisedCrossEntropyLoss(q=1.0)
        >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.1192
    """

    def __init__(self, counts: Any = None, *, q: float = 0.7, weight: Any = None, **options: Any) -> None:
        super().__init__(weight, counts=counts, **options)
        self.q = checked_q(q)

    def law(self) -> Law:
        """The generalised shape."""
        return self.with_changes(shape=Generalised(self.q))


class InfluenceBalancedLoss(SoftmaxLoss):
    """``w_y alpha / (2 (1 - p_y) |h|_1 + epsilon) L``, the factor without gradient: rows that pull hard are held back.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`.
        alpha: 1000. epsilon: 1e-3, > 0.
        weight: class weights; the default ``inverse`` frequency with mean 1 over the classes, None for none.
        active: False gives weighted cross-entropy without the factor; set the attribute when training is half done, as
            the authors do: before that the influence of a row means nothing.
        **options: those of :class:`SoftmaxLoss`. The authors' mean is over rows: ``denominator="count"``.

    The call takes ``extra``, the (N,) L1 norm ``|h|_1`` of the features before the last layer; 1 without it.

    Raises:
        InputError: alpha or epsilon not above 0.

    Limits:
        The factor depends on the model's answer, so that the loss has no fixed minimiser.

    Source: Park et al., Influence-Balanced Loss for Imbalanced Visual Classification, 2021,
        https://arxiv.org/abs/2110.02444.

    Example:
        >>> import torch
        >>> loss = InfluenceBalancedLoss([900, 100], alpha=1.0, reduction="none")
        >>> features = torch.ones(1, 4)
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> round(loss(logits, torch.tensor([0]), extra=features.abs().sum(1)).item(), 4)
        0.0266
    """

    def __init__(
        self,
        counts: Any,
        *,
        alpha: float = 1000.0,
        epsilon: float = 1e-3,
        weight: Any = "inverse",
        active: bool = True,
        **options: Any,
    ) -> None:
        known = as_counts(counts)
        if isinstance(weight, str) and weight == "inverse":
            weight = class_weights(known, "inverse", absent="largest", normalise="mean")
        super().__init__(weight, counts=known, **options)
        self.alpha = in_range("alpha", alpha, 1e-30, np.inf, "1000 is the authors' choice")
        self.epsilon = in_range("epsilon", epsilon, 1e-30, np.inf, "0.001 is the authors' choice")
        self.active = active

    def law(self) -> Law:
        """The influence-balanced shape, once active."""
        return self.with_changes(shape=InfluenceBalanced(self.alpha, self.epsilon) if self.active else None)


def checked_gamma(value: Any, classes: int | None, name: str = "gamma") -> Any:
    """A number >= 0, or (K,) of them as float64.

    Raises:
        InputError: negative, not finite, or not one per class.
    """
    if isinstance(value, str):
        raise InputError(f"expected {name} to be a number or one per class, got {value!r}; 2 is usual for gamma")
    array = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else to_numpy(value)
    if array.ndim > 1 or array.dtype.kind not in "iufb":
        raise InputError(f"expected {name} to be a number or one per class, got {value!r}; 2 is usual for gamma")
    checked = class_vector(name, array, classes if classes is not None else max(1, array.size))
    return checked if array.ndim else float(checked[0])


def checked_q(q: float) -> float:
    """The exponent of generalised cross-entropy, in (0, 1]."""
    return in_range("q", q, 1e-6, 1, "0.7 is usual")
