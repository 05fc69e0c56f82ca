"""Who trains what: an Optuna study on a journal file that any number of processes share, and that survives a kill."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from evenhand.declared import InputError
from evenhand.output import write_bytes_atomically, write_text_atomically

with contextlib.suppress(ImportError):
    import fcntl

Key = tuple[str, int]
MARGIN = 4.0  # standard errors below plain training at which a training is hopeless
LEAST = 0.03  # and at least so far below it
STALE = 600.0  # seconds after which a worker that cannot be asked is taken for dead
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


class HopelessPruner(optuna.pruners.BasePruner):
    """Stops a training that is far below the plain training of the same seed after the same steps.

    Far is four standard errors of the difference, and three points: after a part of the training nobody knows more. A
    pruner by rank would stop a fixed share of the trainings even where all are alike.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the training is hopeless at the last rung that it reported."""
        step = trial.last_step
        reference = next(
            (
                other
                for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE))
                if other.user_attrs.get("reference")
                and other.user_attrs.get("seed") == trial.user_attrs.get("seed")
                and step in other.intermediate_values
            ),
            None,
        )
        if step is None or reference is None or reference.number == trial.number:
            return False
        error = float(trial.user_attrs.get("error", 0.0))
        behind = reference.intermediate_values[step] - trial.intermediate_values[step]
        return behind > max(LEAST, MARGIN * 2**0.5 * error)


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
    arrays: dict[str, NDArray[np.int32]]


class Board:
    """Claims, reports and results of one race.

    Args:
        folder: where the journal and the decisions lie, made if need be; None for a race within this process.
        settings: JSON that every process taking part must agree on. reference: the remedy that is never stopped.

    Raises:
        InputError: the folder holds a race with other settings; the difference is named.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any], reference: str) -> None:
        self.folder, self.reference, self.settings = folder, reference, settings
        self.kept: dict[int, dict[str, NDArray[np.int32]]] = {}
        self.worker, self._lock = uuid.uuid4().hex, None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage: optuna.storages.BaseStorage = optuna.storages.InMemoryStorage()
        if folder is not None:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            (folder / "workers").mkdir(exist_ok=True)
            self.settings = _agreed(folder / "race.json", settings)
            storage = JournalStorage(_journal(folder / "race.journal"))
            self._lock = (folder / "workers" / self.worker).open("w")
            if "fcntl" in globals():
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.study = optuna.create_study(
            study_name="race",
            storage=storage,
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=HopelessPruner(),
            direction="maximize",
            load_if_exists=True,
        )

    def close(self) -> None:
        """Let others know that this process is done."""
        if self._lock is not None:
            self._lock.close()
            Path(self._lock.name).unlink(missing_ok=True)

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

    def report(self, ticket: Ticket, step: int, value: float, error: float) -> bool:
        """Tell a value, larger is better, and its standard error; whether the training is hopeless."""
        ticket.trial.set_user_attr("error", error)
        ticket.trial.report(value, step)
        if self._lock is not None:
            os.utime(self._lock.name)
        return ticket.key[0] != self.reference and ticket.trial.should_prune()

    def finish(
        self, ticket: Ticket, value: float, record: dict[str, Any], arrays: dict[str, NDArray[np.int32]]
    ) -> None:
        """Keep a finished training: first its decisions, then the word that it is finished."""
        self.kept[ticket.trial.number] = arrays
        if self.folder is not None:
            held = BytesIO()
            np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
            write_bytes_atomically(self._decisions(ticket.trial.number), held.getvalue())
        ticket.trial.set_user_attr("record", record)
        self.study.tell(ticket.trial, value)

    def settle(self, ticket: Ticket, state: str, record: dict[str, Any]) -> None:
        """Keep that a training was ``stopped`` or ``failed``, and why."""
        ticket.trial.set_user_attr("record", record)
        self.study.tell(ticket.trial, state=TrialState.PRUNED if state == "stopped" else TrialState.FAIL)

    def results(self) -> dict[Key, Result]:
        """Every settled training."""
        found: dict[Key, Result] = {}
        for trial in self.study.get_trials(deepcopy=False):
            record = trial.user_attrs.get("record")
            key = key_of(trial)
            if trial.state not in STATES or record is None or key in found:
                continue
            arrays = self._read(trial.number) if trial.state is TrialState.COMPLETE else {}
            if arrays is not None:
                found[key] = Result(key, STATES[trial.state], record, arrays)
        return found

    def running(self, wanted: Sequence[Key]) -> bool:
        """Whether another living process still trains something wanted."""
        trials = self.study.get_trials(deepcopy=False)
        settled = {key_of(trial) for trial in trials if trial.state.is_finished() and self._counts(trial)}
        busy = {key_of(trial) for trial in trials if trial.state is TrialState.RUNNING and self._alive(trial)}
        return any(key in busy and key not in settled for key in wanted)

    def _counts(self, trial: FrozenTrial) -> bool:
        """Whether a trial stands for its training: settled with a record, or running in a living process."""
        if trial.state is TrialState.RUNNING:
            return self._alive(trial) and "void" not in trial.user_attrs
        if trial.state is TrialState.COMPLETE:
            return trial.number in self.kept or self.folder is None or self._decisions(trial.number).exists()
        return trial.state.is_finished() and "record" in trial.user_attrs

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
        return self.folder is not None and _is_held(self.folder / "workers" / str(worker))

    def _decisions(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / "runs" / f"{number:05d}.npz"

    def _read(self, number: int) -> dict[str, NDArray[np.int32]] | None:
        if number in self.kept:
            return self.kept[number]
        try:
            with np.load(self._decisions(number), allow_pickle=False) as held:
                self.kept[number] = {name: held[name] for name in held.files}
        except (OSError, ValueError):
            return None
        return self.kept[number]


class _ProcessLock(JournalFileOpenLock):
    """A lock that ends with its process; Optuna's own lock files outlive a kill, and every other process then waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        file = self._path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        self._file = file
        return True

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _journal(path: Path) -> JournalFileBackend:
    """The journal; a line that a killed process left half-written is taken off, or the next would be glued to it."""
    if "fcntl" not in globals():
        return JournalFileBackend(str(path))
    lock = _ProcessLock(path.with_suffix(".lock"))
    lock.acquire()
    try:
        held = path.read_bytes() if path.exists() else b""
        if held and not held.endswith(b"\n"):
            os.truncate(path, held.rfind(b"\n") + 1)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock_obj=lock)


def key_of(trial: FrozenTrial) -> Key:
    """Remedy and seed of a trial."""
    return str(trial.user_attrs.get("remedy")), int(trial.user_attrs.get("seed", -1))


def _is_held(path: Path) -> bool:
    """Whether a living process holds the lock on its file: a lock ends with its process, however that ends."""
    try:
        with path.open("r+") as file:
            if "fcntl" not in globals():
                return time.time() - path.stat().st_mtime < STALE
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False


def held_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the race that a folder holds, or None."""
    try:
        held: dict[str, Any] = json.loads((folder / "race.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"expected JSON in {folder / 'race.json'}, but {error}; take another folder") from error
    return held


def _agreed(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Write the settings, or take those of the race that the folder holds where they agree.

    Steps are measured for a budget in time, so that two processes never find the same: those written first count.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as beside, contextlib.suppress(FileExistsError):
        draft = Path(beside, path.name)
        write_text_atomically(draft, json.dumps(settings, indent=1, sort_keys=True))
        os.link(draft, path)  # unlike a rename it does not replace what another process has just written
    held = held_settings(path.parent) or settings
    differing = [key for key in settings if key != "steps" and held.get(key) != settings[key]]
    if differing:
        key = differing[0]
        raise InputError(
            f"expected the race that {path.parent} holds, got another (its {key}: {held.get(key)!r:.60}, asked for: "
            f"{settings[key]!r:.60}); take another folder, or the options it was begun with"
        )
    return held


@contextlib.contextmanager
def open_board(folder: Path | None, settings: dict[str, Any], reference: str) -> Iterator[Board]:
    """A board that is closed at the end."""
    board = Board(folder, settings, reference)
    try:
        yield board
    finally:
        board.close()
