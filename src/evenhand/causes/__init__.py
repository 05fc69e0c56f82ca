"""Causes: one file per family; `diagnose` runs them all and orders what they find."""

from evenhand.causes import data, decision, head, judging, padding, shift, tilt, weights
from evenhand.causes.diagnosis import diagnose, serve_goal
from evenhand.causes.registry import REGISTRY, Cause, Verdict, cause

__all__ = [
    "REGISTRY",
    "Cause",
    "Verdict",
    "cause",
    "data",
    "decision",
    "diagnose",
    "head",
    "judging",
    "padding",
    "serve_goal",
    "shift",
    "tilt",
    "weights",
]
