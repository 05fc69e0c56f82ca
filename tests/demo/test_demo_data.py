from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand.declared import InputError
from evenhand.demo import data


def write_library(root: Path, files: int = 40) -> Path:
    """A small library: every file uses the same 30 names, name_k in about 1 of k places."""
    rng = np.random.default_rng(0)
    for i in range(files):
        folder = root / ("package" if i % 2 else "")
        folder.mkdir(exist_ok=True, parents=True)
        chosen = rng.choice(30, p=(p := 1 / np.arange(1, 31)) / p.sum(), size=400)
        (folder / f"module_{i}.py").write_text("\n".join(f"name_{k:02d} = {k}" for k in chosen))
    return root


def test_the_standard_library_is_a_long_tailed_task(arrays: dict[str, Any]) -> None:
    counts = np.sort(np.bincount(arrays["target"]))[::-1]
    assert len(counts) == len(arrays["class_names"]) <= 500
    assert counts[-1] >= data.MIN_ROWS
    assert counts[0] > 100 * counts[-1]
    assert counts[0] == np.sum(arrays["target"] == list(arrays["class_names"]).index("self"))
    assert list(arrays["class_names"]) == sorted(arrays["class_names"])
    assert {"self", "if", "def", "None"} <= set(arrays["class_names"])
    assert arrays["context"].max() < arrays["vocabulary"]


def test_no_file_is_on_both_sides(arrays: dict[str, Any]) -> None:
    held_out = arrays["validation"]
    assert not set(arrays["file"][held_out]) & set(arrays["file"][~held_out])
    assert 0.15 < held_out.mean() < 0.4


def test_contexts_are_the_tokens_before(tmp_path: Path) -> None:
    built = data.build(write_library(tmp_path))
    # "name = 3 <newline>": before every name but the first stand two whole lines, or padding.
    same_file = np.flatnonzero(np.diff(built["file"]) == 0)
    before, after = built["context"][same_file], built["context"][same_file + 1]
    np.testing.assert_array_equal(after[:, :4], before[:, 4:])
    one_number = {(int(t), int(c[4])) for t, c in zip(built["target"][same_file], after, strict=True)}
    assert len(one_number) == len({t for t, _ in one_number}) == len({c for _, c in one_number}) == 30
    first = np.flatnonzero(np.diff(built["file"], prepend=-1) != 0)
    assert np.all(built["context"][first] == data.PAD)


def test_building_is_deterministic_and_skips_what_is_not_the_library(tmp_path: Path) -> None:
    before = data.build(write_library(tmp_path))
    for name in ("test/test_x.py", "site-packages/big.py", "package/tests/t.py", "idle_test/i.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("another = 1\n" * 5000)
    (tmp_path / "broken.py").write_text("name_00 = '''never closed")
    (tmp_path / "binary.py").write_bytes(b"# coding: utf-8\nname_00 = '\xff\xfe'\n")
    after = data.build(tmp_path)
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_literals_count_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("# comment\n\nif x:\n    y = f(1, 2.5, 'a', b'b', f'{x}')\n")
    texts = [text for _, text in data.read_tokens(path)]
    assert texts[:6] == ["if", "x", ":", "<newline>", "<indent>", "y"]
    assert texts.count("<number>") == 2
    assert texts.count("<string>") == 3
    assert not any("comment" in text for text in texts)


def test_a_library_without_source_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="installed as source"):
        data.build(tmp_path)
    with pytest.raises(InputError, match="installed as source"):
        data.build(tmp_path / "missing")


def test_small_libraries_give_fewer_classes(tmp_path: Path) -> None:
    built = data.build(write_library(tmp_path))
    assert len(built["class_names"]) == 30
    task = data.draw(built, rows=10**9, validation_rows=10**9, seed=0)
    assert len(task.train) == np.sum(~built["validation"])
    assert 0 < len(task.validation) <= np.sum(built["validation"])


def test_drawing_is_deterministic_and_complete(arrays: dict[str, Any]) -> None:
    one, two, other = (data.draw(arrays, rows=3000, validation_rows=1000, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train.context, two.train.context)
    np.testing.assert_array_equal(one.validation.row_id, two.validation.row_id)
    assert not np.array_equal(one.train.row_id, other.train.row_id)
    assert np.bincount(one.train.target, minlength=one.classes).min() >= 1
    assert len(np.unique(one.train.row_id)) == len(one.train) == 3000
    assert not arrays["validation"][one.train.row_id].any()
    assert arrays["validation"][one.validation.row_id].all()
    with pytest.raises(InputError, match="ask for more rows"):
        data.draw(arrays, rows=10, validation_rows=1000, seed=0)


def test_validation_rows_follow_the_training_prior(arrays: dict[str, Any]) -> None:
    from evenhand.priors import prior_shift

    task = data.draw(arrays, rows=60_000, validation_rows=30_000, seed=0)
    train = np.bincount(task.train.target, minlength=task.classes).astype(np.float64)
    assert not prior_shift(np.bincount(task.validation.target, minlength=task.classes), train).present


def test_most_frequent_classes(arrays: dict[str, Any]) -> None:
    small = data.most_frequent(arrays, 50)
    counts = np.bincount(arrays["target"])
    assert len(small["class_names"]) == 50
    assert len(small["target"]) == np.sort(counts)[-50:].sum()
    names = arrays["class_names"][arrays["target"]]
    np.testing.assert_array_equal(small["class_names"][small["target"]], names[np.isin(names, small["class_names"])])
    assert data.most_frequent(arrays, 10_000) is arrays


def test_a_damaged_or_foreign_cache_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_library(tmp_path / "library")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data.sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    built, warning = data.load()
    (cached,) = (tmp_path / "cache" / "evenhand").iterdir()
    assert warning is None
    whole = cached.read_bytes()
    reads = []
    again, _ = data.load(progress=lambda done, total: reads.append(done))
    assert reads == []
    np.testing.assert_array_equal(again["context"], built["context"])
    cached.write_bytes(whole[: len(whole) // 2])
    again, _ = data.load(progress=lambda done, total: reads.append(done))
    assert len(reads) == 40
    assert cached.read_bytes() == whole
    np.savez(cached, context=np.zeros(3), target=np.zeros(3))
    np.testing.assert_array_equal(data.load()[0]["target"], built["target"])
    reads.clear()
    data.load(fresh=True, progress=lambda done, total: reads.append(done))
    assert len(reads) == 40
