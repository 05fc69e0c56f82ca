"""From a tally of predictions to the audit: figures, findings in order of likelihood, per-class table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evenhand.declared import Declared, Floats, Ints

Severity = Literal["fault", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One named cause with the evidence for it.

    Attributes:
        cause: id of the cause, for instance ``"double-correction"``; docs/causes/<cause>.md explains it.
        code: stable short code, ``EH`` and three digits.
        title: what happened, a few words.
        severity: ``fault`` (something is wrong), ``warning`` (works as asked, at a price), ``note``.
        probability: how sure, in (0, 1].
        sentence: what a colleague would say, one or two sentences, plain text.
        evidence: the numbers that prove it; JSON values only.
        remedy: what to do and what it costs, plain text.
        snippets: framework -> code to copy (``pytorch``, ``keras``, ``huggingface``, ``lightning``, ``scikit-learn``).
        surer: what the user could add to make this more certain, or "".
    """

    cause: str
    code: str
    title: str
    severity: Severity
    probability: float
    sentence: str
    evidence: dict[str, Any]
    remedy: str
    snippets: dict[str, str] = field(default_factory=dict)
    surer: str = ""


@dataclass(frozen=True)
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
        table: per-class columns, each of length K: name, true, predicted, expected, recall, precision, interval_low,
            interval_high (95 % band of the predicted count if predictions followed the truth), q_value, verdict.
        worst_pairs: list of {true, predicted, rows, back, expected, q_value}: rows of class `true` answered as
            `predicted`, the opposite errors `back`; most lopsided first.
        tau_path: curves over tau (``tau``, ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``count_distance``,
            ``best`` goal -> tau) from the row sample, computed on first use; None for labels only.
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
