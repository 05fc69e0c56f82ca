"""One of several gloo processes that each count their share of the rows; run by `test_metrics.py`."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from evenhand.integrations.metrics import AuditMetric
from evenhand.tally import ADDITIVE, ARRAYS, Tally

# dealt: as DistributedSampler does; alone: one rank has nothing; full: more rows than the sample holds
CASES = {"dealt": (3001, 20), "alone": (500, 4), "full": (50_001, 3), "many": (4_000, 2_000)}


def rows(case: str) -> tuple[Tensor, Tensor, Any]:
    """Scores, labels and training counts."""
    n, classes = CASES[case]
    rng = np.random.default_rng(5)
    pi = np.arange(1, classes + 1) ** -1.0
    y = rng.choice(classes, size=n, p=pi / pi.sum())
    z = rng.normal(size=(n, classes)).astype(np.float32)
    z[np.arange(n), y] += 2
    return torch.from_numpy(z), torch.from_numpy(y), np.ceil(1e5 * pi)


def counted(case: str, rank: int = 0, ranks: int = 1) -> AuditMetric:
    """The metric after this rank's rows."""
    z, y, counts = rows(case)
    metric = AuditMetric(z.shape[1], train_counts=counts, class_weight="balanced")
    if case == "alone":
        z, y = (z, y) if rank == ranks - 1 else (z[:0], y[:0])
        metric.update(z, y, torch.arange(len(y)))
        return metric
    for a, b in zip(z[rank::ranks].split(256), y[rank::ranks].split(256), strict=True):
        metric.update(a, b)
    return metric


def facts(tally: Tally) -> dict[str, Any]:
    """Everything of a tally as JSON values; the scores of the sample as their exact bytes."""
    found = {name: np.asarray(getattr(tally, name)).tolist() for name in (*ADDITIVE, *ARRAYS)}
    for name, part in (("sample", tally.sample), ("lead", tally.lead)):
        found[name] = [part.row_id.tolist(), part.target.tolist(), part.scores.tobytes().hex()[:20_000]]
    return found


def main(rank: int, world: int, store: str, result: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    found = {}
    for case in CASES:
        metric = counted(case, rank, world)
        before = facts(metric._held())
        sent: list[int] = []
        metric.dist_sync_fn = counting(sent)
        values = {name: float(value) for name, value in metric.compute().items()}
        metric.dist_sync_fn = None
        found[case] = {"scalars": values, "tally": facts(metric.tally()), "sent": max(sent)}
        assert facts(metric._held()) == before, "after the synchronisation every rank has its own rows again"
        if case == "dealt":
            found[case]["verdict"] = metric.audit().verdict.cause
    Path(result).write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def counting(sent: list[int]) -> Any:
    from torchmetrics.utilities.distributed import gather_all_tensors

    def gather(x: Tensor, group: Any = None) -> list[Tensor]:
        sent.append(x.numel())
        return gather_all_tensors(x, group)

    return gather


if __name__ == "worker":
    given = globals()
    main(int(given["RANK"]), int(given["WORLD"]), given["STORE"], given["RESULT"])
