"""A tally as named tensors that add or are joined, and back: what libraries that synchronise tensors can carry."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenhand.declared import Declared
from evenhand.row_sample import RowSample, join, lead_size, sample_size, smallest
from evenhand.tally import ADDITIVE, ARRAYS, Tally, empty_tally, merge_edges

FIELDS = tuple(field.name for field in dataclasses.fields(RowSample))
SUMS = ADDITIVE
JOINED = (*(f"{part}_{field}" for part in ("sample", "lead") for field in FIELDS), *ARRAYS)
State = Tensor | Sequence[Tensor]


def sums(tally: Tally) -> dict[str, Tensor]:
    """What adds: a tensor for each of `SUMS`, int64 or float64."""
    return {name: torch.from_numpy(np.array(getattr(tally, name))) for name in SUMS}


def joined(tally: Tally) -> dict[str, Tensor]:
    """What is put one after another along the first axis: a tensor for each of `JOINED`."""
    rows = [getattr(part, field) for part in (tally.sample, tally.lead) for field in FIELDS]
    return dict(zip(JOINED, map(torch.from_numpy, rows + [getattr(tally, name) for name in ARRAYS]), strict=True))


def sample_parts(states: Mapping[str, State], part: str = "sample") -> list[RowSample]:
    """The pieces of a row sample that were joined, or are still in a list."""
    columns = (_pieces(states[f"{part}_{field}"]) for field in FIELDS)
    return [RowSample(*row) for row in zip(*columns, strict=True)]


def restored(states: Mapping[str, State], classes: int, declared: Declared) -> Tally:
    """The tally of logits whose states these are.

    Example:
        >>> tally = empty_tally("logits", 3)
        >>> restored(sums(tally) | joined(tally), 3, Declared()).true
        array([0, 0, 0])
    """
    nothing = empty_tally("logits", classes, declared)
    totals: dict[str, Any] = {name: _pieces(states[name])[0] for name in SUMS}
    totals |= {name: totals[name].item() for name in ("rows", "nll", "impossible")}
    true, predicted, count = (np.concatenate([getattr(nothing, n), *_pieces(states[n])]) for n in ARRAYS)
    edges = merge_edges(true.astype(np.int64) * classes + predicted, count, classes)
    return dataclasses.replace(
        nothing,
        **totals,
        edge_true=edges[0],
        edge_predicted=edges[1],
        edge_count=edges[2],
        sample=smallest([nothing.sample, *sample_parts(states)], sample_size(classes)),
        lead=join([nothing.lead, *sample_parts(states, "lead")]).first(lead_size(classes)),
    )


def _pieces(state: State) -> list[NDArray[Any]]:
    return [piece.numpy() for piece in ([state] if isinstance(state, Tensor) else state)]
