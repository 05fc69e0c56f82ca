"""What is judged, by which property, and with what outcome."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
Outcome = Literal["pass", "fail", "not offered"]


@dataclass(frozen=True)
class Subject:
    """One implementation, behind a small adapter.

    Attributes:
        name: what the table calls it.
        make: builds the loss from the options `weight` (K,), `gamma`, `ignore_index`, `label_smoothing` and
            `reduction`; only those that `offers` names are asked for.
        offers: names of options it has, and of features: ``soft`` (probability targets), ``dims`` (N, K, d1, ...),
            ``none`` and ``sum`` (reductions), and ``softmax`` (class indices) or ``sigmoid`` ((N, K) targets of 0, 1).
        per_cell: its mean divides by rows times classes. Then it is multiplied by the classes, so that the other
            properties are judged apart from this one.
    """

    name: str
    make: Callable[..., Loss]
    offers: frozenset[str]
    per_cell: bool = False

    def build(self, **options: Any) -> Loss:
        """The loss, its mean on the scale of rows."""
        loss = self.make(**options)
        if not self.per_cell or options.get("reduction", "mean") != "mean":
            return loss
        return lambda logits, target: loss(logits, target) * logits.shape[1]

    def __call__(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """The loss of one batch."""
        return self.build(**options)(logits, target)


@dataclass(frozen=True)
class Property:
    """One thing that should hold.

    Attributes:
        name: short, for the table. meaning: a sentence.
        needs: what a subject must offer to be asked.
        error: measures how far the subject is from it; NaN is never close enough.
        limit: largest error that passes.
    """

    name: str
    meaning: str
    needs: frozenset[str]
    error: Callable[[Subject], float]
    limit: float


@dataclass(frozen=True)
class Verdict:
    """How a subject did; `note` is the message of an exception, where one was raised."""

    subject: str
    name: str
    outcome: Outcome
    error: float | None = None
    limit: float | None = None
    note: str = ""


def judge(subject: Subject, wanted: Property) -> Verdict:
    """Measure one property; an exception in the subject is a failure, with its first line as the note."""
    if not wanted.needs <= subject.offers:
        return Verdict(subject.name, wanted.name, "not offered")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = float(wanted.error(subject))
    except Exception as problem:  # whatever another package raises is its answer
        lines = str(problem).strip().splitlines() or [""]
        note = f"{type(problem).__name__}: {lines[0][:120]}"
        return Verdict(subject.name, wanted.name, "fail", math.inf, wanted.limit, note)
    return Verdict(subject.name, wanted.name, "pass" if error <= wanted.limit else "fail", error, wanted.limit)
