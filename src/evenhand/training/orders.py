"""The order of the rows in every epoch of a training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evenhand.training.draws import NATURAL, Draw
from evenhand.training.samplers import ClassPowerSampler, EffectiveNumberSampler, ProgressiveSampler
from evenhand.training.sampling.drawing import ClassRows
from evenhand.training.sampling.rate_sampler import ClassRateSampler
from evenhand.training.steps import mixed_seed


class Orders:
    """The row orders of a training: (seed, epoch) and the draw decide them, so that a run can be taken up anywhere.

    Args:
        target: (N,) classes of the rows. classes: K. seed: of the run.

    Example:
        >>> orders = Orders(torch.tensor([0] * 80 + [1] * 20), classes=2, seed=0)
        >>> sorted(orders.of(NATURAL, epoch=3).tolist()) == list(range(100))
        True
        >>> [int((orders.of(Draw((1.0, 0.0)), e, begins=0, epochs=3) >= 80).sum()) for e in range(3)]
        [20, 35, 50]
    """

    def __init__(self, target: Tensor, classes: int, seed: int) -> None:
        self.target, self.classes, self.seed = target, classes, seed
        self._rows: ClassRows | None = None
        self._samplers: dict[tuple[Draw, int], ClassRateSampler] = {}

    def of(self, draw: Draw, epoch: int, begins: int = 0, epochs: int = 1) -> Tensor:
        """(N,) row positions of an epoch.

        Args:
            draw: how. epoch: of the training. begins, epochs: the stage's first epoch, and how many it touches; only
                rates that move depend on them, all others give the same rows in whatever stage they are drawn.
        """
        if draw == NATURAL:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, -2 - epoch))
            return torch.randperm(len(self.target), generator=generator)
        key = draw, epochs if draw.moves else 0
        if key not in self._samplers:
            self._samplers[key] = self._sampler(draw, epochs)
        return torch.from_numpy(self._samplers[key].indices(epoch - begins if draw.moves else epoch))

    def _sampler(self, draw: Draw, epochs: int) -> ClassRateSampler:
        if self._rows is None:
            self._rows = ClassRows.from_labels(self.target.numpy(), self.classes, "skip")
        options: dict[str, Any] = {"seed": self.seed, "num_replicas": 1, "rank": 0}
        if isinstance(draw.power, tuple):
            return ProgressiveSampler(self._rows, epochs, *draw.power, **options)
        if draw.beta is not None:
            return EffectiveNumberSampler(self._rows, draw.beta, **options)
        return ClassPowerSampler(self._rows, 0.0 if draw.power is None else draw.power, **options)
