"""Other packages' ways to correct scores and to estimate priors; each is imported only when it is asked for.

Every calibrator takes held-out scores (N, K) and labels and gives log posteriors; every prior estimator takes the
posteriors of new rows and the prior they stand for.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PACKAGES = {"sklearn": "scikit-learn", "xcolumns": "xcolumns", "quapy": "quapy", "abstention": "abstention"}


def missing() -> dict[str, str]:
    """Module name -> the command that installs it."""
    return {
        module: f"pip install {package}" for module, package in PACKAGES.items() if not importlib.util.find_spec(module)
    }


def logit_adjusted(z: NDArray[Any], train_counts: Ints) -> Ints:
    """Argmax of ``z - log pi`` (Menon et al. 2021, tau = 1), pi as trained."""
    pi = np.maximum(train_counts, 0.5) / train_counts.sum()
    return np.asarray((z - np.log(pi)).argmax(axis=1))


def scikit_learn_temperature(z: NDArray[Any], y: Ints) -> float:
    """The inverse temperature of `CalibratedClassifierCV(method="temperature")` around a frozen model.

    It refuses classes with fewer than two rows, so it gets the others; a temperature is the same for all of them. They
    are numbered anew: with gaps in the numbers its temperature is wrong (scikit-learn 1.9.1).
    """
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import KFold

    class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Scores:  # noqa: ARG002
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x: Any) -> Any:
            return x

        def predict(self, x: Any) -> Any:
            return self.classes_[x.argmax(axis=1)]

    seen = np.flatnonzero(np.bincount(y) >= 2)
    rows = np.isin(y, seen)
    columns, y = z[rows][:, seen].astype(np.float64), np.searchsorted(seen, y[rows])
    frozen = FrozenEstimator(Scores().fit(columns, y))
    fitted = CalibratedClassifierCV(frozen, method="temperature", cv=KFold(2)).fit(columns, y)
    probe = np.zeros((1, len(seen)))
    probe[0, 0] = -1.0  # it takes rows from 0 to 1 that sum to 1 for probabilities
    p = fitted.predict_proba(probe)[0]
    return float(np.log(p[1] / p[0]))


@dataclass(frozen=True)
class Stated:
    """What the usual rules need beside posteriors: (K,) frequencies among the rows, costs and a prior."""

    frequency: Floats
    costs: Floats
    prior: Floats


def usual_rule(goal: str, log_p: NDArray[Any], stated: Stated) -> Ints:
    """The textbook decision for a goal on log posteriors; the argmax where there is none."""
    if goal in ("balanced-accuracy", "g-mean", "worst-group"):
        return np.asarray((log_p - np.log(stated.frequency)).argmax(axis=1))
    if goal == "prior":
        return np.asarray((log_p + np.log(stated.prior / stated.frequency)).argmax(axis=1))
    if goal == "cost":
        return np.asarray((log_p + np.log(stated.costs)).argmax(axis=1))
    return np.asarray(log_p.argmax(axis=1))


def tempered(z: NDArray[Any], beta: float) -> NDArray[Any]:
    return np.asarray(log_softmax(beta * z.astype(np.float64), axis=1))


def block_coordinate_f1(p: NDArray[Any], seed: int = 0) -> Ints:
    """xCOLUMNs' block-coordinate ascent on macro F1 over the rows that are judged, one label a row."""
    from xcolumns.block_coordinate import predict_optimizing_macro_f1_score_using_bc

    answer = predict_optimizing_macro_f1_score_using_bc(p, k=1, seed=seed)
    return np.asarray(np.asarray(answer).argmax(axis=1))


def quapy_prior(p: Floats, pi: Floats) -> Floats:
    from quapy.method.aggregative import EMQ

    return np.asarray(EMQ.EM(pi, p)[0], np.float64)


def abstention_prior(p: Floats, pi: Floats, reference: Floats) -> Floats:  # noqa: ARG001
    """EM from the mean posterior of the `reference` rows, as this package does by default."""
    from abstention.label_shift import EMImbalanceAdapter

    found = EMImbalanceAdapter()(p, reference)
    return np.asarray(found.multipliers * reference.mean(axis=0), np.float64)
