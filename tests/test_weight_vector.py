"""A weight vector beside its counts: right ones are never accused, wrong ones are named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from evenhand.orders import known_orders
from evenhand.weight_vector import WeightVector, fitted_monotone, monotone_residual, ranks, spearman
from evenhand.weights import available_rules, class_weights

RULES = [(name, {"exponent": 0.3} if name == "power" else {}) for name in available_rules()] + [
    ("power", {"exponent": 2.0}),
    ("effective-number", {"beta": 0.99}),
    ("capped", {"ratio": 3.0}),
    ("smoothed", {"rows": 50.0}),
]


def profile(name, classes, seed=0):
    rng = np.random.default_rng(seed)
    n = {
        "zipf": lambda: 50_000 / (np.arange(classes) + 1.0),
        "exponential": lambda: 5000 * 0.01 ** (np.arange(classes) / (classes - 1)),
        "step": lambda: np.where(np.arange(classes) < classes / 2, 2000, 20),
        "pareto": lambda: 20 * (1 + rng.pareto(1.1, classes)),
        "head": lambda: np.where(np.arange(classes) == 0, 100_000, rng.integers(20, 60, classes)),
        "equal": lambda: np.full(classes, 700),
    }[name]()
    return rng.permutation(np.maximum(np.floor(n), 1))


PROFILES = ["zipf", "exponential", "step", "pareto", "head", "equal"]


def innocent(v):
    assert v.order is None
    assert not v.falls_the_wrong_way
    assert not v.unnamed_order
    assert v.outlier is None
    assert not v.from_other_counts
    assert not len(v.defaults)
    assert not len(v.unusable)


@pytest.mark.parametrize(("rule", "options"), RULES)
@pytest.mark.parametrize("counts", PROFILES)
@pytest.mark.parametrize("classes", [2, 4, 10, 500])
def test_a_right_vector_is_never_accused(rule, options, counts, classes):
    n = profile(counts, classes)
    w = class_weights(n.astype(int), rule, **options)
    names = tuple(f"c{i}" for i in np.random.default_rng(1).permutation(classes))
    for stored in (w, w.astype(np.float32).astype(float), w / w.sum(), w.round(3) if w.min() > 0.05 else w):
        innocent(WeightVector(stored, n, exact=True, names=names))


@pytest.mark.parametrize(("rule", "options"), RULES)
@pytest.mark.parametrize("counts", PROFILES)
def test_sampled_counts_do_not_accuse_a_right_vector(rule, options, counts):
    """Evaluation counts stand in for the training counts: 2,000 rows of 100 classes."""
    n = profile(counts, 100)
    w = class_weights(n.astype(int), rule, **options)
    for seed in range(5):
        sample = np.random.default_rng(seed).multinomial(2000, n / n.sum()).astype(float)
        innocent(WeightVector(w, sample, exact=False))


NAMES = tuple(f"{'QWERTYUIOPASDFGHJKLZXCVBNMqwertyuiop'[i]}x" for i in range(30))
ORDERS = [o.name for o in known_orders(profile("zipf", 30), NAMES)]


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("counts", ["zipf", "exponential", "pareto"])
@pytest.mark.parametrize("rule", ["balanced", "sqrt", "effective-number", "log"])
def test_every_named_order_is_found(name, counts, rule):
    n = profile(counts, 30, seed=3)
    w = class_weights(n.astype(int), rule)
    order = {o.name: o for o in known_orders(n, NAMES)}[name]
    wrong = order.apply(w)
    v = WeightVector(wrong, n, exact=True, names=NAMES)
    if v.spread < 0.05:  # a rule that hardly weighs: nothing can be said, and nothing is
        assert v.order is None
        return
    assert v.order is not None
    np.testing.assert_allclose(v.order.apply(w), wrong)  # several names may make the same vector
    assert not v.unnamed_order


@pytest.mark.parametrize("name", ["sorted as text (0, 1, 10, 100, 2, ...)", "reversed", "shifted by +1"])
def test_orders_are_found_on_sampled_counts(name):
    n = profile("zipf", 100)
    w = class_weights(n.astype(int))
    order = {o.name: o for o in known_orders(n)}[name]
    sample = np.random.default_rng(0).multinomial(20_000, n / n.sum()).astype(float)
    assert WeightVector(order.apply(w), sample, exact=False).order.name == name


def test_a_random_order_is_wrong_but_has_no_name():
    for seed in range(20):
        n = profile("zipf", 60, seed)
        w = np.random.default_rng(seed + 50).permutation(class_weights(n.astype(int)))
        v = WeightVector(w, n, exact=True)
        assert v.order is None
        assert v.unnamed_order
        assert not v.falls_the_wrong_way


@pytest.mark.parametrize("counts", ["zipf", "exponential", "pareto"])
@pytest.mark.parametrize("classes", [10, 300])
@pytest.mark.parametrize("exact", [True, False])
def test_inverted_weights_fall_the_wrong_way(counts, classes, exact):
    n = profile(counts, classes, seed=4)
    for w in (n / n.sum(), np.sqrt(n), 1 / class_weights(n.astype(int))):
        v = WeightVector(w, n, exact=exact)
        assert v.falls_the_wrong_way
        assert v.rank_correlation < -0.99


def test_classes_left_at_one_are_named():
    n = profile("zipf", 40)
    w = class_weights(n.astype(int))
    w[[3, 17, 30]] = 1.0
    v = WeightVector(w, n, exact=True)
    assert v.defaults.tolist() == [3, 17, 30]
    assert v.order is None


def test_one_weight_far_too_small_is_the_outlier():
    n = profile("exponential", 40)
    w = class_weights(n.astype(int))
    w[11] /= 50
    v = WeightVector(w, n, exact=True)
    assert v.outlier == 11
    assert v.order is None


@pytest.mark.parametrize("seed", range(10))
def test_weights_from_other_counts(seed):
    rng = np.random.default_rng(seed)
    n = profile("zipf", 100, seed)
    other = np.maximum(1, np.floor(n * np.exp(rng.normal(0, 0.8, 100))))
    v = WeightVector(class_weights(other.astype(int)), n, exact=True)
    assert v.from_other_counts
    assert v.order is None
    assert not v.unnamed_order
    assert not v.falls_the_wrong_way
    few = np.where(n > np.median(n), 1.0, 5.0)  # by hand: two levels are a choice
    assert not WeightVector(few, n, exact=True).from_other_counts


def test_unusable_weights_are_listed_and_the_rest_is_judged():
    n = profile("zipf", 30)
    w = class_weights(n.astype(int))
    w[[2, 5, 7, 9]] = [0, -1, np.nan, np.inf]
    counts = n.copy()
    counts[12] = 0
    v = WeightVector(w, counts, exact=True)
    assert v.unusable.tolist() == [2, 5, 7, 9]
    assert set(range(30)) - set(v.judged.tolist()) == {2, 5, 7, 9, 12}
    assert v.follows_a_rule


@pytest.mark.parametrize("w", [np.zeros(5), np.full(5, np.nan), np.ones(5), np.array([np.inf, 0, -1, np.nan, 2])])
def test_vectors_that_say_nothing(w):
    v = WeightVector(w, np.array([9.0, 7, 5, 3, 1]), exact=True)
    assert (v.order, v.outlier, v.unnamed_order, v.from_other_counts) == (None, None, False, False)
    assert not v.falls_the_wrong_way
    assert v.spread == 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=30))
def test_rank_correlation_is_scipys(pairs):
    x, y = np.array(pairs, float).T
    expected = spearmanr(x, y).statistic if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0
    assert spearman(x, y) == pytest.approx(expected, abs=1e-9)
    assert ranks(x).sum() == pytest.approx(len(x) * (len(x) + 1) / 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 999))
def test_the_monotone_fit_is_the_best_of_many(n, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, n).astype(float), rng.normal(size=n)
    fitted = fitted_monotone(x, y)
    order = np.argsort(x)
    assert (np.diff(fitted[order]) >= -1e-12).all()
    assert all(np.ptp(fitted[x == v]) < 1e-12 for v in np.unique(x))
    best = ((y - fitted) ** 2).sum()
    for _ in range(30):
        steps = np.abs(rng.normal(size=6)).cumsum() - 2 * rng.random()
        assert ((y - steps[x.astype(int)]) ** 2).sum() >= best - 1e-9
    assert monotone_residual(x, y) == pytest.approx((best / n) ** 0.5)
