"""Race remedies on your own model and data set, and put the winner to use.

    python examples/race_custom_model.py [--budget 20epochs] [--out FOLDER]

Start the same line on several machines with one --out on a shared disk, or under torchrun: they share the work.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from evenhand import fit_correction, training

CLASSES, FEATURES = 30, 12


class Network(nn.Module):
    """Any module that maps a batch to logits; some remedies change the head: `head`, `fc`, or the last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.body(features))


def rows(seed: int, scale: float) -> TensorDataset:
    """A long tail: class k has about 300 / (k + 1) rows per unit of scale."""
    centre = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    y = np.repeat(np.arange(CLASSES), [max(8, round(300 * scale / (k + 1))) for k in range(CLASSES)])
    x = centre[y] + np.random.default_rng(seed).normal(size=(len(y), FEATURES))
    return TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--budget", default="20epochs")
    arguments.add_argument("--out", help="folder that keeps finished trainings")
    given = arguments.parse_args()
    train, valid = rows(1, 1.0), rows(2, 1.5)
    own = training.Remedy("focal-then-weights", "focal loss, class weights at the end", loss="focal",
                          options={"gamma": 1.0}, schedule="deferred-weights")  # fmt: skip
    result = training.race(
        Network, train, valid, remedies=["weighted", "balanced-softmax", "sampler", own], seeds=3,
        budget=given.budget, goal="balanced-accuracy", folder=given.out, name="own data",
    )  # fmt: skip
    print(result)

    winner = result.recommended
    remedy = own if winner.remedy == own.name else winner.remedy
    torch.manual_seed(0)
    model = training.fit(Network(), train, remedy, steps=result.steps)
    if winner.corrected:
        logits, target = training.predict_logits(model, valid), valid.tensors[1]
        fix = fit_correction(logits, target, goal="balanced-accuracy")
        print(f"\ncorrection of the final model: {fix.why}")
        if fix.additive:
            fix.fold_into(model.head)


if __name__ == "__main__":
    main()
