"""What every page of the report shares: templates, styles, and a policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evenhand.report import formats as fm

_POLICY: Final = (
    "default-src 'none'; script-src {script}; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'"
)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evenhand.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": fm.number, "plain": fm.plain, "fixed": fm.fixed, "interval": fm.interval}
    return environment


@cache
def _asset(name: str) -> tuple[str, str]:
    """A style or script of the page and its hash for the content security policy."""
    text = files("evenhand.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text, "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def render_page(template: str, *, scripted: bool, **context: Any) -> str:
    """A page from a template of this package, with the style and, where it is `scripted`, the script of the report.

    A content security policy in the page forbids every request and every script but its own. The template gets
    ``style``, ``script``, ``policy`` and the number formats ``fm``.
    """
    style, style_hash = _asset("report.css")
    script, script_hash = _asset("report.js") if scripted else ("", "")
    policy = _POLICY.format(script=f"'{script_hash}'" if scripted else "'none'", style=style_hash)
    shared = {"style": Markup(style), "script": Markup(script), "policy": policy, "fm": fm}
    return _environment().get_template(template).render(**shared, **context)
