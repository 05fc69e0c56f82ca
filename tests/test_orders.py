"""Named wrong orders: each is what the code that makes it makes."""

from collections import Counter

import numpy as np
import pytest

from evenhand.orders import Order, known_orders, weighted_correlation


def orders(counts, names=None):
    return {o.name: o.index for o in known_orders(np.asarray(counts, float), names)}


COUNTS = np.random.default_rng(0).permutation(np.arange(1, 24)) * 10.0  # 23 classes, all counts different


def test_every_order_is_another_permutation():
    for counts, names in [
        (COUNTS, [f"n{i * 7 % 23}" for i in range(23)]),
        (np.ones(5), None),
        (np.ones(2), ["b", "a"]),
    ]:
        found = orders(counts, names)
        k = len(counts)
        for index in found.values():
            assert sorted(index) == list(range(k))
            assert not np.array_equal(index, np.arange(k))
        assert len({i.tobytes() for i in found.values()}) == len(found)


def test_string_order_is_that_of_numpy_unique():
    weight_of = {str(c): c / 10 for c in range(23)}
    as_strings = np.array([weight_of[label] for label in np.unique(list(weight_of))])
    index = orders(COUNTS)["sorted as text (0, 1, 10, 100, 2, ...)"]
    np.testing.assert_array_equal(Order("", index).apply(np.arange(23) / 10), as_strings)
    assert index[:4].tolist() == [0, 1, 10, 11]
    one_based = orders(COUNTS)["sorted as text, counted from one"]
    assert (one_based[:4] + 1).tolist() == [1, 10, 11, 12]


def test_frequency_order_is_that_of_most_common():
    labels = np.repeat(np.arange(23), COUNTS.astype(int))
    most_common = [c for c, _ in Counter(labels.tolist()).most_common()]
    found = orders(COUNTS)
    assert found["most frequent first"].tolist() == most_common
    assert found["least frequent first"].tolist() == most_common[::-1]


def test_ties_keep_class_order():
    assert orders([5, 9, 5, 9, 1])["most frequent first"].tolist() == [1, 3, 0, 2, 4]


def test_inverted_orders_are_inverses():
    found = orders(COUNTS, [f"{chr(97 + i * 5 % 26)}" for i in range(23)])
    pairs = [name for name in found if f"{name}, inverted" in found]
    assert len(pairs) >= 4
    for name in pairs:
        np.testing.assert_array_equal(found[name][found[f"{name}, inverted"]], np.arange(23))


def test_shifts_and_reversal():
    found = orders(COUNTS)
    np.testing.assert_array_equal(found["reversed"], np.arange(23)[::-1])
    for by in (1, -1, 2, -2, 3, -3):
        np.testing.assert_array_equal(found[f"shifted by {by:+d}"], (np.arange(23) - by) % 23)


def test_alphabetical_orders():
    names = ["fig", "Zebra", "apple", "Mango", "banana", "Éclair"]
    found = orders([1, 2, 3, 4, 5, 6], names)
    alphabet = "class names in alphabetical order"
    assert [names[i] for i in found[alphabet]] == ["Mango", "Zebra", "apple", "banana", "fig", "Éclair"]
    assert [names[i] for i in found[f"{alphabet}, ignoring case"]] == [
        "apple",
        "banana",
        "fig",
        "Mango",
        "Zebra",
        "Éclair",
    ]


def test_names_in_order_add_nothing():
    assert not any("alphabet" in name for name in orders(COUNTS[:5], ["a", "b", "c", "d", "e"]))


def test_weighted_correlation_is_numpys_on_repeated_rows():
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=9), rng.normal(size=9), rng.integers(1, 6, 9)
    expected = np.corrcoef(np.repeat(x, w), np.repeat(y, w))[0, 1]
    assert weighted_correlation(x, y, w.astype(float)) == pytest.approx(expected)
    assert weighted_correlation(x, 3 - 2 * x, w.astype(float)) == pytest.approx(-1)
    assert weighted_correlation(x, np.ones(9), w.astype(float)) == 0
    assert weighted_correlation(x, y, np.zeros(9)) == 0
