"""The networks: the one of the question for tokens, one hidden layer for features, each with any of three heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.question.data import QuestionSet
from benchmarks.question.remedies import COSINE_SCALE, Head
from benchmarks.realdata import BUCKETS
from evenhand.demo.network import NextNameNetwork
from evenhand.losses import CosineLinear

HIDDEN = 128
SMALL = {"embedding": 32, "width": 64}  # half the demo's sizes: a hundred of them are trained


class Bag(nn.Module):
    """A linear layer over hashed text (N, M, 2): the sum of the rows that occur, times their weights.

    Initialised like `nn.Linear`; the weight lies as (inputs, outputs), because gathering columns is slow.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        like = nn.Linear(inputs, outputs)
        self.weight = nn.Parameter(like.weight.detach().T.contiguous())
        self.bias = nn.Parameter(like.bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        occurs = inputs[..., 1] != 0
        length = occurs.sum(1)
        buckets, weights = inputs[occurs].unbind(1)
        start = length.cumsum(0) - length
        return F.embedding_bag(buckets.long(), self.weight, start, per_sample_weights=weights, mode="sum") + self.bias


class OneHidden(nn.Module):
    """Features or hashed text to logits through one hidden layer; the heads are those of the question."""

    def __init__(self, inputs: int, classes: int, head: Head, *, text: bool) -> None:
        super().__init__()
        self.body = nn.Sequential((Bag if text else nn.Linear)(inputs, HIDDEN), nn.ReLU())
        self.lstm = nn.LSTM(HIDDEN, classes, batch_first=True) if head == "lstm" else None
        self.head = CosineLinear(HIDDEN, classes) if head == "cosine" else nn.Linear(HIDDEN, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        if self.lstm is not None:
            return self.lstm(hidden[:, None])[0][:, -1]
        return self.head(hidden)


def network(data: QuestionSet, head: Head, seed: int) -> nn.Module:
    """Untrained, its initial values a function of the seed."""
    torch.manual_seed(seed)
    if not data.vocabulary:
        text = data.train.inputs.ndim == 3
        return OneHidden(BUCKETS if text else data.train.inputs.shape[1], data.classes, head, text=text)
    made = NextNameNetwork(data.vocabulary, data.classes, head="lstm" if head == "lstm" else "linear", **SMALL)
    if head == "cosine":
        made.head = CosineLinear(made.lstm.hidden_size, data.classes)
    return made


def scores(made: nn.Module, inputs: Tensor, head: Head) -> Tensor:
    """(N, K) what a softmax turns into probabilities: cosines times their scale, everything else as it is."""
    made.eval()
    with torch.no_grad():
        told = torch.cat([made(piece) for piece in inputs.split(2048)])
    made.train()
    return told * COSINE_SCALE if head == "cosine" else told
