"""Do no harm, as a statement about error rates: scores that hold nothing to gain are not recommended a correction.

The default tests sample the configurations; `pytest -m slow tests/test_correction_safety.py` goes through all of them.
"""

import numpy as np
import pytest

from evenhand import fit_correction
from evenhand.correction.effects import class_counts_of
from evenhand.goals import Aim, find_goal, frequency_groups

LABELS = ("random", "stratified")
SCORES = ("noise", "prior", "exact")
GIVEN = ("nothing", "known offset", "training counts", "counts and offset")
SIZES = ((5, 300), (20, 300), (20, 2000), (100, 1000))
GOALS = ("accuracy", "balanced-accuracy", "macro-f1", "g-mean", "worst-group", "counts")


def noise_world(labels, scores, classes, rows, seed, *, flat=True):
    """Scores that tell nothing of the labels (noise, prior: the same around the log prior), or all there is (exact)."""
    rng = np.random.default_rng(seed)
    pi = np.ones(classes) if flat else 1 / np.arange(1, classes + 1)
    pi /= pi.sum()
    if labels == "stratified":
        y = rng.permutation(np.repeat(np.arange(classes), np.maximum(np.rint(pi * rows), 1).astype(int)))
    else:
        y = rng.choice(classes, rows, p=pi)
    z = rng.normal(size=(len(y), classes))
    if scores == "prior":
        z = 0.3 * z + np.log(pi)
    if scores == "exact":
        centre = 0.7 * np.random.default_rng(99).normal(size=(classes, 4))
        x = centre[y] + rng.normal(size=(len(y), 4))
        z = x @ centre.T - (centre**2).sum(axis=1) / 2 + np.log(pi)
    return z.astype(np.float32), y, pi


def facts(given, pi, rows):
    counts = np.maximum(np.rint(20 * rows * pi), 1)
    return ({"train_counts": counts} if "counts" in given else {}) | (
        {"offset_known": np.zeros(len(pi))} if "offset" in given else {}
    )


def gain_on_new_rows(fix, goal, labels, scores, classes, seed, *, flat):
    """What the correction is worth where it counts: on 20,000 other rows of the same world."""
    z, y, pi = noise_world("random", scores, classes, 20_000, 10_000 + seed, flat=flat)
    metric = find_goal(goal).metric.bound(Aim(np.log(pi), groups=frequency_groups(pi)))
    before, after = (float(metric.measure(*class_counts_of(y, d, classes))) for d in (z.argmax(1), fix.predict(z)))
    return metric.sign * (after - before)


def recommended(labels, scores, given, size, goal, seeds, *, flat=True):
    """Of as many runs as there are seeds: recommended ones, and those among them that do harm on new rows."""
    count = harm = 0
    for seed in seeds:
        z, y, pi = noise_world(labels, scores, *size, seed, flat=flat)
        fix = fit_correction(z, y, goal=goal, seed=seed, **facts(given, pi, size[1]))
        if fix.recommended:
            count += 1
            harm += gain_on_new_rows(fix, goal, labels, scores, size[0], seed, flat=flat) < -0.001
    return count, harm


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("size", SIZES)
def test_noise_is_not_recommended_for_accuracy(size, labels, given):
    # At a rate of 2.5 % three of ten come up once in 500 configurations. Directions that left out one fold at a time
    # had 4 to 8 of 10 here where training counts were not given.
    assert recommended(labels, "noise", given, size, "accuracy", range(10))[0] <= 2


@pytest.mark.parametrize("goal", GOALS[1:])
def test_noise_without_training_counts_is_not_recommended_for_other_goals(goal):
    # With class frequencies that left out the fold, ten of twenty were, for balanced accuracy.
    assert recommended("random", "noise", "nothing", (20, 300), goal, range(10))[0] <= 2


@pytest.mark.parametrize("given", ["nothing", "training counts"])
@pytest.mark.parametrize("goal", GOALS)
def test_no_goal_recommends_harm(goal, given):
    harm = sum(
        recommended(labels, scores, given, size, goal, range(2), flat=flat)[1]
        for labels in LABELS
        for scores in SCORES
        for size in ((20, 300),)
        for flat in (True, False)
    )
    assert harm <= 3  # of 24


@pytest.mark.slow
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("labels", LABELS)
def test_harm_is_recommended_in_one_of_twenty_runs_at_most(labels, goal, given):
    """About a minute each."""
    runs = harm = 0
    for scores in SCORES:
        for size in SIZES:
            for flat in (True, False):
                harm += recommended(labels, scores, given, size, goal, range(20), flat=flat)[1]
                runs += 20
    assert harm <= 0.05 * runs
