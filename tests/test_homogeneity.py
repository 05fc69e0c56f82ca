"""Tests of equal counts, against dense formulas, brute force and their behaviour under the null."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2, false_discovery_control

from evenhand.homogeneity import (
    benjamini_hochberg,
    component_labels,
    count_noise,
    lopsided_pairs,
    mcnemar,
    noise_floor,
    stuart_maxwell,
)


def edges_of(table):
    wrong = table - np.diag(np.diag(table))
    i, j = np.nonzero(wrong)
    return i, j, wrong[i, j], len(table)


def dense(table):
    """Stuart-Maxwell as it is written: d' V^+ d with V_cc = n_c. + n_.c - 2 n_cc, V_cd = -(n_cd + n_dc)."""
    d = table.sum(axis=0) - table.sum(axis=1)
    v = np.diag(table.sum(axis=0) + table.sum(axis=1)).astype(float) - table - table.T
    statistic = float(d @ np.linalg.pinv(v, rcond=1e-12, hermitian=True) @ d)
    return statistic, int(np.linalg.matrix_rank(v, hermitian=True))


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 2.0, 40.0]))
def test_the_sparse_statistic_is_the_dense_one(classes, seed, mean):
    table = np.random.default_rng(seed).poisson(mean, (classes, classes))
    statistic, rank = dense(table)
    found = stuart_maxwell(*edges_of(table))
    assert found.statistic == pytest.approx(statistic, rel=1e-6, abs=1e-9)
    assert found.df == rank
    assert found.p == pytest.approx(chi2.sf(statistic, rank) if rank else 1.0, rel=1e-5)


def test_the_statistic_does_not_depend_on_right_rows_or_class_order():
    rng = np.random.default_rng(0)
    table = rng.poisson(1.0, (30, 30))
    order = rng.permutation(30)
    found = stuart_maxwell(*edges_of(table))
    assert stuart_maxwell(*edges_of(table + np.diag(rng.poisson(900, 30)))) == found
    assert stuart_maxwell(*edges_of(table[order][:, order])).statistic == pytest.approx(found.statistic, rel=1e-8)
    assert stuart_maxwell(*edges_of(table.T)).statistic == pytest.approx(found.statistic, rel=1e-8)


def test_separate_groups_of_classes_add_up():
    rng = np.random.default_rng(1)
    a, b = rng.poisson(5, (4, 4)), rng.poisson(5, (3, 3))
    both = np.zeros((9, 9), int)  # two classes without an error stand between and behind
    both[:4, :4], both[5:8, 5:8] = a, b
    parts, found = [stuart_maxwell(*edges_of(t)) for t in (a, b)], stuart_maxwell(*edges_of(both))
    assert found.statistic == pytest.approx(parts[0].statistic + parts[1].statistic, rel=1e-8)
    assert found.df == parts[0].df + parts[1].df == 5


def test_two_classes_are_mcnemar_and_no_errors_are_no_evidence():
    assert stuart_maxwell(*edges_of(np.array([[9, 30], [10, 2]]))).statistic == pytest.approx(400 / 40)
    found = stuart_maxwell(*edges_of(np.diag([5, 6, 7])))
    assert (found.statistic, found.df, found.p) == (0.0, 0, 1.0)
    assert stuart_maxwell(*edges_of(np.array([[1, 7, 0], [0, 1, 7], [7, 0, 1]]))).p == pytest.approx(1.0)


def test_inverted_predictions_at_500_classes_are_rejected():
    """Half a row in each of the 125,000 empty cells makes other software answer p = 1 here."""
    rng = np.random.default_rng(2)
    pi = (np.arange(500) + 1.0) ** -1
    y, answer = (rng.choice(500, 2000, p=p / p.sum()) for p in (pi, pi[::-1]))
    table = np.zeros((500, 500), int)
    np.add.at(table, (y, answer), 1)
    found = stuart_maxwell(*edges_of(table))
    assert found.p < 1e-100
    shifted = dense(table + 0.5 * ((table + table.T) == 0))
    assert chi2.sf(shifted[0], shifted[1]) > 0.5  # the naive answer, to show that this test can fail


@pytest.mark.parametrize(("classes", "rows"), [(5, 3000), (20, 4000), (200, 4000)])
def test_under_the_null_p_is_uniform_or_conservative(classes, rows):
    rng = np.random.default_rng(3)
    pi = (np.arange(classes) + 1.0) ** -1
    joint = np.outer(pi, pi) * rng.gamma(0.5, size=(classes, classes))
    joint = joint + joint.T  # symmetric: marginal homogeneity holds
    joint /= joint.sum()
    p = np.array(
        [stuart_maxwell(*edges_of(rng.multinomial(rows, joint.ravel()).reshape(joint.shape))).p for _ in range(150)]
    )
    assert (p < 0.05).mean() < 0.11
    assert (p < 0.005).mean() < 0.03
    if classes == 5:
        assert 0.4 < p.mean() < 0.6  # and with many rows per class it is exact


def test_a_long_chain_of_classes_is_solved():
    """The worst graph for an iterative solver: 400 classes, each confused only with its neighbours."""
    rng = np.random.default_rng(4)
    table = np.diag(rng.poisson(3, 399) + 1, 1) + np.diag(rng.poisson(3, 399), -1)
    statistic, rank = dense(table)
    found = stuart_maxwell(*edges_of(table))
    assert found.statistic == pytest.approx(statistic, rel=1e-6)
    assert found.df == rank == 399
    assert connected_components(table)[0] == 1


@pytest.mark.parametrize("total", [0, 1, 2, 5, 8, 31])
def test_mcnemar_is_the_exact_binomial_test(total):
    false_positive = np.arange(total + 1)
    chance = np.array([comb(total, k) / 2**total for k in range(total + 1)])
    # two-sided: all outcomes that are no more likely than the one seen
    expected = [chance[chance <= chance[k] * (1 + 1e-9)].sum() for k in range(total + 1)]
    np.testing.assert_allclose(mcnemar(false_positive, total - false_positive), expected, rtol=1e-9)


def test_mcnemar_of_many_rows():
    assert mcnemar(np.array([5_000_000]), np.array([5_010_000]))[0] == pytest.approx(
        2 * chi2.sf(1e8 / 10_010_000, 1) / 2, rel=2e-3
    )
    assert mcnemar(np.array([0]), np.array([10**6]))[0] == 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 1000))
def test_false_discovery_control_is_scipys(p, seed):
    p = np.array(p)
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p), rtol=1e-12)
    tested = np.random.default_rng(seed).random(len(p)) < 0.6
    q = benjamini_hochberg(p, tested)
    assert (q[~tested] == 1).all()
    if tested.any():
        np.testing.assert_allclose(q[tested], false_discovery_control(p[tested]), rtol=1e-12)


def test_noise_of_counts_by_simulation():
    """predicted - true of a class is FP - FN; given the errors, each is a fair coin."""
    rng = np.random.default_rng(5)
    fp, fn = np.array([40, 3, 0, 100]), np.array([20, 3, 0, 130])
    total = fp + fn
    draws = 2 * rng.binomial(total, 0.5, (20_000, 4)) - total
    np.testing.assert_allclose(count_noise(fp, fn), draws.std(axis=0), rtol=0.03)
    expected = np.abs(draws).sum(axis=1).mean() / (2 * 1000)
    assert noise_floor(fp, fn, 1000) == pytest.approx(expected, rel=0.03)
    assert noise_floor(fp * 0, fn * 0, 0) == 0.0


def test_p_values_that_stand_for_many_tests():
    rng = np.random.default_rng(3)
    p, times = rng.choice([0.001, 0.01, 0.02, 0.3, 1.0], 12), rng.integers(1, 9, 12)
    q = benjamini_hochberg(p, times=times)
    np.testing.assert_array_equal(np.repeat(q, times), benjamini_hochberg(np.repeat(p, times)))


@pytest.mark.parametrize("step", [1, 7, 1 << 19])
@pytest.mark.parametrize("edges", [0, 5, 30, 2000])
def test_components_in_pieces_are_scipys(edges, step, monkeypatch):
    monkeypatch.setattr("evenhand.homogeneity.STEP", step)
    i, j = np.random.default_rng(edges).integers(0, 60, (2, edges))
    i, j = np.unique(np.stack([i, j])[:, i != j], axis=1)
    table = np.zeros((60, 60))
    table[i, j] = 1
    expected, label = connected_components(table, directed=False)
    found = component_labels(i, j, 60)
    assert len(np.unique(found)) == expected
    assert len(np.unique(np.stack([found, label]), axis=1).T) == expected  # the same partition, whatever its numbers


def brute_pairs(table):
    """Every unordered pair with an error: (larger direction, rows, back) in the order of the classes, and q-values."""
    found = []
    for a, b in zip(*np.nonzero(np.triu(table + table.T, 1)), strict=True):
        up, down = int(table[a, b]), int(table[b, a])
        found.append((a, b, up, down) if up >= down else (b, a, down, up))
    true, predicted, rows, back = np.array(found, dtype=int).reshape(-1, 4).T
    return true, predicted, rows, back, benjamini_hochberg(mcnemar(rows, back))


COLUMNS = ("true", "predicted", "rows", "back", "q_value")


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 12), st.sampled_from([0.05, 0.7, 5.0, 300.0]), st.integers(0, 10_000))
def test_pairs_are_those_of_the_dense_table(classes, mean, seed):
    rng = np.random.default_rng(seed)
    table = rng.poisson(mean * rng.exponential(size=(classes, classes)))
    found = lopsided_pairs(*edges_of(table))
    for name, expected in zip(COLUMNS, brute_pairs(table), strict=True):
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert found["distinct"] == len(found["rows"])


@pytest.mark.parametrize("mean", [0.03, 1.0, 400.0, None])
@pytest.mark.parametrize("seed", range(4))
def test_of_many_pairs_the_worst_are_kept_exactly(mean, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    table = np.full((60, 60), 2) if mean is None else rng.poisson(mean * rng.exponential(size=(60, 60)))
    table = table if seed % 2 else np.tril(table)  # errors towards smaller classes come late in the order of pairs
    expected = brute_pairs(table)
    for name, value in {"ALL_EDGES": 20, "WORST_PAIRS": 15, "STEP": 40, "FEW": 16}.items():
        monkeypatch.setattr(f"evenhand.homogeneity.{name}", value)
    found = lopsided_pairs(*edges_of(table))
    assert found["distinct"] == len(expected[0])
    assert 15 <= len(found["rows"]) <= 45 or len(found["rows"]) == len(expected[0]) < 45
    kept = tuple(found[name] for name in COLUMNS)
    for by_class in (0, 1):  # ties in the order of the classes, and by the true class first
        best, same = (np.lexsort((by_class * c[0], c[3] - c[2]))[:15] for c in (expected, kept))
        for name, before, after in zip(COLUMNS, expected, kept, strict=True):
            np.testing.assert_array_equal(after[same], before[best], err_msg=name)
