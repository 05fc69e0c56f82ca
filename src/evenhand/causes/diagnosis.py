"""From what the causes say to one ordered list."""

from __future__ import annotations

import dataclasses

from evenhand.causes.judging import effective_plan, surely_less
from evenhand.causes.registry import REGISTRY
from evenhand.evidence import Evidence
from evenhand.findings import Finding

# Said only when nothing else is found; the first that applies.
RESIDUAL = ("unexplained", "argmax-amplification", "healthy")

# Goals that balanced weights serve, in words; the mean F1 is not among them: what they find they pay for in precision.
LEVEL = {
    "balanced-accuracy": "balanced accuracy",
    "g-mean": "the geometric mean of the recalls",
    "worst-group": "the worst of head, medium and tail",
}


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, most likely cause first; when no cause is found exactly one: `unexplained`, else
    `argmax-amplification`, else `healthy`.

    Causes lower in the pipeline (labels, weights, head) leave the signatures of later ones behind, so a finding
    explains away the causes it lists. Equal probabilities keep the order of the families: data, weights, head, tilt,
    decision.
    """
    found: dict[str, Finding] = {}
    explained: set[str] = set()
    for family in ("EH1", "EH2", "EH4", "EH3", "EH5"):
        for entry in REGISTRY.values():
            if entry.code.startswith(family) and entry.id not in explained and entry.id not in RESIDUAL:
                finding = entry(evidence)
                if finding is not None:
                    found[entry.id] = finding
                    explained |= entry.explains
    kept = [f for f in found.values() if f.cause not in explained]
    if kept:
        return tuple(sorted(kept, key=lambda f: -f.probability))
    verdicts = (REGISTRY[name](evidence) for name in RESIDUAL)
    return tuple(v for v in verdicts if v is not None)[:1]


def serve_goal(findings: tuple[Finding, ...], evidence: Evidence, goal: str) -> tuple[Finding, ...]:
    """The findings as they are to be judged by the goal: a declared plan that serves it is a note, not a warning.

    Only for goals that count every class alike, however rare it is (`LEVEL`), and only for declared weights or a
    declared sampler that act as planned.
    """
    if goal not in LEVEL:
        return findings
    return tuple(_as_wanted(f, goal) if _planned(f, evidence) else f for f in findings)


def _planned(finding: Finding, evidence: Evidence) -> bool:
    plan, fit = effective_plan(evidence), evidence.fit
    if finding.cause not in ("class-weights", "sampler") or plan is None or fit is None:
        return False
    return plan.tau > 0 and float(fit.tau[0]) > 0 and not surely_less(evidence)


def _as_wanted(finding: Finding, goal: str) -> Finding:
    what = "weights" if finding.cause == "class-weights" else "sampler"
    serves = "serve" if what == "weights" else "serves"
    said = (
        f"Nothing to repair: {LEVEL[goal]} is the goal and the {what} {serves} it, at the price of accuracy and of "
        "right counts."
    )
    return dataclasses.replace(finding, severity="note", remedy=said, snippets={})
