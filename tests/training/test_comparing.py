"""Intervals hold what they promise, over rows and seeds; Holm against scipy-free arithmetic; the choice is honest."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

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


def null_comparison(
    rng: np.random.Generator, y: np.ndarray, classes: int, group: np.ndarray | None = None
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Two remedies with the same chance to be right in every class, three seeds; rows are hard for both or one."""
    chance = np.clip(rng.normal(0.5, 0.2, classes), 0.03, 0.97)[y]
    unit = np.arange(len(y)) if group is None else group
    common, own = rng.normal(size=len(y))[unit], rng.normal(size=(2, len(y)))[:, unit]

    def once(side: int) -> np.ndarray:
        z = 0.5**0.5 * common + 0.3**0.5 * own[side] + 0.2**0.5 * rng.normal(size=len(y))
        return np.where(z < scipy.stats.norm.ppf(chance), y, (y + rng.integers(1, classes, len(y))) % classes)

    return {s: once(0) for s in range(3)}, {s: once(1) for s in range(3)}


@pytest.mark.parametrize(
    ("classes", "few", "rows", "copies", "metric"),
    [
        (20, 6, 100, 1, "balanced_accuracy"),
        (60, 42, 10, 2, "balanced_accuracy"),
        (60, 60, 10, 1, "macro_f1"),
        (30, 0, 10, 1, "balanced_accuracy"),
    ],
)
def test_errors_are_as_large_as_the_scatter_however_few_rows_a_class_has(
    classes: int, few: int, rows: int, copies: int, metric: str
) -> None:
    """300 comparisons without a difference; without the donors the first two would be sure of one in 10 % of them."""
    rng = np.random.default_rng(classes)
    values, errors, excluded = [], [], 0
    for _ in range(300):
        n = np.where(np.arange(classes) < few, rng.integers(1, 3, classes), rows)
        y = np.repeat(np.arange(classes), n * copies)
        group = np.arange(len(y)) // copies
        bootstrap = Bootstrap(y, METRICS[metric], classes, group=group, draws=100, seed=int(rng.integers(1 << 30)))
        found = estimate(*(Drawn.of(bootstrap, d) for d in null_comparison(rng, y, classes, group)))
        values.append(found.value)
        errors.append(found.error)
        excluded += found.interval[0] > 0 or found.interval[1] < 0
    assert excluded <= 0.085 * 300  # 5 %, and three standard errors of a count of 300
    assert 0.88 < np.mean(errors) / np.std(values) < 1.25


def test_a_class_of_one_row_is_not_taken_for_certain() -> None:
    y = np.array([0] * 50 + [1, 2, 3, 4, 5, 6])
    right = y.copy()
    wrong = np.where(np.isin(y, [1, 2, 3]), 0, y)
    half = Drawn.of(Bootstrap(y, BALANCED, 7), {0: wrong, 1: wrong})
    # Three of six such classes are right: the scatter of six coins among seven classes.
    assert estimate(half).error == pytest.approx((6 * 0.25) ** 0.5 / 7, rel=0.15)
    assert estimate(Drawn.of(Bootstrap(y, BALANCED, 7), {0: right, 1: right})).error == 0
