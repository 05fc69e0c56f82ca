"""The tilt fit against float64 oracles, written straight from softmax(beta z + o + A tau)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from evenhand.declared import InputError
from evenhand.tilt import (
    CHI2_95,
    Likelihood,
    Part,
    centred_rows,
    fit_tilt,
    map_blocks,
    maximise,
    profile_interval,
    score_test,
)


def zipf(classes, alpha=1.0):
    pi = (np.arange(classes) + 1.0) ** -alpha
    return pi / pi.sum()


def posteriors(rows, classes, seed, *, skill=0.7, dimensions=8, alpha=1.0):
    """Exact log posteriors of a Gaussian mixture with Zipf priors, their labels, and the prior."""
    rng = np.random.default_rng(seed)
    pi = zipf(classes, alpha)
    centre = skill * np.random.default_rng(classes).normal(size=(classes, dimensions))
    y = rng.choice(classes, rows, p=pi)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi), y, pi


def oracle(theta, z, y, offset, directions):
    """Log-likelihood, gradient and observed information in float64, one row at a time in the formula's own terms."""
    u = theta[0] * z + offset + directions @ theta[1:]
    p = softmax(u, axis=1)
    value = log_softmax(u, axis=1)[np.arange(len(y)), y].sum()
    gradient = np.zeros(len(theta))
    information = np.zeros((len(theta), len(theta)))
    for i in range(len(y)):
        features = np.column_stack([z[i], directions])
        mean = p[i] @ features
        gradient += features[y[i]] - mean
        information += (features * p[i][:, None]).T @ features - np.outer(mean, mean)
    return value, gradient, information


def centred(a):
    return a - a.mean(axis=0)


@pytest.mark.parametrize(("rows", "classes", "columns", "seed"), [(80, 2, 1, 0), (300, 7, 1, 1), (300, 25, 3, 2)])
@pytest.mark.parametrize("theta", [(1.0, 0.0), (0.6, 1.3), (1.7, -0.8)])
def test_value_gradient_and_information_match_the_formulas(rows, classes, columns, seed, theta):
    rng = np.random.default_rng(seed)
    z, y = centred_rows(rng.normal(0, 3, (rows, classes))), rng.integers(0, classes, rows)
    directions, offset = centred(rng.normal(size=(classes, columns))), rng.normal(size=classes)
    at = np.array([theta[0], *[theta[1] / (j + 1) for j in range(columns)]])
    value, gradient, information = Likelihood(z, y, (Part(slice(None), offset, directions),))(at)
    expected = oracle(at, z.astype(np.float64), y, offset, directions)
    assert value == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-4 * rows**0.5)
    np.testing.assert_allclose(information, expected[2], rtol=1e-4, atol=1e-4 * np.trace(expected[2]))
    np.testing.assert_array_equal(information, information.T)


def test_derivatives_are_those_of_the_value():
    rng = np.random.default_rng(3)
    z, y = centred_rows(rng.normal(0, 2, (200, 9))), rng.integers(0, 9, 200)
    likelihood = Likelihood(z, y, (Part(slice(None), rng.normal(size=9), centred(rng.normal(size=(9, 2)))),))
    at, step = np.array([0.9, 0.4, -0.7]), 1e-2  # float32 inside: a smaller step would measure rounding
    for j, e in enumerate(step * np.eye(3)):
        (up, up_slope, _), (down, down_slope, _) = likelihood(at + e), likelihood(at - e)
        _, gradient, information = likelihood(at)
        assert (up - down) / (2 * step) == pytest.approx(gradient[j], rel=2e-3, abs=0.02)
        np.testing.assert_allclose((down_slope - up_slope) / (2 * step), information[j], rtol=2e-3, atol=0.05)


def test_parts_are_separate_models_that_share_theta():
    rng = np.random.default_rng(4)
    z, y = centred_rows(rng.normal(size=(90, 5))), rng.integers(0, 5, 90)
    parts = [(slice(0, 30), 1), (slice(30, 31), 2), (slice(31, 90), 3)]
    made = [Part(rows, rng.normal(size=5), centred(rng.normal(size=(5, 2)))) for rows, _ in parts]
    at = np.array([1.2, 0.5, -0.3])
    together = Likelihood(z, y, tuple(made), threads=2)(at)
    each = [oracle(at, z[p.rows].astype(float), y[p.rows], p.offset, p.directions) for p in made]
    for found, expected in zip(together, [sum(e[j] for e in each) for j in range(3)], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_blocks_and_threads_do_not_change_the_likelihood(monkeypatch):
    z, y, pi = posteriors(700, 12, 5)
    part = (Part(slice(None), np.zeros(12), centred(np.log(pi))[:, None]),)
    at = np.array([1.1, 0.3])
    whole = Likelihood(centred_rows(z), y, part)(at)
    monkeypatch.setattr("evenhand.likelihood.BLOCK_CELLS", 12 * 13)
    for threads in (1, 3):
        for a, b in zip(whole, Likelihood(centred_rows(z), y, part, threads)(at), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3)


def test_map_blocks_keeps_the_order():
    items = list(range(50))
    assert map_blocks(lambda x: x * x, items, 4) == [x * x for x in items] == map_blocks(lambda x: x * x, items, 1)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("with_offset", [False, True])
def test_the_estimate_is_the_maximum_found_by_scipy(columns, with_offset):
    rng = np.random.default_rng(6)
    z, y, pi = posteriors(600, 15, 6)
    z = 1.4 * z - 0.8 * np.log(pi)
    a = centred(np.column_stack([np.log(pi), rng.normal(size=15)])[:, :columns])
    o = rng.normal(0, 0.5, 15) if with_offset else np.zeros(15)
    fit = fit_tilt(z, y, a, offset=o if with_offset else None)
    best = minimize(
        lambda t: -log_softmax(t[0] * z + o + a @ t[1:], axis=1)[np.arange(len(y)), y].sum(),
        np.array([1.0, *np.zeros(columns)]),
        method="BFGS",
        options={"gtol": 1e-4},
    )
    np.testing.assert_allclose([fit.beta, *fit.tau], best.x, atol=2e-3)
    assert fit.log_likelihood == pytest.approx(-best.fun, rel=1e-5)
    assert fit.converged
    assert fit.rows == 600
    origin = log_softmax(z + o, axis=1)[np.arange(len(y)), y].sum()
    assert fit.identity == pytest.approx(origin, rel=1e-5)
    np.testing.assert_allclose(fit.standard_error, np.sqrt(np.diag(np.linalg.inv(fit.information))[1:]), rtol=1e-3)


@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_a_planted_tilt_is_recovered(classes, tau):
    z, y, pi = posteriors(6000, classes, 7, alpha=2.0 if classes == 2 else 1.0)
    fit = fit_tilt(z - tau * np.log(pi), y, np.log(pi))
    error = fit.standard_error[0]
    assert abs(fit.tau[0] - tau) < 3.5 * error
    assert error < 0.2
    assert abs(fit.beta - 1) < 0.12


def test_intervals_cover_the_truth_at_their_level():
    draws, inside_tau, inside_beta = 300, 0, 0
    for seed in range(draws):
        z, y, pi = posteriors(250, 10, 1000 + seed)
        fit = fit_tilt(z - np.log(pi), y, np.log(pi))
        inside_tau += fit.tau_interval[0, 0] <= 1.0 <= fit.tau_interval[0, 1]
        inside_beta += fit.beta_interval[0] <= 1.0 <= fit.beta_interval[1]
    # a binomial(300, 0.95) leaves [0.91, 0.985] once in a thousand draws
    assert 0.91 <= inside_tau / draws <= 0.99
    assert 0.91 <= inside_beta / draws <= 0.99


def test_several_directions_are_told_apart():
    z, y, pi = posteriors(8000, 30, 8)
    rng = np.random.default_rng(8)
    wrong = np.log(pi)[rng.permutation(30)]
    fit = fit_tilt(z - 0.7 * np.log(pi) - 1.1 * wrong, y, np.column_stack([np.log(pi), wrong]))
    assert fit.tau == pytest.approx([0.7, 1.1], abs=0.1)
    assert fit.tau_interval.shape == (2, 2)
    assert (fit.tau_interval[:, 0] < fit.tau).all()
    assert (fit.tau < fit.tau_interval[:, 1]).all()


def test_a_known_shift_of_the_prior_is_an_offset():
    rng = np.random.default_rng(9)
    pi, rows, k = zipf(20), 8000, 20
    centre = 0.7 * rng.normal(size=(k, 8))
    y = rng.integers(0, k, rows)  # balanced evaluation
    x = centre[y] + rng.normal(size=(rows, 8))
    z = x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi)  # posterior under the training prior
    assert fit_tilt(z, y, np.log(pi)).tau[0] == pytest.approx(-1, abs=0.08)
    assert fit_tilt(z, y, np.log(pi), offset=-np.log(pi)).tau[0] == pytest.approx(0, abs=0.08)


def test_score_test_is_counts_against_soft_counts():
    z, y, pi = posteriors(500, 12, 10)
    z = z - 0.5 * np.log(pi)
    offset = np.linspace(-0.5, 0.5, 12)
    for o in (None, offset):
        p = softmax(z + (0 if o is None else o), axis=1)
        a = centred(np.log(pi))
        u = a @ (np.bincount(y, minlength=12) - p.sum(axis=0))
        i = (p @ a**2 - (p @ a) ** 2).sum()
        found = score_test(z, y, np.log(pi), offset=o)
        assert (found.z, found.tau, found.standard_error) == pytest.approx((u / i**0.5, u / i, i**-0.5), rel=1e-4)
    fit = fit_tilt(z, y, np.log(pi))
    plain = score_test(z, y, np.log(pi))
    assert (fit.score.z, fit.score.tau) == pytest.approx((plain.z, plain.tau), rel=1e-6)


def test_the_score_is_standard_normal_without_a_tilt():
    found = np.array(
        [score_test(z, y, np.log(pi)).z for z, y, pi in (posteriors(200, 10, 5000 + s) for s in range(400))]
    )
    assert abs(found.mean()) < 3.5 / 20
    assert 0.87 < found.std() < 1.13


def profile(z, y, a, at, index):
    """The log-likelihood maximised over every other parameter, by scipy, in float64."""
    start = np.array([1.0, 0.0])

    def negative(other):
        theta = np.insert(other, index, at)
        return -log_softmax(theta[0] * z + theta[1] * a, axis=1)[np.arange(len(y)), y].sum()

    return -minimize(
        negative, np.delete(start, index), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}
    ).fun


@pytest.mark.parametrize(("rows", "index"), [(40, 0), (40, 1), (400, 1)])
def test_profile_interval_against_brute_force(rows, index):
    z, y, pi = posteriors(rows, 6, 11)
    a = centred(np.log(pi))
    fit = fit_tilt(z - np.log(pi), y, a)
    z = z - np.log(pi)
    centre = (fit.beta, fit.tau[0])[index]
    found = (fit.beta_interval, tuple(fit.tau_interval[0]))[index]

    def drop(at):
        return 2 * (fit.log_likelihood - profile(z, y, a, at, index)) - CHI2_95

    width = found[1] - found[0]
    expected = (brentq(drop, centre - width, centre, xtol=1e-4), brentq(drop, centre, centre + 2 * width, xtol=1e-4))
    # the drop may be off by 2 %, the end of the interval by 1 % of its length
    np.testing.assert_allclose(found, expected, atol=0.012 * width)


def test_the_quadratic_shortcut_of_large_samples_is_the_profile():
    z, y, pi = posteriors(2000, 10, 12)
    a = centred(np.log(pi))
    fit = fit_tilt(z - np.log(pi), y, a)
    z = z - np.log(pi)
    error = float(fit.standard_error[0])
    ends = [
        brentq(
            lambda at: 2 * (fit.log_likelihood - profile(z, y, a, at, 1)) - CHI2_95,
            fit.tau[0] + sign * 1.5 * error,
            fit.tau[0] + sign * 2.5 * error,
            xtol=1e-4,
        )
        for sign in (-1, 1)
    ]
    np.testing.assert_allclose(fit.tau_interval[0], ends, atol=0.05 * error)


def test_more_rows_than_the_shortcut_limit_use_the_wald_interval():
    z, y, pi = posteriors(2000, 10, 13)
    fit = fit_tilt(z, y, np.log(pi))
    half = fit.standard_error[0] * 1.959964
    np.testing.assert_allclose(fit.tau_interval[0], [fit.tau[0] - half, fit.tau[0] + half], rtol=1e-5)
    assert (fit.tau_interval[0, 1] - fit.tau[0]) == pytest.approx(fit.tau[0] - fit.tau_interval[0, 0], rel=1e-6)


def same(a, b, tolerance=2e-3):
    np.testing.assert_allclose([a.beta, *a.tau], [b.beta, *b.tau], atol=tolerance)
    np.testing.assert_allclose(a.tau_interval, b.tau_interval, atol=2 * tolerance)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), classes=st.integers(2, 8))
def test_symmetries(seed, scale, classes):
    """A constant per row changes nothing, scaling divides beta, and neither order of rows or classes matters."""
    z, y, pi = posteriors(120, classes, seed, alpha=1.5)
    a, rng = np.log(pi), np.random.default_rng(seed)
    fit = fit_tilt(z, y, a)
    same(fit_tilt(z + rng.normal(0, 20, (120, 1)), y, a), fit)
    rows, order = rng.permutation(120), rng.permutation(classes)
    same(fit_tilt(z[rows], y[rows], a), fit)
    same(fit_tilt(z[:, order], np.argsort(order)[y], a[order]), fit)
    same(fit_tilt(z, y, a + 3.0), fit)
    scaled = fit_tilt(z * scale, y, a)
    assert scaled.beta * scale == pytest.approx(fit.beta, rel=5e-3, abs=5e-3)
    assert scaled.tau[0] == pytest.approx(fit.tau[0], abs=5e-3)
    doubled = fit_tilt(z, y, 2 * a)
    assert doubled.tau[0] * 2 == pytest.approx(fit.tau[0], abs=5e-3)


def test_a_tilt_added_to_the_logits_is_subtracted_from_tau():
    z, y, pi = posteriors(1500, 20, 14)
    plain = fit_tilt(z, y, np.log(pi))
    tilted = fit_tilt(z - 1.3 * plain.beta**-1 * np.log(pi), y, np.log(pi))
    assert tilted.tau[0] - plain.tau[0] == pytest.approx(1.3, abs=3e-3)
    assert tilted.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-6)


def test_a_good_start_leads_to_the_same_place():
    z, y, pi = posteriors(1500, 20, 15)
    z = z - 2 * np.log(pi)
    cold = fit_tilt(z, y, np.log(pi))
    for start in (np.array([cold.beta, cold.tau[0]]), np.array([0.3, -4.0]), np.array([5.0, 5.0])):
        same(fit_tilt(z, y, np.log(pi), start=start), cold)


def test_threads_give_the_same_fit():
    z, y, pi = posteriors(3000, 100, 16)
    same(fit_tilt(z, y, np.log(pi), threads=1), fit_tilt(z, y, np.log(pi), threads=2), 1e-6)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
def test_extreme_logits_stay_finite(size):
    rng = np.random.default_rng(17)
    z, y, pi = posteriors(400, 8, 17)
    z = np.where(rng.random(z.shape) < 0.3, np.sign(z) * size, z)
    z[np.arange(400), y] = np.where(rng.random(400) < 0.5, size, z[np.arange(400), y])
    fit = fit_tilt(z, y, np.log(pi))
    assert np.isfinite([fit.beta, *fit.tau, *fit.beta_interval, *fit.tau_interval.ravel(), fit.log_likelihood]).all()


def test_large_shared_logits_do_not_cancel():
    z, y, pi = posteriors(500, 8, 18)
    same(fit_tilt(z + 1e4, y, np.log(pi)), fit_tilt(z, y, np.log(pi)), 2e-2)  # float64 in, centred in float32


def test_masked_classes_take_no_part():
    z, y, pi = posteriors(1500, 12, 19)
    keep = ~np.isin(y, [3, 7])
    z, y = z[keep], y[keep]
    masked = z.copy()
    masked[:, [3, 7]] = -np.inf
    others = np.delete(np.arange(12), [3, 7])
    a = np.log(pi)
    same(fit_tilt(masked, y, a), fit_tilt(z[:, others], np.searchsorted(others, y), a[others]))


def test_perfect_predictions_have_a_finite_fit():
    y = np.random.default_rng(20).choice(5, 300, p=zipf(5))
    fit = fit_tilt(40.0 * np.eye(5)[y], y, np.log(zipf(5)))
    assert np.isfinite([fit.beta, *fit.tau]).all()
    assert fit.log_likelihood == pytest.approx(0, abs=1e-3)
    assert fit.tau_interval[0, 0] < 0 < fit.tau_interval[0, 1]


def test_two_classes_are_logistic_regression():
    rng = np.random.default_rng(21)
    x = rng.normal(size=800)
    y = (rng.random(800) < 1 / (1 + np.exp(-(1.5 * x - 1)))).astype(np.int64)
    fit = fit_tilt(np.column_stack([np.zeros(800), x]), y, np.array([0.0, 1.0]))
    design = np.column_stack([x, np.ones(800)])
    theta = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ theta))
        theta = theta + np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design, design.T @ (y - p))
    assert (fit.beta, fit.tau[0]) == pytest.approx(tuple(theta), abs=1e-3)


def test_float16_and_float32_input_is_not_changed():
    z, y, pi = posteriors(800, 10, 22)
    for dtype in (np.float16, np.float32):
        given_z = z.astype(dtype)
        before = given_z.copy()
        same(fit_tilt(given_z, y, np.log(pi)), fit_tilt(z, y, np.log(pi)), 5e-3)
        np.testing.assert_array_equal(given_z, before)


def test_centred_rows():
    out = centred_rows(np.array([[1.0, -np.inf, 3.0], [5, 5, -1e9]]))
    assert out.dtype == np.float32
    assert out.tolist() == [[-2, -10_000, 0], [0, 0, -10_000]]


def test_profile_interval_of_a_nearly_flat_likelihood_is_wide_not_an_error():
    z = np.zeros((50, 3), np.float32)
    z[:, 0] = np.linspace(-1, 1, 50)
    y = np.arange(50) % 3
    part = Part(slice(None), np.zeros(3), np.array([[1e-4], [0.0], [-1e-4]]))
    likelihood = Likelihood(centred_rows(z), y, (part,))
    fit = maximise(likelihood)
    theta = np.array([fit.beta, fit.tau[0]])
    low, high = profile_interval(likelihood, theta, likelihood(theta), 1)
    assert high - low > 1000


Z, Y, A = np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2]), np.array([1.0, 0.0, -1.0])
NAN, INF = np.where(np.eye(6, 3), np.nan, Z), np.where(np.eye(6, 3), np.inf, Z)
MISFITS = [
    {"z": Z[0]}, {"z": Z[:0], "y": Y[:0]}, {"y": Y[:5]}, {"y": Y[:, None]}, {"y": Y - 1}, {"y": Y + 1},
    {"y": Y.astype(float)}, {"directions": A[:2]}, {"directions": np.ones((4, 2))}, {"directions": A * np.nan},
    {"offset": A[:2]}, {"offset": A + np.inf}, {"z": NAN}, {"z": INF}, {"z": np.where(np.eye(6)[:, :1], -np.inf, Z)},
]  # fmt: skip


@pytest.mark.parametrize("change", MISFITS)
def test_input_that_does_not_fit_gets_one_sentence(change):
    given = {"z": Z, "y": Y, "directions": A, "offset": np.zeros(3)} | change
    for function in (fit_tilt, score_test):
        with pytest.raises(InputError, match=r"^expected [^\n]+, got [^\n]+; [^\n]+$"):
            function(given["z"], given["y"], given["directions"], offset=given["offset"])


@pytest.mark.parametrize("directions", [np.ones(3), np.column_stack([A, np.full(3, 0.1)])])
def test_a_constant_direction_is_refused(directions):
    with pytest.raises(InputError, match="no tilt to measure"):
        fit_tilt(Z, Y, directions)
