"""Networks really trained with a fault: the law holds for optima, these cases show what training makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .worlds import Floats, Ints

Vector = Callable[[Floats], Floats]


def uniform(counts: Floats) -> Floats:
    return np.ones(len(counts))


def balanced(counts: Floats) -> Floats:
    """Absent classes get the weight of one row: they are never a target."""
    return counts.sum() / (len(counts) * np.maximum(counts, 1.0))


def root(counts: Floats) -> Floats:
    return balanced(counts) ** 0.5


def squared(counts: Floats) -> Floats:
    return balanced(counts) ** 2


def inverted(counts: Floats) -> Floats:
    return 1 / balanced(counts)


def string_ordered(counts: Floats) -> Floats:
    return balanced(counts)[np.argsort(np.arange(len(counts)).astype(str))]


def reversed_order(counts: Floats) -> Floats:
    return balanced(counts)[::-1].copy()


@dataclass(frozen=True)
class Recipe:
    """How to train, and which causes are right first answers afterwards.

    Attributes:
        acceptable: causes; `healthy` stands for a sound model (healthy or argmax-amplification).
        weight: what the loss uses. declared: what is declared, the same unless given.
        sampler: whether rows are drawn with equal class frequencies.
        head: ``linear``, ``tanh``, ``lstm`` (a state used as logits), ``softmax`` or ``batch-softmax``.
        smoothing, gamma: label smoothing and focus of the loss.
    """

    acceptable: frozenset[str]
    weight: Vector = uniform
    declared: Vector | None = None
    sampler: bool = False
    head: str = "linear"
    smoothing: float = 0.0
    gamma: float = 0.0

    @property
    def sound(self) -> bool:
        return "healthy" in self.acceptable

    def facts(self, counts: Floats) -> dict[str, Any]:
        """What a careful user declares."""
        declared = self.declared or self.weight
        present = (counts > 0).astype(float)
        return {
            "train_counts": counts,
            "class_weight": None if declared is uniform else declared(counts),
            "sampler": present / present.sum() if self.sampler else None,
            "config": {
                "loss": "focal" if self.gamma else "cross-entropy",
                "gamma": self.gamma or None,
                "label_smoothing": self.smoothing,
                "reduction": "mean",
                "batch_size": BATCH,
            },
        }


def recipe(*acceptable: str, **options: Any) -> Recipe:
    return Recipe(frozenset(acceptable), **options)


BATCH = 128
RECIPES: dict[str, Recipe] = {
    "none": recipe("healthy", "argmax-amplification"),
    "smoothing": recipe("healthy", "argmax-amplification", smoothing=0.1),
    "focal": recipe("healthy", "argmax-amplification", gamma=2.0),
    "class-weights": recipe("class-weights", weight=balanced),
    "sqrt-weights": recipe("class-weights", weight=root),
    "focal-weights": recipe("class-weights", weight=balanced, gamma=2.0),
    "sampler": recipe("sampler", sampler=True),
    "double": recipe("double-correction", weight=balanced, sampler=True),
    "squared": recipe("double-correction", weight=squared, declared=balanced),
    "inverted": recipe("inverted-weights", weight=inverted),
    "misordered": recipe("misordered-weights", weight=string_ordered),
    "misordered-undeclared": recipe("misordered-weights", weight=string_ordered, declared=balanced),
    "reversed": recipe("misordered-weights", weight=reversed_order),
    "smoothing-weights": recipe("class-weights", "smoothing-with-weights", weight=balanced, smoothing=0.1),
    "tanh-head": recipe("bounded-logits", head="tanh"),
    "lstm-head": recipe("bounded-logits", head="lstm"),
    "double-softmax": recipe("double-softmax", head="softmax"),
    "batch-softmax": recipe("batch-softmax", "double-softmax", head="batch-softmax"),
}


class Network(nn.Module):
    """One hidden layer and a head."""

    def __init__(self, inputs: int, classes: int, *, hidden: int, head: str) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.head = head
        self.last: nn.Module = nn.LSTM(hidden, classes) if head == "lstm" else nn.Linear(hidden, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.hidden(inputs))
        if self.head == "lstm":
            states: torch.Tensor = self.last(features[None])[0][0]
            return states
        logits: torch.Tensor = self.last(features)
        if self.head == "tanh":
            return torch.tanh(logits)
        if self.head in ("softmax", "batch-softmax"):
            return torch.softmax(logits, dim=1 if self.head == "softmax" else 0)
        return logits


def loss_of(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    if recipe.head == "batch-softmax":
        return nn.functional.nll_loss(torch.log(logits + 1e-12), labels)
    if not recipe.gamma:
        return nn.functional.cross_entropy(logits, labels, weight=weight, label_smoothing=recipe.smoothing)
    nll = nn.functional.cross_entropy(logits, labels, reduction="none")
    shaped = (1 - torch.exp(-nll)) ** recipe.gamma * nll * weight[labels]
    return shaped.sum() / weight[labels].sum()


def train(
    inputs: np.ndarray, labels: Ints, classes: int, recipe: Recipe, *, epochs: int, seed: int, hidden: int = 64,
    rate: float = 3e-3, decay: float = 0.0,
) -> Callable[[np.ndarray], np.ndarray]:  # fmt: skip
    """Train with Adam; returns a function from inputs to what the network hands to the loss, in batches as trained."""
    torch.manual_seed(seed)
    counts = np.bincount(labels, minlength=classes).astype(float)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    network = Network(x.shape[1], classes, hidden=hidden, head=recipe.head)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    weight = torch.from_numpy(recipe.weight(counts)).float()
    rng, steps = np.random.default_rng(seed), max(1, len(labels) // BATCH)
    chance = 1 / counts[labels] / (1 / counts[labels]).sum()
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=epochs * steps)
    for _ in range(epochs):
        order = rng.choice(len(labels), len(labels), p=chance) if recipe.sampler else rng.permutation(len(labels))
        for rows in np.array_split(order, steps):
            optimiser.zero_grad()
            loss_of(network(x[rows]), y[rows], weight, recipe).backward()
            optimiser.step()
            schedule.step()
    network.eval()

    def scores(new: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [network(torch.from_numpy(new[start : start + BATCH])) for start in range(0, len(new), BATCH)]
        return torch.cat(parts).numpy()

    return scores
