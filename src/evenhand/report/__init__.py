"""One audit, several faces: HTML, JSON, Markdown, terminal and figures, all reading the same frozen ``Audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evenhand.report.jsonify import to_dict, to_json
from evenhand.report.markdown import to_markdown

if TYPE_CHECKING:
    from evenhand.report.charts import figure, figures, save
    from evenhand.report.html import repr_html, to_html
    from evenhand.report.terminal import print_audit, to_text

__all__ = [
    "figure",
    "figures",
    "print_audit",
    "repr_html",
    "save",
    "to_dict",
    "to_html",
    "to_json",
    "to_markdown",
    "to_text",
]

_LAZY = {
    "figure": "charts",
    "figures": "charts",
    "save": "charts",
    "repr_html": "html",
    "to_html": "html",
    "print_audit": "terminal",
    "to_text": "terminal",
}


def __getattr__(name: str) -> Any:
    """Charts, templates and the terminal are loaded when they are first asked for: JSON alone stays quick."""
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
