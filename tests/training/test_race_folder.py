"""A race in a folder: whatever cuts it off, the folder stays readable and nothing finished is lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("optuna")

import torch

from evenhand import training
from evenhand.cli import run
from evenhand.commands.race import command
from evenhand.declared import InputError
from evenhand.training.racing.board import Board

ROWS = np.array([60, 30, 15, 10])
ARRAYS = {"raw": np.arange(3, dtype=np.int32)}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 4 * ROWS)
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(4, 5))[y] + rng.normal(size=(len(y), 5)), y=y)
    return tmp_path / "rows.npz"


def begun(folder: Path, *finished: str) -> Board:
    board = Board(folder, {}, "plain")
    for name in finished:
        board.finish(board.claim([(name, 0)]), 0.5, {"remedy": name}, ARRAYS)
    return board


def test_a_line_that_is_cut_off_is_taken_off_before_the_next_one(tmp_path: Path) -> None:
    """By a full disk or a kill, while others live: glued to the next line it would make the journal unreadable."""
    journal = tmp_path / "race.journal"
    board = begun(tmp_path, "plain")
    other = Board(tmp_path, {}, "plain")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker_id": "' + b"x" * 200_000)
    assert other.results().keys() == {("plain", 0)}
    other.finish(other.claim([("weighted", 0)]), 0.5, {"remedy": "weighted"}, ARRAYS)
    lines = journal.read_bytes()
    assert lines.startswith(whole)
    assert all(json.loads(line) for line in lines.splitlines())
    for one in (board, other, Board(tmp_path, {}, "plain")):
        assert one.results().keys() == {("plain", 0), ("weighted", 0)}
        one.close()


@pytest.mark.parametrize("ending", ["finished", "stopped"])
def test_a_kill_between_the_record_and_its_last_word_settles_nothing(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = begun(tmp_path)
    ticket = board.claim([("weighted", 0)])

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(board.study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        if ending == "finished":
            board.finish(ticket, 0.5, {"remedy": "weighted"}, ARRAYS)
        else:
            board.settle(ticket, ending, {"why": "far below"})
    board.close()
    again = Board(tmp_path, {}, "plain")
    assert again.claim([("weighted", 0)]).key == ("weighted", 0)  # it was a failed training without a reason
    assert again.results() == {}
    again.close()


def test_damaged_decisions_are_trained_again(tmp_path: Path) -> None:
    begun(tmp_path, "plain").close()
    path = next((tmp_path / "runs").glob("*.npz"))
    path.write_bytes(path.read_bytes()[:-30])
    again = Board(tmp_path, {}, "plain")
    assert again.results() == {}
    assert again.claim([("plain", 0)]).key == ("plain", 0)
    again.close()


def limited(size: int) -> Any:
    """A process that can write no file beyond a size, which fails in the middle of a line as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_told_and_loses_nothing_that_was_finished(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "race"
    arguments = ["race", str(table), "--label", "y", "--remedies", "weighted,focal", "--seeds", "2", "--json", "-",
                 "--model", "linear", "--budget", "20steps", "--out", str(folder)]  # fmt: skip
    command = [sys.executable, "-m", "evenhand.cli", *arguments]
    full = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limited(9_000), timeout=120,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert full.returncode == 2, full.stderr
    assert full.stdout == ""
    assert full.stderr.startswith(f"evenhand: the race cannot be kept in {folder}: file too large; what was finished")
    assert len(full.stderr.splitlines()) == 1
    assert (folder / "race.journal").stat().st_size == 9_000  # a line was cut off indeed
    finished = sorted(path.name for path in folder.glob("runs/*.npz"))
    assert 0 < len(finished) < 6
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    told = json.loads(again.stdout)["trainings"]
    assert told["finished"] == 6
    assert len(finished) - 1 <= told["reused"] <= len(finished)


def test_a_folder_that_cannot_be_written_is_told_before_the_table_is_read(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)  # as root is not refused
    table.write_bytes(b"no table")
    code = run(["race", str(table), "--label", "y", "--out", str(tmp_path / "a" / "b")])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith(f"evenhand: --out {tmp_path}/a/b cannot be written: no permission in {tmp_path};")
    assert len(said.splitlines()) == 1


def test_a_file_on_the_way_to_the_folder_is_told(table: Path) -> None:
    done = CliRunner().invoke(command, [str(table), "--label", "y", "--out", str(table / "race")])
    assert isinstance(done.exception, InputError)
    assert f"--out names a folder but {table} is a file" in str(done.exception)


def test_a_folder_that_fails_is_told_with_what_to_do(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "race"))

    monkeypatch.setattr("evenhand.training.racing.keeping.write_bytes_atomically", refused)
    options = ["--label", "y", "--remedies", "plain", "--seeds", "1", "--budget", "5steps", "--model", "linear"]
    done = CliRunner().invoke(command, [str(table), *options, "--out", str(tmp_path / "race")])
    assert isinstance(done.exception, InputError)
    assert "race: permission denied; what was finished is not lost" in str(done.exception)


def test_what_failed_is_tried_again_by_the_next_run_and_not_by_this_one(tmp_path: Path) -> None:
    x, y = torch.randn(160, 4, generator=torch.Generator().manual_seed(0)), torch.arange(160) % 4
    full = True
    built: list[int] = []

    class Model(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if full and len(built) == 3:  # one tells the settings, one is plain
                raise MemoryError
            return super().forward(x)

    def made() -> Model:
        built.append(1)
        return Model(4, 4)

    def raced() -> training.RaceResult:
        built.clear()
        return training.race(made, (x, y), (x, y), remedies="weighted", seeds=1, budget="5steps", folder=tmp_path)

    assert raced().trainings == {"finished": 1, "stopped": 0, "failed": 1, "reused": 0}
    full = False
    second = raced()
    assert second.trainings == {"finished": 2, "stopped": 0, "failed": 0, "reused": 1}
    assert all(entry.state == "finished" for entry in second.entries)
    assert raced().trainings["reused"] == 2


def test_a_failed_training_is_settled_while_its_process_lives(tmp_path: Path) -> None:
    board, other = Board(tmp_path, {}, "plain"), Board(tmp_path, {}, "plain")
    board.settle(board.claim([("plain", 0)]), "failed", {"why": "first"})
    assert board.claim([("plain", 0)]) is None
    assert other.claim([("plain", 0)]) is None
    board.close()
    ticket = other.claim([("plain", 0)])
    assert ticket is not None
    assert other.results()["plain", 0].record["why"] == "first"
    other.finish(ticket, 0.5, {"remedy": "plain"}, ARRAYS)
    assert other.results()["plain", 0].state == "finished"
    other.close()
