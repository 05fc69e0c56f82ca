"""Second stages that train the head alone: started anew, scaled by class, or smoothed by class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from evenhand.declared import InputError
from evenhand.losses.modules.smoothing import LabelAwareSmoothingLoss
from evenhand.training.sampling.deferred import DeferredResampling
from evenhand.training.sampling.rate_sampler import ClassRateSampler, whole
from evenhand.training.second_stage.heads import (
    add_scale,
    check_linear,
    fold_scale,
    keep_in_evaluation,
    linear_head,
    release,
    start_anew,
    train_only,
)

State = dict[str, Any]


class HeadStage:
    """A second stage that trains only the head: what :class:`ClassifierRetraining` and its kin have in common.

    From epoch `at` on the rest of the model is frozen: no gradients, and by default in evaluation mode whatever
    ``model.train()`` says, so that dropout and running statistics leave the features alone.

    Args:
        model: the whole model. head: its last linear layer, or the layer's name.
        at: first epoch of the stage; 0 begins with the first :meth:`step`.
        sampler: draws from `at` on; before, rows come as they are. The loader takes :attr:`sampler`.
        optimizer: what it remembers of the head (momentum) is dropped when the stage begins. Not needed where the
            stage gets an optimizer of its own, over :meth:`parameters`.
        seed: of what is drawn anew.
        body: mode of the frozen part: ``eval``, or ``train``, where dropout and running statistics stay at work.

    Attributes:
        epoch: the last epoch told, None before the first. begun: whether the stage has begun.
        sampler: :class:`DeferredResampling`, or None.

    Raises:
        InputError: a head that is no linear layer of the model or tied to another part; `at` below 0.

    Limits:
        The stage cannot be undone. DistributedDataParallel fixes at its start which gradients it waits for: wrap the
        model anew when the stage begins.
    """

    fresh_head: ClassVar[bool] = False

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear | str,
        *,
        at: int = 0,
        sampler: ClassRateSampler | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        seed: int = 0,
        body: Literal["eval", "train"] = "eval",
    ) -> None:
        if body not in ("eval", "train"):
            raise InputError(f"expected body to be 'eval' or 'train', got {body!r}; choose one")
        self.model, self.head = model, linear_head(model, head)
        self.at, self.seed, self.body, self.optimizer = whole("at", at, 0), whole("seed", seed, 0), body, optimizer
        self.sampler = None if sampler is None else DeferredResampling(sampler, self.at)
        self.epoch: int | None = None
        self.begun = False

    @property
    def active(self) -> bool:
        """Whether the stage has begun."""
        return self.begun

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the stage trains, for an optimizer of its own."""
        yield from (p for name, p in self.head.named_parameters() if name in ("weight", "bias"))

    def step(self, epoch: int) -> None:
        """Tell the epoch that begins.

        Raises:
            InputError: an epoch before `at` although the stage has begun.
        """
        epoch = whole("epoch", epoch, 0)
        if self.begun and epoch < self.at:
            raise InputError(f"expected epoch {self.at} or later, as stage two has begun, got {epoch}; build all anew")
        self.epoch = epoch
        if self.sampler is not None:
            self.sampler.step(epoch)
        if epoch >= self.at and not self.begun:
            self._freeze()
            if self.fresh_head:
                start_anew(self.head, self.seed)
            self._forget_momentum()

    def state_dict(self, done: int | None = None) -> State:
        """What a resumed run must know beside the states of model, optimizer and generators.

        Args:
            done: with a sampler, rows of this epoch that were trained on; see :meth:`ClassRateSampler.state_dict`.
        """
        state: State = {"epoch": self.epoch, "begun": self.begun}
        return state if self.sampler is None else {**state, "sampler": self.sampler.state_dict(done)}

    def load_state_dict(self, state: State) -> None:
        """Take up a run where it was left; the parameters come from the model's own state, in either order.

        Raises:
            InputError: not a state of :meth:`state_dict`.
        """
        wanted = {"epoch", "begun"} | (set() if self.sampler is None else {"sampler"})
        if not isinstance(state, dict) or set(state) != wanted:
            raise InputError(f"expected a state with {', '.join(sorted(wanted))}; save state_dict() of this schedule")
        epoch = None if state["epoch"] is None else whole("epoch", state["epoch"], 0)
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])
        self.epoch = epoch
        if state["begun"] and not self.begun:
            self._freeze()

    def release(self) -> None:
        """Take the hooks off that hold the body in evaluation mode; when training is over, before an export."""
        release(self.model)

    def _forget_momentum(self) -> None:
        if self.optimizer is not None:
            for parameter in self.parameters():
                self.optimizer.state.pop(parameter, None)

    def _freeze(self) -> None:
        self.begun = True
        train_only(self.model, self.parameters())
        if self.body == "eval":
            keep_in_evaluation(self.model, self.head)


class ClassifierRetraining(HeadStage):
    """cRT: at epoch `at` freeze the features, draw the head anew and train it, on a balanced sampler.

    Args:
        model, head, at, sampler, optimizer, seed, body: those of :class:`HeadStage`. The authors draw balanced
            (:class:`evenhand.training.samplers.ClassPowerSampler`) for 10 of 100
            epochs, and leave the body in ``train``.

    Raises:
        InputError: what :class:`HeadStage` raises.

    Source: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, 2020,
        https://arxiv.org/abs/1910.09217.

    Example:
        >>> from evenhand.training.samplers import ClassPowerSampler
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> sampler = ClassPowerSampler([0] * 80 + [1] * 20)
        >>> crt = ClassifierRetraining(model, model[2], at=90, sampler=sampler)
        >>> for epoch in range(89, 91):
        ...     crt.step(epoch)
        ...     print(crt.sampler.quotas().tolist(), model[0].weight.requires_grad)
        [80, 20] True
        [50, 50] False
    """

    fresh_head = True


class LearnableScaling(HeadStage):
    """LWS: at epoch `at` freeze everything and learn one factor per class on the logits, ``s_k (W_k x + b_k)``.

    The head gets a parameter ``scale``, ones at first, when the schedule is built, so that states and optimizers know
    it from the start. :meth:`fold` multiplies it into the layer at the end.

    Args:
        head: the last linear layer, or its name if `model` is given.
        model: what is frozen beside; the head alone if None: then let the optimizer have :meth:`parameters` only.
        **options: those of :class:`HeadStage`. The authors draw balanced.

    Raises:
        InputError: what :class:`HeadStage` raises.

    Limits:
        The factor acts where the head is called, not where its weight is read: fold it for ``losses.linear_*``.

    Source: Kang et al., 2020, https://arxiv.org/abs/1910.09217.

    Example:
        >>> head = nn.Linear(4, 3)
        >>> lws = LearnableScaling(head)
        >>> lws.step(0)
        >>> [name for name, parameter in head.named_parameters() if parameter.requires_grad]
        ['scale']
    """

    def __init__(self, head: nn.Linear | str, model: nn.Module | None = None, **options: Any) -> None:
        if model is None:
            model = check_linear(head)
        super().__init__(model, head, **options)
        self.scale = add_scale(self.head)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The factors."""
        yield self.scale

    def fold(self) -> None:
        """At the end: multiply the factors into weight and bias, so that the head is a plain layer; and release."""
        self.release()
        fold_scale(self.head)


class LabelAwareStageTwo(LearnableScaling):
    """MiSLAS, stage two: from epoch `at` train head and class factors under label-aware smoothing, the body frozen.

    Use :attr:`criterion` as the loss: it is `first` before `at` and :class:`LabelAwareSmoothingLoss` from then on.

    Args:
        model: the whole model. head: its last linear layer, or the layer's name.
        counts: (K,) rows per class of the training set.
        smooth_head, smooth_tail: smoothing of the most frequent and of the rarest class; the authors take 0.4 and 0.1
            for CIFAR-100, 0.3 and 0 for ImageNet-LT.
        first: the loss before `at`; cross-entropy by default.
        body: ``train`` here, as the authors have it: running statistics move to those of the sampler ("shifted BN").
        **options: those of :class:`HeadStage`. The authors draw balanced for 10 epochs after 200 with mixup.

    Raises:
        InputError: what :class:`HeadStage` and :class:`LabelAwareSmoothingLoss` raise; counts of other classes.

    Source: Zhong et al., Improving Calibration for Long-Tailed Recognition, 2021, https://arxiv.org/abs/2104.00466.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> stage = LabelAwareStageTwo(model, "2", [100, 50, 10], at=1)
        >>> for epoch in (0, 1):
        ...     stage.step(epoch)
        ...     print(type(stage.criterion).__name__)
        CrossEntropyLoss
        LabelAwareSmoothingLoss
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Linear | str,
        counts: Any,
        *,
        smooth_head: float = 0.4,
        smooth_tail: float = 0.1,
        first: nn.Module | None = None,
        body: Literal["eval", "train"] = "train",
        **options: Any,
    ) -> None:
        smoothed = LabelAwareSmoothingLoss(counts, smooth_head, smooth_tail)
        super().__init__(head, model, body=body, **options)
        if smoothed.classes != self.head.out_features:
            raise InputError(
                f"expected counts of the {self.head.out_features} classes of the head, got {smoothed.classes}; give "
                "one count per output"
            )
        self.first = nn.CrossEntropyLoss() if first is None else first
        self.smoothed = smoothed

    @property
    def criterion(self) -> nn.Module:
        """The loss in force."""
        return self.smoothed.to(self.head.weight.device) if self.begun else self.first

    def parameters(self) -> Iterator[nn.Parameter]:
        """Head and factors."""
        yield from HeadStage.parameters(self)
        yield self.scale
