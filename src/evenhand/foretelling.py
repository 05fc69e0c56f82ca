"""The faces of a forecast: JSON for programs, text for people."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from evenhand.declared import Floats
from evenhand.forecast_result import Forecast
from evenhand.forecasting import group_table

WIDTH = 100


def forecast_dict(result: Forecast) -> dict[str, Any]:
    """Schema ``evenhand.forecast/1``."""
    plan = result.plan
    return {
        "schema": "evenhand.forecast/1",
        "classes": int(result.counts.size),
        "rows": float(result.counts.sum()),
        "plan": {
            "weighted": result.weighted,
            "rule": plan.class_weight if isinstance(plan.class_weight, str) else None,
            "sampled": result.sampled,
            "label_smoothing": plan.label_smoothing,
            "batch_size": plan.batch_size,
            "reduction": plan.reduction,
        },
        "tilt": {"tau": result.tau, "correlation": result.correlation, "per_class": _finite(result.tilt)},
        "weights": {
            "ratio": result.weight_ratio,
            "slope_kept": result.slope_kept,
            "effective_rows": result.effective_rows,
            "one_class_batches": result.one_class_batches,
            "effective": _finite(result.effective_weight),
        },
        "smoothing": {
            "threshold": result.smoothing_threshold,
            "flips": result.smoothing_flips,
            "certain_probability": result.certain_probability,
        },
        "model": {
            "separability": result.expected.separability,
            "accuracy": {"plain": result.plain.accuracy, "plan": result.expected.accuracy},
            "balanced_accuracy": {"plain": result.plain.balanced_accuracy, "plan": result.expected.balanced_accuracy},
            "pattern": result.pattern,
            "slope": result.slope,
            "groups": group_table(result),
        },
        "counts": {
            "true": result.counts.tolist(),
            "predicted": _finite(result.expected.predicted * result.counts.sum()),
        },
        "names": None if result.names is None else list(result.names),
        "warnings": [{"id": w.id, "severity": w.severity, "sentence": w.sentence} for w in result.warnings],
    }


def forecast_text(result: Forecast) -> str:
    """Verdict, table, warnings."""
    lines = [_headline(result), "", *_wrap(_verdict(result)), *_wrap(_numbers(result), "  "), "", *_table(result)]
    for warning in result.warnings:
        lines += ["", *_wrap(f"{warning.severity}: {warning.sentence} [{warning.id}]", "", "  ")]
    if not result.warnings:
        lines += ["", "No warnings."]
    return "\n".join(lines)


def _headline(result: Forecast) -> str:
    present = result.counts[result.counts > 0]
    plan = result.plan
    parts = [
        f"{result.counts.size:,} classes",
        f"{result.counts.sum():,.0f} rows",
        f"largest class {present.max() / present.min():,.0f} times the smallest",
        _given("weights", plan.class_weight),
        _given("sampler", plan.sampler_rate),
    ]
    parts += [f"label smoothing {plan.label_smoothing:g}"] if plan.label_smoothing else []
    parts += [f"batches of {plan.batch_size:,}"] if plan.batch_size else []
    return " · ".join(parts)


def _given(what: str, value: Any) -> str:
    return f"no {what}" if value is None else f"{value} {what}" if isinstance(value, str) else f"{what} given"


def _verdict(result: Forecast) -> str:
    if result.slope is None:
        return "All classes are equally frequent: there is no prior to correct."
    if "misordered-weights" in {warning.id for warning in result.warnings}:
        return "These weights belong to other classes: the counts will be pushed in the wrong places."
    tau = result.tau
    if tau > 1.2:
        mirrored = result.pattern == "mirrored"
        rest = "that fall where the true ones rise" if mirrored else "far too high for rare classes"
        return f"This over-corrects: expect predicted counts {rest}."
    if tau >= 0.8:
        return "This divides the class frequencies out once: expect flat predicted counts."
    if tau > 0.15:
        return "This corrects in part: between following the class frequencies and ignoring them."
    if tau >= -0.15:
        return "This leaves the class frequencies as they are: the setting for accuracy and for right probabilities."
    return "This favours the frequent classes beyond their frequency."


def _numbers(result: Forecast) -> str:
    text = f"expected tilt tau {result.tau:.2f} (0 none, 1 balanced, 2 twice), correlation {result.correlation:.2f}"
    if result.slope is not None:
        text += f"; predicted counts {result.pattern}, slope {result.slope:+.2f}"
    if result.smoothing_threshold is not None:
        text += f"; smoothing tolerates weight ratios up to {result.smoothing_threshold:,.0f}"
    return text


def _table(result: Forecast) -> list[str]:
    lines = [f"{'':18}{'rows':>12}{'true':>8}{'predicted':>22}{'recall':>20}"]
    lines.append(f"{'':38}{'without':>12}{'plan':>10}{'without':>12}{'plan':>8}")
    for row in group_table(result):
        lines.append(
            f"  {row['group']:<7}{row['classes']:>8,} {row['rows']:>12,.0f}{row['true']:>8.1%}"
            f"{row['predicted_plain']:>12.1%}{row['predicted_plan']:>10.1%}"
            f"{row['recall_plain']:>12.2f}{row['recall_plan']:>8.2f}"
        )
    plain, plan = result.plain, result.expected
    origin = "assumed" if result.plan.accuracy is None else "yours"
    lines.append(f"  accuracy {plain.accuracy:.3f} ({origin}) -> {plan.accuracy:.3f}")
    lines.append(f"  balanced accuracy {plain.balanced_accuracy:.3f} -> {plan.balanced_accuracy:.3f}")
    lines.append(
        "  Predicted shares, recalls and accuracies are those of a model classifier with equally hard classes."
    )
    return lines


def _wrap(text: str, first: str = "", later: str | None = None) -> list[str]:
    later = first if later is None else later
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False)


def _finite(values: Floats) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
