"""Sharded equals dense, value and gradient, on 2 and 4 gloo processes; what cannot work is refused in a sentence."""

from __future__ import annotations

import json
import multiprocessing as mp
import runpy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses.law import Law  # noqa: E402
from evenhand.losses.sharded import ClassShard, sharded_cross_entropy, sharded_losses_by_row  # noqa: E402
from evenhand.losses.sharded_layout import chunk  # noqa: E402

WORKER = Path(__file__).with_name("sharded_worker.py")
CASES = [f"{ranks} ranks, {classes} classes" for ranks in (2, 4) for classes in (3, 5, 7, 8)] + [
    "by_rows_too",
    "rows_alone",
    "learnable",
    "extremes",
    "everything_ignored",
    "traffic",
    "head",
    "refusals",
    "twice_differentiated",
]


def run_ranks(script: Path, ranks: int, folder: Path, seconds: float = 120) -> list[dict[str, dict[str, float]]]:
    """What the ranks found; a server imports torch once and forks them, which saves most of their start."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed.tensor.parallel", "evenhand.losses.functional"])
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
    assert all(set(cases) == set(CASES) for cases in found)


@pytest.mark.parametrize(("classes", "ranks"), [(1, 1), (5, 4), (7, 4), (8, 4), (3, 7), (1_000_003, 64)])
def test_shards_are_those_of_torch_chunk(classes: int, ranks: int) -> None:
    pieces = [chunk(classes, ranks, r) for r in range(ranks)]
    sizes = [len(c) for c in torch.arange(classes).chunk(ranks)]
    assert [size for _, size in pieces] == sizes + [0] * (ranks - len(sizes))
    assert [first for first, size in pieces if size] == torch.tensor([0, *sizes]).cumsum(0)[:-1].tolist()


WHOLE = ClassShard(0, 3, None)
LOGITS, TARGET = torch.zeros(2, 3), torch.tensor([0, 2])


def test_offsets_per_pair_are_refused() -> None:
    with pytest.raises(InputError, match="pair of classes"):
        sharded_cross_entropy(LOGITS, TARGET, Law(pair_offset=lambda z, _: z), shard=WHOLE)


def test_soft_targets_are_refused() -> None:
    with pytest.raises(InputError, match="soft targets"):
        sharded_cross_entropy(LOGITS, torch.full((2, 3), 1 / 3), shard=WHOLE)


def test_a_block_without_shard_or_beyond_the_classes_is_refused() -> None:
    with pytest.raises(InputError, match="ClassShard"):
        sharded_losses_by_row(LOGITS, TARGET)
    with pytest.raises(InputError, match="3 classes from class 4"):
        sharded_cross_entropy(LOGITS, TARGET, shard=ClassShard(4, 6, None))


def test_logits_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="floating-point"):
        sharded_cross_entropy(LOGITS.long(), TARGET, shard=WHOLE)
    with pytest.raises(InputError, match="class_dim"):
        sharded_cross_entropy(LOGITS, TARGET, shard=WHOLE, class_dim=2)


def test_a_single_row_may_come_without_its_axis() -> None:
    assert sharded_cross_entropy(torch.zeros(3), torch.tensor(1), shard=WHOLE).item() == pytest.approx(1.0986123)
