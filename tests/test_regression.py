"""The count regression: planted slopes come back, zeros do not bend it, intervals cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from evenhand.regression import count_slope


def draws(rng, mu, dispersion):
    return rng.poisson(mu if dispersion == 0 else mu * rng.gamma(1 / dispersion, dispersion, len(mu))).astype(float)


@given(
    st.floats(-2, 3),
    st.floats(-1, 6),
    st.integers(3, 200),
)
@settings(max_examples=60, deadline=None)
def test_exact_power_laws_come_back(slope, intercept, classes):
    x = np.linspace(0, 4, classes)
    fit = count_slope(np.exp(intercept + slope * x), x)
    assert fit.slope == pytest.approx(slope, abs=1e-4)
    assert fit.intercept == pytest.approx(intercept, abs=1e-3)
    assert fit.dispersion == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(fit.fitted, np.exp(intercept + slope * x), rtol=1e-3)


def test_poisson_counts_give_the_poisson_estimate():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 5, 80)
    n = np.floor(np.exp(1 + 0.7 * x))  # rounding: less scatter than Poisson, so no dispersion
    fit = count_slope(n, x)
    assert fit.dispersion == 0
    best = minimize(lambda t: (np.exp(t[0] + t[1] * x) - n * (t[0] + t[1] * x)).sum() / n.sum(), np.zeros(2), tol=1e-12)
    assert (fit.intercept, fit.slope) == pytest.approx(tuple(best.x), abs=1e-4)
    assert fit.fitted.sum() == pytest.approx(n.sum(), rel=1e-6)  # the score equation of the intercept
    assert count_slope(draws(rng, np.full(80, 50.0), 0), x).slope == pytest.approx(0, abs=0.05)


def test_the_estimate_solves_the_negative_binomial_score_equations():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1.5, 120)
    n = draws(rng, np.exp(3 + 0.5 * x), 0.4)
    fit = count_slope(n, x)
    gap = (n - fit.fitted) / (1 + fit.dispersion * fit.fitted)
    assert abs(gap.sum()) < 1e-4 * n.sum()
    assert abs(gap @ x) < 1e-4 * n.sum()
    assert 0.2 < fit.dispersion < 0.7


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("dispersion", [0.0, 0.5])
def test_intervals_cover_the_slope(slope, dispersion):
    inside, estimates = 0, []
    x = np.log(np.geomspace(5, 5000, 100))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        fit = count_slope(draws(rng, np.exp(4 + slope * (x - x.mean())), dispersion), x)
        inside += fit.interval[0] <= slope <= fit.interval[1]
        estimates.append(fit.slope)
    assert 0.88 <= inside / 200 <= 0.995
    assert abs(np.mean(estimates) - slope) < 0.02


def test_zeros_do_not_bend_the_slope():
    """Rare classes with an expectation of 0.05 to 5 rows: a line through log(count + 0.5) comes out far too flat."""
    rng = np.random.default_rng(2)
    x = np.linspace(-3, 5, 400)
    n = draws(rng, np.exp(x), 0)
    assert (n == 0).mean() > 0.25
    line = np.polyfit(x, np.log(n + 0.5), 1)[0]
    assert line < 0.9
    assert count_slope(n, x).slope == pytest.approx(1, abs=0.03)


def test_a_model_that_predicts_few_classes():
    n = np.zeros(300)
    n[:3] = [5000, 400, 20]
    fit = count_slope(n, np.log(np.geomspace(5000, 2, 300)))
    assert np.isfinite([fit.slope, *fit.interval, fit.dispersion]).all()
    assert fit.slope > 1.5


@pytest.mark.parametrize(
    ("counts", "x"),
    [([1, 2], [0, 1]), ([1, 2, 3], [1, 1, 1.01]), ([0, 0, 0], [0, 1, 2]), ([], [])],
)
def test_nothing_to_regress(counts, x):
    assert count_slope(np.array(counts, float), np.array(x, float)) is None


def test_shifting_x_changes_only_the_intercept():
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    n = draws(rng, np.exp(2 + x), 0.2)
    a, b = count_slope(n, x), count_slope(n, x + 10)
    assert b.slope == pytest.approx(a.slope, abs=1e-6)
    assert b.intercept == pytest.approx(a.intercept - 10 * a.slope, abs=1e-4)
    assert b.interval == pytest.approx(a.interval, abs=1e-5)
