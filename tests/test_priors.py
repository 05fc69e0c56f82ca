"""Priors: shifts are found where there are some, and stand-in counts do not bias the tilt."""

import numpy as np
import pytest

from evenhand.priors import SMOOTHING, fold_log_priors, prior_shift, smoothed_log_prior
from evenhand.tilt import Likelihood, Part, centred_rows, fit_tilt, maximise


def zipf(classes, alpha=1.0):
    pi = (np.arange(classes) + 1.0) ** -alpha
    return pi / pi.sum()


def gaussian_posteriors(rng, pi, rows, skill=0.7, dimensions=16):
    """Exact log posteriors under `pi`."""
    centre = skill * rng.normal(size=(len(pi), dimensions))
    y = rng.choice(len(pi), rows, p=pi)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi), y


def test_smoothed_log_prior():
    found = smoothed_log_prior(np.array([7, 0, 2]))
    np.testing.assert_allclose(np.exp(found), np.array([7.5, 0.5, 2.5]) / 10.5)
    assert np.exp(smoothed_log_prior(np.array([5, 5]), 3.0)).sum() == pytest.approx(1)
    assert SMOOTHING == 0.5


@pytest.mark.parametrize(("classes", "rows", "alpha"), [(2, 300, 1), (10, 1000, 1), (100, 2000, 1.3), (500, 3000, 1)])
def test_samples_of_one_prior_show_no_shift(classes, rows, alpha):
    rng = np.random.default_rng(classes)
    pi = zipf(classes, alpha)
    found = [
        prior_shift(rng.multinomial(rows, pi), rng.multinomial(20 * rows, pi).astype(float), seed=s) for s in range(150)
    ]
    assert sum(f.present for f in found) <= 4
    assert all(not f.offset.any() for f in found if not f.present)
    z = np.array([f.z for f in found])
    assert abs(z.mean()) < 0.4
    assert 0.6 < z.std() < 1.5


@pytest.mark.parametrize(("classes", "rows"), [(10, 500), (100, 2000), (500, 2000), (500, 20_000)])
def test_a_balanced_evaluation_is_seen_and_measured(classes, rows):
    rng = np.random.default_rng(1)
    pi = zipf(classes)
    truth = -np.log(pi) - np.log(classes)
    for seed in range(10):
        train = rng.multinomial(100_000, pi).astype(float)
        found = prior_shift(np.bincount(rng.integers(0, classes, rows), minlength=classes), train, seed=seed)
        assert found.present
        assert found.distance > found.expected
        assert abs(found.slope) < 0.25
        error = (found.offset - truth) - pi @ (found.offset - truth)
        assert np.sqrt(np.average(error**2)) < 0.25 + 0.5 * (classes / rows) ** 0.5


def test_the_offset_follows_the_trend_and_single_classes():
    """Square-root frequencies, and one class ten times too frequent: both are in the offset."""
    rng = np.random.default_rng(2)
    pi = zipf(50)
    q = pi**0.5
    q[20] *= 10
    q /= q.sum()
    found = prior_shift(rng.multinomial(50_000, q), 1e6 * pi)
    truth = np.log(q / pi)
    np.testing.assert_allclose(found.offset - found.offset.mean(), truth - truth.mean(), atol=0.25)
    assert found.offset[20] - found.offset[[19, 21]].mean() == pytest.approx(np.log(10), abs=0.2)


def test_a_shift_from_equal_training_counts_is_seen():
    rng = np.random.default_rng(3)
    pi = zipf(20)
    found = prior_shift(rng.multinomial(5000, pi), np.full(20, 500.0))
    assert found.present
    assert found.slope is None
    truth = np.log(pi * 20)
    np.testing.assert_allclose(found.offset - found.offset.mean(), truth - truth.mean(), atol=0.25)


def test_absent_classes_keep_the_offset_finite():
    found = prior_shift(np.array([0, 0, 400, 300, 300]), np.array([9000.0, 0.0, 10.0, 0.0, 990.0]))
    assert found.present
    assert np.isfinite(found.offset).all()


def test_the_answer_is_reproducible_and_depends_on_the_seed_only():
    n, m = np.array([50, 30, 20]), np.array([5000.0, 3000.0, 2000.0])
    assert prior_shift(n, m, seed=1).z == prior_shift(n, m, seed=1).z
    assert prior_shift(n, m, seed=1).z != prior_shift(n, m, seed=2).z


def test_shift_as_offset_makes_tau_unbiased():
    """Posteriors of a Zipf training prior, on balanced rows: tau is 0 with the offset, -1 without."""
    rng = np.random.default_rng(4)
    pi, k, rows = zipf(50), 50, 6000
    centre = 0.7 * rng.normal(size=(k, 8))
    y = rng.integers(0, k, rows)
    x = centre[y] + rng.normal(size=(rows, 8))
    z = x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi)
    shift = prior_shift(np.bincount(y, minlength=k), 100_000 * pi)
    assert fit_tilt(z, y, np.log(pi)).tau[0] == pytest.approx(-1, abs=0.1)
    assert fit_tilt(z, y, np.log(pi), offset=shift.offset).tau[0] == pytest.approx(0, abs=0.1)


def test_folds_cover_the_sample_and_leave_their_own_rows_out():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 7, 103)
    counts = np.bincount(y, minlength=7) + 4  # rows beyond the sample
    parts = fold_log_priors(counts, y)
    np.testing.assert_array_equal(np.concatenate([np.arange(103)[rows] for rows, _ in parts]), np.arange(103))
    assert len(parts) == 5
    for rows, prior in parts:
        np.testing.assert_allclose(prior, smoothed_log_prior(counts - np.bincount(y[rows], minlength=7)))
    assert len(fold_log_priors(np.array([2, 1]), np.array([0, 1, 0]))) == 3
    assert fold_log_priors(np.array([2, 1]), np.array([], np.int64)) == []


def test_without_training_counts_the_tilt_is_not_biased_by_own_labels():
    """2,000 rows of 500 classes: judging rows by a prior that counts them makes tau about 0.2 too large."""
    k, rows = 500, 2000
    pi = zipf(k)
    crossed, naive = [], []
    for seed in range(25):
        rng = np.random.default_rng(100 + seed)
        z, y = gaussian_posteriors(rng, pi, rows, skill=0.5)
        counts = np.bincount(y, minlength=k)
        centre = centred_rows(z)

        def tau(parts, centre=centre, y=y):
            made = tuple(Part(r, np.zeros(k), (a - a.mean())[:, None]) for r, a in parts)
            return maximise(Likelihood(centre, y, made)).tau[0]

        crossed.append(tau(fold_log_priors(counts, y)))
        naive.append(tau([(slice(None), smoothed_log_prior(counts))]))
    assert np.mean(naive) > 0.1
    assert abs(np.mean(crossed)) < 0.03


@pytest.mark.parametrize("total", [0.4, 1.9, 999.99, 123456.7])
def test_counts_that_are_not_whole_are_as_good_as_whole_ones(total):
    """Truncating their sum made the pooled frequencies sum to more than one, which no multinomial draw accepts."""
    prior = np.array([0.5, 0.3, 0.15, 0.05])
    found = prior_shift(np.array([50, 30, 15, 5]), total * prior)
    assert 0 <= found.distance < 1
    assert np.isfinite(found.offset).all()
    if total > 100:
        assert not found.present
