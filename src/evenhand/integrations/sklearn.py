"""scikit-learn: a meta-estimator that puts a classifier's decisions right, scorers for every goal, a display.

Needs scikit-learn 1.6 or newer; the display needs matplotlib when it is drawn.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import assert_all_finite, column_or_1d, get_tags, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from evenhand.correction import Correction, fit_correction
from evenhand.declared import InputError, Ints
from evenhand.goals import find_goal
from evenhand.integrations.display import AuditDisplay
from evenhand.integrations.labels import by_class, class_numbers
from evenhand.integrations.scores import (
    as_logits,
    choose_method,
    make_splits,
    out_of_fold,
    response,
    smallest_probability,
)
from evenhand.integrations.scoring import scorers

__all__ = ["AuditDisplay", "TiltCorrector", "scorers"]

FEWEST_ROWS = 20  # fewer say nothing about a correction
DECISION_KEEPING = ("identity", "temperature")
Array = NDArray[Any]


class TiltCorrector(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose decisions serve a goal: :func:`evenhand.fit_correction` around any scikit-learn classifier.

    The classifier is trained on parts of the rows and gives scores for the others; the correction is fitted to those
    scores and measured on rows it has not seen; then the classifier is trained on all rows. Where harm to the goal is
    not excluded the decisions stay those of the classifier.

    Args:
        estimator: a classifier with ``predict_proba`` or ``decision_function``, for two classes or more.
        goal: a name of `evenhand.goals.GOALS`. The default ``accuracy`` is that of `fit_correction`: it undoes class
            weights and samplers, and leaves a calibrated classifier as it is. ``balanced-accuracy`` does what class
            weights are meant to do.
        cv: number of folds (None: 5), a splitter or an iterable of splits that tests no row twice; ``"prefit"`` where
            the estimator is fitted already, on **other** rows. An estimator in a `FrozenEstimator` is prefit.
        when: ``"recommended"`` applies the correction where its measured effect excludes harm; ``"always"`` always.
        response_method: ``predict_proba``, ``decision_function`` or ``auto``: the first that the estimator has.
            Probabilities come first since their scale needs no repair.
        costs, prior, wanted_counts, at_least, foldable: as in `fit_correction`. Vectors are in the order of
            ``classes_``, or dictionaries label -> value.
        train_counts: with ``"prefit"`` the classes' training rows, as a vector or dictionary.
        n_jobs: clones trained in parallel.

    Attributes:
        estimator_: the classifier trained on all rows, or the prefit one.
        classes_: (K,) labels. n_features_in_, feature_names_in_: those of the classifier, where it has them.
        correction_: `evenhand.Correction` for the goal, with its evidence; its ``why`` says whether it is recommended.
        applied_: the `Correction` in use: `correction_`, or one that sets the confidence and changes no decision.
        response_method_: the response in use. floor_: what a probability of 0 is taken for, or None.

    Raises:
        InputError: when fitted, for an unknown goal or option, an estimator without scores, or splits that overlap.

    Limits:
        ``sample_weight`` and other parameters of ``fit`` go to the classifier. The correction counts every row once:
        weights that were meant to balance classes are part of what it measures.
        ``predict_proba`` gives calibrated probabilities for the classes as frequent as they are in the rows; with other
        goals than accuracy its largest entry need not be the decision. ``decision_function`` always decides.

    Sources: Menon et al., "Long-tail learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314.

    Example:
        >>> from sklearn.datasets import make_classification
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = make_classification(3000, n_informative=4, n_classes=3, weights=[0.8, 0.15, 0.05], random_state=0)
        >>> weighted = LogisticRegression(class_weight="balanced")
        >>> model = TiltCorrector(weighted).fit(X, y)
        >>> model.correction_.recommended, 0.7 < model.correction_.evidence["tau"] < 1.3
        (True, True)
        >>> model.score(X, y) > weighted.fit(X, y).score(X, y) + 0.05
        True
    """

    def __init__(
        self,
        estimator: Any,
        *,
        goal: str = "accuracy",
        cv: Any = None,
        when: str = "recommended",
        response_method: str = "auto",
        costs: Any = None,
        prior: Any = None,
        wanted_counts: Any = None,
        at_least: Any = None,
        foldable: bool = False,
        train_counts: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.goal = goal
        self.cv = cv
        self.when = when
        self.response_method = response_method
        self.costs = costs
        self.prior = prior
        self.wanted_counts = wanted_counts
        self.at_least = at_least
        self.foldable = foldable
        self.train_counts = train_counts
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, **fit_params: Any) -> TiltCorrector:
        """Train the classifier and fit the correction.

        Args:
            X: whatever the classifier takes. y: (n,) labels.
            fit_params: go to the classifier's ``fit``, cut to the rows of a fold where they have one value per row.
                With metadata routing enabled they go where they are requested; a splitter may ask for ``groups``.
        """
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        X, y = indexable(X, y)
        y = column_or_1d(y, warn=True)
        prefit = self._check_options(fit_params)
        find_goal(self.goal)
        if prefit:
            check_is_fitted(self.estimator)
            self.estimator_ = self.estimator
            self.classes_ = np.asarray(self.estimator_.classes_)
            raw, codes = self._raw(X), class_numbers(y, self.classes_)
            counts = by_class("train_counts", self.train_counts, self.classes_)
        else:
            raw, codes, counts = self._cross_fit(X, y, fit_params)
        self.floor_ = None
        if self.response_method_ == "predict_proba":
            self.floor_ = smallest_probability(raw if len(raw) or len(self.classes_) == 1 else self._raw(X))
        logits = as_logits(raw, self.floor_)
        self.correction_ = self._correct(logits, codes, counts, None if prefit else np.zeros(len(self.classes_)))
        kept = self.correction_.recommended or self.when == "always"
        self.applied_ = self.correction_ if kept else _confidence(logits, codes, self.correction_)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def predict(self, X: Any) -> Array:
        """(n,) labels that serve the goal."""
        scores = self._scores(X)
        return np.asarray(self.classes_[self._merit(scores).argmax(axis=1)])

    def decision_function(self, X: Any) -> Array:
        """(n, K) scores whose largest decides; for two classes (n,) scores of the second, decided where above 0."""
        merit = self._merit(self._scores(X))
        return np.asarray(merit[:, 1] - merit[:, 0]) if len(self.classes_) == 2 else merit

    def predict_proba(self, X: Any) -> Array:
        """(n, K) calibrated probabilities; the goal does not enter."""
        scores = self._scores(X)
        return np.asarray(self.applied_.posterior(scores))

    def predict_log_proba(self, X: Any) -> Array:
        """(n, K) logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    def get_metadata_routing(self) -> Any:
        """Parameters of ``fit`` go to the classifier's ``fit`` and to the splitter's ``split``, as these request."""
        return (
            MetadataRouter(owner=type(self).__name__)
            .add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
            .add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        )

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.allow_nan = inner.input_tags.allow_nan
        if inner.classifier_tags is not None:
            tags.classifier_tags.multi_class = inner.classifier_tags.multi_class
        return tags

    def _check_options(self, fit_params: dict[str, Any]) -> bool:
        """Whether the estimator is fitted already; checks what no other part does."""
        if self.when not in ("recommended", "always"):
            raise InputError(f"when must be recommended or always, got {self.when!r:.40}; recommended does no harm")
        named = isinstance(self.cv, str)
        if named and self.cv != "prefit":
            raise InputError(f"cv must be a number of folds, a splitter or 'prefit', got {self.cv!r:.40}; 5 is common")
        prefit = named or isinstance(self.estimator, FrozenEstimator)
        if self.train_counts is not None and not prefit:
            raise InputError("train_counts belong to cv='prefit'; otherwise the labels are the training counts")
        if named and fit_params:
            raise InputError(f"cv='prefit' trains nothing, so fit takes no {next(iter(fit_params))}; leave it out")
        return prefit

    def _cross_fit(self, X: Any, y: Array, fit_params: dict[str, Any]) -> tuple[Array, Ints, Ints]:
        """Train on all rows, and on the folds for scores of unseen rows; their class numbers; rows of every class."""
        own, split = fit_params, {}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **fit_params)
            own, split = routed.estimator.fit, routed.splitter.split
        self.classes_, codes = np.unique(y, return_inverse=True)
        counts = np.bincount(codes)
        self.estimator_ = clone(self.estimator).fit(X, y, **own)
        self.response_method_ = choose_method(self.estimator_, self.response_method)
        if len(self.classes_) == 1 or len(y) < FEWEST_ROWS:
            return np.zeros((0, len(self.classes_))), np.zeros(0, np.int64), counts
        found = out_of_fold(
            self.estimator, X, y, self.classes_, self.response_method_, make_splits(self.cv, X, y, codes, split),
            params=own, n_jobs=self.n_jobs,
        )  # fmt: skip
        return found.raw, codes[found.rows], counts

    def _raw(self, X: Any) -> Array:
        self.response_method_ = choose_method(self.estimator_, self.response_method)
        return response(self.estimator_, X, self.response_method_, self.classes_)

    def _scores(self, X: Any) -> Array:
        check_is_fitted(self)
        return as_logits(response(self.estimator_, X, self.response_method_, self.classes_), self.floor_)

    def _merit(self, scores: Array) -> Array:
        """(n, K) what a decision takes the maximum of."""
        decision = self.applied_.decision
        if decision is None:
            return np.asarray(self.applied_.apply(scores))
        merit = decision.utilities(self.applied_.posterior(scores).astype(np.float32))
        return np.where(np.isneginf(scores), -np.inf, merit)

    def _correct(self, logits: Array, codes: Ints, counts: Any, known: Any) -> Correction:
        """The correction for the goal; one that does nothing where the rows are too few to fit it."""
        k = len(self.classes_)
        usable = int(np.isfinite(logits[np.arange(len(codes)), codes]).sum())
        if usable < FEWEST_ROWS or len(np.unique(codes)) < 2:
            why = f"not recommended: {usable} rows of {len(np.unique(codes))} classes are too few to judge a correction"
            if k > 1:
                warnings.warn(f"{why}; the classifier is used as it is", UserWarning, stacklevel=3)
            return Correction(1.0, np.zeros(k), self.goal, "identity", {}, len(codes), 0, recommended=False, why=why)
        stated = {
            name: by_class(name, getattr(self, name), self.classes_) for name in ("costs", "prior", "wanted_counts")
        }
        return fit_correction(
            logits,
            codes,
            goal=self.goal,
            at_least=self.at_least,
            foldable=self.foldable,
            # The labels of the other folds would not do for counts: where a class is rare in them it is frequent in the
            # fold, so that even noise would seem to predict it.
            train_counts=counts,
            offset_known=known,
            class_names=[str(label) for label in self.classes_],
            **stated,
        )


def _confidence(logits: Array, codes: Ints, tried: Correction) -> Correction:
    """A correction that keeps every decision: a temperature, if that makes the probabilities better."""
    if tried.folds == 0:
        return tried
    return fit_correction(logits, codes, models=DECISION_KEEPING, offset_known=np.zeros(tried.classes))
