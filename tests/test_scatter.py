"""Random class biases: their variance, what they do to intervals, and which direction they speak for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from evenhand.scatter import SPREADS, Scatter, evidence_for


def test_variance_of_planted_biases_is_found():
    rng = np.random.default_rng(1)
    v = rng.uniform(20, 400, 4000)
    gap = v * rng.normal(0, 0.3, 4000) + rng.normal(0, np.sqrt(v))
    left = Scatter(gap, v)
    assert left.variance == pytest.approx(0.09, rel=0.1)
    assert left.z > 20


def test_sampling_noise_alone_is_no_scatter():
    rng = np.random.default_rng(2)
    v = rng.uniform(20, 400, 4000)
    left = Scatter(rng.normal(0, np.sqrt(v)), v)
    assert left.variance < 2e-4
    assert abs(left.z) < 3


def test_without_scatter_an_interval_stays_what_it_was():
    left = Scatter(np.zeros(3), np.ones(3))
    assert left.widened(1.0, 0.8, 1.3, np.array([1.0, 2.0, 4.0])) == pytest.approx((0.8, 1.3))


@given(st.floats(-2, 2), st.integers(0, 50))
def test_evidence_is_the_gaussian_density_at_its_maximum(slope, seed):
    """At fixed spread the value is the log density up to a constant; the reported one is the largest over all."""
    rng = np.random.default_rng(seed)
    d, v = rng.normal(size=12), rng.uniform(1, 50, 12)
    bias = slope * d + rng.normal(0, 0.3, 12)
    value, f = evidence_for(bias, v, d)
    constant = 6 * np.log(2 * np.pi)
    for spread in SPREADS[::5]:
        w = 1 / (spread**2 + 1 / v)
        mean = w @ (bias - f * d) / w.sum()
        density = multivariate_normal(mean + f * d, np.diag(1 / w)).logpdf(bias) + constant
        assert density <= value + 1e-6


def test_shifting_and_centring_change_nothing():
    rng = np.random.default_rng(3)
    d, v, bias = rng.normal(size=9), rng.uniform(1, 9, 9), rng.normal(size=9)
    value, f = evidence_for(bias, v, d)
    again, g = evidence_for(bias + 5, v, d - 3)
    assert (again, g) == pytest.approx((value, f))


def test_best_of_many_random_directions_rarely_gains_twelve_nats():
    """The limit that a wrong order must pass: ten classes with biases at random, twenty-five random directions."""
    rng = np.random.default_rng(4)
    passed = 0
    for _ in range(300):
        bias, v = rng.normal(size=10), np.full(10, 200.0)
        none = evidence_for(bias, v, np.zeros(10))[0]
        passed += max(evidence_for(bias, v, rng.normal(size=10))[0] for _ in range(25)) - none > 12
    assert passed <= 2
