"""Plain training, then class weights or a balanced sampler for the last epochs, then the head alone: what each buys.

python examples/deferred.py
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evenhand import losses
from evenhand.training import samplers, schedules

CLASSES, FEATURES, EPOCHS, AT = 20, 10, 15, 12


def long_tailed(rows: int, ratio: float, seed: int) -> TensorDataset:
    """Overlapping clouds; the first class has `ratio` times more rows than the last."""
    generator = torch.Generator().manual_seed(seed)
    prior = ratio ** (-torch.arange(CLASSES) / (CLASSES - 1))
    labels = torch.cat([torch.arange(CLASSES), torch.multinomial(prior, rows, replacement=True, generator=generator)])
    centres = 1.2 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    return TensorDataset(centres[labels] + torch.randn(len(labels), FEATURES, generator=generator), labels)


def train(data: TensorDataset, way: str) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    labels = data.tensors[1]
    criterion = losses.build("cross-entropy", torch.bincount(labels, minlength=CLASSES))
    natural, balanced = (samplers.ClassPowerSampler(labels, power) for power in (1, 0))

    schedule = {
        "plain": natural,
        "deferred weights": schedules.DeferredReweighting(criterion, AT, "balanced"),
        "deferred sampler": schedules.DeferredResampling(balanced, AT),
        "classifier re-training": schedules.ClassifierRetraining(
            model, model[2], at=AT, sampler=balanced, optimizer=optimizer
        ),
    }[way]
    sampler = schedule if isinstance(schedule, samplers.ClassRateSampler) else getattr(schedule, "sampler", natural)

    for epoch in range(EPOCHS):
        schedule.step(epoch)
        sampler.set_epoch(epoch)
        for x, y in DataLoader(data, 128, sampler=sampler):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
    return model.eval()


@torch.inference_mode()
def recalls(model: nn.Module, data: TensorDataset) -> Tensor:
    """(K,) share of each class that is found."""
    x, y = data.tensors
    right = (model(x).argmax(1) == y).double()
    return torch.bincount(y, right, CLASSES) / torch.bincount(y, minlength=CLASSES)


def main() -> dict[str, dict[str, float]]:
    training, test = long_tailed(6000, 100, seed=1), long_tailed(6000, 1, seed=2)
    found = {}
    for way in ("plain", "deferred weights", "deferred sampler", "classifier re-training"):
        recall = recalls(train(training, way), test)
        found[way] = {"head": recall[:7].mean().item(), "tail": recall[-7:].mean().item(), "all": recall.mean().item()}
        print(f"{way:24}" + "   ".join(f"{group} {value:.3f}" for group, value in found[way].items()))
    return found


if __name__ == "__main__":
    main()
