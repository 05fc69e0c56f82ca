"""Sentences shared by every face of the report: HTML, terminal and Markdown say the same."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from evenhand.report.formats import fixed, interval, number, plain, shortened, times

if TYPE_CHECKING:
    from evenhand.auditing import Audit, Finding

DOCS: Final = "https://github.com/evenhand/evenhand/blob/main/docs/causes/{}.md"
METRICS: Final = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "count_distance": "count distance",
    "total_variation": "count distance",
    "nll": "log loss",
    "ece": "calibration error",
    "worst_group": "worst group accuracy",
    "g_mean": "geometric mean of recalls",
}
CUT: Final = 26  # longer names may be cut by a layout
LOWER_IS_BETTER: Final = frozenset({"count_distance", "total_variation", "nll", "ece"})
SEVERITY: Final = {"fault": "Fault", "warning": "Warning", "note": "Note", "sound": "Sound"}
FRAMEWORKS: Final = {
    "pytorch": "PyTorch",
    "keras": "Keras",
    "huggingface": "Hugging Face",
    "lightning": "Lightning",
    "scikit-learn": "scikit-learn",
}


def severity_of(finding: Finding) -> str:
    """The severity to show: ``sound`` for a healthy model, unless its counts differ and only no cause was found."""
    flawless = finding.cause == "healthy" and finding.probability > 0.5 and not finding.evidence.get("counts_differ")
    return "sound" if flawless else finding.severity


def headline(finding: Finding) -> tuple[str, str]:
    """The sentence of a finding without, and then only, the figures it ends with in brackets.

    >>> from evenhand.auditing import Finding
    >>> said = "The weights worked (tau 0.92 (0.90 to 0.94); 96% of it)."
    >>> headline(Finding("class-weights", "EH301", "", "warning", 1.0, said, {}, ""))
    ('The weights worked.', 'tau 0.92 (0.90 to 0.94); 96% of it')
    """
    sentence = plain(finding.sentence)
    depth = 0
    if not sentence.endswith(")."):
        return sentence, ""
    for at in range(len(sentence) - 2, 0, -1):
        depth += {")": 1, "(": -1}.get(sentence[at], 0)
        if depth == 0:
            figures = any(character.isdigit() for character in sentence[at:])
            return (f"{sentence[:at].rstrip()}.", sentence[at + 1 : -2]) if figures else (sentence, "")
    return sentence, ""


def facts(audit: Audit) -> list[str]:
    """What was audited: rows, classes, what the file held, where the class prior comes from."""
    told = [f"{audit.rows:,} rows", f"{audit.classes:,} classes"]
    told.append({"logits": "logits", "probs": "probabilities", "predicted": "predicted labels only"}[audit.kind])
    given = audit.declared.train_counts is not None
    told.append("training counts given" if given else "no training counts: evaluation counts stand in")
    return told


def tilt_line(audit: Audit, finding: Finding | None = None) -> str | None:
    """tau with its interval, what was planned and the share of the class bias it explains; None for labels only.

    Figures that the sentence of ``finding`` has already said are not said again.
    """
    tilt = audit.tilt
    if tilt is None or tilt.get("tau") is None:
        return None
    said = "" if finding is None else finding.sentence
    parts = []
    if f"tau {fixed(tilt['tau'])}" not in said:
        parts.append(f"tau {fixed(tilt['tau'])} {interval(tilt.get('tau_interval'), 2)}".rstrip())
    # A vector with holes predicts no tilt: what its usable rest would predict contradicts the verdict.
    whole = finding is None or finding.cause != "incomplete-weights"
    declared = (tilt.get("declared") or {}) if whole else {}
    if declared.get("expected_tau") is not None and "predict" not in said:
        parts.append(f"your settings predict {fixed(declared['expected_tau'])}")
    if declared.get("tau") is not None and "fraction" not in said:
        how = f"{fixed(declared['tau'])} {interval(declared.get('tau_interval'), 2)}".rstrip()
        parts.append(f"{how} of what they ask for is expressed")
    share = tilt.get("share")
    if share is not None and math.isfinite(share) and tilt_matters(audit) and "explains" not in said:
        parts.append(f"this alone explains {min(max(share, 0), 1):.0%} of the class bias")
    parts.append(f"beta {fixed(tilt.get('beta'))} {interval(tilt.get('beta_interval'), 2)}".rstrip())
    if tilt.get("rows_used"):
        parts.append(f"fitted on {tilt['rows_used']:,} rows")
    return "; ".join(parts)


def tilt_matters(audit: Audit) -> bool:
    """Whether tau is beyond what soundly trained networks show (about 0.25)."""
    return audit.tilt is not None and abs(audit.tilt.get("tau") or 0.0) > 0.25


def pattern_line(audit: Audit) -> str:
    """How predicted counts follow true counts, and what that does to the rarest tenth of the classes."""
    pattern = audit.pattern
    slope = pattern.get("slope")
    shown = f" (slope {fixed(slope, sign=True)})" if slope is not None and math.isfinite(slope) else ""
    name = plain(pattern.get("name") or "of no clear pattern")
    level = " to the true ones" if name == "proportional" else ""
    known = audit.true if audit.declared.train_counts is None else audit.declared.train_counts
    rarest = np.argsort(np.asarray(known), kind="stable")[: max(1, audit.classes // 10)]
    true, predicted = float(audit.true[rarest].sum()), float(audit.predicted[rarest].sum())
    said = f"Predicted counts are {name}{level}{shown}"
    one = len(rarest) == 1
    who = f"the {'rarer' if audit.classes == 2 else 'rarest'} class" if one else f"the {len(rarest):,} rarest classes"
    if not true:
        does, them = ("does", "it") if one else ("do", "them")
        return f"{said}; {who} {does} not occur among these rows, {predicted:,.0f} predictions name {them}."
    ratio = predicted / true
    often = "about as often as they should" if 0.9 <= ratio <= 1.1 else times(ratio)
    often = f"{who} {'comes' if one else 'come'} out {often.replace('they', 'it') if one else often}"
    half = np.asarray(audit.table["interval_high"], np.float64)[rarest] - audit.true[rarest]
    if 0.9 <= ratio <= 1.1:
        return f"{said}; {often}."
    if abs(predicted - true) <= np.sqrt((half**2).sum()):
        return f"{said}; {often}, which is within sampling noise."
    if not shown and name == "proportional":  # too few classes for a slope: there is nothing to contrast
        return f"{often[0].upper()}{often[1:]}."
    expected = {"mirrored": ratio > 1, "flattened": ratio > 1, "amplified": ratio < 1}.get(name, False)
    return f"{said}{':' if expected else ', but'} {often}."


def proof(audit: Audit, finding: Finding, *, limit: int = 4) -> list[str]:
    """The numbers behind a finding: those of its sentence, then the tilt where it is the evidence.

    A finding of another kind that says no number in brackets shows the first figures of its evidence.
    """
    aside = headline(finding)[1]
    lines = [aside] if aside else []
    if "tau" in finding.evidence and (line := tilt_line(audit, finding)) is not None:
        lines.append(line)
    if not lines and finding.evidence:
        lines.append("; ".join(f"{key} {value}" for key, value in evidence_rows(finding.evidence)[:limit]))
    return lines


def evidence_rows(evidence: dict[str, Any]) -> list[tuple[str, str]]:
    """Evidence as label and text; an interval is put beside its number, nested tables are flattened."""
    rows: list[tuple[str, str]] = []
    for key, value in evidence.items():
        if key.endswith("_interval") and key.removesuffix("_interval") in evidence:
            continue
        label = plain(key).replace("_", " ")
        if isinstance(value, dict):
            rows += [(f"{label}: {inner}", text) for inner, text in evidence_rows(value)]
            continue
        small = isinstance(value, float) and value < 1e-3 and (label == "p" or label.endswith((" p", "p value")))
        text = "below 0.001" if small else _evidence_text(value)
        beside = evidence.get(f"{key}_interval")
        if isinstance(beside, (list, tuple)):
            text = f"{text} {interval(beside)}".rstrip()
        rows.append((label, text))
    return rows


def _evidence_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in evidence_rows(value))
    if isinstance(value, (list, tuple, np.ndarray)):
        shown = ", ".join(_evidence_text(item) for item in value[:8])
        return shown if len(value) <= 8 else f"{shown}, … ({len(value):,} in all)"
    return number(value)


def metric_name(key: str) -> str:
    """The words for a metric's key."""
    return METRICS.get(key, plain(key).replace("_", " "))


def why(audit: Audit) -> str:
    """Why the correction is recommended or not, as a sentence."""
    text = plain(audit.fix.get("why") or "")
    return "" if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def fix_heading(audit: Audit) -> str:
    """What to do without retraining, in one line."""
    if not audit.fix.get("recommended"):
        return "Without retraining: no correction recommended"
    if audit.tilt is not None and audit.fix.get("goal") == "accuracy" and tilt_matters(audit):
        return f"Without retraining: add {fixed(audit.tilt['tau'])} * log prior to the logits"
    return "Without retraining: add one offset per class to the logits"


def fix_rows(audit: Audit) -> list[dict[str, str]]:
    """Before and after of the fix: metric, before, after, interval of after, better or worse or no clear change."""
    before, after = audit.fix.get("before") or {}, audit.fix.get("after") or {}
    spans = audit.fix.get("after_interval") or {}
    return [
        {
            "metric": metric_name(key),
            "before": number(old),
            "after": number(after[key]),
            "interval": interval(spans.get(key)),
            "change": _change(audit.fix, key),
        }
        for key, old in before.items()
        if isinstance(old, (int, float)) and isinstance(after.get(key), (int, float))
    ]


def _change(fix: dict[str, Any], key: str) -> str:
    """Judged by the paired difference where there is one: on the same rows it is surer than two separate values."""
    old, new = fix["before"][key], fix["after"][key]
    paired = (fix.get("difference_interval") or {}).get(key)
    span, nothing = (paired, 0.0) if paired is not None else ((fix.get("after_interval") or {}).get(key), old)
    if new == old or (span is not None and span[0] <= nothing <= span[1]):
        return "no clear change"
    return "better" if (new > old) != (key in LOWER_IS_BETTER) else "worse"


def fix_sample(audit: Audit) -> str:
    """Which rows before and after are measured on, where those are not all: figures of all rows differ a little."""
    used = (audit.tilt or {}).get("rows_used")
    if not used or used >= audit.rows or not fix_rows(audit):
        return ""
    return f"Before and after are measured on a random sample of {used:,} of the {audit.rows:,} rows."


def fix_command(audit: Audit) -> str | None:
    """The command that writes the offsets, when there are logits or probabilities to fit them on."""
    if audit.kind == "predicted" or not audit.fix.get("before"):
        return None
    goal = str(audit.fix.get("goal") or "accuracy").replace("_", "-")
    name = plain(audit.name)
    if name.endswith(".tally.npz") or "." not in name:  # counts, or arrays of a program: no file to fit on
        where = "PREDICTIONS"
    elif name.endswith(".npy"):
        where = f"--{audit.kind} {shlex.quote(name)} --target Y.npy"
    else:
        where = shlex.quote(name)
    return f"evenhand fix {where} --goal {shlex.quote(plain(goal))} -o fix.json"


def group_rows(audit: Audit) -> list[dict[str, Any]]:
    """Head, medium and tail with their share of rows, predictions and expected predictions."""
    rows = []
    for name, group in (audit.metrics.get("groups") or {}).items():
        true, predicted = float(group.get("rows") or 0), float(group.get("predicted") or 0)
        rows.append(
            {
                "name": name,
                "classes": group.get("classes"),
                "rows": group.get("rows"),
                "predicted": group.get("predicted"),
                "expected": group.get("expected"),
                "accuracy": group.get("accuracy"),
                "ratio": predicted / true if true else None,
            }
        )
    return rows


def class_label(audit: Audit, k: int) -> str:
    """A class as shown in text: its name, ``class 17`` when it has none, ``cat #17`` when others look the same."""
    return " ".join(class_parts(audit, k)).rstrip()


def class_parts(audit: Audit, k: int) -> tuple[str, str]:
    """The name of a class and, where others may look the same, its number, which no layout may cut."""
    given = audit.table["name"]
    name = plain(given[k])
    if not name or name == str(k):
        return f"class {k}", ""
    short = shortened(name)
    return short, f"#{k}" if len(name) > CUT or list(given).count(given[k]) > 1 else ""
