"""Tables: what is a feature, what is refused and how, and that nothing is learned from the valid rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from evenhand import cli
from evenhand.declared import InputError
from evenhand.training.encoding import load
from evenhand.training.splitting import held_out
from evenhand.training.tables import Columns, group_numbers, number_classes, read_frame

N = 120


def frame(**changes: object) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {
        "y": ["a"] * 80 + ["b"] * 30 + ["c"] * 10,
        "x": rng.normal(size=N),
        "flag": rng.random(N) < 0.5,
    } | changes
    return pl.DataFrame({name: values for name, values in columns.items() if values is not None}, strict=False)


def saved(folder: Path, table: pl.DataFrame, name: str = "rows.parquet") -> Path:
    path = folder / name
    table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_numbers_are_standardised_by_the_training_rows(tmp_path: Path, name: str) -> None:
    data = load(saved(tmp_path, frame(), name), Columns("y"))
    dense = data.train.inputs.dense
    np.testing.assert_allclose(dense.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(dense.std(0, correction=0), 1, atol=1e-5)
    assert data.class_names == ["a", "b", "c"]
    assert np.bincount(data.valid.target).tolist() == [24, 9, 3]
    assert len(data.train) == 84


def test_npz_arrays_are_columns_vectors_and_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "rows.npz"
    np.savez(path, y=np.arange(N) % 3, v=rng.normal(size=(N, 4)), s=rng.normal(size=(N, 5, 2)))
    data = load(path, Columns("y"))
    assert data.train.inputs.dense.shape[1] == 4
    assert data.train.inputs.sequence.values.shape[1] == 2
    assert set(data.train.inputs.sequence.lengths.tolist()) == {5}


def test_lists_are_sequences_of_their_own_length(tmp_path: Path) -> None:
    lists = [[float(i)] * (i % 4) for i in range(N)]
    data = load(saved(tmp_path, frame(s=lists, t=lists)), Columns("y"))
    assert set(data.train.inputs.sequence.lengths.tolist()) == {0, 1, 2, 3}
    assert any("empty sequence" in note for note in data.notes)


def test_texts_are_hashed_and_weighed(tmp_path: Path) -> None:
    words = ["red apple pie today", "green pear tree again", "blue plum jam always"]
    data = load(saved(tmp_path, frame(t=[words[i % 3] for i in range(N)])), Columns("y", text=("t",)))
    tokens = data.train.inputs.tokens
    assert data.train.buckets > int(tokens.values.max())
    norms = np.add.reduceat(tokens.weight.numpy() ** 2, tokens.start.numpy())
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    assert any("words and pairs of words" in note for note in data.notes)
    short = load(saved(tmp_path, frame(t=[words[i % 3].split()[0] for i in range(N)])), Columns("y", text=("t",)))
    assert any("letters" in note for note in short.notes)


def test_an_empty_text_is_told_and_kept(tmp_path: Path) -> None:
    texts = [None if i % 10 == 0 else "some words about it" for i in range(N)]
    data = load(saved(tmp_path, frame(t=texts)), Columns("y", text=("t",)))
    assert any("12 rows have no text" in note for note in data.notes)
    assert 0 in data.train.inputs.tokens.lengths.tolist()


def test_constant_columns_are_dropped_and_named(tmp_path: Path) -> None:
    data = load(saved(tmp_path, frame(same=[3.0] * N)), Columns("y"))
    assert data.train.inputs.dense.shape[1] == 2
    assert any("'same'" in note for note in data.notes)


def test_missing_numbers_become_the_median_if_asked(tmp_path: Path) -> None:
    x = [None if i % 7 == 0 else float(i % 5) for i in range(N)]
    path = saved(tmp_path, frame(x=x))
    data = load(path, Columns("y", impute=True))
    assert np.isfinite(data.train.inputs.dense.numpy()).all()
    assert any("18 missing numbers of 'x'" in note for note in data.notes)
    with pytest.raises(InputError, match="'x', but 18 are missing or NaN"):
        load(path, Columns("y"))


def test_groups_stay_together_and_every_class_stays_in_training(tmp_path: Path) -> None:
    group = [i // 6 for i in range(N)]
    data = load(saved(tmp_path, frame(g=group)), Columns("y", group="g"))
    assert set(np.unique(data.train.target)) == {0, 1, 2}
    assert data.train.inputs.dense.shape[1] == 2  # the group is no feature
    assert len(np.unique(data.group)) * 6 == len(data.group)


def test_classes_of_one_row_are_trained_and_said(tmp_path: Path) -> None:
    data = load(saved(tmp_path, frame(y=["a"] * 80 + ["b"] * 39 + ["once"])), Columns("y"))
    assert data.train.target.max() == 2
    assert data.valid.target.max() == 1
    assert any("1 of 3 classes have too few rows" in note for note in data.notes)


@pytest.mark.parametrize(
    ("changes", "group", "message"),
    [
        ({"y": [f"c{i}" for i in range(N)]}, None, "classes of several rows, .* each of the 120 has one"),
        ({"g": [1] * N}, "g", "several groups in 'g', .* all rows have one value"),
        ({"g": [0] * 80 + [1] * 40, "y": ["a"] * 80 + ["b"] * 40}, "g", "every group is the only one of a class"),
    ],
)
def test_why_no_row_can_be_held_out(
    tmp_path: Path, changes: dict[str, object], group: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(saved(tmp_path, frame(**changes)), Columns("y", group=group))


def test_a_split_column_is_followed(tmp_path: Path) -> None:
    split = ["Train"] * 60 + ["val"] * 60
    labels = ["a", "b", "c"] * 40
    data = load(saved(tmp_path, frame(y=labels, s=split)), Columns("y", split="s"))
    assert (len(data.train), len(data.valid)) == (60, 60)
    with pytest.raises(InputError, match="the values train and valid"):
        load(saved(tmp_path, frame(y=labels, s=["one"] * N)), Columns("y", split="s"))


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({}, {"label": "z"}, "a column 'z' in rows.parquet, found 'y', 'x', 'flag'"),
        ({"y": ["a"] * N}, {}, "at least two classes"),
        ({"y": ["a", None, *["a", "b"] * 59]}, {}, r"but 1 of the 120 rows of rows.parquet has none in 'y' \(.*: 1\)"),
        (
            {"y": [float("nan"), *[0.0, 1.0] * 59, None]},
            {},
            r"2 of the 120 rows .* have none .*: 0, 119\); remove them",
        ),
        ({"y": [1.0, 1e300] * 60}, {}, "numbers beyond"),
        ({"y": [0.5] * N}, {}, "fractions or NaN"),
        ({"x": [float("inf")] * N}, {}, "finite numbers in 'x'"),
        ({"name": ["n"] * N}, {}, "numbers in the column 'name'.*--text"),
        ({"x": [1.0] * N, "flag": None}, {}, "found only constants"),
        ({"x": None, "flag": None}, {}, "at least one feature column"),
        ({"t": [""] * N}, {"text": ("t",)}, "found only empty ones"),
        ({"t": [f"id{i}" for i in range(N)]}, {"text": ("t",), "label": "y"}, None),
        ({"s": [[1.0]] * N, "t": [[1.0, 2.0]] * N}, {}, "sequences of one length in a row"),
        ({"c": [f"v{i}" for i in range(N)]}, {"category": ("c",)}, None),
    ],
)
def test_unusable_tables_are_told(
    tmp_path: Path, changes: dict[str, object], columns: dict[str, object], message: str | None
) -> None:
    path = saved(tmp_path, frame(**changes))
    told = Columns(**({"label": "y"} | columns))
    if message is None:
        load(path, told)
        return
    with pytest.raises(InputError, match=message) as error:
        load(path, told)
    assert "\n" not in str(error.value)


def test_a_class_that_only_valid_rows_have_is_refused(tmp_path: Path) -> None:
    train = saved(tmp_path, frame())
    valid = saved(tmp_path, frame(y=["a"] * 60 + ["d"] * 60), "valid.parquet")
    with pytest.raises(InputError, match=r"but 1 has no training row: 'd'; leave its rows out"):
        load(train, Columns("y"), valid=valid)


@pytest.mark.parametrize(
    ("train", "valid", "missing"),
    [
        (["a", "b"], ["alpha", "b_something", "a"], "2 have no training row: 'alpha', 'b_something'"),
        (np.array([1, 44], np.uint8), np.array([1, 300]), "1 has no training row: '300'"),
        (np.array([0, 255], np.uint8), np.array([-1, 0]), "'-1'"),
        (np.array([1, 2]), ["1", "two"], "'two'"),
        (["1", "2"], np.array([1, 3]), "'3'"),
        (["true", "false"], np.array([0, 1]), "2 have no training row: '0', '1'"),
    ],
)
def test_classes_are_compared_in_full(train: Any, valid: Any, missing: str) -> None:
    """Cut to the type of the training labels, 'alpha' was 'a' and 300 was 44: judged by wrong classes, silently."""
    given = [part if isinstance(part, np.ndarray) else np.array(part, dtype=object) for part in (train, valid)]
    with pytest.raises(InputError, match=missing):
        number_classes(*given)


def test_numbers_and_their_text_are_one_class() -> None:
    names, y, y_valid = number_classes(np.array([10, 9, 9]), np.array(["9", "10"], dtype=object))
    assert (names, y.tolist(), y_valid.tolist()) == (["9", "10"], [1, 0, 0], [0, 1])
    names, y, y_valid = number_classes(np.array(["b", "a"], dtype=object), np.array(["a", "a"], dtype=object))
    assert (names, y.tolist(), y_valid.tolist()) == (["a", "b"], [1, 0], [0, 0])


def test_categories_of_both_files_are_the_same_whatever_their_type(tmp_path: Path) -> None:
    """Where one is missing, whole numbers are saved as fractions: '1.0' is no category of the training rows."""
    train = saved(tmp_path, frame(c=[1, 2, 3] * 40))
    valid = saved(tmp_path, frame(c=[1.0, 2.0, float("nan")] * 40), "valid.parquet")
    data = load(train, Columns("y", category=("c",)), valid=valid)
    seen = data.valid.inputs.dense[:, -3:] > 0
    np.testing.assert_array_equal(seen[:3], [[True, False, False], [False, True, False], [False, False, False]])


def test_rows_without_a_group_or_split_are_on_their_own(tmp_path: Path) -> None:
    groups = group_numbers(pl.DataFrame({"g": [float("nan"), float("nan"), None, 1.0, 1.0]}), "g")
    assert len(set(groups.tolist())) == 4
    split = ["train"] * 60 + ["valid"] * 50 + [None] * 10
    data = load(saved(tmp_path, frame(y=["a", "b"] * 60, s=split)), Columns("y", split="s"))
    assert "10 rows without a value in 's' are not used" in data.notes


@pytest.mark.parametrize("ending", ["parquet", "csv", "arrow", "feather"])
def test_brackets_in_a_name_are_no_pattern(tmp_path: Path, ending: str) -> None:
    for name, shift in (("p[1]", 0.0), ("p1", 100.0)):
        table, path = frame(x=np.arange(N) + shift, flag=None), tmp_path / f"{name}.{ending}"
        table.write_ipc(path) if ending in ("arrow", "feather") else saved(tmp_path, table, path.name)
    assert read_frame(tmp_path / f"p[1].{ending}", Columns("y"))["x"].min() == 0
    data = load(tmp_path / f"p1.{ending}", Columns("y"), valid=tmp_path / f"p[1].{ending}")
    assert data.valid.inputs.dense.mean() < -2


def test_a_header_in_a_file_with_brackets_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "p1.csv").write_text("x,y,y\n1,2,2\n")
    frame().write_csv(tmp_path / "p[1].csv")
    assert read_frame(tmp_path / "p[1].csv", Columns("y")).columns == ["y", "x", "flag"]


def test_valid_rows_need_the_same_columns(tmp_path: Path) -> None:
    train = saved(tmp_path, frame())
    valid = saved(tmp_path, frame(x=None), "valid.parquet")
    with pytest.raises(InputError, match=r"the column 'x' in valid\.parquet"):
        load(train, Columns("y"), valid=valid)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """The second label would be a feature otherwise, and the race would be won by reading it."""
    path = tmp_path / "rows.csv"
    path.write_text("x,y,y\n" + "\n".join(f"{i / 7},{i % 3},{i % 3}" for i in range(N)))
    with pytest.raises(InputError, match=r"different column names.*got 'y' twice"):
        load(path, Columns("y"))


def test_an_npz_that_is_none_does_not_recommend_to_unpickle(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match="damaged or another kind of file") as told:
        load(path, Columns("y"))
    assert "pickle" not in str(told.value)


@pytest.mark.parametrize("role", ["text", "category", "ignore", "group", "split"])
def test_the_class_is_nothing_else(role: str) -> None:
    """A class that is a feature too would tell itself."""
    options: dict[str, Any] = {role: "y" if role in ("group", "split") else ("y",)}
    with pytest.raises(InputError, match=f"got 'y' as --label and --{role}"):
        Columns("y", **options)
    assert Columns("y", text=("t",), group="t").group == "t"


def test_outputs_and_valid_rows_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, frame())
    (tmp_path / "there").mkdir()
    told = {
        ("--json", "there"): "there is a folder, expected a file to write",
        ("--html", "there"): "there is a folder, expected a file to write",
        ("--valid", "./rows.parquet"): "names the training rows",
        ("--remedies", ","): "expected names of remedies with commas, got ','",
    }
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK or "there" not in str(path))  # as root is not
    told["--html", "there/race.html"] = "cannot be written to"
    for options, message in told.items():
        assert cli.run(["race", "rows.parquet", "--label", "y", *options]) == 2
        assert message in capsys.readouterr().err


def test_one_class_is_named_as_a_reader_would(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found one, 1; check the label"):
        load(saved(tmp_path, frame(y=[1] * N)), Columns("y"))


def test_damaged_and_foreign_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no table")
    (tmp_path / "a.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "b.npz", y=np.array([object()]))
    np.savez(tmp_path / "c.npz", y=np.zeros(3), x=np.zeros(2))
    told = {
        "a.parquet": "to be a parquet table",
        "a.npz": "npz file of plain arrays",
        "b.npz": "npz file of plain arrays",
        "c.npz": "'x' has 2",
        "a.txt": "ending in",
    }
    for name, message in told.items():
        with pytest.raises(InputError, match=message):
            load(tmp_path / name, Columns("y"))
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.csv", Columns("y"))


@pytest.mark.parametrize("seed", range(5))
def test_held_out_rows_keep_groups_whole_and_classes_in_the_first_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 12, 300) ** 2 // 12
    group = rng.integers(0, 80, 300)
    chosen = held_out(y, group, share=0.3, seed=seed)
    assert not set(group[chosen]) & set(group[~chosen])
    assert set(y) == set(y[~chosen])
    assert 0.15 < chosen.mean() < 0.45


def test_the_command_races_on_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, pl.concat([frame()] * 4))
    monkeypatch.chdir(tmp_path)
    arguments = ["race", str(path), "--label", "y", "--remedies", "weighted", "--seeds", "2", "--budget", "20steps"]
    assert cli.run([*arguments, "--html", "race.html", "--json", "race.json"]) == 0
    told = capsys.readouterr()
    assert "rows.parquet · 336 training rows" in told.out
    assert "plain + correction" in told.out
    assert "█" not in told.err
    assert (tmp_path / "race.html").read_text().startswith("<!doctype html>")
    assert cli.run([*arguments, "--json", "-", "--out", "kept"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert cli.run([*arguments, "--goal", "accuracy", "--out", "kept"]) == 2
    assert "its goal: 'balanced-accuracy'" in capsys.readouterr().err
    assert cli.run(["race", str(path), "--label", "nope"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else real(name, *a))
    assert cli.run(["race", "rows.parquet", "--label", "y"]) == 2
    assert capsys.readouterr().err == (
        "evenhand: the race needs optuna, not installed here; pip install 'evenhand[training]'\n"
    )


def test_the_rarest_classes_are_in_both_halves() -> None:
    y = np.concatenate([np.zeros(100, np.int64), np.arange(1, 61)])
    chosen = held_out(y, np.arange(160), share=0.5, seed=0, keep_all=False)
    assert 15 < chosen[100:].sum() < 45
    assert not held_out(y, np.arange(160), share=0.5, seed=0)[100:].any()
