"""The flat numbers of an audit, which training loops log after every epoch: no causes, no fix."""

from __future__ import annotations

from evenhand import metrics
from evenhand.audit_figures import pattern
from evenhand.evidence import Evidence
from evenhand.scanning import workers
from evenhand.tally import Tally

SHOWN = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "nll",
    "ece",
    "count_distance",
    "slope",
    "tau",
    "beta",
)  # in one line


def scalars(e: Evidence, prefix: str = "") -> dict[str, float]:
    """Flat numbers, each with `prefix` before its name; what is unknown is left out.

    `accuracy`, `balanced_accuracy`, `macro_f1`, `nll`, `ece`; `accuracy_head`, `accuracy_medium`, `accuracy_tail`;
    `count_distance` between predicted and true counts, in [0, 1]; `slope` of log predicted on log true counts; `tau`
    with its 95 % interval `tau_low`, `tau_high`, and `beta`.
    """
    m = metrics.metrics(e.tally, e.prior_counts)
    flat = {name: m[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")}
    flat |= {f"accuracy_{name}": group["accuracy"] for name, group in m["groups"].items()}
    flat |= {"count_distance": e.hard_distance, "slope": pattern(e)["slope"]}
    if e.fit is not None:
        low, high = e.fit.tau_interval[0].tolist()
        flat |= {"tau": float(e.fit.tau[0]), "tau_low": low, "tau_high": high, "beta": e.fit.beta}
    return {f"{prefix}{name}": float(value) for name, value in flat.items() if value is not None}


def tally_scalars(tally: Tally, prefix: str = "") -> dict[str, float]:
    """`scalars` of a tally: its metrics and one likelihood fit, a fraction of the time of an audit."""
    return scalars(Evidence(tally, None, workers()), prefix)
