"""CIFAR-10 and CIFAR-100 in their binary version, and the long-tailed part of them that papers train on.

The "python version" of CIFAR is a set of pickles, and unpickling a downloaded file runs whatever it holds. The binary
version holds the same images as plain bytes: per image the label bytes, then 1,024 bytes each of red, green and blue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE, PLANES = 32, 3
PIXELS = PLANES * SIDE * SIDE
MEAN, SPREAD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Layout:
    """Where a data set lies in its folder; `label_bytes` before each image, the last of them is the class."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    classes: int


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-batches-bin", tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",), 1, 10
    ),
    "cifar100": Layout("cifar-100-binary", ("train.bin",), ("test.bin",), 2, 100),
}


@dataclass(frozen=True)
class Images:
    """pixels (N, 3, 32, 32) uint8 and labels (N,) int64."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Images:
        return Images(self.pixels[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


def read(folder: Path, name: str) -> tuple[Images, Images]:
    """Training and test images from `folder`, or from the subfolder that the archive unpacks to.

    Raises:
        click.ClickException: a file is missing, has the wrong size, or holds a class that the data set does not have.
    """
    layout = LAYOUTS[name]
    inside = folder / layout.folder
    place = inside if inside.is_dir() else folder
    return _read(place, layout.train, layout), _read(place, layout.test, layout)


def _read(place: Path, files: tuple[str, ...], layout: Layout) -> Images:
    record = layout.label_bytes + PIXELS
    pieces = []
    for file in files:
        path = place / file
        if not path.is_file():
            pickled = " This looks like the python version, which is pickled and never read." * _is_pickled(place)
            raise click.ClickException(
                f"expected {file} of CIFAR's binary version in {place}, found no such file.{pickled} Unpack "
                f"{layout.folder} there."
            )
        data = np.fromfile(path, np.uint8)
        if not len(data) or len(data) % record:
            raise click.ClickException(
                f"expected {path.name} to hold whole records of {record} bytes, got {len(data)}; download it again"
            )
        pieces.append(data.reshape(-1, record))
    rows = np.concatenate(pieces)
    labels = rows[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= layout.classes:
        raise click.ClickException(
            f"expected classes below {layout.classes}, got {labels.max()} in {place}; is it the other CIFAR?"
        )
    return Images(rows[:, layout.label_bytes :].reshape(-1, PLANES, SIDE, SIDE), labels)


def _is_pickled(place: Path) -> bool:
    return any((place / name).exists() for name in ("data_batch_1", "train", "cifar-10-batches-py", "cifar-100-python"))


def long_tail_counts(largest: float, classes: int, factor: float) -> NDArray[np.int64]:
    """(K,) ``n_k = floor(n_max IF^(-k / (K - 1)))``, classes in label order, as Cao et al. (2019) have it.

    Example:
        >>> int(long_tail_counts(5000, 10, 100).sum()), int(long_tail_counts(500, 100, 100).sum())
        (12406, 10847)
    """
    k = np.arange(classes)
    return np.floor(largest * factor ** (-k / (classes - 1.0)) + 1e-9).astype(np.int64)


def long_tailed(images: Images, classes: int, factor: float, seed: int) -> Images:
    """A long tail cut from balanced images: of every class a random part of the size that its number asks for."""
    wanted = long_tail_counts(len(images) / classes, classes, factor)
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(np.flatnonzero(images.labels == k))[: wanted[k]] for k in range(classes)]
    return images.take(np.concatenate(kept))


def normalised(pixels: Tensor) -> Tensor:
    """(N, 3, 32, 32) float32 with the mean and spread that papers use."""
    mean, spread = (torch.tensor(v, device=pixels.device).view(1, PLANES, 1, 1) for v in (MEAN, SPREAD))
    return (pixels.float() / 255 - mean) / spread


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 4 pixels, black outside, and mirrored with probability one half."""
    n, device = len(pixels), pixels.device
    shift = torch.randint(0, 9, (2, n, 1), generator=generator).to(device)
    flip = (torch.rand(n, 1, generator=generator) < 0.5).to(device)
    steps = torch.arange(SIDE, device=device)
    across = torch.where(flip, SIDE - 1 - steps, steps)
    padded = torch.nn.functional.pad(pixels, (4, 4, 4, 4))
    rows, columns = (steps + shift[0])[:, None, :, None], (across + shift[1])[:, None, None, :]
    each, plane = torch.arange(n, device=device).view(n, 1, 1, 1), torch.arange(PLANES, device=device).view(1, -1, 1, 1)
    return padded[each, plane, rows, columns]
