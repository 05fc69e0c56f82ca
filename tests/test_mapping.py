"""Renamed labels are found and undone; sound, weak and tilted models are never called renamed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand import audit
from evenhand.mapping import find_label_map, full_table
from evenhand.orders import known_orders
from evenhand.tally import tally_edges


def zipf(classes, alpha=1.0):
    pi = (np.arange(classes) + 1.0) ** -alpha
    return pi / pi.sum()


def tally(y, predicted, classes):
    return tally_edges(y, predicted, np.ones(len(y), np.int64), classes=classes)


def scored(rng, pi, rows, *, skill, tau=0.0, beta=1.0, dimensions=8):
    """Labels and exact log posteriors under `pi`, tilted by ``-tau log pi``."""
    k = len(pi)
    centre = skill * rng.normal(size=(k, dimensions))
    y = rng.choice(k, rows, p=pi)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return y, beta * (x @ centre.T - 0.5 * (centre**2).sum(axis=1)) + (1 - tau) * np.log(pi)


def decide(rng, pi, rows, **model):
    y, z = scored(rng, pi, rows, **model)
    return y, z.argmax(axis=1)


def renamed(predicted, index):
    """Predictions of a model whose output c means class ``index[c]``."""
    return np.argsort(index)[predicted]


K = 40
SHUFFLED = np.random.default_rng(0).permutation(zipf(K))
NAMES = tuple("QWERTYUIOPASDFGHJKLZXCVBNMqwertyuiopasdf"[i] + "x" for i in range(K))
ORDERS = {o.name: o.index for o in known_orders(SHUFFLED, NAMES)}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("skill", [1.0, 2.0])
def test_every_named_order_is_found(name, skill):
    rng = np.random.default_rng(1)
    y, answer = decide(rng, SHUFFLED, 6000, skill=skill)
    seen = tally(y, renamed(answer, ORDERS[name]), K)
    found = find_label_map(seen, counts=[SHUFFLED * 1e6], names=NAMES)
    assert found is not None
    assert found.name is not None
    assert (found.true_of == ORDERS[name]).mean() > 0.9  # the order of sampled counts may differ among rare classes
    assert found.accuracy_after > 3 * found.accuracy_before
    if "frequent" not in name:
        assert found.name == name
        np.testing.assert_array_equal(found.true_of, ORDERS[name])
        moved = ORDERS[name] != np.arange(K)
        assert found.classes_moved == moved.sum()
        rows = np.isin(y, ORDERS[name][moved])
        assert found.rows == rows.sum()
        assert found.accuracy_after == pytest.approx((answer == y)[rows].mean())
        assert found.accuracy_before == pytest.approx((renamed(answer, ORDERS[name]) == y)[rows].mean())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("classes", "rows"), [(10, 500), (100, 6000), (500, 20_000)])
def test_random_renamings_are_undone(seed, classes, rows):
    rng = np.random.default_rng(seed)
    pi = zipf(classes)
    y, answer = decide(rng, pi, rows, skill=2.0)
    index = rng.permutation(classes)
    found = find_label_map(tally(y, renamed(answer, index), classes))
    assert found is not None
    assert sorted(found.true_of) == list(range(classes))
    undone = found.true_of[renamed(answer, index)]
    assert (undone == y).mean() > 0.9 * (answer == y).mean()
    common = np.bincount(y, minlength=classes) >= 40
    assert (found.true_of == index)[np.argsort(index)[common]].mean() > 0.95


@pytest.mark.parametrize("seed", range(10))
def test_two_swapped_classes_are_found_alone(seed):
    rng = np.random.default_rng(seed)
    y, answer = decide(rng, zipf(50), 6000, skill=2.0)
    a, b = rng.choice(25, 2, replace=False)
    index = np.arange(50)
    index[[a, b]] = [b, a]
    found = find_label_map(tally(y, renamed(answer, index), 50))
    assert found is not None
    np.testing.assert_array_equal(found.true_of, index)
    assert found.classes_moved == 2


@pytest.mark.parametrize("step", [1, -1])
def test_classes_shifted_from_one_on(step):
    """One class was missing when the indices were made: all classes after it are one off."""
    rng = np.random.default_rng(5)
    pi = rng.permutation(zipf(60, 0.7))
    y, answer = decide(rng, pi, 8000, skill=2.0)
    c = 20
    index = np.concatenate([np.arange(c), c + np.roll(np.arange(60 - c), -step)])
    found = find_label_map(tally(y, renamed(answer, index), 60))
    assert found is not None
    undone = found.true_of[renamed(answer, index)]
    assert (undone == y).mean() > 0.95 * (answer == y).mean()
    assert (found.true_of == index).mean() > 0.95


SOUND = [
    {"skill": 2.0}, {"skill": 0.7}, {"skill": 0.2}, {"skill": 0.0}, {"skill": 0.7, "tau": 1.0},
    {"skill": 0.7, "tau": -1.0}, {"skill": 0.5, "beta": 4.0},
]  # fmt: skip


@pytest.mark.parametrize("model", SOUND)
@pytest.mark.parametrize(("classes", "rows"), [(2, 200), (5, 300), (30, 3000), (300, 3000)])
def test_models_in_the_right_order_are_never_called_renamed(model, classes, rows):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        pi = rng.permutation(zipf(classes)) if seed % 2 else zipf(classes, 1.3)
        y, answer = decide(rng, pi, rows, **model)
        found = find_label_map(tally(y, answer, classes), counts=[pi * 1e5])
        assert found is None, (seed, found.name, found.accuracy_before, found.accuracy_after)


@pytest.mark.parametrize("skill", [0.3, 0.7])
@pytest.mark.parametrize(("classes", "rows"), [(30, 3000), (300, 3000)])
def test_a_doubly_tilted_model_is_tilted_not_renamed(skill, classes, rows):
    """It answers frequent classes with the rare one most like them; its scores tell that from a renaming."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pi = zipf(classes, 1.3)
        y, z = scored(rng, pi, rows, skill=skill, tau=2.0)
        found = audit(logits=z, target=y, train_counts=pi * 1e5)
        assert "permuted-labels" not in {f.cause for f in found.findings}
        assert found.tilt["tau"] == pytest.approx(2, abs=0.25)


def test_a_model_that_always_answers_the_largest_class_is_not_shifted():
    rng = np.random.default_rng(0)
    y = rng.choice(5, 300, p=zipf(5, 1.3))
    assert find_label_map(tally(y, np.zeros(300, int), 5)) is None


@pytest.mark.parametrize("classes", [5, 100])
def test_random_answers_have_no_order(classes):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y, answer = rng.choice(classes, 2000, p=zipf(classes)), rng.choice(classes, 2000, p=zipf(classes)[::-1])
        assert find_label_map(tally(y, answer, classes), counts=[zipf(classes)]) is None


def test_too_few_rows_are_not_judged():
    y = np.arange(19)
    assert find_label_map(tally(y, y[::-1].copy(), 19)) is None


def test_the_full_table_holds_every_row():
    rng = np.random.default_rng(6)
    y, answer = rng.integers(0, 6, 400), rng.integers(0, 6, 400)
    dense = np.zeros((6, 6))
    np.add.at(dense, (y, answer), 1)
    table = full_table(tally(y, answer, 6))
    found = np.zeros((6, 6))
    found[table.true, table.predicted] = table.count
    found[np.arange(6), np.arange(6)] = table.right
    np.testing.assert_array_equal(found, dense)
    i, j = rng.integers(0, 6, (2, 50))
    np.testing.assert_array_equal(table.cells(i, j), dense[i, j])
    assert table.rows == 400
    np.testing.assert_array_equal(table.true_rows, dense.sum(axis=1))
    np.testing.assert_array_equal(table.predicted_rows, dense.sum(axis=0))
    order = rng.permutation(6)
    accuracy, chance, precision = table.rates(order)
    meant = order[answer]
    assert accuracy == pytest.approx((meant == y).mean())
    agreement = [(meant == c).mean() * (y == c).mean() for c in range(6)]
    assert chance == pytest.approx(sum(agreement))
    assert precision == pytest.approx(np.mean([(y[meant == c] == c).mean() for c in range(6)]))


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 30), st.sampled_from([0.0, 0.02, 0.3, 3.0]), st.integers(0, 9999))
def test_cells_of_the_table_are_those_of_the_dense_one(classes, mean, seed):
    rng = np.random.default_rng(seed)
    dense = rng.poisson(mean, (classes, classes))
    i, j = np.nonzero(dense)
    table = full_table(tally_edges(i, j, dense[i, j], classes=classes))
    everywhere = np.indices(dense.shape).reshape(2, -1)
    np.testing.assert_array_equal(table.cells(*everywhere).reshape(dense.shape), dense)
    names = np.where(rng.random(classes) < 0.3, -1, rng.integers(0, classes, classes))
    expected = np.where(names >= 0, dense[names, np.arange(classes)], 0)
    np.testing.assert_array_equal(table.renamed(names), expected)


@pytest.mark.parametrize("seed", range(6))
def test_the_size_of_the_pieces_changes_nothing(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    y, answer = decide(rng, zipf(50, 0.7), 3000, skill=1.0)
    index = np.arange(50)
    index[rng.choice(50, 6, replace=False)] = index[rng.choice(50, 6, replace=False)]
    swapped = np.arange(50)
    swapped[[3, 17, 29]] = [17, 29, 3]
    for order in (index, swapped, rng.permutation(50)):
        seen = tally(y, order[answer], 50)
        whole = find_label_map(seen)
        monkeypatch.setattr("evenhand.mapping.STEP", 37)
        pieces = find_label_map(seen)
        monkeypatch.undo()
        assert (whole is None) == (pieces is None)
        if whole is not None:
            np.testing.assert_array_equal(whole.true_of, pieces.true_of)
            assert dataclasses.replace(whole, true_of=None) == dataclasses.replace(pieces, true_of=None)
