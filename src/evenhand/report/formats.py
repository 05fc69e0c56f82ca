"""Untrusted text and numbers as they are shown: the same figure reads the same in every face of the report."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

NONE: Final = "–"
_UNSHOWABLE: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069\\ufdd0-\\ufdef\\ufffe\\uffff]"
)


def plain(text: object) -> str:
    """Untrusted text as one line: control characters, lone surrogates and direction overrides are taken out.

    The renderer of the static figures aborts the whole process on a character that XML does not allow, and a terminal
    obeys escape sequences, so every name passes here before it is shown.

    >>> plain("a\\x1b[31m\\u202eb\\nc")
    'a[31mb c'
    """
    return _UNSHOWABLE.sub("", " ".join(str(text).split()))


def number(value: object, digits: int = 3) -> str:
    """A count in full, anything else with sensible digits, a missing number as a dash.

    >>> number(30000), number(0.14721), number(4.96e-9), number(float("nan")), number(20345.23)
    ('30,000', '0.147', '5.0e-09', '–', '20,345')
    """
    if value is None or isinstance(value, str):
        return NONE if value is None else plain(value)
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    x = float(value)  # type: ignore[arg-type]
    if not math.isfinite(x):
        return NONE
    if x == 0 or abs(x) >= 1000:
        return f"{x:,.0f}"
    if abs(x) < 0.5 * 10.0**-digits:
        return f"{x:.1e}"
    return f"{x:.{digits}f}" if abs(x) < 10 else f"{x:.1f}"


def interval(pair: Sequence[float] | None, digits: int = 3) -> str:
    """``(0.90 to 0.94)``, or nothing when there is no interval.

    >>> interval([0.9, 0.94], 2), interval(None)
    ('(0.90 to 0.94)', '')
    """
    if pair is None or len(pair) != 2 or any(v is None or not math.isfinite(v) for v in pair):
        return ""
    return f"({fixed(pair[0], digits)} to {fixed(pair[1], digits)})"


def fixed(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number with a fixed count of decimals, minus zero shown as zero.

    >>> fixed(-0.001), fixed(0.164, sign=True)
    ('0.00', '+0.16')
    """
    if value is None or not math.isfinite(value):
        return NONE
    return f"{round(float(value), digits) + 0.0:{'+' if sign else ''}.{digits}f}"


def p_value(p: float | None) -> str:
    """``p < 0.001`` or ``p = 0.04``.

    >>> p_value(1e-30), p_value(0.0412)
    ('p < 0.001', 'p = 0.041')
    """
    if p is None or not math.isfinite(p):
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def times(ratio: float) -> str:
    """How a ratio of counts is said.

    >>> times(6.2), times(1.34), times(0.41), times(0.0)
    ('6.2 times too often', '1.34 times as often as they should', 'only 0.41 times as often as they should', 'never')
    """
    if ratio == 0:
        return "never"
    if ratio >= 1.95:
        return f"{ratio:,.0f} times too often" if ratio >= 10 else f"{ratio:.2g} times too often"
    if ratio >= 1:
        return f"{ratio:.2f} times as often as they should"
    return f"only {ratio:.2g} times as often as they should"


def shortened(text: str, limit: int = 60) -> str:
    """Text cut at ``limit`` characters with an ellipsis; a name of any length must not break a layout."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
