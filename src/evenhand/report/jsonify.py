"""The audit as JSON: schema ``evenhand.audit/1``, every key documented in docs/json-schema.md."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from evenhand.auditing import Audit

SCHEMA: Final = "evenhand.audit/1"
_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "groups")
_TILT = ("tau", "tau_interval", "beta", "beta_interval", "share", "rows_used", "declared")
_FIX = ("goal", "offsets_file", "before", "after", "after_interval", "recommended", "why")
_FINDING = ("cause", "code", "title", "severity", "probability", "sentence", "evidence", "remedy", "snippets")
_ONE_LINE = 320


def to_dict(audit: Audit) -> dict[str, Any]:
    """The audit as plain JSON values (dict, list, str, int, float, bool, None).

    Numbers that are not finite become ``None``: JSON has no NaN. Class names are kept exactly as they were given.

    Args:
        audit: the audit.

    Returns:
        A dict with the keys of schema ``evenhand.audit/1``, safe to pass to ``json.dumps(..., allow_nan=False)``.
    """
    whole = {
        "schema": SCHEMA,
        "rows": audit.rows,
        "classes": audit.classes,
        "metrics": {key: audit.metrics.get(key) for key in _METRICS},
        "counts": {
            "true": audit.true,
            "predicted": audit.predicted,
            "expected": audit.expected,
            "total_variation": {key: audit.total_variation.get(key) for key in ("hard", "soft", "noise_floor")},
        },
        "pattern": {key: audit.pattern.get(key) for key in ("name", "slope", "slope_interval", "spearman")},
        "tilt": None if audit.tilt is None else _tilt(audit.tilt),
        "homogeneity": {key: audit.homogeneity.get(key) for key in ("statistic", "df", "p")},
        "findings": [{key: getattr(finding, key) for key in _FINDING} for finding in audit.findings],
        "fix": {key: audit.fix.get(key) for key in _FIX},
    }
    return {key: jsonable(value) for key, value in whole.items()} | {"classes_table": _class_rows(audit)}


def to_json(audit: Audit, indent: int = 2) -> str:
    """The audit as JSON text (ASCII only), ending without a newline.

    Args:
        audit: the audit.
        indent: spaces per level; number arrays and rows of the class table stay on one line. 0: all on one line.
    """
    return _layout(to_dict(audit), indent, 0) if indent else json.dumps(to_dict(audit), allow_nan=False)


def _tilt(tilt: dict[str, Any]) -> dict[str, Any]:
    declared = tilt.get("declared")
    kept = None if declared is None else {key: declared.get(key) for key in ("tau", "tau_interval", "correlation")}
    return {key: tilt.get(key) for key in _TILT} | {"declared": kept}


def _class_rows(audit: Audit) -> list[dict[str, Any]]:
    table = audit.table
    single = ("name", "true", "predicted", "expected", "recall", "precision", "q_value", "verdict")
    columns = {key: jsonable(table[key]) for key in single}
    if audit.expected is None:
        columns["expected"] = [None] * audit.classes
    low, high = jsonable(table["interval_low"]), jsonable(table["interval_high"])
    return [
        {
            "class": k,
            **{key: columns[key][k] for key in single[:6]},
            "interval": [low[k], high[k]],
            **{key: columns[key][k] for key in single[6:]},
        }
        for k in range(audit.classes)
    ]


def jsonable(value: Any) -> Any:
    """A value as JSON can hold it: arrays become lists, NumPy numbers Python's, NaN and infinities None.

    >>> jsonable({"a": np.array([1.0, np.nan]), "b": (np.int64(2), float("inf"))})
    {'a': [1.0, None], 'b': [2, None]}
    """
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"a JSON value (text, number, list, dict or None) was expected, but {type(value).__name__} came")


def _layout(value: Any, indent: int, level: int) -> str:
    """JSON broken over lines where a reader wants it: short or purely numeric containers stay on one line."""
    if not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, allow_nan=False)
    items = list(value.values()) if isinstance(value, dict) else value
    flat = not any(isinstance(item, (dict, list, str)) for item in items)
    if flat or (level > 0 and len(items) < 16):
        line = json.dumps(value, allow_nan=False)
        if (flat and isinstance(value, list)) or len(line) <= _ONE_LINE:
            return line
    inner, outer = " " * indent * (level + 1), " " * indent * level
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_layout(item, indent, level + 1)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [_layout(item, indent, level + 1) for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{outer}{closing}"
