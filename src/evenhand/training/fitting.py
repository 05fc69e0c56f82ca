"""A small training loop that gives the same run for the same seed, whatever it is interrupted by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.declared import InputError
from evenhand.training.features import logits_and_feature_norm
from evenhand.training.orders import Orders
from evenhand.training.remedies import Remedy, parse_remedy
from evenhand.training.rows import as_rows, require_finite
from evenhand.training.second_stage.heads import train_only
from evenhand.training.stages import finish, restart, stages_of, trained_parameters, use_cosine_head
from evenhand.training.steps import count_rows, mixed_seed, one_seed_per_step, planned_steps, seed_device, to_device

OptimiserFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
WARM_UP = 0.05  # share of a stage's steps over which the learning rate rises


class DivergedError(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Recipe:
    """What is equal for all remedies.

    Attributes:
        batch_size: rows per step. learning_rate: peak; it rises over the first 5 % of the steps and falls to 0 along a
            cosine, in every stage that trains other parameters anew. weight_decay: of AdamW.
        optimiser: parameters -> optimiser, in place of AdamW; its learning rates are the peaks.
        clip: largest norm of the gradient, 0 for none.
    """

    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    optimiser: OptimiserFactory | None = None
    clip: float = 1.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser."""
        if self.optimiser is not None:
            return self.optimiser(parameters)
        # One fused pass over the parameters: with a table of embeddings the plain one takes most of a step.
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)


class Training:
    """One training of one remedy, step by step; it can be left and taken up at any step.

    Row order, dropout and everything else left to chance depend on the seed and the number of the step alone, so that
    remedies with one seed see the same batches, and a resumed run is the same as one that was never interrupted.

    Args:
        model: returns logits (n, K). It is trained in place; its initial values are the caller's.
        train: see :func:`evenhand.training.rows.as_rows`. remedy: or its name, see :func:`parse_remedy`.
        counts: (K,) training rows per class; counted if None.
        steps: optimiser steps in all, or epochs: passes over as many rows as there are.
        recipe: see :class:`Recipe`. seed: of everything left to chance.

    Attributes:
        step: steps done. total: steps in all. per_epoch: steps per epoch. loss: mean loss of the last part trained.
        seconds: wall time of forward and backward passes and steps of the optimiser alone.

    Raises:
        InputError: no steps or both, classes that the counts do not have, options that a loss refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        remedy: Remedy | str,
        *,
        counts: Any = None,
        epochs: float | None = None,
        steps: int | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.rows, self.remedy = model, as_rows(train), parse_remedy(remedy)
        if self.rows is not train:  # rows that are given as such were looked at once, for all trainings on them
            require_finite(self.rows, "training")
        self.recipe, self.seed = recipe or Recipe(), seed
        self.counts = count_rows(self.rows, counts)
        self.per_epoch = max(1, math.ceil(len(self.rows) / self.recipe.batch_size))
        self.total = planned_steps(self.per_epoch, epochs, steps)
        if self.remedy.cosine:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mixed_seed(seed, -1))
                use_cosine_head(model, self.remedy.cosine)
        self.device = next(model.parameters()).device
        self.stages = stages_of(self.remedy, self.counts)
        self.edges = _edges([stage.share for stage in self.stages], self.total)
        self.step, self.loss, self.seconds = 0, math.nan, 0.0
        self.orders = Orders(self.rows.target, self.counts.classes, seed)
        for number, stage in enumerate(self.stages):
            stage.draw.check_epochs(self._epochs_of(number)[1])
        self._stage = -1
        self._finished = False
        self._enter(0)

    @property
    def epoch(self) -> float:
        """Epochs done, a fraction within one."""
        return self.step / self.per_epoch

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.total

    def advance(self, until: int | None = None) -> float:
        """Train up to a step (all of them if None), and return the mean loss of the steps taken.

        Raises:
            DivergedError: the loss is not finite.
        """
        until = self.total if until is None else min(until, self.total)
        losses: list[Tensor] = []
        with one_seed_per_step(self.device):
            while self.step < until:
                for rows in self._epoch_batches(until):
                    losses.append(self._take(rows))
        if losses:
            self.loss = float(torch.stack(losses).mean())
            if not math.isfinite(self.loss):
                raise DivergedError(self._diverged(torch.stack(losses)))
        if self.done and not self._finished:
            finish(self.remedy, self.model)
            self._finished = True
        return self.loss

    def _diverged(self, losses: Tensor) -> str:
        """Where the loss left the numbers, and what to do: NaN among the inputs shows in the first pass over them."""
        bad = int((~torch.isfinite(losses)).int().argmax())
        step = self.step - len(losses) + bad + 1
        if step == 1:
            todo = "nothing was learned before it: look for NaN or infinite numbers in the inputs"
        elif step <= self.per_epoch:
            todo = "lower the learning rate, or look for NaN or infinite numbers in the inputs"
        else:
            todo = "lower the learning rate"
        return f"the loss became {float(losses[bad])} at step {step:,}; {todo}"

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: model, optimiser, step."""
        return {
            "step": self.step,
            "total": self.total,
            "finished": self._finished,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "criteria": [stage.criterion.state_dict() for stage in self.stages],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a run where it was left: same model, data, remedy, recipe and seed.

        Raises:
            InputError: not a state of :meth:`state_dict`, one of a training of another length, or one from before a
                stage that this training has begun, which has changed its head.
        """
        wanted = {"step", "total", "finished", "seconds", "model", "optimiser", "criteria"}
        if set(state) != wanted:
            raise InputError(
                f"expected a state with {', '.join(sorted(wanted))}, got {sorted(state)}; save state_dict()"
            )
        if state["total"] != self.total:
            raise InputError(
                f"expected the state of a training of {self.total:,} steps, got one of {state['total']:,}; give the "
                "same steps or epochs"
            )
        if self._stage_at(state["step"]) < self._stage or (self._finished and not state["finished"]):
            raise InputError(
                f"expected a training that is not beyond the stage of the state, step {state['step']:,}, but it is at "
                f"step {self.step:,}; load it into a new Training with a new model"
            )
        self.step, self._finished, self.seconds = state["step"], state["finished"], state["seconds"]
        for number in range(self._stage + 1, self._stage_at(self.step) + 1):
            self._enter(number)
        if self._finished:
            finish(self.remedy, self.model)  # for the layers that it adds and takes away; their values come next
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for stage, kept in zip(self.stages, state["criteria"], strict=True):
            stage.criterion.load_state_dict(kept)

    def _epoch_batches(self, until: int) -> Iterator[Tensor]:
        """The batches that are left of this epoch, as long as stage and order stay the same."""
        self._change_stage()
        stage, epoch = self.stages[self._stage], self.step // self.per_epoch
        # Features that no longer change are those of use: dropout and the statistics of batch norm stand still too.
        self.model.train(stage.trains == "all")
        order = self.orders.of(stage.draw, epoch, *self._epochs_of(self._stage))
        stop = min(until, self.edges[self._stage + 1], (epoch + 1) * self.per_epoch)
        first = epoch * self.per_epoch
        # Batches of nearly equal size: a last batch of one row would be heavy, and batch norm refuses it.
        yield from order.tensor_split(self.per_epoch)[self.step - first : stop - first]

    def _epochs_of(self, stage: int) -> tuple[int, int]:
        """A stage's first epoch, and how many it touches."""
        first, last = self.edges[stage] // self.per_epoch, (self.edges[stage + 1] - 1) // self.per_epoch
        return first, last - first + 1

    def _take(self, rows: Tensor) -> Tensor:
        seed_device(self.device, mixed_seed(self.seed, self.step))  # a data set may draw as well as the model
        inputs, target = self.rows.batch(rows), self.rows.target.index_select(0, rows)
        if self.device.type != "cpu":
            inputs, target = to_device(inputs, self.device), target.to(self.device)
        begin = time.perf_counter()
        rate = self._rate()
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(inputs, target)
        torch.autograd.backward(loss)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self._trained, self.recipe.clip)
        self.optimiser.step()
        self.seconds += time.perf_counter() - begin
        self.step += 1
        return loss.detach()

    def _loss(self, inputs: Any, target: Tensor) -> Tensor:
        stage = self.stages[self._stage]
        more = {}
        if any(each.needs_features for each in self.stages):
            # From the first step on: a head that cannot be watched shows before half of a training is done.
            logits, norm = logits_and_feature_norm(self.model, inputs)
            more = {"extra": norm} if stage.needs_features else {}
        else:
            logits = self.model(inputs)
        loss: Tensor = stage.criterion(logits, target, **more)
        return loss

    def _rate(self) -> float:
        """Factor of the peak learning rate: a warm-up, then a cosine; anew in a stage with a new optimiser."""
        begin = self.edges[self._fresh]
        end = next((self.edges[i] for i in range(self._fresh + 1, len(self.stages)) if self._anew(i)), self.total)
        at, length = self.step - begin, max(1, end - begin)
        warm = max(1, round(WARM_UP * length))
        return (at + 1) / warm if at < warm else 0.5 * (1 + math.cos(math.pi * (at - warm) / max(1, length - warm)))

    def _anew(self, number: int) -> bool:
        return number == 0 or self.stages[number].trains != "all"

    def _stage_at(self, step: int) -> int:
        return max(i for i in range(len(self.stages)) if self.edges[i] <= step or i == 0)

    def _change_stage(self) -> None:
        for number in range(self._stage + 1, self._stage_at(self.step) + 1):
            self._enter(number)

    def _enter(self, number: int) -> None:
        """Begin a stage: head, frozen parameters, optimiser."""
        self._stage = number
        stage = self.stages[number]
        stage.criterion.to(self.device)
        if not self._anew(number):
            return
        self._fresh = number
        if stage.fresh_head:
            restart(self.model, mixed_seed(self.seed, -1))
        self._trained = trained_parameters(self.model, stage.trains)
        train_only(self.model, self._trained)
        self.optimiser = self.recipe.build(self._trained)
        for group in self.optimiser.param_groups:
            group["peak"] = group["lr"] * stage.rate


def fit(
    model: nn.Module,
    train: Any,
    remedy: Remedy | str = "plain",
    *,
    counts: Any = None,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    optimiser: OptimiserFactory | None = None,
    clip: float = 1.0,
    seed: int = 0,
    on_epoch: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train a model in place by a remedy; the same arguments give the same model on a CPU.

    Args:
        model: returns logits (n, K); its initial values are the caller's, so seed before building it.
        train: ``(inputs, target)``, a torch data set of (input, class), or rows. remedy: a :class:`Remedy`, or as text.
        counts: (K,) training rows per class; counted if None. epochs, steps: how long; give one of them.
        batch_size, learning_rate, weight_decay, optimiser, clip: see :class:`Recipe`.
        seed: of row order, dropout, new heads.
        on_epoch: called after each epoch with (epochs done, model in evaluation mode).

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: unusable data (also NaN or infinite inputs in a tensor or array) or options. DivergedError: the loss
            became NaN.

    Example:
        >>> torch.manual_seed(0) and None
        >>> x = torch.randn(200, 2); y = (x[:, 0] > 0.8).long()
        >>> model = fit(nn.Linear(2, 2), (x, y), "weighted", epochs=20, batch_size=20, learning_rate=0.05)
        >>> float((model(x).argmax(1) == y).float().mean()) > 0.9
        True
    """
    recipe = Recipe(batch_size, learning_rate, weight_decay, optimiser, clip)
    training = Training(model, train, remedy, counts=counts, epochs=epochs, steps=steps, recipe=recipe, seed=seed)
    require_finite(training.rows, "training")
    number = 0
    while not training.done:
        number += 1
        training.advance(number * training.per_epoch)
        if on_epoch is not None:
            on_epoch(number, model.eval())
    return model.eval()


@torch.inference_mode()
def predict_logits(model: nn.Module, data: Any, *, batch_size: int = 1024) -> Tensor:
    """(N, K) float32 logits on the CPU, in the order of the rows; the model's mode stays as it was.

    Args:
        model: trained. data: what :func:`fit` takes, or a tensor of inputs.

    Example:
        >>> predict_logits(nn.Linear(2, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """
    rows = as_rows((data, torch.zeros(len(data), dtype=torch.long))) if isinstance(data, Tensor) else as_rows(data)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        parts = [
            model(to_device(rows.batch(index), device)).float().cpu()
            for index in torch.split(torch.arange(len(rows)), batch_size)
        ]
    finally:
        model.train(was_training)
    return torch.cat(parts)


def _edges(shares: list[float], total: int) -> list[int]:
    """First step of every stage, and the total; no stage is empty where the steps suffice."""
    edges, done = [0], 0.0
    for number, share in enumerate(shares[:-1]):
        done += share
        left = len(shares) - 1 - number
        edges.append(min(max(round(done * total), edges[-1] + 1), max(total - left, edges[-1])))
    return [*edges, total]
