"""Counts: every way to count gives the same numbers, and bad input is refused in one sentence."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evenhand import counts as module
from evenhand.counts import ClassCounts, class_counts, counts_array, effective_number, groups, log_prior
from evenhand.declared import InputError

label_lists = st.lists(st.integers(0, 9), min_size=1, max_size=200)
count_arrays = hnp.arrays(np.int64, st.integers(2, 60), elements=st.integers(0, 10**9)).filter(lambda n: n.any())


@given(label_lists)
def test_every_container_and_dtype_counts_alike(labels):
    expected = [labels.count(k) for k in range(10)]
    torch = pytest.importorskip("torch")
    for given_labels in (labels, np.array(labels, np.uint8), np.array(labels, np.float32), torch.tensor(labels)):
        assert class_counts(given_labels, classes=10).counts.tolist() == expected
    assert class_counts(np.array(labels).reshape(1, -1, 1), classes=10).counts.dtype == np.int64


@given(label_lists)
def test_names_are_sorted_as_text_or_kept_as_given(labels):
    names = [f"c{label}" for label in labels]
    wanted = Counter(names)
    backwards = tuple(f"c{k}" for k in reversed(range(10)))
    assert class_counts(names, names=backwards).counts.tolist() == [wanted[name] for name in backwards]
    if len(wanted) > 1:
        found = class_counts(np.array(names))
        assert found.names == tuple(sorted(wanted))
        assert dict(zip(found.names, found.counts.tolist(), strict=True)) == wanted


def test_blocks_add_up(monkeypatch):
    labels = np.random.default_rng(1).integers(0, 50, 10_000)
    whole = class_counts(labels).counts
    monkeypatch.setattr(module, "_BLOCK", 37)
    assert np.array_equal(class_counts(labels).counts, whole)
    assert np.array_equal(class_counts(np.sort(labels)).counts, whole)  # K grows from block to block


def test_ignored_rows_do_not_count():
    assert class_counts([0, -100, 1, 1], ignore_index=-100).counts.tolist() == [1, 2]
    assert class_counts(["a", "pad", "b"], ignore_index="pad").names == ("a", "b")


def test_properties():
    counts = ClassCounts.from_counts([60, 0, 30, 10], names="abcd")
    assert (counts.total, counts.classes, counts.imbalance_ratio) == (100, 4, 6.0)
    assert counts.absent.tolist() == [1]
    assert counts.prior.tolist() == [0.6, 0.0, 0.3, 0.1]
    assert counts.names == ("a", "b", "c", "d")
    assert counts.effective_number(0.0).tolist() == [1, 0, 1, 1]
    assert ClassCounts.from_counts([7] * 12).effective_classes == pytest.approx(12)
    with pytest.raises(ValueError, match="read-only"):
        counts.counts[0] = 1


def test_from_counts_does_not_alias_its_input():
    given_counts = np.array([1, 2])
    counts = ClassCounts.from_counts(given_counts)
    given_counts[0] = 99
    assert counts.counts.tolist() == [1, 2]


@given(count_arrays)
def test_groups_partition_the_classes_by_frequency(n):
    split = groups(n)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(n.size))
    assert split["head"].size == split["tail"].size == round(n.size / 3)
    ordered = n[np.concatenate([split["head"], split["medium"], split["tail"]])]
    assert (np.diff(ordered) <= 0).all()


@given(count_arrays, st.integers(1, 1000))
def test_groups_do_not_depend_on_the_scale(n, factor):
    assert all(np.array_equal(a, b) for a, b in zip(groups(n).values(), groups(n * factor).values(), strict=True))


@given(count_arrays)
def test_log_prior_is_exact_where_there_are_rows_and_finite_everywhere(n):
    value = log_prior(n)
    assert np.isfinite(value).all()
    assert np.exp(value[n > 0]).sum() == pytest.approx(1)
    assert np.allclose(np.exp(value[n == 0]) * n.sum(), 0.5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.9999, 1 - 1e-12])
def test_effective_number_is_the_geometric_sum(beta):
    n = np.array([1, 2, 3, 50])
    assert np.allclose(effective_number(n, beta), [sum(beta**i for i in range(k)) for k in n], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: class_counts([]), "at least 2 classes"),
        (lambda: class_counts([0, 0]), "at least 2 classes"),
        (lambda: class_counts([0, -1]), "found -1"),
        (lambda: class_counts([0, 3], classes=3), "from 0 to 2, found 3"),
        (lambda: class_counts([0, 1.5]), "entry 1 is 1.5"),
        (lambda: class_counts([0, np.nan]), "entry 1 is nan"),
        (lambda: class_counts([0, 10**9]), "found 1000000000"),
        (lambda: class_counts(["a", None]), "found None"),
        (lambda: class_counts(np.array(["a", 3], object)), "found 3"),
        (lambda: class_counts(["a", "b"], names=["a", "c"]), "found 'b'"),
        (lambda: class_counts(["a", "b"], classes=3), "Expected 3 classes"),
        (lambda: class_counts([0, 1], names=["a", "a"]), "'a' occurs twice"),
        (lambda: class_counts([0, 1], names=["a", "b"], classes=3), "Expected 3 names"),
        (lambda: class_counts([0, 1], ignore_index="pad"), "must be a number"),
        (lambda: class_counts([5, 5], ignore_index=5, classes=6), "at least one row"),
        (lambda: class_counts([[0], [0, 1]]), "equal entries"),
        (lambda: class_counts({0, 1}), "got set"),
        (lambda: class_counts(np.array([1j, 0])), "complex128"),
        (lambda: ClassCounts.from_counts([1, -2]), "class 1 has -2"),
        (lambda: ClassCounts.from_counts([0.5, 0.5]), "weights, shares or scores"),
        (lambda: ClassCounts.from_counts([[1, 2]]), r"shape \(1, 2\)"),
        (lambda: ClassCounts.from_counts([1, 2], names=["a"]), "Expected 2 names"),
        (lambda: counts_array([1.0, np.inf]), "class 1 has inf"),
        (lambda: counts_array([3]), "at least 2 numbers"),
        (lambda: counts_array([0, 0]), "all 2 counts are 0"),
        (lambda: log_prior([1, 2], smoothing=0), "smoothing above 0"),
        (lambda: effective_number([1, 2], 1.0), "beta in"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "?"))
