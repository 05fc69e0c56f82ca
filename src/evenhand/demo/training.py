"""Train the demo's network by a recipe, or find it in the cache, and predict with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenhand.declared import Floats, Ints
from evenhand.demo.cache import keep, read_arrays
from evenhand.demo.data import NextNames, Rows
from evenhand.demo.network import NextNameNetwork
from evenhand.demo.recipe import Recipe

TRAINER = 2

StepProgress = Callable[[int, int, float], None]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch calculate on one thread, and give back its threads afterwards.

    The network is small: a second thread saves a quarter of the time on an idle machine, but its threads wait for each
    other hundreds of times per step, and on a busy machine a step then takes five times as long. The result does not
    depend on the number of cores either.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def network_for(data: NextNames, recipe: Recipe, *, seed: int) -> NextNameNetwork:
    """An untrained network whose initial values depend on the seed alone; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NextNameNetwork(data.vocabulary, data.classes, head=recipe.head, softmax=recipe.softmax)


def accumulated_loss(row_loss: Tensor, row_weight: Tensor, micro_batch: int) -> Tensor:
    """The loss of one optimiser step whose gradients are accumulated over pieces of ``micro_batch`` rows.

    ``mean over pieces of (sum of row_loss in the piece / sum of row_weight in the piece)``: with ``reduction="mean"``
    each piece divides by its own weights, so that a heavy row outweighs its neighbours but no row of another piece.

    Args:
        row_loss: (n,) weighted loss of each row, as ``reduction="none"`` gives it.
        row_weight: (n,) loss weight of each row's class.
        micro_batch: rows per piece, the last piece may be smaller.
    """
    pieces = -(-len(row_loss) // micro_batch)
    piece = torch.arange(len(row_loss)) // micro_batch
    total = torch.zeros(pieces).index_add(0, piece, row_loss)
    return (total / torch.zeros(pieces).index_add(0, piece, row_weight)).mean()


def _step_loss(recipe: Recipe, weight: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of one optimiser step from logits and targets."""
    if not recipe.micro_batch:
        return nn.CrossEntropyLoss(weight=weight, label_smoothing=recipe.label_smoothing)
    rows = nn.CrossEntropyLoss(weight=weight, label_smoothing=recipe.label_smoothing, reduction="none")

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        of_rows = torch.ones(len(target)) if weight is None else weight[target]
        return accumulated_loss(rows(logits, target), of_rows, recipe.micro_batch)

    return loss


def _order(train: Rows, recipe: Recipe, classes: int, generator: torch.Generator) -> Tensor:
    """Row positions of one epoch: a shuffle, or a class-balanced draw with replacement."""
    if not recipe.sampler:
        return torch.randperm(len(train), generator=generator)
    counts = np.bincount(train.target, minlength=classes)
    rate = torch.from_numpy(1.0 / counts[train.target])
    return torch.multinomial(rate, len(train), replacement=True, generator=generator)


@one_thread()
def train(
    data: NextNames, recipe: Recipe, weight: Floats | None, *, seed: int, progress: StepProgress | None = None
) -> NextNameNetwork:
    """Train from the start; the same arguments give the same network.

    Args:
        data: the data set. recipe: how to train.
        weight: (K,) loss weights for ``nn.CrossEntropyLoss(weight=...)``, or None.
        progress: called after each step with steps done, steps in all, and the loss.
    """
    network = network_for(data, recipe, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    step_loss = _step_loss(recipe, None if weight is None else torch.from_numpy(weight).float())
    context, target = torch.from_numpy(data.train.context), torch.from_numpy(data.train.target)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    total = recipe.epochs * -(-len(data.train) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=max(total, 2))
    network.train()
    step = 0
    for _ in range(recipe.epochs):
        for rows in torch.split(_order(data.train, recipe, data.classes, generator), recipe.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = step_loss(network(context[rows]), target[rows])
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if progress:
                progress(step, total, float(loss.detach()))
    return network.eval()


def fingerprint(data: NextNames, recipe: Recipe, weight: Floats | None, *, seed: int) -> str:
    """A name for everything the trained network depends on: rows, recipe, weights, seed, versions."""
    digest = hashlib.sha256(repr((TRAINER, recipe, seed, data.classes, data.vocabulary, torch.__version__)).encode())
    parts: list[NDArray[Any]] = [data.train.context, data.train.target]
    parts += [] if weight is None else [weight]
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:24]


def restore(network: NextNameNetwork, arrays: dict[str, NDArray[Any]] | None) -> bool:
    """Fill the network from cached arrays; False, and nothing changed, where they do not fit it."""
    expected = network.state_dict()
    if arrays is None or set(arrays) != set(expected):
        return False
    fits = all(a.shape == tuple(expected[name].shape) and a.dtype == np.float32 for name, a in arrays.items())
    if not fits:
        return False
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return True


def trained(
    data: NextNames,
    recipe: Recipe,
    weight: Floats | None,
    *,
    seed: int,
    folder: Path | None,
    fresh: bool = False,
    progress: StepProgress | None = None,
) -> tuple[NextNameNetwork, bool, str | None]:
    """The trained network of a recipe, whether it came from the cache, and a sentence if it could not be kept there."""
    name = f"network-{fingerprint(data, recipe, weight, seed=seed)}.npz"
    network = network_for(data, recipe, seed=seed)
    if folder is not None and not fresh and restore(network, read_arrays(folder / name)):
        return network.eval(), True, None
    network = train(data, recipe, weight, seed=seed, progress=progress)
    arrays = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    return network, False, keep(folder, name, arrays)


@one_thread()
def predict(network: nn.Module, context: Ints, *, progress: Callable[[int, int], None] | None = None) -> NDArray[Any]:
    """The network's output (N, K) float32 for contexts (N, 8)."""
    pieces = []
    with torch.inference_mode():
        for start in range(0, len(context), 1024):
            pieces.append(network(torch.from_numpy(context[start : start + 1024])).numpy())
            if progress:
                progress(min(start + 1024, len(context)), len(context))
    return np.concatenate(pieces)
