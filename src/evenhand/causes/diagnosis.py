"""From what the causes say to one ordered list."""

from __future__ import annotations

from evenhand.causes.registry import REGISTRY
from evenhand.evidence import Evidence
from evenhand.findings import Finding

SOUND = ("argmax-amplification", "healthy")  # said only when nothing else is found; the first that applies


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, most likely cause first; when nothing is wrong exactly one: `argmax-amplification` or `healthy`.

    Causes lower in the pipeline (labels, weights, head) leave the signatures of later ones behind, so a finding
    explains away the causes it lists. Equal probabilities keep the order of the families: data, weights, head, tilt,
    decision.
    """
    found: dict[str, Finding] = {}
    explained: set[str] = set()
    for family in ("EH1", "EH2", "EH4", "EH3", "EH5"):
        for entry in REGISTRY.values():
            if entry.code.startswith(family) and entry.id not in explained and entry.id not in SOUND:
                finding = entry(evidence)
                if finding is not None:
                    found[entry.id] = finding
                    explained |= entry.explains
    kept = [f for f in found.values() if f.cause not in explained]
    if kept:
        return tuple(sorted(kept, key=lambda f: -f.probability))
    verdicts = (REGISTRY[name](evidence) for name in SOUND)
    return tuple(v for v in verdicts if v is not None)[:1]
