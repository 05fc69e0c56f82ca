"""The audit as a whole: one answer by every way in, stable JSON, and the edges of its input."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from evenhand import audit, audit_predictions, audit_tally, from_arrays, open_predictions, tally_predictions
from evenhand.causes.diagnosis import RESIDUAL, diagnose
from evenhand.causes.registry import REGISTRY, percent, some_names
from evenhand.declared import InputError
from evenhand.evidence import Evidence
from evenhand.tally import combine


def zipf(classes):
    pi = (np.arange(classes) + 1.0) ** -1
    return pi / pi.sum()


def made(rows, classes, seed, *, tau=0.0, skill=1.0):
    rng = np.random.default_rng(seed)
    pi = zipf(classes)
    centre = skill * rng.normal(size=(classes, 6))
    y = rng.choice(classes, rows, p=pi)
    x = centre[y] + rng.normal(size=(rows, 6))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + (1 - tau) * np.log(pi), y, pi


def plain(found):
    return json.loads(json.dumps(found.to_dict(), allow_nan=False))


def close(a, b, path=""):
    """The same JSON, numbers to six digits."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            close(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            close(x, y, f"{path}[{i}]")
    elif isinstance(a, float) and isinstance(b, (int, float)):
        assert a == pytest.approx(b, rel=2e-4, abs=1e-4), path
    else:
        assert a == b, path


@pytest.mark.parametrize("kind", ["logits", "probs", "predicted"])
def test_every_way_in_gives_the_same_audit(kind, tmp_path):
    z, y, pi = made(3000, 12, 0, tau=1.0)
    values = {"logits": z, "probs": softmax(z, axis=1), "predicted": z.argmax(axis=1)}[kind]
    weights = 1 / (12 * pi)
    facts = {"train_counts": np.round(pi * 9e5), "class_weight": weights, "class_names": [f"n{i}" for i in range(12)]}
    direct = plain(audit(**{kind: values}, target=y, **facts, name="x"))
    close(plain(audit_predictions(from_arrays(**{kind: values}, target=y, **facts, name="x"))), direct)
    np.savez(tmp_path / "x", **{kind: values}, target=y, **facts)
    close(plain(audit_predictions(open_predictions(tmp_path / "x.npz"))) | {"name": 0}, direct | {"name": 0})
    parts = []
    for rows in (slice(0, 7), slice(7, 2000), slice(2000, 3000)):
        ids = np.arange(3000)[rows]
        parts.append(
            tally_predictions(from_arrays(**{kind: values[rows]}, target=y[rows], row_id=ids, **facts, name="x"))
        )
    if kind != "predicted":  # labels alone are counted, not kept: what only neighbours show needs them in one piece
        close(plain(audit_tally(combine(parts), name="x")), direct)


def test_the_same_audit_twice_is_the_same_text():
    z, y, pi = made(1500, 10, 1, tau=1.0)
    texts = [json.dumps(audit(logits=z, target=y, train_counts=pi * 1e5).to_dict()) for _ in range(2)]
    assert texts[0] == texts[1]


def test_progress_is_told():
    z, y, _ = made(2500, 5, 2)
    done = []
    audit_predictions(from_arrays(logits=z, target=y), progress=done.append)
    assert sum(done) == 2500


def test_the_numbers_are_what_their_names_say():
    z, y, pi = made(4000, 20, 3, tau=1.0)
    found = audit(logits=z, target=y, train_counts=np.round(pi * 1e6), class_weight=1 / pi)
    top, p = z.argmax(axis=1), softmax(z, axis=1)
    true, predicted = np.bincount(y, minlength=20), np.bincount(top, minlength=20)
    np.testing.assert_array_equal(found.true, true)
    np.testing.assert_array_equal(found.predicted, predicted)
    np.testing.assert_allclose(found.expected, p.sum(axis=0), rtol=1e-5)
    distance = found.total_variation
    assert distance["hard"] == pytest.approx(np.abs(predicted - true).sum() / 8000)
    assert distance["soft"] == pytest.approx(np.abs(p.sum(axis=0) - true).sum() / 8000, rel=1e-4)
    table = found.table
    np.testing.assert_allclose(table["decision"] + table["calibration"], predicted - true, atol=1e-6)
    np.testing.assert_allclose(table["recall"], [(top[y == c] == c).mean() for c in range(20)])
    assert found.tilt["tau"] == pytest.approx(1, abs=0.1)
    assert found.tilt["declared"]["tau"] == pytest.approx(1, abs=0.1)
    assert found.verdict.cause == "class-weights"
    low, high = found.tilt["tau_interval"]
    assert low < found.tilt["tau"] < high
    assert found.scalars()["evenhand/accuracy"] == pytest.approx((top == y).mean())
    pair = found.worst_pairs[0]
    assert pair["rows"] == ((y == pair["true"]) & (top == pair["predicted"])).sum()
    assert pair["back"] == ((top == pair["true"]) & (y == pair["predicted"])).sum()
    assert pair["rows"] - pair["back"] == max(p["rows"] - p["back"] for p in found.worst_pairs)


def test_the_tau_path_is_the_metrics_of_moved_logits():
    z, y, pi = made(2000, 15, 4, tau=1.0)
    found = audit(logits=z, target=y, train_counts=np.round(pi * 1e6))
    path = found.tau_path
    assert path["rows"] == 2000
    assert path["fitted"] == pytest.approx(found.tilt["tau"])
    log_prior = found.evidence.log_prior
    for tau, accuracy in zip(path["tau"], path["accuracy"], strict=True):
        moved = found.tilt["beta"] * z + found.evidence.offset + tau * log_prior
        assert accuracy == pytest.approx((moved.argmax(axis=1) == y).mean(), abs=1.5 / 2000)
    assert abs(path["best"]["accuracy"] - 1) < 0.4
    assert audit(predicted=z.argmax(axis=1), target=y).tau_path is None


def test_a_sound_model_has_one_finding():
    for seed in range(5):
        z, y, pi = made(3000, 10, 10 + seed)
        found = audit(logits=z, target=y, train_counts=np.round(pi * 1e5))
        assert len(found.findings) == 1
        assert found.verdict.cause in RESIDUAL
        assert not found.fix["recommended"]


EDGES = {
    "two classes": (np.array([[1.0, 0], [0, 1], [2, 1], [0, 3]] * 20), np.array([0, 1, 1, 1] * 20)),
    "one row": (np.array([[1.0, 0, 2]]), np.array([0])),
    "two rows": (np.array([[1.0, 0, 2], [0, 1, 0]]), np.array([0, 1])),
    "all of one class": (np.random.default_rng(0).normal(size=(200, 4)), np.full(200, 2)),
    "one-row classes": (np.random.default_rng(1).normal(size=(30, 30)) + 3 * np.eye(30), np.arange(30)),
    "absent classes": (np.random.default_rng(2).normal(size=(300, 50)), np.random.default_rng(2).integers(0, 5, 300)),
    "constant scores": (np.zeros((300, 5)), np.random.default_rng(3).choice(5, 300, p=zipf(5))),
    "certain and right": (60.0 * np.eye(5)[np.arange(300) % 5 // 2], np.arange(300) % 5 // 2),
    "certain and wrong": (60.0 * np.eye(5)[(np.arange(300) + 1) % 5], np.arange(300) % 5),
    "masked true class": (np.where(np.arange(4) == 1, -np.inf, np.eye(4)[np.arange(200) % 4]), np.arange(200) % 4),
    "one class beyond all": (np.where(np.arange(4) == 1, 1e9, np.eye(4)[np.arange(200) % 4]), np.arange(200) % 4),
    "more classes than rows": (np.random.default_rng(4).normal(size=(40, 500)), np.arange(40)),
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("kind", ["logits", "probs", "predicted"])
@pytest.mark.parametrize("counts", [False, True])
def test_the_edges_are_audited_without_a_word_of_warning(name, kind, counts):
    z, y = EDGES[name]
    k = z.shape[1]
    values = {"logits": z, "probs": softmax(z, axis=1), "predicted": z.argmax(axis=1)}[kind]
    if kind == "predicted" and values.max() < k - 1 and y.max() < k - 1 and not counts:
        values = np.append(values, k - 1)  # labels alone know only the classes they name
        y = np.append(y, k - 1)
    facts = {"train_counts": np.round(1e4 * zipf(k)) + 1, "class_weight": 1 / zipf(k)} if counts else {}
    found = audit(**{kind: values}, target=y, **facts)
    assert plain(found)["schema"] == "evenhand.audit/1"
    assert found.rows == len(y)
    assert found.findings
    assert str(found)
    if kind == "logits" and not counts:
        assert found.html().lower().startswith("<!doctype html>")
    _ = found.tau_path


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 12), st.integers(1, 80), st.sampled_from([0.0, 0.1, 3.0, 100.0]), st.integers(0, 9999), st.booleans()
)
def test_any_scores_give_an_audit(classes, rows, scale, seed, counts):
    rng = np.random.default_rng(seed)
    z, y = scale * rng.normal(size=(rows, classes)), rng.integers(0, rng.integers(1, classes + 1), rows)
    facts = {"train_counts": rng.integers(0, 50, classes) + (np.arange(classes) == 0)} if counts else {}
    if rng.random() < 0.5:
        facts["class_weight"] = np.append(rng.choice([1.0, 2.0, 0.0, np.nan, 30.0], classes - 1), 4.0)
    found = audit(logits=z, target=y, **facts)
    assert plain(found)["rows"] == rows
    assert sum(found.predicted) == rows
    chances = [f.probability for f in found.findings]
    assert chances == sorted(chances, reverse=True)
    assert all(0.01 <= p <= 0.99 for p in chances)


def test_probabilities_that_do_not_sum_to_one_are_refused():
    p = softmax(np.random.default_rng(0).normal(size=(50, 4)), axis=1) * 1.1
    with pytest.raises(InputError, match=r"^expected probabilities that sum to one in every row, got [^\n]+; [^\n]+$"):
        audit(probs=p, target=np.arange(50) % 4)


def test_an_unknown_goal_is_refused():
    z, y, _ = made(300, 4, 5)
    with pytest.raises(InputError, match="goal"):
        audit(logits=z, target=y, goal="fame")


def test_findings_come_from_registered_causes_in_order():
    z, y, pi = made(3000, 12, 6, tau=2.0)
    found = audit(logits=z, target=y, train_counts=np.round(pi * 1e6), class_weight=1 / pi, sampler="balanced")
    assert found.verdict.cause == "double-correction"
    for finding in found.findings:
        entry = REGISTRY[finding.cause]
        assert (finding.code, finding.title) == (entry.code, entry.title)
    again = diagnose(Evidence(found.evidence.tally))
    assert [f.cause for f in again] == [f.cause for f in found.findings]


def test_the_registry_is_consistent():
    codes = [entry.code for entry in REGISTRY.values()]
    assert len(set(codes)) == len(codes)
    families = ("EH1", "EH2", "EH3", "EH4", "EH5")  # those that `diagnose` goes through
    assert all(entry.code.startswith(families) or entry.id == "healthy" for entry in REGISTRY.values())
    assert set(RESIDUAL) <= REGISTRY.keys()
    for name, entry in REGISTRY.items():
        assert entry.id == name
        assert entry.explains <= REGISTRY.keys()
        assert name not in entry.explains


def test_causes_that_need_scores_are_silent_on_labels():
    z, y, _ = made(1000, 6, 7, tau=2.0)
    labels = Evidence(tally_predictions(from_arrays(predicted=z.argmax(axis=1), target=y)))
    assert any(entry.needs_scores for entry in REGISTRY.values())
    assert all(entry(labels) is None for entry in REGISTRY.values() if entry.needs_scores)


def test_words_of_sentences():
    assert [percent(x) for x in (0, 1, 0.999, 0.0999, 0.1, 1e-6)] == ["0%", "100%", "100%", "10%", "10%", "0.0001%"]
    z, y, _ = made(100, 4, 8)
    named = Evidence(tally_predictions(from_arrays(logits=z, target=y, class_names=["a", "b", "c", "d"])))
    assert some_names(named, [3, 1]) == "d, b"
    assert some_names(named, [0, 1, 2, 3]) == "a, b, c and 1 more"
    bare = Evidence(tally_predictions(from_arrays(logits=z, target=y)))
    assert some_names(bare, [2]) == "class 2"


def test_the_rates_of_a_sampler_go_by_either_name():
    rng = np.random.default_rng(4)
    y = rng.choice(5, 400, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    arrays = {"logits": rng.normal(size=(400, 5)), "target": y, "train_counts": np.bincount(y)}
    one, other = (audit(**arrays, **{name: np.ones(5)}) for name in ("sampler", "sampler_rate"))
    assert one.declared.sampler_rate.tolist() == other.declared.sampler_rate.tolist() == [1.0] * 5
    with pytest.raises(ValueError, match="two names for one thing"):
        audit(**arrays, sampler="balanced", sampler_rate=np.ones(5))


@pytest.mark.parametrize(("classes", "rows", "power"), [(2000, 900, 1.0), (5000, 800, 1.0), (1000, 1500, 0.5)])
def test_tau_keeps_its_scale_with_fewer_rows_than_classes_where_only_weights_are_known(classes, rows, power):
    """Half a row more for every class would level the stand-in counts: tau was 1.4 to 10 instead of 1, a fault."""
    z, y, pi = made(rows, classes, classes, tau=power)
    weight = pi**-power
    found = audit(logits=z, target=y, class_weight=weight / weight.mean())
    assert found.tilt["declared"]["expected_tau"] == pytest.approx(power, abs=0.05)
    low, high = found.tilt["tau_interval"]
    assert low - 0.05 < power < high + 0.05
    assert high - low < 0.4
    assert found.findings[0].cause != "double-correction"
