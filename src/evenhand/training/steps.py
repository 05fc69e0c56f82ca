"""Small parts of the training loop: how long, in which order, with which seed, on which device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from evenhand.counts import ClassCounts, class_counts
from evenhand.declared import InputError
from evenhand.training.rows import Rows


def count_rows(rows: Rows, counts: Any = None) -> ClassCounts:
    """Training counts, given or counted.

    Raises:
        InputError: a target that the counts do not have.
    """
    known = class_counts(rows.target) if counts is None else ClassCounts.from_counts(getattr(counts, "counts", counts))
    if int(rows.target.max()) >= known.classes:
        raise InputError(
            f"expected classes below {known.classes}, the length of counts, found {int(rows.target.max())}; give the "
            "counts of all classes"
        )
    return known


def planned_steps(per_epoch: int, epochs: float | None, steps: int | None) -> int:
    """Steps in all.

    Raises:
        InputError: none or both are given, or less than one step.
    """
    if (epochs is None) == (steps is None):
        raise InputError("expected epochs= or steps=, one of them; say how long to train")
    total = steps if steps is not None else round(float(epochs or 0) * per_epoch)
    if not total >= 1:
        raise InputError(f"expected at least one step, got epochs={epochs}, steps={steps}; train longer")
    return int(total)


def mixed_seed(seed: int, number: int) -> int:
    """A seed of its own for each number below a seed: a plain sum would give neighbouring runs the same draws."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (number + 0x10000) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 31)) * 0x94D049BB133111EB) % 2**64
    return mixed >> 1


@contextmanager
def one_seed_per_step(device: torch.device) -> Iterator[None]:
    """Torch's own generators stay as they were outside the block."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that a step on this device draws from.

    `torch.manual_seed` seeds every kind of device there may be, and for those not yet in use it writes down the whole
    call stack: a quarter of the time of a small step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):  # else it is the current device that is seeded, which need not be this one
            torch.cuda.manual_seed(seed)


def to_device(inputs: Any, device: torch.device) -> Any:
    """Tensors, and tuples, lists and dictionaries of them, on a device."""
    if hasattr(inputs, "to"):
        return inputs.to(device)
    if isinstance(inputs, dict):
        return {key: to_device(value, device) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(to_device(value, device) for value in inputs)
    return inputs
