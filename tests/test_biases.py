"""Free class biases against float64 oracles, and the share of them that a tilt explains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from evenhand.biases import explained_share, fit_biases, one_step_biases, soft_counts
from evenhand.evidence import Evidence
from evenhand.files import from_arrays
from evenhand.scanning import tally_predictions
from evenhand.tilt import Part, centred_rows


def made(rows, classes, seed, bias=0.0):
    """Exact posteriors with `bias` taken off: it is what must be added to put them right."""
    rng = np.random.default_rng(seed)
    pi = (np.arange(classes) + 1.0) ** -1
    pi /= pi.sum()
    centre = 0.7 * rng.normal(size=(classes, 6))
    y = rng.choice(classes, rows, p=pi)
    x = centre[y] + rng.normal(size=(rows, 6))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi) - bias, y, pi


def one_part(constant):
    return (Part(slice(None), constant, np.zeros((len(constant), 0))),)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 200), st.floats(0.1, 3), st.integers(0, 999))
def test_soft_counts_are_sums_of_posteriors(classes, rows, beta, seed):
    z, y, _ = made(rows, classes, seed)
    rng = np.random.default_rng(seed)
    c, b = rng.normal(size=classes), rng.normal(size=classes)
    value, soft, variance = soft_counts(centred_rows(z), y, beta, one_part(c), b)
    p = softmax(beta * z + c + b, axis=1)
    assert value == pytest.approx(log_softmax(beta * z + c + b, axis=1)[np.arange(rows), y].sum(), rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(soft, p.sum(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, (p * (1 - p)).sum(axis=0), rtol=1e-3, atol=1e-4)


def test_parts_have_their_own_constants():
    z, y, _ = made(100, 5, 1)
    rng = np.random.default_rng(1)
    parts = [Part(r, rng.normal(size=5), np.zeros((5, 0))) for r in (slice(0, 30), slice(30, 100))]
    found = soft_counts(centred_rows(z), y, 1.3, tuple(parts), np.zeros(5), threads=2)
    each = [soft_counts(centred_rows(z[p.rows]), y[p.rows], 1.3, one_part(p.offset), np.zeros(5)) for p in parts]
    for j in range(3):
        np.testing.assert_allclose(found[j], each[0][j] + each[1][j], rtol=1e-5)


@pytest.mark.parametrize("prior_sd", [0.3, 1.0])
def test_the_biases_maximise_the_penalised_likelihood(prior_sd):
    z, y, pi = made(1500, 12, 2, bias=np.linspace(-1, 1, 12))
    c = 0.2 * np.log(pi)
    fit = fit_biases(centred_rows(z), y, 1.1, one_part(c), prior_sd=prior_sd, iterations=60)
    n = np.bincount(y, minlength=12)

    def negative(b):
        u = 1.1 * z + c + b
        gradient = n - softmax(u, axis=1).sum(axis=0) - b / prior_sd**2
        value = log_softmax(u, axis=1)[np.arange(len(y)), y].sum() - b @ b / (2 * prior_sd**2)
        return -value, -gradient

    best = minimize(negative, np.zeros(12), jac=True, method="BFGS", options={"gtol": 1e-6}).x
    np.testing.assert_allclose(fit.bias, best, atol=5e-3)
    u = 1.1 * z + c + fit.bias
    assert fit.log_likelihood == pytest.approx(log_softmax(u, axis=1)[np.arange(len(y)), y].sum(), rel=1e-5)
    p = softmax(u, axis=1)
    v = (p * (1 - p)).sum(axis=0)
    np.testing.assert_allclose(fit.information, v, rtol=1e-3)
    assert fit.freedom == pytest.approx((v / (v + prior_sd**-2)).sum(), rel=1e-3)
    np.testing.assert_allclose(n - p.sum(axis=0), fit.bias / prior_sd**2, atol=0.5)


def test_few_iterations_come_close_at_many_classes():
    z, y, pi = made(5000, 300, 3)
    z = z - 0.5 * np.log(pi)
    short, long = (fit_biases(centred_rows(z), y, 1.0, one_part(np.zeros(300)), iterations=i) for i in (12, 200))
    assert short.log_likelihood == pytest.approx(long.log_likelihood, abs=0.02 * abs(long.log_likelihood))
    gap = short.bias - long.bias
    assert np.sqrt(np.average(gap**2, weights=long.information)) < 0.1


def test_planted_biases_come_back_where_there_are_rows():
    truth = np.random.default_rng(4).normal(0, 0.7, 20)
    z, y, _ = made(20_000, 20, 4, bias=truth)
    fit = fit_biases(centred_rows(z), y, 1.0, one_part(np.zeros(20)), iterations=60)
    gap = (fit.bias - fit.bias.mean()) - (truth - truth.mean())
    assert np.abs(gap).max() < 0.2
    assert np.corrcoef(fit.bias, truth)[0, 1] > 0.98


def test_a_class_without_rows_keeps_a_finite_bias():
    z, y, _ = made(400, 6, 5)
    z, y = z[y != 5], y[y != 5]
    fit = fit_biases(centred_rows(z), y, 1.0, one_part(np.zeros(6)))
    assert np.isfinite(fit.bias).all()
    assert fit.bias[5] < 0
    tight = fit_biases(centred_rows(z), y, 1.0, one_part(np.zeros(6)), prior_sd=0.01)
    assert np.abs(tight.bias).max() < 0.05
    assert tight.freedom < 0.2


def test_noise_alone_gains_half_the_freedom():
    """On exact posteriors free biases gain freedom / 2 nats on average: what `explained_share` takes off."""
    gains, freedom = [], []
    for seed in range(60):
        z, y, _ = made(1500, 8, 100 + seed)
        fit = fit_biases(centred_rows(z), y, 1.0, one_part(np.zeros(8)), iterations=40)
        base = log_softmax(z, axis=1)[np.arange(1500), y].sum()
        gains.append(fit.log_likelihood - base)
        freedom.append(fit.freedom)
    # one direction of eight is a constant and gains nothing
    assert np.mean(gains) == pytest.approx((np.mean(freedom) - 1) / 2, abs=1.2)


@pytest.mark.parametrize(
    ("tilt", "free", "freedom", "share"),
    [(50, 60, 20, 1.0), (25, 60, 20, 0.5), (0, 60, 20, 0.0), (-1, 60, 20, 0.0), (90, 60, 20, 1.0), (3, 11, 20, None)],
)
def test_the_share(tilt, free, freedom, share):
    assert explained_share(tilt, free, freedom) == share


def test_the_share_tells_a_tilt_from_other_biases():
    def share(bias):
        z, y, pi = made(6000, 30, 6)
        found = from_arrays(logits=z - bias(np.log(pi)), target=y, train_counts=np.round(pi * 1e6))
        return Evidence(tally_predictions(found)).share

    other = np.random.default_rng(6).permutation(30)
    assert share(lambda a: a) > 0.9
    assert share(lambda a: 0.8 * (a - a.mean())[other]) < 0.4
    mixed = share(lambda a: 0.5 * a + 0.5 * (a - a.mean())[other])
    assert 0.1 < mixed < 0.9
    assert share(lambda a: 0 * a) is None


def test_blocks_and_threads_do_not_change_soft_counts(monkeypatch):
    z, y, _ = made(900, 7, 7)
    whole = soft_counts(centred_rows(z), y, 1.0, one_part(np.zeros(7)), np.zeros(7))
    monkeypatch.setattr("evenhand.biases.BLOCK_CELLS", 7 * 11)
    for threads in (1, 3):
        found = soft_counts(centred_rows(z), y, 1.0, one_part(np.zeros(7)), np.zeros(7), threads=threads)
        for a, b in zip(whole, found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_one_step_is_close_where_the_biases_are_small():
    z, y, _ = made(4000, 200, 8)
    zero = np.zeros(200)
    value, soft, variance = soft_counts(centred_rows(z), y, 1.0, one_part(zero), zero)
    one = one_step_biases(value, np.bincount(y, minlength=200) - soft, variance)
    full = fit_biases(centred_rows(z), y, 1.0, one_part(zero), iterations=100)
    assert one.freedom == pytest.approx(full.freedom, rel=0.1)
    assert one.log_likelihood - value == pytest.approx(full.log_likelihood - value, rel=0.25)
    assert np.corrcoef(one.bias, full.bias)[0, 1] > 0.95
    np.testing.assert_array_equal(one_step_biases(value, zero, variance).bias, zero)
    assert one_step_biases(value, zero, variance).log_likelihood == value
