"""Run the audit over planted cases and count right answers and false accusations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .cases import Case

FINE = frozenset({"healthy", "argmax-amplification"})


@dataclass(frozen=True)
class Verdict:
    """What the audit said about a case; `tau` and its interval are None for labels only."""

    case: Case
    first: str
    findings: tuple[tuple[str, str, float], ...]
    tau: float | None
    interval: tuple[float, float] | None

    @property
    def right(self) -> bool:
        return self.first in self.case.acceptable

    @property
    def accusations(self) -> tuple[str, ...]:
        """Causes of faults and warnings that a sound case does not deserve."""
        excused = FINE | self.case.acceptable
        return tuple(c for c, severity, _ in self.findings if severity in ("fault", "warning") and c not in excused)

    @property
    def ok(self) -> bool:
        return not self.accusations if self.case.sound else self.right


def judge_case(case: Case) -> Verdict:
    from evenhand.auditing import audit_predictions
    from evenhand.files import from_arrays

    audit = audit_predictions(from_arrays(**case.arrays))
    findings = tuple((f.cause, f.severity, f.probability) for f in audit.findings)
    tilt: dict[str, Any] = audit.tilt or {}
    interval = tilt.get("tau_interval")
    return Verdict(
        case, findings[0][0], findings, tilt.get("tau"), None if interval is None else (interval[0], interval[1])
    )


@dataclass(frozen=True)
class Score:
    """Counts over many verdicts: rights among effective faulty cases, accused among sound ones."""

    effective: int
    right: int
    sound: int
    accused: int
    misses: tuple[Verdict, ...]

    @property
    def accuracy(self) -> float:
        return self.right / max(self.effective, 1)

    @property
    def false_alarms(self) -> float:
        return self.accused / max(self.sound, 1)


def score(verdicts: Iterable[Verdict]) -> Score:
    counted = [v for v in verdicts if v.case.sound or v.case.effective]
    faulty, sound = [v for v in counted if not v.case.sound], [v for v in counted if v.case.sound]
    return Score(
        effective=len(faulty),
        right=sum(v.right for v in faulty),
        sound=len(sound),
        accused=sum(bool(v.accusations) for v in sound),
        misses=tuple(v for v in counted if not v.ok),
    )


def miss_line(verdict: Verdict) -> str:
    case, setting = verdict.case, verdict.case.setting
    said = ", ".join(f"{cause} ({severity} {probability:.2f})" for cause, severity, probability in verdict.findings[:3])
    tau = "" if verdict.tau is None else f" tau {verdict.tau:+.2f}"
    return f"{case.cause}/{case.variant} -> {said}{tau}; effect {case.effect:.3f}, {case.nats:.0f} nats; {setting}"


def table(result: Score) -> str:
    """The misses, most frequent kind first, each with the setting that reproduces it."""
    kinds = Counter((v.case.cause, v.case.variant, v.first) for v in result.misses)
    lines = [
        f"right first finding {result.right} of {result.effective} ({result.accuracy:.1%}); "
        f"falsely accused {result.accused} of {result.sound} ({result.false_alarms:.1%})"
    ]
    lines += [f"{count:4d}  {cause}/{variant} -> {found}" for (cause, variant, found), count in kinds.most_common()]
    return "\n".join([*lines, *map(miss_line, result.misses)])


def confusion(verdicts: Iterable[Verdict]) -> str:
    """Planted cause against first finding, effective and sound cases only."""
    counted = Counter((v.case.cause, v.first) for v in verdicts if v.case.sound or v.case.effective)
    lines = []
    for planted in sorted({cause for cause, _ in counted}):
        found = sorted(((n, first) for (cause, first), n in counted.items() if cause == planted), reverse=True)
        lines.append(f"{planted:24s} " + ", ".join(f"{first} {n}" for n, first in found))
    return "\n".join(lines)
