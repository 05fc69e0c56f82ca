"""The CIFAR-LT benchmark reads the binary version, cuts the published tails and runs its recipe end to end."""

import importlib
import json
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is no part of the installed package
cifar, data, net = (importlib.import_module(f"benchmarks.{name}") for name in ("cifar", "cifardata", "cifarnet"))


def written(folder, name, rows=40, seed=0):
    """Generated images in the binary format: the class is the brightness, so that it can be learned."""
    layout, rng = data.LAYOUTS[name], np.random.default_rng(seed)
    place = folder / layout.folder
    place.mkdir(parents=True)
    for file in (*layout.train, *layout.test):
        labels = np.arange(rows) % layout.classes
        image = rng.integers(0, 56, (rows, data.PIXELS)) + (labels * 199 // layout.classes)[:, None]
        coarse = [labels[:, None] // 5] if layout.label_bytes == 2 else []
        np.hstack([*coarse, labels[:, None], image]).astype(np.uint8).tofile(place / file)
    return folder


@pytest.mark.parametrize(("name", "files"), [("cifar10", 5), ("cifar100", 1)])
def test_the_binary_version_is_read(tmp_path, name, files):
    train, test = data.read(written(tmp_path, name, 200), name)
    assert train.pixels.shape == (200 * files, 3, 32, 32)
    assert test.labels.tolist() == (np.arange(200) % data.LAYOUTS[name].classes).tolist()
    again, _ = data.read(tmp_path / data.LAYOUTS[name].folder, name)  # the folder itself may be named, too
    assert (again.pixels == train.pixels).all()


def test_red_comes_before_green_and_rows_before_columns(tmp_path):
    folder = written(tmp_path, "cifar10", 10)
    record = np.zeros(3073, np.uint8)
    record[0], record[1 + 2 * 32 + 5], record[1 + 1024] = 7, 200, 99  # red at row 2, column 5; green at the corner
    record.tofile(folder / "cifar-10-batches-bin" / "test_batch.bin")
    _, test = data.read(folder, "cifar10")
    assert test.labels.tolist() == [7]
    assert (test.pixels[0, 0, 2, 5], test.pixels[0, 1, 0, 0]) == (200, 99)


def test_what_cannot_be_read_is_met_with_a_sentence(tmp_path):
    with pytest.raises(click.ClickException, match="found no such file"):
        data.read(tmp_path, "cifar10")
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04")
    with pytest.raises(click.ClickException, match="pickled and never read"):
        data.read(tmp_path, "cifar10")
    folder = written(tmp_path / "cut", "cifar10")
    path = folder / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(click.ClickException, match="whole records of 3073 bytes"):
        data.read(folder, "cifar10")


@pytest.mark.parametrize(
    ("largest", "classes", "factor", "total"),
    [(5000, 10, 100, 12_406), (5000, 10, 50, 13_996), (500, 100, 100, 10_847), (500, 100, 50, 12_608),
     (500, 100, 10, 19_573)],
)  # fmt: skip
def test_tails_have_the_published_sizes(largest, classes, factor, total):
    counts = data.long_tail_counts(largest, classes, factor)
    assert counts.sum() == total
    assert counts[0] == largest
    assert counts[-1] == largest / factor


def test_the_network_has_the_published_size():
    made = net.ResNet32(10)
    assert sum(p.numel() for p in made.parameters()) == 464_154
    convolutions = [m for m in made.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == 32
    assert made(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_augmented_images_are_shifted_and_mirrored_copies():
    pixels = torch.arange(32 * 32, dtype=torch.int32).reshape(1, 1, 32, 32).repeat(200, 3, 1, 1) + 1
    made = data.augmented(pixels, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(pixels[0, 0], (4, 4, 4, 4))
    windows = [padded[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    possible = {w.numpy().tobytes() for w in windows} | {w.flip(1).contiguous().numpy().tobytes() for w in windows}
    got = {image[0].contiguous().numpy().tobytes() for image in made}
    assert got <= possible
    assert len(got) > 80


def test_the_rate_follows_the_recipe():
    plan = cifar.Plan()
    told = [plan.rate(epoch) for epoch in (0, 4, 5, 159, 160, 179, 180, 199)]
    assert told == pytest.approx([0.02, 0.1, 0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5])


def test_the_whole_path_runs_on_generated_images(tmp_path):
    folder = written(tmp_path, "cifar10")
    options = ["--data", str(folder), "--imbalance", "4", "--epochs", "2", "--device", "cpu"]
    ran = CliRunner().invoke(cifar.command, [*options, "--remedy", "cross-entropy", "--remedy", "ldam-drw"])
    assert ran.exit_code == 0, ran.output
    machine, *lines = map(json.loads, ran.output.splitlines())
    assert machine["device"] == "cpu"
    assert [line["remedy"] for line in lines] == ["cross-entropy", "ldam-drw"]
    assert all(0 <= line["last"] <= line["best test epoch"] <= 100 for line in lines)
    assert lines[0]["train rows"] == data.long_tail_counts(20, 10, 4).sum()


def test_published_numbers_belong_to_remedies():
    for told in cifar.PUBLISHED.values():
        assert set(told) <= {*cifar.WAYS, "post-hoc"}
