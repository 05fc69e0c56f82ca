"""Inputs that a first user has at hand: other column names, rules for files, the wrong kind of file."""

import pickle

import numpy as np
import pytest

from evenhand import audit, audit_predictions, class_weights, from_arrays, open_predictions
from evenhand.cli import run
from evenhand.declared import InputError
from evenhand.files.fields import ALIASES, canonical

COUNTS = np.array([50, 30, 15, 5])


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    target = rng.permutation(np.repeat(np.arange(4), COUNTS))
    return {"logits": rng.normal(size=(100, 4)) + 2 * np.eye(4)[target], "target": target}


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def said(capsys, *arguments):
    assert run([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("evenhand: ").rstrip()


def audit_of(path):
    return audit_predictions(open_predictions(path))


@pytest.mark.parametrize(("true", "answer"), [("y_true", "y_pred"), ("label", "prediction"), ("Label", "Pred")])
def test_usual_names_of_columns_are_understood(tmp_path, predictions, true, answer):
    target, predicted = predictions["target"], predictions["logits"].argmax(axis=1)
    plain = audit(predicted=predicted, target=target)
    table = tmp_path / "val.csv"
    table.write_text("\n".join([f"{true},{answer}", *(f"{a},{b}" for a, b in zip(target, predicted, strict=True))]))
    arrays = save(tmp_path / "val.npz", **{true: target, answer: predicted})
    for path in (table, arrays):
        opened = open_predictions(path)
        edges = opened.edges()
        assert (opened.kind, opened.classes, int(edges.rows.sum())) == ("predicted", 4, 100)
        hits = int(edges.rows[edges.true == edges.predicted].sum())
        assert hits == round(100 * plain.metrics["accuracy"])


def test_the_documented_name_wins_over_the_others(tmp_path, predictions):
    other = np.zeros(100, np.int64)
    found = open_predictions(save(tmp_path / "val.npz", **predictions, y_true=other, label=other))
    np.testing.assert_array_equal(np.concatenate([b.target for b in found.blocks(64)]), predictions["target"])


def test_other_arrays_beside_scores_are_left_alone(tmp_path, predictions):
    path = save(
        tmp_path / "val.npz", **predictions, predictions=np.zeros((100, 7)), y_prob=np.zeros(3), pred=np.zeros(2)
    )
    assert audit_of(path).rows == 100


def test_two_names_for_one_thing_are_refused(tmp_path, predictions, capsys):
    target = predictions["target"]
    path = save(tmp_path / "val.npz", logits=predictions["logits"], y_true=target, label=target)
    assert "y_true and label may both be meant as target; give the right one the name target" in said(
        capsys, "audit", path
    )


def test_no_alias_stands_for_two_roles():
    every = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(every) == len(set(every))
    assert not set(every) & {"target", "predicted", "probs", "logits", "row_id"}
    assert canonical(["id", "text"]) == {}


def test_columns_without_labels_are_named(tmp_path, capsys):
    (tmp_path / "odd.csv").write_text("alpha,beta\n1,2\n")
    told = said(capsys, "audit", tmp_path / "odd.csv")
    assert "must hold target (or y_true, label), the true classes, but holds alpha, beta;" in told


def test_a_correction_keeps_no_stale_column_under_another_name(tmp_path, predictions):
    answer = np.zeros(100, np.int64)
    path = save(tmp_path / "val.npz", logits=predictions["logits"], label=predictions["target"], y_pred=answer)
    assert run(["fix", path, "-o", str(tmp_path / "fix.json")]) == 0
    assert run(["fix", "--apply", str(tmp_path / "fix.json"), path, "-o", str(tmp_path / "new.npz")]) == 0
    with np.load(tmp_path / "new.npz") as new:
        assert sorted(new) == ["config", "logits", "target"]
        np.testing.assert_array_equal(new["target"], predictions["target"])


def test_weights_may_be_named_by_their_rule(tmp_path, predictions, capsys):
    found = audit(**predictions, train_counts=COUNTS, class_weight="balanced")
    np.testing.assert_array_equal(found.declared.class_weight, class_weights(COUNTS, "balanced"))
    absent = audit(**predictions, train_counts=[50, 30, 15, 0], class_weight="sqrt").declared.class_weight
    assert absent[3] == 0
    bare, full = (
        save(tmp_path / n, **predictions, **m) for n, m in (("a.npz", {}), ("b.npz", {"train_counts": COUNTS}))
    )
    assert said(capsys, "audit", bare, "--class-weight", "balanced") == (
        "the weight rule balanced needs the training counts; pass them with --train-counts"
    )
    assert run(["audit", full, "--class-weight", "balanced", "--quiet"]) == 0
    assert "one of the rules balanced, " in said(capsys, "audit", full, "--class-weight", "balnced")
    assert "the weight rule power cannot be applied" in said(capsys, "audit", full, "--class-weight", "power")
    assert run(["tally", full, "-o", str(tmp_path / "b.tally.npz")]) == 0
    capsys.readouterr()
    assert run(["audit", str(tmp_path / "b.tally.npz"), "--class-weight", "balanced", "--quiet"]) == 0


def test_rates_of_rows_are_told_from_rates_of_classes(predictions):
    with pytest.raises(InputError, match=r"100 entries but .* 4 classes; give how often each class is drawn"):
        audit(**predictions, train_counts=COUNTS, sampler=np.ones(100))


@pytest.mark.parametrize("ending", ["npz", "npy", "parquet", "arrow", "safetensors"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_under_any_name_is_called_one(tmp_path, capsys, ending, protocol):
    path = tmp_path / f"val.{ending}"
    path.write_bytes(pickle.dumps({"logits": [1, 2]}, protocol=protocol))
    arguments = ("--logits", path, "--target", path) if ending == "npy" else (path,)
    assert f"val.{ending} is a Python pickle, which is never opened" in said(capsys, "audit", *arguments)


def test_other_files_under_a_wrong_name_are_named(tmp_path, predictions, capsys):
    np.save(tmp_path / "val.npy", predictions["logits"])
    (tmp_path / "val.npy").rename(tmp_path / "val.npz")
    assert "val.npz is an npy file, whatever its name says" in said(capsys, "audit", tmp_path / "val.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "may be cut short" in said(capsys, "audit", tmp_path / "cut.npz")


@pytest.mark.parametrize("command", ["audit", "fix", "tally"])
def test_a_tally_under_another_name_is_called_one(tmp_path, predictions, capsys, command):
    path = save(tmp_path / "val.npz", **predictions)
    assert run(["tally", path, "-o", str(tmp_path / "val.tally.npz")]) == 0
    (tmp_path / "val.tally.npz").rename(tmp_path / "renamed.npz")
    capsys.readouterr()
    more = ("-o", tmp_path / "x.tally.npz") if command == "tally" else ()
    assert "renamed.npz is a tally, which holds counts but no rows" in said(
        capsys, command, tmp_path / "renamed.npz", *more
    )


def test_a_folder_that_takes_no_files_is_told_by_the_name_given(tmp_path, predictions, capsys, monkeypatch):
    def refused(**options):
        name = f"{options['dir']}/{options['prefix']}abc{options['suffix']}"
        raise FileNotFoundError(2, "No such file or directory", name)

    path = save(tmp_path / "val.npz", **predictions)
    monkeypatch.setattr("evenhand.output.tempfile.mkstemp", refused)
    wanted = tmp_path / "report.html"
    assert said(capsys, "audit", path, "--html", wanted) == f"{wanted}: no such file or directory"


def test_class_frequencies_are_not_training_counts():
    arrays = {"predicted": [0, 1, 1, 2], "target": [0, 1, 2, 2]}
    with pytest.raises(
        InputError, match="sum to 1, as class frequencies do; multiply them by the number of training rows"
    ):
        from_arrays(**arrays, train_counts=[0.5, 0.3, 0.2])
    assert from_arrays(**arrays, train_counts=[1, 0, 0]).declared.train_counts.tolist() == [1, 0, 0]
