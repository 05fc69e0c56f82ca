"""Lightning: a callback audits every validation, logs the figures and writes audit.html.

python examples/audit_lightning.py
"""

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from tiny_data import CLASSES, FEATURES, counts, long_tailed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evenhand import losses
from evenhand.integrations.lightning import AuditCallback


class Classifier(pl.LightningModule):
    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.net, self.criterion = nn.Linear(FEATURES, CLASSES), criterion

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        loss: Tensor = self.criterion(self.net(x), y)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict[str, Tensor]:
        x, y = batch
        return {"logits": self.net(x), "target": y}  # all that the callback needs

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.02)


def loader(rows: int, seed: int, **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(*map(torch.from_numpy, long_tailed(rows, seed))), batch_size=128, **options)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    pl.seed_everything(0, verbose=False)
    train, valid = loader(4000, seed=0, shuffle=True), loader(4000, seed=1)
    n = counts(train.dataset.tensors[1].numpy())
    criterion = losses.build("weighted", n)
    callback = AuditCallback(train_counts=n, class_weight=criterion.weight, every=2, html="audit.html")
    trainer = pl.Trainer(
        max_epochs=5, accelerator="cpu", devices=1, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(criterion), train, valid)
    for name, value in trainer.logged_metrics.items():
        print(f"{name:28}{float(value):8.3f}")
    print(f"\n{callback.audit().verdict.sentence}\nReport: audit.html")


if __name__ == "__main__":
    main()
