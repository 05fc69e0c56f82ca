"""The test of "no shift": its level for few and for very many classes, its power, and the prior it leads to."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.shift import score as shift_score
from evenhand.shift.likelihood import moments, posteriors
from evenhand.shift.score import effective_rows, looseness, score_no_shift


def zipf(k, power=1.0):
    p = (np.arange(k) + 1.0) ** -power
    return p / p.sum()


def rows(k, n, q, pi, spread, rng):
    """Exact posteriors under pi of rows drawn with frequencies q."""
    d = min(k, 12)
    centre = np.random.default_rng(99).normal(0, spread, (k, d))
    x = centre[rng.choice(k, n, p=q)] + rng.normal(size=(n, d))
    return posteriors(x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi), 1.0, np.zeros(k))


def p_values(k, n, q, pi, spread, runs, *, reference=None):
    result = []
    for seed in range(runs):
        rng = np.random.default_rng([k, n, seed])
        p = rows(k, n, q, pi, spread, rng)
        old: dict = {}
        prior = pi
        if reference is not None:
            prior, squares = moments(rows(k, reference, pi, pi, spread, rng))
            prior, old = prior / prior.sum(), {"reference_rows": reference, "reference_square": squares}
        result.append(score_no_shift(p, *moments(p), prior, rng=rng, **old).p_value)
    return np.array(result)


NULLS = [(2, 40, 1.0, 1.0), (2, 100, 0.3, 2.0), (10, 100, 0.8, 1.0), (100, 90, 0.8, 1.0), (1000, 60, 2.0, 1.0),
         (1000, 100, 1.0, 0.0)]  # fmt: skip


@pytest.mark.parametrize(("k", "n", "spread", "power"), NULLS)
def test_level_where_the_prior_is_known(k, n, spread, power):
    pi = zipf(k, power)
    p = p_values(k, n, pi, pi, spread, 150)
    assert (p < 0.05).mean() < 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 150)
    assert (p < 0.2).mean() < 0.2 + 2.6 * np.sqrt(0.2 * 0.8 / 150)
    assert (p < 0.3).mean() > 0.1  # and it is no test that never rejects


@pytest.mark.parametrize(("k", "n", "spread", "power"), NULLS)
@pytest.mark.parametrize("times", [0.5, 2])
def test_level_where_the_prior_is_the_mean_of_other_rows(k, n, spread, power, times):
    pi = zipf(k, power)
    p = p_values(k, n, pi, pi, spread, 60, reference=int(n * times))
    assert (p < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert (p < 0.3).mean() > 0.08


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "spread", "power"), [*NULLS, (10, 2000, 0.8, 1.0), (1000, 1000, 1.2, 1.0)])
def test_level_over_many_draws(k, n, spread, power):
    pi = zipf(k, power)
    p = p_values(k, n, pi, pi, spread, 1000)
    assert (p < 0.05).mean() < 0.065
    assert (p < 0.01).mean() < 0.02


@pytest.mark.parametrize(("k", "n", "spread"), [(2, 600, 1.0), (10, 300, 0.8), (100, 300, 1.0), (1000, 500, 1.5)])
def test_power(k, n, spread):
    """A quarter of the way from Zipf to equal frequencies is seen in rows few enough to be all of different classes."""
    pi = zipf(k)
    q = 0.5 * pi + 0.5 / k
    assert (p_values(k, n, q, pi, spread, 10) < 0.05).mean() >= 0.5


def test_two_classes_follow_chi_square_with_one_degree_of_freedom():
    pi = np.array([0.6, 0.4])
    p = rows(2, 5000, pi, pi, 1.0, np.random.default_rng(1))
    found = score_no_shift(p, *moments(p), pi, rng=np.random.default_rng(0))
    assert found.df == pytest.approx(1, abs=0.1)
    e, variance = p[:, 0].mean() - 0.6, ((p[:, 0] - 0.6) ** 2).mean()
    from scipy.special import chdtrc

    assert found.p_value == pytest.approx(float(chdtrc(1, 5000 * e**2 / variance)), rel=0.1)


def test_one_class_among_many_is_seen_by_the_second_part(monkeypatch):
    k, n = 800, 4000
    pi = np.ones(k) / k
    q = pi.copy()
    q[5] *= 8
    q /= q.sum()
    p = rows(k, n, q, pi, 1.5, np.random.default_rng(0))
    found = score_no_shift(p, *moments(p), pi, rng=np.random.default_rng(0))
    assert found.p_value < 1e-3
    assert np.abs(found.z).argmax() == 5
    assert looseness(found, pi, moments(p)[0]).free.tolist() == [c == 5 for c in range(k)]


def test_the_statistic_is_a_sum_over_pairs_of_rows():
    k, n = 7, 60
    pi = zipf(k)
    p = rows(k, n, pi, pi, 0.8, np.random.default_rng(0)).astype(float)
    d = (p - pi) / np.sqrt(pi + 1 / n)
    pairs = d @ d.T
    np.fill_diagonal(pairs, 0)
    found = score_no_shift(p.astype(np.float32), *moments(p.astype(np.float32)), pi, rng=np.random.default_rng(0))
    assert found.statistic == pytest.approx(pairs.sum() / n, abs=1e-3)


def test_null_variance_is_that_of_the_statistic():
    k, n = 20, 150
    pi = zipf(k)
    statistics, spreads = [], []
    for seed in range(150):
        p = rows(k, n, pi, pi, 0.8, np.random.default_rng(seed))
        found = score_no_shift(p, *moments(p), pi, rng=np.random.default_rng(0))
        statistics.append(found.statistic)
        spreads.append(found.spread)
    assert np.mean(statistics) == pytest.approx(0, abs=3 * np.std(statistics) / 150**0.5)
    assert np.var(statistics) == pytest.approx(2 * np.mean(spreads), rel=0.35)


def test_a_sample_of_the_rows_gives_the_same_null(monkeypatch):
    pi = zipf(30)
    p = rows(30, 3000, pi, pi, 0.8, np.random.default_rng(0))
    whole = score_no_shift(p, *moments(p), pi, rng=np.random.default_rng(0))
    monkeypatch.setattr(shift_score, "GRAM_ROWS", 300)
    part = score_no_shift(p, *moments(p), pi, rng=np.random.default_rng(0))
    assert part.spread == pytest.approx(whole.spread, rel=0.35)
    assert part.statistic == whole.statistic


def test_the_estimate_is_let_go_only_where_the_prior_surely_moved():
    pi = zipf(40)
    rng = np.random.default_rng(0)
    same, flat = rows(40, 1000, pi, pi, 1.0, rng), rows(40, 1000, np.ones(40) / 40, pi, 1.0, rng)
    found = [looseness(score_no_shift(p, *moments(p), pi, rng=rng), pi, moments(p)[0]) for p in (same, flat)]
    assert found[0].moved == 0
    assert found[1].moved > 0.9
    assert found[1].wide < 300 < found[0].wide


def test_effective_rows():
    assert effective_rows(100, None) == 100
    assert effective_rows(100, 100) == 50
    assert effective_rows(100, 10**9) == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_next_to_no_rows_prove_nothing(n):
    pi = zipf(5)
    p = rows(5, n, pi, pi, 1.0, np.random.default_rng(0))
    assert score_no_shift(p, *moments(p), pi, rng=np.random.default_rng(0)).p_value > 1e-3
