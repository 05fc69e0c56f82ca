"""Confusion equations and intervals: against dense algebra and against the normal distribution they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import issparse

from evenhand.shift.confusion import confusion_estimate, count_pairs, cross_check
from evenhand.shift.intervals import class_intervals, solve, uncertainty
from evenhand.shift.likelihood import Dirichlet, expectation, maximise_likelihood, posteriors


def labelled(k, n, q, seed, error=0.3):
    """Labels and predictions of a classifier that errs into the next class."""
    rng = np.random.default_rng(seed)
    y = rng.choice(k, n, p=q)
    return y, np.where(rng.random(n) < error, (y + 1) % k, y)


def test_without_a_ridge_it_solves_the_confusion_equations():
    pi, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    table = count_pairs(*labelled(3, 200_000, pi, 0), 3)
    counts = np.bincount(labelled(3, 200_000, q, 1)[1], minlength=3).astype(float)
    joint = table.counts.toarray() / 200_000
    w = np.linalg.solve(joint, counts / counts.sum())
    found = confusion_estimate(table, counts, pi, strength=1e-6)
    np.testing.assert_allclose(found, pi * w / (pi * w).sum(), atol=1e-4)
    np.testing.assert_allclose(found, q, atol=0.01)


def test_a_strong_ridge_is_no_shift():
    pi = np.array([0.5, 0.3, 0.2])
    table = count_pairs(*labelled(3, 1000, pi, 0), 3)
    np.testing.assert_allclose(confusion_estimate(table, np.array([10.0, 10, 80]), pi, strength=np.inf), pi, atol=1e-4)


def test_ten_thousand_classes_stay_sparse():
    k = 10_000
    pi = np.ones(k) / k
    table = count_pairs(*labelled(k, 30_000, pi, 0), k)
    assert issparse(table.counts)
    assert table.counts.nnz <= 2 * k
    q = np.where(np.arange(k) < k // 2, 1.6, 0.4) / k
    counts = np.bincount(labelled(k, 30_000, q, 1)[1], minlength=k).astype(float)
    found = confusion_estimate(table, counts, pi, strength=3000.0)
    assert found[: k // 2].sum() == pytest.approx(0.8, abs=0.15)


@pytest.mark.parametrize("k", [2, 20, 500])
def test_the_check_rarely_cries_without_reason(k):
    pi = np.ones(k) / k
    alarms = 0
    for seed in range(20):
        table = count_pairs(*labelled(k, 1000, pi, seed), k)
        counts = np.bincount(labelled(k, 1000, pi, 100 + seed)[1], minlength=k).astype(float)
        alarms += not cross_check(table, counts, pi, pi, strength=100.0, rng=np.random.default_rng(0)).agrees
    assert alarms <= 2


def test_the_check_sees_another_confusion():
    pi = np.ones(10) / 10
    table = count_pairs(*labelled(10, 5000, pi, 0), 10)
    counts = np.bincount(labelled(10, 5000, pi, 1)[1] // 2 * 2, minlength=10).astype(float)
    assert not cross_check(table, counts, pi, pi, strength=100.0, rng=np.random.default_rng(0)).agrees


def test_conjugate_gradients_solve_all_columns():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 30))
    h = a @ a.T + 5 * np.eye(30)
    right = rng.normal(size=(30, 4))
    x = solve(lambda v: h @ v, right, np.diag(h).copy(), tolerance=1e-8)
    np.testing.assert_allclose(x, np.linalg.solve(h, right), rtol=1e-5, atol=1e-7)


def test_errors_are_those_of_the_inverse_information():
    """The dense matrix, written out for eight classes, has the diagonal that the draws scatter with."""
    k, n, m = 8, 800, 40.0
    rng = np.random.default_rng(0)
    pi = rng.dirichlet(np.ones(k) * 5)
    centre = rng.normal(size=(k, 5))
    x = centre[rng.choice(k, n, p=pi)] + rng.normal(size=(n, 5))
    p = posteriors(x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi), 1.0, np.zeros(k))
    belief = Dirichlet(pi, m, np.zeros(k, bool))
    found = maximise_likelihood(p, pi, belief, start=pi, passes=100)
    open_ = uncertainty(p, pi, found, belief, n_eff=n, rng=rng)
    r = p.astype(float) / pi
    r /= (r @ found.q)[:, None]
    h = r.T @ r + np.diag(m * pi / found.q**2)
    inverse = np.linalg.inv(h)
    ones = inverse.sum(axis=1)
    expected = np.sqrt(np.diag(inverse - np.outer(ones, ones) / ones.sum()))
    np.testing.assert_allclose(open_.error, expected, rtol=0.2)
    np.testing.assert_allclose(open_.draws.sum(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(open_.centre, found.q, atol=0.1 * expected.min())
    assert expectation(p, pi, found.q)[0] >= 0


def test_intervals_hold_their_shares_and_stay_shares():
    q, error = np.array([1e-6, 0.001, 0.3, 0.999]), np.array([1e-5, 5e-4, 0.02, 5e-4])
    low, high = class_intervals(q, error, 0.05).T
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low <= q).all()
    assert (q <= high).all()
    assert high[2] - low[2] == pytest.approx(2 * 1.96 * 0.02, rel=0.1)
