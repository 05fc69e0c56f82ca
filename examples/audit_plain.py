"""A loop of your own, or timm's: a loss by name, a tally in validate(), the cause at the end.

python examples/audit_plain.py
"""

import torch
from tiny_data import CLASSES, FEATURES, counts, long_tailed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from evenhand import RunningTally, losses


def loader(rows: int, seed: int, **options: object) -> DataLoader:
    x, y = long_tailed(rows, seed)
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=128, **options)


def train_one_epoch(
    model: nn.Module, batches: DataLoader, criterion: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    model.train()
    for x, y in batches:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


@torch.inference_mode()
def validate(model: nn.Module, batches: DataLoader, running: RunningTally) -> dict[str, float]:
    model.eval()
    running.reset()
    for x, y in batches:
        running.add(model(x), y)  # the only new line in the loop
    return running.scalars()


def main() -> None:
    torch.manual_seed(0)
    train, valid = loader(4000, seed=0, shuffle=True), loader(4000, seed=1)
    n = counts(train.dataset.tensors[1].numpy())
    model = nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    criterion = losses.build("weighted", n)
    running = RunningTally(CLASSES, train_counts=n, class_weight=criterion.weight)
    for epoch in range(5):
        train_one_epoch(model, train, criterion, optimizer)
        found = validate(model, valid, running)
        print(
            f"epoch {epoch}: accuracy {found['accuracy']:.3f}, balanced {found['balanced_accuracy']:.3f}, "
            f"tau {found['tau']:.2f} ({found['tau_low']:.2f} to {found['tau_high']:.2f})"
        )
    print()
    print(running.audit().verdict.sentence)


if __name__ == "__main__":
    main()
