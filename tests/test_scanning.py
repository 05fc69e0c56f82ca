"""The pass over the rows against float64 softmax, at every precision, split and number of threads."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from evenhand import audit_tally
from evenhand.declared import InputError
from evenhand.files import from_arrays, open_predictions
from evenhand.scanning import confidence_bins, sample_threshold, tally_predictions, tally_span
from evenhand.tally import BINS, lead_size, row_hash, sample_size


def made(rows, classes, seed, dtype=np.float32, scale=2.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    z = rng.normal(0, scale, (rows, classes))
    z[np.arange(rows), y] += 1.5
    return z.astype(dtype), y


def span(scores, y, kind="logits", **options):
    return tally_span(scores, y, np.arange(len(y)), kind=kind, **options)


def check_against_oracle(t, p, logp, top, y, *, rtol):
    """p, logp: float64 (N, K); t: the tally."""
    rows, k = p.shape
    np.testing.assert_allclose(t.soft, p.sum(axis=0), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(t.soft_square, (p**2).sum(axis=0), rtol=rtol, atol=rtol)
    assert t.soft.sum() == pytest.approx(rows, rel=rtol)
    own = logp[np.arange(rows), y]
    assert t.nll == pytest.approx(-own[np.isfinite(own)].sum(), rel=rtol, abs=1e-5)
    assert t.impossible == np.isinf(own).sum()
    np.testing.assert_array_equal(t.decoded, np.bincount(top, minlength=k))
    np.testing.assert_array_equal(t.predicted, t.decoded)
    np.testing.assert_array_equal(t.hits, np.bincount(y[top == y], minlength=k))
    np.testing.assert_array_equal(t.true, np.bincount(y, minlength=k))
    table = np.zeros((k, k), int)
    table[t.edge_true, t.edge_predicted] = t.edge_count
    expected = np.zeros((k, k), int)
    np.add.at(expected, (y, top), 1)
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(table, expected)
    confidence = p[np.arange(rows), top]
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = np.stack([np.bincount(index, w, BINS) for w in (np.ones(rows), confidence, top == y)], axis=1)
    # a confidence within rounding of an edge may fall on either side
    edge = (np.abs(confidence * BINS - np.round(confidence * BINS)) < 1e-4).sum()
    assert np.abs(t.bins - bins).max() <= edge + rtol * rows
    assert t.bins[:, 0].sum() == rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (1000, 2), (700, 11), (400, 900)])
def test_logits_against_float64(dtype, rows, classes):
    z, y = made(rows, classes, 0, dtype)
    exact = z.astype(np.float64)
    t = span(z, y)
    check_against_oracle(t, softmax(exact, axis=1), log_softmax(exact, axis=1), z.argmax(axis=1), y, rtol=5e-6)
    assert t.row_sum_error == 0
    assert not t.column_sum.any()
    assert not t.minus_infinite.any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probs_against_float64(dtype):
    z, y = made(600, 9, 1)
    p = softmax(z.astype(np.float64), axis=1).astype(dtype)
    exact = p.astype(np.float64)
    normal = exact / exact.sum(axis=1, keepdims=True)
    t = span(p, y, "probs")
    with np.errstate(divide="ignore"):
        logp = np.log(normal)
    check_against_oracle(t, normal, logp, p.argmax(axis=1), y, rtol=5e-6)
    np.testing.assert_allclose(t.column_sum, exact.sum(axis=0), rtol=5e-6)
    assert t.row_sum_error == pytest.approx(np.abs(exact.sum(axis=1) - 1).max(), abs=1e-6)
    order = np.argsort(row_hash(np.arange(600)))
    np.testing.assert_allclose(t.sample.scores, np.log(exact[order]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_shared_logits_lose_nothing_that_the_input_holds(dtype):
    z, y = made(300, 6, 2, dtype)
    moved = z + dtype(1000.0)
    exact = moved.astype(np.float64)
    t = span(moved, y)
    check_against_oracle(t, softmax(exact, axis=1), log_softmax(exact, axis=1), moved.argmax(axis=1), y, rtol=5e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_extreme_logits(dtype):
    z, y = made(500, 7, 3, dtype)
    z[::3] *= dtype(3000)
    z[1::3, 2] = -np.finfo(dtype).max
    exact = z.astype(np.float64)
    t = span(z, y)
    own = log_softmax(exact, axis=1)[np.arange(500), y]
    np.testing.assert_allclose(t.soft, softmax(exact, axis=1).sum(axis=0), rtol=1e-4, atol=1e-4)
    assert np.isfinite(t.nll)
    if dtype == np.float16:
        assert t.nll == pytest.approx(-own.sum(), rel=1e-5)


def test_float64_argmax_is_decided_in_float64():
    z = np.zeros((4, 3))
    z[:, 2] = 1e-12  # a tie in single precision
    t = span(z, np.array([2, 2, 2, 0]))
    assert t.decoded.tolist() == [0, 0, 4]


def test_masked_columns_are_counted_not_refused():
    z, y = made(300, 8, 4)
    z[:, 5] = -np.inf
    z[7, 2] = -np.inf
    t = span(z, y)
    assert t.minus_infinite.tolist() == [0, 0, 1, 0, 0, 300, 0, 0]
    assert t.soft[5] == 0
    impossible = (y == 5).sum() + (y[7] == 2)
    assert t.impossible == impossible > 10
    own = log_softmax(z.astype(np.float64), axis=1)[np.arange(300), y]
    assert t.nll == pytest.approx(-own[np.isfinite(own)].sum(), rel=1e-5)


def test_zero_probabilities_are_impossible_rows():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    t = span(p, np.array([1, 0, 1]), "probs")
    assert t.impossible == 1
    assert t.nll == pytest.approx(np.log(2))
    assert np.isneginf(t.sample.scores).sum() == 2


BAD_LOGITS = [(np.nan,), (np.inf,), (np.nan, np.inf), (-np.inf,) * 6]


@pytest.mark.parametrize("values", BAD_LOGITS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unusable_logits_are_told_with_their_rows(values, dtype):
    z, y = made(900, 6, 5, dtype)
    ids = np.arange(900) * 10 + 3
    for row in (4, 500, 899):
        z[row, : len(values)] = values
    with pytest.raises(InputError, match=r"^expected finite logits, got [^\n]* in 3 rows \(row 43, 5003, 8993\); "):
        tally_span(z, y, ids, kind="logits")
    with pytest.raises(InputError, match=r"in 1 row \(row 43\); "):
        tally_span(z[:100], y[:100], ids[:100], kind="logits")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bad_cell_escapes(data):
    rows, classes = data.draw(st.integers(1, 40)), data.draw(st.integers(2, 9))
    z, y = made(rows, classes, data.draw(st.integers(0, 99)))
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, classes - 1))
    z[row, column] = data.draw(st.sampled_from([np.nan, np.inf, -np.nan]))
    z[row, (column + 1) % classes] = data.draw(st.sampled_from([0.0, 1e38, -np.inf, np.nan]))
    with pytest.raises(InputError, match=rf"in 1 row \(row {row}\)"):
        span(z, y)


@pytest.mark.parametrize("row", [[np.nan, 0.5, 0.5], [np.inf, 0, 0], [-0.1, 0.6, 0.5], [0, 0, 0], [-np.inf, 1, 0]])
def test_unusable_probabilities_are_told_with_their_rows(row):
    p = np.full((8, 3), 1 / 3)
    p[6] = row
    with pytest.raises(InputError, match=r"^expected finite, non-negative prob[^\n]* in 1 row \(row 6\); [^\n]*$"):
        span(p, np.zeros(8, int), "probs")


def test_predicted_labels_beside_scores_decide_the_counts():
    z, y = made(200, 5, 6)
    answered = np.random.default_rng(6).integers(0, 5, 200)
    t = span(z, y, predicted=answered)
    np.testing.assert_array_equal(t.predicted, np.bincount(answered, minlength=5))
    np.testing.assert_array_equal(t.hits, np.bincount(y[answered == y], minlength=5))
    np.testing.assert_array_equal(t.decoded, np.bincount(z.argmax(axis=1), minlength=5))
    assert t.bins[:, 2].sum() == (z.argmax(axis=1) == y).sum()


def test_the_scores_are_not_changed():
    for kind in ("logits", "probs"):
        z, y = made(100, 4, 7)
        scores = z if kind == "logits" else softmax(z, axis=1)
        before = scores.copy()
        t = span(scores, y, kind)
        t.sample.scores[:] = 0
        t.lead.scores[:] = 0
        np.testing.assert_array_equal(scores, before)


def test_bins_hold_their_edges():
    bins = confidence_bins(np.array([0.0, 1 / 15 + 1e-9, 0.5, 1.0]), np.array([True, False, True, True]))
    assert bins[:, 0].nonzero()[0].tolist() == [0, 1, 7, 14]
    assert bins[:, 2].sum() == 3


@pytest.mark.parametrize(("rows", "classes"), [(300_000, 500), (25_000, 2), (10**9, 100_000)])
def test_the_threshold_leaves_enough_rows(rows, classes):
    threshold = sample_threshold(rows, classes)
    wanted = sample_size(classes)
    assert threshold is not None
    expected = rows * int(threshold) / 2**64
    assert wanted + 5 * wanted**0.5 < expected < 1.2 * wanted + 100
    if rows < 10**6:
        assert (row_hash(np.arange(rows)) <= threshold).sum() >= wanted
    assert sample_threshold(wanted, classes) is None


def equal(a, b):
    for field in dataclasses.fields(a):
        if field.name == "declared":
            continue
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name in ("sample", "lead"):
            for inner in ("row_id", "target", "scores"):
                np.testing.assert_array_equal(getattr(x, inner), getattr(y, inner))
        elif field.name in ("soft", "soft_square", "column_sum", "bins", "nll", "row_sum_error"):
            if x is not None:
                np.testing.assert_allclose(x, y, rtol=3e-6, atol=1e-6, err_msg=field.name)
        else:
            np.testing.assert_array_equal(x, y, err_msg=field.name)


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("rows", [1, 500, 30_000])
def test_the_number_of_threads_does_not_matter(kind, rows, monkeypatch):
    z, y = made(rows, 3, 8)
    scores = z if kind == "logits" else softmax(z.astype(np.float64), axis=1).astype(np.float32)
    tallies = []
    for threads in (1, 2, 5):
        monkeypatch.setattr("evenhand.scanning.workers", lambda threads=threads: threads)
        tallies.append(tally_predictions(from_arrays(**{kind: scores}, target=y)))
    for other in tallies[1:]:
        equal(other, tallies[0])
    equal(tally_span(scores, y, np.arange(rows), kind=kind), tallies[0])
    chosen = np.argsort(row_hash(np.arange(rows)))[: sample_size(3)]
    np.testing.assert_array_equal(tallies[0].sample.row_id, chosen)
    np.testing.assert_array_equal(tallies[0].lead.row_id, np.arange(min(rows, lead_size(3))))


def test_the_same_pass_twice_is_the_same_to_the_last_bit():
    z, y = made(20_000, 6, 9)
    a, b = (tally_predictions(from_arrays(logits=z, target=y)) for _ in range(2))
    assert a.nll == b.nll
    for name in ("soft", "soft_square", "bins"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()


def test_an_audit_does_not_depend_on_threads_even_if_rows_are_sorted_by_class(monkeypatch):
    """Without training counts the prior is cross-fitted over folds of the sample: never over runs of one class."""
    rng = np.random.default_rng(10)
    pi = (np.arange(20) + 1.0) ** -1
    y = np.sort(rng.choice(20, 3000, p=pi / pi.sum()))
    z = rng.normal(size=(3000, 20)) + np.eye(20)[y]
    found = []
    for threads in (1, 2):
        monkeypatch.setattr("evenhand.scanning.workers", lambda threads=threads: threads)
        found.append(audit_tally(tally_predictions(from_arrays(logits=z, target=y))).tilt)
    assert found[0]["tau"] == pytest.approx(found[1]["tau"], abs=1e-6)
    assert found[0]["tau"] == pytest.approx(1.0, abs=0.12)


def test_memory_maps_give_the_same_tally(tmp_path):
    z, y = made(5000, 12, 11, np.float16)
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    mapped = open_predictions(logits=tmp_path / "z.npy", target=tmp_path / "y.npy")
    equal(tally_predictions(mapped), tally_predictions(from_arrays(logits=z, target=y)))
    np.savez(tmp_path / "both.npz", logits=z, target=y)
    equal(tally_predictions(open_predictions(tmp_path / "both.npz")), tally_predictions(mapped))


@pytest.mark.parametrize("layout", ["fortran", "strided", "big-endian"])
def test_memory_layout_does_not_matter(layout):
    z, y = made(2000, 7, 12)
    wide = np.zeros((4000, 14), np.float32)
    wide[::2, ::2] = z
    other = {"fortran": np.asfortranarray(z), "strided": wide[::2, ::2], "big-endian": z.astype(">f4")}[layout]
    equal(tally_predictions(from_arrays(logits=other, target=y)), tally_predictions(from_arrays(logits=z, target=y)))


def test_ignored_rows_leave_no_trace():
    z, y = made(3000, 5, 13)
    drop = np.random.default_rng(13).random(3000) < 0.3
    marked = np.where(drop, -100, y)
    z[drop] = np.nan
    t = tally_predictions(from_arrays(logits=z, target=marked, ignore_index=-100))
    kept = tally_span(z[~drop], y[~drop], np.flatnonzero(~drop), kind="logits")
    equal(t, kept)


def test_labels_only():
    _, y = made(4000, 9, 14)
    answered = np.random.default_rng(14).integers(0, 9, 4000)
    t = tally_predictions(from_arrays(predicted=answered, target=y))
    assert t.kind == "predicted"
    assert t.rows == 4000
    assert t.soft is None
    assert t.soft_square is None
    np.testing.assert_array_equal(t.true, np.bincount(y, minlength=9))
    np.testing.assert_array_equal(t.predicted, np.bincount(answered, minlength=9))
    np.testing.assert_array_equal(t.hits, np.bincount(y[y == answered], minlength=9))
    assert t.edge_count.sum() == (y != answered).sum()
    np.testing.assert_array_equal(t.lead.scores[:, 0], answered[: len(t.lead.row_id)])


def test_progress_counts_every_row_once():
    z, y = made(9000, 4, 15)
    done = []
    tally_predictions(from_arrays(logits=z, target=y), progress=done.append)
    assert sum(done) == 9000


def test_no_rows_left():
    z, _ = made(10, 3, 16)
    with pytest.raises(InputError, match="row"):
        tally_predictions(from_arrays(logits=z, target=np.full(10, -1), ignore_index=-1))
