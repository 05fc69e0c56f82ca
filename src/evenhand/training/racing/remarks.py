"""What a reader of the leaderboard must know beside its figures: classes nobody judged, too short a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evenhand.declared import Ints
from evenhand.report.formats import plain, shortened
from evenhand.training.racing.judging import Judge, Mask

SHOWN = 8  # classes that a note names
GROUPS = ("head", "medium", "tail")


def remarks(judge: Judge, *, rows: int, batch_size: int, steps: int, names: Sequence[str] | None = None) -> list[str]:
    """Notes on a race.

    Args:
        judge: of its valid rows. rows: training rows. batch_size: rows per step. steps: of every training.
        names: (K,) of the classes; their numbers if None.
    """
    return [
        *on_gaps(judge.counts.counts, names),
        *on_unjudged(judge, names),
        *on_length(steps, max(1, -(-rows // batch_size))),
    ]


def on_unjudged(judge: Judge, names: Sequence[str] | None = None) -> list[str]:
    """Classes with training rows, but none in the judging half: a mean over the others hides them."""
    trained = judge.counts.counts > 0
    here = np.bincount(judge.target[~judge.choosing], minlength=judge.counts.classes) > 0
    unjudged = np.flatnonzero(trained & ~here)
    if not len(unjudged):
        return []
    judged, of, metric = int(here.sum()), int(trained.sum()), judge.metric
    have = "has" if len(unjudged) == 1 else "have"
    if metric.key in ("balanced_accuracy", "g_mean"):
        mean = "the mean over" if metric.key == "balanced_accuracy" else "that of"
        found = [
            f"{metric.words} is {mean} {judged:,} of {of:,} classes; the other {len(unjudged):,} {have} no row to "
            f"judge on: {listed(unjudged, names)}"
        ]
    else:
        found = [
            f"{len(unjudged):,} of {of:,} classes {have} no row to judge on: {listed(unjudged, names)}; balanced "
            f"accuracy is the mean over the other {judged:,}"
        ]
    return [*found, *_on_groups(judge, trained, here)]


def _on_groups(judge: Judge, trained: Mask, here: Mask) -> list[str]:
    groups = judge.aim.groups
    if judge.metric.key != "worst_group" or groups is None:
        return []
    lost = [
        name for g, name in enumerate(GROUPS) if (trained & (groups == g)).any() and not (here & (groups == g)).any()
    ]
    left = [name for g, name in enumerate(GROUPS) if (here & (groups == g)).any()]
    if not lost:
        return []
    return [
        f"no class of {' and '.join(lost)} has a row to judge on: the worst group is the worst of {' and '.join(left)}"
    ]


def on_gaps(counts: Ints, names: Sequence[str] | None = None) -> list[str]:
    """Class numbers that no training row has: the model has outputs for them that nothing trains."""
    absent = np.flatnonzero(np.asarray(counts) == 0)
    if not len(absent):
        return []
    return [
        f"{len(absent):,} of {len(counts):,} class numbers {'has' if len(absent) == 1 else 'have'} no training row: "
        f"{listed(absent, names)}; the model has an output for each, which no row trains; number the classes without "
        "gaps"
    ]


def on_length(steps: int, per_epoch: int) -> list[str]:
    """Less than one pass over the training rows."""
    if steps >= per_epoch:
        return []
    return [
        f"{steps:,} {'step is' if steps == 1 else 'steps are'} {steps / per_epoch:.1g} passes over the training rows; "
        "nothing has converged after so few, give more budget"
    ]


def listed(classes: Ints, names: Sequence[str] | None = None) -> str:
    """The first few of some classes, by name or number."""
    names = None if names is None or len(names) <= classes.max() else names
    shown = [str(k) if names is None else shortened(plain(names[k]), 20) for k in classes[:SHOWN].tolist()]
    return ", ".join(shown) + (", ..." if len(classes) > SHOWN else "")
