"""The verdict in a terminal: what a colleague would say, the number that proves it, what to do and what it costs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from evenhand.report import formats as fm
from evenhand.report import wording as w

if TYPE_CHECKING:
    from evenhand.auditing import Audit, Finding

_COLOUR = {"fault": "bold red", "warning": "bold yellow", "note": "bold blue", "sound": "bold green"}
_CHANGE = {"better": "green", "worse": "yellow", "no clear change": "dim"}
_MARK = {"fault": "✗", "warning": "!", "note": "i", "sound": "✓"}


def print_audit(audit: Audit, console: Console | None = None) -> None:
    """Print the verdict. Every text goes through ``rich.text.Text``: class and file names cannot smuggle markup.

    Args:
        audit: the audit.
        console: where to print; standard output when left out. Colours follow the console (``NO_COLOR`` is respected).
    """
    out = console or Console(highlight=False)
    if out.is_terminal:
        _print(out, audit)
        return
    # Lines are padded to the width while they are laid out; a file or the next program should not get the blanks.
    with out.capture() as captured:
        _print(out, audit)
    out.file.write("\n".join(line.rstrip() for line in captured.get().rstrip().splitlines()) + "\n")


def _print(out: Console, audit: Audit) -> None:
    out.print(Text(" · ".join([fm.plain(audit.name), *w.facts(audit)]), style="dim"))
    out.print()
    _first(out, audit, audit.findings[0])
    _fix(out, audit)
    for finding in audit.findings[1:]:
        _further(out, audit, finding)


def to_text(audit: Audit, width: int = 100) -> str:
    """The same verdict as plain text, without colours.

    Args:
        audit: the audit.
        width: columns to wrap at.
    """
    buffer = io.StringIO()
    print_audit(audit, Console(file=buffer, width=width, no_color=True, force_terminal=False, highlight=False))
    return buffer.getvalue()


def _indent(out: Console, text: Text, by: int = 2) -> None:
    out.print(Padding(text, (0, 0, 0, by)))


def _proof(out: Console, line: str, cause: str | None) -> None:
    """One line of evidence; the cause's id stands at the right edge where it fits, below it otherwise."""
    text = Text(line)
    tag = Text(f"[{fm.plain(cause)}]", style="cyan") if cause else Text()
    room = out.width - 2 - text.cell_len - tag.cell_len
    if cause:
        text.append(" " * room if room >= 2 else " ")
        text.append_text(tag)
    _indent(out, text)


def _first(out: Console, audit: Audit, finding: Finding) -> None:
    severity = w.severity_of(finding)
    out.print(Text(f"{w.SEVERITY[severity]}: {w.headline(finding)[0]}", style=_COLOUR[severity]))
    lines = [*w.proof(audit, finding), w.pattern_line(audit)]
    for i, line in enumerate(lines):
        _proof(out, line, finding.cause if i == 0 else None)
    if finding.surer:
        _indent(out, Text(f"To be surer: {fm.plain(finding.surer)}", style="dim"))
    out.print()
    if severity != "sound":
        out.print(Text(fm.plain(finding.remedy)))
        out.print()


def _fix(out: Console, audit: Audit) -> None:
    rows = w.fix_rows(audit)
    why = w.why(audit)
    if not rows and not why:
        return
    out.print(Text(w.fix_heading(audit), style="bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        after = Text(row["after"], style=_CHANGE[row["change"]])
        note = " ".join(part for part in (row["interval"], row["change"] if row["change"] != "better" else "") if part)
        grid.add_row(Text(row["metric"]), Text(f"{row['before']} ->"), after, Text(note, style="dim"))
    if rows:
        out.print(Padding(grid, (0, 0, 0, 2)))
    if why:
        _indent(out, Text(why))
    command = w.fix_command(audit)
    if command and audit.fix.get("recommended"):
        _indent(out, Text(command, style="cyan", no_wrap=True, overflow="ignore"))
    out.print()


def _further(out: Console, audit: Audit, finding: Finding) -> None:
    severity = w.severity_of(finding)
    head = Text(f"{_MARK[severity]} ", style=_COLOUR[severity])
    head.append(f"{w.SEVERITY[severity]}: {w.headline(finding)[0]}")
    out.print(head)
    for i, line in enumerate(w.proof(audit, finding) or [""]):
        _proof(out, line, finding.cause if i == 0 else None)
    if finding.remedy:
        _indent(out, Text(fm.plain(finding.remedy)))
    if finding.surer:
        _indent(out, Text(f"To be surer: {fm.plain(finding.surer)}", style="dim"))
    out.print()
