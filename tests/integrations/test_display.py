"""The picture of an audit in scikit-learn's convention."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from evenhand.declared import InputError
from evenhand.integrations.sklearn import AuditDisplay, TiltCorrector


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.repeat(["b", "a$x$", "c"], [400, 150, 50])
    X = rng.normal(size=(600, 3)) + np.eye(3)[np.unique(y, return_inverse=True)[1]]
    return X, y


@pytest.fixture
def axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt.subplots()[1]
    plt.close("all")


def test_counts_come_from_predict_and_from_the_probabilities(data):
    X, y = data
    model = LogisticRegression(class_weight="balanced").fit(X, y)
    display = AuditDisplay.from_estimator(model, X, y, plot=False)
    assert display.labels.tolist() == ["a$x$", "b", "c"]
    assert display.true.tolist() == [150, 400, 50]
    np.testing.assert_array_equal(display.predicted, np.unique(model.predict(X), return_counts=True)[1])
    np.testing.assert_allclose(display.expected, model.predict_proba(X).sum(axis=0), rtol=1e-4)
    assert display.audit.kind == "probs"


def test_a_decision_function_is_used_as_logits(data):
    X, y = data
    assert AuditDisplay.from_estimator(LinearSVC().fit(X, y), X, y, plot=False).audit.kind == "logits"
    two = y != "c"
    display = AuditDisplay.from_estimator(LinearSVC().fit(X[two], y[two]), X[two], y[two], plot=False)
    assert display.audit.classes == 2
    assert display.audit.kind == "logits"


def test_decisions_that_are_no_argmax_are_judged_as_labels(data):
    X, y = data
    model = TiltCorrector(LogisticRegression(), goal="balanced-accuracy", when="always").fit(X, y)
    display = AuditDisplay.from_estimator(model, X, y, plot=False)
    assert display.audit.kind == "predicted"
    np.testing.assert_array_equal(display.audit.predicted, display.predicted)
    np.testing.assert_allclose(display.expected, model.predict_proba(X).sum(axis=0))


def test_bad_input(data):
    y = data[1]
    with pytest.raises(InputError, match="expected y_pred"):
        AuditDisplay.from_predictions(y, plot=False)
    with pytest.raises(InputError, match="one column of scores"):
        AuditDisplay.from_predictions(y, probs=np.ones((600, 2)) / 2, plot=False)
    with pytest.raises(InputError, match="not among the 2 classes"):
        AuditDisplay.from_predictions(y, y, labels=["b", "c"], plot=False)


def test_without_matplotlib_a_sentence_says_so(data, monkeypatch):
    load = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="needs matplotlib"):
        AuditDisplay.from_predictions(data[1], data[1])


def test_lines_are_the_counts_by_frequency_under_the_verdict(data, axes):
    X, y = data
    model = LogisticRegression(class_weight="balanced").fit(X, y)
    display = AuditDisplay.from_estimator(model, X, y, ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is axes.figure
    order = [1, 0, 2]
    for name in ("true", "predicted", "expected"):
        np.testing.assert_array_equal(display.lines_[name].get_ydata(), getattr(display, name)[order])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", r"a\$x\$", "c"]
    assert axes.get_title().replace("\n", " ") == display.audit.verdict.title
    display.figure_.canvas.draw()
    assert display.plot().ax_ is not axes


def test_many_classes_are_lines_without_names(axes):
    y = np.repeat(np.arange(200), 3)
    display = AuditDisplay.from_predictions(y, y, ax=axes)
    assert "expected" not in display.lines_
    assert display.lines_["true"].get_marker() in ("", "None")
