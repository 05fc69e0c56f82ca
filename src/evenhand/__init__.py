"""evenhand finds out why a classifier's predicted class counts do not match reality, and puts it right.

Names are imported on first use, so that ``import evenhand`` costs nothing and needs neither torch nor a plotting
library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.auditing import Audit as Audit
    from evenhand.auditing import audit as audit
    from evenhand.auditing import audit_predictions as audit_predictions
    from evenhand.auditing import audit_tally as audit_tally
    from evenhand.correction import Correction as Correction
    from evenhand.correction import fit_correction as fit_correction
    from evenhand.counts import ClassCounts as ClassCounts
    from evenhand.counts import class_counts as class_counts
    from evenhand.declared import Declared as Declared
    from evenhand.declared import InputError as InputError
    from evenhand.files import from_arrays as from_arrays
    from evenhand.files import open_predictions as open_predictions
    from evenhand.findings import Finding as Finding
    from evenhand.forecasting import Forecast as Forecast
    from evenhand.forecasting import Plan as Plan
    from evenhand.forecasting import forecast as forecast
    from evenhand.running import RunningTally as RunningTally
    from evenhand.scanning import tally_predictions as tally_predictions
    from evenhand.shift import PriorEstimate as PriorEstimate
    from evenhand.shift import estimate_prior as estimate_prior
    from evenhand.shift import labelled_reference as labelled_reference
    from evenhand.tally import Tally as Tally
    from evenhand.tilt import TiltFit as TiltFit
    from evenhand.tilt import fit_tilt as fit_tilt
    from evenhand.tilt import score_test as score_test
    from evenhand.weights import available_rules as available_rules
    from evenhand.weights import class_weights as class_weights
    from evenhand.weights import effective_weights as effective_weights

_HOME = {
    "Audit": "auditing",
    "ClassCounts": "counts",
    "Correction": "correction",
    "Declared": "declared",
    "Finding": "findings",
    "Forecast": "forecasting",
    "InputError": "declared",
    "Plan": "forecasting",
    "PriorEstimate": "shift",
    "RunningTally": "running",
    "Tally": "tally",
    "TiltFit": "tilt",
    "audit": "auditing",
    "audit_predictions": "auditing",
    "audit_tally": "auditing",
    "available_rules": "weights",
    "class_counts": "counts",
    "class_weights": "weights",
    "effective_weights": "weights",
    "estimate_prior": "shift",
    "fit_correction": "correction",
    "fit_tilt": "tilt",
    "forecast": "forecasting",
    "from_arrays": "files",
    "labelled_reference": "shift",
    "open_predictions": "files",
    "score_test": "tilt",
    "tally_predictions": "scanning",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("evenhand")
    if name in _HOME:
        return getattr(import_module(f"evenhand.{_HOME[name]}"), name)
    raise AttributeError(f"module 'evenhand' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
