"""Cross-entropy with class weights, from a rule or given: the tilt is ``log w``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from evenhand.declared import InputError
from evenhand.losses.law import Law
from evenhand.losses.modules.arguments import ABSENT, as_counts
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.modules.shaped import checked_gamma
from evenhand.losses.reduction import check_choice
from evenhand.losses.shapes import Focal
from evenhand.weights import class_weights

Phi = Literal["cross-entropy", "focal"]


class CrossEntropyLoss(SoftmaxLoss):
    """``-log softmax(z)_y``: torch's loss, bit for bit where torch has it, with what :class:`SoftmaxLoss` adds.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; only :meth:`correction` and rules need them.
        weight: (K,) class weights, a rule's name, a dictionary by class name, or None.
        **options: those of :class:`SoftmaxLoss`.

    Limits:
        Without weights the model learns ``p(y | x)`` as it is in the training data. That is right for accuracy and for
        counts; rare classes are answered rarely because they are rare.

    Example:
        >>> import torch
        >>> loss = CrossEntropyLoss(counts=[90, 10])
        >>> round(loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.1269
        >>> loss.correction("balanced-accuracy").offset.round(3).tolist()
        [0.105, 2.303]
    """

    def __init__(self, counts: Any = None, *, weight: Any = None, **options: Any) -> None:
        super().__init__(weight, counts=counts, **options)


class WeightedLoss(SoftmaxLoss):
    """Weighted cross-entropy, ``-w_y log softmax(z)_y`` with w from a rule of :func:`evenhand.class_weights`.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`.
        rule: ``balanced`` (scikit-learn's, tau = 1), ``sqrt`` (half of it), ``capped``, ... ; see docs/weights.md.
        absent: weight of classes without rows: ``largest``, ``one``, ``zero``, ``smooth`` or ``error``.
        normalise: None, ``mean`` or ``rows``; matters for ``reduction="sum"`` and ``"none"`` only.
        exponent, beta, ratio, offset, smoothing_rows: the rule's own options, where it has them.
        weight: (K,) weights to use instead of a rule, or a dictionary by class name; `counts` are then optional.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: neither counts nor weights, unknown rule or policy, an option that the rule does not have.

    Limits:
        A weight moves the decision, it adds no information. The mean of small batches shrinks large weights
        (:func:`evenhand.effective_weights`); :func:`evenhand.losses.exact_mean` does not.

    Source: King and Zeng, Logistic Regression in Rare Events Data, 2001,
        https://doi.org/10.1093/oxfordjournals.pan.a004868.

    Example:
        >>> import torch
        >>> loss = WeightedLoss([900, 90, 10], "sqrt")
        >>> [round(w, 3) for w in loss.weight.tolist()]
        [0.609, 1.925, 5.774]
        >>> round(loss(torch.zeros(2, 3), torch.tensor([0, 2])).item(), 4)
        1.0986
    """

    def __init__(
        self,
        counts: Any = None,
        rule: str = "balanced",
        *,
        absent: str = ABSENT,
        normalise: str | None = None,
        exponent: float | None = None,
        beta: float | None = None,
        ratio: float | None = None,
        offset: float | None = None,
        smoothing_rows: float | None = None,
        weight: Any = None,
        **options: Any,
    ) -> None:
        if counts is None and weight is None:
            raise InputError("expected counts= for the rule to work on, or weight=, got neither; give one of them")
        known = None if counts is None else as_counts(counts)
        given = {"exponent": exponent, "beta": beta, "ratio": ratio, "offset": offset, "rows": smoothing_rows}
        chosen = {name: value for name, value in given.items() if value is not None}
        self_made = weight is None
        if self_made:
            weight = class_weights(known, rule, absent=absent, normalise=normalise, **chosen)
        super().__init__(weight, counts=known, **options)
        self.rule = rule if self_made else "given"


class ClassBalancedLoss(SoftmaxLoss):
    """Weights by the effective number of rows, ``w_k = (1 - beta) / (1 - beta^n_k)`` with mean 1.

    With ``phi="focal"`` the loss is ``-w_y (1 - p_y)^gamma log p_y``.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`.
        beta: in [0, 1); 0.9999 as most code has it. Classes of more than about ``1 / (1 - beta)`` rows are equal.
        phi: ``cross-entropy`` or ``focal``.
        gamma: of the focal shape; the authors use 0.5 to 2.
        absent: as in :class:`WeightedLoss`.
        **options: those of :class:`SoftmaxLoss`; ``weight`` comes from beta.

    Raises:
        InputError: beta, gamma or a word out of range.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019,
        https://arxiv.org/abs/1901.05555.

    Example:
        >>> loss = ClassBalancedLoss([1000, 10], beta=0.99)
        >>> [round(w, 3) for w in loss.weight.tolist()]
        [0.175, 1.825]
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self,
        counts: Any,
        beta: float = 0.9999,
        *,
        phi: Phi = "cross-entropy",
        gamma: float = 0.5,
        absent: str = ABSENT,
        **options: Any,
    ) -> None:
        check_choice("phi", phi, get_args(Phi))
        known = as_counts(counts)
        weight = class_weights(known, "effective-number", absent=absent, beta=beta)
        super().__init__(weight, counts=known, **options)
        self.beta, self.phi, self.gamma = beta, phi, float(checked_gamma(gamma, None))

    def law(self) -> Law:
        """Class weights, and the focal shape if asked for."""
        return self.with_changes(shape=Focal(self.gamma) if self.phi == "focal" else None)
