"""What changes in the course of training, as objects with a state: late weights, late samplers, heads trained anew.

Every schedule has ``step(epoch)``, called at the start of every epoch, ``active``, ``state_dict()`` and
``load_state_dict()``; states hold whole numbers only and load with ``weights_only=True``:

    >>> from torch import nn
    >>> from evenhand.training import schedules
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> schedule = schedules.ClassifierRetraining(model, "2", at=90)
    >>> for epoch in (89, 90):
    ...     schedule.step(epoch)
    ...     print(sum(p.requires_grad for p in model.parameters()))
    4
    2
"""

from __future__ import annotations

from typing import Any

from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.modules.deferred import DeferredReweighting as _DeferredReweighting
from evenhand.training.sampling.deferred import DeferredResampling
from evenhand.training.sampling.rate_sampler import ClassRateSampler, refuse_double_correction, whole
from evenhand.training.second_stage.heads import tau_normalise
from evenhand.training.second_stage.stages import ClassifierRetraining, HeadStage, LabelAwareStageTwo, LearnableScaling

__all__ = [
    "ClassifierRetraining",
    "DeferredResampling",
    "DeferredReweighting",
    "HeadStage",
    "LabelAwareStageTwo",
    "LearnableScaling",
    "tau_normalise",
]


class DeferredReweighting(_DeferredReweighting):
    """Switch a loss to other class weights from epoch `at` on; see :class:`evenhand.losses.DeferredReweighting`.

    Args:
        criterion: any softmax loss of evenhand. at: first epoch with the weights; the authors take 160 of 200.
        weight: (K,) weights, a rule's name, or a dictionary by class name. Default: ``effective-number``, which needs a
            loss built with counts.
        beta: of the default, 0.9999.
        sampler: the sampler that is used beside; only checked, see Raises. allow_double_correction: do not.

    Raises:
        InputError: `at` below 0, another loss, weights that it cannot take, no counts for a rule; or if the weights and
            the sampler together divide the prior out clearly more than once.

    Source: Cao et al., 2019, https://arxiv.org/abs/1906.07413; Cui et al., 2019, https://arxiv.org/abs/1901.05555.

    Example:
        >>> from evenhand import losses
        >>> criterion = losses.build("ldam", [1000, 10])
        >>> deferred = DeferredReweighting(criterion, at=160)
        >>> deferred.step(160)
        >>> criterion.weight is not None, deferred.state_dict()
        (True, {'epoch': 160})
    """

    def __init__(
        self,
        criterion: SoftmaxLoss,
        at: int,
        weight: Any = None,
        *,
        beta: float = 0.9999,
        sampler: ClassRateSampler | None = None,
        allow_double_correction: bool = False,
    ) -> None:
        super().__init__(criterion, whole("at", at, 0), weight, beta=beta)
        if sampler is not None and not allow_double_correction:
            late = criterion.get_buffer("deferred_weight")
            refuse_double_correction(sampler.counts, sampler.rate_at(max(at, sampler.settled)), late)
