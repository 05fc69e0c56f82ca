"""What every softmax loss module shares: its law, its reduction, and the decision rule that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from evenhand.declared import Floats, InputError
from evenhand.losses.buffers import KeepsTypes
from evenhand.losses.decisions.implied import decision_rule
from evenhand.losses.decisions.rule import DecisionRule
from evenhand.losses.denominators import denominator_of
from evenhand.losses.functional import cross_entropy, losses_by_row
from evenhand.losses.law import Law, SmoothingMass
from evenhand.losses.modules.arguments import as_counts, checked_weight, in_range, log_prior
from evenhand.losses.reduction import Denominator, Empty, Reduction, RowLosses, check_choice

if TYPE_CHECKING:
    from evenhand.losses.counting import Counting


class SoftmaxLoss(KeepsTypes, nn.CrossEntropyLoss):
    """:class:`torch.nn.CrossEntropyLoss` with more to say; the base of every softmax loss here.

    Args:
        weight: (K,) class weights >= 0 of any float type, or None. With `counts` also the name of a rule of
            :func:`evenhand.class_weights`, or a dictionary by class name.
        counts: rows per class of the training set, (K,) or :class:`evenhand.ClassCounts`; None where the loss itself
            does not need them. With counts, :meth:`correction` can serve balanced accuracy.
        ignore_index, reduction, label_smoothing: torch's meaning.
        smoothing_mass: ``weighted`` (torch: the smoothing is weighted by the class it falls on) or ``uniform`` (by the
            row's own weight).
        z_loss: coefficient of the squared log-normaliser.
        class_dim: axis of the classes in the logits: 1 as in torch, or -1 for (..., K).
        denominator: of the mean: ``weights`` (torch) or ``count``.
        empty: mean of a batch in which every row is ignored: ``zero`` (0, zero gradient) or ``nan`` (torch).

    Class-wise vectors are buffers that move with the module but keep float32 (bfloat16 would round weights by up to
    0.4 %) and stay out of the ``state_dict``: they belong to the training plan, not the model.

    Raises:
        InputError: weights that are negative, not finite or not one-dimensional; a word that is not one of the choices.
    """

    def __init__(
        self,
        weight: Any = None,
        *,
        counts: Any = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        smoothing_mass: SmoothingMass = "weighted",
        z_loss: float = 0.0,
        class_dim: int = 1,
        denominator: Denominator = "weights",
        empty: Empty = "zero",
    ) -> None:
        if not (isinstance(label_smoothing, int | float | np.number) and 0 <= label_smoothing < 1):
            raise InputError(f"expected label_smoothing in [0, 1), got {label_smoothing!r}; 0.1 is usual")
        for name, value, usual in (("ignore_index", ignore_index, -100), ("class_dim", class_dim, 1)):
            if not isinstance(value, int | np.integer):
                raise InputError(f"expected {name} to be a whole number, got {value!r}; leave it out for {usual}")
        super().__init__(ignore_index=int(ignore_index), reduction=reduction, label_smoothing=float(label_smoothing))
        check_choice("reduction", reduction, get_args(Reduction))
        check_choice("smoothing_mass", smoothing_mass, get_args(SmoothingMass))
        check_choice("denominator", denominator, get_args(Denominator))
        check_choice("empty", empty, get_args(Empty))
        self.counts = None if counts is None else as_counts(counts)
        self.smoothing_mass, self.class_dim = smoothing_mass, int(class_dim)
        self.z_loss = in_range("z_loss", z_loss, 0, np.inf, "0.0001 is usual, 0 is off")
        self.mean_denominator, self.empty = denominator, empty
        self.fixed_denominator: Tensor | None = None  # set for a while by evenhand.losses.exact_mean
        self.keep("weight", None if weight is None else checked_weight(weight, self.counts))

    def keep(self, name: str, values: Any) -> None:
        """Hold a (K,) float vector as a float32 buffer outside the ``state_dict``; None holds nothing."""
        if values is not None and not isinstance(values, Tensor):
            values = torch.as_tensor(np.asarray(values, dtype=np.float64))
        self.register_buffer(
            name, None if values is None else values.detach().to(torch.float32).clone(), persistent=False
        )

    def law(self) -> Law:
        """The loss as parameters of the one law; subclasses replace what they change."""
        return Law(
            class_weight=self.weight,
            label_smoothing=self.label_smoothing,
            smoothing_mass=self.smoothing_mass,
            z_loss=self.z_loss,
        )

    def with_changes(self, **changes: Any) -> Law:
        """The base's law with some parameters replaced: what a subclass's :meth:`law` returns."""
        return replace(SoftmaxLoss.law(self), **changes)

    def forward(
        self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None, extra: Tensor | None = None
    ) -> Tensor:
        """The reduced loss.

        Args:
            input: logits, (K,), (N, K), (N, K, d1, ...) or (..., K) with ``class_dim=-1``.
            target: class indices, or soft targets of the logits' shape.
            sample_weight: one factor per row, in numerator and denominator.
            extra: one number per row for losses that need it (influence-balanced: the feature norm).

        Returns:
            0-dim tensor, or the target's shape with ``reduction="none"``; float32, or float64 for float64 logits.

        Raises:
            InputError: shapes, types or labels that do not fit.
        """
        self.check_classes(getattr(input, "shape", ()), self.class_dim)
        self.observe(target)
        return cross_entropy(
            input,
            target,
            self.law(),
            sample_weight=sample_weight,
            extra=extra,
            ignore_index=self.ignore_index,
            class_dim=self.class_dim,
            reduction=self.reduction,  # type: ignore[arg-type]
            denominator=self.divisor,
            empty=self.empty,
        )

    @property
    def divisor(self) -> Denominator | Tensor:
        """What the mean divides by: its kind, or the number that :func:`evenhand.losses.exact_mean` has fixed."""
        return self.mean_denominator if self.fixed_denominator is None else self.fixed_denominator

    def denominator(self, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """What the mean over these targets divides by: known without logits, and it adds over batches and ranks.

        Args:
            target, sample_weight: as in the call.

        Returns:
            0-dim tensor without gradient, float64 where the device has it.

        Raises:
            InputError: labels out of range, shapes that do not fit.
        """
        return denominator_of(
            target,
            self.law(),
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            class_dim=self.class_dim,
            kind=self.mean_denominator,
        )

    def rows(
        self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None, extra: Tensor | None = None
    ) -> RowLosses:
        """The losses before reduction, numerator and weight apart, in the target's shape; arguments as in the call."""
        self.check_classes(getattr(input, "shape", ()), self.class_dim)
        self.observe(target)
        return losses_by_row(
            input,
            target,
            self.law(),
            sample_weight=sample_weight,
            extra=extra,
            ignore_index=self.ignore_index,
            class_dim=self.class_dim,
        )

    def linear(
        self,
        features: Tensor,
        weight: Tensor,
        target: Tensor,
        bias: Tensor | None = None,
        *,
        sample_weight: Tensor | None = None,
        extra: Tensor | None = None,
        chunk_rows: int | None = None,
        counting: Counting | None = None,
    ) -> Tensor:
        """The loss of the logits ``F.linear(features, weight, bias)``, which are never held all at once.

        Args:
            features: (..., D), what the last layer takes. weight: (K, D). bias: (K,) or None.
            target: (...) class indices. sample_weight, extra: as in the call, of the target's shape.
            chunk_rows, counting: as in :func:`evenhand.losses.linear_cross_entropy`.

        Returns:
            What the call returns for these logits with ``class_dim=-1``.

        Raises:
            InputError: shapes, types or labels that do not fit, soft targets.
        """
        # here, because what keeps these functions out of compiled graphs takes seconds to import
        from evenhand.losses.linear import linear_cross_entropy

        self.check_classes(getattr(weight, "shape", ()), 0)
        self.observe(target)
        return linear_cross_entropy(
            features,
            weight,
            target,
            self.law(),
            bias=bias,
            sample_weight=sample_weight,
            extra=extra,
            ignore_index=self.ignore_index,
            reduction=self.reduction,  # type: ignore[arg-type]
            denominator=self.divisor,
            empty=self.empty,
            chunk_rows=chunk_rows,
            counting=counting,
        )

    def training_law(self) -> Law:
        """The law that training minimises; other than :meth:`law` only for losses that act in training mode alone."""
        return self.law()

    def observe(self, target: Tensor) -> None:
        """See the targets of a training batch before its loss is taken; losses with online statistics replace this.

        The call does it. Whoever takes :meth:`law` and computes the loss elsewhere does it first.
        """

    def check_classes(self, shape: Sequence[int], axis: int) -> None:
        """Refuse logits, or a classifier weight, of another number of classes than the loss was built for.

        Raises:
            InputError: that.
        """
        known, axis = self.known_classes, 0 if len(shape) == 1 else axis
        if known is not None and -len(shape) <= axis < len(shape) and shape[axis] != known:
            raise InputError(
                f"expected {known} classes, for which this loss was built, got {shape[axis]} on axis {axis} of shape "
                f"{tuple(shape)}; check class_dim, and the counts or weights that the loss was given"
            )

    def correction(self, goal: str = "accuracy") -> DecisionRule:
        """What must be done to the logits at test time; see :func:`evenhand.losses.decision_rule`.

        The minimiser of most losses here is known. Of cross-entropy with weights ``w``, for instance, the softmax is
        proportional to ``w_k p(k | x)``, so that accuracy needs ``-log w_k``, and balanced accuracy ``-log pi_k`` on
        top (pi: training prior).

        Args:
            goal: ``accuracy`` on data with the training prior, or ``balanced-accuracy``, which needs `counts`.

        Raises:
            InputError: another goal, or no counts to serve it with; neither counts nor weights to know K from.
        """
        prior = self.needed_log_prior() if goal == "balanced-accuracy" else None
        absent = None if self.counts is None else self.counts.counts == 0
        return decision_rule(self.training_law(), self.classes, goal, log_prior=prior, absent=absent)

    def needed_log_prior(self) -> Floats:
        """(K,) log prior of the training set; a class without rows counts as one row.

        Raises:
            InputError: the loss was built without counts.
        """
        if self.counts is None:
            raise InputError("balanced accuracy needs the training prior: build the loss with counts=")
        return log_prior(self.counts)

    @property
    def known_classes(self) -> int | None:
        """K, or None for a loss without any class-wise argument."""
        if self.counts is not None:
            return self.counts.classes
        return next((len(held) for held in self._buffers.values() if held is not None), None)

    @property
    def classes(self) -> int:
        """K.

        Raises:
            InputError: the loss was built without any class-wise argument.
        """
        if self.known_classes is not None:
            return self.known_classes
        raise InputError("this loss does not know the number of classes: build it with counts= or weight=")

    def extra_repr(self) -> str:
        """Number of classes, the loss's own numbers, reduction and what is switched on."""
        said = [f"classes={self.counts.classes}"] if self.counts is not None else []
        said += [f"{name}={value!r}" for name, value in vars(self).items() if name not in _COMMON and _is_word(value)]
        said += [f"reduction={self.reduction!r}", f"ignore_index={self.ignore_index}"]
        said += [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        return ", ".join(said)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # a checkpoint written when torch's loss was a part of the model holds its weight, which is taken over
        saved = state_dict.get(prefix + "weight")
        if self.weight is not None and saved is not None and saved.shape == self.weight.shape:
            self.weight = checked_weight(state_dict.pop(prefix + "weight"), self.counts).to(self.weight)
        super()._load_from_state_dict(state_dict, prefix, *args)


_COMMON = frozenset(
    [
        "training",
        "reduction",
        "ignore_index",
        "label_smoothing",
        "smoothing_mass",
        "z_loss",
        "class_dim",
        "mean_denominator",
        "empty",
    ]
)


def _is_word(value: object) -> bool:
    """Whether a value is short enough to be shown."""
    return isinstance(value, bool | int | float | str)
