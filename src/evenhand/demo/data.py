"""A real data set found on every machine: the names in Python's own standard library.

Task: given the 8 tokens before it, which of the 500 most frequent names (identifiers and keywords) comes next?
Names follow a Zipf-like law, so the classes are as uneven as in any long-tailed problem: on CPython 3.11 about
336,000 rows, from about 47,000 (``self``) down to 64 per class.

Test folders are left out: they are two thirds of the source, slim installations do not ship them, and reading
them would take longer than training. Files that do not tokenize (samples of broken code) are left out too.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import token as tokens
import tokenize
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import InputError, Ints
from evenhand.demo.cache import Arrays, cache_folder, keep, read_arrays

BUILDER = 2
CONTEXT = 8
CLASSES = 500
VOCABULARY = 4096
MIN_ROWS = 20
MIN_CLASSES = 20
HELD_OUT_SHARE = (0.1, 0.6)
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
PAD, OTHER = 0, 1

Progress = Callable[[int, int], None]

_LITERALS = {
    tokens.NUMBER: "<number>",
    tokens.STRING: "<string>",
    tokens.NEWLINE: "<newline>",
    tokens.INDENT: "<indent>",
    tokens.DEDENT: "<dedent>",
} | {number: "<string>" for number, name in tokens.tok_name.items() if name in ("FSTRING_START", "TSTRING_START")}


@dataclass(frozen=True)
class Rows:
    """Rows of the task: context (n, 8) int64 token numbers, target (n,) int64 class, file (n,) int64, row_id (n,)."""

    context: Ints
    target: Ints
    file: Ints
    row_id: Ints

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """The rows at these positions, or where a mask holds."""
        return Rows(self.context[index], self.target[index], self.file[index], self.row_id[index])


@dataclass(frozen=True)
class NextNames:
    """The data set: class names in alphabetical order, size of the context vocabulary, rows split by file."""

    class_names: tuple[str, ...]
    vocabulary: int
    train: Rows
    validation: Rows

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)


def source_files(root: Path) -> list[Path]:
    """The library's modules below ``root``, sorted, without test folders and installed packages."""
    found: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in SKIPPED_FOLDERS]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_tokens(path: Path) -> Iterator[tuple[int, str]]:
    """Kind and text of each token that carries meaning: literals by kind, comments and blank lines dropped."""
    with tokenize.open(path) as file:
        for kind, text, *_ in tokenize.generate_tokens(file.readline):
            if kind == tokens.NAME or kind == tokens.OP:
                yield kind, text
            elif kind in _LITERALS:
                yield kind, _LITERALS[kind]


def _number_files(root: Path, progress: Progress | None) -> tuple[list[NDArray[np.int32]], list[Path], list[str]]:
    """Each readable file as token numbers, its path, and the text of every number (2 and up; 0 is padding)."""
    numbers: dict[str, int] = {"": PAD, "<other>": OTHER}
    streams, kept = [], []
    files = source_files(root)
    for done, path in enumerate(files, start=1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stream = [numbers.setdefault(text, len(numbers)) for _, text in read_tokens(path)]
        except (OSError, SyntaxError, UnicodeError, tokenize.TokenError):
            stream = []
        if stream:
            streams.append(np.asarray(stream, dtype=np.int32))
            kept.append(path.relative_to(root))
        if progress:
            progress(done, len(files))
    return streams, kept, list(numbers)


def _is_validation(path: Path) -> bool:
    """Every fourth file, chosen by the hash of its path: the same files in every run and on every machine."""
    return hashlib.sha256(path.as_posix().encode()).digest()[0] % 4 == 0


def build(root: Path, *, classes: int = CLASSES, progress: Progress | None = None) -> Arrays:
    """Read the library below ``root`` and build the arrays of the data set.

    Returns:
        context (N, 8) uint16, target (N,) uint16, file (N,) uint16, validation (N,) bool, class_names (K,) text,
        vocabulary () int64. Rows are in file order. K is smaller than ``classes`` where the library is small: a class
        needs 20 rows, and between a tenth and six tenths of them in validation files: names that live in a few modules
        cannot be judged on others.

    Raises:
        InputError: fewer than 20 classes can be formed, for instance because only byte code is installed.
    """
    streams, paths, texts = _number_files(root, progress)
    padded = [np.concatenate([np.zeros(CONTEXT, np.int32), stream]) for stream in streams]
    flat = np.concatenate([np.zeros(CONTEXT, np.int32), *padded])
    file = np.concatenate([np.zeros(CONTEXT, np.int64), *(np.full(len(s), i) for i, s in enumerate(padded))])
    validation = np.array([_is_validation(path) for path in paths], dtype=bool)
    in_validation = validation[file] if len(paths) else np.zeros(len(file), bool)
    total = np.bincount(flat, minlength=len(texts))
    held_out = np.bincount(flat[in_validation], minlength=len(texts))
    low, high = HELD_OUT_SHARE
    eligible = [
        number
        for number in np.argsort(-total, kind="stable")
        if texts[number].isidentifier()
        and total[number] >= MIN_ROWS
        and low <= held_out[number] / total[number] <= high
    ]
    chosen = sorted((texts[number], int(number)) for number in eligible[:classes])
    if len(chosen) < MIN_CLASSES:
        raise InputError(
            f"The demo expected Python source files in {root}, but found only {len(chosen)} names frequent enough to "
            "learn; run it with a Python whose standard library is installed as source."
        )
    class_of = np.full(len(texts), -1, dtype=np.int64)
    class_of[[number for _, number in chosen]] = np.arange(len(chosen))
    position = np.flatnonzero(class_of[flat] >= 0)
    rank = np.full(len(texts), OTHER, dtype=np.uint16)
    order = np.argsort(-total[2:], kind="stable")[: VOCABULARY - 2] + 2
    rank[order] = np.arange(2, 2 + len(order))
    rank[PAD] = PAD
    windows = np.lib.stride_tricks.sliding_window_view(rank[flat], CONTEXT)
    return {
        "context": windows[position - CONTEXT],
        "target": class_of[flat[position]].astype(np.uint16),
        "file": file[position].astype(np.uint16),
        "validation": in_validation[position],
        "class_names": np.array([text for text, _ in chosen]),
        "vocabulary": np.array(2 + len(order)),
    }


def most_frequent(arrays: Arrays, classes: int) -> Arrays:
    """The data set restricted to its ``classes`` most frequent classes (all of them where it has no more)."""
    names = arrays["class_names"]
    if classes >= len(names):
        return arrays
    counts = np.bincount(arrays["target"], minlength=len(names))
    chosen = np.sort(np.argsort(-counts, kind="stable")[:classes])
    number = np.full(len(names), -1)
    number[chosen] = np.arange(classes)
    kept = number[arrays["target"]] >= 0
    rows = {name: arrays[name][kept] for name in ("context", "file", "validation")}
    target = number[arrays["target"][kept]].astype(np.uint16)
    return rows | {"target": target, "class_names": names[chosen], "vocabulary": arrays["vocabulary"]}


def _usable(arrays: Arrays | None) -> bool:
    """Whether cached arrays are a data set this version can use."""
    names = {"context", "target", "file", "validation", "class_names", "vocabulary"}
    if arrays is None or set(arrays) != names or arrays["vocabulary"].shape != ():
        return False
    n, k = len(arrays["target"]), len(arrays["class_names"])
    shapes = arrays["context"].shape == (n, CONTEXT) and arrays["file"].shape == arrays["validation"].shape == (n,)
    whole = all(arrays[name].dtype == np.uint16 for name in ("context", "target", "file"))
    if (
        not shapes
        or not whole
        or arrays["validation"].dtype != bool
        or arrays["class_names"].dtype.kind != "U"
        or n == 0
    ):
        return False
    return bool(arrays["target"].max() < k and arrays["context"].max() < arrays["vocabulary"] and k >= MIN_CLASSES)


def load(*, fresh: bool = False, progress: Progress | None = None) -> tuple[Arrays, str | None]:
    """The data set of this interpreter, from the cache or built anew.

    Returns:
        The arrays of :func:`build`, and None or one sentence saying why they could not be cached.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    where = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    version = ".".join(str(part) for part in sys.version_info[:3])
    name = f"next-names-{sys.implementation.name}-{version}-{where}-b{BUILDER}.npz"
    folder = cache_folder()
    cached = None if fresh or folder is None else read_arrays(folder / name)
    if cached is not None and _usable(cached):
        return cached, None
    arrays = build(root, progress=progress)
    return arrays, keep(folder, name, arrays)


def rank_in_class(target: Ints) -> Ints:
    """0 for the first row of its class, 1 for the second, and so on."""
    order = np.argsort(target, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(target))])
    rank = np.empty(len(target), dtype=np.int64)
    rank[order] = np.arange(len(target)) - start[target[order]]
    return rank


def draw(arrays: Arrays, *, rows: int, validation_rows: int, seed: int) -> NextNames:
    """Draw training and validation rows without replacement from their files.

    One training row of every class comes first, so that no class is unknown to the model; the rest is chance. The
    validation rows are drawn from the validation files with the class frequencies of the training files: files differ
    in the names they use, and a shifted prior is a fault of its own (``prior-shift``), not a part of the others.
    Fewer rows than asked for come where the library holds fewer.

    Raises:
        InputError: fewer training rows than classes, or no validation rows, are asked for.
    """
    names = tuple(arrays["class_names"].tolist())
    if rows < len(names) or validation_rows < 1:
        raise InputError(
            f"Expected at least {len(names)} training rows (one per class) and 1 validation row, got {rows} and "
            f"{validation_rows}; ask for more rows."
        )
    everything = Rows(
        arrays["context"].astype(np.int64),
        arrays["target"].astype(np.int64),
        arrays["file"].astype(np.int64),
        np.arange(len(arrays["target"])),
    )
    rng = np.random.default_rng([seed, BUILDER])
    train = rng.permutation(np.flatnonzero(~arrays["validation"]))
    held_out = rng.permutation(np.flatnonzero(arrays["validation"]))
    prior = np.bincount(everything.target[train], minlength=len(names))
    wanted = rng.multinomial(min(validation_rows, len(held_out)), prior / prior.sum())
    validation = np.sort(held_out[rank_in_class(everything.target[held_out]) < wanted[everything.target[held_out]]])
    first = np.unique(everything.target[train], return_index=True)[1]
    rest = np.delete(np.arange(len(train)), first)
    chosen = rng.permutation(train[np.concatenate([first, rest])[:rows]])
    return NextNames(
        names, int(arrays["vocabulary"]), everything.take(chosen), everything.take(rng.permutation(validation))
    )
