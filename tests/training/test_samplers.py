"""Samplers: exact quotas, cards dealt from the top, the same rows whoever draws them and wherever a run is resumed."""

from __future__ import annotations

import io
import tracemalloc
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import evenhand  # noqa: E402
from evenhand.declared import InputError  # noqa: E402
from evenhand.training import samplers  # noqa: E402
from evenhand.training.samplers import (  # noqa: E402
    ClassPowerSampler,
    ClassRateSampler,
    EffectiveNumberSampler,
    ProgressiveSampler,
)


def long_tailed(rows: int = 1000, classes: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    prior = 1 / np.arange(1, classes + 1)
    labels = rng.choice(classes, rows, p=prior / prior.sum())
    labels[:classes] = np.arange(classes)
    return rng.permutation(labels)


LABELS = long_tailed()
GOLDEN_BALANCED = [9, 1, 9, 6, 0, 8, 9, 7, 2, 9]
GOLDEN_INDEPENDENT = [9, 9, 1, 0, 8, 3, 9, 6, 9, 7]
KINDS = {
    "balanced": lambda **o: ClassPowerSampler(LABELS, 0.0, **o),
    "sqrt": lambda **o: ClassPowerSampler(LABELS, 0.5, **o),
    "natural": lambda **o: ClassPowerSampler(LABELS, 1.0, **o),
    "rare first": lambda **o: ClassPowerSampler(LABELS, -0.5, **o),
    "effective": lambda **o: EffectiveNumberSampler(LABELS, 0.99, **o),
    "progressive": lambda **o: ProgressiveSampler(LABELS, 4, **o),
    "rates": lambda **o: ClassRateSampler(LABELS, np.arange(20), **o),
    "independent": lambda **o: ClassPowerSampler(LABELS, 0.0, replacement=True, **o),
}


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("power", [-1, 0, 0.3, 0.5, 1, 2])
def test_the_rate_is_a_power_of_the_counts(power: float) -> None:
    sampler = ClassPowerSampler(LABELS, power)
    counts = np.bincount(LABELS).astype(float)
    np.testing.assert_allclose(sampler.sampler_rate, counts**power / (counts**power).sum(), rtol=1e-12)
    assert sampler.sampler_rate.dtype == np.float64


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_forecast_and_audit_take_the_rate(power: float) -> None:
    sampler = ClassPowerSampler(LABELS, power)
    result = evenhand.forecast(sampler.counts, sampler_rate=sampler.sampler_rate)
    assert result.tau == pytest.approx(1 - power, abs=1e-9)
    rng = np.random.default_rng(1)
    target = rng.integers(0, 20, 300)
    logits = rng.normal(size=(300, 20)) + 3 * np.eye(20)[target]
    found = evenhand.audit(logits=logits, target=target, train_counts=sampler.counts, sampler=sampler.sampler_rate)
    assert found.findings


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "independent"])
def test_every_epoch_has_its_quotas_and_they_are_the_rates_rounded(kind: str) -> None:
    sampler = KINDS[kind](seed=3)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        quota = sampler.quotas()
        assert np.abs(quota - 1000 * sampler.sampler_rate).max() < 1
        assert quota.sum() == 1000
        np.testing.assert_array_equal(np.bincount(LABELS[list(sampler)], minlength=20), quota)


def test_what_is_rounded_away_comes_back_over_epochs() -> None:
    sampler = ClassPowerSampler(LABELS, 0.5, num_samples=37)
    drawn = np.cumsum([sampler.quotas(epoch) for epoch in range(400)], axis=0)
    expected = np.arange(1, 401)[:, None] * 37 * sampler.sampler_rate
    assert np.abs(drawn - expected).max() < 4


def test_natural_is_a_shuffle_of_the_data() -> None:
    for epoch in range(3):
        assert sorted(ClassPowerSampler(LABELS, 1).indices(epoch).tolist()) == list(range(1000))


def test_no_row_comes_again_before_all_of_its_class_have_come() -> None:
    sampler = ClassPowerSampler(LABELS, 0)
    times = np.zeros(1000, int)
    for epoch in range(40):
        np.add.at(times, sampler.indices(epoch), 1)
        for k in range(20):
            own = times[k == LABELS]
            assert own.max() - own.min() <= 1


def test_independent_draws_follow_the_rates() -> None:
    sampler = ClassPowerSampler(LABELS, 0.5, replacement=True, num_samples=200_000)
    counts = np.bincount(LABELS[sampler.indices()], minlength=20)
    expected = 200_000 * sampler.sampler_rate
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared with 19 degrees of freedom: p 0.0007
    rows = np.bincount(sampler.indices(1), minlength=1000)
    each = (200_000 * sampler.sampler_rate / sampler.counts)[LABELS]
    assert ((rows - each) ** 2 / each).sum() < 1000 + 4 * np.sqrt(2000)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_and_epoch_decide(kind: str) -> None:
    one, two = KINDS[kind](seed=5), KINDS[kind](seed=5)
    assert one.indices(7).tolist() == two.indices(7).tolist()
    two.set_epoch(7)
    assert list(two) == one.indices(7).tolist()
    assert one.indices(8).tolist() != one.indices(7).tolist() != KINDS[kind](seed=6).indices(7).tolist()


def test_the_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A change here breaks the resuming of everybody's runs, so it must be meant and told in the changelog."""
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    assert ClassPowerSampler(labels, 0, seed=7).indices(5).tolist() == GOLDEN_BALANCED
    assert ClassPowerSampler(labels, 0, seed=7, replacement=True).indices(5).tolist() == GOLDEN_INDEPENDENT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_together_are_the_single_process(kind: str, ranks: int) -> None:
    whole = KINDS[kind]().indices(2)
    parts = [KINDS[kind](num_replicas=ranks, rank=r) for r in range(ranks)]
    for rank, part in enumerate(parts):
        part.set_epoch(2)
        mine = list(part)
        assert len(mine) == len(part)
        assert mine == whole[rank::ranks].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 1, 499, 999, 1000])
def test_resumed_in_the_middle_it_goes_on_with_the_next_row(kind: str, at: int) -> None:
    first = KINDS[kind](seed=2)
    first.set_epoch(3)
    rows = iter(first)
    begun = list(islice(rows, at))
    state = through_a_file(first.state_dict())
    resumed = KINDS[kind](seed=2)
    resumed.load_state_dict(state)
    resumed.set_epoch(3 if at < 1000 else 4)
    rest = list(resumed)
    assert begun + rest == first.indices(3).tolist() or (at == 1000 and rest == first.indices(4).tolist())
    assert list(resumed) == first.indices(4 if at < 1000 else 5).tolist(), "without set_epoch the next epoch follows"


def test_a_loader_that_asks_ahead_says_how_far_training_is() -> None:
    first = ClassPowerSampler(LABELS)
    list(islice(first, 700))
    resumed = ClassPowerSampler(LABELS)
    resumed.load_state_dict(first.state_dict(done=640))
    assert list(resumed) == first.indices(0)[640:].tolist()


def test_a_state_is_taken_up_on_other_ranks() -> None:
    whole = ClassPowerSampler(LABELS)
    state = ClassPowerSampler(LABELS, num_replicas=2, rank=1).state_dict(done=300)
    parts = [ClassPowerSampler(LABELS, num_replicas=3, rank=r) for r in range(3)]
    for rank, part in enumerate(parts):
        part.load_state_dict(state)
        assert list(part) == whole.indices(0)[600:][rank::3].tolist()


def test_set_epoch_again_begins_the_epoch_again() -> None:
    sampler = ClassPowerSampler(LABELS)
    sampler.set_epoch(0)
    once = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == once


def test_progressive_moves_from_natural_to_balanced() -> None:
    sampler = ProgressiveSampler(LABELS, epochs=5)
    natural, balanced = np.bincount(LABELS) / 1000, np.full(20, 1 / 20)
    for epoch, share in enumerate([0, 0.25, 0.5, 0.75, 1, 1]):
        sampler.step(epoch)
        np.testing.assert_allclose(sampler.sampler_rate, (1 - share) * natural + share * balanced, rtol=1e-12)


def test_effective_number_draws_rows_by_its_inverse() -> None:
    counts = np.bincount(LABELS)
    expected = counts / evenhand.counts.effective_number(counts, 0.99)
    np.testing.assert_allclose(EffectiveNumberSampler(LABELS, 0.99).sampler_rate, expected / expected.sum(), rtol=1e-12)


def test_weights_and_sampler_together_are_refused_with_numbers() -> None:
    weights = evenhand.class_weights(np.bincount(LABELS))
    with pytest.raises(ValueError, match=r"2\.00 times \(the sampler alone 1\.00; .* accuracy falls from 0\.\d+ to 0"):
        ClassPowerSampler(LABELS, 0, class_weight=weights)
    ClassPowerSampler(LABELS, 0, class_weight=weights, allow_double_correction=True)
    ClassPowerSampler(LABELS, 0.5, class_weight="sqrt")
    ClassPowerSampler(LABELS, 1, class_weight="balanced")
    with pytest.raises(InputError, match=r"2\.00 times"):
        ClassPowerSampler(LABELS, 0, class_weight=dict(enumerate(weights)))
    with pytest.raises(InputError, match="allow_double_correction=True"):
        ProgressiveSampler(LABELS, 10, class_weight="balanced")


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("rows", "ranks", "size"), [(1000, 1, 64), (1000, 3, 37), (7, 2, 3), (9, 2, 4), (13, 4, 3)])
def test_batches_are_as_many_on_every_rank(rows: int, ranks: int, size: int, drop_last: bool) -> None:
    labels = LABELS[:rows] if rows == 1000 else np.arange(rows) % 3
    whole = ClassPowerSampler(labels).indices().tolist()
    parts = [
        ClassPowerSampler(labels, num_replicas=ranks, rank=r).batches(size, drop_last=drop_last) for r in range(ranks)
    ]
    drawn = [list(part) for part in parts]
    assert len({len(batches) for batches in drawn}) == 1
    for rank, (batches, part) in enumerate(zip(drawn, parts, strict=True)):
        assert len(batches) == len(part)
        assert all(1 <= len(batch) <= size for batch in batches)
        mine = list(chain.from_iterable(batches))
        assert mine == whole[rank::ranks][: len(mine)]
        assert drop_last or len(mine) == len(whole[rank::ranks])
        assert not drop_last or all(len(batch) == size for batch in batches)


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_resume(drop_last: bool) -> None:
    make = lambda: ClassPowerSampler(LABELS, num_replicas=3, rank=2).batches(37, drop_last=drop_last)  # noqa: E731
    whole = list(make())
    for at in range(len(whole) + 1):
        first = make()
        begun = list(islice(first, at))
        resumed, told = make(), make()
        resumed.load_state_dict(through_a_file(first.state_dict()))
        told.load_state_dict(first.state_dict(done=at))
        if at < len(whole):
            assert begun + list(resumed) == whole == begun + list(told)
        else:
            assert resumed.sampler.epoch == told.sampler.epoch == 1
            assert list(resumed) == list(told) != whole


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("rows", "ranks", "size"), [(101, 2, 10), (1000, 3, 37), (13, 4, 3), (7, 2, 3)])
def test_one_rank_s_state_serves_all_ranks(rows: int, ranks: int, size: int, drop_last: bool) -> None:
    """Also before the last batch, to which some ranks have moved a row: else they would end a batch earlier."""
    labels = np.arange(rows) % 3

    def build(rank: int) -> samplers.ClassBatches:
        return ClassPowerSampler(labels, num_replicas=ranks, rank=rank).batches(size, drop_last=drop_last)

    for at in range(len(build(0))):
        for saver in range(ranks):
            first = build(saver)
            list(islice(first, at))
            assert first.state_dict() == first.state_dict(done=at)
            for rank in range(ranks):
                resumed = build(rank)
                resumed.load_state_dict(first.state_dict())
                assert list(resumed) == list(build(rank))[at:]


BAD: dict[str, tuple[Any, str]] = {
    "empty": (lambda: ClassPowerSampler([]), "at least one row"),
    "negative": (lambda: ClassPowerSampler([0, 1, -1]), "row 2 has -1"),
    "NaN label": (lambda: ClassPowerSampler([0.0, float("nan"), 1.0]), "whole numbers"),
    "2-D": (lambda: ClassPowerSampler(np.eye(3)), "1-D"),
    "names": (lambda: ClassPowerSampler(["a", "b"]), "class indices"),
    "absent class": (lambda: ClassPowerSampler([0, 0, 2]), "class 1 has none"),
    "absent word": (lambda: ClassPowerSampler([0, 1], absent="drop"), "'error' or 'skip'"),
    "rank": (lambda: ClassPowerSampler([0, 1], num_replicas=2, rank=2), "below the 2 replicas"),
    "negative rank": (lambda: ClassPowerSampler([0, 1], num_replicas=2, rank=-1), "rank"),
    "rank alone": (lambda: ClassPowerSampler([0, 1], rank=0), "both num_replicas and rank"),
    "power NaN": (lambda: ClassPowerSampler([0, 1], float("nan")), "power between"),
    "power": (lambda: ClassPowerSampler([0, 1], 11), "power between"),
    "power text": (lambda: ClassPowerSampler([0, 1], "sqrt"), "power between"),
    "num_samples": (lambda: ClassPowerSampler([0, 1], num_samples=0), "num_samples"),
    "huge": (lambda: ClassPowerSampler([0, 1], num_samples=2**32), "num_samples"),
    "seed": (lambda: ClassPowerSampler([0, 1], seed=-1), "seed"),
    "huge seed": (lambda: ClassPowerSampler([0, 1], seed=2**63), "below 2"),
    "seed text": (lambda: ClassPowerSampler([0, 1], seed="a"), "seed"),
    "epoch": (lambda: ClassPowerSampler([0, 1]).set_epoch(-1), "epoch"),
    "rates": (lambda: ClassRateSampler([0, 1], [1, 2, 3]), "2 of them"),
    "rate NaN": (lambda: ClassRateSampler([0, 1], [1, float("nan")]), "class 1 has nan"),
    "no rate": (lambda: ClassRateSampler([0, 1], [0, 0]), "nothing would be drawn"),
    "weights by name": (
        lambda: ClassPowerSampler([0, 1], class_weight={"a": 1.0, "b": 2.0}),
        "class_weight by class index",
    ),
    "beta": (lambda: EffectiveNumberSampler([0, 1], 1.0), "beta"),
    "epochs": (lambda: ProgressiveSampler([0, 1], 1), "epochs"),
    "end": (lambda: ProgressiveSampler([0, 1], 3, end=float("nan")), "power between"),
    "done": (lambda: ClassPowerSampler([0, 1]).state_dict(done=3), "at most the 2 rows"),
    "state": (lambda: ClassPowerSampler([0, 1]).load_state_dict({"epoch": 1}), "keys drawn, epoch and plan"),
    "other plan": (
        lambda: ClassPowerSampler([0, 1, 1]).load_state_dict(ClassPowerSampler([0, 1, 1], 0.5).state_dict()),
        "other labels, rates",
    ),
    "batches done": (lambda: ClassPowerSampler([0, 1]).batches(1).state_dict(done=3), "at most the 2 batches"),
    "batch size": (lambda: ClassPowerSampler([0, 1]).batches(0), "batch_size"),
    "uneven": (lambda: ClassPowerSampler([0, 1, 1], num_replicas=2, rank=0).batches(1), "multiple of the ranks"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_sentence(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises(InputError, match=words) as told:
        call()
    assert "\n" not in str(told.value)


def test_a_class_without_rows_is_never_drawn_if_allowed() -> None:
    for replacement in (False, True):
        sampler = ClassPowerSampler([0, 0, 2], classes=5, absent="skip", num_samples=1000, replacement=replacement)
        assert sampler.sampler_rate.tolist() == [0.5, 0, 0.5, 0, 0]
        assert set(sampler) == {0, 1, 2}


def test_more_categories_than_multinomial_takes() -> None:
    labels = np.zeros(2**24 + 10, np.int32)
    labels[-5:] = 1
    sampler = ClassPowerSampler(labels, num_samples=1000)
    assert np.bincount(labels[sampler.indices()]).tolist() == [500, 500]
    with pytest.raises(RuntimeError, match="2\\^24"):
        torch.multinomial(torch.ones(len(labels)), 1)


@pytest.mark.parametrize(("kind", "classes"), [(np.int64, 100), (np.int32, 100), (np.uint8, 100), (np.int32, 70_000)])
def test_memory_is_a_few_bytes_per_row(kind: type, classes: int) -> None:
    labels = (np.arange(2_000_000) % classes).astype(kind)
    tracemalloc.start()
    try:
        sampler = ClassPowerSampler(labels)
        held, built = tracemalloc.get_traced_memory()
        next(iter(sampler))
        drawing = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    by_class, chunk = 40 * classes, 48 * 2**16  # vectors by class; the rows that are worked out at a time
    assert held < 4.1 * len(labels) + by_class
    assert built < (12.1 if classes < 2**16 else 24.1) * len(labels) + 4 * by_class
    assert drawing < (6.1 if classes < 2**16 else 8.1) * len(labels) + 3 * by_class + chunk


@pytest.mark.parametrize("kind", [np.float64, np.int32, np.uint32, np.int64])
def test_more_classes_than_sixteen_bits_are_grouped(kind: type) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(140_000) % 70_000).astype(kind)
    drawn = ClassPowerSampler(labels, num_samples=70_000).indices()
    assert np.array_equal(np.sort(labels[drawn]), np.arange(70_000))


def test_names_are_exported() -> None:
    assert all(hasattr(samplers, name) for name in samplers.__all__)
