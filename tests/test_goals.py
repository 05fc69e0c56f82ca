"""Goals: metrics against scikit-learn, rules against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from evenhand.declared import InputError
from evenhand.goals import GOALS, METRICS, Aim, Calibrated, find_goal, match_counts
from evenhand.tilt import FLOOR, Part, centred_rows


def world(rows, classes, seed, *, skill=0.5, alpha=1.0, dimensions=12):
    """Exact log posteriors of Gaussian classes with Zipf priors."""
    rng = np.random.default_rng(seed)
    prior = (np.arange(classes) + 1.0) ** -alpha
    prior /= prior.sum()
    centre = skill * np.random.default_rng(1).normal(size=(classes, dimensions))
    y = rng.choice(classes, rows, p=prior)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(prior), y, prior


def calibrated(z, *, beta=1.0, constant=None, threads=1):
    k = z.shape[1]
    part = Part(slice(None), np.zeros(k) if constant is None else constant, np.zeros((k, 0)))
    z = centred_rows(z)
    return Calibrated(z, beta, (part,), bool(z.min() <= FLOOR), threads)


def distance(y, predicted, classes):
    counts = [np.bincount(v, minlength=classes) for v in (y, predicted)]
    return float(np.abs(counts[0] - counts[1]).sum() / (2 * len(y)))


labels = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=40)
    )
)


@given(labels)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_metrics_agree_with_scikit_learn(case):
    k, pairs = case
    y, predicted = np.array(pairs).T
    counts = [np.bincount(v, minlength=k).astype(float) for v in (y, predicted, y[y == predicted])]
    value = {key: float(metric.measure(*counts)) for key, metric in METRICS.items()}
    assert value["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert value["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))
    assert value["macro_f1"] == pytest.approx(f1_score(y, predicted, average="macro", zero_division=0))
    assert value["count_distance"] == pytest.approx(distance(y, predicted, k))


def test_metrics_work_on_many_draws_at_once():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 9, (2, 5, 7)).astype(float)
    hits = np.minimum(true, predicted)
    for metric in METRICS.values():
        metric = metric.bound(Aim(np.zeros(7), groups=np.arange(7) % 3, stated_prior=np.arange(7) / 21))
        one_by_one = [metric.measure(true[i], predicted[i], hits[i]) for i in range(5)]
        np.testing.assert_allclose(metric.measure(true, predicted, hits), one_by_one)


def test_every_goal_is_found_by_its_name_and_an_unknown_one_refused():
    assert all(find_goal(name).name == name for name in GOALS)
    with pytest.raises(InputError, match="expected a goal among accuracy, balanced-accuracy, macro-f1"):
        find_goal("fairness")


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_give_what_the_whole_array_gives(threads):
    z, _, _ = world(3000, 300, 0)
    constant = np.random.default_rng(2).normal(size=300)
    rows = calibrated(z, beta=0.7, constant=constant, threads=threads)
    np.testing.assert_array_equal(rows.decide(constant), (0.7 * z + 2 * constant).argmax(axis=1))
    np.testing.assert_allclose(rows.soft_counts(), softmax(0.7 * z + constant, axis=1).sum(axis=0), rtol=1e-4)


def test_only_the_rows_of_the_parts_count():
    z, _, _ = world(100, 5, 0)
    none = np.zeros((5, 0))
    parts = (Part(slice(10, 20), np.zeros(5), none), Part(slice(50, 55), np.zeros(5), none))
    rows = Calibrated(centred_rows(z), 1.0, parts)
    expected = np.concatenate([z[10:20], z[50:55]])
    np.testing.assert_array_equal(rows.decide(np.zeros(5)), expected.argmax(axis=1))
    assert rows.soft_counts().sum() == pytest.approx(15, rel=1e-5)


def test_balanced_accuracy_rule_is_not_beaten_by_other_offsets():
    z, y, prior = world(60_000, 6, 3)
    rows, metric = calibrated(z), METRICS["balanced_accuracy"]
    best = GOALS["balanced-accuracy"].rule(rows, Aim(np.log(prior)), None).offset

    def score(offset):
        predicted = rows.decide(offset)
        counts = [np.bincount(v, minlength=6).astype(float) for v in (y, predicted, y[y == predicted])]
        return float(metric.measure(*counts))

    rng = np.random.default_rng(0)
    others = [score(best + rng.normal(0, 0.7, 6)) for _ in range(20)]
    assert score(best) > max(others)
    assert score(best) > score(np.zeros(6)) + 0.05


def test_accuracy_rule_leaves_posteriors_alone():
    z, _, prior = world(50, 4, 0)
    decision = GOALS["accuracy"].rule(calibrated(z), Aim(np.log(prior)), None)
    assert decision.additive
    assert not decision.offset.any()


@pytest.mark.parametrize(("rows", "classes", "skill"), [(4000, 2, 0.2), (5000, 20, 0.2), (8000, 200, 0.4)])
def test_matched_counts_reach_the_noise_floor_on_other_rows(rows, classes, skill):
    z, _, prior = world(rows, classes, 5, skill=skill)
    fresh, y, _ = world(rows, classes, 6, skill=skill)
    offset = match_counts(calibrated(z))
    draws = [np.random.default_rng(s).choice(classes, (2, rows), p=prior) for s in range(20)]
    floor = np.mean([distance(a, b, classes) for a, b in draws])
    before = distance(y, fresh.argmax(axis=1), classes)
    after = distance(y, calibrated(fresh).decide(offset), classes)
    assert before > 1.8 * floor
    assert after < 1.25 * floor + 0.5 / rows**0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_are_matched_where_many_classes_win_the_same_rows(seed):
    """Scores that hardly differ between rows: all rare classes rise at once, and a fixed step overshoots for ever."""
    rng, classes, rows = np.random.default_rng(seed), 100, 2000
    z = -np.log(np.arange(1, classes + 1)) + 0.2 * rng.normal(size=(rows, 8)) @ rng.normal(size=(8, classes))
    one = calibrated(z)
    wanted = one.soft_counts()
    before, after = (
        np.abs(np.bincount(one.decide(b), minlength=classes) - wanted).sum() / 2 / rows
        for b in (np.zeros(classes), match_counts(one))
    )
    assert before > 0.6
    assert after < 0.03


def test_wanted_counts_are_met_up_to_scale():
    z, _, _ = world(3000, 8, 0, skill=0.3)
    wanted = np.arange(1.0, 9)
    rows = calibrated(z)
    met = np.bincount(rows.decide(match_counts(rows, wanted)), minlength=8) / 3000
    np.testing.assert_allclose(met, wanted / wanted.sum(), atol=0.01)


def test_masked_classes_stay_masked_whatever_is_added():
    z, _, _ = world(500, 6, 0)
    z[:, 2] = -np.inf
    z[::2, 4] = -np.inf
    rows = calibrated(z, beta=0.01)
    offset = np.zeros(6)
    offset[[2, 4]] = 1e3
    decided = rows.decide(offset)
    assert not (decided == 2).any()
    assert not (decided[::2] == 4).any()
    assert (decided[1::2] == 4).all()
    matched = match_counts(rows)
    assert np.isfinite(matched).all()
    np.testing.assert_allclose(rows.soft_counts(), np.exp(log_softmax(0.01 * z, axis=1)).sum(axis=0), rtol=1e-3)
