"""Notes of a race: classes and groups that nobody judged, numbers that nothing trains, too few steps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from evenhand import cli
from evenhand.counts import ClassCounts
from evenhand.training import race
from evenhand.training.racing.judging import Judge
from evenhand.training.racing.remarks import on_gaps, on_length, on_unjudged, remarks

TRAIN = ClassCounts.from_counts([300, 150, 60, 2, 1, 1])


def judge(valid: list[int], goal: str = "balanced-accuracy", counts: ClassCounts = TRAIN) -> Judge:
    return Judge.halved(np.repeat(np.arange(len(valid)), valid), counts, goal)


def test_classes_without_a_judging_row_are_named() -> None:
    told = on_unjudged(judge([130, 65, 26]), ["a", "b", "c", "d", "e", "f" * 50])
    assert told == [
        "balanced accuracy is the mean over 3 of 6 classes; the other 3 have no row to judge on: d, e, "
        + "f" * 19
        + "…"
    ]
    assert "no row to judge on: 3, 4, 5" in on_unjudged(judge([130, 65, 26]))[0]
    assert on_unjudged(judge([130, 65, 26, 2, 2, 2])) == []


def test_it_is_the_judging_half_that_counts() -> None:
    """A class of one valid row is in one half only."""
    halved = judge([130, 65, 26, 1, 1, 1])
    here = set(halved.target[~halved.choosing].tolist())
    assert len(here) < 6
    lost = sorted(set(range(6)) - here)
    told = on_unjudged(halved)[0]
    assert f"the mean over {len(here)} of 6 classes" in told
    assert told.endswith("on: " + ", ".join(map(str, lost)))


@pytest.mark.parametrize(
    ("goal", "begin"),
    [
        ("g-mean", "the geometric mean of the recalls is that of 3 of 6 classes; the other 3 have"),
        ("accuracy", "3 of 6 classes have no row to judge on: 3, 4, 5; balanced accuracy is the mean over the other 3"),
        ("macro-f1", "3 of 6 classes have no row to judge on"),
    ],
)
def test_the_note_is_true_of_the_goal(goal: str, begin: str) -> None:
    assert on_unjudged(judge([130, 65, 26], goal))[0].startswith(begin)


def test_a_group_without_a_judging_row_is_named() -> None:
    told = on_unjudged(judge([130, 65, 26], "worst-group"))
    assert told[1] == ("no class of tail has a row to judge on: the worst group is the worst of head and medium")
    assert len(on_unjudged(judge([130, 65, 26, 2, 2], "worst-group"))) == 1


def test_many_classes_are_not_all_named() -> None:
    counts = ClassCounts.from_counts([300, 100, *[1] * 40])
    told = on_unjudged(judge([100, 50], counts=counts))[0]
    assert told.endswith("the other 40 have no row to judge on: 2, 3, 4, 5, 6, 7, 8, 9, ...")


def test_gaps_between_class_numbers_are_told() -> None:
    assert on_gaps(np.array([5, 3])) == []
    assert on_gaps(np.array([5, 0, 3, 0, 2]))[0].startswith("2 of 5 class numbers have no training row: 1, 3;")
    assert on_gaps(np.array([5, 0, 3]), ["x", "y", "z"])[0].startswith("1 of 3 class numbers has no training row: y;")


def test_less_than_a_pass_is_told() -> None:
    assert on_length(60, 60) == []
    assert on_length(16, 60)[0].startswith("16 steps are 0.3 passes over the training rows; nothing has converged")
    assert on_length(1, 5000)[0].startswith("1 step is 0.0002 passes")
    assert len(remarks(judge([130, 65, 26, 2, 2, 2]), rows=514, batch_size=128, steps=4)) == 1
    assert remarks(judge([130, 65, 26, 2, 2, 2]), rows=514, batch_size=128, steps=5) == []


def test_the_race_tells_them_by_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 2, 4], [300, 60, 1])
    x = torch.tensor(rng.normal(size=(len(y), 3)) + y[:, None], dtype=torch.float32)
    kept = torch.tensor(y < 4)
    result = race("linear", (x, y), (x[kept], y[kept]), remedies="weighted", seeds=1, budget="2steps")
    assert [note.split(":")[0] for note in result.notes] == [
        "2 of 5 class numbers have no training row",
        "balanced accuracy is the mean over 2 of 3 classes; the other 1 has no row to judge on",
        "2 steps are 0.7 passes over the training rows; nothing has converged after so few, give more budget",
    ]


def test_the_command_tells_them_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c", "d", "e"], [200, 100, 40, 1, 1])
    pl.DataFrame({"y": y, "x": rng.normal(size=len(y)) + (y == "a")}).write_parquet(tmp_path / "t.parquet")
    monkeypatch.chdir(tmp_path)
    options = ["--label", "y", "--model", "linear", "--remedies", "weighted", "--seeds", "1", "--budget", "2epochs"]
    assert cli.run(["race", "t.parquet", *options]) == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "balanced accuracy is the mean over 3 of 5 classes; the other 2 have no row to judge on: d, e" in told
    assert "passes" not in told
