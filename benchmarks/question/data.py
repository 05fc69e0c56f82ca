"""The sets of the question: train, validation and test parts that share no group, each with its inputs as tensors.

The validation part fits post-hoc corrections and the test part judges them, so a text, a file or a block of sentences
lies wholly in one of the three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks import realdata
from evenhand.counts import log_prior
from evenhand.demo import data as names

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
STDLIB_ROWS, STDLIB_VALIDATION, STDLIB_TEST = 30_000, 5_000, 8_000
CLINC_FACTOR = 100.0
BALANCED = frozenset({"clinc150_lt"})  # sets whose validation and test parts have equal class frequencies by design


@dataclass(frozen=True)
class Rows:
    """Inputs and labels (N,) int64, groups (N,) int64.

    inputs: features (N, D) float32; token numbers (N, 8) int64; or hashed text (N, M, 2) float32, the pairs (bucket,
    weight) of its grams, padded with weight 0.
    """

    inputs: NDArray[np.float32] | Ints
    labels: Ints
    groups: Ints


@dataclass(frozen=True)
class QuestionSet:
    """One set, ready for training.

    Attributes:
        train, validation, test: rows that share no group.
        classes: K. vocabulary: token numbers in use, 0 where the inputs are none.
        balanced_evaluation: whether validation and test have equal class frequencies by design, not those of training.
        left_out: (classes, rows) too rare to be judged.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    classes: int
    vocabulary: int
    balanced_evaluation: bool
    left_out: tuple[int, int]

    @property
    def counts(self) -> Ints:
        """(K,) training rows per class."""
        return np.bincount(self.train.labels, minlength=self.classes)

    @property
    def known_offset(self) -> Floats:
        """(K,) log(evaluation prior / training prior), by design."""
        prior = log_prior(self.counts)
        return -prior if self.balanced_evaluation else np.zeros(self.classes)


def in_halves(rows: realdata.Part, seed: int) -> tuple[realdata.Part, realdata.Part]:
    """Two parts of about the same size; every group lies wholly in one."""
    unique, group = np.unique(rows.groups, return_inverse=True)
    first = (np.random.default_rng([seed, 7]).permutation(len(unique)) % 2 == 0)[group]
    parts = [realdata.Part(rows.features[w], rows.labels[w], rows.groups[w]) for w in (first, ~first)]
    return parts[0], parts[1]


def as_bags(features: realdata.Features) -> realdata.Features:
    """(N, M, 2) pairs (column, value) of the non-zero entries: a bag of 40 grams costs a fraction of 2,048 columns."""
    rows, columns = np.nonzero(features)
    length = np.bincount(rows, minlength=len(features))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
    bags = np.zeros((len(features), int(length.max()), 2), np.float32)
    bags[rows, place, 0], bags[rows, place, 1] = columns, features[rows, columns]
    return bags


def of_table(folder: Path, name: str, seed: int) -> QuestionSet:
    """A set of `realdata`, its test part halved into validation and test."""
    real = realdata.load(name, folder, seed=seed)
    validation, test = in_halves(real.test, seed)
    text = real.train.features.shape[1] == realdata.BUCKETS
    parts = [
        Rows(as_bags(part.features) if text else part.features, part.labels, part.groups)
        for part in (real.train, validation, test)
    ]
    return QuestionSet(name, *parts, real.classes, 0, balanced_evaluation=False, left_out=real.left_out)


def clinc150_lt(folder: Path, _: int) -> QuestionSet:
    """CLINC150-LT at imbalance 100 with the official validation and test parts, both balanced; no seed changes it."""
    frame = realdata.read(folder, "clinc150")
    rows = pl.concat(
        [realdata.long_tailed(frame, CLINC_FACTOR, 0), *(frame.filter(pl.col("split") == p) for p in ("val", "test"))]
    )
    features = realdata.hashed(rows["text"].to_list(), realdata.word_grams)
    intents, labels = np.unique(rows["label"].to_numpy(), return_inverse=True)
    split = rows["split"].to_numpy()
    parts = [
        Rows(as_bags(features[split == p]), labels[split == p].astype(np.int64), np.flatnonzero(split == p))
        for p in ("train", "val", "test")
    ]
    return QuestionSet(
        "clinc150_lt", *parts, len(intents), 0, balanced_evaluation="clinc150_lt" in BALANCED, left_out=(0, 0)
    )


def stdlib(_: Path, seed: int) -> QuestionSet:
    """The demo's 500 names; its validation files are halved, and each half drawn with the training frequencies."""
    arrays, _why = names.load()
    sizes = {"rows": STDLIB_ROWS, "seed": seed}
    files = np.unique(arrays["file"][arrays["validation"]])
    for_test = np.isin(arrays["file"], np.random.default_rng([seed, 7]).permutation(files)[::2])
    drawn = []
    for other, rows in ((for_test, STDLIB_VALIDATION), (~for_test, STDLIB_TEST)):
        kept = ~(arrays["validation"] & other)
        half = {key: arrays[key][kept] for key in ("context", "target", "file", "validation")}
        constant = {key: arrays[key] for key in ("class_names", "vocabulary")}
        drawn.append(names.draw(half | constant, validation_rows=rows, **sizes))
    found = [drawn[0].train, drawn[0].validation, drawn[1].validation]
    parts = [Rows(rows.context, rows.target, rows.file) for rows in found]
    return QuestionSet(
        "stdlib", *parts, drawn[0].classes, drawn[0].vocabulary, balanced_evaluation=False, left_out=(0, 0)
    )


def _table(name: str) -> Callable[[Path, int], QuestionSet]:
    return lambda folder, seed: of_table(folder, name, seed)


SETS: dict[str, Callable[[Path, int], QuestionSet]] = {
    "stdlib": stdlib,
    "avonet": _table("avonet"),
    "kanjivg_radical": _table("kanjivg_radical"),
    "clinc150_lt": clinc150_lt,
    "names18": _table("names18"),
    "banking77": _table("banking77"),
    "ud_finnish_morph": _table("ud_finnish_morph"),
    "ua_device": _table("ua_device"),
    "onet_titles": _table("onet_titles"),
}


def load(name: str, folder: Path, seed: int) -> QuestionSet:
    """One of SETS; `folder` holds a folder per set (stdlib needs none)."""
    return SETS[name](folder, seed)
