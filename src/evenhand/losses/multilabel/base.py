"""What every sigmoid loss module shares: its law, its reduction, and its thresholds at test time."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from evenhand.counts import ClassCounts, to_numpy
from evenhand.declared import Floats, InputError
from evenhand.losses.buffers import KeepsTypes
from evenhand.losses.decisions.rule import GOALS
from evenhand.losses.multilabel.functional import EntryDenominator, sigmoid_cross_entropy, sigmoid_row_losses
from evenhand.losses.multilabel.label_rule import FARTHEST, LabelRule, threshold
from evenhand.losses.multilabel.law import SigmoidLaw
from evenhand.losses.reduction import Empty, Reduction, RowLosses, check_choice


class SigmoidLoss(KeepsTypes):
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
        """The reduced loss; arguments and errors as in :func:`evenhand.losses.sigmoid_cross_entropy`."""
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
