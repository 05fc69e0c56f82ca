"""Who trains what: an Optuna study on a journal file that any number of processes share, and that survives a kill."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from evenhand.training.racing.keeping import Arrays, FolderShelf, Shelf, agreed_settings
from evenhand.training.racing.locks import SignOfLife, is_alive, open_journal
from evenhand.training.racing.unfinished import Place, file_name

Key = tuple[str, int]
MARGIN = 4.0  # standard errors below plain training at which a training is hopeless
LEAST = 0.03  # and at least so far below it
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


class HopelessPruner(optuna.pruners.BasePruner):
    """Stops a training that is far below the plain training of the same seed, and would be at the end at its pace.

    Far is four standard errors of the difference, and three points: after a part of the training nobody knows more. At
    the first rung there is no pace yet: some heads and losses begin slowly and end in front. A pruner by rank would
    stop a fixed share of the trainings even where all are alike.

    Args:
        steps: of a whole training; 0 if that is not known, and then no pace is.
    """

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the training is hopeless at the last rung that it reported."""
        reference = next(
            (
                other
                for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE))
                if other.user_attrs.get("reference")
                and other.user_attrs.get("seed") == trial.user_attrs.get("seed")
                and trial.last_step in other.intermediate_values
            ),
            None,
        )
        if reference is None or reference.number == trial.number:
            return False
        rungs = sorted(reference.intermediate_values.keys() & trial.intermediate_values)
        if len(rungs) < 2:
            return False
        before, now = (reference.intermediate_values[rung] - trial.intermediate_values[rung] for rung in rungs[-2:])
        caught_up = max(0.0, before - now) / (rungs[-1] - rungs[-2])
        at_end = now - caught_up * max(0, self.steps - rungs[-1])
        return at_end > max(LEAST, MARGIN * 2**0.5 * float(trial.user_attrs.get("error", 0.0)))


@dataclass(frozen=True, eq=False)
class Ticket:
    """The right to train one remedy with one seed."""

    key: Key
    trial: optuna.Trial


@dataclass(frozen=True, eq=False)
class Result:
    """A settled training: how it ended, its record, and its decisions where it finished."""

    key: Key
    state: str
    record: dict[str, Any]
    arrays: Arrays


class Board:
    """Claims, reports and results of one race.

    Args:
        folder: where the journal and the decisions lie, made if need be; None for a race within this process.
        settings: JSON that every process taking part must agree on. reference: the remedy that is never stopped.

    Raises:
        InputError: the folder holds a race with other settings; the difference is named.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any], reference: str) -> None:
        self.reference, self.settings = reference, settings
        self.worker = uuid.uuid4().hex
        self._unfinished: Path | None = None
        self._workers: Path | None = None
        self._sign: SignOfLife | None = None
        self._shelf = Shelf()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage: optuna.storages.BaseStorage = optuna.storages.InMemoryStorage()
        if folder is not None:
            self._shelf = FolderShelf(folder / "runs")
            self._unfinished, self._workers = folder / "unfinished", folder / "workers"
            self._workers.mkdir(exist_ok=True)
            self.settings = agreed_settings(folder, settings)
            storage = JournalStorage(open_journal(folder / "race.journal"))
            self._sign = SignOfLife(self._workers / self.worker)
        self.study = optuna.create_study(
            study_name="race",
            storage=storage,
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=HopelessPruner(int(self.settings.get("steps", 0))),
            direction="maximize",
            load_if_exists=True,
        )

    def close(self) -> None:
        """Let others know that this process is done."""
        if self._sign is not None:
            self._sign.close()

    def claim(self, wanted: Sequence[Key]) -> Ticket | None:
        """The first wanted training that nobody does or has done; None when there is none left to begin.

        Two processes may ask at once: of two trials for one training the earlier in the journal counts.
        """
        while True:
            trials = self.study.get_trials(deepcopy=False)
            self._bury(trials)
            taken = {key_of(trial) for trial in trials if self._counts(trial)}
            waiting = [trial for trial in trials if trial.state is TrialState.WAITING and key_of(trial) not in taken]
            open_keys = [key for key in wanted if key not in taken]
            if not open_keys:
                return None
            if not any(key_of(trial) in open_keys for trial in waiting):
                remedy, seed = open_keys[0]
                attributes = {"remedy": remedy, "seed": seed, "reference": remedy == self.reference}
                self.study.enqueue_trial({}, user_attrs=attributes)
            trial = self.study.ask()
            trial.set_user_attr("worker", self.worker)
            key = (str(trial.user_attrs.get("remedy")), int(trial.user_attrs.get("seed", -1)))
            earlier = [t for t in self.study.get_trials(deepcopy=False) if t.number < trial.number and self._counts(t)]
            if key in wanted and key not in {key_of(t) for t in earlier}:
                return Ticket(key, trial)
            trial.set_user_attr("void", True)
            self.study.tell(trial, state=TrialState.FAIL)

    def place(self, ticket: Ticket, about: dict[str, Any]) -> Place:
        """Where a training is kept while it is under way; `about` tells what it is, beside the settings."""
        return Place(self._path(ticket.key), {"settings": self.settings, **about})

    def _path(self, key: Key) -> Path | None:
        return None if self._unfinished is None else self._unfinished / file_name(*key)

    def repeat(self, ticket: Ticket, reports: Sequence[tuple[int, float, float]]) -> None:
        """Tell again what the training had told before it was taken up; it was not stopped for it then."""
        for step, value, error in reports:
            ticket.trial.set_user_attr("error", error)
            ticket.trial.report(value, step)

    def report(self, ticket: Ticket, step: int, value: float, error: float) -> bool:
        """Tell a value, larger is better, and its standard error; whether the training is hopeless."""
        self.repeat(ticket, [(step, value, error)])
        if self._sign is not None:
            self._sign.give()
        return ticket.key[0] != self.reference and ticket.trial.should_prune()

    def finish(self, ticket: Ticket, value: float, record: dict[str, Any], arrays: Arrays) -> None:
        """Keep a finished training: first its decisions, then the word that it is finished."""
        self._shelf.keep(ticket.trial.number, arrays)
        ticket.trial.set_user_attr("record", record | {"state": "finished"})
        self.study.tell(ticket.trial, value)
        self.clear([ticket.key])

    def settle(self, ticket: Ticket, state: str, record: dict[str, Any]) -> None:
        """Keep that a training was ``stopped`` or ``failed``, and why."""
        ticket.trial.set_user_attr("record", record | {"state": state})
        self.study.tell(ticket.trial, state=TrialState.PRUNED if state == "stopped" else TrialState.FAIL)
        self.clear([ticket.key])

    def clear(self, keys: Iterable[Key]) -> None:
        """Take away what was kept of trainings under way."""
        for key in keys:
            Place(self._path(key), None).clear()

    def results(self) -> dict[Key, Result]:
        """Every settled training."""
        found: dict[Key, Result] = {}
        for trial in self.study.get_trials(deepcopy=False):
            state, key = _ended(trial), key_of(trial)
            if state is None or (key in found and found[key].state != "failed"):
                continue
            arrays = self._shelf.read(trial.number) if state == "finished" else {}
            if arrays is not None:
                found[key] = Result(key, state, trial.user_attrs["record"], arrays)
        return found

    def running(self, wanted: Sequence[Key]) -> bool:
        """Whether another living process still trains something wanted."""
        trials = self.study.get_trials(deepcopy=False)
        settled = {key_of(trial) for trial in trials if trial.state.is_finished() and self._counts(trial)}
        busy = {key_of(trial) for trial in trials if trial.state is TrialState.RUNNING and self._alive(trial)}
        return any(key in busy and key not in settled for key in wanted)

    def _counts(self, trial: FrozenTrial) -> bool:
        """Whether a trial stands for its training: settled with a record, or run by a process that lives."""
        if trial.state is TrialState.RUNNING:
            return self._alive(trial) and "void" not in trial.user_attrs
        state = _ended(trial)
        if state == "failed":  # the next run tries again: there may be memory now, or the model is mended
            return self._alive(trial)
        return state is not None and (state != "finished" or self._shelf.read(trial.number) is not None)

    def _bury(self, trials: Sequence[FrozenTrial]) -> None:
        """Trials of processes that died become failed, so that their trainings are free again."""
        for trial in trials:
            if trial.state is TrialState.RUNNING and not self._alive(trial):
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _alive(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker == self.worker:
            return True
        started = trial.datetime_start
        if worker is None:  # asked for a moment ago, not yet signed
            return started is not None and (datetime.datetime.now() - started).total_seconds() < 60
        return self._workers is not None and is_alive(self._workers / str(worker))


def key_of(trial: FrozenTrial) -> Key:
    """Remedy and seed of a trial."""
    return str(trial.user_attrs.get("remedy")), int(trial.user_attrs.get("seed", -1))


def _ended(trial: FrozenTrial) -> str | None:
    """How a trial ended; None also if its process died between the record and the word that it is settled."""
    record, state = trial.user_attrs.get("record"), STATES.get(trial.state)
    return None if record is None or record.get("state", state) != state else state


@contextlib.contextmanager
def open_board(folder: Path | None, settings: dict[str, Any], reference: str) -> Iterator[Board]:
    """A board that is closed at the end."""
    board = Board(folder, settings, reference)
    try:
        yield board
    finally:
        board.close()
