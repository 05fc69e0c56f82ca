"""Class shards without processes: where they lie, and what cannot work is refused in a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses.law import Law  # noqa: E402
from evenhand.losses.sharded import sharded_cross_entropy, sharded_losses_by_row  # noqa: E402
from evenhand.losses.sharded.layout import ClassShard, chunk  # noqa: E402


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


@pytest.mark.slow
def test_the_example_runs_and_its_ranks_agree() -> None:
    script = Path(__file__).parents[2] / "examples" / "sharded_head.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run([*command, "--classes", "1001", "--steps", "2"], capture_output=True, text=True, timeout=300)
    losses = [set(re.findall(rf"rank {rank}\] loss ([\d.]+)", done.stdout)) for rank in (0, 1)]
    assert len(losses[0]) == 2, done.stderr[-2000:]
    assert losses[0] == losses[1]
    assert "501 of 1,001 classes" in done.stdout
    assert "500 of 1,001 classes" in done.stdout
