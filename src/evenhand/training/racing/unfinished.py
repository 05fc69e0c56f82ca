"""Trainings under way, kept in files so that they go on after a kill: tensors and JSON, nothing that is unpickled."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evenhand.output import save_atomically

SCHEMA = "evenhand.unfinished/1"
EVERY = 300.0  # seconds of a training after which it is kept again, at the next occasion
REFUSALS = (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, RecursionError)
CANNOT = (SafetensorError, ValueError, RuntimeError, KeyError, TypeError, MemoryError)


class UnusableError(ValueError):
    """What was kept cannot be gone on from, or a training cannot be kept; told in a few words."""


@dataclass(frozen=True)
class Kept:
    """A training as it was left.

    Attributes:
        state: what ``Training.state_dict`` gave. reports: step, value and its error at every rung that it passed.
    """

    state: dict[str, Any]
    reports: list[tuple[int, float, float]]


class Place:
    """Where one training is kept while it is under way.

    Args:
        path: of the file; None: nothing is kept. about: JSON that tells what training this is.
    """

    def __init__(self, path: Path | None, about: Any) -> None:
        self._path, self._about = path, about
        self._last = time.monotonic()

    def read(self) -> Kept | None:
        """The training as another process left it, None where there is nothing.

        Raises:
            UnusableError: the file is damaged, or that of another training.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            plain, tensors = _read(self._path)
            about, kept = plain["about"], Kept(_whole(plain["state"], tensors), [(*r,) for r in plain["reports"]])
            fits = 0 < kept.state["step"] < kept.state["total"] and all(len(report) == 3 for report in kept.reports)
        except REFUSALS as error:
            raise UnusableError("the file is damaged") from error
        if about != self._about:
            raise UnusableError("it is that of another training, of other settings or another remedy")
        if not fits:
            raise UnusableError("the file is damaged")
        return kept

    def is_due(self) -> bool:
        """Whether it is to be kept again for the time that has passed."""
        return self._path is not None and time.monotonic() - self._last >= EVERY

    def write(self, state: Callable[[], Mapping[str, Any]], reports: list[tuple[int, float, float]]) -> None:
        """Keep the training in place of what was kept before.

        Raises:
            UnusableError: the state holds what is neither a plain tensor nor JSON. OSError: the file cannot be written.
        """
        if self._path is None:
            return
        self._path.parent.mkdir(exist_ok=True)
        try:
            own, facts = self._written(state(), reports)
            save_atomically(self._path, lambda temporary: save_file(own, temporary, facts))
        except CANNOT as error:
            raise UnusableError(str(error)[:120] or type(error).__name__) from error
        self._last = time.monotonic()

    def _written(self, state: Any, reports: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors: dict[str, Tensor] = {}
        plain = json.dumps({"about": self._about, "reports": reports, "state": _flat(state, tensors)})
        own = _on_their_own(tensors)
        return own, {"schema": SCHEMA, "plain": plain, "sha256": _digest(plain, own)}

    def clear(self) -> None:
        """Nothing is under way any more; also takes away what a kill in the middle of writing has left."""
        if self._path is None:
            return
        for path in (self._path, *self._path.parent.glob(f".{self._path.name[:40]}.*")):
            path.unlink(missing_ok=True)


def file_name(remedy: str, seed: int) -> str:
    """Of a training; the remedy's own name may hold anything."""
    return f"{hashlib.sha256(remedy.encode()).hexdigest()[:16]}_{seed}.safetensors"


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON and the tensors, as they were written to the last bit: the disk may have been cut off its power."""
    with safe_open(path, framework="pt", device="cpu") as file:
        facts = file.metadata() or {}
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if facts["schema"] != SCHEMA or facts["sha256"] != _digest(facts["plain"], tensors):
        raise ValueError
    return json.loads(facts["plain"]), tensors


def _digest(plain: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(plain.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _on_their_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, whole, and no two in one storage, which the format refuses: weights may be tied."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        found[name] = own.clone() if place in seen else own
        seen.add(place)
    return found


def _flat(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON that names the tensors in a value, which are put aside; dictionaries keep keys that are no text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor) and value.layout is torch.strided:
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_flat(key, tensors), _flat(inner, tensors)] for key, inner in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_flat(inner, tensors) for inner in value]}
    raise UnusableError(f"its state holds a {type(value).__name__}")


def _whole(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_flat` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {_whole(key, tensors): _whole(held, tensors) for key, held in inner}
    return {"list": list, "tuple": tuple}[kind](_whole(held, tensors) for held in inner)
