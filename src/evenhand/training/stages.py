"""Schedules as stages: what changes in the course of training is a list of stages, each a share of the steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.losses import CosineLinear, InfluenceBalancedLoss
from evenhand.losses.registry import build
from evenhand.training.draws import BALANCED, NATURAL, Draw, Power
from evenhand.training.second_stage.heads import add_scale, fold_scale, linear_head, start_anew, tau_normalise
from evenhand.weights import class_weights

if TYPE_CHECKING:
    from evenhand.training.remedies import Remedy


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Attributes:
        share: of the steps, in (0, 1]; the shares of all stages sum to 1.
        criterion: the loss. draw: how rows are drawn.
        trains: ``all`` parameters, the ``head`` alone, or one ``scale`` per class on a head that stays.
        fresh_head: whether the head starts anew. rate: factor of the recipe's learning rate.
    """

    share: float
    criterion: nn.Module
    draw: Draw = NATURAL
    trains: Literal["all", "head", "scale"] = "all"
    fresh_head: bool = False
    rate: float = 1.0

    @property
    def needs_features(self) -> bool:
        """Whether the loss is called with the size of the features that the head takes."""
        return isinstance(self.criterion, InfluenceBalancedLoss) and self.criterion.active


@dataclass(frozen=True)
class Schedule:
    """A row of the table: `stages` from (remedy, counts, options), and what is done to the head at the end."""

    stages: Callable[..., tuple[Stage, ...]]
    finish: Callable[..., None] | None = None


def stages_of(remedy: Remedy, counts: ClassCounts) -> tuple[Stage, ...]:
    """The stages of a remedy for these training counts.

    Raises:
        InputError: an unknown schedule, or an option that a loss, schedule or sampler refuses.
    """
    schedule = find_schedule(remedy.schedule)
    keys = inspect.signature(schedule.stages).parameters
    given = {key: value for key, value in remedy.schedule_options.items() if key in keys}
    stages = schedule.stages(remedy, counts, **given)
    for stage in stages:
        stage.draw.check(counts)
    return stages


def finish(remedy: Remedy, model: nn.Module) -> None:
    """What a remedy does to the trained model at the end, in place."""
    schedule = find_schedule(remedy.schedule)
    if schedule.finish is not None:
        keys = inspect.signature(schedule.finish).parameters
        schedule.finish(model, **{key: value for key, value in remedy.schedule_options.items() if key in keys})


def find_schedule(name: str) -> Schedule:
    """The schedule of that name.

    Raises:
        InputError: there is none.
    """
    if name not in SCHEDULES:
        raise InputError(f"expected a schedule among {', '.join(SCHEDULES)}, got {name!r:.60}; choose one of them")
    return SCHEDULES[name]


def options_of_schedule(schedule: Schedule) -> set[str]:
    """The names of its options."""
    functions = [schedule.stages] + ([schedule.finish] if schedule.finish else [])
    return {name for f in functions for name, p in inspect.signature(f).parameters.items() if p.kind is p.KEYWORD_ONLY}


def _criterion(remedy: Remedy, counts: ClassCounts, **more: Any) -> nn.Module:
    return build(remedy.loss, counts, **{**remedy.options, **more})


def _one(remedy: Remedy, counts: ClassCounts) -> tuple[Stage, ...]:
    return (Stage(1.0, _criterion(remedy, counts), remedy.draw),)


def _deferred_weights(
    remedy: Remedy, counts: ClassCounts, *, start: float = 0.8, rule: str = "effective-number"
) -> tuple[Stage, ...]:
    """Authors: from epoch 160 of 200 on, beta 0.9999."""
    late = class_weights(counts, rule, absent="largest")
    first = Stage(_share(start), _criterion(remedy, counts), remedy.draw)
    return first, Stage(1 - first.share, _criterion(remedy, counts, weight=late), remedy.draw)


def _deferred_sampler(
    remedy: Remedy, counts: ClassCounts, *, start: float = 0.8, late_power: Power = 0.0
) -> tuple[Stage, ...]:
    criterion = _criterion(remedy, counts)
    return Stage(_share(start), criterion, remedy.draw), Stage(1 - start, criterion, Draw(late_power))


def _retrained_head(remedy: Remedy, counts: ClassCounts, *, start: float = 0.8) -> tuple[Stage, ...]:
    criterion = _criterion(remedy, counts)
    first = Stage(_share(start), criterion, remedy.draw)
    return first, Stage(1 - start, criterion, BALANCED, trains="head", fresh_head=True)


def _scaled_head(remedy: Remedy, counts: ClassCounts, *, start: float = 0.8) -> tuple[Stage, ...]:
    criterion = _criterion(remedy, counts)
    return Stage(_share(start), criterion, remedy.draw), Stage(
        1 - start, criterion, BALANCED, trains="scale", rate=10.0
    )


def _label_aware(
    remedy: Remedy, counts: ClassCounts, *, start: float = 0.8, head: float = 0.4, tail: float = 0.1
) -> tuple[Stage, ...]:
    smoothed = build("label-aware-smoothing", counts, head=head, tail=tail)
    first = Stage(_share(start), _criterion(remedy, counts), remedy.draw)
    return first, Stage(1 - start, smoothed, BALANCED, trains="head")


def _late_loss(remedy: Remedy, counts: ClassCounts, *, start: float = 0.5) -> tuple[Stage, ...]:
    """Authors of influence-balanced loss: from epoch 100 of 200 on, cross-entropy before."""
    first = Stage(_share(start), build("cross-entropy", counts), remedy.draw)
    return first, Stage(1 - start, _criterion(remedy, counts), remedy.draw)


def _late_loss_of_head(
    remedy: Remedy, counts: ClassCounts, *, start: float = 0.8, rate: float = 0.05
) -> tuple[Stage, ...]:
    """Authors of label over-smoothing: the trained head goes on, on the rows as they are, at a twentieth of the rate.

    The small rate is part of it: a head that reaches the almost flat targets is a least-squares classifier, in which
    frequent classes hide rare ones; on the way there it is not.
    """
    if not (isinstance(rate, int | float) and 0 < rate < float("inf")):
        raise InputError(f"expected rate above 0, the factor of the learning rate for the head, got {rate!r:.60}")
    first, late = _late_loss(remedy, counts, start=start)
    return first, replace(late, trains="head", rate=float(rate))


def _refined_head(
    remedy: Remedy, counts: ClassCounts, *, start: float = 0.8, late_beta: float = 0.9999
) -> tuple[Stage, ...]:
    """Authors of GCL: the head goes on with the same loss, classes drawn by effective number.

    Their beta rises with a class's rarity from 0.9999 to 0.99991, which changes rates by a tenth at most, mostly by
    less than a hundredth.
    """
    criterion = _criterion(remedy, counts)
    first = Stage(_share(start), criterion, remedy.draw)
    return first, Stage(1 - start, criterion, Draw(beta=late_beta), trains="head")


def _then_normalised(remedy: Remedy, counts: ClassCounts, *, tau: float = 0.7) -> tuple[Stage, ...]:
    tau_normalise(nn.Linear(1, 1), tau)  # refuses a tau before the training instead of after it
    return _one(remedy, counts)


def _share(start: float) -> float:
    if not (isinstance(start, int | float) and 0 < start < 1):
        raise InputError(
            f"expected start between 0 and 1, the share of training before it, got {start!r}; 0.8 is usual"
        )
    return float(start)


def _normalised(model: nn.Module, *, tau: float = 0.7) -> None:
    replace_head(model, tau_normalise(_linear(model), tau, keep_scale=True))


def _folded(model: nn.Module) -> None:
    fold_scale(_linear(model))


SCHEDULES: dict[str, Schedule] = {
    "one-stage": Schedule(_one),
    "deferred-weights": Schedule(_deferred_weights),
    "deferred-sampler": Schedule(_deferred_sampler),
    "crt": Schedule(_retrained_head),
    "lws": Schedule(_scaled_head, _folded),
    "tau-norm": Schedule(_then_normalised, _normalised),
    "label-aware": Schedule(_label_aware),
    "late-loss": Schedule(_late_loss),
    "late-loss-of-head": Schedule(_late_loss_of_head),
    "refined-head": Schedule(_refined_head),
}


class ScaledCosine(CosineLinear):
    """A cosine head whose outputs are logits: ``s cos(x, W_k)``; the scale belongs to the model, not to the loss."""

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., K) logits."""
        return self.scale * super().forward(input)


def head_of(model: nn.Module) -> nn.Module:
    """The layer that gives the logits: ``model.head``, ``fc`` or ``classifier``, else the last linear one.

    Raises:
        InputError: no linear layer is found.
    """
    return model.get_submodule(head_name(model))


def head_name(model: nn.Module) -> str:
    """Its dotted name."""
    for name in ("head", "fc", "classifier"):
        if isinstance(getattr(model, name, None), (nn.Linear, CosineLinear)):
            return name
    linear: list[str] = [name for name, part in model.named_modules() if isinstance(part, (nn.Linear, CosineLinear))]
    if not linear:
        raise InputError(
            f"expected a model with a linear last layer, found none in {type(model).__name__}; this remedy changes the "
            "head, so call it `head` or choose another remedy"
        )
    return linear[-1]


def replace_head(model: nn.Module, head: nn.Module) -> None:
    """Put another module where the head is, on the same device."""
    name = head_name(model)
    parent, _, last = name.rpartition(".")
    old = model.get_submodule(name)
    setattr(model.get_submodule(parent), last, head.to(old.get_parameter("weight").device))


def use_cosine_head(model: nn.Module, scale: float) -> None:
    """Put a cosine head in place of a linear one; it begins at random."""
    head = head_of(model)
    if not isinstance(head, ScaledCosine):
        classes, features = head.get_parameter("weight").shape
        replace_head(model, ScaledCosine(features, classes, scale))


def restart(model: nn.Module, seed: int) -> None:
    """Give the head new initial values."""
    head = head_of(model)
    if isinstance(head, nn.Linear):
        start_anew(head, seed)
        return
    weight = head.get_parameter("weight")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight.copy_(nn.functional.normalize(torch.randn(weight.shape, generator=generator), dim=1))


def trained_parameters(model: nn.Module, which: str) -> list[nn.Parameter]:
    """The parameters that a stage trains; a scale is put on the head where it is asked for."""
    if which == "scale":
        return [add_scale(_linear(model))]
    if which == "head":
        return list(head_of(model).parameters())
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _linear(model: nn.Module) -> nn.Linear:
    return linear_head(model, head_name(model))
