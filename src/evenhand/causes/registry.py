"""How a cause is written: a function from evidence to a verdict, registered where it is defined.

To add a cause, write one function in the file of its family and decorate it with `cause`; add
docs/causes/<id>.md. Nothing else needs to change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from evenhand.evidence import Evidence
from evenhand.findings import Finding, Severity


@dataclass(frozen=True)
class Verdict:
    """What a cause says when it applies; `evenhand.findings.Finding` describes the fields."""

    severity: Severity
    probability: float
    sentence: str
    evidence: dict[str, Any]
    remedy: str
    snippets: dict[str, str] = field(default_factory=dict)
    surer: str = ""


Check = Callable[[Evidence], Verdict | None]


@dataclass(frozen=True)
class Cause:
    """A registered cause.

    Attributes:
        id, code, title: as in the findings. check: evidence -> verdict or None.
        explains: ids that this cause explains away when it is found.
        needs_scores: whether labels alone are not enough.
    """

    id: str
    code: str
    title: str
    check: Check
    explains: frozenset[str]
    needs_scores: bool

    def __call__(self, evidence: Evidence) -> Finding | None:
        """Run the check and put the cause's name on its verdict."""
        if self.needs_scores and not evidence.fitted:
            return None
        verdict = self.check(evidence)
        if verdict is None:
            return None
        return Finding(
            cause=self.id,
            code=self.code,
            title=self.title,
            severity=verdict.severity,
            probability=round(min(max(verdict.probability, 0.01), 0.99), 2),
            sentence=verdict.sentence,
            evidence=verdict.evidence,
            remedy=verdict.remedy,
            snippets=verdict.snippets,
            surer=verdict.surer,
        )


REGISTRY: dict[str, Cause] = {}


def cause(
    cause_id: str, code: str, title: str, *, explains: tuple[str, ...] = (), needs_scores: bool = False
) -> Callable[[Check], Check]:
    """Register a check under an id, a stable code and a title.

    Args:
        explains: causes whose signature this one produces as well: they are dropped when this one is found.
        needs_scores: whether labels alone are not enough.
    """

    def register(check: Check) -> Check:
        REGISTRY[cause_id] = Cause(cause_id, code, title, check, frozenset(explains), needs_scores)
        return check

    return register


TILT_CAUSES = ("class-weights", "partial-weights", "sampler", "double-correction", "inverted-weights")


def percent(share: float) -> str:
    """0.034 -> '3.4%'; two significant digits below ten percent.

    Example:
        >>> percent(0.034), percent(0.5), percent(0.00012)
        ('3.4%', '50%', '0.012%')
    """
    value = 100 * share
    return f"{value:.0f}%" if value >= 10 or value == 0 else f"{value:.2g}%"


def class_label(evidence: Evidence, c: int) -> str:
    """A class in a sentence: its name, with the number where several classes have that name or it has none."""
    names = evidence.declared.class_names
    if names is None or not names[c].strip():
        return f"class {c}"
    return f"{names[c]} (class {c})" if names.count(names[c]) > 1 else names[c]


def some_names(evidence: Evidence, classes: list[int], limit: int = 3) -> str:
    """The first few classes by name, for a sentence."""
    shown = [class_label(evidence, c) for c in classes[:limit]]
    more = f" and {len(classes) - limit} more" if len(classes) > limit else ""
    return ", ".join(shown) + more
