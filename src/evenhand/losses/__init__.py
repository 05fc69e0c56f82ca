"""Losses for unevenly frequent classes: one tested family, exact under every reduction. Needs torch.

    >>> import torch
    >>> from evenhand import losses
    >>> criterion = losses.build("logit-adjusted", counts=[900, 90, 10], tau=1.0)
    >>> loss = criterion(torch.zeros(2, 3), torch.tensor([0, 2]))

Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.losses import shapes as shapes
    from evenhand.losses.adjusted import BalancedSoftmaxLoss as BalancedSoftmaxLoss
    from evenhand.losses.adjusted import CDTLoss as CDTLoss
    from evenhand.losses.adjusted import GCALoss as GCALoss
    from evenhand.losses.adjusted import GLALoss as GLALoss
    from evenhand.losses.adjusted import LogitAdjustedLoss as LogitAdjustedLoss
    from evenhand.losses.adjusted import VSLoss as VSLoss
    from evenhand.losses.base import SoftmaxLoss as SoftmaxLoss
    from evenhand.losses.decision import DecisionRule as DecisionRule
    from evenhand.losses.deferred import DeferredReweighting as DeferredReweighting
    from evenhand.losses.functional import cross_entropy as cross_entropy
    from evenhand.losses.functional import losses_by_row as losses_by_row
    from evenhand.losses.functional import nll as nll
    from evenhand.losses.implied import PosteriorRule as PosteriorRule
    from evenhand.losses.implied import decision_rule as decision_rule
    from evenhand.losses.law import Law as Law
    from evenhand.losses.margins import CosineLinear as CosineLinear
    from evenhand.losses.margins import LDAMLoss as LDAMLoss
    from evenhand.losses.pairwise import GCLLoss as GCLLoss
    from evenhand.losses.pairwise import SeesawLoss as SeesawLoss
    from evenhand.losses.pairwise import SEQLLoss as SEQLLoss
    from evenhand.losses.posterior import log_posterior as log_posterior
    from evenhand.losses.reduction import RowLosses as RowLosses
    from evenhand.losses.reduction import reduce as reduce
    from evenhand.losses.registry import available as available
    from evenhand.losses.registry import build as build
    from evenhand.losses.shaped import FocalLoss as FocalLoss
    from evenhand.losses.shaped import GeneralisedCrossEntropyLoss as GeneralisedCrossEntropyLoss
    from evenhand.losses.shaped import InfluenceBalancedLoss as InfluenceBalancedLoss
    from evenhand.losses.shaped import PolyLoss as PolyLoss
    from evenhand.losses.smoothing import LabelAwareSmoothingLoss as LabelAwareSmoothingLoss
    from evenhand.losses.smoothing import LOSLoss as LOSLoss
    from evenhand.losses.weighted import ClassBalancedLoss as ClassBalancedLoss
    from evenhand.losses.weighted import CrossEntropyLoss as CrossEntropyLoss
    from evenhand.losses.weighted import WeightedLoss as WeightedLoss

_HOME = {
    "BalancedSoftmaxLoss": "adjusted",
    "CDTLoss": "adjusted",
    "ClassBalancedLoss": "weighted",
    "CosineLinear": "margins",
    "CrossEntropyLoss": "weighted",
    "DecisionRule": "decision",
    "DeferredReweighting": "deferred",
    "FocalLoss": "shaped",
    "GCALoss": "adjusted",
    "GCLLoss": "pairwise",
    "GLALoss": "adjusted",
    "GeneralisedCrossEntropyLoss": "shaped",
    "InfluenceBalancedLoss": "shaped",
    "LDAMLoss": "margins",
    "LOSLoss": "smoothing",
    "LabelAwareSmoothingLoss": "smoothing",
    "Law": "law",
    "LogitAdjustedLoss": "adjusted",
    "PolyLoss": "shaped",
    "PosteriorRule": "implied",
    "RowLosses": "reduction",
    "SEQLLoss": "pairwise",
    "SeesawLoss": "pairwise",
    "SoftmaxLoss": "base",
    "VSLoss": "adjusted",
    "WeightedLoss": "weighted",
    "available": "registry",
    "build": "registry",
    "cross_entropy": "functional",
    "decision_rule": "implied",
    "log_posterior": "posterior",
    "losses_by_row": "functional",
    "nll": "functional",
    "reduce": "reduction",
    "shapes": "",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'evenhand.losses' has no attribute {name!r}")
    home = _HOME[name]
    return getattr(import_module(f"evenhand.losses.{home}"), name) if home else import_module(f"evenhand.losses.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
