"""The networks: the one of the question for tokens, one hidden layer for features, each with any of three heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.question.data import QuestionSet
from benchmarks.question.remedies import COSINE_SCALE, Head
from evenhand.demo.network import NextNameNetwork
from evenhand.losses import CosineLinear

HIDDEN = 128
SMALL = {"embedding": 32, "width": 64}  # half the demo's sizes: a hundred of them are trained


class OneHidden(nn.Module):
    """Features to logits through one hidden layer; the heads are those of the question."""

    def __init__(self, inputs: int, classes: int, head: Head) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU())
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
        return OneHidden(data.train.inputs.shape[1], data.classes, head)
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
