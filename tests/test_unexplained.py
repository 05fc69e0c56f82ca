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
