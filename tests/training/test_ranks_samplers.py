"""Two gloo processes with a real loader and workers draw the one sequence, end together, and resume bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from evenhand.training.samplers import ClassPowerSampler

WORKER = Path(__file__).with_name("ranks_samplers.py")
LABELS = np.repeat([0, 1, 2], [70, 25, 6])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    results = [folder / f"{rank}.json" for rank in range(2)]
    shared = os.environ | {"STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER)],
            env=shared | {"RANK": str(r), "RESULT": str(results[r])},
            stderr=subprocess.PIPE,
        )
        for r in range(2)
    ]
    said = [process.communicate(timeout=180)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads(path.read_text(encoding="utf-8")) for path in results]


def test_the_ranks_draw_the_single_process_sequence(found: list[dict[str, Any]]) -> None:
    whole = ClassPowerSampler(LABELS, 0, seed=4)
    for rank, told in enumerate(found):
        half = len(told["rows"]) // 2
        for epoch, batches in enumerate((told["rows"][:half], told["rows"][half:])):
            assert sum(batches, []) == whole.indices(epoch)[rank::2].tolist()  # noqa: RUF017


def test_the_ranks_make_as_many_batches(found: list[dict[str, Any]]) -> None:
    assert [len(told["rows"]) for told in found] == [12, 12]
    assert [len(batch) for batch in found[0]["rows"][:6]] == [10, 10, 10, 10, 10, 1]
    assert [len(batch) for batch in found[1]["rows"][:6]] == [10, 10, 10, 10, 9, 1]


def test_left_in_mid_epoch_and_taken_up_it_is_the_same_run(found: list[dict[str, Any]]) -> None:
    assert all(told["resumed"] and told["equal"] for told in found)
    assert found[0]["weights"] == found[1]["weights"]
