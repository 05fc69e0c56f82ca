"""``--fail-on``: rules that turn an audit into an exit code."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenhand.declared import InputError

if TYPE_CHECKING:
    from evenhand.auditing import Audit

FIGURES: dict[str, Callable[[Any], Any]] = {
    "tilt": lambda audit: (audit.tilt or {}).get("tau"),
    "tau": lambda audit: (audit.tilt or {}).get("tau"),
    "beta": lambda audit: (audit.tilt or {}).get("beta"),
    "accuracy": lambda audit: audit.metrics.get("accuracy"),
    "balanced_accuracy": lambda audit: audit.metrics.get("balanced_accuracy"),
    "macro_f1": lambda audit: audit.metrics.get("macro_f1"),
    "nll": lambda audit: audit.metrics.get("nll"),
    "ece": lambda audit: audit.metrics.get("ece"),
    "slope": lambda audit: audit.pattern.get("slope"),
    "spearman": lambda audit: audit.pattern.get("spearman"),
    "total_variation": lambda audit: audit.total_variation.get("hard"),
    "soft_total_variation": lambda audit: audit.total_variation.get("soft"),
    "head_accuracy": lambda audit: audit.metrics["groups"].get("head", {}).get("accuracy"),
    "medium_accuracy": lambda audit: audit.metrics["groups"].get("medium", {}).get("accuracy"),
    "tail_accuracy": lambda audit: audit.metrics["groups"].get("tail", {}).get("accuracy"),
}

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}

COMPARISON = re.compile(
    r"\s*(?P<name>[a-z][a-z0-9_-]*)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*"
)


@dataclass(frozen=True)
class Rule:
    """One ``--fail-on`` rule as it was written, and the test it stands for."""

    text: str
    met: Callable[[Audit], bool]


def parse_rule(text: str) -> Rule:
    """Understand ``any``, ``cause=ID`` or a comparison such as ``tilt>1.2``.

    Raises:
        InputError: the rule is none of these, or names an unknown cause or figure.

    Example:
        >>> parse_rule("tilt > 1.2").text
        'tilt > 1.2'
        >>> parse_rule("tilt=1.2")
        Traceback (most recent call last):
        ...
        evenhand.declared.InputError: --fail-on expects any, cause=ID or a comparison such as tilt>1.2 but got 'tilt=1.2'; see docs/cli.md
    """  # noqa: E501
    if text.strip() == "any":
        return Rule(text, lambda audit: any(finding.severity != "note" for finding in audit.findings))
    left, equals, cause = (part.strip() for part in text.partition("="))
    if left == "cause" and equals:
        from evenhand.causes import REGISTRY

        if cause not in REGISTRY:
            raise InputError(f"--fail-on names the unknown cause {cause[:40]!r}; choose one of {', '.join(REGISTRY)}")
        return Rule(text, lambda audit: any(finding.cause == cause for finding in audit.findings))
    found = COMPARISON.fullmatch(text)
    if found is None:
        raise InputError(
            f"--fail-on expects any, cause=ID or a comparison such as tilt>1.2 but got {text[:40]!r}; see docs/cli.md"
        )
    name = found["name"].replace("-", "_")
    if name not in FIGURES:
        raise InputError(
            f"--fail-on names the unknown figure {found['name'][:40]!r}; choose one of {', '.join(FIGURES)}"
        )
    return Rule(text, lambda audit: _compare(text, FIGURES[name](audit), found["sign"], float(found["bound"])))


def _compare(text: str, value: float | None, sign: str, bound: float) -> bool:
    """A figure the input cannot give must not pass a gate in silence."""
    if value is None or not math.isfinite(value):
        raise InputError(
            f"--fail-on {text!r} cannot be judged because this input does not give that figure; "
            "pass logits instead of labels or drop the rule"
        )
    return COMPARISONS[sign](value, bound)
