"""Losses that adjust the logits by class: an offset, a scale, or both; and GLA and GCA, which stand on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.declared import Floats, InputError
from evenhand.losses.law import Law
from evenhand.losses.modules.arguments import as_counts, class_vector, in_range, log_prior, rows_or_one
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.modules.shaped import checked_q
from evenhand.losses.shapes import Generalised
from evenhand.weights import class_weights


class LogitAdjustedLoss(SoftmaxLoss):
    """``-w_y log softmax(z + tau log pi)_y``: the prior is added in training, so that the model need not learn it.

    The bare logits then answer as if the prior had been divided out tau times: no other loss moves the decision as
    exactly as this one, at no cost in the noise of the gradient.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        tau: how many times; 1 for balanced accuracy, 0 is cross-entropy.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts, tau not a finite number.

    Source: Menon et al., Long-Tail Learning via Logit Adjustment, 2021, https://arxiv.org/abs/2007.07314.

    Example:
        >>> loss = LogitAdjustedLoss([90, 10])
        >>> [round(o, 3) for o in loss.offset.tolist()]
        [-0.105, -2.303]
        >>> loss.correction("balanced-accuracy").offset.round(6).tolist()
        [0.0, -0.0]
        >>> loss.correction("accuracy").offset.round(3).tolist()
        [-0.105, -2.303]
    """

    def __init__(self, counts: Any, tau: float = 1.0, **options: Any) -> None:
        known = as_counts(counts)
        super().__init__(counts=known, **options)
        self.tau = in_range("tau", tau, -100, 100, "1 is the balanced choice")
        self.keep("offset", self.tau * log_prior(known))

    def law(self) -> Law:
        """The offset ``tau log pi``."""
        return self.with_changes(offset=self.offset)


class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """``-w_y log(n_y exp z_y / sum_k n_k exp z_k)``: logit adjustment with tau = 1.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts.

    Source: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, 2020,
        https://arxiv.org/abs/2007.10740.

    Example:
        >>> import torch
        >>> loss = BalancedSoftmaxLoss([90, 10])
        >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
        2.3026
    """

    def __init__(self, counts: Any, **options: Any) -> None:
        super().__init__(counts, 1.0, **options)


class VSLoss(SoftmaxLoss):
    """Vector scaling, ``-w_y log softmax(s z + tau log pi)_y`` with ``s_k = (n_k / n_max)^gamma``.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        gamma: >= 0; 0.3 in the authors' code. 0 is logit adjustment.
        tau: 1 in the authors' code. 0 is CDT.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts, gamma or tau out of range.

    Limits:
        The authors drop scale and offset at test time. For a model at the minimum that is no rule for accuracy, nor for
        balanced accuracy; :meth:`correction` keeps the scale and sets the offset.

    Source: Kini et al., Label-Imbalanced and Group-Sensitive Classification under Overparameterization, 2021,
        https://arxiv.org/abs/2103.01550.

    Example:
        >>> loss = VSLoss([100, 1], gamma=0.5, tau=0.0)
        >>> [round(s, 6) for s in loss.scale.tolist()], loss.offset
        ([1.0, 0.1], None)
    """

    def __init__(self, counts: Any, gamma: float = 0.3, tau: float = 1.0, **options: Any) -> None:
        known = as_counts(counts)
        super().__init__(counts=known, **options)
        self.gamma = in_range("gamma", gamma, 0, 10, "0.3 is the authors' choice, less with many classes")
        self.tau = in_range("tau", tau, -100, 100, "1 is the authors' choice")
        self.keep("scale", power_of_share(known, self.gamma) if gamma else None)
        self.keep("offset", self.tau * log_prior(known) if tau else None)

    def law(self) -> Law:
        """Scale and offset."""
        return self.with_changes(scale=self.scale, offset=self.offset)


class CDTLoss(VSLoss):
    """Class-dependent temperatures, ``-w_y log softmax(s z)_y`` with ``s_k = (n_k / n_max)^gamma``.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        gamma: >= 0; the authors use 0.1 to 0.4, less with more classes.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts, gamma out of range.

    Limits:
        The authors drop the scale at test time, which suits models that fit their training data to the last row: the
        logits of rare classes have then grown by ``1 / s_k``. :meth:`correction` keeps it.

    Source: Ye et al., Identifying and Compensating for Feature Deviation in Imbalanced Deep Learning, 2020,
        https://arxiv.org/abs/2001.01385.

    Example:
        >>> [round(s, 4) for s in CDTLoss([1000, 10], gamma=0.3).scale.tolist()]
        [1.0, 0.2512]
    """

    def __init__(self, counts: Any, gamma: float = 0.3, **options: Any) -> None:
        super().__init__(counts, gamma, 0.0, **options)


class GLALoss(LogitAdjustedLoss):
    """Generalised logit adjustment, ``w_y (1 - p_y^q) / q`` with ``p = softmax(z + tau log pi)``.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        q: in (0, 1]; cross-validated by the authors, 0.7 here. q -> 0 is logit adjustment.
        tau: 1.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts, q or tau out of range.

    Source: Cortes, Mohri and Zhong, Improved Balanced Classification with Theoretically Grounded Loss Functions, 2025,
        https://arxiv.org/abs/2512.23947.

    Example:
        >>> import torch
        >>> loss = GLALoss([90, 10], q=1.0)
        >>> round(loss(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
        0.9
    """

    def __init__(self, counts: Any, q: float = 0.7, tau: float = 1.0, **options: Any) -> None:
        super().__init__(counts, tau, **options)
        self.q = checked_q(q)

    def law(self) -> Law:
        """Offset and generalised shape."""
        return self.with_changes(offset=self.offset, shape=Generalised(self.q))


class GCALoss(SoftmaxLoss):
    """Generalised class-aware weighting, ``(1 / pi_y) (1 - p_y^q) / q`` with ``p = softmax(z / rho_y)``.

    Every target class has a confidence margin rho of its own. The call's mean divides by the sum of ``1 / pi_y``;
    ``reduction="sum"`` or ``denominator="count"`` leaves that factor as the paper has it.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        q: in (0, 1]; cross-validated by the authors, 0.7 here.
        rho: (K,) margins > 0, cross-validated by the authors. Default: ``(n_k / n_max)^exponent``.
        exponent: 1/3, which minimises ``sum_k n_k / rho_k^2``, the sample's part of a margin bound, at a fixed sum of
            rho.
        weight: None for ``1 / pi``, or class weights, a rule's name, a dictionary by class name.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts, q or exponent out of range, rho not positive.

    Limits:
        Class indices only. No decision rule follows from the loss, unless all rho are equal.

    Source: Cortes, Mohri and Zhong, Improved Balanced Classification with Theoretically Grounded Loss Functions, 2025,
        https://arxiv.org/abs/2512.23947; the margins: Cortes et al., Balancing the Scales, 2025,
        https://arxiv.org/abs/2502.10381.

    Example:
        >>> loss = GCALoss([1000, 1])
        >>> [round(1 / t, 3) for t in loss.temperature.tolist()]
        [1.0, 0.1]
    """

    def __init__(
        self,
        counts: Any,
        q: float = 0.7,
        *,
        rho: Any = None,
        exponent: float = 1 / 3,
        weight: Any = None,
        **options: Any,
    ) -> None:
        known = as_counts(counts)
        prior_out = class_weights(rows_or_one(known), "inverse") if weight is None else weight
        super().__init__(prior_out, counts=known, **options)
        self.q = checked_q(q)
        power = in_range("exponent", exponent, 0, 10, "1/3 follows from the theory")
        margins = power_of_share(known, power) if rho is None else class_vector("rho", rho, known.classes)
        if not margins.all():
            raise InputError("expected rho above 0 for every class, got 0; rho is the scale that a class's logits have")
        self.keep("temperature", 1.0 / margins)

    def law(self) -> Law:
        """Target temperature and generalised shape."""
        return self.with_changes(temperature=self.temperature, shape=Generalised(self.q))


def power_of_share(counts: Any, exponent: float) -> Floats:
    """(K,) ``(n_k / n_max)^exponent``."""
    rows = rows_or_one(counts)
    return np.asarray((rows / rows.max()) ** exponent)
