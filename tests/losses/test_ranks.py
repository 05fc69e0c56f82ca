"""On 2 and 4 gloo processes: sharded losses equal dense ones, means over ranks those of the whole batch."""

from __future__ import annotations

import json
import multiprocessing as mp
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

WORKER = Path(__file__).with_name("ranks_sharded.py")
CASES = [f"{ranks} ranks, {classes} classes" for ranks in (2, 4) for classes in (3, 5, 7, 8)] + [
    "by_rows_too",
    "rows_alone",
    "learnable",
    "extremes",
    "by_name",
    "everything_ignored",
    "traffic",
    "head",
    "head_under_fsdp",
    "refusals",
    "twice_differentiated",
    "sums_of_eqlv2",
]
EXACT = ["exact on 2 ranks", "exact on 4 ranks"]


PRELOAD = ("torch", "torch.distributed.tensor.parallel", "evenhand.losses.functional")


def run_ranks(
    script: Path, ranks: int, folder: Path, seconds: float = 120, preload: Sequence[str] = PRELOAD
) -> list[dict[str, Any]]:
    """What the ranks found; a server imports torch once and forks them, which saves most of their start."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    given = [
        {"RANK": r, "WORLD": ranks, "STORE": str(folder / "store"), "RESULT": str(folder / f"{r}.json")}
        for r in range(ranks)
    ]
    processes = [context.Process(target=runpy.run_path, args=(str(script), g, "worker")) for g in given]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    late = [p for p in processes if p.exitcode is None]
    for process in late:
        process.kill()
        process.join()
    assert [p.exitcode for p in processes] == [0] * ranks
    return [json.loads(Path(g["RESULT"]).read_text(encoding="utf-8")) for g in given]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, float]]]:
    return run_ranks(WORKER, 4, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_sharded_equals_dense(found: list[dict[str, dict[str, float]]], case: str) -> None:
    for rank, cases in enumerate(found):
        wrong = {name: error for name, error in cases[case].items() if not error <= 1e-10}
        assert not wrong, f"rank {rank}"


def test_every_case_is_looked_at(found: list[dict[str, dict[str, float]]]) -> None:
    assert all(set(cases) == {*CASES, *EXACT} for cases in found)


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("kind", ["DDP", "FSDP"])
@pytest.mark.parametrize("way", ["exact_mean", "WeightedAccumulation"])
def test_the_gradient_over_ranks_is_that_of_the_whole_batch(
    found: list[dict[str, dict[str, float]]], case: str, kind: str, way: str
) -> None:
    assert max(cases[case][f"{kind} {way}"] for cases in found) < 1e-6


@pytest.mark.parametrize("case", EXACT)
def test_a_mean_of_means_is_another_gradient(found: list[dict[str, dict[str, float]]], case: str) -> None:
    assert min(cases[case]["DDP today"] for cases in found) > 0.05
