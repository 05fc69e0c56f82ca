"""One of two gloo processes: data-parallel training on a class sampler, with loader workers, left and taken up."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from evenhand.training.samplers import ClassPowerSampler

LABELS = np.repeat([0, 1, 2], [70, 25, 6])  # 101 rows: two ranks cannot share them evenly
BATCH, EPOCHS, LEFT_AT = 10, 2, 3


class Rows(Dataset[Any]):
    """Gives its row number away beside features and label."""

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, row: int) -> tuple[Tensor, int, int]:
        return torch.tensor([row % 7, row % 5, LABELS[row]], dtype=torch.float32), int(LABELS[row]), row


class Run:
    """A training with its states."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = DistributedDataParallel(nn.Linear(3, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)
        self.batches = ClassPowerSampler(LABELS, 0, seed=4).batches(BATCH)  # ranks are those of torch.distributed
        self.rows: list[list[int]] = []

    def train(self, leave_at: int | None = None) -> bytes:
        """All epochs, or the last one up to a step; what a user would save there."""
        for epoch in range(self.batches.sampler.epoch, EPOCHS):
            self.batches.set_epoch(epoch)
            for x, y, row in DataLoader(Rows(), batch_sampler=self.batches, num_workers=2):
                self.optimizer.zero_grad()
                nn.functional.cross_entropy(self.model(x), y).backward()
                self.optimizer.step()
                self.rows.append(row.tolist())
                if epoch == EPOCHS - 1 and len(self.rows) - len(self.batches) == leave_at:
                    return self.saved(leave_at)
        return b""

    def saved(self, done: int) -> bytes:
        """With workers the sampler is ahead of training: only the loop knows how many batches were trained on."""
        file = io.BytesIO()
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(done=done),
        }
        torch.save(state, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])


def main() -> None:
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=Path(os.environ["STORE"]).as_uri(), rank=rank, world_size=2)
    whole, first, second = Run(), Run(), Run()
    whole.train()
    second.load(first.train(LEFT_AT))
    second.train()
    weights = list(whole.model.parameters())
    found = {
        "rows": whole.rows,
        "resumed": first.rows + second.rows == whole.rows,
        "equal": all(
            torch.equal(a, b) for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True)
        ),
        "weights": [parameter.tolist() for parameter in weights],
    }
    Path(os.environ["RESULT"]).write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
