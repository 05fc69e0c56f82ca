"""Metrics from counts against scikit-learn's from rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score

from evenhand import metrics
from evenhand.files import from_arrays
from evenhand.scanning import tally_predictions


def counted(y, predicted, classes):
    return (np.bincount(x, minlength=classes) for x in (y, predicted, y[y == predicted]))


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 30), st.integers(1, 60), st.integers(0, 10_000))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:.*single label")
def test_metrics_are_scikit_learns(classes, rows, seed):
    """With few rows many classes are absent, never predicted, or both."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < 0.4, y, rng.integers(0, classes, rows))
    true, answered, hits = counted(y, predicted, classes)
    assert metrics.balanced_accuracy(true, hits) == pytest.approx(balanced_accuracy_score(y, predicted))
    assert metrics.macro_f1(true, answered, hits) == pytest.approx(f1_score(y, predicted, average="macro"))
    present, given_out = true > 0, answered > 0
    every = np.arange(classes)
    options = {"average": None, "labels": every, "zero_division": 0}
    np.testing.assert_allclose(metrics.recall(true, hits)[present], recall_score(y, predicted, **options)[present])
    np.testing.assert_allclose(
        metrics.precision(answered, hits)[given_out], precision_score(y, predicted, **options)[given_out]
    )
    assert np.isnan(metrics.recall(true, hits)[~present]).all()
    assert np.isnan(metrics.precision(answered, hits)[~given_out]).all()


def test_count_distance_is_total_variation():
    true = np.array([50, 30, 20, 0])
    assert metrics.count_distance(true, true) == 0
    assert metrics.count_distance(true, np.array([0, 0, 0, 100])) == 1
    assert metrics.count_distance(true, np.array([40.0, 30, 20, 10])) == pytest.approx(0.1)


def test_calibration_error_by_hand():
    bins = np.zeros((15, 3))
    bins[3], bins[14] = (10, 2.2, 4), (30, 29.0, 26)
    assert metrics.calibration_error(bins) == pytest.approx((1.8 + 3.0) / 40)
    assert metrics.calibration_error(np.zeros((15, 3))) == 0


def test_the_block_of_an_audit():
    rng = np.random.default_rng(0)
    counts = np.array([400, 200, 100, 30, 8, 2])
    y = rng.permutation(np.repeat(np.arange(6), counts))
    z = rng.normal(size=(len(y), 6)) + 2 * np.eye(6)[y]
    tally = tally_predictions(from_arrays(logits=z, target=y))
    block = metrics.metrics(tally, counts.astype(float))
    top = z.argmax(axis=1)
    assert block["accuracy"] == pytest.approx(accuracy_score(y, top))
    assert block["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, top))
    groups = block["groups"]
    assert set(groups) == {"head", "medium", "tail"}
    for key, total in (("classes", 6), ("rows", len(y)), ("predicted", len(y))):
        assert sum(g[key] for g in groups.values()) == total
    assert sum(g["expected"] for g in groups.values()) == pytest.approx(len(y), rel=1e-5)
    hits = sum(g["accuracy"] * g["rows"] for g in groups.values() if g["rows"])
    assert hits == pytest.approx((top == y).sum())


def test_labels_alone_have_no_probabilities():
    y = np.array([0, 1, 2, 2, 1])
    block = metrics.metrics(tally_predictions(from_arrays(predicted=y[::-1].copy(), target=y)), np.array([5.0, 3, 1]))
    assert block["nll"] is None
    assert block["ece"] is None
    assert all(g["expected"] is None for g in block["groups"].values())


def test_a_group_without_rows_has_no_accuracy():
    y = np.array([0, 0, 1])
    tally = tally_predictions(from_arrays(predicted=np.array([0, 1, 1]), target=y, train_counts=[90, 9, 1]))
    empty = metrics.group_metrics(tally, np.array([2]))
    assert (empty["classes"], empty["rows"], empty["accuracy"], empty["balanced_accuracy"]) == (1, 0, None, None)
