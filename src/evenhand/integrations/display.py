"""The counts of an audit, drawn in scikit-learn's display convention."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.auditing import Audit, audit
from evenhand.declared import Floats, InputError, Ints
from evenhand.integrations.labels import class_numbers

MAX_BARS = 60  # more classes are drawn as lines


class AuditDisplay:
    """True, predicted and expected counts over the classes, the most frequent first, under the verdict.

    Build it with `from_predictions` or `from_estimator`; all constructor arguments become attributes.

    Args:
        audit: the `evenhand.Audit`. labels: (K,) labels of the classes. true, predicted: (K,) counts.
        expected: (K,) sums of the probabilities, or None for labels only.

    Attributes:
        ax_, figure_: what was drawn on.
        lines_: matplotlib lines by name: true, predicted, expected.

    Example:
        >>> y = np.repeat(["a", "b", "c"], [60, 30, 10])
        >>> display = AuditDisplay.from_predictions(y, np.where(y == "c", "b", y), plot=False)
        >>> display.predicted.tolist(), display.labels.tolist()
        ([60, 40, 0], ['a', 'b', 'c'])
    """

    def __init__(
        self, audit: Audit, *, labels: NDArray[Any], true: Ints, predicted: Ints, expected: Floats | None = None
    ) -> None:
        self.audit = audit
        self.labels = labels
        self.true = true
        self.predicted = predicted
        self.expected = expected

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any = None,
        *,
        probs: Any = None,
        logits: Any = None,
        labels: Any = None,
        ax: Any = None,
        plot: bool = True,
        **declared: Any,
    ) -> AuditDisplay:
        """Audit predictions of any labels and draw the counts.

        Args:
            y_true: (n,) labels. y_pred: (n,) predicted labels; may be left out where scores are given.
            probs, logits: (n, K) scores with columns in the order of `labels`; they tell much more than labels do.
            labels: (K,) all classes; None for those that occur, in sorted order.
            ax: matplotlib axes. plot: whether to draw at once.
            declared: facts about the training for `evenhand.audit`: train_counts, class_weight, sampler.

        Raises:
            InputError: both kinds of scores or nothing to audit, labels and columns that do not fit together.
            ImportError: matplotlib is not installed and something is to be drawn.
        """
        if (probs is not None and logits is not None) or (y_pred is None and probs is None and logits is None):
            raise InputError("expected y_pred, probs or logits, and at most one of the two kinds of scores; pass one")
        true, decided = np.asarray(y_true), None if y_pred is None else np.asarray(y_pred)
        seen = np.unique(true if decided is None else np.concatenate([true, decided]))
        classes = seen if labels is None else np.asarray(labels)
        scores = probs if logits is None else logits
        if scores is not None and np.shape(scores)[1:] != (len(classes),):
            raise InputError(
                f"expected one column of scores for each of the {len(classes)} labels, got shape {np.shape(scores)}; "
                "name all classes in labels"
            )
        y = class_numbers(true, classes)
        j = np.asarray(scores).argmax(axis=1) if decided is None else class_numbers(decided, classes)
        found = _audit(y, j, probs, logits, classes, declared)
        expected = found.expected
        if expected is None and probs is not None:
            expected = np.asarray(probs, np.float64).sum(axis=0)
        counts = [np.bincount(v, minlength=len(classes)) for v in (y, j)]
        display = cls(found, labels=classes, true=counts[0], predicted=counts[1], expected=expected)
        return display.plot(ax=ax) if plot else display

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, ax: Any = None, plot: bool = True, **declared: Any
    ) -> AuditDisplay:
        """Audit a fitted classifier on rows it was not trained on, and draw the counts.

        Args:
            estimator: a classifier; its ``predict`` is counted, its ``predict_proba`` or ``decision_function`` is used
                for the expected counts and the cause, where it has one. X, y: rows and their labels.
            ax, plot, declared: see `from_predictions`.

        Limits:
            Where ``predict`` is not the class of the largest score, as after a correction for another goal than
            accuracy, the verdict is that of the predicted labels.
        """
        scores: dict[str, Any] = {}
        if hasattr(estimator, "predict_proba"):
            scores["probs"] = np.asarray(estimator.predict_proba(X))
        elif hasattr(estimator, "decision_function"):
            values = np.asarray(estimator.decision_function(X), np.float64)
            scores["logits"] = np.stack([np.zeros(len(values)), values], axis=1) if values.ndim == 1 else values
        labels = getattr(estimator, "classes_", None)
        return cls.from_predictions(y, estimator.predict(X), labels=labels, ax=ax, plot=plot, **scores, **declared)

    def plot(self, ax: Any = None) -> AuditDisplay:
        """Draw on matplotlib axes, new ones if None.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                "AuditDisplay.plot needs matplotlib; install it, or read the counts and .audit"
            ) from error
        if ax is None:
            _, ax = plt.subplots()
        order = np.argsort(-self.true, kind="stable")
        places, few = np.arange(len(order)), len(order) <= MAX_BARS
        drawn: dict[str, tuple[NDArray[Any], str, str]] = {
            "true": (self.true, "#4d4d4d", "-"),
            "predicted": (self.predicted, "#d95f02", "-"),
        }
        if self.expected is not None:
            drawn["expected"] = (self.expected, "#1b9e77", ":")
        self.lines_ = {
            name: ax.plot(places, values[order], style, color=color, marker="o" if few else "", ms=3, label=name)[0]
            for name, (values, color, style) in drawn.items()
        }
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("classes, the most frequent first")
        ax.set_ylabel("rows")
        if few and len(order) <= 20:
            # A name is untrusted text: without the escape a dollar sign would be read as mathematics.
            names = [str(label)[:20].replace("$", r"\$") for label in self.labels[order]]
            ax.set_xticks(places, names, rotation=45, ha="right")
        ax.set_title(textwrap.fill(self.audit.verdict.title.replace("$", r"\$"), 60), fontsize="medium")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _audit(y: Ints, j: Ints, probs: Any, logits: Any, classes: NDArray[Any], declared: dict[str, Any]) -> Audit:
    """The audit of the scores, or of the labels where the scores decide otherwise."""
    names = [str(label) for label in classes]
    scores = probs if logits is None else logits
    if scores is None or (np.asarray(scores).argmax(axis=1) != j).any():
        return audit(predicted=j, target=y, class_names=names, **declared)
    return audit(probs=probs, logits=logits, target=y, class_names=names, **declared)
