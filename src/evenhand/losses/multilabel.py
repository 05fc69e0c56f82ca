"""Loss modules for multi-label targets, where every class of a row is its own yes-or-no question."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from evenhand.counts import ClassCounts, to_numpy
from evenhand.declared import Floats, InputError
from evenhand.losses.decision import GOALS
from evenhand.losses.label_rule import FARTHEST, LabelRule, threshold
from evenhand.losses.reduction import Empty, Reduction, RowLosses, check_choice
from evenhand.losses.sigmoid import EntryDenominator, sigmoid_cross_entropy, sigmoid_row_losses
from evenhand.losses.sigmoid_law import SigmoidLaw, check_sigmoid_law


class SigmoidLoss(nn.Module):
    """Binary cross-entropy per class and the base of every sigmoid loss here.

    Without further arguments it is :class:`torch.nn.BCEWithLogitsLoss`, bit for bit.

    Args:
        counts: (K,) training rows in which each class is present (or a mapping, or :class:`evenhand.ClassCounts`).
        rows: number of training rows. With counts and rows, :meth:`correction` can serve balanced accuracy.
        classes: K, where there are no counts to tell it.
        ignore_index: target value of the entries that do not count, outside [0, 1]; None if there are none.
        reduction: ``mean``, ``sum`` or ``none`` (entry by entry).
        denominator: of the mean: ``elements`` (torch), ``positives`` or ``rows``.
        class_dim: axis of the classes: 1, or -1 for (..., K).
        empty: mean of a batch in which nothing counts: ``zero`` or ``nan``.

    Class-wise vectors are float32 buffers that stay out of the ``state_dict``.

    Raises:
        InputError: counts that are no counts or exceed the rows; a word that is not one of the choices.
    """

    def __init__(
        self,
        counts: Any = None,
        *,
        rows: int | None = None,
        classes: int | None = None,
        ignore_index: int | None = -1,
        reduction: Reduction = "mean",
        denominator: EntryDenominator = "elements",
        class_dim: int = 1,
        empty: Empty = "zero",
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, get_args(Reduction))
        check_choice("denominator", denominator, get_args(EntryDenominator))
        check_choice("empty", empty, get_args(Empty))
        self.positives = None if counts is None else checked_positives(counts, rows)
        self.train_rows = rows
        self.known_classes = classes if self.positives is None else len(self.positives)
        self.ignore_index, self.reduction, self.denominator = ignore_index, reduction, denominator
        self.class_dim, self.empty = class_dim, empty

    def keep(self, name: str, values: Any) -> None:
        """Hold a (K,) vector as a float32 buffer outside the ``state_dict``; a number or None is held as it is."""
        if values is None or isinstance(values, (int, float)):
            if values is not None and not 0 <= values < float("inf"):
                raise InputError(f"expected {name} to be a finite number of 0 or more, got {values}; see its default")
            setattr(self, name, values)
            return
        values = values.detach().double() if isinstance(values, Tensor) else values  # NumPy has no bfloat16
        array = np.asarray(to_numpy(values), dtype=np.float64)
        if array.ndim != 1 or not np.isfinite(array).all() or (name != "offset" and (array < 0).any()):
            raise InputError(f"expected {name} to be a number of 0 or more, or one per class, got {str(values)[:80]}")
        if self.known_classes is not None and len(array) != self.known_classes:
            raise InputError(f"expected {self.known_classes} values of {name}, one per class, got {len(array)}")
        self.known_classes = len(array)
        self.register_buffer(name, torch.from_numpy(array).float(), persistent=False)

    def law(self) -> SigmoidLaw:
        """The loss as parameters of the one law; subclasses replace what they change."""
        return SigmoidLaw()

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The reduced loss; arguments and errors as in :func:`evenhand.losses.sigmoid.sigmoid_cross_entropy`."""
        return sigmoid_cross_entropy(
            input,
            target,
            self.law(),
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            class_dim=self.class_dim,
            reduction=self.reduction,
            denominator=self.denominator,
            empty=self.empty,
        )

    def rows(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> RowLosses:
        """Losses before reduction: per row the sum over its classes, and what it adds to the denominator."""
        return sigmoid_row_losses(
            input,
            target,
            self.law(),
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            class_dim=self.class_dim,
            denominator=self.denominator,
        )

    def correction(self, goal: str = "accuracy") -> LabelRule:
        """Where to cut the logits at test time, class by class.

        The minimiser of the loss is a known function of the class's true probability P. Accuracy of a class's answers
        asks for a yes where P > 1/2, balanced accuracy (mean of the shares of found presences and found absences)
        where P exceeds the share of training rows that have the class.

        Args:
            goal: ``accuracy``, or ``balanced-accuracy``, which needs counts and rows.

        Raises:
            InputError: another goal, or nothing to know K or the shares from.
        """
        check_choice("goal", goal, GOALS)
        law = self.law()
        aim = self.log_odds() if goal == "balanced-accuracy" else np.zeros(self.classes)
        scale, offset = (None if x is None else np.asarray(x.cpu(), np.float64) for x in (law.scale, law.offset))
        cut = threshold(law, aim)
        shift = (0.0 if offset is None else offset) - cut
        exact, why = self._certainty()
        if (np.abs(cut) >= FARTHEST - 1).any():
            exact = False
            why = f"the loss drives class {int(np.abs(cut).argmax())} to an infinite logit before the goal says yes"
        return LabelRule(goal, np.ones_like(shift) if scale is None else scale, shift, exact=exact, why=why)

    def _certainty(self) -> tuple[bool, str]:
        return True, "the threshold is the loss's minimiser at the probability where the goal changes its answer"

    def log_odds(self) -> Floats:
        """(K,) float64 log odds of each class in training; a class in no row (in all rows) counts as in (not in) one.

        Raises:
            InputError: the loss was built without counts or rows.
        """
        if self.positives is None or self.train_rows is None:
            raise InputError("the share of rows with each class is not known: build the loss with counts= and rows=")
        present = np.clip(self.positives, 1, max(1, self.train_rows - 1))
        odds: Floats = np.log(present) - np.log(np.maximum(self.train_rows - present, 1))
        return odds

    @property
    def classes(self) -> int:
        """K.

        Raises:
            InputError: the loss was built without any class-wise argument.
        """
        if self.known_classes is None:
            raise InputError("this loss does not know the number of classes: build it with classes= or counts=")
        return self.known_classes

    def extra_repr(self) -> str:
        """What differs from plain binary cross-entropy."""
        known = "" if self.known_classes is None else f"classes={self.known_classes}, "
        return f"{known}reduction={self.reduction!r}, denominator={self.denominator!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        held = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in held.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self


class SigmoidFocalLoss(SigmoidLoss):
    """``alpha y (1 - p)^gamma (-log p) + (1 - alpha) (1 - y) p^gamma (-log(1 - p))``, p = sigmoid(z).

    Args:
        counts, **options: as in :class:`SigmoidLoss`. The paper's mean has ``denominator="positives"``.
        alpha: share of the positives in [0, 1], one number or (K,); None weighs neither.
        gamma: focusing >= 0, one number or (K,); 0 with ``alpha=None`` is binary cross-entropy.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002.

    Example:
        >>> criterion = SigmoidFocalLoss(gamma=2.0, alpha=0.25)
        >>> round(criterion(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])).item(), 6)
        0.008722
    """

    alpha: float | Tensor | None
    gamma: float | Tensor

    def __init__(self, counts: Any = None, *, alpha: Any = 0.25, gamma: Any = 2.0, **options: Any) -> None:
        super().__init__(counts, **options)
        self.keep("alpha", alpha)
        self.keep("gamma", gamma)
        if self.alpha is not None and torch.as_tensor(self.alpha).max() > 1:
            raise InputError(
                f"expected alpha in [0, 1], the share of the positives, got {str(alpha)[:80]}; 0.25 is usual"
            )

    def law(self) -> SigmoidLaw:
        """Weights alpha and 1 - alpha, gamma on both sides."""
        a, b = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        return SigmoidLaw(positive_weight=a, negative_weight=b, gamma_positive=self.gamma, gamma_negative=self.gamma)


class AsymmetricLoss(SigmoidLoss):
    """ASL: ``y (1 - p)^gamma_pos (-log p) + (1 - y) q^gamma_neg (-log(1 - q))``, ``q = max(p - clip, 0)``.

    Args:
        counts, **options: as in :class:`SigmoidLoss`. The authors sum (``reduction="sum"``).
        gamma_pos, gamma_neg: focusing >= 0, a number or (K,). The paper has 0 and 4; the authors' code 1 and 4.
        clip: probability below which a negative is left alone.
        detach_focus: whether the focusing factors are constants for the gradient, as in the authors' own training.

    Source: Ridnik et al., Asymmetric Loss For Multi-Label Classification, 2021, https://arxiv.org/abs/2009.14119.

    Example:
        >>> criterion = AsymmetricLoss()
        >>> criterion(torch.tensor([[-4.0]]), torch.tensor([[0.0]])).item()
        0.0
    """

    gamma_pos: float | Tensor
    gamma_neg: float | Tensor

    def __init__(
        self,
        counts: Any = None,
        *,
        gamma_pos: Any = 0.0,
        gamma_neg: Any = 4.0,
        clip: float = 0.05,
        detach_focus: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(counts, **options)
        self.keep("gamma_pos", gamma_pos)
        self.keep("gamma_neg", gamma_neg)
        self.clip, self.detach_focus = clip, detach_focus
        check_sigmoid_law(self.law(), self.known_classes or 1)

    def law(self) -> SigmoidLaw:
        """Two gammas and the clip."""
        return SigmoidLaw(
            gamma_positive=self.gamma_pos,
            gamma_negative=self.gamma_neg,
            clip=self.clip,
            detach_focus=self.detach_focus,
        )


class DistributionBalancedLoss(SigmoidLoss):
    """Binary cross-entropy re-balanced for labels that occur together, and tolerant of negatives.

    With n_k rows that have class k, of N::

        r_ik = (1 / n_k) / sum_j y_ij / n_j             r^_ik = alpha + sigmoid(beta (r_ik - mu))
        u    = z + kappa / lambda log(n_k / (N - n_k))
        loss = r^_ik [ y (1 - p)^gamma softplus(-u) + (1 - y) / lambda q^gamma softplus(lambda u) ]

    where ``p = sigmoid(u)`` and ``q = sigmoid(lambda u)``. A row without any label has r^ = alpha + 1. A class without
    rows counts as one row.

    Args:
        counts: n. rows: N. **options: as in :class:`SigmoidLoss`.
        alpha, beta, mu: of the smoothing of r; the paper has mu 0.2 on COCO and 0.3 on VOC. ``rebalance=False`` leaves
            the weights out.
        negative_scale: lambda; 1 is off. kappa: factor of the bias; 0 is off.
        gamma: focusing; 0 is off. The authors' code also doubles the focal loss, which only changes the learning rate.

    Limits:
        The bias kappa / lambda log(...) is that of the authors' code; the paper's text has no lambda in it.

    Source: Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets, 2020,
    https://arxiv.org/abs/2007.09654.

    Example:
        >>> criterion = DistributionBalancedLoss([90, 5], rows=100)
        >>> loss = criterion(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        >>> round(loss.item(), 4)
        0.1233
    """

    offset: Tensor
    inverse: Tensor

    def __init__(
        self,
        counts: Any,
        *,
        rows: int,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.2,
        negative_scale: float = 2.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
        rebalance: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(counts, rows=rows, **options)
        self.alpha, self.beta, self.mu, self.gamma = alpha, beta, mu, gamma
        self.negative_scale, self.kappa, self.rebalance = negative_scale, kappa, rebalance
        if not 0 < negative_scale < float("inf"):
            raise InputError(f"expected negative_scale above 0, got {negative_scale}; 2 is usual, 1 is off")
        self.keep("offset", kappa / negative_scale * self.log_odds())
        self.keep("inverse", 1 / np.maximum(1, np.asarray(self.positives)))
        check_sigmoid_law(self.law(), self.classes)

    def law(self) -> SigmoidLaw:
        """Bias, lambda, gamma, and the weights of the entries."""
        smooth = partial(rebalanced, inverse=self.inverse, alpha=self.alpha, beta=self.beta, mu=self.mu)
        return SigmoidLaw(
            offset=self.offset if self.kappa else None,
            gamma_positive=self.gamma,
            gamma_negative=self.gamma,
            negative_scale=self.negative_scale,
            entry_weight=smooth if self.rebalance else None,
        )

    def _certainty(self) -> tuple[bool, str]:
        if self.rebalance:
            return False, "the weights depend on the row's other labels; the threshold is that of the loss without them"
        return super()._certainty()


def rebalanced(target: Tensor, *, inverse: Tensor, alpha: float, beta: float, mu: float) -> Tensor:
    """(n, K) smoothed weights ``alpha + sigmoid(beta (r - mu))``, ``r_ik = (1 / n_k) / sum_j y_ij / n_j``.

    Args:
        target: (n, K) in [0, 1]. inverse: (K,) 1 / n.
    """
    inverse = inverse.to(target)
    ratio = inverse / (target * inverse).sum(1, keepdim=True)  # not @: autocast would round it to half precision
    return torch.sigmoid(beta * (ratio - mu)) + alpha


def checked_positives(counts: Any, rows: int | None) -> Floats:
    """(K,) float64 rows per class.

    Raises:
        InputError: not one-dimensional, negative or not finite, or more than the rows.
    """
    if isinstance(counts, ClassCounts):
        counts = counts.counts
    array = to_numpy(list(counts.values()) if hasattr(counts, "values") and not isinstance(counts, Tensor) else counts)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf":
        raise InputError(
            f"expected counts to be one number of rows per class, got {array.dtype} of shape {array.shape}; give a 1-D "
            "array"
        )
    values: Floats = array.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"expected counts of 0 or more, but class {int(values.argmin())} has {values.min()}")
    if rows is not None and values.max() > rows:
        raise InputError(
            f"expected at most rows={rows} rows with a class, but class {int(values.argmax())} has {values.max():g}; "
            "rows is the number of training rows, not of labels"
        )
    return values
