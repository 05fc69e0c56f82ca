"""Weights that betray what they were made from, and the order in which they stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.fingerprints import elsewhere, made_from_counts, sampled_order, sorted_by_frequency

counts_of = st.lists(st.integers(2, 4000), min_size=6, max_size=40).filter(lambda n: len(set(n)) >= 5)


@given(counts_of, st.floats(0.01, 100))
def test_weights_made_from_any_counts_are_recognised(counts, scale):
    n = np.array(counts, dtype=float)
    assert made_from_counts(n.sum() / (len(n) * n))
    assert made_from_counts((n.sum() / (len(n) * n)).astype(np.float32).astype(float))


def test_inverse_counts_on_any_scale_are_recognised():
    n = np.array([7.0, 19, 33, 260, 1041, 12])
    assert made_from_counts(0.123456789 / n)
    assert made_from_counts(9.87654321 / np.sqrt(n))


@given(st.integers(0, 300), st.integers(6, 60))
def test_weights_drawn_at_random_are_not(seed, classes):
    assert not made_from_counts(np.random.default_rng(seed).uniform(0.5, 4, classes))


def test_weights_typed_by_hand_are_not():
    assert not made_from_counts(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert not made_from_counts(np.array([0.5, 1.25, 1.5, 2.75, 1.0, 3.1]))


@pytest.fixture
def skewed():
    return 1.0 / (np.arange(60) + 3.0)


@pytest.mark.parametrize("shift", [1, -1])
def test_a_sample_exposes_shifted_weights(skewed, shift):
    rng = np.random.default_rng(5)
    prior = rng.permutation(skewed / skewed.sum())
    used = np.roll(1 / prior, shift)
    order = sampled_order(rng.multinomial(3000, prior).astype(float), np.log(used), None)
    assert order is not None
    assert "shifted" in order.name
    assert np.allclose(order.apply(1 / prior), used)


def test_weights_in_class_order_and_weights_without_order_are_left_alone(skewed):
    rng = np.random.default_rng(6)
    prior = rng.permutation(skewed / skewed.sum())
    for _ in range(20):
        sample = rng.multinomial(3000, prior).astype(float)
        assert sampled_order(sample, -np.log(prior), None) is None
        assert sampled_order(sample, rng.uniform(-1, 1, 60), None) is None
        assert not elsewhere(sample, 1 / (60 * prior))


def test_sorted_weights_on_unsorted_classes(skewed):
    rng = np.random.default_rng(7)
    prior = rng.permutation(skewed / skewed.sum())
    sample = rng.multinomial(3000, prior).astype(float)
    found = sorted_by_frequency(sample, np.sort(-np.log(prior)))
    assert found is not None
    assert found.name == "most frequent first"
    assert sorted_by_frequency(sample, -np.log(prior)) is None


def test_classes_numbered_by_frequency_are_no_fault(skewed):
    rng = np.random.default_rng(8)
    prior = skewed / skewed.sum()
    sample = rng.multinomial(3000, prior).astype(float)
    assert sorted_by_frequency(sample, -np.log(prior)) is None
    assert sorted_by_frequency(sample, np.log(prior)) is None  # turned round is another fault


def test_right_shares_on_wrong_classes(skewed):
    rng = np.random.default_rng(9)
    prior = rng.permutation(skewed / skewed.sum())
    sample = rng.multinomial(5000, prior).astype(float)
    assert elsewhere(sample, 1 / (60 * rng.permutation(prior)))
    assert not elsewhere(sample, 1 / (60 * np.full(60, 1 / 60)))
