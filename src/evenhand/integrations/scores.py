"""Scores of a fitted classifier for every class, and scores of rows that each model has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed

from evenhand.declared import InputError, Ints

METHODS = ("predict_proba", "decision_function")
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Rows and what a model that was not trained on them says.

    Attributes: raw: (n, K) values of the response, NaN for classes the model has not seen. rows: (n,) their numbers,
        rising.
    """

    raw: Array
    rows: Ints


def choose_method(estimator: Any, wanted: str) -> str:
    """The response to use: the one wanted, or the first that the estimator has.

    Raises:
        InputError: it has none, or not the one wanted.
    """
    if wanted not in ("auto", *METHODS):
        raise InputError(f"response_method must be one of auto, {', '.join(METHODS)}, got {wanted!r:.40}; use auto")
    names = METHODS if wanted == "auto" else (wanted,)
    for name in names:
        if hasattr(estimator, name):
            return name
    raise InputError(
        f"expected an estimator with {' or '.join(names)} but {type(estimator).__name__} has none; a correction needs "
        "scores, not labels"
    )


def response(estimator: Any, X: Any, method: str, classes: Array) -> Array:
    """(n, K) values of a response in the order of `classes`; NaN in the columns of classes the estimator has not seen.

    A decision function with one column d, as for two classes, becomes the columns 0 and d: its softmax is the sigmoid
    of d.

    Raises:
        InputError: another number of columns than classes, classes that are not among `classes`, NaN or infinity.
    """
    values = getattr(estimator, method)(X)
    name = type(estimator).__name__
    if isinstance(values, list):
        raise InputError(f"{name} predicts several outputs; a correction is for one, so wrap the classifier of each")
    values = np.asarray(values)
    own = np.asarray(getattr(estimator, "classes_", classes))
    if values.ndim == 1 and len(own) == 2:
        values = np.stack([np.zeros_like(values), values], axis=1)
    if values.ndim == 1 and len(own) == 1:
        values = np.zeros((len(values), 1))
    if values.ndim != 2 or values.shape[1] != len(own):
        raise InputError(
            f"{method} of {name} gives shape {values.shape} for {len(own)} classes; one column per class is needed, as "
            "from decision_function_shape='ovr'"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{method} of {name} gives NaN or infinite values; mend the classifier or its input first")
    place = np.minimum(np.searchsorted(classes, own), len(classes) - 1)
    if not (classes[place] == own).all():
        raise InputError(f"{name} knows classes that are not among the labels; fit it on the same labels")
    floating = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    whole = np.full((len(values), len(classes)), np.nan, floating)
    whole[:, place] = values
    return whole


def smallest_probability(raw: Array) -> float:
    """Half of the smallest probability above 0: what a probability of 0 is taken for.

    A forest of 100 trees says 0 where it means less than a hundredth. Without a floor such rows would be impossible,
    with a tiny one they would dominate every likelihood.

    Example:
        >>> smallest_probability(np.array([[0.0, 1.0], [0.02, 0.98]]))
        0.01
    """
    positive = raw[raw > 0]
    return max(float(positive.min(initial=1.0)) / 2, float(np.finfo(raw.dtype).tiny))


def as_logits(raw: Array, floor: float | None) -> Array:
    """Scores for a correction: logarithms of probabilities, not below that of `floor`; others as they are.

    Example:
        >>> as_logits(np.array([[0.0, 1.0, np.nan]]), 0.5).round(2).tolist()
        [[-0.69, 0.0, -inf]]
    """
    scores = raw if floor is None else np.log(np.maximum(raw, raw.dtype.type(floor)))
    return np.where(np.isnan(raw), -np.inf, scores)


def make_splits(cv: Any, X: Any, y: Array, codes: Ints, params: Mapping[str, Any]) -> list[tuple[Ints, Ints]]:
    """(train, test) row numbers of every fold.

    With a number of folds, rows whose class has no other row stay in every training part: no model could have learnt
    their class otherwise.

    Raises:
        InputError: a row is tested twice.
    """
    splitter = check_cv(cv, y, classifier=True)
    with warnings.catch_warnings():
        # Classes with fewer rows than folds are what this package is for; they are dealt with here.
        warnings.filterwarnings("ignore", "The least populated class in y has only", UserWarning)
        splits = [(np.asarray(a), np.asarray(b)) for a, b in splitter.split(X, y, **params)]
    if cv is None or isinstance(cv, int):
        alone = np.bincount(codes)[codes] == 1
        splits = [(np.union1d(a, np.flatnonzero(alone)), b[~alone[b]]) for a, b in splits]
    splits = [(a, b) for a, b in splits if len(b)]
    tested = np.bincount(np.concatenate([b for _, b in splits]), minlength=len(y)) if splits else np.zeros(1)
    if tested.max() > 1:
        raise InputError(
            f"cv tests {int((tested > 1).sum())} rows more than once, so their scores would count as independent rows; "
            "use a splitter that tests every row once at most"
        )
    return splits


def out_of_fold(
    estimator: Any,
    X: Any,
    y: Array,
    classes: Array,
    method: str,
    splits: Sequence[tuple[Ints, Ints]],
    *,
    params: Mapping[str, Any],
    n_jobs: int | None,
) -> OutOfFold:
    """Values of the response for the test rows of all folds, each from a clone trained on the fold's other rows."""
    call: Callable[..., Any] = delayed(_fit_and_respond)
    found = Parallel(n_jobs=n_jobs)(call(clone(estimator), X, y, classes, method, split, params) for split in splits)
    raw, rows = np.concatenate(found), np.concatenate([test for _, test in splits])
    order = np.argsort(rows)
    return OutOfFold(raw[order], rows[order])


def _fit_and_respond(
    estimator: Any, X: Any, y: Array, classes: Array, method: str, split: tuple[Ints, Ints], params: Mapping[str, Any]
) -> Array:
    train, test = split
    own = {key: _some(value, train, len(y)) for key, value in params.items()}
    estimator.fit(_safe_indexing(X, train), y[train], **own)
    return response(estimator, _safe_indexing(X, test), method, classes)


def _some(value: Any, rows: Ints, total: int) -> Any:
    """The rows of a fit parameter that has one value per row; any other as it is."""
    long = hasattr(value, "shape") or isinstance(value, list | tuple)
    if not long or (len(value.shape) == 0 if hasattr(value, "shape") else False):
        return value
    size = value.shape[0] if hasattr(value, "shape") else len(value)
    return _safe_indexing(value, rows) if size == total else value
