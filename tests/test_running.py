"""A tally that grows batch by batch is the tally of all rows at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax

from evenhand import InputError, RunningTally, audit, from_arrays, tally_predictions
from evenhand.running import sample_threshold
from evenhand.tally import ADDITIVE, Tally, combine


def rows(n: int = 3000, classes: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    pi = np.arange(1, classes + 1) ** -1.0
    y = rng.choice(classes, size=n, p=pi / pi.sum())
    z = rng.normal(size=(n, classes)).astype(np.float32)
    z[np.arange(n), y] += 2
    return z, y, np.rint(pi * 10_000)


def same(ours: Tally, whole: Tally) -> None:
    for name in ADDITIVE:
        a, b = getattr(ours, name), getattr(whole, name)
        if np.asarray(b).dtype.kind == "i":
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=name)
    for part in ("sample", "lead"):
        for field in dataclasses.fields(getattr(whole, part)):
            np.testing.assert_array_equal(
                getattr(getattr(ours, part), field.name), getattr(getattr(whole, part), field.name)
            )
    for name in ("edge_true", "edge_predicted", "edge_count"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(whole, name))


@pytest.mark.parametrize("batch", [1000, 37])
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_batches_add_up_to_the_whole(batch: int, kind: str) -> None:
    z, y, counts = rows()
    scores = z if kind == "logits" else softmax(z, axis=1)
    running = RunningTally(12, kind=kind, train_counts=counts)
    for start in range(0, len(y), batch):
        running.add(scores[start : start + batch], y[start : start + batch])
    whole = tally_predictions(from_arrays(**{kind: scores}, target=y, train_counts=counts))
    same(running.tally(), whole)
    found = audit(**{kind: scores}, target=y, train_counts=counts)
    assert running.audit().verdict.cause == found.verdict.cause
    ours, theirs = running.scalars("evenhand/"), found.scalars()
    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours["evenhand/tau_low"] < ours["evenhand/tau"] < ours["evenhand/tau_high"]


def test_a_full_sample_takes_only_smaller_hashes() -> None:
    z, y, _ = rows(60_000, 3)
    running = RunningTally(3)
    for start in range(0, len(y), 700):
        running.add(z[start : start + 700], y[start : start + 700])
    assert running._threshold is not None
    assert len(running._parts[-1].sample.row_id) < 700, "rows that cannot enter the sample are not copied"
    same(running.tally(), tally_predictions(from_arrays(logits=z, target=y)))
    assert sample_threshold(running.tally().sample.take(np.arange(10)), 3) is None


def test_large_batches_are_added_up_before_their_samples_pile_up() -> None:
    z, y, _ = rows(4000, 2)
    z, y = np.tile(z, (15, 1)), np.tile(y, 15)
    running = RunningTally(2)
    kept = []
    for start in range(0, len(y), 6000):
        running.add(z[start : start + 6000], y[start : start + 6000])
        kept.append(sum(len(part.sample.row_id) for part in running._parts))
    assert max(kept) <= 40_000
    same(running.tally(), tally_predictions(from_arrays(logits=z, target=y)))


def test_ranks_that_deal_rows_out_in_turn_find_the_sample_of_the_whole() -> None:
    z, y, _ = rows(4001)
    parts = []
    for rank in range(3):
        mine = RunningTally(12, rank=rank, ranks=3)
        for a, b in zip(np.array_split(z[rank::3], 20), np.array_split(y[rank::3], 20), strict=True):
            mine.add(a, b)
        parts.append(mine.tally())
    same(combine(parts), tally_predictions(from_arrays(logits=z, target=y)))


def test_tokens_are_rows_and_ignored_ones_are_none() -> None:
    z, y, _ = rows(600)
    z, y = z.reshape(20, 30, 12), y.reshape(20, 30).copy()
    y[:, 25:] = -100
    y[3] = -100
    running = RunningTally(12, ignore_index=-100)
    running.add(z[:3], y[:3])
    running.add(z[3:4], y[3:4])
    running.add(z[4:], y[4:])
    same(running.tally(), tally_predictions(from_arrays(logits=z.reshape(-1, 12), target=y.ravel(), ignore_index=-100)))


def test_reset_and_going_on_after_reading() -> None:
    z, y, _ = rows(100)
    running = RunningTally(12)
    running.add(z[:50], y[:50])
    assert running.tally().rows == 50
    running.add(z[50:], y[50:])
    same(running.tally(), tally_predictions(from_arrays(logits=z, target=y)))
    running.reset()
    with pytest.raises(InputError, match="got none"):
        running.tally()
    running.add(z, y)
    assert running.tally().rows == 100


@pytest.mark.parametrize(
    ("scores", "target", "row_id", "says"),
    [
        (np.zeros((4, 3)), np.zeros(5, int), None, r"got \(4, 3\) and \(5,\)"),
        (np.zeros((4, 2)), np.zeros(4, int), None, r"shape \(rows, 3\)"),
        (np.zeros(4), np.zeros(4, int), None, "of the same batch"),
        (np.zeros((4, 3), int), np.zeros(4, int), None, "float32"),
        (np.zeros((4, 3)), np.full(4, 3), None, "target"),
        (np.full((4, 3), np.nan), np.zeros(4, int), None, "NaN"),
        (np.zeros((4, 3)), np.zeros(4, int), [1, 2], "one row_id for each of 4"),
    ],
)
def test_what_does_not_fit_is_refused(scores, target, row_id, says) -> None:
    running = RunningTally(3)
    with pytest.raises(InputError, match=says):
        running.add(scores, target, row_id)


def test_options_are_checked_before_the_first_batch() -> None:
    with pytest.raises(InputError, match="train_counts"):
        RunningTally(3, train_counts=[1, 2])
    with pytest.raises(InputError, match="kind"):
        RunningTally(3, kind="predicted")
    with pytest.raises(InputError, match="at least 2"):
        RunningTally(1)
