"""Served decisions: limits are kept on new rows, nothing falls below the argmax, and what is stored comes back."""

import json

import numpy as np
import pytest
import torch
from scipy import sparse

from evenhand.correction import Correction, fit_correction
from evenhand.correction.effects import judge, measure_effect
from evenhand.declared import InputError
from evenhand.goals import GOALS, METRICS, Aim, Calibrated, as_costs, find_goal, score

K = 30
STATED = {
    "cost": {"costs": ([0, 1, 2, 5], [1, 0, 5, 2], [20.0, 20.0, 0.1, 0.1])},
    "prior": {"prior": np.ones(K)},
}


def world(rows, seed, *, tau=0.0, skill=0.5, noise=0.0, classes=K, alpha=1.0, dimensions=10):
    """Exact log posteriors under Zipf priors, tilted by ``-tau log pi``, or blurred by noise."""
    rng = np.random.default_rng(seed)
    prior = (np.arange(classes) + 1.0) ** -alpha
    prior /= prior.sum()
    centre = skill * np.random.default_rng(1).normal(size=(classes, dimensions))
    y = rng.choice(classes, rows, p=prior)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    z = x @ centre.T - 0.5 * (centre**2).sum(axis=1) + (1 - tau) * np.log(prior)
    return z + noise * rng.normal(size=z.shape), y, prior


def value(goal, y, decided, prior, classes=K):
    stated = {("costs" if k == "costs" else k): v for k, v in STATED.get(goal, {}).items()}
    return score(goal, y, decided, classes=classes, frequency=prior, **stated)


@pytest.fixture(scope="module")
def fitted():
    z, y, prior = world(5000, 0, tau=1.0)
    return {g: fit_correction(z, y, goal=g, train_counts=prior * 1e5, **STATED.get(g, {})) for g in GOALS}


@pytest.mark.parametrize("goal", list(GOALS))
def test_tilted_models_reach_the_best_value_of_exact_posteriors(fitted, goal):
    """The rule on exact posteriors of the fresh rows is the ceiling; a tilted model comes back to it."""
    z, y, prior = world(30_000, 1, tau=1.0)
    exact = z + np.log(prior)
    oracle = fit_correction(exact, y, goal=goal, models=("identity",), folds=2, **STATED.get(goal, {}))
    sign = find_goal(goal).metric.sign
    best, ours = (value(goal, y, d, prior) for d in (oracle.predict(exact), fitted[goal].predict(z)))
    slack = {"cost": 0.03, "counts": 0.045}.get(goal, 0.02)
    assert sign * (ours - best) > -slack
    assert fitted[goal].recommended or goal in ("balanced-accuracy", "prior", "g-mean", "worst-group")


@pytest.mark.parametrize("goal", ["balanced-accuracy", "macro-f1", "g-mean", "worst-group", "cost", "prior"])
def test_no_harm_over_seeds(goal):
    """Noisy scores, few rows: what is recommended is no worse on new rows, whatever the seed."""
    fresh, labels, prior = world(20_000, 99, noise=0.7, classes=12)
    stated = {"costs": np.arange(1.0, 13)} if goal == "cost" else {"prior": np.ones(12)} if goal == "prior" else {}
    metric = find_goal(goal).metric
    before = score(goal, labels, fresh.argmax(axis=1), classes=12, frequency=prior, **stated)
    for seed in range(6):
        z, y, _ = world(600, seed, noise=0.7, classes=12)
        found = fit_correction(z, y, goal=goal, folds=3, models=("identity", "temperature", "tilt"), **stated)
        after = score(goal, labels, found.predict(fresh), classes=12, frequency=prior, **stated)
        if found.recommended:
            assert metric.sign * (after - before) > -0.005


def test_useless_scores_are_drawn_back_to_the_argmax():
    rng = np.random.default_rng(0)
    y = rng.choice(6, 900, p=np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05]))
    z = 0.01 * rng.normal(size=(900, 6)) + 4 * np.eye(6)[y] * (y < 3)[:, None]
    for goal in ("macro-f1", "g-mean"):
        found = fit_correction(z, y, goal=goal, models=("identity",))
        key = find_goal(goal).metric.key
        assert found.evidence["after"][key] > found.evidence["before"][key] - 0.03


@pytest.mark.parametrize(("goal", "other", "least"), [
    ("balanced-accuracy", "accuracy", 0.36), ("macro-f1", "accuracy", 0.4), ("cost", "balanced-accuracy", 0.25),
])  # fmt: skip
def test_limits_are_kept_on_new_rows(goal, other, least):
    z, y, _ = world(6000, 0)
    fresh, labels, _ = world(30_000, 1)
    stated = STATED.get(goal, {})
    free = fit_correction(z, y, goal=goal, **stated)
    found = fit_correction(z, y, goal=goal, at_least={other: least}, **stated)
    assert found.evidence["at_least"] == {find_goal(other).metric.key: least}
    assert f"at least {least:g} was asked for" in found.why
    kept = score(other, labels, found.predict(fresh), classes=K)
    assert kept > least - 0.015
    assert score(other, labels, free.predict(fresh), classes=K) < least
    sign = find_goal(goal).metric.sign
    ends = [score(goal, labels, d, classes=K, **stated) for d in (fresh.argmax(axis=1), found.predict(fresh))]
    if other == "accuracy":
        assert sign * (ends[1] - ends[0]) > 0


def test_limits_out_of_reach_say_what_can_be_reached():
    z, y, _ = world(1500, 0)
    with pytest.raises(
        InputError, match=r"accuracy of at least 0.9 cannot be reached: the best on 1,500 held-out rows"
    ):
        fit_correction(z, y, goal="macro-f1", at_least={"accuracy": 0.9})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"at_least": {"accuracy": 0.5}}, "another metric than that of the goal accuracy"),
        ({"at_least": {"counts": 0.5}}, "among accuracy, balanced-accuracy"),
        ({"at_least": {"macro-f1": 80}}, "a share between 0 and 1"),
        ({"at_least": 0.8}, "names one metric and its value"),
        ({"goal": "cost"}, "the goal cost needs costs"),
        ({"goal": "prior"}, "the goal prior needs prior"),
        ({"costs": np.ones(K)}, "the goal accuracy takes no costs"),
        ({"goal": "macro-f1", "prior": np.ones(K)}, "takes no prior"),
    ],
)
def test_options_that_do_not_fit_the_goal_are_refused(options, sentence):
    z, y, _ = world(100, 0)
    with pytest.raises(InputError, match=sentence):
        fit_correction(z, y, **options)


@pytest.mark.parametrize("goal", list(GOALS))
@pytest.mark.parametrize("ending", ["json", "npz"])
def test_every_goal_survives_the_file(tmp_path, fitted, goal, ending):
    z, _, _ = world(300, 2, tau=1.0)
    fitted[goal].save(tmp_path / f"fix.{ending}")
    again = Correction.load(tmp_path / f"fix.{ending}", classes=K)
    np.testing.assert_array_equal(again.predict(z), fitted[goal].predict(z))
    np.testing.assert_array_equal(again.posterior(z), fitted[goal].posterior(z))
    assert again.evidence == fitted[goal].evidence
    assert again.additive is (goal not in ("macro-f1", "cost"))


def test_dense_costs_and_scales_per_class_survive_the_file(tmp_path):
    z, y, prior = world(5000, 0, classes=8, skill=1.0)
    z = (z - z.mean(axis=1, keepdims=True)) / np.linspace(0.6, 1.6, 8)
    matrix = np.random.default_rng(0).gamma(1.0, size=(8, 8))
    found = fit_correction(z, y, goal="cost", costs=matrix, train_counts=prior * 1e5)
    assert found.model == "vector-scaling"
    for ending in ("json", "npz"):
        found.save(tmp_path / f"fix.{ending}")
        again = Correction.load(tmp_path / f"fix.{ending}")
        np.testing.assert_array_equal(again.scale, found.scale)
        np.testing.assert_array_equal(again.predict(z), found.predict(z))
    risk = found.posterior(z) @ matrix
    chosen = risk[np.arange(len(z)), found.predict(z)]
    if not found.evidence["share"]:
        np.testing.assert_allclose(chosen, risk.min(axis=1), atol=1e-4)


def test_scales_per_class_go_into_a_layer():
    found = Correction(
        np.array([0.5, 1.0, 2.0]), np.array([0.1, 0.0, -0.1]), "accuracy", "vector-scaling", {}, 1, 2, True, ""
    )
    layer, x = torch.nn.Linear(4, 3), torch.randn(20, 4)
    expected = found.apply(layer(x))
    np.testing.assert_allclose(expected.detach().numpy(), found.apply(layer(x).detach().numpy()), rtol=1e-5)
    found.fold_into(layer)
    torch.testing.assert_close(layer(x), expected)


def test_files_of_the_first_schema_still_load(tmp_path):
    old = {
        "schema": "evenhand.correction/1", "classes": 3, "scale": 0.5, "goal": "accuracy", "model": "tilt",
        "evidence": {"tau": 1.0}, "rows": 9, "folds": 5, "recommended": True, "why": "recommended", "names_hash": None,
        "offset": [0.1, 0.2, -0.3],
    }  # fmt: skip
    (tmp_path / "fix.json").write_text(json.dumps(old))
    facts = {key: v for key, v in old.items() if key != "offset"}
    np.savez(tmp_path / "fix.npz", offset=np.array(old["offset"]), facts=np.array(json.dumps(facts)))
    for ending in ("json", "npz"):
        found = Correction.load(tmp_path / f"fix.{ending}")
        assert found.additive
        assert (found.scale, found.goal_offset) == (0.5, None)
        np.testing.assert_array_equal(found.offset, old["offset"])


@pytest.mark.parametrize(
    "change", [{"charge": [1.0]}, {"gain": None}, {"true": [99]}, {"decided": [0.5]}, {"cost": []}, {"scale": [1.0]}]
)
def test_damaged_decisions_are_refused(tmp_path, fitted, change):
    fitted["cost"].save(tmp_path / "fix.json")
    facts = json.loads((tmp_path / "fix.json").read_text())
    (tmp_path / "fix.json").write_text(json.dumps(facts | change))
    with pytest.raises(InputError, match="is damaged"):
        Correction.load(tmp_path / "fix.json")


def test_a_layer_cannot_hold_what_is_no_offset(fitted):
    for goal in ("macro-f1", "cost"):
        with pytest.raises(InputError, match="is no offset per class, so a layer cannot hold it"):
            fitted[goal].fold_into(torch.nn.Linear(4, K))
    z, y, _ = world(2000, 0)
    assert fit_correction(z, y, goal="macro-f1", foldable=True).additive


def test_top_k_lists_the_best_first(fitted):
    z, y, _ = world(4000, 3, tau=1.0)
    for goal in ("accuracy", "balanced-accuracy", "macro-f1"):
        best = fitted[goal].top_k(z, 5)
        assert best.shape == (4000, 5)
        np.testing.assert_array_equal(best[:, 0], fitted[goal].predict(z))
        assert all(len(set(row)) == 5 for row in best[:50].tolist())
        hits = (best == y[:, None]).any(axis=1).mean()
        assert hits == pytest.approx(fitted[goal].evidence["top_k"]["5"], abs=0.03)
    everything = fitted["accuracy"].top_k(z, K)
    np.testing.assert_array_equal(np.sort(everything, axis=1), np.tile(np.arange(K), (4000, 1)))
    tensor = fitted["accuracy"].top_k(torch.tensor(z[:9]).bfloat16(), 2)
    assert (tensor.dtype, tensor.shape) == (torch.int64, (9, 2))
    for k in (0, K + 1, 1.5, True):
        with pytest.raises(InputError, match="k must be a whole number from 1 to 30"):
            fitted["accuracy"].top_k(z, k)


def test_abstention_keeps_the_coverage_and_accuracy_it_states(fitted):
    z, y, _ = world(20_000, 3, tau=1.0)
    points = fitted["accuracy"].evidence["abstention"]
    assert points[0]["coverage"] == 1
    assert points[-1]["accuracy"] > points[0]["accuracy"] + 0.1
    for point in points:
        decided = fitted["accuracy"].predict(z, abstain_below=point["threshold"])
        answered = decided >= 0
        assert answered.mean() == pytest.approx(point["coverage"], abs=0.02)
        assert point["low"] - 0.02 < (decided == y)[answered].mean() < point["high"] + 0.02
    for bad in (-0.1, 1.1, "half", True):
        with pytest.raises(InputError, match="abstain_below must be a probability"):
            fitted["accuracy"].predict(z, abstain_below=bad)
    part = torch.tensor(z[:50])
    np.testing.assert_array_equal(
        fitted["macro-f1"].predict(part, abstain_below=0.4).numpy(),
        fitted["macro-f1"].predict(z[:50], abstain_below=0.4),
    )


def test_posteriors_leave_the_goal_out(fitted):
    z, y, _ = world(8000, 3, tau=1.0)
    for goal in ("accuracy", "balanced-accuracy", "macro-f1"):
        p = fitted[goal].posterior(z)
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
        soft = p.sum(axis=0)
        assert np.abs(soft - np.bincount(y, minlength=K)).sum() / 16_000 < 0.03
        np.testing.assert_allclose(fitted[goal].posterior(torch.tensor(z[:5])).numpy(), p[:5], rtol=1e-5)


@pytest.mark.parametrize("goal", ["macro-f1", "counts", "g-mean"])
def test_tuned_decisions_serve_the_rows_at_hand(fitted, goal):
    z, y, prior = world(3000, 7, tau=1.0)
    tuned, sign = fitted[goal].tuned_to(z), find_goal(goal).metric.sign
    gain = value(goal, y, tuned.predict(z), prior) - value(goal, y, fitted[goal].predict(z), prior)
    assert sign * gain > -0.01
    assert tuned.additive is fitted[goal].additive
    with pytest.raises(InputError, match="is the same for all rows"):
        fitted["accuracy"].tuned_to(z)


def test_masked_classes_are_never_decided():
    z, y, _ = world(1500, 0, classes=10)
    z[:, 3] = -np.inf
    for goal, stated in (("macro-f1", {}), ("g-mean", {}), ("worst-group", {}), ("cost", {"costs": ([3], [0], [9.0])})):
        found = fit_correction(z, y, goal=goal, **stated)
        assert not (found.predict(z) == 3).any()
        assert np.isfinite(found.offset).all()


def test_costs_are_measured_with_intervals():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 2000)
    before, after = np.zeros(2000, int), np.where(rng.random(2000) < 0.5, y, 0)
    costs = as_costs(sparse.csr_array(np.array([[0, 1, 4], [2, 0, 2], [30, 1, 0]])), 3)
    metric = METRICS["cost"].bound(Aim(np.zeros(3), costs=costs))
    effect = measure_effect(y, before, after, metrics={"cost": metric})
    change = costs.of(y, after) - costs.of(y, before)
    low, high = effect.difference_interval["cost"]
    assert effect.after["cost"] - effect.before["cost"] == pytest.approx(change.mean())
    assert high - low == pytest.approx(2 * 1.96 * change.std() / 2000**0.5, rel=0.25)
    assert judge(effect, metric)[1].startswith("recommended: the mean cost falls by")


@pytest.mark.parametrize("goal", list(GOALS))
@pytest.mark.parametrize(("rows", "classes", "sure"), [(25, 2, 1.0), (60, 3, 1000.0), (300, 2000, 1.0), (100, 4, 0.0)])
def test_few_rows_certain_rows_and_empty_scores(goal, rows, classes, sure):
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(classes) + 1.0)
    y = rng.choice(classes, rows, p=share / share.sum())
    y[:2] = [0, 1]
    z = (sure > 0) * rng.normal(size=(rows, classes))
    z[np.arange(rows), y] += sure
    stated = {"cost": {"costs": ([0], [1], [5.0])}, "prior": {"prior": np.arange(1.0, classes + 1)}}.get(goal, {})
    found = fit_correction(z.astype(np.float32), y, goal=goal, **stated)
    assert np.isfinite(found.offset).all()
    assert (np.asarray(found.scale) > 0).all()
    if sure == 1000:
        np.testing.assert_array_equal(found.predict(z), y)
    if sure == 0:
        assert not (found.recommended and goal in ("accuracy", "balanced-accuracy", "counts"))
    json.dumps(found.evidence, allow_nan=False)


def test_passes_over_the_data_are_few(monkeypatch):
    """Rows looked at, over rows there are: at most 10 passes for a temperature, 60 with a bias for every class."""
    from evenhand import likelihood
    from evenhand.correction import calibration, crossfit, scaling

    seen = []

    def counted(function, rows_of):
        def wrapper(*given, **named):
            seen.append(rows_of(given))
            return function(*given, **named)

        return wrapper

    monkeypatch.setattr(likelihood, "_block", counted(likelihood._block, lambda given: len(given[0])))
    monkeypatch.setattr(
        scaling, "_posteriors", counted(scaling._posteriors, lambda g: g[2].rows.stop - g[2].rows.start)
    )
    z, y, prior = world(6000, 0, classes=100)
    z += np.random.default_rng(2).normal(0, 0.7, 100)
    rows = calibration.prepare(z, y)
    folds = crossfit.fold_edges(rows.usable, 5)
    priors = calibration.log_priors(rows.y, 100, folds, prior * 1e5, None)
    for model, most in (("temperature", 8), ("biases", 45), ("vector-scaling", 60)):
        seen.clear()
        fitted = calibration._fit_model(model, rows, priors, folds, 1)
        assert np.isfinite(fitted.log_likelihood).all()
        assert sum(seen) / 6000 < most
    monkeypatch.setattr(Calibrated, "posteriors", counted(Calibrated.posteriors, lambda g: g[1].stop - g[1].start))
    seen.clear()
    fit_correction(z, y, goal="macro-f1", train_counts=prior * 1e5, models=("temperature",))
    assert sum(seen) / 6000 < 45
