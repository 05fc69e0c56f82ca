"""Tallies add: any split of the rows, in any order, gives the statistics of the whole."""

import dataclasses
import functools
import io
import json
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.declared import Declared, InputError
from evenhand.scanning import tally_span
from evenhand.tally import (
    RowSample,
    Tally,
    combine,
    empty_tally,
    join,
    lead_size,
    merge_edges,
    row_hash,
    sample_size,
    tally_edges,
)

EXACT = (
    "rows", "true", "predicted", "hits", "decoded", "edge_true", "edge_predicted", "edge_count", "impossible",
    "minus_infinite",
)  # fmt: skip


def scores_of(rows, classes, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    z = rng.normal(0, 2, (rows, classes)).astype(dtype)
    z[np.arange(rows), y] += rng.integers(0, 3, rows).astype(dtype)
    return z, y


def softmaxed(z):
    p = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def agree(a, b, rtol=5e-6):
    """Equal integers, rows and edges, bit by bit; sums of single-precision probabilities up to their rounding."""
    for name in EXACT:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for part in ("sample", "lead"):
        for field in dataclasses.fields(RowSample):
            x, y = (getattr(getattr(t, part), field.name) for t in (a, b))
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=f"{part}.{field.name}")
    # A confidence on the edge of a bin may fall on either side: single-precision sums depend on memory alignment.
    np.testing.assert_allclose(a.bins, b.bins, atol=1.01, err_msg="bins")
    np.testing.assert_allclose(a.bins.sum(axis=0), b.bins.sum(axis=0), rtol=rtol, atol=1e-5, err_msg="bins")
    for name in ("soft", "soft_square", "column_sum"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_allclose(x, y, rtol=rtol, atol=5e-6, err_msg=name)
    assert a.nll == pytest.approx(b.nll, rel=rtol, abs=5e-6)
    assert a.row_sum_error == pytest.approx(b.row_sum_error, abs=1e-6)
    assert a.kind == b.kind


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["logits", "probs"]), seed=st.integers(0, 9999))
def test_any_split_in_any_order_gives_the_whole(data, kind, seed):
    rows, classes = data.draw(st.integers(1, 120)), data.draw(st.integers(2, 6))
    z, y = scores_of(rows, classes, seed)
    scores = z if kind == "logits" else softmaxed(z)
    rng = np.random.default_rng(seed)
    row_id = rng.permutation(rows * 3)[:rows].astype(np.int64)
    predicted = rng.integers(0, classes, rows) if data.draw(st.booleans()) else None
    owner = np.array(data.draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows)))

    def tally(index):
        answered = None if predicted is None else predicted[index]
        return tally_span(scores[index], y[index], row_id[index], kind=kind, predicted=answered)

    whole = tally(np.arange(rows))
    parts = [tally(rng.permutation(np.flatnonzero(owner == part))) for part in np.unique(owner)]
    # Positions are drawn, not tallies: the strategy must look the same every time it is replayed.
    order = [parts[i] for i in data.draw(st.permutations(range(len(parts))))]
    agree(combine(order), whole)
    agree(functools.reduce(lambda a, b: a + b, order), whole)  # left to right
    agree(functools.reduce(lambda a, b: b + a, order), whole)  # right to left
    agree(empty_tally(kind, classes) + whole, whole)
    agree(whole + empty_tally(kind, classes), whole)
    agree(tally(rng.permutation(rows)), whole)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.integers(1, 200), st.integers(1, 6), st.integers(0, 9999))
def test_labels_add_too(classes, rows, parts, seed):
    rng = np.random.default_rng(seed)
    y, answer, owner = rng.integers(0, classes, rows), rng.integers(0, classes, rows), rng.integers(0, parts, rows)

    def tally(mask):
        return tally_edges(y[mask], answer[mask], np.ones(mask.sum(), np.int64), classes=classes)

    whole = tally(np.ones(rows, bool))
    agree(combine([tally(owner == p) for p in rng.permutation(parts)]), whole)
    assert whole.rows == rows
    np.testing.assert_array_equal(whole.true, np.bincount(y, minlength=classes))
    np.testing.assert_array_equal(whole.predicted, np.bincount(answer, minlength=classes))
    np.testing.assert_array_equal(whole.hits, np.bincount(y[y == answer], minlength=classes))
    table = np.zeros((classes, classes), int)
    np.add.at(table, (y, answer), 1)
    np.fill_diagonal(table, 0)
    assert list(zip(whole.edge_true, whole.edge_predicted, strict=True)) == list(zip(*np.nonzero(table), strict=True))
    np.testing.assert_array_equal(whole.edge_count, table[table > 0])


def test_the_sample_is_the_smallest_hashes_of_all_rows(monkeypatch):
    monkeypatch.setattr("evenhand.tally.sample_size", lambda classes: 50)
    monkeypatch.setattr("evenhand.scanning.sample_size", lambda classes: 50)
    monkeypatch.setattr("evenhand.tally.lead_size", lambda classes: 20)
    monkeypatch.setattr("evenhand.scanning.lead_size", lambda classes: 20)
    z, y = scores_of(1000, 4, 0)
    row_id = np.random.default_rng(0).permutation(1000)
    cuts = [0, 3, 400, 401, 990, 1000]
    parts = [tally_span(z[a:b], y[a:b], row_id[a:b], kind="logits") for a, b in pairwise(cuts)]
    expected = np.argsort(row_hash(row_id))[:50]
    for total in (combine(parts), combine(parts[::-1]), tally_span(z, y, row_id, kind="logits")):
        np.testing.assert_array_equal(total.sample.row_id, row_id[expected])
        np.testing.assert_array_equal(total.sample.target, y[expected])
        np.testing.assert_array_equal(total.sample.scores, z[expected])
        np.testing.assert_array_equal(total.lead.row_id, np.arange(20))
        np.testing.assert_array_equal(total.lead.scores, z[np.argsort(row_id)[:20]])


def test_row_hashes_are_splitmix64_and_spread_evenly():
    # the first outputs of SplitMix64 seeded with 0 are those of states 0 + golden, 2 golden, ...
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden], np.uint64).view(np.int64)
    assert [int(h) for h in row_hash(states)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    hashes = row_hash(np.arange(100_000))
    assert len(np.unique(hashes)) == 100_000
    counts = np.bincount((hashes >> np.uint64(58)).astype(int), minlength=64)
    assert abs(counts / (100_000 / 64) - 1).max() < 0.12


def test_sizes_stay_within_their_limits():
    assert [sample_size(k) for k in (2, 500, 100_000)] == [20_000, 10_000, 2_000]
    assert [lead_size(k) for k in (2, 500, 100_000)] == [4_096, 4_000, 64]


def test_edges_are_merged_and_sorted():
    true, predicted, count = merge_edges(np.array([7, 2, 7, 5]), np.array([1, 2, 3, 4]), 3)
    assert (true.tolist(), predicted.tolist(), count.tolist()) == ([0, 1, 2], [2, 2, 1], [2, 4, 4])


def test_edge_keys_do_not_overflow_at_many_classes():
    k = 100_000
    far = tally_edges(np.array([k - 1]), np.array([k - 2]), np.array([3]), classes=k)
    near = tally_edges(np.array([0]), np.array([k - 1]), np.array([10**12]), classes=k)
    total = far + near
    assert total.edge_true.tolist() == [0, k - 1]
    assert total.edge_predicted.tolist() == [k - 1, k - 2]
    assert total.edge_count.tolist() == [10**12, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(0, 60), st.integers(0, 9999))
def test_pairs_in_any_order_and_type_are_one_tally(classes, pairs, seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, classes, (2, pairs))
    count = rng.integers(1, 10**12, pairs)
    whole = tally_edges(true, predicted, count, classes=classes)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (true, predicted), count)
    i, j = np.nonzero(table)  # in order and distinct, as counters give them
    counted = tally_edges(i.astype(np.int32), j.astype(np.int32), table[i, j], classes=classes)
    agree(counted, whole)
    for tally in (whole, counted):
        assert (tally.edge_true.dtype, tally.edge_predicted.dtype, tally.edge_count.dtype) == ("i4", "i4", "i8")
        np.testing.assert_array_equal(tally.hits, np.diag(table))
        np.testing.assert_array_equal(tally.true, table.sum(axis=1))
        np.testing.assert_array_equal(tally.predicted, table.sum(axis=0))


def test_large_counts_stay_exact():
    count = np.array([2**53 + 1, 1, 2**53 + 1])
    assert merge_edges(np.array([1, 1, 2]), count, 2)[2].tolist() == [2**53 + 2, 2**53 + 1]


def ids(first, stop, kind="logits"):
    z, y = scores_of(stop - first, 3, first)
    return tally_span(z if kind == "logits" else softmaxed(z), y, np.arange(first, stop), kind=kind)


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_rows_counted_twice_are_refused(kind):
    parts = [ids(0, 50, kind), ids(50, 90, kind), ids(89, 120, kind)]
    assert combine(parts[:2]).rows == 90
    with pytest.raises(
        InputError, match=r"^expected tallies of different rows, got the row id 89 in two of them; [^\n]*"
    ):
        combine(parts)
    with pytest.raises(InputError, match=r"row ids 0, 1, 2, \.\.\. in two.*--row-offset"):
        _ = parts[0] + parts[0]
    # A few rows counted twice among many are found through the hashed sample.
    with pytest.raises(InputError, match="row ids"):
        _ = ids(0, 60_000, kind) + ids(50_000, 90_000, kind)


def test_labels_alone_are_told_apart_by_their_first_rows():
    def labels(first):
        lead = RowSample(np.arange(first, first + 4), np.zeros(4, np.int64), np.zeros((4, 1), np.float32))
        return dataclasses.replace(tally_edges(np.zeros(1, int), np.ones(1, int), np.array([4]), classes=2), lead=lead)

    assert (labels(0) + labels(4)).rows == 8
    with pytest.raises(InputError, match="row id 3 in two"):
        _ = labels(0) + labels(3)


def test_ids_that_repeat_within_a_part_are_the_users_own():
    z, y = scores_of(20, 3, 0)
    groups = tally_span(z, y, np.arange(20) // 4, kind="logits")
    assert (groups + ids(5, 30)).rows == 45


def test_tallies_that_do_not_fit_are_refused():
    for a, b in [
        (empty_tally("logits", 3), empty_tally("probs", 3)),
        (empty_tally("logits", 3), empty_tally("logits", 4)),
    ]:
        with pytest.raises(InputError, match="one kind and number of classes"):
            _ = a + b
    with pytest.raises(InputError, match="at least one"):
        combine([])
    with pytest.raises(TypeError):
        _ = empty_tally("logits", 3) + 1


def test_adding_changes_neither_part():
    z, y = scores_of(50, 3, 1)
    a, b = (tally_span(z[s], y[s], np.arange(50)[s], kind="logits") for s in (slice(0, 20), slice(20, 50)))
    before = [x.copy() for x in (a.true, a.soft, b.true, b.soft, a.sample.scores)]
    _ = a + b
    for x, old in zip((a.true, a.soft, b.true, b.soft, a.sample.scores), before, strict=True):
        np.testing.assert_array_equal(x, old)


def test_join_of_nothing_is_nothing():
    assert len(join([RowSample.empty(3), RowSample.empty(3)]).row_id) == 0
    assert len(RowSample.empty(3).smallest_hashes(5).row_id) == 0


DECLARED = Declared(
    train_counts=np.array([5.0, 3.0, 1.0]),
    class_weight=np.array([np.nan, np.inf, -1.0, 0.1]),
    sampler_rate=np.array([0.2, 0.3, 0.5]),
    class_names=("a\n<b>", "ü", ""),
    loss="focal",
    label_smoothing=0.1,
    reduction="mean",
    batch_size=64,
    gamma=2.0,
    ignore_index=-1,
    extra={"note": [1, {"x": None}]},
)


@pytest.mark.parametrize("kind", ["logits", "probs", "predicted"])
@pytest.mark.parametrize("declared", [Declared(), DECLARED])
def test_save_and_load_keep_every_bit(kind, declared, tmp_path):
    z, y = scores_of(70, 3, 2)
    z[:, 1] = -np.inf
    if kind == "predicted":
        tally = tally_edges(y, z.argmax(axis=1), np.ones(70, np.int64), classes=3)
    else:
        tally = tally_span(z if kind == "logits" else softmaxed(z), y, np.arange(70), kind=kind)
    tally = dataclasses.replace(tally, declared=declared)
    tally.save(tmp_path / "part.npz")
    back = Tally.load(tmp_path / "part.npz")
    for field in dataclasses.fields(Tally):
        a, b = getattr(tally, field.name), getattr(back, field.name)
        if isinstance(a, (RowSample, Declared)):
            for inner in dataclasses.fields(a):
                identical(getattr(a, inner.name), getattr(b, inner.name))
        else:
            identical(a, b)
    other = empty_tally(kind, 3)
    if kind != "predicted":
        more, label = scores_of(30, 3, 4)
        other = tally_span(more if kind == "logits" else softmaxed(more), label, np.arange(70, 100), kind=kind)
    agree(back + other, tally + other)


def identical(a, b):
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    else:
        assert a == b
        assert type(a) is type(b)


@pytest.fixture
def saved(tmp_path):
    z, y = scores_of(40, 3, 3)
    path = tmp_path / "part.npz"
    tally_span(z, y, np.arange(40), kind="logits").save(path)
    return path


def members(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def refused(path):
    with pytest.raises(InputError, match=r"^expected a tally written by `evenhand tally`[^\n]*; write it again$"):
        Tally.load(path)


def test_every_missing_member_is_noticed(saved):
    held = members(saved)
    for name in held:
        np.savez(saved, **{k: v for k, v in held.items() if k != name})
        refused(saved)


def test_members_of_the_wrong_shape_or_type_are_noticed(saved):
    held = members(saved)
    for name, value in held.items():
        if name == "head":
            continue
        wrong = [value.astype("U8"), value.astype(complex)]
        wrong += [value[..., None], np.concatenate([value, value])] if value.ndim else [np.ones(3)]
        for changed in wrong:
            np.savez(saved, **held | {name: changed})
            refused(saved)


def test_tallies_with_pairs_of_eight_bytes_are_read(saved):
    held, now = members(saved), Tally.load(saved)
    assert len(now.edge_true)
    np.savez(saved, **held | {name: held[name].astype(np.int64) for name in ("edge_true", "edge_predicted")})
    then = Tally.load(saved)
    for name in ("edge_true", "edge_predicted"):
        identical(getattr(then, name), getattr(now, name))
    for far in (3, -1, 2**32):  # not in range, and in range only when cut to four bytes
        wrong = held["edge_true"].astype(np.int64)
        wrong[0] = far
        np.savez(saved, **held | {"edge_true": wrong})
        refused(saved)


def test_object_arrays_are_never_unpickled(saved):
    held = members(saved)

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    for name in ("head", "true", "sample_scores"):
        np.savez(saved, **held | {name: np.array([Trap()], dtype=object)})
        refused(saved)


def test_heads_that_are_no_heads_are_refused(saved):
    held = members(saved)
    head = json.loads(str(held["head"]))
    for wrong in (
        "", "[]", "3", "{}", "{", json.dumps(head | {"schema": "evenhand.tally/0"}),
        json.dumps(head | {"kind": "guess"}), json.dumps(head | {"declared": {"unheard": 1}}),
        json.dumps(head | {"declared": 4}), json.dumps({k: v for k, v in head.items() if k != "row_sum_error"}),
        json.dumps(head | {"row_sum_error": "much"}),
    ):  # fmt: skip
        np.savez(saved, **held | {"head": np.array(wrong)})
        refused(saved)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_as_they_were(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "part.npz"
    z, y = scores_of(6, 3, 3)
    tally = tally_span(z, y, np.arange(6), kind="logits")
    tally.save(path)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        back = Tally.load(path)
    except InputError:
        return
    agree(back, tally)  # the byte carried no data (a time stamp, say)


def test_other_files_are_refused(tmp_path):
    for name, raw in [("a.npz", b""), ("b.npz", b"hello"), ("c.npz", b"\x80\x04N.")]:
        (tmp_path / name).write_bytes(raw)
        refused(tmp_path / name)
    np.save(tmp_path / "d.npy", np.arange(3))
    refused(tmp_path / "d.npy")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("head.npy", b"no array")
    (tmp_path / "e.npz").write_bytes(archive.getvalue())
    refused(tmp_path / "e.npz")
    with pytest.raises(OSError, match="missing"):
        Tally.load(tmp_path / "missing.npz")
