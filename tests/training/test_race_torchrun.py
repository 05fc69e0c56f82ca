"""A race that torchrun starts: the processes share the work through a folder, and one of them speaks for all.

Most of their time goes into importing torch. All: pytest -m "slow or not slow" tests/training/test_race_torchrun.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from evenhand.cli import run
from evenhand.commands.race_progress import watched
from evenhand.declared import InputError
from evenhand.training.racing import running
from evenhand.training.racing.board import Board
from evenhand.training.racing.plan import make_plan
from evenhand.training.racing.processes import Process, require_no_group

ROWS = np.array([60, 30, 15, 10])
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = Path(__file__).with_name("ranks_race.py")


@pytest.fixture
def race(tmp_path: Path) -> list[str]:
    """Arguments of a small race, in the folder of the test."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 4 * ROWS)
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(4, 5))[y] + rng.normal(size=(len(y), 5)), y=y)
    return ["race", str(tmp_path / "rows.npz"), "--label", "y", "--remedies", "weighted", "--seeds", "2", "--model",
            "linear", "--budget", "20steps"]  # fmt: skip


def workers_of(folder: Path) -> list[str]:
    board = Board(folder, {}, "plain")
    found = [result.record["worker"] for result in board.results().values()]
    board.close()
    return found


def test_torchrun_gives_one_leaderboard(race: list[str], tmp_path: Path) -> None:
    outputs = ["--out", str(tmp_path / "race"), "--json", "race.json", "--html", "race.html"]
    command = [*TORCHRUN, "-m", "evenhand", *race, *outputs]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("balanced accuracy and the rest on the judging rows") == 1
    assert done.stdout.startswith("rows.npz")
    assert done.stderr.count("wrote race.html") == 1
    told = json.loads((tmp_path / "race.json").read_text())
    assert told["trainings"]["finished"] == 4
    assert (tmp_path / "race.html").read_text().startswith("<!doctype html>")
    assert len(workers_of(tmp_path / "race")) == len(list((tmp_path / "race" / "runs").glob("*.npz"))) == 4


@pytest.mark.slow
def test_every_process_of_a_script_trains_and_knows_the_result(tmp_path: Path) -> None:
    command = [*TORCHRUN, str(SCRIPT), str(tmp_path / "race")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("balanced accuracy and the rest on the judging rows") == 1
    workers = workers_of(tmp_path / "race")
    assert (len(workers), len(set(workers))) == (6, 2)


@pytest.mark.slow
def test_torchrun_without_a_folder_says_so_once(race: list[str], tmp_path: Path) -> None:
    command = [*TORCHRUN, "--no-python", sys.executable, "-m", "evenhand", *race, "--json", str(tmp_path / "race.json")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1  # torchrun's own
    assert (done.stderr.count("evenhand: expected --out DIR, since the 2 processes"), done.stdout) == (1, "")
    assert "exitcode  : 2" in done.stderr
    assert not (tmp_path / "race.json").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_need_a_folder(
    rank: int, race: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(race) == 2
    said = capsys.readouterr()
    assert said.err.startswith("evenhand: expected --out DIR, since the 2 processes that were started together")
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert len(waited) == rank  # the first speaks at once, the others leave it the time to
    from evenhand import training

    with pytest.raises(InputError, match="expected folder=, since the 2 processes"):
        training.race("linear", None, None)


@pytest.mark.parametrize(
    ("rank", "world", "expected"),
    [(None, None, (0, 1)), ("0", "1", (0, 1)), ("3", "8", (3, 8)), ("x", "8", (0, 8)), ("0", "", (0, 1))],
)
def test_the_place_among_the_processes_is_read(
    rank: str | None, world: str | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert Process.this() == Process(*expected)
    assert Process.this().leads == (expected[0] == 0)


def test_an_open_process_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that sums its counts over the group would wait for processes that train something else."""
    require_no_group()
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    from evenhand import training

    with pytest.raises(InputError, match="got one of 2 processes; leave init_process_group out"):
        training.race("linear", None, None)


@pytest.mark.slow
def test_the_first_process_does_what_a_dead_one_left(tmp_path: Path) -> None:
    """Without torchrun, which would end all of them: rank 1 is killed in a training, and rank 0 still ends complete."""
    folder = tmp_path / "race"
    folder.mkdir()
    shared = os.environ | {"WORLD_SIZE": "2", "HANGS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder)]
    both = [subprocess.Popen(command, env=shared | {"RANK": rank}, stdout=subprocess.PIPE, text=True) for rank in "01"]
    deadline = time.monotonic() + 90
    while len(list(folder.glob("runs/*.npz"))) < 5:
        assert all(process.poll() is None for process in both)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the training that rank 1 has begun
        both[0].wait(3)
    both[1].send_signal(signal.SIGKILL)
    assert "balanced accuracy and the rest" in both[0].communicate(timeout=90)[0]
    assert both[1].communicate()[0] == ""
    assert (both[0].returncode, both[1].returncode) == (0, -signal.SIGKILL)
    assert len(workers_of(folder)) == 6
    assert len(set(workers_of(folder))) == 1


def test_only_the_first_process_draws_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for leads in (True, False):
        with watched(leads) as watcher:
            assert (watcher is not None) == leads


def test_a_budget_in_time_is_shared_by_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clocked:
        """Ten steps a second."""

        now = 0.0

        def advance(self, until: int) -> None:
            Clocked.now = until / 10

    monkeypatch.setattr(running, "new_training", lambda *_, **__: Clocked())
    monkeypatch.setattr(running.time, "perf_counter", lambda: Clocked.now)
    plan = make_plan("weighted,focal", seeds=3, budget="100s")
    rows = [None] * 1000
    alone, three, many = (running.begin(plan, None, rows, None, n) for n in (1, 3, 9))  # type: ignore[arg-type]
    assert alone == int(0.85 * 100 * 10 / 9)
    assert (three, many) == (int(0.85 * 100 * 10 / 3), int(0.85 * 100 * 10))
