"""Scorers for every goal, in scikit-learn's convention: ``scorer(estimator, X, y)``, where more is better."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import make_scorer

from evenhand.declared import InputError
from evenhand.goals import GOALS, find_goal, score
from evenhand.integrations.labels import by_class, class_numbers


def goal_score(
    y_true: Any,
    y_pred: Any,
    *,
    goal: str,
    labels: Any = None,
    costs: Any = None,
    prior: Any = None,
    frequency: Any = None,
) -> float:
    """The value of a goal's metric for labels of any kind, with the definitions of docs/fix.md.

    Macro F1 is the mean over the classes that occur or are predicted; the geometric mean takes a class that is never
    hit for half a hit; the worst group is the smallest mean recall of head, medium and tail. ``counts`` gives a
    distance and ``cost`` a cost, where less is better.

    Args:
        y_true, y_pred: (n,) labels. goal: a name of `evenhand.goals.GOALS`.
        labels: (K,) all classes in the order of the vectors below; None for those that occur, in sorted order.
        costs: for ``cost``. prior: for ``prior``. frequency: training counts for ``worst-group``, else the counts of
            `y_true` make up the groups. Vectors in the order of `labels`, or dictionaries label -> value.

    Raises:
        InputError: an unknown goal, a label that is not among `labels`, or a goal without what it needs.

    Example:
        >>> goal_score(["a", "a", "b"], ["a", "b", "b"], goal="counts")
        0.3333333333333333
    """
    wanted = find_goal(goal)
    given = {"costs": costs, "prior": prior, "frequency": frequency}
    if wanted.needs and given[wanted.needs] is None:
        raise InputError(f"the goal {goal} needs {wanted.needs}; state them")
    true, decided = np.asarray(y_true), np.asarray(y_pred)
    seen = np.unique(np.concatenate([true, decided]))
    classes = seen if labels is None else np.asarray(labels)
    stated = {name: by_class(name, values, classes) for name, values in given.items()}
    return score(goal, class_numbers(true, classes), class_numbers(decided, classes), classes=len(classes), **stated)


def scorers(*, labels: Any = None, costs: Any = None, prior: Any = None, frequency: Any = None) -> dict[str, Any]:
    """A scorer for every goal, by its name; ``cost`` and ``prior`` only where `costs` and `prior` are given.

    Any of them can be ``scoring=`` of `GridSearchCV` and `cross_validate`, or all at once. More is better: the scorers
    of ``counts`` and ``cost`` give the negative distance and cost.

    Args:
        labels, costs, prior, frequency: see `goal_score`; costs and a prior given as vectors need `labels`.

    Raises:
        InputError: costs or a prior as a vector without labels.

    Example:
        >>> from sklearn.dummy import DummyClassifier
        >>> X, y = np.zeros((4, 1)), np.array(["a", "a", "a", "b"])
        >>> found = {name: scorer(DummyClassifier().fit(X, y), X, y) for name, scorer in scorers().items()}
        >>> found["accuracy"], found["balanced-accuracy"], found["counts"]
        (0.75, 0.5, -0.25)
    """
    given = {"costs": costs, "prior": prior, "frequency": frequency}
    for name, values in given.items():
        if values is not None and labels is None:
            if not isinstance(values, dict):
                raise InputError(f"{name} as a vector needs labels to say which class is which; give labels as well")
            labels = sorted(values)
    wanted = [g for g in GOALS.values() if not g.needs or given[g.needs] is not None]
    return {
        g.name: make_scorer(
            goal_score, greater_is_better=g.metric.sign > 0, goal=g.name, labels=labels,
            **{name: values for name, values in given.items() if name == g.needs or name == "frequency"},
        )
        for g in wanted
    }  # fmt: skip
