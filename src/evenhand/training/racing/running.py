"""The race itself: claim a training, train it, judge it, until none is left."""

from __future__ import annotations

import gc
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
from evenhand.training.racing.settings import about_training, settings_of
from evenhand.training.racing.unfinished import REFUSALS, Place, UnusableError
from evenhand.training.remedies import PLAIN
from evenhand.training.rows import PickedRows, Rows
from evenhand.training.stages import stages_of
from evenhand.training.steps import count_rows, mixed_seed, planned_steps

PIECES = 20  # a training is left so often to tell its progress
TRIAL_STEPS = 20  # steps that the speed is measured on
SPENT = 0.85  # share of a budget in time that trainings are planned to take; judging takes the rest
ENOUGH_STOPS = 2  # stopped on so many seeds, a remedy is not trained on others
WAIT = 1.0
FAILURES = (RuntimeError, MemoryError, ArithmeticError, InputError)  # that any training may end with


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
        if round(plan.budget.amount * per_epoch) < 1:
            raise InputError(
                f"expected a budget of at least one step, got {plan.budget.amount:g} epochs, of {per_epoch:,} steps "
                f"each; give at least {1 / per_epoch:.2g}epochs"
            )
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
            board.clear(contest.plan.runs)  # also of remedies left as hopeless, and of kills before the last word
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
    going: Going | None = None
    try:
        going = taken_up(board, ticket, contest)
        reached = _trained(board, ticket, going, contest)
        if reached is not None:
            record |= {"why": reached} | going.figures(start)
            board.settle(ticket, "stopped", record)
            return
        with own_code(remedy):
            logits = checked_logits(going.training.model, contest.valid, contest.counts.classes)
            judged = judge_model(logits, contest.judge)
        record |= judged.figures | {"loss": going.training.loss} | going.figures(start)
        arrays = {"raw": judged.raw} | ({} if judged.corrected is None else {"corrected": judged.corrected})
        metric = contest.judge.metric
        value = metric.sign * contest.judge.value(metric, judged.raw.astype(np.int64), contest.judge.choosing)
        board.finish(ticket, value, record, arrays)
    except FAILURES as error:
        record |= {"why": told(error)} | ({} if going is None else going.figures(start))
        board.settle(ticket, "failed", record)
        del going
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class UnexpectedError(RuntimeError):
    """An exception of the user's model or data, of a type that no training fails with; told with its type."""


@contextmanager
def own_code(remedy: str) -> Iterator[None]:
    """Where the user's code runs: what it raises is a failed training, so that the finished ones are not lost.

    Of plain training only the usual failures are: all others are bugs that every training would have, and their
    traceback tells more than a leaderboard of failures. The folder's errors are raised outside, and end the race.
    """
    try:
        yield
    except FAILURES:
        raise
    except Exception as error:
        if remedy == PLAIN:
            raise
        raise UnexpectedError(f"{type(error).__name__}: {error}") from error


@dataclass(eq=False)
class Going:
    """A training under way.

    Attributes:
        training: at the step where it is. place: where it is kept. reports: what was told at every rung.
        earlier: seconds of training of processes that died. notes: what went wrong with keeping it.
    """

    training: Training
    place: Place
    reports: list[tuple[int, float, float]]
    earlier: float
    notes: list[str]

    def keep(self) -> None:
        """Keep it as it is; where that cannot be, a note says so and the training goes on."""
        try:
            self.place.write(self.training.state_dict, self.reports)
        except (UnusableError, OSError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self._note(f"a training under way could not be kept, and after a kill would begin anew: {reason.lower()}")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def figures(self, start: float) -> dict[str, Any]:
        """Seconds of forward and backward passes and steps of the optimiser, those before a kill, and of everything."""
        found = {"seconds": self.training.seconds, "earlier": self.earlier, "wall": time.perf_counter() - start}
        return found | ({"notes": self.notes} if self.notes else {})


def taken_up(board: Board, ticket: Ticket, contest: Contest) -> Going:
    """A training where a process that died left it, or at its beginning; rungs that it has passed are told again."""
    remedy, seed = ticket.key

    def begun() -> Training:
        with own_code(remedy):
            return new_training(
                contest.model_fn, contest.train, contest.counts, contest.plan, remedy, seed, steps=contest.steps
            )

    place = board.place(ticket, about_training(contest.plan.remedy(remedy), seed, contest.counts))
    try:
        kept = place.read()
        refused = ""
    except UnusableError as error:
        kept, refused = None, str(error)
    training = begun()
    if kept is not None:
        try:
            training.load_state_dict(kept.state)
        except REFUSALS as error:
            kept, refused = None, told(error)
            training = begun()
    if kept is None:
        anew = f"a training that was under way began anew, since what was kept of it is of no use: {refused}"
        return Going(training, place, [], 0.0, [anew] if refused else [])
    board.repeat(ticket, kept.reports)
    contest.watcher.step(training.step)
    return Going(training, place, kept.reports, training.seconds, [])


def _trained(board: Board, ticket: Ticket, going: Going, contest: Contest) -> str | None:
    """Train to the end, with a look at the model at every rung; why it was stopped, or None."""
    judge, training = contest.judge, going.training
    rows = judge.rung_rows()
    looked = PickedRows(contest.valid, torch.from_numpy(rows))
    rungs = {round(share * training.total) for share in contest.plan.rungs} - {0, training.total}
    pieces = {round(part * training.total / PIECES) for part in range(1, PIECES + 1)}
    for stop in sorted(rungs | pieces | {training.total}):
        if stop <= training.step:
            continue
        with own_code(ticket.key[0]):
            training.advance(stop)
        contest.watcher.step(training.step)
        if stop in rungs and len(contest.plan.remedies) > 1:
            with own_code(ticket.key[0]):
                logits = checked_logits(training.model, looked, contest.counts.classes)
            value, error = judge.potential(logits, rows)
            going.reports.append((stop, judge.metric.sign * value, error))
            if board.report(ticket, *going.reports[-1]):
                share = f"{stop / training.total:.0%} of the training"
                return f"far below plain training after {share}: {judge.metric.words} {value:.3f} at its best tilt"
        if stop in rungs or (going.place.is_due() and not training.done):
            going.keep()
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
