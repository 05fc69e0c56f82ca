"""Rules of the goals: against brute force on small worlds, and against the block-coordinate rule."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import softmax

from evenhand.declared import InputError
from evenhand.goals import GOALS, METRICS, Aim, Calibrated, Decision, as_costs, frequency_groups, score, stated_prior
from evenhand.goals.decisions import mix, path
from evenhand.goals.rules import as_offset
from evenhand.tilt import Part, centred_rows


def world(rows, classes, seed, *, skill=0.5, alpha=1.0, dimensions=8):
    """Exact log posteriors of Gaussian classes with Zipf priors."""
    rng = np.random.default_rng(seed)
    prior = (np.arange(classes) + 1.0) ** -alpha
    prior /= prior.sum()
    centre = skill * np.random.default_rng(1).normal(size=(classes, dimensions))
    y = rng.choice(classes, rows, p=prior)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(prior), y, prior


def calibrated(z):
    return Calibrated(centred_rows(z), 1.0, (Part(slice(None), np.zeros(z.shape[1]), np.zeros((z.shape[1], 0))),))


def aim(prior, **stated):
    return Aim(np.log(prior), groups=frequency_groups(prior), **stated)


def block_coordinate(p, sweeps=8):
    """Macro F1 of a whole set, raised row after row (Schultheis et al. 2023)."""
    rows, n = np.arange(len(p)), p.sum(axis=0)
    d = p.argmax(axis=1)
    m = np.bincount(d, minlength=p.shape[1]).astype(float)
    t = np.bincount(d, p[rows, d], p.shape[1])
    for _ in range(sweeps):
        for i in rows:
            m[d[i]] -= 1
            t[d[i]] -= p[i, d[i]]
            d[i] = (2 * (t + p[i]) / (n + m + 1) - 2 * t / (n + m)).argmax()
            m[d[i]] += 1
            t[d[i]] += p[i, d[i]]
    return d


def expected(goal, p, decided, prior):
    """The goal's metric with expected counts in place of counted ones."""
    m = np.bincount(decided, minlength=p.shape[1]).astype(float)
    t = np.bincount(decided, p[np.arange(len(p)), decided], p.shape[1])
    n = p.sum(axis=0)
    if goal == "macro-f1":
        return float((2 * t / (n + m)).mean())
    if goal == "g-mean":
        return float(np.exp(np.log(np.maximum(t, 0.5) / n).mean()))
    groups = frequency_groups(prior)
    return float(min((t / n)[groups == g].mean() for g in range(3) if (groups == g).any()))


@pytest.mark.parametrize("goal", ["macro-f1", "g-mean", "worst-group"])
@pytest.mark.parametrize("seed", range(3))
def test_fixed_points_come_near_the_best_of_all_weightings(goal, seed):
    """Three classes: gains on a fine grid, with and without charges, hold the best decision of the population."""
    z, _, prior = world(3000, 3, seed, skill=0.7, alpha=2.0)
    p, rows = softmax(z, axis=1), calibrated(z)
    found = expected(goal, p, rows.choose([GOALS[goal].rule(rows, aim(prior), None)])[0], prior)
    gains = np.exp(np.linspace(-2, 4, 11))
    charges = [0.0] if goal != "macro-f1" else np.linspace(-0.3, 0.3, 7)
    best = 0.0
    for a, b, c, d in product(gains, gains, charges, charges):
        best = max(best, expected(goal, p, (p * [1, a, b] - [0, c * a, d * b]).argmax(axis=1), prior))
    assert found > best - 0.005
    assert found > expected(goal, p, p.argmax(axis=1), prior) + 0.01


@pytest.mark.parametrize(("classes", "skill"), [(40, 0.4), (100, 0.8)])
def test_macro_f1_is_as_good_as_block_coordinate_ascent(classes, skill):
    z, y, prior = world(4000, classes, 5, skill=skill)
    rows = calibrated(z)
    ours = rows.choose([GOALS["macro-f1"].rule(rows, aim(prior), None)])[0]
    theirs = block_coordinate(softmax(z, axis=1))
    p = softmax(z, axis=1)
    assert expected("macro-f1", p, ours, prior) > expected("macro-f1", p, theirs, prior) - 0.002
    gap = score("macro-f1", y, ours, classes=classes) - score("macro-f1", y, theirs, classes=classes)
    assert gap > -0.01
    assert score("macro-f1", y, ours, classes=classes) > score("macro-f1", y, p.argmax(axis=1), classes=classes) + 0.02


def test_a_warm_start_ends_where_a_cold_one_does():
    z, _, prior = world(4000, 50, 5)
    p, rows = softmax(z, axis=1), calibrated(z)
    for goal in ("macro-f1", "g-mean", "worst-group"):
        cold = GOALS[goal].rule(rows, aim(prior), None)
        half = Calibrated(rows.z, 1.0, (Part(slice(0, 2000), np.zeros(50), np.zeros((50, 0))),))
        warm = GOALS[goal].rule(rows, aim(prior), GOALS[goal].rule(half, aim(prior), None))
        values = [expected(goal, p, rows.choose([d])[0], prior) for d in (cold, warm)]
        assert values[1] == pytest.approx(values[0], rel=0.03)


def test_offsets_can_stand_in_for_a_decision():
    z, y, prior = world(6000, 40, 5)
    rows = calibrated(z)
    best = GOALS["macro-f1"].rule(rows, aim(prior), None)
    folded = as_offset(GOALS["macro-f1"].rule)(rows, aim(prior), None)
    assert folded.additive
    assert not best.additive
    counts = [np.bincount(rows.choose([d])[0], minlength=40) for d in (best, folded)]
    assert np.abs(counts[0] - counts[1]).sum() / 12_000 < 0.05
    values = [score("macro-f1", y, rows.choose([d])[0], classes=40) for d in (best, folded)]
    assert values[1] > values[0] - 0.015


costs_cases = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.just(k), st.integers(0, 10_000), st.sampled_from(["vector", "dense", "sparse", "triples", "column"])
    )
)


@given(costs_cases)
@settings(max_examples=60, deadline=None)
def test_costs_decide_by_the_least_expected_cost(case):
    k, seed, form = case
    rng = np.random.default_rng(seed)
    matrix = rng.gamma(1.0, size=(k, k)) + 0.1
    np.fill_diagonal(matrix, 0.0 if seed % 2 else rng.gamma(0.2, size=k))
    if form in ("vector", "column"):
        matrix = np.repeat(matrix[:, -1:] + 0.1, k, axis=1) * (1 - np.eye(k))
    given = {
        "vector": matrix[:, 0] + matrix[:, 1] * (np.arange(k) == 0),
        "column": matrix,
        "dense": matrix,
        "sparse": sparse.coo_matrix(matrix),
        "triples": tuple(v.ravel() for v in (*np.indices((k, k)), matrix)),
    }[form]
    costs = as_costs(given, k)
    y, j = (v.ravel() for v in np.indices((k, k)))
    np.testing.assert_allclose(costs.of(y, j), matrix.ravel(), atol=1e-12)
    p = rng.dirichlet(np.ones(k), 50)
    rows = calibrated(np.log(p))
    decision = GOALS["cost"].rule(rows, aim(np.full(k, 1 / k), costs=costs), None)
    assert decision.additive or form in ("dense", "sparse", "triples")
    assert decision.additive is (form in ("vector", "column")) or k == 2
    decided, risk = rows.choose([decision])[0], p @ matrix
    np.testing.assert_allclose(risk[np.arange(50), decided], risk.min(axis=1), atol=1e-4)


def test_pairs_that_are_not_listed_cost_one():
    costs = as_costs(([3], [1], [7.0]), 100_000)
    assert costs.extra.nnz == 1
    np.testing.assert_array_equal(costs.of(np.array([3, 3, 5, 5]), np.array([1, 2, 5, 6])), [7, 1, 0, 1])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([1.0, 2.0], "one number for each of the 3 classes"),
        (np.ones((3, 2)), r"matrix \(3, 3\)"),
        ([1.0, 0.0, 2.0], "above 0 but class 1 has 0"),
        ([1.0, np.nan, 2.0], "finite"),
        (["a", "b", "c"], "must be numbers"),
        (([0, 0], [1, 1], [1.0, 2.0]), "a pair of classes twice"),
        (([0], [3], [1.0]), "from 0 to 2"),
        (([0, 1], [1], [1.0]), "of one length"),
        (sparse.csr_array(([1.0], ([0], [1])), (3, 3)), "class 0 costs nothing whatever is true"),
    ],
)
def test_costs_that_make_no_sense_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        as_costs(given, 3)


def test_a_stated_prior_moves_the_decision_as_new_rows_would():
    z, _, prior = world(100, 5, 0)
    target = stated_prior(prior[::-1], 5)
    decision = GOALS["prior"].rule(calibrated(z), aim(prior, stated_prior=target), None)
    np.testing.assert_array_equal(
        calibrated(z).choose([decision])[0], (z - np.log(prior) + np.log(target)).argmax(axis=1)
    )
    for bad in ([1, 2, 3, 4], [1, 1, 1, 1, -1], [0] * 5, [1, 1, 1, 1, np.nan]):
        with pytest.raises(InputError, match="prior must"):
            stated_prior(bad, 5)


@given(st.integers(0, 1000), st.sampled_from(["macro-f1", "g-mean", "worst-group", "balanced-accuracy"]))
@settings(max_examples=20, deadline=None)
def test_rules_follow_the_classes_when_they_are_renumbered(seed, goal):
    z, _, prior = world(300, 6, seed)
    order = np.random.default_rng(seed).permutation(6)
    groups = frequency_groups(prior)
    one = GOALS[goal].rule(calibrated(z), Aim(np.log(prior), groups=groups), None)
    other = GOALS[goal].rule(calibrated(z[:, order]), Aim(np.log(prior[order]), groups=groups[order]), None)
    np.testing.assert_allclose(other.gain, one.gain[order], rtol=1e-3)


def test_mixtures_hold_every_compromise_of_linear_goals():
    """No other offsets beat the path from mean recall to accuracy in both at once."""
    z, _, prior = world(4000, 4, 0, skill=0.6, alpha=2.0)
    p, rows = softmax(z, axis=1), calibrated(z)

    def both(decided):
        t = np.bincount(decided, p[np.arange(len(p)), decided], 4)
        return np.array([t.sum() / len(p), (t / p.sum(axis=0)).mean()])

    ends = [GOALS[g].rule(rows, aim(p.mean(axis=0)), None) for g in ("balanced-accuracy", "accuracy")]
    curve = np.array([both(d) for d in rows.choose(path(*ends, prior, np.linspace(0, 1, 60)))])
    assert (np.diff(curve[:, 0]) > -1e-6).all()
    rng = np.random.default_rng(0)
    for _ in range(100):
        accuracy, recall = both((z + rng.normal(0, 1.5, 4)).argmax(axis=1))
        reachable = curve[curve[:, 0] >= accuracy - 1e-9, 1]
        if len(reachable):
            assert recall < reachable.max() + 2e-3
        else:
            assert accuracy < curve[:, 0].max() + 1e-6


def test_mixing_keeps_every_term():
    a = Decision(np.ones(2), np.array([0.1, 0.2]))
    b = Decision(np.zeros(2), None, sparse.csr_array(np.array([[0.0, 1.0], [2.0, 0.0]])))
    p = np.array([[0.3, 0.7]], dtype=np.float32)
    for share in (0.0, 0.3, 1.0):
        both = (1 - share) * a.utilities(p) + share * b.utilities(p)
        np.testing.assert_allclose(mix(a, b, share).utilities(p), both, rtol=1e-5)


def test_new_metrics_by_hand():
    true, predicted, hits = np.array([4.0, 2, 0, 2]), np.array([5.0, 1, 1, 1]), np.array([4.0, 1, 0, 0])
    assert float(METRICS["g_mean"].measure(true, predicted, hits)) == pytest.approx((1 * 0.5 * 0.25) ** (1 / 3))
    bound = METRICS["worst_group"].bound(Aim(np.zeros(4), groups=np.array([0, 1, 2, 2])))
    assert float(bound.measure(true, predicted, hits)) == 0
    bound = METRICS["worst_group"].bound(Aim(np.zeros(4), groups=np.array([0, 1, 2, 1])))
    assert float(bound.measure(true, predicted, hits)) == 0.25
    prior = METRICS["prior_accuracy"].bound(Aim(np.zeros(4), stated_prior=np.array([0.2, 0.6, 0.1, 0.1])))
    assert float(prior.measure(true, predicted, hits)) == pytest.approx((0.2 + 0.6 * 0.5) / 0.9)
    wanted = METRICS["count_distance"].bound(Aim(np.zeros(4), wanted=np.array([1.0, 1, 1, 5])))
    assert float(wanted.measure(true, predicted, hits)) == pytest.approx(0.5)
    predicted, some = np.array([6.0, 1, 0, 1]), np.array([0, 1, 3])
    narrow = wanted.narrowed(some).measure(true[some], predicted[some], hits[some])
    assert float(narrow) == pytest.approx(float(wanted.measure(true, predicted, hits)))
