"""Properties of draws for any labels, sizes, ranks, powers and places: permutations, quotas, resuming, batches."""

from __future__ import annotations

import math
import time
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

pytest.importorskip("torch")

from evenhand.training.samplers import ClassPowerSampler, ProgressiveSampler
from evenhand.training.sampling.drawing import ClassRows, power_rate, quotas, quotas_between
from evenhand.training.sampling.permuting import mixed, permute
from evenhand.training.schedules import DeferredResampling

LABELS = st.lists(st.integers(0, 9), min_size=2, max_size=120).filter(lambda rows: max(rows) > 0)
SEEDS = st.integers(0, 2**40)
POWERS = st.floats(-3, 3)


@given(size=st.integers(1, 3000), key=SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_one(size: int, key: int) -> None:
    assert np.sort(permute(np.arange(size), size, mixed(key))).tolist() == list(range(size))


@given(sizes=st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=20), key=SEEDS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_entries_of_many_permutations_at_once_are_those_of_each(
    sizes: list[int], key: int, data: st.DataObject
) -> None:
    position = np.array([data.draw(st.integers(0, size - 1)) for size in sizes])
    keys = mixed(key, np.arange(len(sizes)))
    together = permute(position, np.array(sizes), keys)
    assert ((together >= 0) & (together < np.array(sizes))).all()
    for i, size in enumerate(sizes):
        assert permute(position[i : i + 1], size, keys[i]).tolist() == [together[i]]


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_few_rows_are_equally_frequent(size: int) -> None:
    keys = mixed(1, np.arange(60_000))
    order = sum(permute(np.full(60_000, i), size, keys) * size**i for i in range(size))
    assert chisquare(np.unique(order, return_counts=True)[1]).pvalue > 1e-3
    assert len(np.unique(order)) == [2, 6, 24, 120][size - 2]


def test_places_of_many_rows_are_uniform_and_neighbours_part() -> None:
    keys = mixed(2, np.arange(40_000))
    first, second = (permute(np.full(40_000, i), 97, keys) for i in (0, 1))
    assert chisquare(np.bincount(first, minlength=97)).pvalue > 1e-3
    step = (second - first) % 97
    assert chisquare(np.bincount(step, minlength=97)[1:]).pvalue > 1e-3


@given(
    rate=st.lists(st.floats(0, 1e6), min_size=2, max_size=30).filter(lambda r: sum(r) > 0),
    total=st.integers(1, 2**32 - 1),
    seed=SEEDS,
    epoch=st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None)
def test_quotas_are_the_rates_rounded_up_or_down(rate: list[float], total: int, seed: int, epoch: int) -> None:
    rates = np.array(rate)
    quota = quotas(rates, total, seed, epoch)
    assert quota.sum() == total
    assert (quota >= 0).all()
    assert (quota[rates == 0] == 0).all()
    assert np.abs(quota - total * rates / rates.sum()).max() < 1 + 1e-5


@given(
    rate=st.lists(st.floats(0, 1e6), min_size=2, max_size=30).filter(lambda r: sum(r) > 0),
    total=st.integers(1, 2**32 - 1),
    seed=SEEDS,
    begin=st.integers(0, 50),
    epochs=st.integers(0, 60),
)
@settings(max_examples=100, deadline=None)
def test_quotas_of_many_epochs_are_the_sum(rate: list[float], total: int, seed: int, begin: int, epochs: int) -> None:
    rates = np.array(rate)
    found = quotas_between(rates, total, seed, begin, begin + epochs)
    expected = sum((quotas(rates, total, seed, e) for e in range(begin, begin + epochs)), np.zeros(len(rate), int))
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("late", [0, 3])
def test_a_late_epoch_is_the_same_by_leap_and_step_by_step(late: int) -> None:
    labels = np.arange(97) % 5 % 3
    kinds = {
        "constant": lambda: ClassPowerSampler(labels, 0.3, num_samples=41),
        "progressive": lambda: ProgressiveSampler(labels, 6, num_samples=41),
        "deferred": lambda: DeferredResampling(ProgressiveSampler(labels, 6, num_samples=41), late),
    }
    for build in kinds.values():
        stepped = build()
        for epoch in range(30):
            stepped.set_epoch(epoch)
            assert list(stepped) == build().indices(epoch).tolist()
    begin = time.process_time()
    kinds["constant"]().indices(10**6)
    assert time.process_time() - begin < 5


def test_over_epochs_and_seeds_the_mean_is_exact() -> None:
    rate = np.array([0.5, 0.301, 0.1, 0.099])
    mean = np.mean([quotas(rate, 7, seed, epoch) for seed in range(300) for epoch in range(10)], axis=0)
    np.testing.assert_allclose(mean, 7 * rate, atol=0.02)


@given(labels=LABELS, power=POWERS)
@settings(max_examples=60, deadline=None)
def test_rows_are_grouped_by_class(labels: list[int], power: float) -> None:
    rows = ClassRows.from_labels(labels, absent="skip")
    assert np.sort(rows.order).tolist() == list(range(len(labels)))
    for k, (begin, count) in enumerate(zip(rows.first, rows.counts, strict=True)):
        assert rows.order[begin : begin + count].tolist() == [i for i, y in enumerate(labels) if y == k]
    rate = power_rate(rows.counts, power)
    assert rate.sum() == pytest.approx(1)
    assert ((rate > 0) == (rows.counts > 0)).all()


def test_rows_are_grouped_beyond_65536_classes() -> None:
    labels = np.random.default_rng(0).integers(0, 70_000, 200_000)
    rows = ClassRows.from_labels(labels, classes=70_000, absent="skip")
    assert (rows.order == np.argsort(labels, kind="stable")).all()
    sampler = ClassPowerSampler(labels, classes=70_000, absent="skip", num_samples=500_000)
    drawn = np.bincount(labels[sampler.indices()], minlength=70_000)
    assert (drawn == sampler.quotas()).all()


@given(
    labels=LABELS,
    power=POWERS,
    seed=SEEDS,
    ranks=st.integers(1, 7),
    draws=st.one_of(st.none(), st.integers(1, 300)),
    epoch=st.integers(0, 4),
    replacement=st.booleans(),
    cut=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_any_rank_from_any_place_draws_its_part_of_the_one_sequence(
    labels: list[int],
    power: float,
    seed: int,
    ranks: int,
    draws: int | None,
    epoch: int,
    replacement: bool,
    cut: float,
) -> None:
    options = {"seed": seed, "num_samples": draws, "replacement": replacement, "absent": "skip"}
    whole = ClassPowerSampler(labels, power, **options).indices(epoch).tolist()
    assert len(whole) == (draws or len(labels))
    for rank in range(ranks):
        mine = whole[rank::ranks]
        part = ClassPowerSampler(labels, power, num_replicas=ranks, rank=rank, **options)
        part.set_epoch(epoch)
        assert len(part) == len(mine)
        assert part.indices(epoch).tolist() == mine
        assert list(part) == mine
        at = int(cut * max(len(mine) - 1, 0))
        part.set_epoch(epoch)
        assert list(islice(part, at)) == mine[:at]
        resumed = ClassPowerSampler(labels, power, num_replicas=ranks, rank=rank, **options)
        resumed.load_state_dict(part.state_dict())
        if mine:
            assert list(resumed) == mine[at:]


@given(labels=LABELS, power=POWERS, seed=SEEDS, draws=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_cards_are_dealt_from_the_top(labels: list[int], power: float, seed: int, draws: int) -> None:
    sampler = ClassPowerSampler(labels, power, seed=seed, num_samples=draws, absent="skip")
    times = np.zeros(len(labels), int)
    for epoch in range(4):
        np.add.at(times, sampler.indices(epoch), 1)
        for k in np.unique(labels):
            assert np.ptp(times[np.array(labels) == k]) <= 1


@given(
    labels=LABELS, ranks=st.integers(1, 5), size=st.integers(1, 40), drop_last=st.booleans(), cut=st.integers(0, 100)
)
@settings(max_examples=80, deadline=None)
def test_batches_lose_nothing_and_are_as_many_everywhere(
    labels: list[int], ranks: int, size: int, drop_last: bool, cut: int
) -> None:
    whole = ClassPowerSampler(labels, 0.5, absent="skip").indices().tolist()
    fewest, extra = divmod(len(labels), ranks)
    if not drop_last and math.ceil((fewest + (extra > 0)) / size) > fewest:
        return  # refused: a rank would have an empty batch
    counts = set()
    for rank in range(ranks):

        def build(rank: int = rank):
            sampler = ClassPowerSampler(labels, 0.5, absent="skip", num_replicas=ranks, rank=rank)
            return sampler.batches(size, drop_last=drop_last)

        batches = list(build())
        mine = list(chain.from_iterable(batches))
        counts.add((len(batches), len(build())))
        assert all(0 < len(batch) <= size for batch in batches)
        assert mine == whole[rank::ranks][: len(mine)]
        assert len(mine) == (len(batches) * size if drop_last else len(whole[rank::ranks]))
        first, second = build(), build()
        at = min(cut, len(batches))
        begun = list(islice(first, at))
        second.load_state_dict(first.state_dict(done=at))
        assert at == len(batches) or begun + list(second) == batches
    assert len(counts) == 1
    assert all(one == two for one, two in counts)


@given(labels=LABELS, epochs=st.integers(2, 6), start=POWERS, end=POWERS)
@settings(max_examples=40, deadline=None)
def test_progressive_rates_lie_between_the_first_and_the_last(
    labels: list[int], epochs: int, start: float, end: float
) -> None:
    sampler = ProgressiveSampler(labels, epochs, start, end, absent="skip")
    first, last = (power_rate(sampler.counts, power) for power in (start, end))
    np.testing.assert_allclose(sampler.rate_at(0), first)
    np.testing.assert_allclose(sampler.rate_at(epochs - 1), last)
    for epoch in range(epochs + 1):
        rate = sampler.rate_at(epoch)
        assert rate.sum() == pytest.approx(1)
        assert (rate >= np.minimum(first, last) * (1 - 1e-9)).all()
        assert (rate <= np.maximum(first, last) * (1 + 1e-9)).all()
        assert (
            np.bincount(np.array(labels)[sampler.indices(epoch)], minlength=len(rate)) == sampler.quotas(epoch)
        ).all()
