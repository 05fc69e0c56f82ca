"""The prior of unlabelled rows: exact worlds, where the truth is known and every claim can be counted."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from evenhand import InputError, estimate_prior, fit_correction, labelled_reference
from evenhand.shift.likelihood import Dirichlet, expectation, maximise_likelihood, moments, posteriors
from evenhand.shift.strength import held_out_ratio

WORLDS = [(2, 600, 1.0), (10, 600, 0.8), (100, 800, 0.9), (1000, 800, 1.2)]


def zipf(k: int, power: float = 1.0) -> np.ndarray:
    p = (np.arange(k) + 1.0) ** -power
    return p / p.sum()


def world(k: int, n: int, q: np.ndarray, pi: np.ndarray, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of Gaussian classes drawn with frequencies q, with the exact posterior logits under pi."""
    rng = np.random.default_rng(seed)
    d = min(k, 16)
    centre = np.random.default_rng(99).normal(0, spread, (k, d))
    y = rng.choice(k, n, p=q)
    x = centre[y] + rng.normal(size=(n, d))
    return (x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(pi)).astype(np.float32), y


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return 0.5 * float(np.abs(a - b).sum())


def plain_em(z: np.ndarray, pi: np.ndarray, steps: int) -> np.ndarray:
    """Saerens et al. 2002, section 2, as printed: one row of posteriors, one division, one mean."""
    p, q = softmax(z.astype(float), axis=1), pi.copy()
    for _ in range(steps):
        new = p * (q / pi)
        q = (new / new.sum(axis=1, keepdims=True)).mean(axis=0)
    return q


# --- the likelihood and its maximum ---------------------------------------------------------------------------------


def test_log_likelihood_and_soft_counts_against_their_definition():
    pi, q = zipf(30), np.ones(30) / 30
    z, _ = world(30, 400, q, pi, 0.8, 0)
    p = softmax(z.astype(float), axis=1)
    value, soft = expectation(posteriors(z, 1.0, np.zeros(30)), pi, q)
    ratio = p @ (q / pi)
    assert value == pytest.approx(np.log(ratio).sum(), rel=1e-5)
    np.testing.assert_allclose(soft, (p * (q / pi) / ratio[:, None]).sum(axis=0), rtol=1e-5)
    assert soft.sum() == pytest.approx(400, rel=1e-6)
    mean, square = moments(posteriors(z, 1.0, np.zeros(30)))
    np.testing.assert_allclose(mean, p.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(square, (p**2).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_posteriors_are_those_of_the_calibrated_scores(threads):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 50, (700, 40)).astype(np.float32)
    z[:, 7] = -np.inf
    offset = rng.normal(size=40)
    p = posteriors(z, 0.7, offset, threads)
    np.testing.assert_allclose(p, softmax(0.7 * z.astype(float) + offset, axis=1), atol=1e-5)
    assert not p[:, 7].any()
    assert p.dtype == np.float32


def test_a_scale_per_class_is_applied_to_its_class():
    z = np.random.default_rng(0).normal(size=(50, 4))
    scale = np.array([0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(posteriors(z, scale, np.zeros(4)), softmax(scale * z, axis=1), atol=1e-6)


@pytest.mark.parametrize(("k", "n", "spread"), [(2, 400, 1.0), (10, 1000, 0.8), (100, 2000, 0.9)])
def test_at_most_20_passes_reach_what_plain_em_needs_hundreds_for(k, n, spread):
    pi = zipf(k)
    z, _ = world(k, n, np.ones(k) / k, pi, spread, 3)
    p = posteriors(z, 1.0, np.zeros(k))
    free = Dirichlet(pi, 1e-9, np.zeros(k, bool))
    found = maximise_likelihood(p, pi, free, start=p.mean(axis=0).astype(float))
    limit = plain_em(z, pi, 800)
    assert found.passes <= 20
    best, _ = expectation(p, pi, limit)
    reached, _ = expectation(p, pi, found.q)
    early, _ = expectation(p, pi, plain_em(z, pi, 20))
    assert best - reached < 0.05  # a tenth of what one parameter gains by chance
    assert reached > early - 2e-3
    assert distance(found.q, limit) < 0.02


def test_the_maximum_satisfies_its_equation():
    """q_c = (S_c + m pi_c) / (n + m): soft counts and prior rows, in balance."""
    pi = zipf(20)
    z, _ = world(20, 800, np.ones(20) / 20, pi, 0.9, 1)
    p = posteriors(z, 1.0, np.zeros(20))
    found = maximise_likelihood(p, pi, Dirichlet(pi, 60.0, np.zeros(20, bool)), start=pi, passes=200)
    _, soft = expectation(p, pi, found.q)
    np.testing.assert_allclose(found.q, (soft + 60 * pi) / 860, rtol=5e-3)
    assert found.converged


def test_no_step_ends_below_its_start():
    for seed in range(10):
        pi = zipf(50)
        z, _ = world(50, 200, np.random.default_rng(seed).dirichlet(np.ones(50) * 0.3), pi, 0.7, seed)
        p = posteriors(z, 1.0, np.zeros(50))
        belief = Dirichlet(pi, 5.0, np.zeros(50, bool))
        found = maximise_likelihood(p, pi, belief, start=pi, passes=6)
        value, _ = expectation(p, pi, found.q)
        assert value + belief.log_density(found.q) >= belief.log_density(pi) - 1e-6


def test_free_classes_take_their_share_and_the_others_keep_their_shape():
    pi = np.array([0.4, 0.3, 0.2, 0.1])
    free = np.array([False, False, False, True])
    q = Dirichlet(pi, np.inf, free).maximise(np.array([10.0, 30.0, 20.0, 40.0]))
    np.testing.assert_allclose(q, [0.6 * 4 / 9, 0.6 * 3 / 9, 0.6 * 2 / 9, 0.4])


def test_the_estimate_follows_the_classes_wherever_they_stand():
    k = 30
    pi, q = zipf(k), np.roll(zipf(k), 3)
    z, _ = world(k, 2000, q, pi, 1.0, 0)
    order = np.random.default_rng(1).permutation(k)
    one, other = estimate_prior(z, pi), estimate_prior(z[:, order], pi[order])
    np.testing.assert_allclose(other.prior, one.prior[order], rtol=2e-3, atol=1e-6)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-2, abs=1e-12)


def test_nothing_underflows_where_the_product_of_all_priors_does():
    """At 143 classes and more the product of the priors is zero in double precision; nothing may hang on it."""
    k = 1000
    pi = zipf(k)
    z, _ = world(k, 2000, pi, pi, 1.2, 0)
    rare = np.arange(k) >= k // 2
    found = estimate_prior(z, pi)
    assert found.prior[rare].sum() == pytest.approx(pi[rare].sum(), abs=0.02)
    moved = estimate_prior(z, pi, strength=1.0)
    assert moved.prior[rare].sum() == pytest.approx(pi[rare].sum(), abs=0.03)


# --- how good the estimate is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n", "spread"), WORLDS)
def test_without_shift_it_is_no_worse_than_averaging_the_posteriors(k, n, spread):
    pi = zipf(k)
    ours, average = [], []
    for seed in range(8):
        z, _ = world(k, n, pi, pi, spread, seed)
        found = estimate_prior(z, pi)
        ours.append(distance(found.prior, pi))
        average.append(distance(found.average, pi))
    assert np.mean(ours) <= np.mean(average)


def test_without_shift_and_with_few_labelled_rows_it_is_no_worse_either():
    pi = zipf(20)
    ours, average = [], []
    for seed in range(6):
        z, y = world(20, 400, pi, pi, 1.0, seed)
        new, _ = world(20, 4000, pi, pi, 1.0, 100 + seed)
        found = estimate_prior(new, calibration=labelled_reference(z, y, seed=seed))
        ours.append(distance(found.prior, pi))
        average.append(distance(found.average, pi))
    assert np.mean(ours) <= 1.02 * np.mean(average)


@pytest.mark.parametrize(("k", "n", "spread"), [(2, 2000, 1.0), (10, 1500, 0.8), (100, 3000, 0.9)])
def test_with_a_shift_it_beats_averaging_and_is_no_worse_than_plain_em(k, n, spread):
    pi, q = zipf(k, 1.2), np.ones(k) / k
    ours, average, em = [], [], []
    for seed in range(6):
        z, _ = world(k, n, q, pi, spread, seed)
        found = estimate_prior(z, pi)
        ours.append(distance(found.prior, q))
        average.append(distance(found.average, q))
        em.append(distance(plain_em(z, pi, 300), q))
    assert np.mean(ours) < 0.75 * np.mean(average)
    assert np.mean(ours) < 1.15 * np.mean(em) + 0.005


def test_many_classes_and_few_rows_gain_most_from_the_prior():
    k, n = 1000, 2000
    pi = zipf(k)
    q = (2 * pi + 1 / k) / 3
    z, _ = world(k, n, q, pi, 1.2, 0)
    found = estimate_prior(z, pi)
    assert distance(found.prior, q) < 0.8 * distance(plain_em(z, pi, 60), q)


def test_one_class_that_moved_among_many_is_found_and_the_others_stay():
    k = 300
    pi = zipf(k, 0.7)
    q = pi.copy()
    q[40] *= 8
    q /= q.sum()
    z, _ = world(k, 6000, q, pi, 1.1, 0)
    found = estimate_prior(z, pi)
    assert found.answer == "moved"
    assert 40 in found.moved[:1]
    assert found.prior[40] == pytest.approx(q[40], rel=0.25)
    assert distance(found.prior, q) < 0.5 * distance(found.average, q)


# --- intervals and verdicts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n", "spread", "runs"), [(2, 500, 1.0, 40), (10, 500, 0.8, 16), (100, 1500, 1.0, 4)])
@pytest.mark.parametrize("shift", ["same", "flat"])
def test_intervals_cover(k, n, spread, runs, shift):
    pi = zipf(k)
    q = pi if shift == "same" else np.ones(k) / k
    inside = []
    for seed in range(runs):
        z, _ = world(k, n, q, pi, spread, 500 + seed)
        low, high = estimate_prior(z, pi, seed=seed).interval.T
        inside.append(((low <= q) & (q <= high)).mean())
    assert np.mean(inside) > 0.88


def test_intervals_are_no_wider_than_the_scatter_calls_for():
    """Without overlap of the classes the interval must be that of a binomial share."""
    k, n = 5, 4000
    pi, q = np.ones(k) / k, zipf(k)
    y = np.random.default_rng(0).choice(k, n, p=q)
    z = np.zeros((n, k))
    z[np.arange(n), y] = 30.0
    low, high = estimate_prior(z, pi).interval.T
    np.testing.assert_allclose((high - low) / 2, 1.96 * np.sqrt(q * (1 - q) / n), rtol=0.2)
    shares = np.bincount(y, minlength=k) / n
    assert ((low < shares) & (shares < high)).all()


def test_wrong_verdicts_are_rare_and_right_ones_are_not():
    k = 100
    pi = zipf(k, 0.8)
    q = pi.copy()
    changed = np.array([1, 8, 20])
    q[changed] *= [0.3, 3.0, 4.0]
    q /= q.sum()
    wrong = called = hits = 0
    for seed in range(5):
        z, _ = world(k, 3000, q, pi, 1.2, seed)
        moved = estimate_prior(z, pi).moved
        called += len(moved)
        hits += len(np.intersect1d(moved, changed))
        wrong += len(np.setdiff1d(moved, changed))
    assert hits >= 12
    assert wrong <= 0.1 * called


def test_without_shift_no_class_is_accused():
    pi = zipf(50)
    accused = 0
    for seed in range(20):
        z, _ = world(50, 500, pi, pi, 0.9, seed)
        accused += len(estimate_prior(z, pi).moved) > 0
    assert accused <= 3


def test_three_answers():
    pi = zipf(60)
    flat = np.ones(60) / 60
    assert estimate_prior(world(60, 3000, flat, pi, 1.0, 0)[0], pi).answer == "moved"
    assert estimate_prior(world(60, 6000, pi, pi, 1.0, 0)[0], pi).answer == "same"
    assert estimate_prior(world(60, 30, pi, pi, 1.0, 0)[0], pi).answer == "too-little-data"
    for n in (1, 2, 3, 5):
        assert estimate_prior(world(60, n, pi, pi, 1.0, 0)[0], pi).answer == "too-little-data"


# --- calibration and correction -------------------------------------------------------------------------------------


def test_the_calibration_undoes_weights_temperature_and_scale():
    """Exact posteriors seen through a temperature and balanced weights give the estimate of the exact ones."""
    k = 12
    pi, q = zipf(k, 1.3), np.roll(zipf(k), 4)
    z, y = world(k, 6000, pi, pi, 1.0, 0)
    new, _ = world(k, 4000, q, pi, 1.0, 1)
    reference = labelled_reference(0.5 * (z - np.log(pi)), y, train_counts=pi * 1e5)
    found = estimate_prior(0.5 * (new - np.log(pi)), calibration=reference)
    assert reference.scale == pytest.approx(2, rel=0.05)
    np.testing.assert_allclose(found.prior, estimate_prior(new, pi).prior, atol=0.015)
    raw = estimate_prior(0.5 * (new - np.log(pi)), pi)
    assert distance(found.prior, q) < 0.5 * distance(raw.prior, q)


def test_a_correction_serves_as_calibration():
    k = 6
    pi = zipf(k)
    z, y = world(k, 3000, pi, pi, 1.0, 0)
    fix = fit_correction(z - np.log(pi).astype(np.float32), y, train_counts=pi * 1e5)
    new, _ = world(k, 2000, np.ones(k) / k, pi, 1.0, 1)
    found = estimate_prior(new - np.log(pi).astype(np.float32), pi, calibration=fix)
    assert distance(found.prior, np.ones(k) / k) < 0.05
    assert found.cross_check is None


def test_the_correction_gains_what_it_foretells():
    k = 40
    pi, q = zipf(k, 1.5), np.ones(k) / k
    z, y = world(k, 5000, pi, pi, 0.9, 0)
    new, truth = world(k, 5000, q, pi, 0.9, 1)
    found = estimate_prior(new, calibration=labelled_reference(z, y, train_counts=pi * 1e5))
    fix = found.correction()
    before, after = (new.argmax(axis=1) == truth).mean(), (fix.predict(new) == truth).mean()
    assert fix.recommended
    assert fix.goal == "prior"
    assert after > before + 0.05
    assert found.expected_accuracy == (pytest.approx(before, abs=0.03), pytest.approx(after, abs=0.03))
    exact = log_softmax(found.scale * new + found.offset, axis=1) + np.log(found.prior / found.train_prior)
    np.testing.assert_array_equal(fix.predict(new), exact.argmax(axis=1))


def test_no_shift_is_not_corrected():
    pi = zipf(40)
    found = estimate_prior(world(40, 4000, pi, pi, 1.0, 0)[0], pi)
    fix = found.correction()
    assert not fix.recommended
    assert "have not moved" in fix.why
    np.testing.assert_allclose(fix.offset, 0, atol=1e-9)


def test_the_cross_check_agrees_under_a_shift_of_the_prior():
    k = 20
    pi, q = zipf(k), np.ones(k) / k
    agree = 0
    for seed in range(3):
        z, y = world(k, 3000, pi, pi, 1.0, seed)
        new, _ = world(k, 3000, q, pi, 1.0, 50 + seed)
        found = estimate_prior(new, calibration=labelled_reference(z, y, train_counts=pi * 1e5))
        agree += found.cross_check.agrees
        assert distance(found.cross_check.prior, q) < 0.5 * distance(pi, q)
    assert agree >= 2


def test_the_cross_check_disagrees_when_the_classes_themselves_changed():
    k = 20
    pi = zipf(k)
    z, y = world(k, 3000, pi, pi, 1.0, 0)
    new, _ = world(k, 3000, pi, pi, 1.0, 1)
    blurred = 0.4 * new + np.random.default_rng(0).normal(0, 1.5, new.shape).astype(np.float32)
    found = estimate_prior(blurred, calibration=labelled_reference(z, y))
    assert not found.cross_check.agrees
    assert not found.correction().recommended
    assert "contradict" in found.correction().why
    assert "not by their class frequencies alone" in found.to_dict()["sentence"]


def test_a_class_that_is_masked_stays_out():
    pi = np.array([0.5, 0.3, 0.2])
    z, _ = world(3, 500, pi, pi, 1.0, 0)
    z[:, 2] = -np.inf
    found = estimate_prior(z, np.array([5.0, 3.0, 0.0]))
    assert found.prior[2] < 0.2
    assert np.isfinite(found.prior).all()
    assert np.isfinite(found.interval).all()
    assert np.isfinite(found.correction().offset).all()


def test_random_answers_repeat_with_the_seed():
    pi = zipf(20)
    z, _ = world(20, 3000, np.ones(20) / 20, pi, 1.0, 0)
    one, again = estimate_prior(z, pi, seed=5), estimate_prior(z, pi, seed=5)
    np.testing.assert_array_equal(one.interval, again.interval)
    np.testing.assert_allclose(estimate_prior(z, pi, threads=2, seed=5).prior, one.prior, atol=1e-3)


def test_input_is_not_changed():
    pi = zipf(10)
    z, _ = world(10, 300, pi, pi, 1.0, 0)
    kept, held = z.copy(), pi.copy()
    estimate_prior(z, pi)
    np.testing.assert_array_equal(z, kept)
    np.testing.assert_array_equal(pi, held)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_type_will_do(dtype):
    pi = zipf(10)
    z, _ = world(10, 1500, np.ones(10) / 10, pi, 1.0, 0)
    np.testing.assert_allclose(estimate_prior(z.astype(dtype), pi).prior, estimate_prior(z, pi).prior, atol=3e-3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"train_prior": None}, "got neither"),
        ({"train_prior": [0.5, 0.5]}, "train_prior has 2 entries but the logits have 3"),
        ({"train_prior": [0.5, -0.5, 1]}, "0 or more"),
        ({"train_prior": [0, 0, 0]}, "all 3 counts are 0"),
        ({"logits": np.zeros(3)}, "two axes"),
        ({"logits": np.zeros((0, 3))}, "no rows"),
        ({"logits": np.zeros((4, 3), int)}, "float16, float32 or float64"),
        ({"logits": [[0.0, np.nan, 1.0], [0.0, 1.0, 2.0]]}, "row 0"),
        ({"logits": [[0.0, 1.0, np.inf], [0.0, 1.0, 2.0]]}, "row 0"),
        ({"logits": np.full((4, 3), -np.inf)}, "finite logits"),
        ({"alpha": 0.0}, "alpha between 0 and 1"),
        ({"strength": -1.0}, "strength above 0"),
        ({"passes": 0}, "at least 1 pass"),
    ],
)
def test_unusable_input_is_one_sentence(arguments, sentence):
    given = {"logits": np.zeros((4, 3)), "train_prior": np.ones(3)} | arguments
    with pytest.raises(InputError, match=sentence) as raised:
        estimate_prior(given.pop("logits"), given.pop("train_prior"), **given)
    assert "\n" not in str(raised.value)


def test_a_calibration_of_another_model_is_refused():
    z, y = world(4, 300, zipf(4), zipf(4), 1.0, 0)
    reference = labelled_reference(z, y)
    with pytest.raises(InputError, match="calibration is for 4 classes but the new rows have 3"):
        estimate_prior(np.zeros((5, 3)), calibration=reference)
    with pytest.raises(InputError, match="got both"):
        estimate_prior(z, zipf(4), calibration=reference)


@pytest.mark.slow
def test_ten_thousand_classes_and_fifty_thousand_rows_in_a_minute():
    k, n = 10_000, 50_000
    rng = np.random.default_rng(0)
    pi = zipf(k)
    centre = rng.normal(0, 0.9, (k, 16)).astype(np.float32)
    x = centre[rng.choice(k, n, p=np.ones(k) / k)] + rng.normal(size=(n, 16)).astype(np.float32)
    constant = (np.log(pi) - 0.5 * (centre**2).sum(axis=1)).astype(np.float32)
    z = np.empty((n, k), np.float32)
    for start in range(0, n, 2000):
        z[start : start + 2000] = x[start : start + 2000] @ centre.T + constant
    begun = time.process_time()
    found = estimate_prior(z, pi)
    assert time.process_time() - begun < 60
    assert found.passes <= 20
    assert distance(found.prior, np.ones(k) / k) < distance(found.average, np.ones(k) / k)


# --- the strength of the prior ---------------------------------------------------------------------------------------


def half_spread(k: int, n: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    pi = zipf(k)
    z, _ = world(k, n, np.ones(k) / k, pi, spread, seed)
    return posteriors(z, 1.0, np.zeros(k)), pi


@pytest.mark.parametrize(("k", "spread", "low", "high"), [(10, 1.0, 0.0, 0.3), (1000, 1.2, 0.9, np.inf)])
def test_rows_that_tell_the_classes_apart_let_the_estimate_go_and_others_do_not(k, spread, low, high):
    p, pi = half_spread(k, 800, spread, 0)
    ratio = held_out_ratio(p, pi, lambda mean: mean / mean.sum(), rows_worth=800)
    assert low < ratio
    assert ratio <= high


def test_the_order_of_the_rows_does_not_matter_to_the_strength():
    k, n = 300, 900
    pi, q = zipf(k), np.ones(k) / k
    z, y = world(k, n, q, pi, 0.5, 0)
    mixed = estimate_prior(z, pi)
    in_order = estimate_prior(z[np.argsort(y, kind="stable")], pi)
    assert abs(distance(mixed.prior, q) - distance(in_order.prior, q)) < 0.02
    assert distance(in_order.prior, q) < distance(in_order.average, q) + 0.02


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.6])
@pytest.mark.parametrize("k", [30, 200])
def test_it_is_never_clearly_worse_than_averaging_nor_than_plain_em(k, scale):
    """Models that are too sure or not sure enough, calibrated on as many rows."""
    pi = zipf(k)
    z, y = world(k, 1000, pi, pi, 0.7, 99)
    reference = labelled_reference(scale * z, y, train_counts=pi * 1e5)
    ours, mean, em = [], [], []
    for seed, q in enumerate((pi, 0.7 * pi + 0.3 / k, np.ones(k) / k)):
        z, _ = world(k, 1000, q, pi, 0.7, seed)
        found = estimate_prior(scale * z, calibration=reference)
        ours.append(distance(found.prior, q))
        mean.append(distance(found.average, q))
        calibrated = reference.scale * scale * z + reference.offset
        em.append(distance(plain_em(calibrated, reference.prior, 60), q))
    assert np.mean(ours) < np.mean(mean) + 0.01
    assert np.mean(ours) < np.mean(em) + 0.01
    assert max(np.subtract(ours, mean)) < 0.03
