"""The benchmark of samplers runs, at a size where its figures mean nothing, and says what torch refuses."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parents[2]))  # `benchmarks` is no part of the installed package
measure, bench = (importlib.import_module(f"benchmarks.{name}") for name in ("measure", "samplers"))


def here(case: str, **arguments: Any) -> Any:
    """As `measure.fresh`, in this process."""
    assert case == "benchmarks.samplers:case"
    work = bench.case(**arguments)
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    return measure.Run(seconds, seconds, seconds, None, 0.0, result)


def test_every_case_draws_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []

    def watched(case: str, **arguments: Any) -> Any:
        run = here(case, **arguments)
        draws.append((arguments["sampler"], run.result["draws"]))
        return run

    monkeypatch.setattr(bench, "fresh", watched)
    done = CliRunner().invoke(bench.command, ["--rows", "2000", "--classes", "20", "--runs", "1", "--json"])
    assert done.exit_code == 0, done.output
    about, *rows = [json.loads(line) for line in done.output.splitlines()]
    assert about["kind"] == "machine"
    assert {row["sampler"] for row in rows} == set(bench.SAMPLERS)
    assert all(row["met"] is None for row in rows), "the goal is for the full size"
    assert all(number == (250 if "ranks" in sampler else 2000) for sampler, number in draws)
    assert len(rows) == len(draws) == 3 * len(bench.SAMPLERS) - 2


def test_what_torch_refuses_is_told() -> None:
    row = bench.measured("torch WeightedRandomSampler", "one by one", bench.Size(2**24 + 1, 10), 1)
    assert "2^24" in row.refused
    assert "refused" in bench.line(row)
