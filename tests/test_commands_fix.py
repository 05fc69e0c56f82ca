"""The fix command: from a file to offsets, and from offsets to a corrected file."""

import doctest
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy import sparse
from scipy.special import softmax

from evenhand import InputError
from evenhand.cli import run
from evenhand.commands.fix import GOALS as OFFERED
from evenhand.commands.fix import command
from evenhand.correction import Correction, fit_correction
from evenhand.correction.predictions import sample_rows
from evenhand.files import from_arrays, open_predictions
from evenhand.goals import GOALS

K = 12


def world(rows, seed, tau=1.0):
    rng = np.random.default_rng(seed)
    pi = (np.arange(K) + 1.0) ** -1.5
    pi /= pi.sum()
    centre = np.random.default_rng(1).normal(0, 0.6, (K, 6))
    y = rng.choice(K, rows, p=pi)
    x = centre[y] + rng.normal(size=(rows, 6))
    z = x @ centre.T - 0.5 * (centre**2).sum(axis=1) + (1 - tau) * np.log(pi)
    return z.astype(np.float32), y, np.round(pi * 20_000)


def held(path):
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture
def val(tmp_path):
    z, y, counts = world(1500, 0)
    path = tmp_path / "val.npz"
    np.savez(
        path,
        logits=z,
        target=y,
        train_counts=counts,
        class_weight=1 / counts,
        class_names=[f"c{k}" for k in range(K)],
        config=json.dumps({"loss": "cross-entropy", "note": "mine"}),
        predicted=z.argmax(axis=1),
        row_id=np.arange(1500)[::-1],
        train_logits=z[:50],
        train_target=y[:50],
        colour=np.arange(5),
    )
    return path


def invoke(*arguments):
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_fit_prints_before_and_after_and_saves(tmp_path, val):
    fix = tmp_path / "fix.json"
    out = invoke(val, "--goal", "accuracy", "-o", fix).output
    assert "val.npz · 1,500 rows · 12 classes" in out
    assert "recommended: accuracy rises by" in out
    for words in ("before", "after", "95 % interval", "balanced accuracy", "macro f1", "count distance"):
        assert words in out
    found = Correction.load(fix, classes=K, class_names=[f"c{k}" for k in range(K)])
    z, y, counts = world(1500, 0)
    direct = fit_correction(z, y, train_counts=counts)
    np.testing.assert_allclose(found.offset, direct.offset, atol=1e-5)


def test_corrected_file_holds_corrected_predictions_and_the_rest(tmp_path, val):
    fix, corrected = tmp_path / "fix.npz", tmp_path / "corrected.npz"
    invoke(val, "-o", fix)
    invoke("--apply", fix, val, "-o", corrected)
    found, before, after = Correction.load(fix), held(val), held(corrected)
    np.testing.assert_array_equal(after["logits"], found.apply(before["logits"]))
    np.testing.assert_array_equal(after["train_logits"], found.apply(before["train_logits"]))
    np.testing.assert_array_equal(after["predicted"], found.predict(before["logits"]))
    for name in ("target", "train_counts", "class_names", "row_id", "train_target", "colour"):
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(after["before_class_weight"], before["class_weight"])
    assert "class_weight" not in after
    config = json.loads(after["config"].item())
    assert config["corrected"] == {"goal": "accuracy", "model": found.model, "scale": found.scale}
    assert config["note"] == "mine"
    assert open_predictions(corrected).kind == "logits"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corrected.npz", "fix.npz", "val.npz"]


def test_a_corrected_file_is_not_corrected_again_silently(tmp_path, val, capfd):
    fix, corrected = tmp_path / "fix.json", tmp_path / "corrected.npz"
    invoke(val, "-o", fix)
    invoke("--apply", fix, val, "-o", corrected)
    assert run(["fix", "--apply", str(fix), str(corrected), "-o", str(tmp_path / "twice.npz")]) == 2
    assert "corrected already; apply the correction to the original file" in capfd.readouterr().err
    assert not (tmp_path / "twice.npz").exists()
    assert run(["fix", str(corrected)]) == 0
    told = capfd.readouterr()
    assert "was corrected before" in told.err
    assert "not recommended" in told.out


def test_probabilities_stay_probabilities(tmp_path):
    z, y, counts = world(1000, 0)
    p = softmax(z.astype(float), axis=1)
    p[:3, 4] = 0
    p /= p.sum(axis=1, keepdims=True)
    np.savez(tmp_path / "val.npz", probs=p, target=y, train_counts=counts)
    invoke(tmp_path / "val.npz", "-o", tmp_path / "fix.json")
    invoke("--apply", tmp_path / "fix.json", tmp_path / "val.npz", "-o", tmp_path / "c.npz")
    after = held(tmp_path / "c.npz")["probs"]
    found = Correction.load(tmp_path / "fix.json")
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(after, softmax(found.apply(np.log(p)), axis=1), rtol=1e-6)
    assert after.dtype == np.float64
    assert not after[:3, 4].any()


@pytest.mark.parametrize("ending", ["parquet", "csv", "arrow"])
def test_tables_become_npz_without_their_ignored_rows(tmp_path, ending):
    z, y, counts = world(900, 0)
    y = np.where(np.arange(900) % 10 == 3, -100, y)
    path = tmp_path / f"val.{ending}"
    np.save(tmp_path / "counts.npy", counts)
    frame = pl.DataFrame({"target": y} | {f"logit_{k}": z[:, k] for k in range(K)})
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "arrow": frame.write_ipc}[ending](path)
    options = ["--ignore-index", -100, "--train-counts", tmp_path / "counts.npy"]
    assert "810 rows" in invoke(path, "-o", tmp_path / "fix.json", *options).output
    assert (
        "810 rows corrected"
        in invoke("--apply", tmp_path / "fix.json", path, "-o", tmp_path / "c.npz", *options).output
    )
    after, keep = held(tmp_path / "c.npz"), y != -100
    np.testing.assert_allclose(
        after["logits"], Correction.load(tmp_path / "fix.json").apply(z[keep]), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(after["target"], y[keep])
    np.testing.assert_array_equal(after["row_id"], np.flatnonzero(keep))
    np.testing.assert_array_equal(after["train_counts"], counts)


def test_an_npz_keeps_its_ignored_rows(tmp_path):
    z, y, _ = world(600, 0)
    y[::7] = -1
    np.savez(tmp_path / "val.npz", logits=z.astype(np.float16), target=y, config='{"ignore_index": -1}')
    invoke(tmp_path / "val.npz", "-o", tmp_path / "fix.json")
    invoke("--apply", tmp_path / "fix.json", tmp_path / "val.npz", "-o", tmp_path / "c.npz")
    after = held(tmp_path / "c.npz")
    np.testing.assert_array_equal(after["target"], y)
    assert after["logits"].dtype == np.float32
    assert open_predictions(tmp_path / "c.npz").rows == (y != -1).sum()


def test_npy_pair_and_wanted_counts(tmp_path):
    z, y, counts = world(1200, 0, tau=0.0)
    for name, array in (("z", z), ("y", y), ("wanted", counts[::-1])):
        np.save(tmp_path / f"{name}.npy", array)
    pair = ["--logits", tmp_path / "z.npy", "--target", tmp_path / "y.npy"]
    wanted = ["--goal", "counts", "--wanted-counts", tmp_path / "wanted.npy"]
    invoke(*pair, *wanted, "-o", tmp_path / "fix.json")
    invoke("--apply", tmp_path / "fix.json", *pair, "-o", tmp_path / "c.npz")
    share = np.bincount(held(tmp_path / "c.npz")["logits"].argmax(axis=1), minlength=K) / 1200
    assert np.abs(share - counts[::-1] / counts.sum()).sum() / 2 < 0.05


def test_large_inputs_are_fitted_on_a_bounded_sample_of_all_rows(monkeypatch):
    monkeypatch.setattr("evenhand.correction.predictions.MIN_ROWS", 100)
    monkeypatch.setattr("evenhand.correction.predictions.BLOCK_CELLS", 70 * K)
    z, y, _ = world(5000, 0)
    z[:, 0] = np.arange(5000)
    opened = from_arrays(logits=z, target=y, row_id=np.zeros(5000, int))
    scores, target, rows = sample_rows(opened, cells=400 * K)
    assert (len(scores), len(target), rows) == (400, 400, 5000)
    position = scores[:, 0].astype(int)
    np.testing.assert_array_equal(target, y[position])
    assert len(set(position)) == 400
    assert np.histogram(position, 4, (0, 5000))[0].min() > 60
    whole, _, _ = sample_rows(opened, cells=5000 * K)
    np.testing.assert_array_equal(whole, z)


def test_a_correction_that_is_not_recommended_says_so_when_applied(tmp_path, capfd):
    z, y, counts = world(400, 0, tau=0.0)
    np.savez(tmp_path / "val.npz", logits=z, target=y, train_counts=counts)
    assert run(["fix", str(tmp_path / "val.npz"), "-o", str(tmp_path / "fix.json")]) == 0
    assert "not recommended" in capfd.readouterr().out
    assert (
        run(["fix", "--apply", str(tmp_path / "fix.json"), str(tmp_path / "val.npz"), "-o", str(tmp_path / "c.npz")])
        == 0
    )
    assert "note: this correction is not recommended" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{labels}"], "needs logits or probabilities but labels.npz holds only predicted labels"),
        (["{val}", "-o", "{folder}/fix.txt"], "kept in a .json or .npz file"),
        (["{val}", "-o", "{folder}/none/fix.json"], "does not exist"),
        (["{val}", "-o", "{val}"], "would be overwritten"),
        (["{val}", "--goal", "luck"], "is not one of"),
        (["{val}", "--wanted-counts", "{three}", "--goal", "counts"], "wanted_counts must hold one finite number"),
        (["{val}", "--wanted-counts", "{three}"], "belongs to --goal counts but the goal is accuracy"),
        (
            ["--apply", "{fix}", "{val}", "-o", "{folder}/c.npz", "--wanted-counts", "{three}", "--goal", "counts"],
            "--apply takes its goal from the file",
        ),
        (["{folder}/part.tally.npz"], "part.tally.npz is a tally, which holds counts but no rows"),
        (["{folder}/none.npz"], "no such file"),
        (["{broken}"], "nan"),
        (["--apply", "{fix}", "{val}"], "needs -o"),
        (["--apply", "{fix}", "{val}", "-o", "{folder}/c.parquet"], "written as npz"),
        (["--apply", "{fix}", "{broken}", "-o", "{folder}/c.npz"], "(row 5)"),
        (["--apply", "{fix}", "{other}", "-o", "{folder}/c.npz"], "is for 12 classes but the predictions have 5"),
        (["--apply", "{fix}", "{renamed}", "-o", "{folder}/c.npz"], "other class names"),
        (["--apply", "{val}", "{val}", "-o", "{folder}/c.npz"], "holds no correction"),
        ([], "name a file of predictions"),
    ],
)
def test_unusable_input_exits_2_and_leaves_nothing_behind(tmp_path, val, capfd, arguments, sentence):
    z, y, _ = world(100, 0)
    broken = z.copy()
    broken[5, 1] = np.nan
    np.savez(tmp_path / "labels.npz", predicted=y, target=y)
    np.savez(tmp_path / "broken.npz", logits=broken, target=y)
    np.savez(tmp_path / "other.npz", logits=z[:, :5], target=y % 5)
    np.savez(tmp_path / "renamed.npz", logits=z, target=y, class_names=[f"d{k}" for k in range(K)])
    np.save(tmp_path / "three.npy", np.ones(3))
    invoke(val, "-o", tmp_path / "fix.json")
    names = ("labels.npz", "broken.npz", "other.npz", "renamed.npz", "three.npy", "fix.json")
    places = {name.split(".")[0]: tmp_path / name for name in names} | {"val": val, "folder": tmp_path}
    before = sorted(tmp_path.iterdir())
    assert run(["fix", *(a.format(**places) for a in arguments)]) == 2
    told = capfd.readouterr().err
    assert sentence.lower() in told.lower()
    assert "Traceback" not in told
    assert sorted(tmp_path.iterdir()) == before


def test_control_characters_in_a_file_name_do_not_reach_the_terminal(tmp_path):
    z, y, _ = world(100, 0)
    path = tmp_path / "a\x1b[31m.npz"
    np.savez(path, logits=z, target=y)
    assert "\x1b" not in invoke(path).output


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize("form", ["pairs", "names", "vector", "dense", "csr", "coo"])
def test_costs_out_of_files(tmp_path, val, form):
    matrix = 1.0 - np.eye(K)
    matrix[0, 3], matrix[2, 1] = 20.0, 0.25
    path = tmp_path / f"costs.{'npz' if form in ('csr', 'coo') else 'npy' if form == 'dense' else 'csv'}"
    if form == "dense":
        np.save(path, matrix)
    elif form in ("csr", "coo"):
        sparse.save_npz(path, {"csr": sparse.csr_array, "coo": sparse.coo_array}[form](matrix))
    elif form == "vector":
        matrix = np.repeat(np.arange(1.0, K + 1)[:, None], K, axis=1) * (1 - np.eye(K))
        path.write_text("cost\n" + "\n".join(str(c + 1) for c in range(K)))
    else:
        mark = "c" if form == "names" else ""
        path.write_text(f"true,decided,cost\n{mark}0,{mark}3,20\n{mark}2,{mark}1,0.25\n")
    out = invoke(val, "--goal", "cost", "--costs", path, "-o", tmp_path / "fix.json").output
    assert "the mean cost falls by" in out or "not recommended" in out
    z, y, counts = world(1500, 0)
    direct = fit_correction(z, y, goal="cost", costs=matrix, train_counts=counts)
    found = Correction.load(tmp_path / "fix.json")
    assert found.additive is (form == "vector")
    assert found.evidence["after"]["cost"] == pytest.approx(direct.evidence["after"]["cost"], rel=0.02)
    assert (found.predict(z) == direct.predict(z)).mean() > 0.99


def test_a_decision_that_is_no_offset_is_written_as_predicted(tmp_path, val, capfd):
    assert run(["fix", str(val), "--goal", "macro-f1", "-o", str(tmp_path / "fix.json")]) == 0
    assert "take `predicted`, not the largest score" in capfd.readouterr().out
    assert run(["fix", "--apply", str(tmp_path / "fix.json"), str(val), "-o", str(tmp_path / "c.npz")]) == 0
    assert "note: take `predicted`" in capfd.readouterr().err
    found, after = Correction.load(tmp_path / "fix.json"), held(tmp_path / "c.npz")
    z, _, _ = world(1500, 0)
    np.testing.assert_array_equal(after["predicted"], found.predict(z))
    np.testing.assert_allclose(after["logits"], found.apply(z), rtol=1e-6)
    invoke(val, "--goal", "macro-f1", "--foldable", "-o", tmp_path / "flat.json")
    assert Correction.load(tmp_path / "flat.json").additive


def test_prior_and_limit_on_the_command_line(tmp_path, val):
    _, _, counts = world(1500, 0)
    np.save(tmp_path / "prior.npy", counts[::-1])
    out = invoke(val, "--goal", "prior", "--prior", tmp_path / "prior.npy", "-o", tmp_path / "fix.json").output
    assert "prior accuracy" in out
    out = invoke(val, "--goal", "balanced-accuracy", "--at-least", "accuracy=0.55").output
    assert "at least 0.55 was asked for" in out
    assert "true class among the 5 best" in invoke(val).output
    assert "answering only the surest 80% of rows" in invoke(val).output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--goal", "cost"], "--goal cost needs --costs FILE"),
        (["--goal", "prior"], "--goal prior needs --prior FILE"),
        (["--costs", "{pairs}"], "--costs belongs to --goal cost but the goal is accuracy"),
        (["--goal", "macro-f1", "--at-least", "accuracy"], "--at-least takes METRIC=VALUE"),
        (["--goal", "macro-f1", "--at-least", "accuracy=0.999"], "cannot be reached"),
        (["--goal", "macro-f1", "--at-least", "speed=0.5"], "among accuracy, balanced-accuracy"),
        (["--goal", "cost", "--costs", "{strange}"], "class numbers, or names that the predictions know"),
        (["--goal", "cost", "--costs", "{short}"], "line 3 has another number"),
        (["--goal", "cost", "--costs", "{junk}"], "junk.npz"),
        (["--goal", "prior", "--prior", "{pairs}"], "one column"),
        (
            ["--apply", "{val}", "-o", "{folder}/c.npz", "--at-least", "accuracy=0.5"],
            "--at-least and --foldable belong",
        ),
    ],
)
def test_goals_that_lack_something_exit_with_one_sentence(tmp_path, val, capfd, arguments, sentence):
    places = {
        "val": val,
        "folder": tmp_path,
        "pairs": written(tmp_path, "pairs.csv", "true,decided,cost\n0,3,20\n"),
        "strange": written(tmp_path, "strange.csv", "true,decided,cost\nc0,zebra,20\n"),
        "short": written(tmp_path, "short.csv", "true,decided,cost\n0,1,2\n0,1\n"),
        "junk": written(tmp_path, "junk.npz", "no archive"),
    }
    before = sorted(tmp_path.iterdir())
    assert run(["fix", str(val), *(a.format(**places) for a in arguments)]) == 2
    told = capfd.readouterr().err
    assert sentence in told
    assert told.strip().count("\n") == 0
    assert sorted(tmp_path.iterdir()) == before


def test_macro_f1_is_worked_out_on_the_rows_it_is_applied_to(tmp_path, capfd):
    k, rng = 30, np.random.default_rng(0)
    prior = 1 / np.arange(1, k + 1)
    y = rng.choice(k, 6000, p=prior / prior.sum())
    z = (rng.normal(size=(6000, k)) + np.log(prior) + 1.5 * np.eye(k)[y]).astype(np.float32)
    np.savez(tmp_path / "val.npz", logits=z[:4000], target=y[:4000])
    np.savez(tmp_path / "new.npz", logits=z[4000:], target=y[4000:])
    fix, new, out = tmp_path / "fix.json", tmp_path / "new.npz", tmp_path / "c.npz"
    invoke(tmp_path / "val.npz", "--goal", "macro-f1", "-o", fix)
    found = Correction.load(fix)
    assert run(["fix", "--apply", str(fix), str(new), "-o", str(out)]) == 0
    assert "worked out anew on these rows" in capfd.readouterr().err
    tuned = found.tuned_to(z[4000:]).predict(z[4000:])
    np.testing.assert_array_equal(np.load(out)["predicted"], tuned)
    invoke("--apply", fix, new, "-o", out, "--as-fitted")
    np.testing.assert_array_equal(np.load(out)["predicted"], found.predict(z[4000:]))
    assert (tuned != found.predict(z[4000:])).any()
    invoke(tmp_path / "val.npz", "--goal", "macro-f1", "--at-least", "accuracy=0.2", "-o", fix)
    invoke("--apply", fix, new, "-o", out)
    np.testing.assert_array_equal(np.load(out)["predicted"], Correction.load(fix).predict(z[4000:]))
    with pytest.raises(InputError, match="keeps a metric above a limit"):
        Correction.load(fix).tuned_to(z)


def test_every_goal_is_offered():
    assert tuple(GOALS) == OFFERED


def test_help_has_examples():
    out = invoke("--help").output
    assert "evenhand fix val.npz --goal accuracy -o fix.json" in out
    assert "--apply fix.json test.npz -o corrected.npz" in out


def test_examples_in_the_docs_run():
    path = Path(__file__).parents[1] / "docs" / "fix.md"
    outcome = doctest.testfile(str(path), module_relative=False)
    assert outcome.attempted > 8
    assert outcome.failed == 0
