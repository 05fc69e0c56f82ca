"""What every process of one race must agree on, told in a few words of JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from evenhand.counts import ClassCounts
from evenhand.training.racing.judging import Judge
from evenhand.training.racing.plan import Plan
from evenhand.training.remedies import Remedy
from evenhand.training.rows import Rows, TableRows, TensorRows

SCHEMA = "evenhand.race/1"


def settings_of(plan: Plan, steps: int, train: Rows, judge: Judge, model: nn.Module) -> dict[str, Any]:
    """What every process of one race must agree on; more remedies and seeds may join later.

    Remedies trained with another network or on other columns would be compared with a plain training that is none.
    """
    digest = hashlib.sha256()
    for part in (train.target.numpy(), judge.target, judge.choosing):
        digest.update(np.ascontiguousarray(part).tobytes())
    recipe = plan.recipe
    return {
        "schema": SCHEMA,
        "goal": plan.goal,
        "budget": f"{plan.budget.amount:g} {plan.budget.unit}",
        "steps": steps,
        "labels": digest.hexdigest()[:24],
        "inputs": _inputs_of(train),
        "model": _shapes_of(model),
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "clip": recipe.clip,
        "optimiser": type(recipe.build(model.parameters())).__name__,
    }


def about_training(remedy: Remedy, seed: int, counts: ClassCounts) -> dict[str, Any]:
    """What one training is, beside the settings: remedies of one name may differ, and counts decide the weights."""
    options = [sorted(given.items()) for given in (remedy.options, remedy.schedule_options)]
    described = repr((remedy.loss, remedy.power, remedy.schedule, remedy.cosine, options))
    rows = np.ascontiguousarray(counts.counts).tobytes()
    return {"remedy": remedy.name, "is": described, "seed": seed, "counts": hashlib.sha256(rows).hexdigest()[:24]}


def _inputs_of(rows: Rows) -> list[str]:
    """What the tensors of the first rows look like, in a way that survives another machine's rounding.

    Of a data set only types and shapes: it may change its rows at random.
    """
    fixed = isinstance(rows, (TensorRows, TableRows))
    first = rows.batch(torch.arange(min(len(rows), 64) if fixed else 1))
    return [
        f"{tensor.dtype} {list(tensor.shape[1:])}" + (f" {float(tensor.double().abs().sum()):.4g}" if fixed else "")
        for tensor in _tensors(first)
    ]


def _tensors(inputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(inputs, torch.Tensor):
        yield inputs
    elif isinstance(inputs, (dict, list, tuple)):
        for inner in inputs.values() if isinstance(inputs, dict) else inputs:
            yield from _tensors(inner)


def _shapes_of(model: nn.Module) -> str:
    shapes = [(type(module).__name__, [list(p.shape) for p in module.parameters(False)]) for module in model.modules()]
    return f"{type(model).__name__} {hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]}"
