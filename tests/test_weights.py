"""Weights: equal to their sources, to brute force, and honest about classes without rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils.class_weight import compute_class_weight

from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.weights import RULES, available_rules, class_weights, effective_weights

positive_counts = hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(1, 5000))
OPTIONS = {"power": {"exponent": 0.7}}
ZIPF = 1.0 / np.arange(1, 501)


@given(positive_counts)
def test_balanced_is_scikit_learns_to_the_last_bit(n):
    labels = np.repeat(np.arange(n.size), n)
    assert np.array_equal(class_weights(n), compute_class_weight("balanced", classes=np.arange(n.size), y=labels))


def test_the_questions_own_numbers():
    weights = class_weights([50] * 10 + [1000] * 490)
    assert np.allclose(weights, [19.62] * 10 + [0.981] * 490)


def test_formulas_straight_from_the_papers():
    n = np.array([900.0, 90, 10])
    total, pi = n.sum(), n / n.sum()
    assert np.allclose(class_weights(n, "inverse"), 1 / pi)
    assert np.allclose(class_weights(n, "sqrt"), np.sqrt(class_weights(n)))
    assert np.allclose(class_weights(n, "power", exponent=0.3), class_weights(n) ** 0.3)
    cui = (1 - 0.99) / (1 - 0.99**n)
    assert np.allclose(class_weights(n, "effective-number", beta=0.99), cui / cui.sum() * 3)
    assert np.allclose(class_weights(n, "median-frequency"), 90 / n)
    assert np.allclose(class_weights(n, "log"), 1 / np.log(1.02 + pi))
    assert np.allclose(class_weights(n, "smoothed", rows=5), (total + 15) / (3 * (n + 5)))
    assert class_weights(n, "uniform").tolist() == [1, 1, 1]


@given(positive_counts, st.floats(1, 100))
def test_capped_never_exceeds_its_ratio_and_changes_nothing_below_it(n, ratio):
    capped, balanced = class_weights(n, "capped", ratio=ratio), class_weights(n)
    assert capped.max() <= ratio * capped.min() * (1 + 1e-12)
    inside = balanced <= ratio * balanced.min()
    assert np.array_equal(capped[inside], balanced[inside])


@given(positive_counts, st.sampled_from(sorted(RULES)), st.randoms(use_true_random=False))
def test_every_rule_follows_the_classes_and_never_favours_the_frequent(n, rule, random):
    weights = class_weights(n, rule, **OPTIONS.get(rule, {}))
    assert weights.dtype == np.float64
    assert (np.diff(weights[np.argsort(n)]) <= 1e-12 * weights.max()).all()
    order = np.array(random.sample(range(n.size), n.size))
    assert np.allclose(class_weights(n[order], rule, **OPTIONS.get(rule, {})), weights[order], rtol=1e-12)


@given(positive_counts, st.sampled_from(sorted(RULES)))
def test_normalisations(n, rule):
    options = OPTIONS.get(rule, {})
    plain = class_weights(n, rule, **options)
    mean, rows = (class_weights(n, rule, normalise=how, **options) for how in ("mean", "rows"))
    assert mean.mean() == pytest.approx(1)
    assert rows @ n / n.sum() == pytest.approx(1)
    assert np.ptp(mean / plain) < 1e-9 * (mean / plain).max()


@given(positive_counts)
def test_rules_meet_in_their_limits(n):
    balanced = class_weights(n)
    assert np.allclose(class_weights(n, "power", exponent=1), balanced)
    assert np.allclose(class_weights(n, "power", exponent=0), 1)
    assert np.allclose(class_weights(n, "smoothed", rows=0), balanced)
    assert np.allclose(class_weights(n, "capped", ratio=1e9), balanced)
    near_one = class_weights(n, "effective-number", beta=1 - 1e-13)
    assert np.allclose(near_one, class_weights(n, normalise="mean"), rtol=1e-6)
    assert np.allclose(class_weights(n, "effective-number", beta=0.0), 1)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_absent_classes_follow_the_policy(rule):
    n, options = [30, 0, 10, 0], OPTIONS.get(rule, {})
    present = class_weights([30, 10], rule, **options)
    for policy, filled in (("zero", 0.0), ("one", 1.0), ("largest", present.max())):
        weights = class_weights(n, rule, absent=policy, **options)
        assert weights[[0, 2]].tolist() == present.tolist()
        assert weights[[1, 3]].tolist() == [filled, filled]
    assert np.array_equal(
        class_weights(n, rule, absent="smooth", **options), class_weights([31, 1, 11, 1], rule, **options)
    )
    assert np.array_equal(
        class_weights([3, 1], rule, absent="smooth", **options), class_weights([3, 1], rule, **options)
    )


def test_one_present_class_is_enough():
    assert class_weights([5, 0], "effective-number", absent="zero").tolist() == [1, 0]


def test_absent_classes_are_refused_by_name():
    with pytest.raises(InputError, match=r"1 class has no rows \('yeti'\).*absent='zero'"):
        class_weights(ClassCounts.from_counts({"cat": 3, "yeti": 0}))
    with pytest.raises(InputError, match=r"7 classes have no rows \(1, 2, 3, 4, 5, \.\.\.\)"):
        class_weights([1] + [0] * 7)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: class_weights([1, 2], "balance"), "among balanced, inverse"),
        (lambda: class_weights([1, 2], absent="drop"), "absent to be one of"),
        (lambda: class_weights([1, 2], normalise="sum"), "normalise to be one of"),
        (lambda: class_weights([1, 2], "sqrt", beta=0.9), "takes no options, and got 'beta'"),
        (lambda: class_weights([1, 2], "power"), "needs exponent="),
        (lambda: class_weights([1, 2], "capped", ratio=0.5), "ratio between 1"),
        (lambda: class_weights([1, 2], "log", offset=0.5), "offset between 1"),
        (lambda: class_weights([1, 2], "smoothed", rows=-1), "rows between 0"),
        (lambda: class_weights([1, 2], "effective-number", beta=1.0), "beta in"),
        (lambda: class_weights([1, 1e60], "power", exponent=10), "not finite and positive"),
        (lambda: effective_weights([1, 2], [1, 1, 1], 8), "got 2 and 3"),
        (lambda: effective_weights([1, -2], [1, 1], 8), "class_weight as a 1-D array"),
        (lambda: effective_weights([0, 1], [1, 0], 8), "positive weight for some class"),
        (lambda: effective_weights([1, 2], [1, 1], 0), "batch_size of 1 or more"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_rules_are_listed():
    assert list(available_rules()) == list(RULES)
    assert all(available_rules().values())


def enumerated(weights, rate, batch_size):
    """The definition: every multiset of the other rows, for a few classes, by brute force over all sequences."""
    sums, chances = np.zeros(1), np.ones(1)
    for _ in range(batch_size - 1):
        sums = (sums[:, None] + weights).ravel()
        chances = (chances[:, None] * rate).ravel()
    return np.array([batch_size * w * (chances / (w + sums)).sum() if w else 0.0 for w in weights])


@given(
    hnp.arrays(np.float64, 3, elements=st.floats(1e-6, 1e6)),
    hnp.arrays(np.float64, 3, elements=st.floats(1e-6, 1.0)),
    st.integers(1, 7),
)
def test_small_batches_equal_enumeration(weights, rate, batch_size):
    exact = enumerated(weights, rate / rate.sum(), batch_size)
    assert np.allclose(effective_weights(weights, rate, batch_size), exact, rtol=1e-9)


def test_a_zero_weight_stays_zero_and_thins_the_others_batches():
    weights, rate = np.array([0.0, 1.0, 3.0]), np.array([0.5, 0.3, 0.2])
    assert np.allclose(effective_weights(weights, rate, 5), enumerated(weights, rate, 5), rtol=1e-12)


def test_small_batches_agree_with_simulated_batches():
    rng = np.random.default_rng(3)
    pi = ZIPF / ZIPF.sum()
    drawn = rng.choice(500, size=(100_000, 8), p=pi)
    share = (1 / pi)[drawn] / (1 / pi)[drawn].sum(1, keepdims=True)
    simulated = np.bincount(drawn.ravel(), weights=share.ravel(), minlength=500) / (100_000 * pi)
    assert np.allclose(simulated[:20], effective_weights(1 / pi, pi, 8)[:20], rtol=0.05)


@pytest.mark.parametrize(("batch_size", "kept"), [(8, 0.71), (32, 0.94), (128, 0.99)])
def test_slope_kept_by_small_batches(batch_size, kept):
    effective = effective_weights(1 / ZIPF, ZIPF, batch_size)
    assert np.polyfit(-np.log(ZIPF), np.log(effective), 1)[0] == pytest.approx(kept, abs=0.005)


def test_small_batch_limits():
    pi = ZIPF / ZIPF.sum()
    weights = class_weights(np.arange(1, 501))
    assert np.allclose(effective_weights(weights, pi, 1), 1)
    assert np.allclose(effective_weights(weights, pi, 10**9), weights / (pi @ weights), rtol=1e-6)
    effective = effective_weights(weights, pi, 16)
    assert pi @ effective == pytest.approx(1)  # the shares of a batch's rows sum to one, whatever the weights
    assert np.allclose(effective_weights(7 * weights, 9 * pi, 16), effective)
    assert effective.max() < 16
