"""The benchmark of the race runs, at a size where its figures mean nothing."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[2]))  # `benchmarks` is no part of the installed package
race = importlib.import_module("benchmarks.race")


def test_the_overhead_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "QUICK", {"classes": 5, "rows": 1000, "features": 4})
    arguments = ["--quick", "--epochs", "1", "--seeds", "2", "--remedies", "weighted"]
    done = CliRunner().invoke(race.command, arguments, catch_exceptions=False)
    machine, told = map(json.loads, done.output.splitlines())
    assert machine["kind"] == "machine"
    assert 0 < told["overhead"] < 1
    assert told["trainings"]["finished"] == 4
    assert told["gap"] >= 0
