"""Intervals hold what they promise, over rows and seeds; Holm against scipy-free arithmetic; the choice is honest."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.goals import METRICS
from evenhand.training.racing.comparing import Bootstrap, Drawn, estimate, holm

BALANCED = METRICS["balanced_accuracy"]


def decisions(rng: np.random.Generator, y: np.ndarray, accuracy: float) -> np.ndarray:
    return np.where(rng.random(len(y)) < accuracy, y, (y + 1) % 3)


def test_the_bootstrap_is_the_metric_under_row_weights() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    d = decisions(rng, y, 0.7)
    bootstrap = Bootstrap(y, BALANCED, 3, draws=5)
    value, drawn = bootstrap.draws(d)
    assert value == pytest.approx(np.mean([(d == k)[y == k].mean() for k in range(3)]))
    for weights, found in zip(bootstrap.weights, drawn, strict=True):
        expected = np.mean([np.average((d == k)[y == k], weights=weights[y == k]) for k in range(3)])
        assert found == pytest.approx(expected)


def test_groups_are_drawn_together() -> None:
    y = np.repeat([0, 1], 50)
    group = np.arange(100) // 10
    weights = Bootstrap(y, BALANCED, 2, group=group, draws=20).weights
    assert (weights.reshape(20, 10, 10) == weights.reshape(20, 10, 10)[:, :, :1]).all()


def test_intervals_cover_the_truth_over_rows_and_seeds() -> None:
    """400 experiments: accuracies vary by seed (sd 0.03) and by row; 95 % intervals hold the true difference of 0.05.

    Three seeds, so an interval from resampled seeds would hold far less often.
    """
    rng = np.random.default_rng(0)
    held, excluded = 0, 0
    for _ in range(400):
        y = rng.integers(0, 3, 300)
        bootstrap = Bootstrap(y, METRICS["accuracy"], 3, draws=100, seed=int(rng.integers(1 << 30)))
        pairs = [(0.6 + 0.03 * rng.normal(), 0.65 + 0.03 * rng.normal()) for _ in range(3)]
        plain, other = (
            Drawn.of(bootstrap, {s: decisions(rng, y, pair[side]) for s, pair in enumerate(pairs)}) for side in (0, 1)
        )
        found = estimate(other, plain)
        held += found.interval[0] <= 0.05 <= found.interval[1]
        excluded += found.interval[0] > 0 or found.interval[1] < 0
    assert held >= 0.93 * 400
    assert excluded > 0.05 * 400  # not by being useless


def test_pairing_cancels_what_is_common() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 500)
    bootstrap = Bootstrap(y, BALANCED, 3)
    same = {s: decisions(rng, y, 0.6) for s in range(3)}
    nearly = {s: np.where(np.arange(500) < 5, y, d) for s, d in same.items()}
    found = estimate(Drawn.of(bootstrap, nearly), Drawn.of(bootstrap, same))
    assert found.error < 0.2 * estimate(Drawn.of(bootstrap, same)).error


def test_one_seed_has_no_interval_and_equal_decisions_no_difference() -> None:
    y = np.arange(30) % 3
    bootstrap = Bootstrap(y, BALANCED, 3)
    one = Drawn.of(bootstrap, {0: y})
    assert np.isnan(estimate(one).error)
    both = Drawn.of(bootstrap, {0: y, 1: y})
    assert estimate(both, both).p == 1.0
    assert np.isnan(estimate(one, Drawn.of(bootstrap, {5: y})).value)


def test_holm_keeps_the_family_below_its_level() -> None:
    assert holm([0.01, np.nan, 0.04, 0.03])[0] == pytest.approx(0.03)
    assert np.isnan(holm([0.01, np.nan])[1])
    rng = np.random.default_rng(0)
    false = sum(min(holm(list(rng.random(10)))) < 0.05 for _ in range(2000))
    assert false / 2000 < 0.062


def test_intervals_of_shares_end_where_shares_do() -> None:
    y = np.arange(30) % 3
    bootstrap = Bootstrap(y, BALANCED, 3)
    scattered = Drawn.of(bootstrap, {0: y, 1: np.where(np.arange(30) < 15, y, (y + 1) % 3)})
    assert estimate(scattered).interval == (0.0, 1.0)
    wrong = Drawn.of(bootstrap, dict.fromkeys(range(2), (y + 1) % 3))
    assert estimate(scattered, wrong).interval == (-1.0, 1.0)
