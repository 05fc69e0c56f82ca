"""What a forecast is: the plan it is made for, its figures, its warnings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from evenhand.declared import Floats, Ints
from evenhand.expectation import Expectation


@dataclass(frozen=True)
class Advice:
    """One warning: `id` is stable, `severity` is fault (will go wrong), warning (has a price) or note."""

    id: str
    severity: Literal["fault", "warning", "note"]
    sentence: str


@dataclass(frozen=True, eq=False)
class Plan:
    """A way to train on imbalanced classes.

    Attributes:
        counts: (K,) rows per class in the training set, or ClassCounts.
        class_weight: (K,) loss weights in the order of the model's outputs, a rule of
            :func:`evenhand.weights.available_rules`, or None.
        sampler_rate: (K,) share of class k among the rows drawn, any positive scale; ``"balanced"`` draws every class
            equally often, ``"sqrt"`` in proportion to sqrt(n_k); None draws the rows as they are.
        label_smoothing: e in [0, 1), with torch's meaning: every class gets e / K of the target.
        batch_size: rows per loss denominator (per device and micro-batch), or None for a large one.
        reduction: ``"mean"`` (divides by the sum of the batch's weights), ``"sum"`` or ``"none"``.
        names: K class names, or None.
        accuracy: the accuracy you expect without weights or sampler. None assumes the square root of the largest
            class's share, half-way (on a log scale) between always answering that class and being always right.
    """

    counts: Any
    class_weight: Any = None
    sampler_rate: Any = None
    label_smoothing: float = 0.0
    batch_size: int | None = None
    reduction: str = "mean"
    names: Iterable[str] | None = None
    accuracy: float | None = None


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a plan will do. Classes without rows are left out of every average.

    Attributes:
        counts: (K,) int64 or float64, as planned; names: K names or None.
        class_weight: (K,) float64, ones without weights; weighted: whether weights were given.
        draw_rate: (K,) float64, share of each class among the rows drawn, sum 1; sampled: whether a sampler was given.
        tilt: (K,) float64, nats: log w~_y + log(q_y / pi_y), mean 0 over classes; NaN where a class has no rows, -inf
            where its weight is 0.
        tau: slope of the tilt along -log pi, classes weighted by pi, as an audit would fit it: 0 no correction, 1 the
            prior divided out once. 0 when all classes are equally frequent.
        correlation: of the tilt with -log pi, weighted alike, in [-1, 1]; 0 when one of them is constant.
        effective_weight: (K,) float64, what batches of this size apply, 1 for an average row drawn.
        slope_kept: slope of log effective weight on log weight over classes; 1 when batches are large.
        weight_ratio: largest over smallest positive weight.
        smoothing_threshold: weight ratio K (1 - e) / e + 1 above which even a certain row of the lighter class is
            answered with the heavier one at the optimum; None without smoothing.
        smoothing_flips: classes whose certain rows are lost that way.
        certain_probability: the probability the optimum leaves to the truth on certain rows, for the class where it is
            least; 1 without smoothing.
        effective_rows: (sum q w)^2 / sum q w^2, in (0, 1]: the share of a batch's rows that its gradient averages over.
        one_class_batches: chance that all rows of a batch are of one class, or None without a batch size.
        plain, expected: the model classifier (see :mod:`evenhand.expectation`) without and with the plan.
        slope: of log expected predicted counts on log counts, over classes; None if all counts are equal.
        pattern: ``mirrored``, ``flattened``, ``proportional`` or ``amplified``, by that slope.
        warnings: in order of severity.
        plan: the plan.
    """

    plan: Plan
    counts: Ints | Floats
    names: tuple[str, ...] | None
    class_weight: Floats
    weighted: bool
    draw_rate: Floats
    sampled: bool
    tilt: Floats
    tau: float
    correlation: float
    effective_weight: Floats
    slope_kept: float
    weight_ratio: float
    smoothing_threshold: float | None
    smoothing_flips: int
    certain_probability: float
    effective_rows: float
    one_class_batches: float | None
    plain: Expectation
    expected: Expectation
    slope: float | None
    pattern: str
    warnings: tuple[Advice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: schema ``evenhand.forecast/1``; per-class lists have length K, what is not finite is null."""
        from evenhand.foretelling import forecast_dict

        return forecast_dict(self)

    def text(self) -> str:
        """A verdict, a small table and the warnings, for a terminal."""
        from evenhand.foretelling import forecast_text

        return forecast_text(self)
