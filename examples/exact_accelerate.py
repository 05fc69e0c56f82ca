"""The exact weighted mean with Hugging Face Accelerate.

python examples/exact_accelerate.py
torchrun --nproc-per-node 2 examples/exact_accelerate.py
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evenhand.losses import SoftmaxLoss, exact_mean


def windows(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The micro-batches of one optimiser step after the other; the last window may be shorter."""
    iterator = iter(batches)
    while window := list(islice(iterator, size)):
        yield window


def train(
    model: nn.Module, x: Tensor, y: Tensor, weight: Tensor, *, rows: int, accumulate: int, lr: float = 0.5
) -> nn.Module:
    """One epoch. Batches are fetched ahead, so `no_sync` takes the place of `accelerator.accumulate`.

    `Accelerator.backward` divides by its gradient_accumulation_steps (1 unless it was given), and DDP averages over
    ranks: `averaged_by` undoes both.
    """
    accelerator = Accelerator(cpu=True)
    criterion = SoftmaxLoss(weight)
    loader = DataLoader(TensorDataset(x, y), batch_size=rows)
    prepared: Any = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=lr), loader)
    net, optimizer, loader = prepared
    ranks = accelerator.num_processes
    for window in windows(loader, accumulate):
        with exact_mean(
            criterion,
            [target for _, target in window],
            group=dist.group.WORLD if ranks > 1 else None,
            averaged_by=ranks * accelerator.gradient_accumulation_steps,
        ):
            for i, (a, target) in enumerate(window):
                with accelerator.no_sync(net) if i < len(window) - 1 else nullcontext():
                    accelerator.backward(criterion(net(a), target))
        optimizer.step()
        optimizer.zero_grad()
    return accelerator.unwrap_model(net)


if __name__ == "__main__":
    torch.manual_seed(0)
    labels = torch.multinomial(torch.linspace(10, 0.1, 10), 64, replacement=True)
    features, rarity = torch.randn(64, 16), torch.linspace(0.1, 10, 10)
    model, twin = nn.Linear(16, 10), nn.Linear(16, 10)
    twin.load_state_dict(model.state_dict())
    nn.functional.cross_entropy(twin(features), labels, weight=rarity).backward()
    assert twin.weight.grad is not None
    step = -0.5 * twin.weight.grad
    trained = train(model, features, labels, rarity, rows=8, accumulate=8)
    error = (trained.weight.detach() - twin.weight.detach() - step).norm() / step.norm()
    print(f"error of the step against the whole batch: {float(error):.1e}")
    if dist.is_initialized():
        dist.destroy_process_group()
