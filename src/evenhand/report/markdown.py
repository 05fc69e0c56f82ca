"""The audit as Markdown, for a pull request, an issue or a model card."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from evenhand.report import formats as fm
from evenhand.report import wording as w

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evenhand.auditing import Audit, Finding

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~$@&-])")
_TOP: Final = 20


def escape(text: object) -> str:
    """Untrusted text that Markdown shows literally: no markup, HTML, link, mention or table break survives.

    >>> escape("a|b <b>*x*")
    'a\\\\|b \\\\<b\\\\>\\\\*x\\\\*'
    """
    return _SPECIAL.sub(r"\\\1", fm.plain(text))


def to_markdown(audit: Audit) -> str:
    """The verdict, the effect of the fix, the class groups, the worst pairs and the classes furthest off, as Markdown.

    Args:
        audit: the audit.

    Returns:
        GitHub-flavoured Markdown ending in a newline. Only the 20 classes furthest off are listed, which the text says.
    """
    parts = [f"# Audit of {escape(audit.name)}", " · ".join(w.facts(audit))]
    first, *others = audit.findings
    parts += _finding(audit, first, level=2)
    parts += _fix(audit)
    if others:
        parts.append("## Further findings")
        for other in others:
            parts += _finding(audit, other, level=3)
    parts += [*_groups(audit), *_pairs(audit), *_classes(audit)]
    return "\n\n".join(parts) + "\n"


def _finding(audit: Audit, finding: Finding, *, level: int) -> list[str]:
    severity = w.SEVERITY[w.severity_of(finding)]
    parts = [f"{'#' * level} {escape(finding.title)}", escape(w.headline(finding)[0])]
    link = f"[{escape(finding.cause)}]({w.DOCS.format(fm.plain(finding.cause))})"
    parts.append(f"**{severity}** · {link} · {finding.code} · probability {finding.probability:.2f}")
    proof = [escape(line) for line in w.proof(audit, finding)]
    if level == 2:
        proof.append(escape(w.pattern_line(audit)))
    if proof:
        parts.append("\n".join(f"- {line}" for line in proof))
    parts.append(f"What to do: {escape(finding.remedy)}")
    if finding.surer:
        parts.append(f"To be surer: {escape(finding.surer)}")
    return parts


def _fix(audit: Audit) -> list[str]:
    parts = [f"## {escape(w.fix_heading(audit))}"]
    rows = w.fix_rows(audit)
    if rows:
        body = [(r["metric"], r["before"], r["after"], r["interval"], r["change"]) for r in rows]
        parts.append(_table(("metric", "before", "after", "95% interval", "change"), body))
    if w.fix_sample(audit):
        parts.append(escape(w.fix_sample(audit)))
    if w.why(audit):
        parts.append(escape(w.why(audit)))
    command = w.fix_command(audit)
    if command and audit.fix.get("recommended"):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
        parts.append(f"{fence}\n{command}\n{fence}")
    return parts


def _groups(audit: Audit) -> list[str]:
    rows = w.group_rows(audit)
    if not rows:
        return []
    body = [
        (r["name"], *(fm.number(r[key]) for key in ("classes", "rows", "predicted", "expected", "accuracy")))
        for r in rows
    ]
    return ["## Head, medium and tail", _table(("group", "classes", "true", "predicted", "expected", "accuracy"), body)]


def _pairs(audit: Audit) -> list[str]:
    if not audit.worst_pairs:
        return []
    body = [
        (
            escape(w.class_label(audit, pair["true"])),
            escape(w.class_label(audit, pair["predicted"])),
            fm.number(pair["rows"]),
            fm.number(pair["back"]),
        )
        for pair in audit.worst_pairs[:_TOP]
    ]
    return ["## Most lopsided pairs of classes", _table(("true class", "answered as", "rows", "the other way"), body)]


def _classes(audit: Audit) -> list[str]:
    off = np.argsort(-np.abs(audit.predicted - audit.true), kind="stable")[:_TOP]
    table = audit.table
    body = [
        (
            escape(w.class_label(audit, int(k))),
            *(fm.number(table[key][k]) for key in ("true", "predicted")),
            fm.NONE if audit.expected is None else fm.number(float(audit.expected[k]), 1),
            *(fm.number(float(table[key][k])) for key in ("recall", "precision")),
            escape(table["verdict"][k]),
        )
        for k in off
    ]
    head = ("class", "true", "predicted", "expected", "recall", "precision", "verdict")
    shown = f"{len(off)} of {audit.classes:,} classes" if audit.classes > len(off) else f"all {audit.classes} classes"
    return [f"## Classes furthest off ({shown})", _table(head, body)]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    lines += [" | ".join(row) for row in body]
    return "\n".join(f"| {line} |" for line in lines)
