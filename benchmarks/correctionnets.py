"""Scores of trained networks on the test parts of real sets: each network is trained once and kept in a folder."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.realdata import RealSet, load

HIDDEN = 128
MODELS = {"plain": "none", "weighted": "class-weights", "doubly-weighted": "double"}
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """What a network answers on held-out rows.

    Attributes:
        logits: (N, K) float32. target: (N,) int64. train_counts: (K,) int64 rows per class in training.
        shifted: whether the test part was made balanced while the training part was not.
    """

    logits: Singles
    target: Ints
    train_counts: Ints
    shifted: bool


def scored(name: str, model: str, seed: int, *, data: Path, cache: Path, epochs: int | None = None) -> Scored:
    """From the cache, or trained now and put there."""
    path = cache / f"{name}-{seed}-{model}{'' if epochs is None else f'-{epochs}'}.npz"
    known = _kept(path)
    if known is None:
        known = _trained(load(name, data, seed=seed), model, seed, epochs)
        _keep(path, known)
    return Scored(known["logits"], known["target"], known["train_counts"], bool(known["shifted"]))


def _trained(real: RealSet, model: str, seed: int, epochs: int | None) -> dict[str, NDArray[Any]]:
    import torch
    from tests.faults.training import RECIPES, train

    torch.set_num_threads(1)
    predict = train(
        real.train.features, real.train.labels, real.classes, RECIPES[MODELS[model]],
        epochs=real.epochs if epochs is None else epochs, seed=seed, hidden=HIDDEN,
    )  # fmt: skip
    return {
        "logits": predict(real.test.features),
        "target": real.test.labels,
        "train_counts": np.bincount(real.train.labels, minlength=real.classes),
        "shifted": np.array(real.shifted),
    }


def _kept(path: Path) -> dict[str, NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in ("logits", "target", "train_counts", "shifted")}
    except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _keep(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part.npz")
    np.savez(part, **arrays)
    part.replace(path)
