"""The race itself: claim a training, train it, judge it, until none is left."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.training.fitting import Training, predict_logits
from evenhand.training.racing.board import Board, Key, Ticket, open_board
from evenhand.training.racing.judging import Judge, judge_model
from evenhand.training.racing.keeping import held_settings
from evenhand.training.racing.plan import Plan
from evenhand.training.remedies import PLAIN
from evenhand.training.rows import PickedRows, Rows, TableRows, TensorRows
from evenhand.training.stages import stages_of
from evenhand.training.steps import count_rows, mixed_seed, planned_steps

SCHEMA = "evenhand.race/1"
PIECES = 20  # a training is left so often to tell its progress
TRIAL_STEPS = 20  # steps that the speed is measured on
SPENT = 0.85  # share of a budget in time that trainings are planned to take; judging takes the rest
ENOUGH_STOPS = 2  # stopped on so many seeds, a remedy is not trained on others
WAIT = 1.0


class Watcher:
    """What is told while a race runs; every method does nothing here."""

    def begin(self, trainings: int, steps: int) -> None:
        """The race begins: how many trainings, how many steps each."""

    def training(self, remedy: str, seed: int) -> None:
        """A training begins."""

    def step(self, done: int) -> None:
        """Steps of it are done."""

    def settled(self, done: int) -> None:
        """So many trainings are settled, others' included."""


@dataclass(frozen=True, eq=False)
class Contest:
    """Everything a training of the race needs.

    Attributes:
        model_fn: builds an untrained model. train, valid: rows. counts: of the training rows. judge: of the valid ones.
        plan: the race. steps: of every training. watcher: is told.
    """

    model_fn: Callable[[], nn.Module]
    train: Rows
    valid: Rows
    counts: ClassCounts
    judge: Judge
    plan: Plan
    steps: int
    watcher: Watcher


def begin(plan: Plan, model_fn: Callable[[], nn.Module], train: Rows, counts: ClassCounts, processes: int = 1) -> int:
    """Steps of every training: as stated, or what a budget in time allows for so many processes like this one."""
    per_epoch = max(1, -(-len(train) // plan.recipe.batch_size))
    if plan.budget.unit == "steps":
        return planned_steps(per_epoch, None, round(plan.budget.amount))
    if plan.budget.unit == "epochs":
        return planned_steps(per_epoch, plan.budget.amount, None)
    training = new_training(model_fn, train, counts, plan, PLAIN, 0, steps=10**9)
    training.advance(2)
    start = time.perf_counter()
    training.advance(2 + TRIAL_STEPS)
    per_step = (time.perf_counter() - start) / TRIAL_STEPS
    each = -(-len(plan.runs) // processes)
    return max(1, int(SPENT * plan.budget.amount / each / per_step))


def new_model(model_fn: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The untrained model that all remedies of a seed begin with."""
    # Every device, in so many words: that is the default too, but where there are several it comes with a warning.
    with torch.random.fork_rng(range(torch.accelerator.device_count())):
        torch.manual_seed(mixed_seed(seed, -3))
        return model_fn()


def new_training(
    model_fn: Callable[[], nn.Module],
    train: Rows,
    counts: ClassCounts,
    plan: Plan,
    remedy: str,
    seed: int,
    *,
    steps: int,
) -> Training:
    """A training of the race at its beginning; all remedies of a seed begin with the same model."""
    model = new_model(model_fn, seed)
    return Training(model, train, plan.remedy(remedy), counts=counts, steps=steps, recipe=plan.recipe, seed=seed)


def settings_of(plan: Plan, steps: int, train: Rows, judge: Judge, model: nn.Module) -> dict[str, Any]:
    """What every process of one race must agree on; more remedies and seeds may join later.

    Remedies trained with another network or on other columns would be compared with a plain training that is none.
    """
    digest = hashlib.sha256()
    for part in (train.target.numpy(), judge.target, judge.choosing):
        digest.update(np.ascontiguousarray(part).tobytes())
    recipe = plan.recipe
    return {
        "schema": SCHEMA,
        "goal": plan.goal,
        "budget": f"{plan.budget.amount:g} {plan.budget.unit}",
        "steps": steps,
        "labels": digest.hexdigest()[:24],
        "inputs": _inputs_of(train),
        "model": _shapes_of(model),
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "clip": recipe.clip,
        "optimiser": type(recipe.build(model.parameters())).__name__,
    }


def _inputs_of(rows: Rows) -> list[str]:
    """What the tensors of the first rows look like, in a way that survives another machine's rounding.

    Of a data set only types and shapes: it may change its rows at random.
    """
    fixed = isinstance(rows, (TensorRows, TableRows))
    first = rows.batch(torch.arange(min(len(rows), 64) if fixed else 1))
    return [
        f"{tensor.dtype} {list(tensor.shape[1:])}" + (f" {float(tensor.double().abs().sum()):.4g}" if fixed else "")
        for tensor in _tensors(first)
    ]


def _tensors(inputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(inputs, torch.Tensor):
        yield inputs
    elif isinstance(inputs, (dict, list, tuple)):
        for inner in inputs.values() if isinstance(inputs, dict) else inputs:
            yield from _tensors(inner)


def _shapes_of(model: nn.Module) -> str:
    shapes = [(type(module).__name__, [list(p.shape) for p in module.parameters(False)]) for module in model.modules()]
    return f"{type(model).__name__} {hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]}"


@contextmanager
def opened(
    plan: Plan,
    model_fn: Callable[[], nn.Module],
    train: Rows,
    valid: Rows,
    *,
    counts: Any = None,
    group: Any = None,
    folder: Path | None = None,
    watcher: Watcher | None = None,
    processes: int = 1,
) -> Iterator[tuple[Board, Contest]]:
    """A race begun or taken up: its board and what trainings need."""
    known = count_rows(train, counts)
    for remedy in plan.remedies:
        try:
            stages_of(remedy, known)  # an option that a loss refuses shows before hours of training
        except InputError as error:
            raise InputError(f"{remedy.name}: {error}") from error
    judge = Judge.halved(valid.target.numpy(), known, plan.goal, group=group, seed=plan.split_seed)
    held = held_settings(folder) if folder is not None else None
    steps = int(held["steps"]) if held and "steps" in held else begin(plan, model_fn, train, known, processes)
    settings = {"steps": steps} if folder is None else settings_of(plan, steps, train, judge, new_model(model_fn, 0))
    with open_board(folder, settings, PLAIN) as board:
        steps = int(board.settings["steps"])
        yield board, Contest(model_fn, train, valid, known, judge, plan, steps, watcher or Watcher())


def run(board: Board, contest: Contest) -> None:
    """Train whatever nobody else trains, and wait for the rest."""
    contest.watcher.begin(len(contest.plan.runs), contest.steps)
    while True:
        contest.watcher.settled(len(board.results()))
        wanted = still_wanted(board, contest.plan)
        ticket = board.claim(wanted)
        if ticket is not None:
            train_one(board, ticket, contest)
        elif board.running(wanted):
            time.sleep(WAIT)
        else:
            return


def still_wanted(board: Board, plan: Plan) -> list[Key]:
    """All trainings but those of remedies that were stopped as hopeless on enough seeds."""
    stopped = [key[0] for key, result in board.results().items() if result.state == "stopped"]
    hopeless = {name for name in stopped if stopped.count(name) >= ENOUGH_STOPS}
    settled = board.results()
    return [key for key in plan.runs if key[0] not in hopeless or key in settled]


def train_one(board: Board, ticket: Ticket, contest: Contest) -> None:
    """Train, judge and keep one remedy with one seed; what fails is told and the race goes on."""
    remedy, seed = ticket.key
    contest.watcher.training(remedy, seed)
    start = time.perf_counter()
    record: dict[str, Any] = {"remedy": remedy, "seed": seed, "steps": contest.steps, "worker": board.worker}
    training: Training | None = None
    try:
        training = new_training(
            contest.model_fn, contest.train, contest.counts, contest.plan, remedy, seed, steps=contest.steps
        )
        reached = _trained(board, ticket, training, contest)
        if reached is not None:
            record |= {"why": reached} | _times(training, start)
            board.settle(ticket, "stopped", record)
            return
        judged = judge_model(checked_logits(training.model, contest.valid, contest.counts.classes), contest.judge)
        record |= judged.figures | {"loss": training.loss} | _times(training, start)
        arrays = {"raw": judged.raw} | ({} if judged.corrected is None else {"corrected": judged.corrected})
        metric = contest.judge.metric
        value = metric.sign * contest.judge.value(metric, judged.raw.astype(np.int64), contest.judge.choosing)
        board.finish(ticket, value, record, arrays)
    except (RuntimeError, MemoryError, ArithmeticError, InputError) as error:
        record |= {"why": told(error)} | ({} if training is None else _times(training, start))
        board.settle(ticket, "failed", record)
        del training
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _trained(board: Board, ticket: Ticket, training: Training, contest: Contest) -> str | None:
    """Train to the end, with a look at the model at every rung; why it was stopped, or None."""
    judge = contest.judge
    rows = judge.rung_rows()
    looked = PickedRows(contest.valid, torch.from_numpy(rows))
    rungs = {round(share * training.total) for share in contest.plan.rungs} if len(contest.plan.remedies) > 1 else set()
    pieces = {round(part * training.total / PIECES) for part in range(1, PIECES + 1)}
    for stop in sorted(rungs | pieces | {training.total}):
        training.advance(stop)
        contest.watcher.step(training.step)
        if stop not in rungs or not 0 < stop < training.total:
            continue
        value, error = judge.potential(checked_logits(training.model, looked, contest.counts.classes), rows)
        if board.report(ticket, stop, judge.metric.sign * value, error):
            share = f"{stop / training.total:.0%} of the training"
            return f"far below plain training after {share}: {judge.metric.words} {value:.3f} at its best tilt"
    return None


def checked_logits(model: nn.Module, rows: Rows, classes: int) -> Any:
    """(N, K) float32 logits.

    Raises:
        InputError: another shape.
    """
    logits = predict_logits(model, rows).numpy()
    if logits.shape != (len(rows), classes):
        raise InputError(
            f"expected logits ({len(rows)}, {classes}) from the model, got shape {logits.shape}; its last layer must "
            f"have one output for each of the {classes} classes"
        )
    return logits


def told(error: BaseException) -> str:
    """Why a training failed, in a line."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "out of memory" in reason.lower():
        return f"out of memory ({reason[:120]})" if lines else "out of memory"
    return reason[:200]


def _times(training: Training, start: float) -> dict[str, float]:
    """Seconds of forward and backward passes and steps of the optimiser, and of everything."""
    return {"seconds": training.seconds, "wall": time.perf_counter() - start}
