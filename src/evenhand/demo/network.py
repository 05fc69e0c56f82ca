"""The network of the question: an embedding, three fully connected layers, an LSTM, and a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evenhand.demo.recipe import Head


class NextNameNetwork(nn.Module):
    """Predicts the next name from the tokens before it.

    Each pair of tokens is embedded and passed through three fully connected layers; an LSTM reads the pairs in order.
    With ``head="linear"`` its last state goes through a linear layer. With ``head="lstm"`` the state itself, one unit
    per class, is the output: each value then lies in (-1, 1), whatever the training does.

    Args:
        vocabulary: number of context tokens, V.
        classes: number of classes, K.
        head: ``"linear"`` or ``"lstm"``.
        softmax: apply a softmax to the output, which ``nn.CrossEntropyLoss`` will then apply a second time.

    Shape:
        input (N, 8) int64, output (N, K) float32.

    >>> network = NextNameNetwork(100, 20)
    >>> network(torch.zeros(3, 8, dtype=torch.long)).shape
    torch.Size([3, 20])
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        *,
        head: Head = "linear",
        softmax: bool = False,
        embedding: int = 48,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.layers = nn.Sequential(
            nn.Linear(2 * embedding, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.lstm = nn.LSTM(width, classes if head == "lstm" else width, batch_first=True)
        self.head: nn.Module = nn.Identity() if head == "lstm" else nn.Linear(width, classes)
        self.softmax = softmax

    def forward(self, context: Tensor) -> Tensor:
        """Logits (N, K) for contexts (N, 8)."""
        pairs = self.embedding(context).reshape(context.shape[0], context.shape[1] // 2, -1)
        _, (state, _) = self.lstm(self.layers(pairs))
        logits: Tensor = self.head(state[-1])
        return torch.softmax(logits, dim=1) if self.softmax else logits
