"""The correction benchmark judges rightly: halves, evaluations, intervals, multiplicity; and it runs end to end."""

import importlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from evenhand.goals import METRICS

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is no part of the installed package
benchmark, nets, peers, priors, speed, summary, tables, trial = (
    importlib.import_module(f"benchmarks.{name}")
    for name in (
        "correction",
        "correctionnets",
        "correctionpeers",
        "correctionpriors",
        "correctionspeed",
        "correctionsummary",
        "correctiontables",
        "correctiontrial",
    )
)

COUNTS = np.array([400, 120, 40, 12, 3, 1])


def scored(*, shifted=False, seed=0, tilt=0.0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(6), 50 if shifted else COUNTS))
    z = rng.normal(size=(len(y), 6)) + (1 - tilt) * np.log(COUNTS)
    z[np.arange(len(y)), y] += 2
    return nets.Scored(z.astype(np.float32), y, 10 * COUNTS, shifted)


def test_halves_hold_every_row_once_and_split_every_class():
    y = scored().target
    fit, judge = trial.halves(y, 3)
    assert sorted([*fit, *judge]) == list(range(len(y)))
    gap = np.bincount(y[fit], minlength=6) - np.bincount(y[judge], minlength=6)
    assert np.abs(gap).max() <= 1
    assert [h.tolist() for h in trial.halves(y, 3)] == [fit.tolist(), judge.tolist()]
    assert trial.halves(y, 4)[0].tolist() != fit.tolist()


def test_single_rows_fall_on_both_sides():
    sizes = [len(trial.halves(np.arange(400), seed)[0]) for seed in range(5)]
    assert all(150 < size < 250 for size in sizes)


@pytest.mark.parametrize(("shifted", "evaluation"), [(False, "natural"), (True, "balanced")])
def test_rows_are_taken_whole_where_they_are_already_so(shifted, evaluation):
    known = scored(shifted=shifted)
    assert trial.evaluation_rows(known, evaluation, 0).tolist() == list(range(len(known.target)))


def test_balanced_rows_are_capped_and_natural_rows_thinned():
    known = scored()
    rows = trial.evaluation_rows(known, "balanced", 0)
    assert np.bincount(known.target[rows]).tolist() == np.minimum(COUNTS, 26).tolist()  # median of the counts
    shifted = scored(shifted=True)
    rows = trial.evaluation_rows(shifted, "natural", 0)
    assert np.bincount(shifted.target[rows]).tolist() == np.maximum(np.rint(50 * COUNTS / 400), 1).tolist()


def test_holm_steps_down():
    assert trial.holm([0.03, 0.011, 0.5, 0.001]) == [False, True, False, True]
    assert trial.holm([0.03, 0.02]) == [True, True]  # 0.02 <= 0.05 / 2, then 0.03 <= 0.05
    assert trial.holm([0.026, 0.04]) == [False, False]
    assert trial.holm([]) == []


def test_draws_of_one_are_the_metric_and_pair_methods():
    known = scored()
    decided = {"a": known.logits.argmax(axis=1), "b": known.logits.argmax(axis=1)}
    weights = np.vstack([np.ones(len(known.target)), np.random.default_rng(0).poisson(1.0, len(known.target))])
    for key in ("accuracy", "macro_f1", "count_distance"):
        values, draws = trial.measured(METRICS[key], known.target, decided, weights, 6)
        assert draws["a"][0] == values["a"]
        assert (draws["a"] == draws["b"]).all()


def made(gain, spread, seed=0, sign=1):
    noise = np.random.default_rng(seed).normal(size=trial.DRAWS) * spread
    values = {"argmax": 0.5, "evenhand": 0.5 + sign * gain, "logit adjustment": 0.5 + sign * (gain + 0.01)}
    draws = {name: value + noise * (name == "evenhand") for name, value in values.items()}
    run = trial.Trial(
        "x", seed, "plain", "natural", "accuracy", 9, 9, True, "", "tilt", 0.0, 0.0, sign, values, draws, 5
    )
    return trial.tested(run)


@pytest.mark.parametrize("sign", [1, -1])
def test_harm_is_seen_whichever_way_the_metric_runs(sign):
    assert made(-0.03, 0.01, sign=sign).harm_p < 0.01
    assert made(0.03, 0.01, sign=sign).harm_p > 0.99
    assert made(-0.03, 0.01, sign=sign).gain_interval[1] < 0
    told = benchmark.harm([made(-0.1, 0.01, seed, sign) for seed in range(3)] + [made(0.1, 0.01, 9, sign)])
    assert told["recommended"]["significantly worse (Holm, 5 %)"] == 3
    assert told["recommended"]["better"] == 1


def test_a_correction_that_changes_nothing_does_no_harm():
    assert made(0.0, 0.0).harm_p == 1.0


def test_the_interval_over_seeds_holds_their_scatter():
    same = [made(0.02, 0.001, seed) for seed in range(4)]
    wide = [made(gain, 0.001, seed) for seed, gain in enumerate((0.0, 0.04, 0.0, 0.04))]
    narrow_ends, wide_ends = (summary.over(group, "argmax")[1] for group in (same, wide))
    assert narrow_ends[1] - narrow_ends[0] < 0.005 < 0.03 < wide_ends[1] - wide_ends[0]
    found = summary.line(same)
    assert found.best_peer == "logit adjustment"
    assert found.over_peer == pytest.approx(-0.01)


def written(path, *told):
    path.write_text("".join(json.dumps(one) + "\n" for one in told))
    return ["--lines", str(path)]


def as_told(found, sets=("x",)):
    """What a run over the sets prints with --json, but for the machine."""
    found = [replace(one, data=name) for name in sets for one in found]
    return [
        *map(benchmark.trial_json, found),
        *({"kind": "line", **asdict(one)} for one in benchmark.all_lines(found)),
        benchmark.harm(found),
    ]


def test_tables_are_drawn_from_the_lines_of_earlier_runs(tmp_path):
    run = [made(gain, 0.01, seed) for seed, gain in enumerate((0.02, 0.04))]
    moved = priors.PriorTrial("x", 0, "plain", "moved", "moved", (9, 9), {"evenhand": 0.25})
    x = written(tmp_path / "x", {"kind": "machine"}, *as_told(run), {"kind": "prior", **asdict(moved)})
    y = written(tmp_path / "y", *as_told([replace(made(-0.1, 0.01), model="weighted")], sets="yz"))
    told = CliRunner().invoke(benchmark.command, x + y)
    assert told.exit_code == 0, told.output
    found = summary.line(run)
    assert tables.line_row(found) in told.output.splitlines()
    half = (found.gain_interval[1] - found.gain_interval[0]) / 2  # one set: its own interval, drawn around the mean
    assert f"| accuracy | natural | +3.0 ({3 - 100 * half:.1f} to {3 + 100 * half:.1f}) | -10.0 (" in told.output
    assert "| x | moved | 0.250 | 1 moved |" in told.output
    counted = [
        json.loads(line) for line in CliRunner().invoke(benchmark.command, [*x, *y, "--json"]).output.splitlines()
    ]
    assert [one["data"] for one in counted if one["kind"] == "line"] == ["x", "y", "z"]
    assert counted[-1]["recommended"]["runs"] == 4
    assert counted[-1]["recommended"]["significantly worse (Holm, 5 %)"] == 2  # one family over all files


def test_means_over_sets_are_as_sure_as_independent_sets_make_them():
    one = replace(summary.line([made(0.02, 0.001)]), gain=0.02, gain_interval=(0.01, 0.03), over_peer_interval=(-1, 1))
    lines = [one, replace(one, data="y", gain=0.04, gain_interval=(0.03, 0.05), over_peer_interval=(-0.02, -0.01))]
    assert list(tables.goal_lines(lines))[2:] == ["| accuracy | natural | +3.0 (2.3 to 3.7) | 0 | 1 | 1 |"]


def test_lines_that_do_not_belong_together_are_refused(tmp_path):
    whole = as_told([made(0.02, 0.01, 0), made(0.03, 0.01, 1)])
    cases = {
        "lines are not those of the trials": written(tmp_path / "cut", *whole[:2]),
        "repeats an earlier one": written(tmp_path / "twice", *whole, *whole),
        "line 1 of": written(tmp_path / "other", {"kind": "trial", "data": "x"}),
        "or only --lines": [*written(tmp_path / "whole", *whole), "--speed"],
    }
    for said, arguments in cases.items():
        told = CliRunner().invoke(benchmark.command, arguments)
        assert told.exit_code == 2
        assert said in " ".join(told.output.split())


def test_scikit_learns_temperature_is_the_likeliest_one_and_rare_classes_do_not_stop_it():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 5)) * 2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random((4000, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 4)
    z, y = np.column_stack([np.full(4000, -20.0), z]), y + 1
    y[0] = 0  # a single row: the class is left out, and the others are no longer numbered from 0
    assert peers.scikit_learn_temperature(2 * z, y) == pytest.approx(0.5, abs=0.03)


def test_logit_adjustment_is_argmax_of_the_scores_less_the_log_prior():
    known = scored()
    expected = (known.logits - np.log(known.train_counts / known.train_counts.sum())).argmax(axis=1)
    assert (peers.logit_adjusted(known.logits, known.train_counts) == expected).all()


def test_trials_tell_a_tilted_model_from_a_sound_one():
    goals, left_out = benchmark.tried_goals(["accuracy", "cost", "prior", "macro-f1"])
    assert not left_out
    absent = dict.fromkeys(peers.PACKAGES, "pip install it")
    found = {
        t.goal: t
        for t in trial.trials(
            scored(tilt=2.0), goals, data="made", seed=0, model="doubly-weighted", evaluation="natural", absent=absent
        )
    }
    assert set(found) == {"accuracy", "cost", "prior", "macro-f1"}
    assert found["accuracy"].recommended
    assert found["accuracy"].gain_interval[0] > 0.1
    assert set(found["accuracy"].values) == {"argmax", "logit adjustment", "evenhand"}
    assert json.dumps(benchmark.trial_json(found["cost"]))


def test_scores_are_kept_and_damaged_ones_are_made_anew(tmp_path, monkeypatch):
    calls = []

    def training(real, model, seed, epochs):
        calls.append(model)
        return {"logits": np.zeros((2, 2), np.float32), "target": np.arange(2), "train_counts": np.ones(2, int),
                "shifted": np.array(False)}  # fmt: skip

    monkeypatch.setattr(nets, "_trained", training)
    monkeypatch.setattr(nets, "load", lambda *a, **k: None)
    first = nets.scored("x", "plain", 0, data=tmp_path, cache=tmp_path)
    again = nets.scored("x", "plain", 0, data=tmp_path, cache=tmp_path)
    assert (first.logits == again.logits).all()
    assert calls == ["plain"]
    (tmp_path / "x-0-plain.npz").write_bytes(b"PK")
    nets.scored("x", "plain", 0, data=tmp_path, cache=tmp_path)
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x-0-plain.npz"]


def test_speeds_have_goals_and_a_common_pass():
    absent = dict.fromkeys(peers.PACKAGES, "pip install it")
    found = {s.name: s for s in speed.speeds((300, 20), runs=1, absent=absent)}
    assert found["one pass, fast"].unit == "s"
    assert found["macro-F1 rule"].goal == 2.0
    assert found["prior: EM, test and intervals"].goal == 20.0
    assert [s.goal for s in found.values() if s.name.endswith("the fit in all folds")] == [10.0, 60.0]


def test_the_command_says_what_it_needs():
    lines = CliRunner().invoke(benchmark.command, [])
    assert lines.exit_code == 2
    assert "--data" in lines.output
    wrong = CliRunner().invoke(benchmark.command, ["--speed", "--goals", "nonsense"])
    assert wrong.exit_code == 2
    assert "macro-f1" in wrong.output
