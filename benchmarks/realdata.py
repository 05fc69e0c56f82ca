"""Real sets with unevenly frequent classes as numbers: dense features, labels from 0 to K - 1, a train and a test part.

Classes with fewer than five rows are left out before splitting and counted in `RealSet.left_out`. Rows that share a
group (the same text, the same template, neighbouring sentences) lie wholly in one part.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

BUCKETS = 2048
LEAST_ROWS = 5
TEST_SHARE = 0.4
MEASURES = (
    "beak_length_culmen",
    "beak_length_nares",
    "beak_width",
    "beak_depth",
    "tarsus_length",
    "wing_length",
    "kipps_distance",
    "secondary1",
    "tail_length",
    "hand_wing_index",
    "mass",
)

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Features (N, D) float32, labels (N,) int64, and groups (N,) int64: rows of one group must stay together."""

    features: Features
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class RealSet:
    """A data set ready for training; `left_out` counts (classes, rows) that were too rare, `shifted` tells whether
    the evaluation prior differs from the training prior by design, `epochs` how long a sound network is trained."""

    name: str
    train: Part
    test: Part
    class_names: tuple[str, ...]
    left_out: tuple[int, int]
    shifted: bool = False
    epochs: int = 8

    @property
    def classes(self) -> int:
        return len(self.class_names)


def character_grams(text: str, sizes: Iterable[int] = (1, 2, 3, 4)) -> list[str]:
    marked = f"^{text.lower()}$"
    return [marked[start : start + size] for size in sizes for start in range(len(marked) - size + 1)]


def word_grams(text: str) -> list[str]:
    """Words, pairs of words, and the first five letters of each word."""
    words = re.findall(r"[^\W_]+", text.lower())
    return [*words, *map("_".join, itertools.pairwise(words)), *(f"{word[:5]}-" for word in words)]


def hashed(texts: list[str], grams: Callable[[str], list[str]]) -> Features:
    """(N, BUCKETS) hashed counts, square-rooted, each row of length 4."""
    features = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in enumerate(texts):
        np.add.at(features[row], [zlib.crc32(gram.encode()) % BUCKETS for gram in grams(text)], 1.0)
    features = np.sqrt(features)
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features * np.float32(4) / np.maximum(norm, np.float32(1e-6))


def standardised(features: NDArray[np.float64]) -> Features:
    spread = features.std(axis=0)
    return ((features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)


def assemble(
    name: str,
    features: Features,
    labels: list[str],
    groups: list[str],
    *,
    seed: int,
    shifted: bool = False,
    epochs: int = 8,
    test: NDArray[np.bool_] | None = None,
) -> RealSet:
    """Drop rare classes, number the rest in sorted order, split by group unless `test` marks the test rows.

    A class can fall wholly into the test part; its rows are dropped too, and counted.
    """
    names = np.array(labels)
    unique, group = np.unique(np.array(groups), return_inverse=True)
    if test is None:
        test = (np.random.default_rng(seed).random(len(unique)) < TEST_SHARE)[group]
    listed, totals = np.unique(names, return_counts=True)
    trained = np.isin(listed, np.unique(names[~test]))
    kept = listed[(totals >= LEAST_ROWS) & trained]
    rows = np.isin(names, kept)
    numbers = np.searchsorted(kept, names[rows])
    features, test, group = features[rows], test[rows], group[rows].astype(np.int64)
    left_out = (len(listed) - len(kept), int((~rows).sum()))
    parts = [Part(features[which], numbers[which].astype(np.int64), group[which]) for which in (~test, test)]
    return RealSet(name, parts[0], parts[1], tuple(kept.tolist()), left_out, shifted, epochs)


def read(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / name / "rows.parquet")


def thinned(frame: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    return frame.sample(rows, seed=seed) if len(frame) > rows else frame


def names18(folder: Path, seed: int) -> RealSet:
    frame = read(folder, "names18").unique(maintain_order=True)
    texts = frame["text"].to_list()
    return assemble("names18", hashed(texts, character_grams), frame["label"].to_list(), texts, seed=seed, epochs=5)


def ua_device(folder: Path, seed: int) -> RealSet:
    frame = read(folder, "ua_device").with_columns(pl.col("label").str.to_lowercase())
    texts = frame["text"].to_list()
    groups = [re.sub(r"\d", "0", text) for text in texts]
    return assemble("ua_device", hashed(texts, word_grams), frame["label"].to_list(), groups, seed=seed)


def onet_titles(folder: Path, seed: int) -> RealSet:
    """Coarser labels of the same rows: the first seven characters of the code; half of the titles, for time."""
    frame = thinned(read(folder, "onet_titles").with_columns(pl.col("label").str.slice(0, 7)), 26_000, seed)
    texts = [text.lower() for text in frame["text"].to_list()]
    return assemble("onet_titles", hashed(texts, word_grams), frame["label"].to_list(), texts, seed=seed)


def avonet(folder: Path, seed: int) -> RealSet:
    """Logarithms of the eleven measures; measured species only, split at random (the easier, usual variant)."""
    frame = read(folder, "avonet").filter(~pl.col("inferred"))
    measures = np.log(np.maximum(frame.select(MEASURES).to_numpy().astype(float), 1e-2))
    ratios = measures - measures[:, -1:] / 3
    features = standardised(np.column_stack([measures, ratios[:, :-1], measures[:, -1] ** 2]))
    return assemble("avonet", features, frame["label"].to_list(), frame["species"].to_list(), seed=seed, epochs=40)


def kanjivg_radical(folder: Path, seed: int) -> RealSet:
    """The first ten and the last five strokes, eight points each."""
    frame = read(folder, "kanjivg_radical")
    drawn = np.zeros((len(frame), 15, 8, 2), np.float64)
    columns = zip(frame["x"].to_list(), frame["y"].to_list(), strict=True)
    for row, (x, y) in enumerate(columns):
        strokes = np.stack([x, y], axis=-1).reshape(-1, 8, 2) / 109 - 0.5
        first, last = strokes[:10], strokes[10:][-5:]
        drawn[row, : len(first)], drawn[row, 10 : 10 + len(last)] = first, last
    features = 2 * drawn.reshape(len(frame), -1).astype(np.float32)
    return assemble(
        "kanjivg_radical", features, frame["label"].to_list(), frame["char"].to_list(), seed=seed, epochs=14
    )


def clinc150_lt(folder: Path, seed: int, factor: float = 50.0) -> RealSet:
    """An exponential long tail cut from the training part, with the official balanced test part."""
    frame = read(folder, "clinc150")
    rows = pl.concat([long_tailed(frame, factor, seed), frame.filter(pl.col("split") == "test")])
    texts = rows["text"].to_list()
    marked = (rows["split"] == "test").to_numpy()
    return assemble(
        "clinc150_lt", hashed(texts, word_grams), rows["label"].to_list(), texts, seed=seed, shifted=True, test=marked
    )


def long_tailed(frame: pl.DataFrame, factor: float, seed: int) -> pl.DataFrame:
    """The exponential long tail of CLINC150's training part: the class of rank k keeps 100 factor^(-k / (K - 1)) rows.

    Ranks are a random order of the intents; rows are the first of each, in file order.
    """
    train = frame.filter(pl.col("split") == "train")
    intents = sorted(train["label"].unique().to_list())
    order = np.random.default_rng(seed).permutation(len(intents))
    return pl.concat(
        train.filter(pl.col("label") == intents[index]).head(
            max(1, round(100 * factor ** (-rank / (len(intents) - 1))))
        )
        for rank, index in enumerate(order)
    )


def banking77(folder: Path, seed: int) -> RealSet:
    """The training part only, split at random, so that train and test have one prior: the nearly balanced control."""
    frame = read(folder, "banking77").filter(pl.col("split") == "train")
    texts = [text.strip().lower() for text in frame["text"].to_list()]
    return assemble("banking77", hashed(texts, word_grams), frame["label"].to_list(), texts, seed=seed)


def ud_finnish_morph(folder: Path, seed: int) -> RealSet:
    """Word, its endings and its neighbours; blocks of 40 neighbouring sentences stay together; 26,000 tokens."""
    frame = read(folder, "ud_finnish_morph").head(26_000)
    forms, sentence = frame["form"].to_list(), frame["sentence"].to_list()
    texts = []
    for row, form in enumerate(forms):
        left = forms[row - 1] if row and sentence[row - 1] == sentence[row] else ""
        right = forms[row + 1] if row + 1 < len(forms) and sentence[row + 1] == sentence[row] else ""
        endings = [f"{form[-size:]}<{size}" for size in range(1, 6)]
        case = "^" if form[:1].isupper() else "."
        texts.append("\t".join([form.lower(), *endings, case, f"{left.lower()[-3:]}>", f"<{right.lower()[-3:]}"]))
    groups = [str(number // 40) for number in sentence]
    return assemble(
        "ud_finnish_morph", hashed(texts, lambda text: text.split("\t")), frame["label"].to_list(), groups, seed=seed
    )


SETS: dict[str, Callable[[Path, int], RealSet]] = {
    "names18": names18,
    "banking77": banking77,
    "clinc150_lt": clinc150_lt,
    "avonet": avonet,
    "kanjivg_radical": kanjivg_radical,
    "ua_device": ua_device,
    "ud_finnish_morph": ud_finnish_morph,
    "onet_titles": onet_titles,
}


def load(name: str, folder: Path, *, seed: int = 0) -> RealSet:
    """One of SETS from the folder that holds a subfolder per set."""
    return SETS[name](folder, seed)
