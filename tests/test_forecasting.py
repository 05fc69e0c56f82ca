"""Forecasts: the tilt's identities, the model classifier against simulation, every warning and its absence."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from scipy.special import log_softmax

from evenhand.advice import wrong_order
from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.expectation import expect, separability_for
from evenhand.forecasting import Plan, forecast
from evenhand.weights import class_weights

ZIPF = np.round(47_000 / np.arange(1, 501)).astype(np.int64)
varied_counts = hnp.arrays(np.int64, st.integers(3, 30), elements=st.integers(1, 10_000)).filter(
    lambda n: n.max() > 1.5 * n.min()
)


def ids(result):
    return {warning.id for warning in result.warnings}


@settings(deadline=None, max_examples=25)
@given(varied_counts, st.floats(0, 2), st.floats(0, 1))
def test_weights_and_sampler_add_up_along_the_prior(n, weight_power, sampler_power):
    result = forecast(n, class_weight=n**-weight_power, sampler_rate=n ** (1 - sampler_power))
    assert result.tau == pytest.approx(weight_power + sampler_power, abs=1e-9)
    expected = -(weight_power + sampler_power) * np.log(n)
    assert np.allclose(result.tilt, expected - expected.mean())
    if weight_power + sampler_power > 1e-3:
        assert result.correlation == pytest.approx(1)


def test_tau_of_common_plans():
    taus = {rule: forecast(ZIPF, class_weight=rule).tau for rule in ("uniform", "sqrt", "balanced")}
    assert taus == pytest.approx({"uniform": 0, "sqrt": 0.5, "balanced": 1})
    assert forecast(ZIPF, sampler_rate="balanced").tau == pytest.approx(1)
    assert forecast(ZIPF, sampler_rate="sqrt").tau == pytest.approx(0.5)
    assert forecast(ZIPF, class_weight="balanced", sampler_rate="balanced").tau == pytest.approx(2)


def test_the_scale_of_weights_and_rates_does_not_matter():
    one = forecast(ZIPF, class_weight=1 / ZIPF, sampler_rate=np.sqrt(ZIPF), batch_size=16)
    other = forecast(ZIPF * 3, class_weight=70 / ZIPF, sampler_rate=5 * np.sqrt(ZIPF), batch_size=16)
    assert np.allclose(one.tilt, other.tilt)
    assert np.allclose(one.expected.predicted, other.expected.predicted)


@pytest.mark.parametrize("rule", ["capped", "effective-number", "log"])
def test_tau_predicts_the_fit_where_the_tilt_is_not_a_power_of_the_prior(rule):
    rng = np.random.default_rng(5)
    n = np.round(20_000 / np.arange(1, 101))
    centre = rng.normal(size=(100, 12)) * 0.5
    target = rng.choice(100, size=6000, p=n / n.sum())
    x = centre[target] + rng.normal(size=(6000, 12))
    posterior = x @ centre.T - 0.5 * (centre**2).sum(1) + np.log(n / n.sum())
    logits = posterior + np.log(class_weights(n, rule))

    def loss(at):
        scores = log_softmax(at[0] * logits + at[1] * np.log(n / n.sum()), axis=1)
        return -scores[np.arange(target.size), target].mean()

    fitted = minimize(loss, [1.0, 0.0], method="Nelder-Mead").x[1]
    assert forecast(n, class_weight=rule).tau == pytest.approx(fitted, abs=0.12)


def test_small_batches_weaken_the_tilt_only_under_mean():
    weak = forecast(ZIPF, class_weight="balanced", batch_size=8)
    assert weak.slope_kept == pytest.approx(0.71, abs=0.01)
    assert 0.5 < weak.tau < 0.95
    assert "small-batch" in ids(weak)
    whole = forecast(ZIPF, class_weight="balanced", batch_size=8, reduction="sum")
    assert whole.tau == pytest.approx(1)
    assert "small-batch" not in ids(whole)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_the_model_classifier_agrees_with_simulation(tau):
    rng = np.random.default_rng(7)
    prior = ZIPF[:40] / ZIPF[:40].sum()
    tilt = -tau * np.log(prior)
    target = rng.choice(40, size=60_000, p=prior)
    score = rng.normal(size=(60_000, 40))
    score[np.arange(60_000), target] += 1.5
    predicted = (np.log(prior) + tilt + 1.5 * score).argmax(1)
    model = expect(prior, tilt, 1.5)
    assert np.allclose(model.predicted, np.bincount(predicted, minlength=40) / 60_000, atol=0.006)
    assert model.accuracy == pytest.approx((predicted == target).mean(), abs=0.007)
    assert model.recall[0] == pytest.approx((predicted == target)[target == 0].mean(), abs=0.015)


@given(hnp.arrays(np.float64, 6, elements=st.floats(0.01, 1)), st.floats(0.05, 8))
@settings(deadline=None, max_examples=30)
def test_the_model_classifier_is_a_distribution_and_without_tilt_the_best_one(weight, separability):
    prior = weight / weight.sum()
    best = expect(prior, np.zeros(6), separability)
    assert best.predicted.sum() == pytest.approx(1)
    tilted = expect(prior, -np.log(prior), separability)
    assert best.accuracy >= tilted.accuracy - 1e-9
    assert tilted.balanced_accuracy >= best.balanced_accuracy - 1e-9
    assert np.allclose(tilted.recall, tilted.recall[0])  # no prior left: all classes are alike


@given(st.floats(0.55, 0.999))
@settings(deadline=None, max_examples=15)
def test_separability_reproduces_the_accuracy(accuracy):
    prior = np.array([0.5, 0.3, 0.15, 0.05])
    assert expect(prior, np.zeros(4), separability_for(prior, accuracy)).accuracy == pytest.approx(accuracy, abs=1e-3)


def test_rounding_many_kinds_of_classes_hardly_matters(monkeypatch):
    prior = np.random.default_rng(2).dirichlet(np.ones(300))
    exact = expect(prior, -0.5 * np.log(prior), 2.0)
    monkeypatch.setattr("evenhand.expectation._MANY_KINDS", 10)
    rounded = expect(prior, -0.5 * np.log(prior), 2.0)
    assert np.allclose(rounded.predicted, exact.predicted, rtol=0.02, atol=1e-6)


def test_the_questions_pattern():
    slopes = [forecast(ZIPF, class_weight=1.0 / ZIPF**tau, accuracy=0.3).slope for tau in (0, 0.5, 1, 1.5, 2)]
    assert all(a > b for a, b in pairwise(slopes))
    assert slopes[0] > 1.25
    assert 0 < slopes[2] < 0.4
    assert slopes[4] < -0.6
    assert forecast(ZIPF, accuracy=0.3).pattern == "amplified"
    assert forecast(ZIPF, class_weight="balanced", accuracy=0.3).pattern == "flattened"
    assert forecast(ZIPF, class_weight="balanced", sampler_rate="balanced", accuracy=0.3).pattern == "mirrored"


def smoothed_optimum(weight, smoothing, truth):
    """Minimise torch's own loss on a row whose class is certain."""
    logits = torch.zeros(1, len(weight), dtype=torch.float64, requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(torch.tensor(weight), label_smoothing=smoothing, reduction="sum")
    optimiser = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure():
        optimiser.zero_grad()
        value = loss(logits, torch.tensor([truth]))
        value.backward()
        return value

    optimiser.step(closure)
    return torch.softmax(logits[0].detach(), 0).numpy()


@pytest.mark.parametrize(("ratio", "flips"), [(0.97, 0), (1.03, 1)])
def test_smoothing_threshold_is_where_torchs_own_optimum_inverts(ratio, flips):
    n = np.array([1000.0, 40, 30, 20])
    threshold = 4 * 0.7 / 0.3 + 1
    weight = np.array([1.0, 2, 3, ratio * threshold])
    result = forecast(n, class_weight=weight, label_smoothing=0.3)
    optimum = smoothed_optimum(weight, 0.3, truth=0)
    assert result.smoothing_threshold == pytest.approx(threshold)
    assert result.smoothing_flips == flips == int(optimum.argmax() != 0)
    assert result.certain_probability == pytest.approx(optimum[0], abs=1e-5)
    assert "smoothing-with-weights" in ids(result)


@pytest.mark.parametrize(("smoothing", "classes", "threshold"), [(0.1, 10, 91), (0.1, 100, 901), (0.1, 500, 4501)])
def test_smoothing_threshold_values(smoothing, classes, threshold):
    result = forecast(np.arange(1, classes + 1), class_weight="balanced", label_smoothing=smoothing)
    assert result.smoothing_threshold == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("expected", "plan"),
    [
        ("double-correction", {"class_weight": "balanced", "sampler_rate": "balanced"}),
        ("double-correction", {"class_weight": 1.0 / ZIPF**2}),
        ("full-correction", {"class_weight": "balanced"}),
        ("full-correction", {"sampler_rate": "balanced"}),
        ("inverted-weights", {"class_weight": ZIPF}),
        ("misordered-weights", {"class_weight": 1 / np.random.default_rng(0).permutation(ZIPF)}),
        ("smoothing-with-weights", {"class_weight": 1.0 / ZIPF**1.5, "label_smoothing": 0.1}),
        ("small-batch", {"class_weight": "balanced", "batch_size": 4}),
        ("noisy-weights", {"class_weight": 1.0 / ZIPF**2}),
        ("foreign-weights", {"class_weight": np.random.default_rng(1).uniform(1, 9, 500)}),
        ("zero-weights", {"class_weight": np.where(np.arange(500) == 7, 0, 1.0)}),
        ("zero-weights", {"sampler_rate": np.where(np.arange(500) == 7, 0, ZIPF)}),
        ("repeated-rows", {"sampler_rate": 1.0 / ZIPF**3}),
    ],
)
def test_warnings_are_raised(expected, plan):
    result = forecast(ZIPF, **plan)
    assert expected in ids(result)
    assert f"[{expected}]" in result.text()


def test_sound_plans_raise_no_warning():
    for plan in ({}, {"class_weight": "sqrt"}, {"sampler_rate": "sqrt", "batch_size": 128}, {"label_smoothing": 0.1}):
        assert forecast(ZIPF, **plan).warnings == ()
    assert forecast([100, 100, 100], class_weight="balanced", batch_size=8).warnings == ()


def test_one_class_batches_cancel_the_weights():
    result = forecast([990, 10], class_weight="balanced", batch_size=32)
    assert result.one_class_batches == pytest.approx(0.99**32 + 0.01**32)
    assert "one-class-batches" in ids(result)
    alone = forecast([990, 10], class_weight="balanced", batch_size=1)
    assert alone.tau == pytest.approx(0, abs=1e-9)


def test_absent_classes_are_named_and_left_out():
    result = forecast(ClassCounts.from_counts({"cat": 90, "yeti": 0, "newt": 10}), class_weight="balanced")
    assert np.isnan(result.tilt[1])
    assert result.tau == pytest.approx(1)
    assert result.expected.predicted[1] == 0
    assert "Class 'yeti' has no rows" in result.text()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["tilt"]["per_class"][1] is None


def test_all_zero_batches_are_told():
    result = forecast([95, 5], class_weight=[0.0, 1.0], batch_size=16, accuracy=0.97)
    sentence = next(warning.sentence for warning in result.warnings if warning.id == "zero-weights")
    assert f"{0.95**16:.1%} of the batches have no weight" in sentence


@pytest.mark.parametrize("shape", [lambda k: 1 / (k + 1.0), lambda k: np.exp(-k / 80)])
@pytest.mark.parametrize("rule", ["balanced", "sqrt", "effective-number"])
@pytest.mark.parametrize(
    ("words", "order"),
    [
        ("text", lambda size: np.array(sorted(range(size), key=str))),
        ("shifted", lambda size: np.roll(np.arange(size), 1)),
        ("least frequent first", None),
    ],
)
def test_the_wrong_order_is_named(shape, rule, words, order):
    n = np.random.default_rng(4).permutation(np.round(50_000 * shape(np.arange(300))) + np.arange(300) % 7)
    index = np.argsort(n, kind="stable") if order is None else order(300)
    assert words in wrong_order(class_weights(n, rule)[index], n, None)
    assert wrong_order(class_weights(n, rule), n, None) is None


def test_reversed_and_inverted_weights_are_told_apart():
    assert "reverse" in wrong_order((1 / ZIPF)[::-1], ZIPF, None)
    assert wrong_order(ZIPF.astype(float), ZIPF, None) is None


def test_names_sorted_as_text_are_recognised():
    names = [f"class {k}" for k in range(12)]
    n = np.array([40, 3, 90, 12, 77, 5, 230, 18, 9, 61, 33, 150])
    order = np.array(sorted(range(12), key=lambda k: names[k]))
    assert wrong_order((1 / n)[order], n, None) is not None
    result = forecast(n, class_weight=(1 / n)[order], names=names)
    assert "misordered-weights" in ids(result)
    assert "inverted-weights" not in ids(result)


def test_plan_and_keywords_are_the_same():
    plan = Plan([90, 10], class_weight="balanced")
    assert forecast(plan, batch_size=4).to_dict() == forecast([90, 10], class_weight="balanced", batch_size=4).to_dict()
    assert forecast([90, 10], class_weight=torch.tensor([1.0, 9.0])).tau == pytest.approx(1)


def test_equal_counts_have_nothing_to_correct():
    result = forecast([50, 50, 50], class_weight="balanced")
    assert (result.tau, result.slope, result.pattern) == (0.0, None, "proportional")
    assert "equally frequent" in result.text()


def test_many_classes_stay_cheap():
    n = np.maximum(1, np.round(1e6 / np.arange(1, 100_001))).astype(np.int64)
    result = forecast(n, class_weight="balanced", batch_size=256)
    assert result.expected.predicted.sum() == pytest.approx(1)
    assert len(result.text()) < 4000


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"class_weight": [1, 2]}, "class_weight with one number for each of 3"),
        ({"class_weight": [1, np.nan, 2]}, "class 1 has nan"),
        ({"class_weight": [0, 0, 0]}, "all are 0"),
        ({"class_weight": "blanced"}, "weight rule among"),
        ({"sampler_rate": "uniform"}, "sampler 'balanced', 'sqrt'"),
        ({"counts": [5, 5, 0], "sampler_rate": [1, 1, 1]}, "class 2 has none"),
        ({"counts": [5, 0, 0]}, "2 classes with rows"),
        ({"label_smoothing": 1.0}, r"label_smoothing in \[0, 1\)"),
        ({"batch_size": 0}, "batch_size of 1"),
        ({"reduction": "avg"}, "reduction among mean"),
        ({"accuracy": 0.2}, "accuracy above 0.6"),
        ({"names": ["a"]}, "Expected 3 names"),
        ({"class_weight": [0, 0, 1], "sampler_rate": [1, 1, 0]}, "positive weight for a class that is drawn"),
    ],
)
def test_bad_input_gets_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        forecast(**{"plan": fields.pop("counts", [60, 30, 10]), **fields})
