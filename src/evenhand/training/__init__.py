"""Training for unevenly frequent classes: remedies, a loop that trains them alike, and the race between them.

Needs torch. Names are imported on first use. For loops of your own:

    >>> from evenhand.training import samplers, schedules
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.training.fitting import Recipe as Recipe
    from evenhand.training.fitting import Training as Training
    from evenhand.training.fitting import fit as fit
    from evenhand.training.fitting import predict_logits as predict_logits
    from evenhand.training.racing.api import race as race
    from evenhand.training.racing.result import RaceResult as RaceResult
    from evenhand.training.remedies import REMEDIES as REMEDIES
    from evenhand.training.remedies import Remedy as Remedy
    from evenhand.training.remedies import parse_remedies as parse_remedies
    from evenhand.training.remedies import parse_remedy as parse_remedy

_HOME = {
    "REMEDIES": "remedies",
    "RaceResult": "racing.result",
    "Recipe": "fitting",
    "Remedy": "remedies",
    "Training": "fitting",
    "fit": "fitting",
    "parse_remedies": "remedies",
    "parse_remedy": "remedies",
    "predict_logits": "fitting",
    "race": "racing.api",
}

_MODULES = ("samplers", "schedules")

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"evenhand.training.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'evenhand.training' has no attribute {name!r}")
    return getattr(import_module(f"evenhand.training.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
