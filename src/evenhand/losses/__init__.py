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

from evenhand.losses.registry import LOSSES

if TYPE_CHECKING:
    from evenhand.losses import shapes as shapes
    from evenhand.losses.counting import Counting as Counting
    from evenhand.losses.decisions.implied import PosteriorRule as PosteriorRule
    from evenhand.losses.decisions.implied import decision_rule as decision_rule
    from evenhand.losses.decisions.posterior import log_posterior as log_posterior
    from evenhand.losses.decisions.rule import DecisionRule as DecisionRule
    from evenhand.losses.denominators import denominator_of as denominator_of
    from evenhand.losses.exact import TrainerLoss as TrainerLoss
    from evenhand.losses.exact import WeightedAccumulation as WeightedAccumulation
    from evenhand.losses.exact import exact_mean as exact_mean
    from evenhand.losses.exact import expected_denominator as expected_denominator
    from evenhand.losses.functional import cross_entropy as cross_entropy
    from evenhand.losses.functional import losses_by_row as losses_by_row
    from evenhand.losses.functional import nll as nll
    from evenhand.losses.law import Law as Law
    from evenhand.losses.linear import linear_cross_entropy as linear_cross_entropy
    from evenhand.losses.linear import linear_nll as linear_nll
    from evenhand.losses.linear import linear_rows as linear_rows
    from evenhand.losses.modules.adjusted import BalancedSoftmaxLoss as BalancedSoftmaxLoss
    from evenhand.losses.modules.adjusted import CDTLoss as CDTLoss
    from evenhand.losses.modules.adjusted import GCALoss as GCALoss
    from evenhand.losses.modules.adjusted import GLALoss as GLALoss
    from evenhand.losses.modules.adjusted import LogitAdjustedLoss as LogitAdjustedLoss
    from evenhand.losses.modules.adjusted import VSLoss as VSLoss
    from evenhand.losses.modules.base import SoftmaxLoss as SoftmaxLoss
    from evenhand.losses.modules.deferred import DeferredReweighting as DeferredReweighting
    from evenhand.losses.modules.margins import CosineLinear as CosineLinear
    from evenhand.losses.modules.margins import LDAMLoss as LDAMLoss
    from evenhand.losses.modules.pairwise import GCLLoss as GCLLoss
    from evenhand.losses.modules.pairwise import SeesawLoss as SeesawLoss
    from evenhand.losses.modules.pairwise import SEQLLoss as SEQLLoss
    from evenhand.losses.modules.shaped import FocalLoss as FocalLoss
    from evenhand.losses.modules.shaped import GeneralisedCrossEntropyLoss as GeneralisedCrossEntropyLoss
    from evenhand.losses.modules.shaped import InfluenceBalancedLoss as InfluenceBalancedLoss
    from evenhand.losses.modules.shaped import PolyLoss as PolyLoss
    from evenhand.losses.modules.smoothing import LabelAwareSmoothingLoss as LabelAwareSmoothingLoss
    from evenhand.losses.modules.smoothing import LOSLoss as LOSLoss
    from evenhand.losses.modules.weighted import ClassBalancedLoss as ClassBalancedLoss
    from evenhand.losses.modules.weighted import CrossEntropyLoss as CrossEntropyLoss
    from evenhand.losses.modules.weighted import WeightedLoss as WeightedLoss
    from evenhand.losses.multilabel.base import SigmoidLoss as SigmoidLoss
    from evenhand.losses.multilabel.distribution_balanced import DistributionBalancedLoss as DistributionBalancedLoss
    from evenhand.losses.multilabel.equalization import EqualizationV2Loss as EqualizationV2Loss
    from evenhand.losses.multilabel.focusing import AsymmetricLoss as AsymmetricLoss
    from evenhand.losses.multilabel.focusing import SigmoidFocalLoss as SigmoidFocalLoss
    from evenhand.losses.multilabel.functional import sigmoid_cross_entropy as sigmoid_cross_entropy
    from evenhand.losses.multilabel.functional import sigmoid_row_losses as sigmoid_row_losses
    from evenhand.losses.multilabel.label_rule import LabelRule as LabelRule
    from evenhand.losses.multilabel.law import SigmoidLaw as SigmoidLaw
    from evenhand.losses.reduction import RowLosses as RowLosses
    from evenhand.losses.reduction import reduce as reduce
    from evenhand.losses.registry import available as available
    from evenhand.losses.registry import build as build
    from evenhand.losses.sharded import ClassShard as ClassShard
    from evenhand.losses.sharded import sharded_cross_entropy as sharded_cross_entropy
    from evenhand.losses.sharded import sharded_losses_by_row as sharded_losses_by_row

_HOME = {
    **{found.name: found.module for found in LOSSES.values()},
    "ClassShard": "sharded",
    "CosineLinear": "modules.margins",
    "Counting": "counting",
    "DecisionRule": "decisions.rule",
    "DeferredReweighting": "modules.deferred",
    "LabelRule": "multilabel.label_rule",
    "Law": "law",
    "PosteriorRule": "decisions.implied",
    "RowLosses": "reduction",
    "SigmoidLaw": "multilabel.law",
    "SigmoidLoss": "multilabel.base",
    "SoftmaxLoss": "modules.base",
    "TrainerLoss": "exact",
    "WeightedAccumulation": "exact",
    "available": "registry",
    "build": "registry",
    "cross_entropy": "functional",
    "decision_rule": "decisions.implied",
    "denominator_of": "denominators",
    "exact_mean": "exact",
    "expected_denominator": "exact",
    "linear_cross_entropy": "linear",
    "linear_nll": "linear",
    "linear_rows": "linear",
    "log_posterior": "decisions.posterior",
    "losses_by_row": "functional",
    "nll": "functional",
    "reduce": "reduction",
    "shapes": "",
    "sharded_cross_entropy": "sharded",
    "sharded_losses_by_row": "sharded",
    "sigmoid_cross_entropy": "multilabel.functional",
    "sigmoid_row_losses": "multilabel.functional",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'evenhand.losses' has no attribute {name!r}")
    home = _HOME[name]
    return getattr(import_module(f"evenhand.losses.{home}"), name) if home else import_module(f"evenhand.losses.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
