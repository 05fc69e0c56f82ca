"""Intervals of tau cover the planted tilt of exact posteriors in 93 to 97 of 100 draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from evenhand.auditing import audit_predictions
from evenhand.files import from_arrays

from .worlds import Setting, make_world

TAUS = (0.0, 0.5, 1.0, 2.0, -0.5)
SIZES = ((5, 300), (20, 400), (50, 1000), (100, 500), (300, 600))
PROFILES = ("zipf-1", "exponential-30", "lognormal", "step-20")


def draws(number, *, counts, first=0):
    """(tau, lower, upper) of exact posteriors tilted by -tau log pi."""
    for seed in range(first, first + number):
        tau, (classes, rows) = TAUS[seed % 5], SIZES[(seed // 5) % 5]
        setting = Setting(
            seed=seed, classes=classes, rows=rows, profile=PROFILES[seed % 4], skill=0.2 + 0.6 * (seed % 7) / 6
        )
        world = make_world(setting)
        logits = (world.truth - tau * world.log_prior).astype(np.float32)
        given = {"train_counts": world.counts} if counts else {}
        tilt = audit_predictions(from_arrays(logits=logits, target=world.target, **given)).tilt
        yield tau, *tilt["tau_interval"]


def covered(number, **options):
    return [low <= tau <= high for tau, low, high in draws(number, **options)]


@pytest.fixture(scope="module")
def hits():
    return covered(600, counts=True)


def test_intervals_cover_the_planted_tilt(hits):
    assert 0.93 <= np.mean(hits) <= 0.97, f"{np.mean(hits):.3f} of 600 intervals cover"


def test_every_tilt_is_covered(hits):
    """Per planted tau the coverage must be compatible with 95%, so that no tilt pays for another."""
    by_tau = np.array(hits).reshape(-1, 5)
    low, high = binom.interval(0.999, len(by_tau), 0.95)
    for tau, column in zip(TAUS, by_tau.T, strict=True):
        assert low <= column.sum() <= high, f"tau {tau}: {column.sum()} of {len(by_tau)}"


def test_without_training_counts_the_evaluation_counts_stand_in():
    """Their noise costs something only where rows per class are few: here there are enough."""
    errors = []
    for seed in range(60):
        tau = TAUS[seed % 5]
        world = make_world(replace(Setting(seed=seed), classes=20, rows=4000, profile="zipf-1"))
        logits = (world.truth - tau * world.log_prior).astype(np.float32)
        tilt = audit_predictions(from_arrays(logits=logits, target=world.target)).tilt
        errors.append(tilt["tau"] - tau)
    assert abs(np.mean(errors)) < 0.03
    assert np.abs(errors).max() < 0.2


@pytest.mark.slow
def test_intervals_cover_the_planted_tilt_in_many_draws():
    hits = covered(2000, counts=True, first=600)
    assert 0.935 <= np.mean(hits) <= 0.965, f"{np.mean(hits):.3f} of 2000 intervals cover"
