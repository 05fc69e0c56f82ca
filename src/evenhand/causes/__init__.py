"""Causes: one file per family; `diagnose` runs them all and orders what they find."""

from evenhand.causes import data, decision, head, tilt, weights
from evenhand.causes.diagnosis import diagnose
from evenhand.causes.registry import REGISTRY, Cause, Verdict, cause

__all__ = ["REGISTRY", "Cause", "Verdict", "cause", "data", "decision", "diagnose", "head", "tilt", "weights"]
