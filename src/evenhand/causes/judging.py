"""When a measured tilt counts: beyond what sound models show, beyond its noise, and as the declared plan has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.causes.advising import rates_of_rows
from evenhand.causes.registry import percent
from evenhand.evidence import Evidence
from evenhand.plan import Plan
from evenhand.scatter import steadied
from evenhand.tilt import TiltFit

SOUND = 0.25  # soundly trained networks show |tau| up to about this much
FULL = 0.8  # a plan whose expressed fraction is surely below this is expressed in part


def tilt_evidence(e: Evidence) -> dict[str, Any]:
    """The numbers behind every tilt finding."""
    fit = e.fit
    if fit is None:
        return {}
    found: dict[str, Any] = {
        "tau": round(float(fit.tau[0]), 3),
        "tau_interval": [round(float(v), 3) for v in fit.tau_interval[0]],
        "beta": round(fit.beta, 3),
        "share": None if e.share is None else round(e.share, 3),
        "score_z": round(fit.score.z, 1),
        "rows_used": fit.rows,
        "training_counts_given": e.train_given,
    }
    if e.plan is not None and e.plan_fit is not None:
        found |= {
            "planned_tau": round(e.plan.tau, 3),
            "expressed_fraction": round(float(e.plan_fit.tau[0]), 3),
            "expressed_interval": [round(float(v), 3) for v in e.plan_fit.tau_interval[0]],
            "correlation_with_plan": round(e.correlation(e.plan.direction), 3),
        }
    return found


def interval(fit: TiltFit) -> tuple[float, float, float]:
    """(estimate, low, high) along the first direction."""
    low, high = fit.tau_interval[0]
    return float(fit.tau[0]), float(low), float(high)


def described(e: Evidence) -> str:
    """'tau 0.92 (0.90 to 0.94)'; the z keeps a rounded minus zero from being shown as -0.00."""
    if e.fit is None:
        return ""
    tau, low, high = interval(e.fit)
    return f"tau {tau:z.2f} ({low:z.2f} to {high:z.2f})"


def explained(e: Evidence) -> str:
    """What one number explains, as the end of a sentence."""
    return "" if e.share is None else f"; this alone explains {percent(e.share)} of the class bias"


def material(e: Evidence, tau: float, low: float, high: float) -> bool:
    """Beyond what soundly trained models show, by size as well as by significance, and the right shape."""
    if e.declared.extra.get("corrected"):
        return False  # a corrected file is tilted on purpose, for its goal
    beyond = (tau > 0.3 and low > SOUND) or (tau < -0.3 and high < -SOUND)
    if effective_plan(e) is None:  # nothing declared to expect it: a false accusation must be rarer than one in twenty
        beyond = beyond and abs(tau) > 4 * (high - low) / (2 * 1.96)
    further, stretch = beyond_the_line(e, tau)
    beyond = beyond and abs(tau) / stretch > 0.25 and np.sign(further) == np.sign(tau) and abs(further) > 0.25
    return bool(beyond and (e.share is None or e.share > 0.25))


def beyond_the_line(e: Evidence, tau: float) -> tuple[float, float]:
    """How far tau lies beyond 1 - beta, and the stretch max(beta, 1); both in units of the logits as they are.

    A network that learned the prior well and the evidence too timidly (or boldly) fits tau = 1 - beta exactly: its soft
    counts are right. Only what goes beyond that line, on the same side, is a tilt.
    """
    beta = e.beta if e.fit is None else steadied(e.fit)[3]
    stretch = max(beta, 1.0)
    return float((tau - (1 - beta)) / stretch), stretch


def unfinished(e: Evidence, tau: float) -> bool:
    """Whether a tilt towards frequent classes is what training leaves that stopped early.

    Networks learn frequent classes first. On six real sets plain training of a few epochs has beta 1.2 to 2.4 and tau / beta
    -0.2 to -0.8; weights proportional to the counts have -1 and below, finished or not.
    """
    timid = e.fit is not None and e.fit.beta_interval[0] > 1.1
    return timid and -0.9 < tau / beyond_the_line(e, tau)[1] < 0


def surer(e: Evidence) -> str:
    """What would make a tilt finding more certain."""
    missing = []
    if not e.train_given:
        missing.append("the training counts (the evaluation counts stand in)")
    if e.declared.class_weight is None and e.declared.sampler_rate is None:
        missing.append("the loss weights and sampler rates")
    wanted = [f"Give {' and '.join(missing)}."] if missing else []
    return " ".join([*wanted, *rates_of_rows(e)])


def effective_plan(e: Evidence) -> Plan | None:
    """The declared plan, unless it is too weak to leave a trace that could be told from none."""
    weak = e.plan is None or e.plan.spread < 0.05 or e.declared.extra.get("corrected")
    return None if weak else e.plan


def names_of(plan: Plan) -> str:
    """What was declared, in words."""
    if plan.weight_direction is not None and plan.sampler_direction is not None:
        return "weights and sampler together"
    return "weights" if plan.weight_direction is not None else "sampler"


def expressed_in_full(e: Evidence, plan: Plan) -> bool:
    """The fraction expressed is surely above none, and not surely below `FULL`."""
    if e.plan_fit is None:
        return False
    _, low, _ = e.fraction_judged
    if scattered(e, plan) or surely_less(e):
        return False
    return low > 0.1 and abs(float(e.plan_fit.tau[0])) * plan.spread > 0.05


def surely_less(e: Evidence) -> bool:
    """Whether the expressed fraction is below `FULL` beyond reasonable doubt (about three standard errors)."""
    fraction, _, high = e.fraction_judged
    return bool(fraction + 1.6 * (high - fraction) < FULL)


def scattered(e: Evidence, plan: Plan) -> bool:
    """Whether the class biases left around the plan are as large as the plan: then the model follows something else.

    They are measured in units of the logits as they are: a plan that the model does not follow makes these worthless,
    so that the fit shrinks them, and the biases with them, and takes the prior from the plan instead.
    """
    shrunk = 1.0 if e.plan_fit is None else float(np.clip(steadied(e.plan_fit)[3], 0.05, 1.0))
    return bool(e.plan_scatter.z > 5 and np.sqrt(e.plan_scatter.variance) / shrunk > max(0.4, 0.4 * plan.spread))


def weak_evidence(e: Evidence) -> str:
    """Why nothing is said about the tilt, if nothing can be."""
    if not e.scored:
        return "no logits: only the count pattern can be judged"
    if not e.fitted:
        return f"{len(e.y)} rows are too few to measure a tilt"
    if e.fit is None:
        return "the classes are equally frequent, so there is no prior to divide out; give the training counts"
    width = float(np.diff(e.fit.tau_interval[0])[0])
    return f"the interval of tau is {width:.1f} wide: too few rows to say more" if width > 0.8 else ""
