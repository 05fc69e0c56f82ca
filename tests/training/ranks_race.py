"""One of the processes of a race that torchrun starts: it trains, and rank 0 tells the leaderboard."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from evenhand import training
from evenhand.training.racing.processes import Process
from evenhand.training.racing.running import Watcher

THIS = Process.this()
ROWS = np.array([60, 30, 15, 10])


class Meeting(Watcher):
    """Begins no training before every process has claimed one, so that all of them take part."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)

    def training(self, remedy: str, seed: int) -> None:
        (self.place / str(THIS.rank)).touch()
        deadline = time.monotonic() + 60
        while len(list(self.place.iterdir())) < THIS.count:
            assert time.monotonic() < deadline, "nobody else came"
            time.sleep(0.05)
        while os.environ.get("HANGS") == str(THIS.rank):
            time.sleep(1)


def rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    centre = np.random.default_rng(1).normal(size=(4, 5))
    y = np.repeat(np.arange(4), 3 * ROWS)
    x = centre[y] + np.random.default_rng(seed).normal(size=(len(y), 5))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def main(folder: Path) -> None:
    options = {"remedies": "weighted,focal", "seeds": 2, "budget": "20steps"}
    result = training.race("linear", rows(0), rows(1), folder=folder, watcher=Meeting(folder / "met"), **options)
    assert result.trainings["finished"] == 6
    if THIS.leads:
        sys.stdout.write(str(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
