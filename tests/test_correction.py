"""Corrections: they undo known tilts, leave sound models alone, and survive the trip into layers and files."""

import json
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evenhand.correction import Correction, crossfit_effect, fit_correction
from evenhand.correction.calibration import log_priors, prepare
from evenhand.correction.crossfit import at, fold_edges, leave_out_fits, row_log_likelihood, within, without
from evenhand.correction.effects import Effect, judge, measure_effect, poisson_weights
from evenhand.declared import InputError
from evenhand.goals import METRICS, REPORTED
from evenhand.priors import smoothed_log_prior
from evenhand.tilt import Likelihood, Part, centred_rows, maximise


def world(rows, classes, seed, *, tau=0.0, skill=0.5, alpha=1.0, prior=None, dimensions=12):
    """Exact log posteriors under Zipf priors, tilted by ``-tau log pi``; rows drawn from `prior` if it is another."""
    rng = np.random.default_rng(seed)
    pi = (np.arange(classes) + 1.0) ** -alpha
    pi /= pi.sum()
    centre = skill * np.random.default_rng(1).normal(size=(classes, dimensions))
    y = rng.choice(classes, rows, p=pi if prior is None else prior)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + (1 - tau) * np.log(pi), y, pi


def accuracy(z, y):
    return float((z.argmax(axis=1) == y).mean())


def one_part(pi):
    a = np.log(pi) - np.log(pi).mean()
    return (Part(slice(None), np.zeros(len(pi)), a[:, None]),)


@pytest.fixture(scope="module")
def tilted():
    z, y, pi = world(3000, 30, 0, tau=1.0)
    return z, y, pi, fit_correction(z, y, train_counts=pi * 50_000)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("counts_given", [True, False])
def test_tilted_posteriors_come_back(tau, counts_given):
    z, y, pi = world(4000, 100, 0, tau=tau)
    fresh, labels, _ = world(40_000, 100, 1, tau=tau)
    found = fit_correction(z, y, train_counts=pi * 1e5 if counts_given else None)
    untilted = accuracy(fresh + tau * np.log(pi), labels)
    assert found.recommended
    if counts_given:
        assert found.model in ("tilt", "biases")
        assert found.evidence["tau"] == pytest.approx(tau, abs=0.12)
    assert accuracy(found.apply(fresh), labels) > untilted - (0.006 if counts_given else 0.012)
    low, high = found.evidence["after_interval"]["accuracy"]
    assert low - 0.005 < untilted < high + 0.005


def test_sound_models_are_not_touched():
    recommended = 0
    for seed in range(60):
        z, y, _ = world(500, 12, seed, skill=0.4)
        recommended += fit_correction(z, y, folds=3, models=("identity", "temperature", "tilt")).recommended
    assert recommended <= 3


def test_forced_tilt_on_sound_models_seldom_claims_a_gain():
    recommended = 0
    for seed in range(120):
        z, y, pi = world(800, 15, seed, skill=0.4)
        recommended += crossfit_effect(centred_rows(z), y, parts=one_part(pi))["recommended"]
    assert recommended <= 6


def test_effect_is_what_fresh_rows_show():
    """The mean over many small samples: a fit that saw the labels it is judged by would be too good by points."""
    gaps = []
    big, labels, _ = world(20_000, 40, 999, tau=1.0)
    for seed in range(25):
        z, y, _ = world(300, 40, seed, tau=1.0)
        found = fit_correction(z, y, models=("biases",))
        gaps.append(found.evidence["after"]["accuracy"] - accuracy(found.apply(big), labels))
    error = np.std(gaps) / len(gaps) ** 0.5
    assert np.mean(gaps) < 2.5 * error
    assert np.mean(gaps) > -0.06


def test_class_biases_are_found_and_absent_classes_keep_the_tilt():
    z, y, pi = world(6000, 20, 0, alpha=1.5)
    bias = np.random.default_rng(5).normal(0, 1.0, 20)
    bias[-1] = 0
    keep = y != 19
    found = fit_correction((z + bias)[keep], y[keep], train_counts=pi * 1e5)
    assert found.model == "biases"
    error = found.offset + bias
    error -= np.average(error, weights=pi)
    assert np.abs(error[:5]).max() < 0.25
    fresh, labels, _ = world(20_000, 20, 1, alpha=1.5)
    assert accuracy(found.apply(fresh + bias), labels) > accuracy(fresh, labels) - 0.01


def test_known_prior_difference_is_used():
    flat = np.full(15, 1 / 15)
    z, y, pi = world(4000, 15, 0, prior=flat)
    fresh, labels, _ = world(30_000, 15, 1, prior=flat)
    best = accuracy(fresh - np.log(pi), labels)
    for options in ({"train_counts": pi * 1e5}, {"train_counts": pi * 1e5, "offset_known": -np.log(pi)}):
        found = fit_correction(z, y, **options)
        assert found.recommended
        assert abs(found.evidence["tau"]) < 0.2
        assert accuracy(found.apply(fresh), labels) > best - 0.01


def test_balanced_accuracy_and_counts_serve_their_metric():
    z, y, pi = world(6000, 40, 0, skill=0.35)
    for goal, key, sign in (("balanced-accuracy", "balanced_accuracy", 1), ("counts", "count_distance", -1)):
        found = fit_correction(z, y, goal=goal, train_counts=pi * 1e5)
        assert found.recommended
        assert sign * (found.evidence["after"][key] - found.evidence["before"][key]) > 0.05
        assert ("rises" if sign > 0 else "falls") in found.why
    wanted = np.arange(40.0)[::-1] + 1
    found = fit_correction(z, y, goal="counts", wanted_counts=wanted)
    share = np.bincount(found.predict(z), minlength=40) / 6000
    assert np.abs(share - wanted / wanted.sum()).sum() / 2 < 0.03


def test_fits_without_a_fold_are_those_of_a_full_fit_on_the_others():
    z, y, pi = world(5000, 50, 0, tau=1.0)
    z = centred_rows(z)
    parts, folds = one_part(pi), fold_edges(5000, 3)
    for start in (None, np.array([1.0, 0.9])):
        fits = leave_out_fits(z, y, parts, folds, start=start)
        for fold, theta in zip(folds, fits.folds, strict=True):
            exact = maximise(Likelihood(z, y, without(parts, fold, 5000)))
            error = np.sqrt(np.diag(np.linalg.inv(exact.information)))
            assert (np.abs(theta - [exact.beta, *exact.tau]) < 0.1 * error).all()
        exact = maximise(Likelihood(z, y, parts))
        np.testing.assert_allclose(fits.full, [exact.beta, *exact.tau], atol=2e-3)


def test_parts_are_cut_exactly():
    none = np.zeros((2, 0))
    parts = (Part(slice(0, 4), np.zeros(2), none), Part(slice(4, 10), np.ones(2), none))
    assert [(p.rows.start, p.rows.stop) for p in within(parts, slice(2, 7), 10)] == [(2, 4), (4, 7)]
    assert [(p.rows.start, p.rows.stop) for p in without(parts, slice(2, 7), 10)] == [(0, 2), (7, 10)]


def test_row_log_likelihoods_sum_to_the_likelihood():
    z, y, pi = world(700, 30, 0)
    z, theta = centred_rows(z), np.array([0.8, 0.3])
    rows = row_log_likelihood(z, y, 0.8, at(one_part(pi), theta), threads=2)
    assert rows.sum() == pytest.approx(Likelihood(z, y, one_part(pi))(theta)[0], rel=1e-5)


def test_stand_in_priors_leave_out_the_fold_they_judge():
    _, y, _ = world(1000, 10, 0)
    folds = fold_edges(1000, 5)
    prior = log_priors(y, 10, folds, None, None)
    for fold, part in zip(folds, prior.folds, strict=True):
        others = np.delete(y, np.arange(fold.start, fold.stop))
        expected = smoothed_log_prior(np.bincount(others, minlength=10))
        np.testing.assert_allclose(part.directions[:, 0], expected - expected.mean())
    np.testing.assert_allclose(prior.log_prior, smoothed_log_prior(np.bincount(y, minlength=10)))


def test_nothing_a_fold_is_judged_with_knows_its_labels():
    _, y, _ = world(1000, 10, 0)
    folds, rng = fold_edges(1000, 5), np.random.default_rng(0)
    for number, fold in enumerate(folds):
        other = y.copy()
        other[fold] = rng.integers(0, 10, fold.stop - fold.start)
        first, second = (log_priors(labels, 10, folds, None, None) for labels in (y, other))
        assert len(first.rest[number]) in (1, 2)  # the rows before and behind it
        for one, two in zip(
            (first.folds[number], *first.rest[number]), (second.folds[number], *second.rest[number]), strict=True
        ):
            np.testing.assert_array_equal(one.directions, two.directions)
        assert (first.final.directions != second.final.directions).any()


@pytest.mark.parametrize(("rows", "classes"), [(500, 100), (2000, 500), (2000, 50)])
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_labels_that_stand_in_for_training_counts_leave_tau_unbiased(rows, classes, tau):
    found = []
    for seed in range(3):
        z, y, _ = world(rows, classes, seed, tau=tau)
        found.append(fit_correction(z, y, models=["tilt"]).evidence["tau"])
    assert np.mean(found) == pytest.approx(tau, abs=0.06)


def test_a_geometric_mean_that_rises_by_giving_up_classes_is_not_recommended():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(20), 15)
    before = rng.integers(0, 20, 300)
    after = np.where(y < 6, y, 0)
    effect = measure_effect(y, before, after, metrics={"g_mean": METRICS["g_mean"]})
    assert effect.missed[1] == 14 > effect.missed[0] == 20 - len(np.unique(y[y == before]))
    assert effect.difference_interval["g_mean"][0] > 0
    recommended, why = judge(effect, METRICS["g_mean"])
    assert not recommended
    assert "14 classes would never be right" in why


def test_poisson_weights_have_the_moments_of_a_poisson():
    drawn = poisson_weights(np.random.default_rng(0), (100, 10_000)).astype(float)
    assert drawn.mean() == pytest.approx(1, abs=0.004)
    assert drawn.var() == pytest.approx(1, abs=0.01)


def test_intervals_have_the_width_that_theory_gives():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 4000)
    before = np.where(rng.random(4000) < 0.5, y, (y + 1) % 5)
    after = np.where(rng.random(4000) < 0.2, y, before)
    effect = measure_effect(y, before, after, draws=1000)
    gain = (after == y).astype(float) - (before == y)
    low, high = effect.difference_interval["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * gain.std() / 4000**0.5, rel=0.1)
    low, high = effect.after_interval["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * (after == y).std() / 4000**0.5, rel=0.1)
    for key in REPORTED:
        low, high = effect.after_interval[key]
        assert low <= effect.after[key] <= high
    assert effect.changed == (before != after).sum()
    again = measure_effect(y, before, after, draws=1000)
    assert again == effect


def effect_of(low, high, *, key="accuracy", turned=50, changed=60, gain=0.02):
    zero, span = dict.fromkeys(METRICS, 0.5), {k: [low, high] for k in METRICS}
    after = dict.fromkeys(METRICS, 0.5 + gain)
    return Effect(800, zero, after, span, span, changed, turned)


@pytest.mark.parametrize(
    ("effect", "metric", "recommended", "words"),
    [
        (effect_of(0.01, 0.03), "accuracy", True, "recommended: accuracy rises by 1.0 to 3.0 points on 800 rows"),
        (effect_of(-0.004, 0.009), "accuracy", False, "the change in accuracy is -0.4 to +0.9 points on 800 rows"),
        (effect_of(-0.004, 0.009), "accuracy", False, "harm is not excluded"),
        (effect_of(-0.03, -0.01), "accuracy", False, "not recommended: accuracy falls by 1.0 to 3.0 points"),
        (effect_of(-0.03, -0.01, gain=-0.02), "count_distance", True, "counts falls by 1.0 to 3.0 points"),
        (effect_of(0.01, 0.03), "count_distance", False, "not recommended: the distance"),
        (effect_of(0.01, 0.03, turned=4), "accuracy", False, "only 4 predictions change sides"),
        (effect_of(0.0001, 0.0009, gain=0.0004), "accuracy", False, "0.01 to 0.1 points on 800 rows the fit had not"),
        (effect_of(0.0, 0.0, changed=0), "accuracy", False, "no prediction changes"),
    ],
)
def test_verdicts(effect, metric, recommended, words):
    found, why = judge(effect, METRICS[metric])
    assert found is recommended
    assert words in why
    assert why.startswith("recommended" if recommended else "not recommended")


def test_effect_block_of_the_audit():
    z, y, pi = world(3000, 40, 0, tau=1.0)
    found = crossfit_effect(centred_rows(z), y, parts=one_part(pi), start=np.array([1.0, 1.0]), folds=2)
    assert {"goal", "before", "after", "after_interval", "difference_interval", "recommended", "why"} < found.keys()
    assert found["before"]["accuracy"] == pytest.approx(accuracy(z, y))
    fresh, labels, _ = world(30_000, 40, 1, tau=1.0)
    corrected = found["scale"] * fresh + found["offset"]
    assert accuracy(corrected, labels) == pytest.approx(found["after"]["accuracy"], abs=0.025)
    for goal in ("balanced-accuracy", "counts"):
        known = crossfit_effect(centred_rows(z), y, parts=one_part(pi), goal=goal, log_prior=np.log(pi), threads=2)
        assert np.isfinite(known["offset"]).all()
    json.dumps({key: value for key, value in found.items() if key != "offset"})


def test_masked_classes_and_rows_whose_class_is_masked():
    z, y, _ = world(1500, 10, 0, tau=1.0)
    z[:, 3] = -np.inf
    z[:40, 5] = -np.inf
    for goal in ("accuracy", "balanced-accuracy", "counts"):
        found = fit_correction(z, y, goal=goal)
        assert np.isfinite(found.offset).all()
        assert found.rows == 1500
        applied = found.apply(z)
        assert np.isneginf(applied[:, 3]).all()
        assert not np.isnan(applied).any()
        assert not (found.predict(z) == 3).any()
    assert found.evidence["before"]["accuracy"] == pytest.approx(accuracy(z, y))


@pytest.mark.parametrize("goal", ["accuracy", "balanced-accuracy", "counts"])
def test_two_classes(goal):
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.1).astype(int)
    z = np.stack([np.zeros(2000), rng.normal(2 * y - 1.0)], axis=1)
    found = fit_correction(z, y, goal=goal)
    assert found.classes == 2
    assert np.isfinite(found.offset).all()


def test_classes_without_rows_and_few_rows_for_many_classes():
    z, y, _ = world(60, 400, 0, tau=1.0)
    found = fit_correction(z, y)
    assert found.classes == 400
    assert "biases" not in found.evidence["log_likelihood"]
    assert np.isfinite(found.offset).all()
    found = fit_correction(*world(200, 3, 0)[:2], train_counts=[10, 5, 0])
    assert np.isfinite(found.offset).all()


def test_equally_frequent_classes():
    z, y, _ = world(2000, 8, 0, alpha=0.0)
    found = fit_correction(3 * z, y, train_counts=np.full(8, 100))
    assert found.scale == pytest.approx(1 / 3, rel=0.15)


def test_half_precision_gives_nearly_the_same():
    z, y, pi = world(2000, 20, 0, tau=1.0)
    whole, half = (fit_correction(v, y, train_counts=pi * 1e5) for v in (z, z.astype(np.float16)))
    np.testing.assert_allclose(whole.offset, half.offset, atol=0.02)
    assert half.apply(z.astype(np.float16)).dtype == np.float32
    assert whole.apply(z).dtype == np.float64


def test_same_seed_same_correction(tilted):
    z, y, pi, found = tilted
    again = fit_correction(z, y, train_counts=pi * 50_000)
    np.testing.assert_array_equal(found.offset, again.offset)
    assert found.evidence == again.evidence
    tensor = fit_correction(torch.tensor(z), torch.tensor(y), train_counts=torch.tensor(pi * 50_000))
    np.testing.assert_allclose(found.offset, tensor.offset)


def test_apply_and_predict_agree_between_numpy_and_torch(tilted):
    z, _, _, found = tilted
    z = z[:200].astype(np.float32)
    np.testing.assert_allclose(found.apply(torch.tensor(z)).numpy(), found.apply(z), rtol=1e-6)
    np.testing.assert_array_equal(found.predict(torch.tensor(z)).numpy(), found.predict(z))
    np.testing.assert_array_equal(found.predict(z.reshape(10, 20, -1)), found.predict(z).reshape(10, 20))
    assert int(found.predict(z[0])) == found.predict(z)[0]
    assert found.apply(torch.tensor(z).bfloat16()).dtype == torch.float32
    assert found.predict(z[:0]).shape == (0,)


@pytest.mark.parametrize("bias", [True, False])
def test_folded_layer_predicts_what_the_correction_predicts(bias):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(16, 30, bias=bias), torch.randn(500, 16)
    z, y, pi = world(3000, 30, 0, tau=2.0)
    found = fit_correction(3 * z, y, train_counts=pi * 1e5)
    assert found.scale != 1
    with torch.no_grad():
        expected = found.apply(layer(x))
        found.fold_into(layer)
        folded = layer(x)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4)
    assert (folded.argmax(1) == expected.argmax(1)).float().mean() > 0.999
    assert isinstance(layer.bias, torch.nn.Parameter)
    assert layer.weight.requires_grad
    assert layer.weight.grad_fn is None


def test_a_layer_is_corrected_twice_only_on_demand(tilted):
    found = tilted[3]
    layer = torch.nn.Linear(16, 30)
    found.fold_into(layer)
    once = layer.bias.detach().clone()
    for marked in (layer, deepcopy(layer)):
        with pytest.raises(InputError, match=r"a correction for accuracy is folded in.*again=True"):
            found.fold_into(marked)
    torch.testing.assert_close(layer.bias.detach(), once)
    found.fold_into(layer, again=True)
    torch.testing.assert_close(layer.bias.detach(), found.scale * once + torch.tensor(found.offset).float())
    assert "evenhand" not in " ".join(layer.state_dict())


@pytest.mark.parametrize("goal", ["accuracy", "balanced-accuracy"])
def test_wanted_counts_are_not_ignored(tilted, goal):
    z, y, _, _ = tilted
    with pytest.raises(InputError, match=f"wanted counts belong to the goal counts but the goal is {goal}"):
        fit_correction(z, y, goal=goal, wanted_counts=np.ones(30))


def test_folding_refuses_what_is_no_last_layer(tilted):
    found = tilted[3]
    for other in (torch.nn.Linear(16, 31), torch.nn.ReLU(), object()):
        with pytest.raises(InputError, match="expected a layer whose weight has 30 rows"):
            found.fold_into(other)


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_saved_corrections_come_back_bit_by_bit(tmp_path, tilted, ending):
    z, y, pi, _ = tilted
    names = [f"class {c} \u2603" for c in range(30)]
    found = fit_correction(z, y, train_counts=pi * 50_000, class_names=names)
    path = tmp_path / f"fix.{ending}"
    found.save(path)
    again = Correction.load(path, classes=30, class_names=names)
    np.testing.assert_array_equal(again.offset, found.offset)
    np.testing.assert_array_equal(again.goal_offset, found.goal_offset)
    arrays_of = {"offset": 0, "goal_offset": 0, "cross_fitted": 0}
    assert vars(again) | arrays_of == vars(found) | arrays_of
    with pytest.raises(InputError, match="is for 30 classes but the predictions have 31"):
        Correction.load(path, classes=31)
    with pytest.raises(InputError, match="other class names, or for another order"):
        Correction.load(path, class_names=names[::-1])


@given(offset=arrays(np.float64, 5, elements=st.floats(-1e6, 1e6)), scale=st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_any_numbers_survive_the_file(tmp_path_factory, offset, scale):
    found = Correction(scale, offset, "accuracy", "tilt", {}, 1, 2, False, "why")
    for ending in ("json", "npz"):
        path = tmp_path_factory.mktemp("fix") / f"fix.{ending}"
        found.save(path)
        again = Correction.load(path)
        np.testing.assert_array_equal(again.offset, offset)
        assert again.scale == scale


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": "evenhand.correction/9"}, "should have schema evenhand.correction/2 but has"),
        ({"schema": None}, "should have schema"),
        ({"offset": [0.0]}, "is damaged"),
        ({"offset": [0.0] * 29 + [float("nan")]}, "is damaged"),
        ({"offset": ["a"] * 30}, "is damaged"),
        ({"offset": None}, "is damaged"),
        ({"scale": 0}, "is damaged"),
        ({"scale": "1"}, "is damaged"),
        ({"scale": float("inf")}, "is damaged"),
        ({"goal": 3}, "is damaged"),
        ({"classes": 31}, "is damaged"),
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, tilted, change, sentence):
    path = tmp_path / "fix.json"
    tilted[3].save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=sentence):
        Correction.load(path)


def test_other_files_are_refused(tmp_path, tilted):
    found = tilted[3]
    for content, sentence in ((b"\x00\xff", "does not parse"), (b"[1]", "JSON object"), (b"[" * 100_000, "not parse")):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            Correction.load(tmp_path / "a.json")
    np.savez(tmp_path / "a.npz", logits=np.zeros(3))
    with pytest.raises(InputError, match="holds no correction"):
        Correction.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", offset=np.zeros(3), facts=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        Correction.load(tmp_path / "b.npz")
    with pytest.raises(InputError, match=r"\.json or \.npz"):
        found.save(tmp_path / "fix.pickle")
    with pytest.raises(FileNotFoundError):
        Correction.load(tmp_path / "none.json")


def bad(change):
    z, y, _ = world(60, 4, 0)
    arguments = {"logits": z, "target": y} | change(z.copy(), y.copy())
    return arguments.pop("logits"), arguments.pop("target"), arguments


def spoiled(z, row, column, value):
    z[row, column] = value
    return {"logits": z}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda z, y: spoiled(z, 7, 1, np.nan), r"in 1 row \(row 7\)"),
        (lambda z, y: spoiled(z, 7, 1, np.inf), r"in 1 row \(row 7\)"),
        (lambda z, y: spoiled(z, 7, slice(None), -np.inf), r"in 1 row \(row 7\)"),
        (lambda z, y: spoiled(z, slice(None), 0, np.nan), "in 60 rows"),
        (lambda z, y: {"logits": z[:19], "target": y[:19]}, "at least 20 rows"),
        (lambda z, y: {"logits": z[:, :1]}, "at least 2"),
        (lambda z, y: {"logits": z[:30]}, "rows"),
        (lambda z, y: {"logits": z[0]}, "two axes"),
        (lambda z, y: {"logits": z.astype(int)}, "float16, float32 or float64"),
        (lambda z, y: {"target": y + 4}, "between 0 and 3"),
        (lambda z, y: {"target": y - 4}, "negative"),
        (lambda z, y: {"target": y + 0.5}, "whole class numbers"),
        (lambda z, y: {"goal": "speed"}, "expected a goal among"),
        (lambda z, y: {"models": ("forest",)}, "expected models among"),
        (lambda z, y: {"models": ()}, "expected models among"),
        (lambda z, y: {"models": "tilt"}, "expected models among"),
        (lambda z, y: {"folds": 1}, "at least 2 folds"),
        (lambda z, y: {"train_counts": [1, 2, 3]}, "train_counts has 3 entries"),
        (lambda z, y: {"offset_known": [1, 2, 3]}, "offset_known must hold one finite number"),
        (lambda z, y: {"offset_known": [1, 2, 3, np.nan]}, "offset_known must hold one finite number"),
        (lambda z, y: {"wanted_counts": [0, 0, 0, 0], "goal": "counts"}, "not all zero"),
        (lambda z, y: {"class_names": ["a"]}, "class_names has 1 entries"),
    ],
)
def test_unusable_input_gets_one_sentence(change, sentence):
    logits, target, options = bad(change)
    with pytest.raises(InputError, match=sentence):
        fit_correction(logits, target, **options)


def test_apply_refuses_other_shapes(tilted):
    found = tilted[3]
    for logits in (np.zeros((3, 29)), np.float64(3), np.zeros((3, 30), int), torch.zeros(3, 29)):
        with pytest.raises(InputError, match="30 classes on the last axis"):
            found.apply(logits)


def test_inputs_are_left_as_they_were():
    z, y, pi = world(300, 6, 0, tau=1.0)
    counts = 20_000 * pi
    copies = z.copy(), y.copy(), counts.copy()
    fit_correction(z, y, train_counts=counts, goal="counts")
    for value, copy in zip((z, y, counts), copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_cross_fitted_decisions_are_those_that_were_measured(tmp_path):
    z, y, pi = world(2000, 20, 3, tau=1.0)
    z[5, y[5]] = -np.inf  # takes no part in the fit, and is decided all the same
    for goal in ("accuracy", "macro-f1"):
        found = fit_correction(z, y, goal=goal, train_counts=pi * 1e4)
        assert found.cross_fitted.shape == y.shape
        assert float((found.cross_fitted == y).mean()) == pytest.approx(found.evidence["after"]["accuracy"], abs=1e-12)
        assert (found.cross_fitted == found.predict(z)).mean() > 0.95
    found.save(tmp_path / "fix.json")
    assert len(Correction.load(tmp_path / "fix.json").cross_fitted) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 6))
def test_folds_never_part_a_group(seed, groups, folds):
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, 60)])
    y = rng.integers(0, 3, len(group))
    rows = prepare(rng.normal(size=(len(group), 3)), y, group=group, seed=seed)
    assert (rows.group == group[rows.order]).all()
    assert (rows.y == y[rows.order]).all()
    slices = fold_edges(rows.usable, folds, rows.group)
    assert 2 <= len(slices) <= folds
    assert slices[0].start == 0
    assert slices[-1].stop == len(group)
    assert all(a.stop == b.start for a, b in pairwise(slices))
    sides = [set(rows.group[fold].tolist()) for fold in slices]
    assert sum(map(len, sides)) == len(set().union(*sides))


def test_copies_of_rows_say_no_more_than_the_rows_when_they_are_grouped():
    z, y, pi = world(400, 10, 0, tau=0.5)
    copies = {"logits": np.tile(z, (9, 1)), "target": np.tile(y, 9)}
    names = np.tile([f"text {i}" for i in range(400)], 9)

    def width(found):
        low, high = found.evidence["difference_interval"]["accuracy"]
        return high - low

    once = width(fit_correction(z, y, train_counts=pi * 1e4))
    assert width(fit_correction(**copies, group=names, train_counts=pi * 1e4)) == pytest.approx(once, rel=0.35)
    assert width(fit_correction(**copies, train_counts=pi * 1e4)) < once / 2


def test_groups_that_do_not_fit_are_refused():
    z, y, _ = world(100, 4, 0)
    with pytest.raises(InputError, match=r"a group for each of the 100 rows, got shape \(99,\)"):
        fit_correction(z, y, group=np.arange(99))
    with pytest.raises(InputError, match="at least two groups, got one"):
        fit_correction(z, y, group=np.zeros(100, int))
