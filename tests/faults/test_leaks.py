"""Pairs of classes between which probability leaks, and swapped pairs, on exact posteriors."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.leaks import concentrated, find_leaks
from evenhand.swaps import find_swap
from evenhand.tally import Tally

from .worlds import Setting, make_world, softmax


def world(seed, classes=30, rows=3000, skill=0.6):
    return make_world(Setting(seed=seed, classes=classes, rows=rows, skill=skill, model="exact"))


def gaps(logits, y):
    p = softmax(logits)
    return np.bincount(y, minlength=p.shape[1]) - p.sum(axis=0), (p * (1 - p)).sum(axis=0)


def leaks_of(logits, y):
    gap, information = gaps(logits, y)
    return find_leaks(logits.astype(np.float32), y, 1.0, np.zeros(logits.shape[1]), gap), gap, information


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_leak_is_found_and_holds_the_bias(seed):
    w = world(seed)
    a, b = np.argsort(-w.counts)[[1, 4]]
    p = softmax(w.logits)
    p[:, b] += 0.8 * p[:, a]
    p[:, a] *= 0.2
    leaks, gap, information = leaks_of(np.log(p), w.target)
    assert [(leak.source, leak.destination) for leak in leaks] == [(a, b)]
    assert leaks[0].flow == pytest.approx(0.8 * w.counts[a] / w.counts.sum() * len(w.target), rel=0.5)
    assert concentrated(gap, information, leaks) > 0.6


@pytest.mark.parametrize("seed", range(20))
def test_exact_posteriors_do_not_leak(seed):
    w = world(seed, classes=50, rows=1500)
    assert leaks_of(w.logits, w.target)[0] == []


@pytest.mark.parametrize("seed", range(6))
def test_a_class_that_is_merely_disfavoured_is_no_leak(seed):
    w = world(seed)
    bias = np.zeros(30)
    bias[np.argsort(-w.counts)[1]] = -1.5
    assert leaks_of(w.logits + bias, w.target)[0] == []


def tally_of(logits, y):
    from evenhand.files import from_arrays
    from evenhand.scanning import tally_predictions

    return tally_predictions(from_arrays(logits=logits.astype(np.float32), target=y))


@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_swap_is_seen_through_a_tilt_and_a_weak_model(seed, tau):
    w = world(seed, skill=0.35)
    first, second = np.argsort(-w.counts)[[0, 3]]
    order = np.arange(30)
    order[[first, second]] = second, first
    logits = w.logits - tau * w.log_prior
    tally: Tally = tally_of(logits, order[w.target])
    found = find_swap(tally, logits.astype(np.float32), order[w.target])
    assert found is not None
    assert set(np.flatnonzero(found.true_of != np.arange(30))) == {first, second}


@pytest.mark.parametrize("seed", range(20))
def test_no_swap_in_a_sound_model(seed):
    w = world(seed, skill=0.3)
    assert find_swap(tally_of(w.logits, w.target), w.logits.astype(np.float32), w.target) is None
