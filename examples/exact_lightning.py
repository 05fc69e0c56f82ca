"""The exact weighted mean in Lightning, with automatic and with manual optimisation.

python examples/exact_lightning.py
"""

from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evenhand.losses import SoftmaxLoss, WeightedAccumulation, exact_mean


class Classifier(pl.LightningModule):
    """Automatic optimisation: the targets of later micro-batches are unknown, so the gradients are divided at the end.

    Lightning divides the loss by accumulate_grad_batches, and DDP averages over ranks; `averaged_by` undoes both.
    """

    def __init__(self, net: nn.Module, weight: Tensor, lr: float = 0.5) -> None:
        super().__init__()
        self.net, self.criterion, self.lr = net, SoftmaxLoss(weight), lr

    def others(self) -> Any:
        return dist.group.WORLD if self.trainer.world_size > 1 else None

    def on_train_start(self) -> None:
        divided_by = self.trainer.world_size * self.trainer.accumulate_grad_batches
        self.mean = WeightedAccumulation(group=self.others(), averaged_by=divided_by)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return self.mean.add(self.criterion.rows(self.net(x), y))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """After unscaling and communication, before clipping."""
        self.log("loss", self.mean.finish(optimizer))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=self.lr)


class ManualClassifier(Classifier):
    """Manual optimisation: one large batch per step, cut into micro-batches whose targets are all known."""

    def __init__(self, net: nn.Module, weight: Tensor, lr: float = 0.5, micro: int = 8) -> None:
        super().__init__(net, weight, lr)
        self.automatic_optimization, self.micro = False, micro

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = (part.split(self.micro) for part in batch)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        with exact_mean(self.criterion, y, group=self.others()):
            for a, b in zip(x, y, strict=True):
                self.manual_backward(self.criterion(self.net(a), b))
        optimizer.step()

    def on_before_optimizer_step(self, _: torch.optim.Optimizer) -> None:
        """Nothing is left to do."""


def train(module: Classifier, x: Tensor, y: Tensor, rows: int, accumulate: int = 1, **more: Any) -> nn.Module:
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **more}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", accumulate_grad_batches=accumulate, **options)
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=rows))
    return module.net


if __name__ == "__main__":
    labels = torch.randint(10, (80,)).sort().values
    features, rarity = torch.randn(80, 16), torch.linspace(0.1, 10, 10)
    train(Classifier(nn.Linear(16, 10), rarity), features, labels, rows=8, accumulate=4)
    train(ManualClassifier(nn.Linear(16, 10), rarity), features, labels, rows=32)
