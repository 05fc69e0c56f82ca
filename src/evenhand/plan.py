"""The declared plan as a direction: what weights and sampler should have done to the logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenhand.declared import Declared, Floats
from evenhand.orders import weighted_correlation


@dataclass(frozen=True)
class Plan:
    """The declared tilt, made usable: what weights and sampler should have done to the logits.

    Attributes:
        direction: (K,) ``-t``, centred, ``t = log w + log(q / pi)``: adding it to the logits would undo the plan.
        weight_direction, sampler_direction: the two parts, or None where not declared.
        usable: (K,) bool, classes whose declared values are finite and positive.
        tau: slope of the direction along the log prior: the tau that this plan predicts.
        weight_tau, sampler_tau: the same for the parts, 0 where not declared.
        correlation: of the direction with the log prior.
        spread: standard deviation of the direction over rows.
    """

    direction: Floats
    weight_direction: Floats | None
    sampler_direction: Floats | None
    tau: float
    weight_tau: float
    sampler_tau: float
    correlation: float
    spread: float


def declared_plan(declared: Declared, log_prior: Floats, weight: Floats) -> Plan | None:
    """Turn declared weights and sampler rates into a direction; unusable entries count as untilted."""
    k = len(log_prior)
    w, q = declared.class_weight, declared.sampler_rate
    parts: dict[str, Floats] = {}
    if w is not None and len(w) == k:
        parts["weight"] = -_log_or_neutral(w)
    if q is not None and len(q) == k:
        parts["sampler"] = -(_log_or_neutral(q) - log_prior)
    if "sampler" in parts and declared.train_counts is None:
        # Rates beside sampled counts always differ a little: only a clear relation to frequency is a plan.
        d = parts["sampler"]
        if abs(weighted_correlation(d, log_prior, weight)) < 0.6 or abs(_slope(d, log_prior, weight)) < 0.3:
            del parts["sampler"]
    parts = {name: d - d.mean() for name, d in parts.items() if np.ptp(d) > 1e-6}
    if not parts:
        return None
    direction = np.sum(list(parts.values()), axis=0)
    mean = weight / max(float(weight.sum()), 1e-300)
    return Plan(
        direction=direction,
        weight_direction=parts.get("weight"),
        sampler_direction=parts.get("sampler"),
        tau=_slope(direction, log_prior, weight),
        weight_tau=_slope(parts["weight"], log_prior, weight) if "weight" in parts else 0.0,
        sampler_tau=_slope(parts["sampler"], log_prior, weight) if "sampler" in parts else 0.0,
        correlation=weighted_correlation(direction, log_prior, weight),
        spread=float(np.sqrt(mean @ (direction - mean @ direction) ** 2)),
    )


def _log_or_neutral(values: Floats) -> Floats:
    """Logarithm; entries that are not finite and positive get the mean logarithm of the others."""
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        return np.zeros(len(values))
    out = np.zeros(len(values))
    out[good] = np.log(values[good])
    out[~good] = out[good].mean()
    return out


def _slope(y: Floats, x: Floats, weight: Floats) -> float:
    """Weighted least-squares slope of y on x; 0 where x is constant."""
    w = weight / max(float(weight.sum()), 1e-300)
    dx = x - w @ x
    variance = float(w @ dx**2)
    return float(w @ (dx * (y - w @ y))) / variance if variance > 1e-12 else 0.0
