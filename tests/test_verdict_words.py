"""What the findings say: true beside the numbers, and fit for the goal."""

import numpy as np
import pytest

from evenhand import audit
from evenhand.causes.decision import _never
from evenhand.declared import InputError


def rows(classes=20, number=5000, *, tau=0.0, skill=1.5, power=1.0, seed=0):
    """Exact posteriors of a Gaussian task, with the prior divided out `tau` times."""
    rng = np.random.default_rng(seed)
    prior = np.arange(1, classes + 1.0) ** -power
    prior /= prior.sum()
    y = rng.choice(classes, number, p=prior)
    x = rng.normal(size=(number, classes))
    x[np.arange(number), y] += skill
    return skill * x + (1 - tau) * np.log(prior), y, np.maximum(np.round(1e6 * prior), 1)


@pytest.fixture(scope="module")
def weighted():
    z, y, counts = rows(tau=1.0)
    return {"logits": z, "target": y, "train_counts": counts, "class_weight": counts.sum() / (20 * counts)}


def test_weights_that_serve_the_goal_are_a_note(weighted):
    assert audit(**weighted).verdict.severity == "warning"
    assert audit(**weighted, goal="counts").verdict.severity == "warning"
    found = audit(**weighted, goal="balanced-accuracy").verdict
    assert (found.cause, found.severity, found.snippets) == ("class-weights", "note", {})
    assert found.remedy.startswith("Nothing to repair: balanced accuracy is the goal")


def test_a_sampler_that_serves_the_goal_is_a_note_but_an_undeclared_tilt_is_none(weighted):
    plain = {key: weighted[key] for key in ("logits", "target", "train_counts")}
    assert audit(**plain, sampler="balanced", goal="balanced-accuracy").verdict.severity == "note"
    assert audit(**plain, goal="balanced-accuracy").verdict.severity == "warning"


def test_a_prior_divided_out_twice_serves_no_goal(weighted):
    both = weighted | {"logits": rows(tau=2.0)[0]}
    found = audit(**both, sampler="balanced", goal="balanced-accuracy").verdict
    assert (found.cause, found.severity) == ("double-correction", "fault")


def test_right_counts_are_promised_by_the_goal_counts_alone(weighted):
    plain = {key: weighted[key] for key in ("logits", "target", "train_counts")}
    for found in (audit(**weighted), audit(**plain, sampler="balanced"), audit(**plain)):
        assert "accuracy or right counts" not in found.verdict.remedy
        assert "goal counts of evenhand fix" in found.verdict.remedy.replace("the goal counts", "goal counts")


def test_no_tilt_asks_for_no_correction(weighted):
    found = audit(**weighted | {"logits": rows(tau=0.02)[0]}).verdict
    assert found.cause == "partial-weights"
    assert "There is no tilt to correct" in found.remedy
    assert "log prior" not in found.remedy
    assert found.snippets == {}
    some = audit(**weighted | {"logits": rows(tau=0.4)[0]}).verdict
    assert some.cause == "partial-weights"
    assert "measured tilt (0.4" in some.remedy
    assert "log" in some.snippets["pytorch"]


def test_a_vector_with_holes_predicts_no_tilt(weighted):
    weight = weighted["class_weight"].copy()
    weight[0] = np.nan
    found = audit(**weighted | {"class_weight": weight})
    assert found.verdict.cause == "incomplete-weights"
    assert "tau" in found.verdict.evidence
    assert not {"planned_tau", "expressed_fraction"} & found.verdict.evidence.keys()
    assert "settings predict" not in str(found)
    assert "what they ask for" not in str(found)


def test_counts_that_differ_are_not_called_equal():
    z, y, counts = rows(2, 3000, skill=2.0, power=3.0)
    found = audit(logits=z, target=y, train_counts=counts)
    assert found.homogeneity["p"] < 1e-3
    assert found.verdict.cause == "healthy"
    assert "differ, by little but by more than chance explains" in found.verdict.sentence
    assert "agree" not in found.verdict.sentence
    assert found.verdict.evidence["counts_differ"]
    assert found.verdict.probability == 0.9
    assert str(found).splitlines()[2].startswith("Note: Predicted and true counts differ")
    assert "Look at the per-class table" in str(found)
    perfect = audit(logits=10 * np.eye(4)[y] + 0 * z[:, :1], target=y)
    assert not perfect.verdict.evidence["counts_differ"]
    assert "agree" in perfect.verdict.sentence


def test_only_classes_that_are_never_answered_are_counted():
    z, y, counts = rows(20, 5000, skill=1.0)
    found = audit(logits=z, target=y, train_counts=counts).verdict
    assert found.cause == "argmax-amplification"
    assert "never" not in found.sentence
    assert _never(1, 20) == "; 1 of 20 classes is never answered"
    assert _never(2000, 5000) == "; 2,000 of 5,000 classes are never answered"


def test_two_classes_have_a_direction_too():
    z, y, counts = rows(2, 3000, skill=0.7, power=3.0)
    found = audit(logits=z, target=y, train_counts=counts)
    assert (found.pattern["name"], found.pattern["slope"]) == ("amplified", None)
    turned = audit(predicted=1 - y, target=y)
    assert turned.pattern["name"] == "mirrored"
    assert audit(predicted=y, target=y).pattern["name"] == "proportional"


def test_names_that_repeat_carry_the_class_number():
    z, y, counts = rows(20, 5000, skill=3.0)
    answer = z.argmax(axis=1)
    answer[y == 3] = 4
    found = audit(
        predicted=answer, target=y, train_counts=counts, class_names=["twin"] * 10 + [f"n{k}" for k in range(10)]
    )
    assert found.verdict.cause == "confused-pairs"
    assert "twin (class 3) answered as twin (class 4)" in found.verdict.sentence


def test_rates_that_look_like_weights_of_rows_are_questioned():
    z, y, counts = rows(tau=1.0)
    found = audit(logits=z, target=y, train_counts=counts, sampler=1 / counts)
    assert "how often each class is drawn was expected" in found.verdict.surer
    for rates in ("balanced", "sqrt", counts**-0.9):
        assert "expected" not in audit(logits=z, target=y, train_counts=counts, sampler=rates).verdict.surer


def test_minus_zero_is_not_shown():
    for seed in range(6):
        z, y, counts = rows(10, 2000, skill=3.0, seed=seed)
        assert "-0.00" not in audit(logits=z, target=y, train_counts=counts).verdict.sentence


def test_arrays_without_names_are_refused_in_words():
    z, y, _ = rows(4, 50)
    with pytest.raises(InputError, match=r"by name but got 2 without one; write audit\(logits=\.\.\., target=\.\.\.\)"):
        audit(z, y)  # type: ignore[misc]


def test_repr_is_short_and_names_the_cause(weighted):
    lines = repr(audit(**weighted, name="x" * 500)).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 160
    assert "5,000 rows, 20 classes, logits" in lines[0]
    assert "class-weights (warning, probability 0.95)" in lines[1]
    assert "tau 0.99" in lines[2] or "tau 1.0" in lines[2]
