"""The question's benchmark: parts share no group, figures are right, a killed run continues, everything is drawn."""

import importlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner

from evenhand import losses

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is no part of the installed package
question = importlib.import_module("benchmarks.question.command")
data, figures, hindsight, networks, page, remedies, store, summary = (
    importlib.import_module(f"benchmarks.question.{name}")
    for name in ("data", "figures", "hindsight", "networks", "page", "remedies", "store", "summary")
)
clinc, clincdata, racehindsight = (
    importlib.import_module(f"benchmarks.{name}") for name in ("clinc", "clincdata", "racehindsight")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Surnames of four invented languages, each with its own letters, some under two of them."""
    rng, rows = np.random.default_rng(0), []
    for label, letters, n in (("A", "abcde", 400), ("B", "defgh", 120), ("C", "ghijk", 60), ("D", "jklmn", 30)):
        rows += [{"label": label, "text": "".join(rng.choice(list(letters), 5))} for _ in range(n)]
    place = tmp_path_factory.mktemp("data")
    (place / "names18").mkdir()
    pl.DataFrame(rows).write_parquet(place / "names18" / "rows.parquet")
    return place


def test_the_three_parts_share_no_text_and_lose_no_row(folder):
    part = data.load("names18", folder, 3)
    groups = [set(rows.groups) for rows in (part.train, part.validation, part.test)]
    assert not any(one & other for one, other in itertools.combinations(groups, 2))
    unique = pl.read_parquet(folder / "names18" / "rows.parquet").unique()
    assert sum(len(rows.labels) for rows in (part.train, part.validation, part.test)) == len(unique) - part.left_out[1]
    assert 0.5 < len(part.validation.labels) / len(part.test.labels) < 2


def test_files_of_the_standard_library_stay_in_one_part(monkeypatch):
    arrays = toy_names()
    monkeypatch.setattr(data.names, "load", lambda: (arrays, None))
    monkeypatch.setattr(data, "STDLIB_ROWS", 600)
    part = data.stdlib(Path(), 0)
    groups = [set(rows.groups) for rows in (part.train, part.validation, part.test)]
    assert not any(one & other for one, other in itertools.combinations(groups, 2))
    assert part.vocabulary == 50
    made = networks.network(part, "cosine", 0)
    assert networks.scores(made, torch.from_numpy(part.test.inputs), "cosine").abs().max() <= 30.01


def toy_names(classes=20, files=40):
    rng = np.random.default_rng(0)
    target = rng.choice(classes, 4_000, p=np.arange(classes, 0, -1) / sum(range(classes + 1)))
    file = np.sort(rng.integers(0, files, 4_000))
    return {
        "context": rng.integers(0, 50, (4_000, 8)).astype(np.uint16), "target": target.astype(np.uint16),
        "file": file.astype(np.uint16), "validation": file % 4 == 0, "vocabulary": np.array(50),
        "class_names": np.array([f"c{k:02}" for k in range(classes)]),
    }  # fmt: skip


def test_a_bag_of_grams_is_the_linear_layer():
    rng = np.random.default_rng(0)
    features = np.where(rng.random((7, 30)) < 0.2, rng.random((7, 30)), 0).astype(np.float32)
    features[2] = 0  # a text without grams
    layer = networks.Bag(30, 4)
    told = layer(torch.from_numpy(data.as_bags(features)))
    assert torch.allclose(told, torch.from_numpy(features) @ layer.weight + layer.bias, atol=1e-6)


def test_row_weights_make_the_test_balanced_or_natural():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    weight = figures.row_weights(labels, np.ones(4))  # class 3 has no rows and takes no share
    assert np.bincount(labels, weight) == pytest.approx([7 / 3] * 3)
    prior = figures.row_weights(labels, np.array([8.0, 1.0, 1.0, 0.0]))
    assert np.bincount(labels, prior) == pytest.approx([5.6, 0.7, 0.7])


def test_figures_agree_with_arithmetic():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    told = figures.decided(predicted, labels, np.ones(6), np.array([30, 20, 10]))
    assert told["accuracy"] == pytest.approx(3 / 6)
    assert told["balanced accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert told["macro F1"] == pytest.approx((4 / 7 + 2 / 4 + 0) / 3)
    assert told["count distance"] == pytest.approx(1 / 6)
    assert told["never predicted"] == 1
    balanced = figures.decided(predicted, labels, figures.row_weights(labels, np.ones(3)), np.array([30, 20, 10]))
    assert balanced["accuracy"] == pytest.approx(told["balanced accuracy"])
    assert figures.recalls(predicted, labels, np.array([30, 20, 10])) == pytest.approx(
        {"head": 2 / 3, "medium": 1 / 2, "tail": 0}
    )


def test_likelihood_and_calibration_agree_with_arithmetic():
    p = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    told = figures.probabilistic(np.log(p).astype(np.float32), np.array([0, 1, 1]), np.ones(3))
    assert told["nll"] == pytest.approx(-np.log([0.7, 0.4, 0.8]).mean(), rel=1e-5)
    assert told["ece"] == pytest.approx((0.3 + 0.6 + 0.2) / 3, rel=1e-5)


def test_tau_counts_how_often_the_prior_was_divided_out():
    rng, counts = np.random.default_rng(0), np.array([800, 150, 50])
    labels = rng.choice(3, 3_000, p=counts / counts.sum())
    z = rng.normal(size=(3_000, 3)) + np.log(counts)
    z[np.arange(3_000), labels] += 1
    for tau in (0.0, 1.0, 2.0):
        told = figures.tilt((z - tau * np.log(counts)).astype(np.float32), labels, counts, np.zeros(3))
        assert told["tau"] == pytest.approx(tau, abs=0.12)
    assert np.isnan(figures.tilt(z.astype(np.float32), labels, np.ones(3), np.zeros(3))["tau"])


def test_logit_adjustment_at_one_is_balanced_softmax():
    counts, z, y = [50, 10, 2], torch.randn(40, 3), torch.randint(0, 3, (40,))
    one, other = losses.build("balanced-softmax", counts), losses.build("logit-adjusted", counts, tau=1.0)
    assert torch.equal(one(z, y), other(z, y))


def test_every_remedy_gives_a_loss():
    counts = [500, 40, 3]
    for remedy in remedies.REMEDIES:
        assert torch.isfinite(remedy.criterion(counts)(torch.rand(9, 3), torch.arange(9) % 3))
    assert set(remedies.KEY) <= set(remedies.BY_NAME)


@pytest.fixture(scope="module")
def ran(folder, tmp_path_factory):
    """Two seeds of four remedies, killed in the middle of storing the last run, and resumed."""
    out = tmp_path_factory.mktemp("out") / "results"
    options = ["--data", str(folder), "--out", str(out), "--sets", "names18", "--epochs", "2"]
    wanted = ["--remedies", "weights,double,focal-2,ldam-drw,lstm-head"]
    first = CliRunner().invoke(question.command, [*options, *wanted, "--seeds", "1"])
    assert first.exit_code == 0, first.output
    path = out / "names18.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:-1]) + kept[-1][: len(kept[-1]) // 2])  # what a killed process leaves
    again = CliRunner().invoke(question.command, [*options, *wanted, "--seeds", "2", "--resume"])
    assert again.exit_code == 0, again.output
    return out, kept, again.output


def test_a_killed_run_continues_and_nothing_finished_runs_twice(ran):
    out, kept, _ = ran
    runs = store.read(out)
    assert len(runs) == 12
    assert len({store.key(run) for run in runs}) == 12
    lines = (out / "names18.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[:5] == kept[:5]
    repeated = next(run for run in runs if store.key(run) == store.key(json.loads(kept[-1])))
    assert without_time(repeated) == without_time(json.loads(kept[-1]))  # the same seed gives the same run


def without_time(run):
    return {name: held for name, held in run.items() if name != "seconds"}


def test_the_results_hold_what_was_asked(ran):
    run = next(run for run in store.read(ran[0]) if run["remedy"] == "double" and run["seed"] == 0)
    assert [point["epoch"] for point in run["curve"]] == [1, 2]
    assert {"natural", "balanced", "recall", "tau", "beta"} <= set(run["curve"][-1])
    goals = ("accuracy", "balanced-accuracy", "counts")
    assert set(run["decisions"]) == {"argmax", *(f"fix {g}" for g in goals), *(f"rule {g}" for g in goals[:2])}
    assert run["decisions"]["argmax"]["natural"]["accuracy"] == run["curve"][-1]["natural"]["accuracy"]
    assert sum(run["counts"]["true"]) == sum(run["counts"]["predicted"])
    assert run["audit"]["cause"]


def test_figures_and_tables_are_written(ran):
    out, _, printed = ran
    images = sorted(path.name for path in (out / "images").iterdir())
    assert images == [f"question-{name}.png" for name in ("counts", "long-run", "tau", "trade-off")]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (out / "images").iterdir())
    assert max(path.stat().st_size for path in (out / "images").iterdir()) < 150_000
    text = (out / "the-question-tables.md").read_text()
    assert "## names18 (2 seeds)" in text
    assert "balanced weights + balanced sampler" in text
    assert "nan" not in text
    assert "chosen on validation rows" in printed


def test_results_are_not_mixed_unasked(ran, folder):
    told = CliRunner().invoke(question.command, ["--data", str(folder), "--out", str(ran[0]), "--sets", "names18"])
    assert told.exit_code == 2
    assert "--resume" in told.output
    wrong = CliRunner().invoke(question.command, ["--data", str(folder), "--out", str(ran[0]), "--sets", "names"])
    assert wrong.exit_code == 2
    assert "expected sets among" in wrong.output


def test_differences_are_paired_by_seed():
    def run(remedy, seed, value):
        return {"set": "s", "remedy": remedy, "seed": seed, "curve": [{"tau": value}], "decisions": {}}

    levels = {0: 1.0, 1: 5.0, 2: 9.0}
    runs = [run("plain", seed, level) for seed, level in levels.items()]
    runs += [run("weights", seed, level + 2 + 0.1 * seed) for seed, level in levels.items()]
    told = summary.Results(runs).difference("s", "weights", summary.final("tau"))
    assert told.mean == pytest.approx(2.1)
    assert told.half == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert told.clear()
    assert not summary.Results(runs).mean("s", "plain", summary.final("missing")).known


def test_hindsight_chooses_on_validation_and_judges_on_test():
    def run(remedy, seed, validation, test):
        held = {"accuracy": test}
        decided = {"natural": held, "balanced": held, "validation": {"natural": {"accuracy": validation}},
                   "crossfitted": {"accuracy": validation - 0.2}}  # fmt: skip
        told = dict.fromkeys(("argmax", "rule accuracy", "fix accuracy"), decided)
        return {"set": "s", "remedy": remedy, "seed": seed, "curve": [], "decisions": told}

    runs = [run("plain", s, 0.8, 0.60 + 0.01 * s) for s in range(3)]
    runs += [run("weights", s, 0.7, 0.63) for s in range(3)]
    found = hindsight.choose(summary.Results(runs), "s", "accuracy")
    assert found.chosen[0] == "plain"
    assert found.best[0] == "weights"
    assert found.gap == pytest.approx(2.0)
    assert found.error == pytest.approx(1 / 3**0.5)
    assert not found.within


@pytest.fixture(scope="module")
def intents(tmp_path_factory):
    """Six intents of fifty training requests each, told by their words."""
    rows = []
    for split, n in (("train", 50), ("val", 5), ("test", 8)):
        for label in "abcdef":
            rows += [
                {"split": split, "label": label, "text": f"{label * 3} word{i % 7} {label}{i % 3}"} for i in range(n)
            ]
    place = tmp_path_factory.mktemp("intents")
    (place / "clinc150").mkdir()
    pl.DataFrame(rows).write_parquet(place / "clinc150" / "rows.parquet")
    return place


def test_clinc_trains_chooses_on_validation_and_prints_the_table(intents, tmp_path):
    pytest.importorskip("sklearn")
    part = clincdata.load(intents, 10.0)
    assert part.counts.tolist() == sorted(part.counts.tolist(), reverse=True)
    options = ["--data", str(intents), "--imbalance", "10", "--seeds", "2", "--epochs", "3", "--ways", "LDAM,softmax"]
    told = CliRunner().invoke(clinc.command, options)
    assert told.exit_code == 0, told.output
    assert "| cross-entropy | 0.5 |" in told.output
    assert told.output.count("(chosen)") == 1
    assert "LDAM-DRW" in told.output
    kept = CliRunner().invoke(clinc.command, [*options, "--json"])
    (tmp_path / "lines").write_text(kept.output)
    again = CliRunner().invoke(clinc.command, ["--read", str(tmp_path / "lines")])
    assert again.output.strip() in told.output  # the machine stands before the tables


def test_the_choice_never_looks_at_the_test_rows():
    told = {
        ("a", 0.0): [{"validation": 70.0, "accuracy": 10.0}],
        ("b", 0.0): [{"validation": 60.0, "accuracy": 99.0}],
    }
    assert clinc.chosen(told) == ("a", 0.0)


def test_the_race_is_judged_on_rows_that_did_not_choose(folder):
    told = CliRunner().invoke(
        racehindsight.command,
        ["--data", str(folder), "--sets", "names18", "--seeds", "2", "--epochs", "2", "--remedies", "weighted"],
    )
    assert told.exit_code == 0, told.output
    line = json.loads(told.output.splitlines()[-1])
    assert line["candidates"] == 4  # plain and weighted, each with and without its correction
    assert line["rows"]["choosing"] + line["rows"]["judging"] > 100
    assert line["gap"] >= 0
    assert line["best value"] == pytest.approx(line["value"] + line["gap"])


def stored(name, remedy, seed, shift):
    """A run as it is stored, every figure made of the remedy's and the seed's numbers."""
    told = {"accuracy": 0.5 + shift, "count distance": 0.2, "never predicted": 3, "slope": 1.2 - shift, "ece": 0.1}
    both = {"natural": told, "balanced": told | {"accuracy": 0.4 + shift}}
    point = both | {"recall": {"head": 0.6, "medium": 0.4, "tail": 0.2 + shift}, "tau": shift, "beta": 1.0,
                    "minus log prior": both}  # fmt: skip
    curve = [{"epoch": epoch} | point for epoch in (1, 10, 50)]
    held = both | {"validation": both, "crossfitted": {"accuracy": 0.5, "balanced_accuracy": 0.4}}
    rules = ("rule accuracy", "rule balanced-accuracy", "fix accuracy", "fix balanced-accuracy", "fix counts")
    decisions = dict.fromkeys(("argmax", *rules), held)
    return {"set": name, "remedy": remedy, "seed": seed, "curve": curve, "decisions": decisions,
            "audit": {"cause": "healthy"}, "seconds": {"all": 36.0}}  # fmt: skip


def filled_page():
    runs = [
        stored(name, remedy, seed, 0.01 * number + 0.001 * seed)
        for name in question.DEFAULT_SETS
        for number, remedy in enumerate(remedies.BY_NAME)
        for seed in range(3)
    ]
    race = {"set": "avonet", "recommended": "sampler", "best": "crt", "plain": 0.5, "value": 0.6, "best value": 0.61,
            "gap": 0.01, "error": 0.02, "within": True}  # fmt: skip
    return page.Page(summary.Results(runs), summary.Results(runs[:100]), [race])


def test_the_page_holds_the_figures_of_the_runs():
    made = filled_page()
    assert made.filled("{{level stdlib plain accuracy}} {{mean stdlib plain tau 10}}") == "50.1 ± 0.2 +0.00"
    assert made.filled("{{change avonet weights balanced}}") == "+1.0 ± 0.0"
    assert made.filled("{{span weights tail avonet names18}} {{farthest double tau}}") == "+1.0 to +1.0 0.02"
    assert made.filled("{{races}} {{hours}}").split() == ["1", "of", "1", f"{(6 * 21 * 3 + 100) * 0.01:.1f}"]
    assert made.filled("{{seeds}}").startswith("stdlib 3, avonet 3")
    run = stored("avonet", "plain", 0, 0.1)
    worse = run["decisions"]["argmax"] | {"balanced": {"accuracy": 0.4}, "recommended": True}
    run["decisions"] |= {"fix balanced-accuracy": worse, "fix counts": worse}
    told = page.Page(summary.Results([run]), None, []).filled("{{recommended}}")
    assert told == "2 recommended corrections 1 made things worse, by 10.0 points"
    whole = made.filled(page.TEMPLATE.read_text(encoding="utf-8"))
    assert "{{" not in whole
    assert "nan" not in whole
    assert "| avonet | sampler | crt | 50.0 | 60.0 | 61.0 | 1.00 | 2.00 | yes |" in whole


def test_the_published_page_is_the_template_with_figures():
    """So that nobody edits a figure, or a sentence in one of the two files alone."""
    published = (Path(__file__).parents[1] / "docs" / "the-question.md").read_text(encoding="utf-8")
    at = 0
    for text in page.PLACE.split(page.TEMPLATE.read_text(encoding="utf-8"))[::2]:
        found = published.find(text, at)
        assert found >= 0, f"docs/the-question.md lacks {text!r}"
        at = found + len(text)
    assert at == len(published)
