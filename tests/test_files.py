"""Every format gives back the rows that were saved, whichever way they are asked for."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.declared import InputError
from evenhand.files import Predictions, from_arrays, open_predictions, read_vector
from evenhand.files.edges import DENSE_CLASSES, EdgeCounter

N, K = 203, 7
RNG = np.random.default_rng(7)
LOGITS = RNG.normal(size=(N, K)).astype(np.float32)
TARGET = RNG.integers(0, K, N)


def save_npz(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    np.savez(path / "p.npz", logits=logits, target=target)
    return open_predictions(path / "p.npz", ignore_index=IGNORED)


def save_compressed(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    np.savez_compressed(path / "p.npz", logits=logits, target=target)
    return open_predictions(path / "p.npz", ignore_index=IGNORED)


def save_fortran(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    np.savez(path / "p.npz", logits=np.asfortranarray(logits), target=target.astype(np.uint8))
    return open_predictions(path / "p.npz", ignore_index=IGNORED)


def save_big_endian(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    np.savez(path / "p.npz", logits=logits.astype(logits.dtype.newbyteorder(">")), target=target.astype(">i4"))
    return open_predictions(path / "p.npz", ignore_index=IGNORED)


def save_unaligned(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    """Members of other lengths before the scores, so that they start at an odd byte of the file."""
    np.savez(path / "q.npz", logits=logits, target=target)
    with zipfile.ZipFile(path / "q.npz") as old, zipfile.ZipFile(path / "p.npz", "w") as new:
        new.writestr("x.txt", b"abc")
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return open_predictions(path / "p.npz", ignore_index=IGNORED)


def save_npy(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    np.save(path / "z.npy", logits)
    np.save(path / "y.npy", target.astype(float))
    return open_predictions(logits=path / "z.npy", target=path / "y.npy", ignore_index=IGNORED)


def save_safetensors(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    from safetensors.numpy import save_file

    save_file({"logits": logits, "target": target}, path / "p.safetensors")
    return open_predictions(path / "p.safetensors", ignore_index=IGNORED)


def table(logits: np.ndarray, target: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"target": target, "logits": logits})


def save_parquet(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    table(logits, target).write_parquet(path / "p.parquet", row_group_size=50)
    return open_predictions(path / "p.parquet", ignore_index=IGNORED)


def save_list_parquet(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    lists = table(logits, target).with_columns(pl.col("logits").arr.to_list())
    lists.write_parquet(path / "p.pq", row_group_size=50)
    return open_predictions(path / "p.pq", ignore_index=IGNORED)


def save_wide_parquet(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    wide = {f"logit_{k}": logits[:, k] for k in reversed(range(K))}
    pl.DataFrame({"target": target, **wide}).write_parquet(path / "p.parquet")
    return open_predictions(path / "p.parquet", ignore_index=IGNORED)


def save_arrow(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    table(logits, target).write_ipc(path / "p.arrow")
    return open_predictions(path / "p.arrow", ignore_index=IGNORED)


def save_csv(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    wide = {f"logit_{k}": logits[:, k].astype(np.float64) for k in range(K)}
    pl.DataFrame({"target": target, **wide}).write_csv(path / "p.csv")
    return open_predictions(path / "p.csv", ignore_index=IGNORED)


def in_memory(path: Path, logits: np.ndarray, target: np.ndarray) -> Predictions:
    torch = pytest.importorskip("torch")
    return from_arrays(logits=torch.from_numpy(logits).requires_grad_(), target=target.tolist(), ignore_index=IGNORED)


IGNORED = 3
SAVERS = [save_npz, save_compressed, save_fortran, save_big_endian, save_unaligned, save_npy, save_safetensors,
          save_parquet, save_list_parquet, save_wide_parquet, save_arrow, save_csv, in_memory]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_every_format_gives_the_rows_back(
    tmp_path: Path, save: Callable[..., Predictions], dtype: type, rows: int
) -> None:
    logits = LOGITS.astype(dtype)
    predictions = save(tmp_path, logits, TARGET)
    assert (predictions.kind, predictions.classes) == ("logits", K)
    assert predictions.declared.ignore_index == IGNORED
    blocks = list(predictions.blocks(rows))
    assert max(len(block.target) for block in blocks) <= rows
    kept = TARGET != IGNORED
    np.testing.assert_array_equal(np.concatenate([block.scores for block in blocks]), logits[kept])
    np.testing.assert_array_equal(np.concatenate([block.target for block in blocks]), TARGET[kept])
    np.testing.assert_array_equal(np.concatenate([block.row_id for block in blocks]), np.flatnonzero(kept))
    for block in blocks:
        assert block.scores.flags.c_contiguous
        assert block.scores.flags.aligned
        assert block.scores.dtype.isnative
        assert block.target.dtype == block.row_id.dtype == np.int64
        assert block.predicted is None
    assert predictions.edges() is None
    assert predictions.rows in (None, int(kept.sum()))
    if predictions.random_access:
        assert predictions.positions == N
        span = predictions.span(50, 90)
        np.testing.assert_array_equal(span.scores, logits[50:90][kept[50:90]])
    else:
        assert predictions.span(0, 1) is None


def test_scores_in_an_uncompressed_npz_stay_on_disk(tmp_path: Path) -> None:
    predictions = save_unaligned(tmp_path, LOGITS, TARGET)
    base = predictions.source.scores
    assert isinstance(base, np.memmap)
    assert not base.flags.aligned, "the case this test is for"
    # ZIP64 members, as numpy.savez writes them, carry an extra field in the local header only.
    assert isinstance(save_npz(tmp_path, LOGITS, TARGET).source.scores, np.memmap)


def test_large_compressed_members_go_through_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenhand.files.containers.IN_MEMORY", 100)
    predictions = save_compressed(tmp_path, LOGITS, TARGET)
    assert isinstance(predictions.source.scores, np.memmap)
    np.testing.assert_array_equal(predictions.span(0, N).scores, LOGITS[TARGET != IGNORED])


def test_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    logits = torch.from_numpy(LOGITS).bfloat16()
    save_file({"logits": logits, "target": torch.from_numpy(TARGET)}, tmp_path / "p.safetensors")
    for predictions in (open_predictions(tmp_path / "p.safetensors"), from_arrays(logits=logits, target=TARGET)):
        scores = predictions.span(10, 30).scores
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, logits.float().numpy()[10:30])


def test_everything_an_npz_can_declare(tmp_path: Path) -> None:
    config = {"loss": "focal", "label_smoothing": 0.1, "reduction": "mean", "batch_size": 64, "gamma": 2.0, "epochs": 9}
    np.savez(
        tmp_path / "p.npz",
        logits=LOGITS,
        predicted=TARGET[::-1],
        target=TARGET,
        row_id=np.arange(N)[::-1],
        train_counts=np.arange(K) * 100,
        class_weight=[0.0, np.nan, np.inf],
        sampler_rate=np.ones(K),
        class_names=np.array(list("abcdefa")),
        config=json.dumps(config),
        train_logits=LOGITS[:50],
        train_target=TARGET[:50],
    )
    predictions = open_predictions(tmp_path / "p.npz")
    declared = predictions.declared
    np.testing.assert_array_equal(declared.train_counts, np.arange(K) * 100)
    np.testing.assert_array_equal(declared.class_weight, [0.0, np.nan, np.inf])
    np.testing.assert_array_equal(declared.sampler_rate, np.ones(K))
    assert declared.class_names == tuple("abcdefa")
    assert (declared.loss, declared.label_smoothing, declared.reduction) == ("focal", 0.1, "mean")
    assert (declared.batch_size, declared.gamma, declared.extra) == (64, 2.0, {"epochs": 9})
    assert predictions.train.rows == 50
    np.testing.assert_array_equal(predictions.train.span(0, 50).scores, LOGITS[:50])
    block = predictions.span(0, N)
    np.testing.assert_array_equal(block.predicted, TARGET[::-1])
    np.testing.assert_array_equal(block.row_id, np.arange(N)[::-1])


def test_options_override_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", probs=LOGITS, target=TARGET, train_counts=np.ones(K), class_weight=np.ones(K),
             config=json.dumps({"gamma": 1.0, "loss": "focal"}))  # fmt: skip
    np.save(tmp_path / "z.npy", LOGITS[:, :5])
    np.save(tmp_path / "y.npy", TARGET % 5)
    (tmp_path / "counts.csv").write_text("count\n" + "\n".join("4916253"))
    predictions = open_predictions(
        tmp_path / "p.npz",
        train_counts=tmp_path / "counts.csv",
        class_weight=[1, 2, 3],
        sampler="sqrt",
        config={"gamma": 2.5},
    )
    counts = np.array([4, 9, 1, 6, 2, 5, 3.0])
    np.testing.assert_array_equal(predictions.declared.train_counts, counts)
    np.testing.assert_array_equal(predictions.declared.class_weight, [1, 2, 3])
    np.testing.assert_allclose(predictions.declared.sampler_rate, np.sqrt(counts) / np.sqrt(counts).sum())
    assert (predictions.kind, predictions.declared.gamma, predictions.declared.loss) == ("probs", 2.5, "focal")
    other = open_predictions(
        tmp_path / "p.npz", logits=tmp_path / "z.npy", target=tmp_path / "y.npy", train_counts=np.ones(5)
    )
    assert (other.kind, other.classes) == ("logits", 5)


def test_balanced_sampler_draws_present_classes_alike() -> None:
    rate = from_arrays(
        logits=LOGITS, target=TARGET, train_counts=[5, 0, 9, 1, 1, 0, 1], sampler="balanced"
    ).declared.sampler_rate
    np.testing.assert_allclose(rate, np.array([1, 0, 1, 1, 1, 0, 1]) / 5)


def test_kind_is_named_not_guessed() -> None:
    probs = np.full((4, 3), 1 / 3)
    assert from_arrays(probs=probs, target=[0, 1, 2, 0]).kind == "probs"
    assert from_arrays(logits=probs, target=[0, 1, 2, 0]).kind == "logits"
    both = from_arrays(probs=probs, logits=probs, predicted=[0, 0, 0, 0], target=[0, 1, 2, 0])
    assert both.kind == "logits"
    assert both.edges() is None


@pytest.mark.parametrize(
    ("extra", "classes"), [({}, 6), ({"class_names": list("abcdefgh")}, 8), ({"train_counts": np.ones(9)}, 9)]
)
def test_number_of_classes_of_labels_alone(tmp_path: Path, extra: dict[str, object], classes: int) -> None:
    target, predicted = [0, 3, 1], [5, 0, 0]
    assert from_arrays(predicted=predicted, target=target, **extra).classes == classes
    pl.DataFrame({"target": target, "predicted": predicted}).write_parquet(tmp_path / "p.parquet")
    assert open_predictions(tmp_path / "p.parquet", **extra).classes == classes


LABELS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(pairs=LABELS, large=st.booleans(), pieces=st.integers(1, 5))
def test_edges_are_the_sparse_confusion_matrix(pairs: list[tuple[int, int]], large: bool, pieces: int) -> None:
    scale = 400 if large else 1
    true, predicted = (np.array(pairs, dtype=np.int64) * scale).T
    classes = 10 * scale
    assert (classes > DENSE_CLASSES) == large
    counter = EdgeCounter(classes)
    for part in np.array_split(np.arange(len(true)), pieces):
        counter.add(true[part], predicted[part])
    edges = counter.edges()
    expected: dict[tuple[int, int], int] = {}
    for pair in zip(true.tolist(), predicted.tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    assert (
        dict(zip(zip(edges.true.tolist(), edges.predicted.tolist(), strict=True), edges.rows.tolist(), strict=True))
        == expected
    )
    assert (np.diff(edges.true.astype(np.int64) * classes + edges.predicted) > 0).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999), classes=st.sampled_from([DENSE_CLASSES + 1, 5_000, 65_536, 65_537, 3_000_000]),
    rows=st.integers(0, 400), cuts=st.integers(1, 6), pending=st.sampled_from([1, 2, 17, 1 << 12]),
)  # fmt: skip
def test_slices_merge_to_the_same_edges(seed: int, classes: int, rows: int, cuts: int, pending: int) -> None:
    rng = np.random.default_rng(seed)
    some = rng.integers(0, classes, 12)
    some[:2] = 0, classes - 1
    true, predicted = rng.choice(some, (2, rows))
    keys, counts = np.unique(true * classes + predicted, return_counts=True)
    counter = EdgeCounter(classes, pending=pending)
    for part in np.array_split(np.arange(rows), cuts):
        counter.add(true[part], predicted[part])
        counter.edges()  # looking does not change what is counted
    for edges in (counter.edges(), counter.edges()):
        np.testing.assert_array_equal(edges.true.astype(np.int64) * classes + edges.predicted, keys)
        np.testing.assert_array_equal(edges.rows, counts)
        assert [x.dtype for x in edges] == [np.int32, np.int32, np.int64]


def test_more_rows_than_four_bytes_count() -> None:
    counter = EdgeCounter(5_000)
    for _ in range(3):
        counter._put(np.array([1, 7], np.uint32), np.array([3, 1 << 31]))
    edges = counter.edges()
    assert (edges.true.tolist(), edges.predicted.tolist(), edges.rows.tolist()) == ([0, 0], [1, 7], [9, 3 << 31])


def test_names_nobody_reads_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "misspelt.npz"
    np.savez(path, logits=LOGITS, label=TARGET, weights=np.ones(7), **{"a\nb": TARGET})
    for _ in range(2):
        open_predictions(path, ignore_index=IGNORED)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(
        "misspelt.npz holds 'weights', 'a\\nb', which evenhand does not read; the names it reads are"
    )
    assert "class_weight, sampler_rate" in said
    assert "\n" not in said
    caplog.clear()
    np.savez(path, logits=LOGITS, target=TARGET, class_names=np.array(list("abcdefg")), config="{}")
    open_predictions(path, ignore_index=IGNORED)
    assert not caplog.records


@pytest.mark.parametrize("classes", [40, 5_000, 70_000])
@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "npz"])
@pytest.mark.parametrize("ignore_index", [None, 0, -100])
def test_edges_agree_between_formats(tmp_path: Path, classes: int, ending: str, ignore_index: int | None) -> None:
    rng = np.random.default_rng(classes)
    target = rng.integers(0, classes, 3_000)
    predicted = np.where(rng.random(3_000) < 0.5, target, rng.integers(0, classes, 3_000))
    target[0] = predicted[0] = classes - 1
    if ignore_index is not None:
        target[5:50] = ignore_index
    path = tmp_path / f"p.{ending}"
    frame = pl.DataFrame({"target": target, "predicted": predicted})
    {"parquet": frame.write_parquet, "arrow": frame.write_ipc, "csv": frame.write_csv}.get(
        ending, lambda path: np.savez(path, target=target, predicted=predicted)
    )(path)
    predictions = open_predictions(path, ignore_index=ignore_index)
    assert (predictions.kind, predictions.classes) == ("predicted", classes)
    kept = np.ones(3_000, bool) if ignore_index is None else target != ignore_index
    code, rows = np.unique(target[kept] * classes + predicted[kept], return_counts=True)
    edges = predictions.edges()
    np.testing.assert_array_equal(edges.true.astype(np.int64) * classes + edges.predicted, code)
    np.testing.assert_array_equal(edges.rows, rows)
    assert predictions.rows == rows.sum()
    blocks = list(predictions.blocks(500))
    assert all(block.scores is None for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block.predicted for block in blocks]), predicted[kept])


def test_given_row_ids_of_a_table(tmp_path: Path) -> None:
    ids = np.arange(N)[::-1] * 10
    table(LOGITS, TARGET).with_columns(row_id=pl.Series(ids)).write_parquet(tmp_path / "p.parquet")
    blocks = open_predictions(tmp_path / "p.parquet").blocks(50)
    np.testing.assert_array_equal(np.concatenate([block.row_id for block in blocks]), ids)


def test_training_predictions_from_another_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", logits=LOGITS[:20], target=TARGET[:20])
    save_parquet(tmp_path, LOGITS, TARGET)
    predictions = open_predictions(tmp_path / "p.parquet", train=tmp_path / "t.npz", ignore_index=IGNORED)
    assert predictions.train.rows == int((TARGET[:20] != IGNORED).sum())
    np.savez(tmp_path / "t.npz", logits=LOGITS[:20, :6], target=TARGET[:20] % 6)
    with pytest.raises(InputError, match="training predictions have 6 classes"):
        open_predictions(tmp_path / "p.parquet", train=tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("v.csv", "3\n4\n5\n", [3.0, 4.0, 5.0]),
        ("v.csv", "weight\n3\n4.5\n", [3.0, 4.5]),
        ("v.csv", "3,4,5", [3.0, 4.0, 5.0]),
        ("v.csv", "class_name\ncat\n\"dog, small\"\n", ["cat", "dog, small"]),
        ("v.tsv", "1\t2\n", [1.0, 2.0]),
        ("v.txt", "1\n2\n\n", [1.0, 2.0]),
        ("v.txt", "1, 2 3", [1.0, 2.0, 3.0]),
        ("v.txt", "big cat\nsmall dog\n", ["big cat", "small dog"]),
        ("v.txt", "nan\ninf\n", [np.nan, np.inf]),
        ("v.json", "[1, 2.5, NaN]", [1.0, 2.5, np.nan]),
        ("v.json", '["a", "b"]', ["a", "b"]),
        ("v.json", json.dumps({str(k): "abcdefghijk"[k] for k in (10, 2, 0, 1, *range(3, 10))}), list("abcdefghijk")),
    ],
)  # fmt: skip
def test_vectors_of_text_files(tmp_path: Path, name: str, content: str, expected: list[object]) -> None:
    (tmp_path / name).write_text(content)
    np.testing.assert_array_equal(read_vector(tmp_path / name), expected)


def test_vectors_of_binary_files(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(3))
    np.savez(tmp_path / "v.npz", weight=np.arange(3))
    pl.DataFrame({"n": [0, 1, 2]}).write_parquet(tmp_path / "v.parquet")
    for ending in ("npy", "npz", "parquet"):
        np.testing.assert_array_equal(read_vector(tmp_path / f"v.{ending}"), [0.0, 1.0, 2.0])
    np.save(tmp_path / "n.npy", np.array([b"caf\xc3\xa9", b"b"]))
    pl.DataFrame({"n": ["café", "b"]}).write_parquet(tmp_path / "n.parquet")
    for ending in ("npy", "parquet"):
        np.testing.assert_array_equal(read_vector(tmp_path / f"n.{ending}"), ["café", "b"])


def test_names_that_look_like_numbers_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("007\n1e3\n")
    assert read_vector(tmp_path / "names.txt", text=True).tolist() == ["007", "1e3"]
    declared = from_arrays(predicted=[0, 1], target=[0, 1], class_names=tmp_path / "names.txt").declared
    assert declared.class_names == ("007", "1e3")
