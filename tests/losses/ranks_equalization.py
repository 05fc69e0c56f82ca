"""One rank of a test: EQLv2 over half of the rows; writes its sums as JSON."""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist

from evenhand.losses.multilabel.equalization import EqualizationV2Loss


def main(rank: int, ranks: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    g = torch.Generator().manual_seed(0)
    criterion = EqualizationV2Loss(classes=5, denominator="rows")
    for _ in range(4):
        z = torch.randn(8, 5, generator=g)
        y = (torch.rand(8, 5, generator=g) < 0.3).float()
        criterion(z[rank::ranks], y[rank::ranks])
    sys.stdout.write(json.dumps([criterion.positive_gradient.tolist(), criterion.negative_gradient.tolist()]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
