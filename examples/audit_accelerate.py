"""Accelerate: every process counts its own rows, and the metric adds the counts up.

python examples/audit_accelerate.py
accelerate launch --cpu --num_processes 2 examples/audit_accelerate.py
"""

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DataLoaderConfiguration
from tiny_data import CLASSES, FEATURES, counts, long_tailed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from evenhand import losses
from evenhand.integrations.metrics import AuditMetric


def rows(number: int, seed: int) -> TensorDataset:
    return TensorDataset(*map(torch.from_numpy, long_tailed(number, seed)))


def main() -> None:
    torch.manual_seed(0)
    # even_batches repeats rows until all processes have as many; without it every row is counted once
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(even_batches=False))
    train, valid = rows(4096, seed=0), rows(4001, seed=1)
    n = counts(train.tensors[1].numpy())
    model = nn.Linear(FEATURES, CLASSES)
    prepared: Any = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=0.02),
        DataLoader(train, batch_size=64, shuffle=True),
        DataLoader(valid, batch_size=64),
    )
    net, optimizer, batches, validation = prepared
    criterion = losses.build("weighted", n).to(accelerator.device)
    metric = AuditMetric(CLASSES, train_counts=n, class_weight=criterion.weight).to(accelerator.device)
    for epoch in range(5):
        for x, y in batches:
            optimizer.zero_grad()
            accelerator.backward(criterion(net(x), y))
            optimizer.step()
        metric.reset()
        with torch.inference_mode():
            for x, y in validation:
                metric.update(accelerator.unwrap_model(net)(x), y)
        found = metric.compute()  # here the processes exchange K-vectors and a bounded row sample
        accelerator.print(f"epoch {epoch}: accuracy {found['accuracy']:.3f}, tau {found['tau']:.2f}")
    audit = metric.audit()
    accelerator.print(f"\n{audit.rows} rows: {audit.verdict.sentence}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
