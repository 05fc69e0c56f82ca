"""Built-in networks: linear, multi-layer perceptron, and the question's three fully connected layers with an LSTM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from evenhand.declared import InputError
from evenhand.training.rows import Inputs, Ragged, Rows

# An embedding gets a gradient only where its token occurs. Adam moves every number by about the learning rate, so the
# factor behind the table makes embeddings learn that much faster than the layers above them.
BAG_RATE = 5.0

ModelFn = Callable[[], nn.Module]


@dataclass(frozen=True)
class Shape:
    """What rows consist of: dense features, buckets of hashed tokens, numbers per step of a sequence; 0 for none."""

    dense: int = 0
    buckets: int = 0
    channels: int = 0


def as_inputs(data: Tensor | Inputs) -> Inputs:
    """A batch in parts: (n, D) is dense, (n, T, D) a sequence.

    Raises:
        InputError: a tensor of another number of axes.
    """
    if isinstance(data, Inputs):
        return data
    if data.ndim == 2:
        return Inputs(dense=data.float())
    if data.ndim == 3:
        rows, steps, channels = data.shape
        start = torch.arange(0, rows * steps, steps, device=data.device)
        return Inputs(sequence=Ragged(data.reshape(-1, channels).float(), start))
    raise InputError(f"expected inputs (n, D) or (n, T, D), got shape {tuple(data.shape)}; give model_fn= for others")


def shape_of(rows: Rows) -> Shape:
    """The shape of the first row."""
    inputs = as_inputs(rows.batch(torch.arange(min(1, len(rows)))))
    return Shape(
        0 if inputs.dense is None else inputs.dense.shape[1],
        0 if inputs.tokens is None else int(getattr(rows, "buckets", 0)),
        0 if inputs.sequence is None else inputs.sequence.values.shape[1],
    )


class _Bag(nn.Module):
    """The weighted sum of the embeddings of a bag of tokens; an empty bag is zero."""

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(buckets, width, mode="sum")
        nn.init.normal_(self.table.weight, std=0.1 / BAG_RATE)

    def forward(self, bags: Ragged) -> Tensor:
        """(n, width)."""
        found: Tensor = self.table(bags.values, bags.start, per_sample_weights=bags.weight)
        return BAG_RATE * found


def mean_of_steps(steps: Ragged) -> Tensor:
    """(n, D) mean over the steps of each sequence; zero for an empty one."""
    total = steps.values.new_zeros(len(steps.start), steps.values.shape[1])
    owner = torch.repeat_interleave(torch.arange(len(steps.start), device=steps.start.device), steps.lengths)
    return total.index_add(0, owner, steps.values) / steps.lengths.clamp_min(1)[:, None]


def padded(steps: Ragged) -> tuple[Tensor, Tensor]:
    """(n, T, D) with zeros behind the shorter sequences, and (n,) lengths of at least 1."""
    lengths = steps.lengths
    filled = steps.values.new_zeros(len(lengths), max(1, int(lengths.max())), steps.values.shape[1])
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    filled[owner, torch.arange(len(steps.values), device=lengths.device) - steps.start[owner]] = steps.values
    return filled, lengths.clamp_min(1)


class LinearModel(nn.Module):
    """A linear classifier of dense features, of the summed embeddings of tokens, and of the mean step of sequences."""

    def __init__(self, shape: Shape, classes: int, *, width: int = 256) -> None:
        super().__init__()
        self.bag = _Bag(shape.buckets, width) if shape.buckets else None
        self.head = nn.Linear(shape.dense + shape.channels + (width if shape.buckets else 0), classes)

    def forward(self, data: Tensor | Inputs) -> Tensor:
        """(n, K) logits."""
        logits: Tensor = self.head(torch.cat(_vectors(as_inputs(data), self.bag), dim=1))
        return logits


class PerceptronModel(nn.Module):
    """Two hidden layers of `width` units for dense features and mean steps; for text alone, one of embeddings."""

    def __init__(self, shape: Shape, classes: int, *, width: int = 256) -> None:
        super().__init__()
        self.bag = _Bag(shape.buckets, width) if shape.buckets else None
        plain = shape.dense + shape.channels
        layers: list[nn.Module] = [nn.ReLU()]
        if plain:
            inputs = plain + (width if shape.buckets else 0)
            layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, data: Tensor | Inputs) -> Tensor:
        """(n, K) logits."""
        logits: Tensor = self.head(self.body(torch.cat(_vectors(as_inputs(data), self.bag), dim=1)))
        return logits


class RecurrentModel(nn.Module):
    """The question's network: three fully connected layers at every step, an LSTM over the steps, a linear head.

    Dense features and the summed embeddings of tokens stand beside every step; without a sequence there is one step.

    Args:
        shape: of the rows. classes: K. width: units per layer.
        head: ``linear``, or ``lstm`` to use the LSTM's state itself as logits, one unit per class: every logit then
            lies in (-1, 1), whatever the training does.
    """

    def __init__(
        self, shape: Shape, classes: int, *, width: int = 128, head: Literal["linear", "lstm"] = "linear"
    ) -> None:
        super().__init__()
        self.bag = _Bag(shape.buckets, width) if shape.buckets else None
        inputs = shape.dense + shape.channels + (width if shape.buckets else 0)
        layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)]
        self.layers = nn.Sequential(*layers, nn.ReLU())
        self.lstm = nn.LSTM(width, classes if head == "lstm" else width, batch_first=True)
        self.head: nn.Module = nn.Identity() if head == "lstm" else nn.Linear(width, classes)

    def forward(self, data: Tensor | Inputs) -> Tensor:
        """(n, K) logits."""
        dense, tokens, sequence = as_inputs(data)
        beside = _vectors(Inputs(dense, tokens), self.bag)
        if sequence is None:
            steps = torch.cat(beside, dim=1)[:, None]
            lengths = torch.ones(len(steps), dtype=torch.long)
        else:
            steps, lengths = padded(sequence)
            steps = torch.cat([steps, *(part[:, None].expand(-1, steps.shape[1], -1) for part in beside)], dim=2)
        packed = pack_padded_sequence(self.layers(steps), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(packed)
        logits: Tensor = self.head(state[-1])
        return logits


def _vectors(inputs: Inputs, bag: _Bag | None) -> list[Tensor]:
    """One vector per row and part: dense features, embeddings, mean step."""
    parts = [] if inputs.dense is None else [inputs.dense]
    if bag is not None and inputs.tokens is not None:
        parts.append(bag(inputs.tokens))
    if inputs.sequence is not None:
        parts.append(mean_of_steps(inputs.sequence))
    return parts


MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "linear": LinearModel,
    "mlp": PerceptronModel,
    "lstm": RecurrentModel,
}


def built_in(name: str, rows: Rows, classes: int) -> ModelFn:
    """A function that builds an untrained built-in model for these rows.

    Args:
        name: ``linear``, ``mlp`` or ``lstm``. rows: as the model will see them. classes: K.

    Raises:
        InputError: another name, or rows that are no tensors of two or three axes.

    Example:
        >>> from evenhand.training.rows import TensorRows
        >>> rows = TensorRows(torch.zeros(4, 5), torch.tensor([0, 1, 2, 0]))
        >>> built_in("lstm", rows, 3)()(rows.inputs).shape
        torch.Size([4, 3])
    """
    if name not in MODELS:
        raise InputError(f"expected a model among {', '.join(MODELS)}, got {name!r:.60}; choose one or pass model_fn=")
    shape = shape_of(rows)
    return lambda: MODELS[name](shape, classes)
