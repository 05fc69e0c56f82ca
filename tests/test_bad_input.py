"""Unusable input is told in one sentence: never another exception, never an unpickled object."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evenhand.declared import InputError
from evenhand.files import from_arrays, open_predictions, read_vector

LOGITS = np.linspace(-2, 2, 24, dtype=np.float32).reshape(8, 3)
TARGET = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def read_all(path: Path, **options: object) -> int:
    """Open and read everything, as an audit would."""
    predictions = open_predictions(path, **options)
    rows = sum(len(block.target) for block in predictions.blocks(5))
    predictions.edges()
    return rows


def one_sentence(error: InputError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 600
    assert not text.endswith(".")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target": TARGET[:5]}, "logits has 8 rows but target has 5"),
        ({"target": TARGET + 1}, "between 0 and 2.*row 2 is 3"),
        ({"target": TARGET - 1}, "negative.*row 0 is -1"),
        ({"target": TARGET + 0.5}, "whole class numbers.*row 0 is 0.5"),
        ({"target": np.where(TARGET == 1, np.nan, TARGET)}, "row 1 is nan"),
        ({"target": TARGET.astype(str)}, "must hold class numbers"),
        ({"target": TARGET.astype(complex)}, "must hold class numbers"),
        ({"target": TARGET[:, None]}, "one class number per row"),
        ({"target": None}, "must hold target"),
        ({"target": TARGET[:0], "logits": LOGITS[:0]}, "no rows"),
        ({"logits": None}, "must hold logits, probs or predicted"),
        ({"logits": LOGITS[:, 0]}, "two axes"),
        ({"logits": LOGITS[:, :1], "target": TARGET * 0}, "at least 2"),
        ({"logits": LOGITS.astype(int)}, "float16, float32 or float64"),
        ({"logits": LOGITS.astype(complex)}, "float16, float32 or float64"),
        ({"logits": LOGITS.astype(str)}, "float16, float32 or float64"),
        ({"logits": LOGITS.astype(np.longdouble)}, "float16, float32 or float64"),
        ({"row_id": TARGET[:3]}, "row_id has 3 rows"),
        ({"predicted": TARGET + 5}, "predicted must lie between 0 and 2"),
        ({"train_counts": [1, 2]}, "train_counts has 2 entries but the predictions have 3"),
        ({"train_counts": [1, 2, -1]}, "not negative"),
        ({"train_counts": [1, 2, np.inf]}, "finite"),
        ({"train_counts": [0, 0, 0]}, "zero in every class"),
        ({"train_counts": "abc"}, "vector of numbers"),
        ({"class_weight": [0.0, 0.0, 0.0]}, "zero in every class"),
        ({"class_weight": [1.0, -2.0, 1.0]}, "class 1 has -2"),
        ({"class_weight": [[1.0, 2.0, 1.0]]}, "vector of numbers"),
        ({"sampler_rate": [1.0, np.nan, 1.0]}, "sampler_rate must be finite"),
        ({"sampler_rate": [1.0, 1.0]}, "sampler_rate has 2 entries"),
        ({"class_names": ["a", "b"]}, "class_names has 2 entries"),
        ({"config": "{"}, "config must be a JSON object"),
        ({"config": "[1]"}, "config must be a JSON object"),
        ({"config": json.dumps({"label_smoothing": 1.5})}, "label_smoothing must be a number from 0"),
        ({"config": json.dumps({"batch_size": 2.5})}, "batch_size must be a positive integer"),
        ({"config": json.dumps({"reduction": "median"})}, "one of mean, sum, none"),
        ({"config": np.array(["{}", "{}"])}, "one JSON string"),
        ({"train_logits": LOGITS[:, :2], "train_target": TARGET % 2}, "training predictions have 2 classes"),
        ({"train_logits": LOGITS}, "training rows.*must hold target"),
    ],
)
def test_npz_contents_that_cannot_be_used(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    arrays = {"logits": LOGITS, "target": TARGET} | changes
    np.savez(tmp_path / "p.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=expected) as caught:
        read_all(tmp_path / "p.npz")
    one_sentence(caught.value)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("key", ["logits", "target", "class_names", "class_weight", "config", "unrelated"])
def test_objects_are_refused_and_never_unpickled(tmp_path: Path, key: str) -> None:
    mark = tmp_path / "executed"
    arrays = {"logits": LOGITS, "target": TARGET, key: np.array([Bomb(mark)], dtype=object)}
    np.savez(tmp_path / "p.npz", **arrays)
    np.save(tmp_path / "o.npy", arrays[key])
    with pytest.raises(InputError, match="never unpickled") as caught:
        read_all(tmp_path / "p.npz")
    one_sentence(caught.value)
    with pytest.raises(InputError, match="never unpickled"):
        read_vector(tmp_path / "o.npy")
    assert not mark.exists()
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "o.npy")
    np.load(tmp_path / "o.npy", allow_pickle=True)
    assert mark.exists(), "the bomb must be live, else this test proves nothing"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_short_at_any_byte(tmp_path: Path, save: object) -> None:
    whole = tmp_path / "whole.npz"
    save(whole, logits=LOGITS, target=TARGET)
    data = whole.read_bytes()
    for length in range(0, len(data) - 1, 7):
        cut = tmp_path / "cut.npz"
        cut.write_bytes(data[:length])
        with pytest.raises(InputError) as caught:
            read_all(cut)
        one_sentence(caught.value)


def test_an_npy_file_cut_short(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", TARGET)
    np.save(tmp_path / "z.npy", LOGITS)
    data = (tmp_path / "z.npy").read_bytes()
    (tmp_path / "z.npy").write_bytes(data[:-4])
    with pytest.raises(InputError, match=r"should hold 96 bytes of data but the file ends after 92"):
        open_predictions(logits=tmp_path / "z.npy", target=tmp_path / "y.npy")


def test_a_header_that_promises_more_than_memory(tmp_path: Path) -> None:
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }".ljust(117)
    )
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "p.npz", "w", compression) as archive:
            archive.writestr("logits.npy", header + b"\n" + bytes(64))
        with pytest.raises(InputError, match="should hold 4000000000000000 bytes"):
            read_all(tmp_path / "p.npz")


def test_paths_that_are_no_predictions(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", LOGITS)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(3))
    (tmp_path / "folder.npz").mkdir()
    for name, expected in {"p.pkl": "should end in", "folder.npz": "is a folder", "z.npy": "--logits Z.npy"}.items():
        with pytest.raises(InputError, match=expected) as caught:
            open_predictions(tmp_path / name)
        one_sentence(caught.value)
    for name in ("none.npz", "none.parquet", "none.csv", "none.safetensors", "none.arrow"):
        with pytest.raises(FileNotFoundError):
            open_predictions(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OSError, match="directory"):
        open_predictions(tmp_path / "folder.csv")


def frame(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"target": TARGET, "predicted": TARGET[::-1].copy()} | columns)


TABLES = {
    "wrong columns": (frame().rename({"target": "wahr"}), "must hold target.*but holds predicted, wahr"),
    "no scores": (frame().drop("predicted"), "must hold logits, probs or predicted"),
    "null target": (frame(target=[0, 1, None, 0, 1, 2, 0, 1]), r"target is empty \(null\) in row 2"),
    "null predicted": (frame(predicted=[0, 1, 2, 0, 1, 2, 0, None]), r"predicted is empty \(null\) in row 7"),
    "negative": (frame(target=TARGET - 1), "negative.*row 0 is -1"),
    "fraction": (frame(predicted=TARGET + 0.25), "predicted must hold whole class numbers"),
    "text": (frame(target=[str(label) for label in TARGET]), "column target must hold class numbers"),
    "one class": (frame(target=TARGET * 0, predicted=TARGET * 0), "at least 2"),
    "empty": (frame().head(0), "no rows"),
    "ragged": (frame(logits=[[0.0, 1.0, 2.0]] * 7 + [[0.0, 1.0]]), "must hold 3 scores in every row but row 7"),
    "null list": (frame(logits=[[0.0, 1.0, 2.0]] * 6 + [None, [0.0, 1.0, 2.0]]), "3 scores in every row but row 6"),
    "null score": (frame(logits=[[0.0, 1.0, 2.0]] * 7 + [[0.0, None, 1.0]]), r"\(null\) score in row 7"),
    "integer scores": (frame(logits=[[0, 1, 2]] * 8), "list of floating-point scores"),
    "flat scores": (frame(logits=[0.5] * 8), "list of floating-point scores"),
    "one score": (frame(logits=[[0.5]] * 8), "at least 2 classes"),
    "deep scores": (frame(logits=[[[0.5, 1.0]]] * 8), "list of floating-point scores"),
    "label too large": (frame(logits=[[0.5, 1.0]] * 8), "between 0 and 1.*row 2 is 2"),
    "gap in columns": (frame(logit_0=[0.5] * 8, logit_2=[0.5] * 8), "numbered 0 to K - 1"),
    "null in column": (frame(logit_0=[0.5] * 8, logit_1=[0.5] * 7 + [None], logit_2=[0.5] * 8), "logit_1 is empty"),
    "text in column": (frame(logit_0=[0.5] * 8, logit_1=["a"] * 8), "logit_1 must hold floating-point"),
    "integer columns": (frame(prob_0=[1] * 8, prob_1=[0] * 8), "prob_0 must hold floating-point"),
    "null row id": (frame(logits=[[0.5, 1.0, 2.0]] * 8, row_id=[None] + [1] * 7), "row_id is empty"),
}


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_table_contents_that_cannot_be_used(tmp_path: Path, case: str, ending: str) -> None:
    table, expected = TABLES[case]
    path = tmp_path / f"p.{ending}"
    table.write_parquet(path) if ending == "parquet" else table.write_ipc(path)
    with pytest.raises(InputError, match=expected) as caught:
        read_all(path)
    one_sentence(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("target,predicted\n", "no rows|must hold class numbers"),
        ("target,predicted\n0,1\n1,x\n", "predicted must hold class numbers"),
        ("target,predicted\n0,1\n1,1,7\n", "cannot be read"),
        ("target;predicted\n0;1\n", "must hold target"),
        ("target,predicted\n0,1\n1,\n", r"predicted is empty \(null\) in row 1"),
        ('target,logits\n0,"[1.0, 2.0]"\n', "list of floating-point scores"),
    ],
)
def test_csv_contents_that_cannot_be_used(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        read_all(tmp_path / "p.csv")
    one_sentence(caught.value)


def test_ignoring_every_row_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows are left"):
        from_arrays(logits=LOGITS, target=np.zeros(8, int), ignore_index=0)
    for ending in ("parquet", "csv"):
        path = tmp_path / f"p.{ending}"
        table = frame(target=[0] * 8)
        table.write_parquet(path) if ending == "parquet" else table.write_csv(path)
        with pytest.raises(InputError, match="no rows are left"):
            read_all(path, ignore_index=0)


def test_ragged_lists_of_arrays() -> None:
    with pytest.raises(InputError, match="logits is ragged"):
        from_arrays(logits=[[0.0, 1.0], [0.0]], target=[0, 1])
    with pytest.raises(InputError, match="ragged"):
        from_arrays(logits=LOGITS, target=TARGET, train_counts=[[1], [1, 2]])


def test_sampler_rules_need_counts() -> None:
    with pytest.raises(InputError, match="needs the training counts"):
        from_arrays(logits=LOGITS, target=TARGET, sampler="sqrt")


ENDINGS = ["npz", "npy", "parquet", "arrow", "csv", "tsv", "safetensors"]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def seeds(folder: Path) -> dict[str, bytes]:
    """A sound file of every kind, to be damaged."""
    from safetensors.numpy import save_file

    np.savez(folder / "s.npz", logits=LOGITS, target=TARGET, config="{}")
    np.save(folder / "s.npy", LOGITS)
    frame(logits=LOGITS).write_parquet(folder / "s.parquet")
    frame(logits=LOGITS).write_ipc(folder / "s.arrow")
    frame().write_csv(folder / "s.csv")
    frame().write_csv(folder / "s.tsv", separator="\t")
    save_file({"logits": LOGITS, "target": TARGET}, folder / "s.safetensors", metadata={"config": "{}"})
    return {ending: (folder / f"s.{ending}").read_bytes() for ending in ENDINGS}


def read_untrusted(path: Path) -> None:
    """Anything may be wrong with the file, but only clean errors may come out."""
    try:
        if path.suffix == ".npy":
            predictions = open_predictions(logits=path, target=path.with_name("y.npy"))
            sum(len(block.target) for block in predictions.blocks(3))
        else:
            read_all(path)
    except InputError as error:
        one_sentence(error)
    except OSError:
        pass


@FUZZ
@given(ending=st.sampled_from(ENDINGS), data=st.binary(max_size=200))
@example(ending="npz", data=b"PK\x05\x06" + bytes(18))
@example(ending="safetensors", data=b"\xff" * 8)
@example(ending="parquet", data=b"PAR1" + bytes(8) + b"PAR1")
def test_any_bytes_give_a_clean_error(tmp_path: Path, ending: str, data: bytes) -> None:
    np.save(tmp_path / "y.npy", TARGET)
    path = tmp_path / f"fuzz.{ending}"
    path.write_bytes(data)
    read_untrusted(path)


def test_a_panic_inside_a_reader_is_told_and_an_interrupt_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panic = type("PanicException", (BaseException,), {})
    frame().write_parquet(tmp_path / "p.parquet")
    for raised, expected in ((panic("range end index 9"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)):

        def fail(*args: object, raised: BaseException = raised, **options: object) -> None:
            raise raised

        monkeypatch.setattr(pl, "scan_parquet", fail)
        with pytest.raises(expected):
            open_predictions(tmp_path / "p.parquet")


@FUZZ
@given(
    ending=st.sampled_from(ENDINGS),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.none() | st.floats(0, 1),
)
def test_damaged_files_give_a_clean_error_or_numbers(
    tmp_path: Path, ending: str, damage: list[tuple[float, int]], cut: float | None
) -> None:
    if not (tmp_path / "s.npz").exists():
        seeds(tmp_path)
        np.save(tmp_path / "y.npy", TARGET)
    data = bytearray((tmp_path / f"s.{ending}").read_bytes())
    for place, value in damage:
        data[int(place * len(data))] = value
    path = tmp_path / f"damaged.{ending}"
    path.write_bytes(data if cut is None else data[: int(cut * len(data))])
    read_untrusted(path)


ANY_ARRAY = hnp.arrays(
    dtype=st.one_of(
        hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.boolean_dtypes(),
        hnp.complex_number_dtypes(), hnp.unicode_string_dtypes(max_len=3), hnp.byte_string_dtypes(max_len=3),
        hnp.datetime64_dtypes(),
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)  # fmt: skip


@FUZZ
@given(
    arrays=st.dictionaries(
        st.sampled_from(["logits", "probs", "predicted", "target", "row_id", "train_counts", "class_weight",
                         "sampler_rate", "class_names", "config", "train_logits", "train_target", "x"]),
        ANY_ARRAY, max_size=5,
    ),
    sound=st.booleans(),
    ignore_index=st.none() | st.integers(-2, 3),
)  # fmt: skip
def test_any_arrays_give_a_clean_error_or_numbers(
    tmp_path: Path, arrays: dict[str, np.ndarray], sound: bool, ignore_index: int | None
) -> None:
    if sound:
        arrays = {"logits": LOGITS, "target": TARGET} | arrays
    np.savez(tmp_path / "a.npz", **arrays)
    try:
        read_all(tmp_path / "a.npz", ignore_index=ignore_index)
    except InputError as error:
        one_sentence(error)


@FUZZ
@given(text=st.text(max_size=60), ending=st.sampled_from(["csv", "tsv", "txt", "json"]), names=st.booleans())
@example(text="[" * 5000, ending="json", names=False)
@example(text="[1e400, " + "9" * 5000 + "]", ending="json", names=False)
@example(text='{"0": 1, "2": 3}', ending="json", names=False)
def test_any_text_is_a_vector_or_a_clean_error(tmp_path: Path, text: str, ending: str, names: bool) -> None:
    path = tmp_path / f"v.{ending}"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        vector = read_vector(path, text=names)
    except InputError as error:
        one_sentence(error)
    else:
        assert vector.ndim == 1
        assert vector.size > 0
        assert vector.dtype.kind == "U" if names else vector.dtype.kind in "Uf"
