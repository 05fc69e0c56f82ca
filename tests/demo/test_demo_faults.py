from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evenhand.declared import InputError
from evenhand.demo import make_predictions, output_stem, planting, run_demo
from evenhand.demo.cache import write_arrays
from evenhand.demo.planting import FAULTS, Saved
from evenhand.files import open_predictions

pytest.importorskip("torch")

QUIET = Console(stderr=True, quiet=True)
CLASSES, ROWS = 50, 1000
CAUSES = """healthy argmax-amplification class-weights partial-weights sampler double-correction inverted-weights
    misordered-weights incomplete-weights foreign-weights padding-class smoothing-with-weights bounded-logits
    double-softmax batch-softmax permuted-labels misaligned-rows prior-shift tail-overfit tied-logits masked-classes
    collapsed confused-pairs unexplained"""


def tiny(name: str, **options: object) -> Saved:
    return make_predictions(
        name,
        err=QUIET,
        epochs=1,
        rows=2000,
        validation_rows=ROWS,
        classes=CLASSES,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_leaves_a_valid_predictions_file(name: str, tmp_path: Path) -> None:
    saved = tiny(name)
    write_arrays(tmp_path / "demo.npz", saved)
    opened = open_predictions(tmp_path / "demo.npz")
    extra = int(name == "padding-class")
    assert opened.classes == CLASSES + extra
    assert opened.kind == ("probs" if name == "batch-softmax" else "logits")
    assert opened.rows == len(saved["target"]) > 0
    declared = opened.declared
    assert declared.class_names is not None
    assert len(set(declared.class_names)) == opened.classes
    assert declared.train_counts is not None
    assert declared.train_counts.min() >= 1
    assert declared.loss == "cross-entropy"
    assert (declared.class_weight is not None) == (FAULTS[name].weight is not None)
    assert (declared.sampler_rate is not None) == FAULTS[name].recipe.sampler
    assert (opened.train is not None) == FAULTS[name].train_logits
    assert name not in json.loads(str(saved["config"]))
    assert len(np.unique(saved["row_id"])) == len(saved["row_id"])


def test_every_cause_of_the_design_is_planted_or_named() -> None:
    causes = set(planting.FAULTS) - {"none"} | set(planting.NOT_PLANTED)
    assert causes == set(CAUSES.split())
    assert planting.find_fault("healthy") is FAULTS["none"]
    with pytest.raises(InputError, match="choose one of these"):
        planting.find_fault("no-such-fault")


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(5), [7, 1, 30, 2, 11])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(planting.balanced_weights(np.bincount(labels)), expected, rtol=1e-15)


def test_weights_are_what_their_fault_says() -> None:
    counts = tiny("class-weights")["train_counts"]
    balanced = planting.balanced_weights(counts)
    np.testing.assert_array_equal(tiny("class-weights")["class_weight"], balanced)
    np.testing.assert_array_equal(tiny("misordered-weights")["class_weight"], balanced[planting.string_order(CLASSES)])
    np.testing.assert_allclose(tiny("inverted-weights")["class_weight"] * balanced, 1.0)
    assert np.any(tiny("incomplete-weights")["class_weight"] == 0)
    foreign = tiny("foreign-weights")["class_weight"]
    assert np.isfinite(foreign).all()
    assert np.corrcoef(np.log(foreign), np.log(balanced))[0, 1] < 0.98
    assert list(planting.string_order(12)) == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


def test_faults_of_saving_start_from_the_plain_predictions() -> None:
    plain = tiny("none")
    logits, target = plain["logits"], plain["target"]
    permuted = tiny("permuted-labels")["logits"]
    np.testing.assert_array_equal(permuted, logits[:, planting.string_order(CLASSES)])
    misaligned = tiny("misaligned-rows")
    np.testing.assert_array_equal(misaligned["target"], target)
    np.testing.assert_array_equal(np.sort(misaligned["logits"], axis=0), np.sort(logits, axis=0))
    assert not np.array_equal(misaligned["logits"], logits)
    probs = tiny("batch-softmax")["probs"]
    np.testing.assert_allclose(probs[:256].sum(0), 1, rtol=1e-4)
    np.testing.assert_allclose(probs[768:].sum(0), 1, rtol=1e-4)
    rounded = tiny("tied-logits")["logits"]
    np.testing.assert_allclose(rounded, logits, rtol=1 / 16)
    assert max(len(np.unique(np.frexp(row)[0])) for row in rounded) <= 17
    masked = tiny("masked-classes")
    private = [str(name).startswith("_") for name in masked["class_names"]]
    assert any(private)
    np.testing.assert_array_equal(np.isneginf(masked["logits"]).all(0), private)


def test_faults_of_the_rows() -> None:
    even = np.bincount(tiny("prior-shift")["target"], minlength=CLASSES)
    assert even.max() == planting.ROWS_PER_CLASS
    padded = tiny("padding-class")
    assert str(padded["class_names"][0]) == "<pad>"
    assert np.mean(padded["target"] == 0) == pytest.approx(
        planting.PADDING_SHARE / (1 + planting.PADDING_SHARE), abs=0.01
    )
    assert padded["train_counts"][0] == planting.PADDING_SHARE * 2000
    plain, wrong = tiny("none"), tiny("confused-pairs")
    np.testing.assert_array_equal(wrong["target"], plain["target"])
    moved = wrong["train_counts"] - plain["train_counts"]
    assert np.sum(moved < 0) == np.sum(moved > 0) == planting.PAIRS
    assert moved[list(wrong["class_names"]).index("self")] == moved.min()
    collapsed = tiny("collapsed")["logits"]
    np.testing.assert_allclose(collapsed, np.broadcast_to(collapsed[0], collapsed.shape), atol=1e-6)


def test_heads() -> None:
    assert np.abs(tiny("bounded-logits")["logits"]).max() <= 1
    assert np.abs(tiny("class-weights", head="lstm")["logits"]).max() <= 1
    np.testing.assert_allclose(tiny("double-softmax")["logits"].sum(1), 1, rtol=1e-4)
    with pytest.raises(InputError, match="linear or lstm"):
        tiny("none", head="gru")
    with pytest.raises(InputError, match="at least 1 epoch"):
        make_predictions("none", err=QUIET, epochs=0)


def test_output_names(tmp_path: Path) -> None:
    assert output_stem(tmp_path) == tmp_path / "evenhand-demo"
    assert output_stem(tmp_path / "a.b") == tmp_path / "a.b"
    assert output_stem(tmp_path / "a.html") == tmp_path / "a"


def test_without_torch_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'evenhand\[torch\]'"):
        run_demo(output=tmp_path)


def test_a_missing_folder_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="create it first"):
        run_demo(output=tmp_path / "missing" / "demo", err=QUIET)


def test_help_lists_every_fault() -> None:
    from click.testing import CliRunner

    from evenhand.commands.demo import command

    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    words = result.output.split()
    assert all(name in words for name in FAULTS)


def test_a_small_demo_from_end_to_end(tmp_path: Path) -> None:
    out = Console(file=(tmp_path / "verdict.txt").open("w"), width=100)
    demo = run_demo("double-correction", out=out, err=QUIET, output=tmp_path / "first", rows=3000, epochs=1)
    out.file.close()
    assert demo.predictions == tmp_path / "first.npz"
    assert demo.html == tmp_path / "first.html"
    assert demo.html.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    assert "first.npz" in (tmp_path / "verdict.txt").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.html", "first.npz", "verdict.txt"]
    again = run_demo(
        "double-correction", out=QUIET, err=QUIET, output=tmp_path / "first", html=False, rows=3000, epochs=1
    )
    assert again.html is None
    assert again.audit.metrics == demo.audit.metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["class-weights", "sampler", "double-correction", "misordered-weights", "batch-softmax", "permuted-labels"]
)
def test_the_full_demo_names_the_planted_fault(name: str, tmp_path: Path) -> None:
    demo = run_demo(name, out=QUIET, err=QUIET, output=tmp_path)
    assert demo.audit.findings[0].cause == name


@pytest.mark.slow
def test_the_full_demo_on_plain_training_accuses_nobody(tmp_path: Path) -> None:
    demo = run_demo("none", out=QUIET, err=QUIET, output=tmp_path)
    assert demo.audit.findings[0].cause in ("healthy", "argmax-amplification")
    assert demo.audit.metrics["accuracy"] > 0.25
