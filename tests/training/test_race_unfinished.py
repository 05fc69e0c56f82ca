"""A training that a kill has cut off goes on where it was kept, and ends as if it had never been interrupted."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

import torch
from torch import Tensor, nn

from evenhand.training import Recipe, Remedy, race
from evenhand.training.racing import unfinished
from evenhand.training.racing.board import Board
from evenhand.training.racing.running import Watcher
from evenhand.training.racing.unfinished import Place, UnusableError

K = 4
ROWS = np.array([60, 30, 15, 10])
STEPS = 40  # rungs at 10, 20 and 30; the second stage of crt begins at 32
Part = tuple[Tensor, Tensor]


def rows_of(seed: int) -> Part:
    centre = np.random.default_rng(1).normal(size=(K, 5))
    y = np.repeat(np.arange(K), 4 * ROWS)
    x = centre[y] + np.random.default_rng(seed).normal(size=(len(y), 5))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


@pytest.fixture(scope="module")
def parts() -> tuple[Part, Part]:
    return rows_of(0), rows_of(1)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, K))


class Told(Watcher):
    """Writes down the steps of every training, and ends the process at one of them, as a kill does.

    Args:
        at: (number of the training, step) where it ends; None: nowhere.
    """

    def __init__(self, at: tuple[int, int] | None = None) -> None:
        self.at, self.steps, self.names = at, [], []

    def training(self, remedy: str, seed: int) -> None:
        self.names.append(remedy)
        self.steps.append([])

    def step(self, done: int) -> None:
        self.steps[-1].append(done)
        if self.at == (len(self.steps) - 1, done):
            raise KeyboardInterrupt


def raced(parts: tuple[Part, Part], folder: Path | None, at: tuple[int, int] | None = None, **options: Any) -> Any:
    watcher = Told(at)
    given = {"remedies": "crt,seesaw", "seeds": 1, "budget": f"{STEPS}steps", **options}
    if at is None:
        return race(network, *parts, folder=folder, watcher=watcher, **given), watcher
    with pytest.raises(KeyboardInterrupt):
        race(network, *parts, folder=folder, watcher=watcher, **given)
    return None, watcher


def decisions(folder: Path) -> dict[Any, dict[str, list[int]]]:
    board = Board(folder, {}, "plain")
    found = {key: {n: a.tolist() for n, a in r.arrays.items()} for key, r in board.results().items()}
    board.close()
    return found


@pytest.fixture(scope="module")
def alone(parts: tuple[Part, Part], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The race that nobody interrupts, and its decisions."""
    folder = tmp_path_factory.mktemp("alone")
    return raced(parts, folder)[0], decisions(folder)


def kept_files(folder: Path) -> list[Path]:
    return sorted((folder / "unfinished").glob("*"))


@pytest.mark.parametrize(
    ("number", "step", "kept", "every"),
    [(0, 24, 20, 300.0), (1, 12, 10, 300.0), (1, 38, 36, 0.0), (2, 32, 30, 300.0), (0, 10, 8, 0.0), (1, 6, 0, 300.0)],
)
def test_a_training_goes_on_where_it_was_kept(
    number: int, step: int, kept: int, every: float, parts: tuple[Part, Part], alone: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In plain, crt and seesaw, in both stages, after rungs and after the time that passed."""
    monkeypatch.setattr(unfinished, "EVERY", every)
    raced(parts, tmp_path, (number, step))
    assert len(kept_files(tmp_path)) == (kept > 0)
    result, watcher = raced(parts, tmp_path)
    assert watcher.names == ["plain", "crt", "seesaw"][number:]
    assert watcher.steps[0][0] == (kept or 2)  # told at once where it goes on, else after the first piece
    assert all(steps[-1] == STEPS for steps in watcher.steps)
    assert decisions(tmp_path) == alone[1]
    for a, b in zip(result.entries, alone[0].entries, strict=True):
        assert (a.name, a.value, a.metrics) == (b.name, b.value, b.metrics)
    assert result.notes == []
    assert kept_files(tmp_path) == []
    assert 0 < result.training < result.wall


def test_seconds_of_the_dead_count_for_the_training_and_not_for_this_process(
    parts: tuple[Part, Part], tmp_path: Path
) -> None:
    raced(parts, tmp_path, (0, 36))
    result, _ = raced(parts, tmp_path, remedies="plain")
    assert 0 < result.training < result.entries[0].seconds / 2


def test_rungs_that_were_passed_are_told_again(parts: tuple[Part, Part], tmp_path: Path) -> None:
    """Of plain training above all, which the others are held against."""
    raced(parts, tmp_path, (0, 24))
    raced(parts, tmp_path)
    board = Board(tmp_path, {}, "plain")
    dead, *living = board.study.get_trials()
    assert sorted(dead.intermediate_values) == [10, 20]
    assert all(sorted(trial.intermediate_values) == [10, 20, 30] for trial in living)
    assert {s: living[0].intermediate_values[s] for s in (10, 20)} == dead.intermediate_values
    assert living[0].user_attrs["reference"]
    board.close()
    board = Board(tmp_path / "other", {}, "plain")
    board.repeat(board.claim([("plain", 0)]), [(10, 0.5, 0.01), (20, 0.5, 0.01)])
    far = board.claim([("plain", 0), ("far", 0)])
    board.repeat(far, [(10, 0.2, 0.01)])
    assert board.report(far, 20, 0.2, 0.01)
    board.close()


def test_a_race_that_is_killed_goes_on_within_the_training(parts: tuple[Part, Part], tmp_path: Path) -> None:
    for name, (x, y) in zip(("train", "valid"), parts, strict=True):
        np.savez(tmp_path / f"{name}.npz", x=x.numpy(), y=y.numpy())
    folder = tmp_path / "race"
    options = ["--label", "y", "--remedies", "plain", "--seeds", "1", "--budget", "2000steps", "--out", str(folder)]
    command = ["race", str(tmp_path / "train.npz"), "--valid", str(tmp_path / "valid.npz"), *options]
    process = subprocess.Popen([sys.executable, "-m", "evenhand", *command], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 90
    while not list((folder / "unfinished").glob("*_0.safetensors")):
        assert process.poll() is None, "the race ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    from evenhand.training.encoding import load
    from evenhand.training.models import built_in
    from evenhand.training.tables import Columns

    data = load(tmp_path / "train.npz", Columns("y"), valid=tmp_path / "valid.npz")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = []
        for place in (folder, tmp_path / "alone"):
            watcher = Told()
            race(built_in("mlp", data.train, K), data.train, data.valid, remedies="plain", seeds=1, budget="2000steps",
                 folder=place, watcher=watcher)  # fmt: skip
            found.append(watcher.steps)
    finally:
        torch.set_num_threads(threads)
    ((taken_up,), (whole,)) = found
    assert taken_up[0] in (500, 1000, 1500)
    assert taken_up[1:] == [step for step in whole if step > taken_up[0]]
    assert decisions(folder) == decisions(tmp_path / "alone")


class Trap:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("damage", ["a bit", "its end", "everything", "a pickle", "its name"])
def test_what_is_damaged_or_of_another_training_is_left_alone(
    damage: str, parts: tuple[Part, Part], alone: Any, tmp_path: Path
) -> None:
    raced(parts, tmp_path, (1, 24))
    (path,) = kept_files(tmp_path)
    held = path.read_bytes()
    why = "the file is damaged"
    if damage == "a bit":
        path.write_bytes(held[:-700] + bytes([held[-700] ^ 1]) + held[-699:])
    elif damage == "its end":
        path.write_bytes(held[:-100])
    elif damage == "everything":
        path.write_bytes(b"\xff" * 500)
    elif damage == "a pickle":
        path.write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    else:
        why = "it is that of another training"
        path.rename(path.with_name(unfinished.file_name("seesaw", 0)))
    result, watcher = raced(parts, tmp_path)
    assert [steps[0] for steps in watcher.steps] == [2, 2]
    remedy = "seesaw" if damage == "its name" else "crt"
    (note,) = result.notes
    assert f"began anew, since what was kept of it is of no use: {why}" in note
    assert note.endswith(f"({remedy}, seed 0)")
    assert note in str(result)
    assert decisions(tmp_path) == alone[1]
    assert not (tmp_path / "trace").exists()
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize("what", ["options", "counts", "model", "steps"])
def test_a_training_of_another_kind_is_not_taken_up(what: str, parts: tuple[Part, Part], tmp_path: Path) -> None:
    """Remedies of one name, counts, and names of weights are not in the settings; and those may be thrown away."""

    def own(gamma: float) -> list[Remedy]:
        return [Remedy("mine", "my own", loss="focal", options={"gamma": gamma})]

    class Renamed(nn.Sequential):
        """The same modules under other names."""

        def __init__(self, *modules: nn.Module) -> None:
            super().__init__()
            for number, module in enumerate(modules):
                self.add_module(f"part{number}", module)

    Renamed.__name__ = "Sequential"
    raced(parts, tmp_path, (1, 24), remedies=own(1.0))
    watcher = Told()
    given: dict[str, Any] = {"remedies": own(2.0 if what == "options" else 1.0), "seeds": 1, "budget": f"{STEPS}steps"}
    if what == "counts":
        given["counts"] = 2 * 4 * ROWS
    if what == "steps":  # of a race that was thrown away, but for this
        given["budget"] = f"{STEPS + 20}steps"
        for name in ("race.json", "race.journal"):
            (tmp_path / name).unlink()
    build = (lambda: Renamed(*network())) if what == "model" else network
    result = race(build, *parts, folder=tmp_path, watcher=watcher, **given)
    assert watcher.steps[-1][0] == (3 if what == "steps" else 2)
    assert ("that of another training" in result.notes[0]) == (what != "model")
    assert "began anew" in result.notes[0]


class Odd(torch.optim.SGD):
    """Keeps what is no plain tensor and no JSON."""

    def __init__(self, parameters: Any, odd: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.odd = odd

    def state_dict(self) -> Any:
        return super().state_dict() | {"odd": self.odd}


@pytest.mark.parametrize(
    ("odd", "why"), [({1, 2}, "its state holds a set"), (torch.empty(2, device="meta"), "cannot copy out of meta")]
)
def test_a_training_that_cannot_be_kept_is_noted_once_and_goes_on(
    odd: Any, why: str, parts: tuple[Part, Part], tmp_path: Path
) -> None:
    recipe = Recipe(optimiser=lambda parameters: Odd(parameters, odd))
    result, _ = raced(parts, tmp_path, recipe=recipe)
    (note,) = result.notes
    assert note.startswith(f"a training under way could not be kept, and after a kill would begin anew: {why}")
    assert note.endswith("(plain, seed 0 and 2 more)")
    assert result.trainings["finished"] == 3
    assert kept_files(tmp_path) == []


def test_a_disk_that_is_full_for_it_does_not_end_the_race(
    parts: tuple[Part, Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unfinished, "save_file", full)
    result, _ = raced(parts, tmp_path)
    assert "would begin anew: no space left on device (plain, seed 0 and 2 more)" in result.notes[0]
    assert result.trainings["finished"] == 3


def test_what_is_kept_goes_when_a_training_is_settled(
    parts: tuple[Part, Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it ends; also what a kill has left half-written, and what was kept of a remedy that is given up."""
    board = Board(tmp_path, {}, "plain")
    for name, ending in (("plain", "finished"), ("weighted", "stopped"), ("focal", "failed")):
        ticket = board.claim([(name, 0)])
        board.place(ticket, {}).write(lambda: {"step": 1, "total": 2}, [])
        (path,) = kept_files(tmp_path)
        path.with_name(f".{path.name}.half.safetensors").write_bytes(b"half")
        if ending == "finished":
            board.finish(ticket, 0.5, {}, {})
        else:
            board.settle(ticket, ending, {"why": "so"})
        assert kept_files(tmp_path) == []
    board.close()


def test_without_a_folder_nothing_is_written(
    parts: tuple[Part, Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unfinished, "save_file", refused)
    monkeypatch.setattr(unfinished, "EVERY", 0.0)
    monkeypatch.setattr("evenhand.training.fitting.Training.state_dict", refused)
    result, _ = raced(parts, None)
    assert result.trainings["finished"] == 3
    assert list(tmp_path.iterdir()) == []


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def test_every_state_comes_back_as_it_was(tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    state = {
        "step": 1,
        "total": 2,
        "model": {"a": tied, "b": tied, "row": tied[1], "turned": tied.T, "none": torch.zeros(0, 3)},
        "kinds": [torch.tensor(2.5, dtype=t) for t in (torch.bfloat16, torch.float16, torch.float64, torch.int64)],
        "optimiser": {"state": {0: {"step": torch.tensor(3.0)}, 7: {}}, "groups": [{"betas": (0.9, 0.999), "lr": 0.1}]},
        "plain": (None, True, 3, float("nan"), float("-inf"), 0.1 + 0.2, "text", [], {}, {(1, 2): "pair"}),
    }
    path = tmp_path / "unfinished" / "a.safetensors"
    Place(path, {"seed": 0}).write(lambda: state, [(1, 0.25, 0.01)])
    kept = Place(path, {"seed": 0}).read()
    assert kept is not None
    assert same(state, kept.state)
    assert kept.reports == [(1, 0.25, 0.01)]
    with pytest.raises(UnusableError, match="another training"):
        Place(path, {"seed": 1}).read()
    assert Place(path.with_name("b.safetensors"), {}).read() is None
