"""Probabilities that are off for no known reason are told from sound models and from argmax."""

from __future__ import annotations

import numpy as np
import pytest

import evenhand


def world(seed, classes, rows, skill=1.2):
    rng = np.random.default_rng(seed)
    prior = rng.permutation(1 / np.arange(1, classes + 1))
    prior /= prior.sum()
    y = rng.choice(classes, rows, p=prior)
    centres = skill * rng.normal(size=(classes, 6))
    x = centres[y] + rng.normal(size=(rows, 6))
    logits = x @ centres.T - (centres**2).sum(axis=1) / 2 + np.log(prior)
    return rng, logits, y, np.maximum(1, 50_000 * prior).round()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("classes", "rows"), [(12, 2000), (60, 5000), (300, 8000)])
def test_a_bias_per_class_out_of_nowhere_is_not_healthy(seed, classes, rows):
    rng, logits, y, counts = world(seed, classes, rows)
    found = evenhand.audit(logits=logits + 1.5 * rng.normal(size=classes), target=y, train_counts=counts)
    soft = found.total_variation["soft"]
    if soft - 1.5 * found.evidence.soft_noise >= 0.1:
        assert found.verdict.cause not in ("healthy", "argmax-amplification")
    if found.verdict.cause == "unexplained":
        assert [f.cause for f in found.findings] == ["unexplained"]
        assert found.verdict.evidence["soft_distance"] == pytest.approx(soft, abs=1e-4)
        off = np.abs(found.expected - found.true)
        assert off[found.verdict.evidence["furthest_off"][0]] == off.max()


def test_such_biases_usually_end_as_unexplained():
    names = []
    for seed in range(12):
        rng, logits, y, counts = world(100 + seed, 60, 5000)
        names.append(
            evenhand.audit(logits=logits + 1.5 * rng.normal(size=60), target=y, train_counts=counts).verdict.cause
        )
    assert names.count("unexplained") >= 8, names


@pytest.mark.parametrize("seed", range(6))
def test_exact_posteriors_of_hard_tasks_are_never_unexplained(seed):
    _, logits, y, counts = world(seed, 60, 400 * (1 + seed), skill=0.3)
    assert evenhand.audit(logits=logits, target=y, train_counts=counts).verdict.cause in (
        "healthy",
        "argmax-amplification",
    )


def test_an_answer_that_never_changes_is_not_argmax_amplification():
    """All predictions on one rare class, though stretching the logits would bring back what the model knows."""
    _, logits, y, counts = world(3, 40, 3000)
    stuck = np.where(np.arange(40) == np.argmin(counts), 3.0, 0.0) + 0.01 * logits
    found = evenhand.audit(logits=stuck, target=y, train_counts=counts)
    assert found.verdict.cause not in ("healthy", "argmax-amplification")


def timid(logits, counts, beta):
    """A network that knows the prior and is not sure enough of the rest: tau = 1 - beta."""
    log_prior = np.log(counts / counts.sum())
    return log_prior + (logits - log_prior) / beta


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beta", [1.5, 2.0, 2.5])
def test_a_timid_network_is_not_accused_on_the_rows_it_was_trained_for(seed, beta):
    _, logits, y, counts = world(200 + seed, 40, 6000)
    found = evenhand.audit(logits=timid(logits, counts, beta), target=y, train_counts=counts)
    assert found.verdict.cause in ("healthy", "argmax-amplification")


@pytest.mark.parametrize("seed", range(4))
def test_a_timid_network_on_balanced_rows_is_told_of_the_shift(seed):
    rng, logits, y, counts = world(300 + seed, 40, 40_000)
    least = np.bincount(y, minlength=40).min()
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == k))[:least] for k in range(40)])
    found = evenhand.audit(logits=timid(logits, counts, 2.0)[rows], target=y[rows], train_counts=counts)
    assert found.verdict.cause == "prior-shift"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("excess", "cause"), [(1.1, False), (1.5, True)])
def test_an_unfinished_network_is_not_said_to_have_weights_turned_round(seed, excess, cause):
    """Underconfident and leaning to frequent classes by less than weights in proportion to the counts would."""
    _, logits, y, counts = world(400 + seed, 40, 8000)
    log_prior = np.log(counts / counts.sum())
    found = evenhand.audit(logits=(logits + excess * log_prior) / 1.5, target=y, train_counts=counts)
    assert (found.verdict.cause == "inverted-weights") is cause


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gain", [3.0, 8.0])
def test_a_tanh_head_driven_into_its_bound_is_bounded_not_tied(seed, gain):
    """An LSTM's state as logits, trained without weights: most rows have several classes at exactly 1 in float32."""
    _, logits, y, counts = world(500 + seed, 100, 4000)
    driven = np.tanh(gain * (logits - np.sort(logits, axis=1)[:, [-6]])).astype(np.float32)
    found = evenhand.audit(logits=driven, target=y, train_counts=counts)
    assert found.verdict.cause == "bounded-logits"
    assert "tied-logits" not in [f.cause for f in found.findings]
