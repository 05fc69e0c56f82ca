"""CLINC150-LT as TF-IDF rows, and the small network of the reference table: an embedding bag and a linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import realdata
from evenhand.losses import CosineLinear

WIDTH = 256
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """TF-IDF rows as a SciPy CSR matrix (N, V), and labels (N,): the rank of the intent, 0 the most frequent."""

    matrix: Any
    labels: Ints

    def batch(self, rows: NDArray[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Word numbers, offsets and TF-IDF weights of these rows, as an embedding bag takes them."""
        part = self.matrix[rows]
        words, offsets = (torch.from_numpy(values.astype(np.int64)) for values in (part.indices, part.indptr[:-1]))
        return words, offsets, torch.from_numpy(part.data.astype(np.float32))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class LongTail:
    """Long-tailed training rows, and the official validation and test rows, both balanced."""

    train: Texts
    validation: Texts
    test: Texts
    counts: Ints

    @property
    def vocabulary(self) -> int:
        return int(self.train.matrix.shape[1])


def load(folder: Path, factor: float) -> LongTail:
    """CLINC150-LT at this imbalance; the vectoriser sees the kept training rows alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = realdata.read(folder, "clinc150")
    train = realdata.long_tailed(frame, factor, 0)
    rank = {intent: number for number, intent in enumerate(dict.fromkeys(train["label"].to_list()))}
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(train["text"].to_list())
    parts = []
    for rows in (train, *(frame.filter(pl.col("split") == part) for part in ("val", "test"))):
        labels = np.array([rank[label] for label in rows["label"].to_list()])
        parts.append(Texts(vectoriser.transform(rows["text"].to_list()).tocsr(), labels))
    return LongTail(*parts, np.bincount(parts[0].labels, minlength=len(rank)))


class BagNetwork(nn.Module):
    """A bag of word embeddings weighted by TF-IDF, ReLU, and a linear or cosine layer."""

    def __init__(self, vocabulary: int, classes: int, *, cosine: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocabulary, WIDTH, mode="sum", sparse=True)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.dropout = nn.Dropout(dropout)
        self.head = CosineLinear(WIDTH, classes) if cosine else nn.Linear(WIDTH, classes)

    def forward(self, words: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        bag = self.embedding(words, offsets, per_sample_weights=weights)
        return self.head(self.dropout(torch.relu(bag)))
