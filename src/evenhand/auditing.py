"""From a tally of predictions to the audit: figures, findings in order of likelihood, per-class table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from evenhand import audit_figures as figures
from evenhand import metrics
from evenhand.causes import diagnose, serve_goal
from evenhand.declared import Declared, Floats, InputError, Ints
from evenhand.evidence import Evidence
from evenhand.findings import Finding, Severity
from evenhand.scanning import tally_predictions, workers
from evenhand.tally import Tally
from evenhand.taupath import tau_path

if TYPE_CHECKING:
    from evenhand.files import Predictions

__all__ = ["Audit", "Finding", "Severity", "audit", "audit_predictions", "audit_tally"]

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "count_distance", "slope", "tau", "beta")


@dataclass(frozen=True, repr=False)
class Audit:
    """The result of an audit. Every number has its n; per-class arrays have length K.

    Attributes:
        name: file name or "predictions"; rows, classes: N and K; kind: what the input held.
        declared: what the user said about the training.
        metrics: accuracy, balanced_accuracy, macro_f1, nll, ece, groups (head, medium, tail; each with classes, rows,
            accuracy, predicted, expected); nll, ece None for labels only.
        true, predicted: (K,) counts. expected: (K,) sum of the posteriors ("soft counts") or None for labels only.
        total_variation: hard, soft (None for labels only), noise_floor: distance between count vectors, in [0, 1].
        pattern: name, slope, slope_interval, spearman of predicted against true counts.
        tilt: tau, tau_interval, beta, beta_interval, share, rows_used, declared, shift; None for labels only.
        homogeneity: statistic, df, p of the Stuart-Maxwell test.
        findings: most likely first.
        fix: goal, offsets_file, before, after, after_interval, recommended, why.
        table: per-class columns, each of length K: class, name, true, predicted, expected, recall, precision,
            interval_low, interval_high (95 % band of the predicted count if predictions followed the truth), decision
            (predicted - expected), calibration (expected - true), q_value, verdict.
        worst_pairs: list of {true, predicted, rows, back, q_value}: rows of class `true` answered as
            `predicted`, the opposite errors `back`; most lopsided first.
    """

    name: str
    rows: int
    classes: int
    kind: Literal["logits", "probs", "predicted"]
    declared: Declared
    metrics: dict[str, Any]
    true: Ints
    predicted: Ints
    expected: Floats | None
    total_variation: dict[str, float | None]
    pattern: dict[str, Any]
    tilt: dict[str, Any] | None
    homogeneity: dict[str, float]
    findings: tuple[Finding, ...]
    fix: dict[str, Any]
    table: dict[str, Any]
    worst_pairs: list[dict[str, Any]]
    evidence: Evidence

    @cached_property
    def tau_path(self) -> dict[str, Any] | None:
        """Metrics over tau on the row sample (keys ``tau``, ``accuracy``, ``balanced_accuracy``, ``macro_f1``,
        ``count_distance``, ``best`` goal -> tau, ``rows``); computed on first use, None for labels only."""
        return tau_path(self.evidence)

    @property
    def verdict(self) -> Finding:
        """The most likely finding."""
        return self.findings[0]

    def scalars(self, prefix: str = "evenhand/") -> dict[str, float]:
        """Flat numbers for an experiment tracker, see `audit_figures.scalars`, with `prefix` before each name."""
        return figures.scalars(self.evidence, prefix)

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON values, schema ``evenhand.audit/1``."""
        from evenhand.report import to_dict

        return to_dict(self)

    def html(self) -> str:
        """The self-contained report page."""
        from evenhand.report import to_html

        return to_html(self)

    def _repr_html_(self) -> str:
        from evenhand.report import repr_html

        return repr_html(self)

    def __repr__(self) -> str:
        first, more = self.verdict, len(self.findings) - 1
        known = [f"{name} {value:z.3f}" for name, value in self.scalars("").items() if name in SHOWN]
        others = "" if not more else f", and {more} more finding{'s' if more > 1 else ''}"
        return (
            f"<Audit of {self.name[:80]!r}: {self.rows:,} rows, {self.classes:,} classes, {self.kind}\n"
            f" {first.cause} ({first.severity}, probability {first.probability:.2f}{others})\n {', '.join(known)}>"
        )

    def __str__(self) -> str:
        from evenhand.report import to_text

        return to_text(self)


P = ParamSpec("P")
R = TypeVar("R")


def _by_name(function: Callable[P, R]) -> Callable[P, R]:
    """Say which arrays need names where Python would only count them: labels and scores are easily exchanged."""

    @wraps(function)
    def called(*unnamed: P.args, **named: P.kwargs) -> R:
        if unnamed:
            raise InputError(
                f"audit expected every array by name but got {len(unnamed)} without one; write audit(logits=..., "
                "target=...), with probs= or predicted= in place of logits= where that is what they are"
            )
        return function(*unnamed, **named)

    return called


@_by_name
def audit(
    *,
    target: Any,
    logits: Any = None,
    probs: Any = None,
    predicted: Any = None,
    train_counts: Any = None,
    class_weight: Any = None,
    sampler: Any = None,
    sampler_rate: Any = None,
    class_names: Any = None,
    config: Any = None,
    row_id: Any = None,
    ignore_index: int | None = None,
    train_logits: Any = None,
    train_target: Any = None,
    goal: str = "accuracy",
    name: str = "predictions",
) -> Audit:
    """Find out why predicted class counts differ from the true ones.

    Args:
        target: (N,) true classes, whole numbers in [0, K).
        logits: (N, K) float16, float32 or float64, **or** probs: (N, K), **or** predicted: (N,) class indices. NumPy
            arrays, memory maps or torch tensors.
        train_counts: (K,) rows per class in training; the evaluation counts stand in if None.
        class_weight: (K,) loss weights as they were passed to the loss, or a rule of `class_weights` that made them
            from the training counts, for instance ``"balanced"``.
        sampler: (K,) how often each class is drawn, up to scale, or ``"balanced"``, or ``"sqrt"``. Weights of single
            rows, as ``WeightedRandomSampler`` takes, are something else: 1 / count for every row is ``"balanced"``.
        sampler_rate: the same under the name it has in files, in `forecast` and in `evenhand.training.samplers`.
        class_names: (K,) names. row_id: (N,) ids. ignore_index: target value whose rows are dropped.
        config: dict or JSON string with any of loss, label_smoothing, reduction, batch_size, gamma.
        train_logits, train_target: predictions on training rows, for the cause ``tail-overfit``.
        goal: what the fix aims at: ``accuracy``, ``balanced-accuracy``, ``macro-f1``, ``g-mean``, ``worst-group`` or
            ``counts``. Declared weights or a declared sampler that act as planned are a warning, but only a note when
            the goal counts every class alike: ``balanced-accuracy``, ``g-mean`` or ``worst-group``.
        name: shown in reports.

    Returns:
        Audit: findings with the most likely first, figures with intervals, and the fix with its measured effect.

    Raises:
        InputError: arrays that do not fit together, NaN or +inf scores, labels out of range; one sentence.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> n = np.array([600, 250, 100, 50]); y = rng.permutation(np.repeat(np.arange(4), n))
        >>> z = rng.normal(size=(1000, 4)); z[np.arange(1000), y] += 1.0    # knows the features, not the prior
        >>> found = audit(logits=z, target=y, train_counts=n, class_weight=n.sum() / (4 * n))
        >>> found.findings[0].cause, 0.8 < found.tilt["tau"] < 1.2
        ('class-weights', True)
    """
    from evenhand.files import from_arrays

    if sampler is not None and sampler_rate is not None:
        raise InputError("expected sampler or sampler_rate, two names for one thing, but both came; give one of them")
    predictions = from_arrays(
        logits=logits,
        probs=probs,
        predicted=predicted,
        target=target,
        row_id=row_id,
        train_logits=train_logits,
        train_target=train_target,
        train_counts=train_counts,
        class_weight=class_weight,
        sampler=sampler if sampler_rate is None else sampler_rate,
        class_names=class_names,
        config=config,
        ignore_index=ignore_index,
        name=name,
    )
    return audit_predictions(predictions, goal=goal)


def audit_predictions(
    predictions: Predictions, *, goal: str = "accuracy", progress: Callable[[int], None] | None = None
) -> Audit:
    """Audit what `evenhand.files` opened: one pass over the rows, then the figures."""
    tally = tally_predictions(predictions, progress=progress)
    train = None if predictions.train is None else tally_predictions(predictions.train)
    return audit_tally(tally, train=train, name=predictions.name, goal=goal)


def audit_tally(tally: Tally, *, train: Tally | None = None, name: str = "tally", goal: str = "accuracy") -> Audit:
    """Audit a tally, for instance the sum of tallies made on several machines."""
    e = Evidence(tally, train, workers())
    findings = serve_goal(diagnose(e), e, goal)
    _refuse_unnormalised(tally, findings)
    return Audit(
        name=name,
        rows=e.rows,
        classes=e.classes,
        kind=tally.kind,
        declared=tally.declared,
        metrics=metrics.metrics(tally, e.prior_counts),
        true=tally.true,
        predicted=tally.predicted,
        expected=tally.soft,
        total_variation={"hard": e.hard_distance, "soft": e.soft_distance, "noise_floor": e.noise},
        pattern=figures.pattern(e),
        tilt=figures.tilt(e),
        homogeneity={"statistic": e.homogeneity.statistic, "df": e.homogeneity.df, "p": e.homogeneity.p},
        findings=findings,
        fix=figures.fix(e, goal, findings),
        table=figures.table(e),
        worst_pairs=figures.worst_pairs(e),
        evidence=e,
    )


def _refuse_unnormalised(tally: Tally, findings: tuple[Finding, ...]) -> None:
    if tally.row_sum_error > 0.02 and all(f.cause != "batch-softmax" for f in findings):
        raise InputError(
            f"expected probabilities that sum to one in every row, got a row off by {tally.row_sum_error:.3g}; "
            "pass raw scores as logits, or the softmax over classes as probs"
        )
