"""The shift command: what it says, what it writes, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy.special import softmax

from evenhand.cli import run
from evenhand.commands.shift import command
from evenhand.correction import Correction
from evenhand.shift.unlabelled import open_unlabelled
from evenhand.shift.words import change, share

K = 12
PI = (np.arange(K) + 1.0) ** -1.2
PI /= PI.sum()
FLAT = np.ones(K) / K
NAMES = [f"c{k}" for k in range(K)]


def world(rows, seed, q):
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(1).normal(0, 0.8, (K, 6))
    y = rng.choice(K, rows, p=q)
    x = centre[y] + rng.normal(size=(rows, 6))
    return (x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(PI)).astype(np.float32), y


@pytest.fixture
def files(tmp_path):
    z, y = world(2000, 0, PI)
    np.savez(tmp_path / "val.npz", logits=z, target=y, train_counts=np.round(PI * 1e5), class_names=NAMES)
    np.savez(tmp_path / "new.npz", logits=world(1500, 1, FLAT)[0])
    np.savez(tmp_path / "same.npz", logits=world(1500, 2, PI)[0], class_names=NAMES)
    np.savez(tmp_path / "few.npz", logits=world(25, 3, PI)[0])
    return tmp_path


def invoke(*arguments):
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_shift_is_told_in_a_sentence_with_its_classes_and_its_remedy(files):
    out = invoke(files / "val.npz", files / "new.npz")
    assert "new.npz · 1,500 unlabelled rows · 12 classes · compared with val.npz, 2,000 labelled rows" in out
    assert "Class frequencies have moved: " in out
    assert "p < 0.001 on 1,500 rows" in out
    assert "the predicted labels agree" in out
    assert "95 % interval" in out
    assert "  c0 " in out
    assert "recommended: accuracy is expected to rise by" in out
    assert "val.npz" in out.splitlines()[-1]
    assert "-o fix.json" in out.splitlines()[-1]


def test_the_fix_written_is_what_fix_applies(files):
    out = invoke(files / "val.npz", files / "new.npz", "-o", files / "fix.json")
    assert "written: " in out
    found = Correction.load(files / "fix.json", classes=K, class_names=NAMES)
    new, truth = world(1500, 1, FLAT)
    assert (found.predict(new) == truth).mean() > (new.argmax(axis=1) == truth).mean() + 0.02
    assert run(["fix", "--apply", str(files / "fix.json"), str(files / "val.npz"), "-o", str(files / "c.npz")]) == 0
    with np.load(files / "c.npz") as arrays:
        assert arrays["logits"].shape == (2000, K)


def test_no_shift_and_too_little_data_are_answers(files):
    same = invoke(files / "val.npz", files / "same.npz", "-o", files / "fix.json")
    assert "Class frequencies have not moved" in same
    assert "Not recommended: class frequencies have not moved" in same
    assert not Correction.load(files / "fix.json").recommended
    few = invoke(files / "val.npz", files / "few.npz")
    assert "Too little data to say" in few


def test_json_on_stdout_is_nothing_else(files):
    found = json.loads(invoke(files / "val.npz", files / "new.npz", "--json", "-"))
    assert found["schema"] == "evenhand.shift/1"
    assert found["answer"] == "moved"
    assert found["labelled_rows"] == 2000
    assert [row["name"] for row in found["classes_table"]] == NAMES
    assert sum(row["now"] for row in found["classes_table"]) == pytest.approx(1)
    low, high = found["classes_table"][0]["interval"]
    assert low < found["classes_table"][0]["now"] < high
    assert found["cross_check"]["agrees"] is True
    invoke(files / "val.npz", files / "new.npz", "--json", files / "out.json", "--alpha", "0.01")
    assert json.loads((files / "out.json").read_text())["alpha"] == 0.01


def test_top_limits_the_list(files):
    out = invoke(files / "val.npz", files / "new.npz", "--top", 2)
    assert "and " in out
    assert "more\n" in out
    assert "interval" not in invoke(files / "val.npz", files / "new.npz", "--top", 0)


@pytest.mark.parametrize("ending", ["npz", "parquet", "csv", "arrow", "safetensors"])
def test_every_format_gives_the_same_scores_and_no_label_is_read(tmp_path, ending):
    z = world(40, 0, PI)[0]
    path = tmp_path / f"new.{ending}"
    frame = pl.DataFrame({f"logit_{k}": z[:, k] for k in range(K)} | {"label": np.full(40, 99)})
    if ending == "npz":
        np.savez(path, logits=z, target=np.full(40, 99))
    elif ending == "safetensors":
        from safetensors.numpy import save_file

        save_file({"logits": z, "target": np.full(40, 99)}, path)
    else:
        {"parquet": frame.write_parquet, "csv": frame.write_csv, "arrow": frame.write_ipc}[ending](path)
    opened = open_unlabelled(path)
    scores = np.concatenate([block.scores for block in opened.blocks(7)])
    np.testing.assert_allclose(scores, z, rtol=1e-5, atol=1e-6)
    assert opened.classes == K


def test_probabilities_are_read_as_such(files):
    z, y = world(1500, 0, PI)
    np.savez(files / "p.npz", probs=softmax(z.astype(float), axis=1), target=y)
    np.savez(files / "q.npz", y_proba=softmax(world(1500, 1, FLAT)[0].astype(float), axis=1))
    assert "have moved" in invoke(files / "p.npz", files / "q.npz")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{unlabelled}", "{new}"], "unlabelled.npz must hold target"),
        (["{labels}", "{new}"], "needs logits or probabilities but labels.npz holds only predicted labels"),
        (["{val}", "{labels}"], "labels.npz must hold logits or probs of the new rows but holds predicted, target"),
        (["{val}", "{other}"], "val.npz has 12 classes but other.npz has 5; use predictions of one model"),
        (["{val}", "{renamed}"], "class 0 is named 'c0' in val.npz but 'd0' in renamed.npz"),
        (["{val}", "{folder}/none.npz"], "no such file"),
        (["{val}", "{folder}"], "should end in one of"),
        (["{val}", "{broken}"], "finite logits"),
        (["{val}", "{new}", "-o", "{new}"], "would be overwritten"),
        (["{val}", "{new}", "-o", "{folder}/fix.txt"], ".json or .npz"),
        (["{val}", "{new}", "--alpha", "2"], "alpha"),
        (["{val}"], "missing argument"),
    ],
)
def test_unusable_input_exits_2_and_leaves_nothing_behind(files, capfd, arguments, sentence):
    z, y = world(60, 0, PI)
    broken = z.copy()
    broken[5, 1] = np.nan
    np.savez(files / "unlabelled.npz", logits=z)
    np.savez(files / "labels.npz", predicted=y, target=y)
    np.savez(files / "other.npz", logits=z[:, :5])
    np.savez(files / "renamed.npz", logits=z, class_names=[f"d{k}" for k in range(K)])
    np.savez(files / "broken.npz", logits=broken)
    names = ("val", "new", "unlabelled", "labels", "other", "renamed", "broken")
    places = {name: files / f"{name}.npz" for name in names} | {"folder": files}
    before = sorted(files.iterdir())
    assert run(["shift", *(a.format(**places) for a in arguments)]) == 2
    told = capfd.readouterr().err
    assert sentence.lower() in told.lower()
    assert "Traceback" not in told
    assert sorted(files.iterdir()) == before


def test_control_characters_do_not_reach_the_terminal(files):
    z, y = world(600, 0, PI)
    np.savez(files / "a\x1b[31m.npz", logits=z, target=y, class_names=["\x1b[31mred", *NAMES[1:]])
    assert "\x1b" not in invoke(files / "a\x1b[31m.npz", files / "new.npz")


def test_words_for_shares_and_changes():
    assert [share(v) for v in (1.0, 0.0951, 1e-5)] == ["100 %", "9.5 %", "0.0010 %"]
    assert change(0.1, 2.0) == "20 times as often"
    assert change(0.1, 0.09) == "10 % less often"
    assert change(0.7, 0.1) == "1/7 as often"


def test_help_has_examples():
    assert "evenhand shift val.npz new.npz -o fix.json" in invoke("--help")
