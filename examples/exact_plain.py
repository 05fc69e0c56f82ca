"""Weighted loss with gradient accumulation in a plain loop: what is usual, and what is exact.

python examples/exact_plain.py
"""

import torch
from torch import Tensor, nn

from evenhand.losses import SoftmaxLoss, WeightedAccumulation, exact_mean

CLASSES, FEATURES, ROWS, MICRO = 100, 64, 256, 32


def long_tailed(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and class weights; the first class has 100 times more rows than the last."""
    generator = torch.Generator().manual_seed(seed)
    prior = 0.01 ** (torch.arange(CLASSES) / (CLASSES - 1))
    labels = torch.multinomial(prior, rows, replacement=True, generator=generator)
    return torch.randn(rows, FEATURES, generator=generator), labels, prior.sum() / CLASSES / prior


def usual(model: nn.Module, criterion: SoftmaxLoss, batches: list[tuple[Tensor, Tensor]]) -> None:
    for x, y in batches:
        (criterion(model(x), y) / len(batches)).backward()


def exact(model: nn.Module, criterion: SoftmaxLoss, batches: list[tuple[Tensor, Tensor]]) -> None:
    """The micro-batches of the step are at hand: their targets give the denominator."""
    with exact_mean(criterion, [y for _, y in batches]):
        for x, y in batches:
            criterion(model(x), y).backward()


def streamed(model: nn.Module, criterion: SoftmaxLoss, batches: list[tuple[Tensor, Tensor]]) -> None:
    """They come one by one: add up sums, divide the gradients once. Clip and step after finish()."""
    step = WeightedAccumulation(guess=ROWS)
    for x, y in batches:
        step.add(criterion.rows(model(x), y)).backward()
    step.finish(model.parameters())


def gradient(way: object, batches: list[tuple[Tensor, Tensor]], weight: Tensor) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, CLASSES)
    way(model, SoftmaxLoss(weight), batches)  # type: ignore[operator]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def main() -> dict[str, float]:
    x, y, weight = long_tailed(ROWS)
    whole = gradient(usual, [(x, y)], weight)
    batches = list(zip(x.split(MICRO), y.split(MICRO), strict=True))
    ways = {"usual": usual, "exact_mean": exact, "WeightedAccumulation": streamed}
    errors = {name: float((gradient(way, batches, weight) - whole).norm() / whole.norm()) for name, way in ways.items()}
    for name, error in errors.items():
        print(f"{name:22}relative error of the gradient: {error:.1e}")
    return errors


if __name__ == "__main__":
    main()
