"""TiltCorrector: scikit-learn's own checks, and what the correction must do to real classifiers."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from evenhand.correction import Correction, fit_correction
from evenhand.declared import InputError
from evenhand.goals import GOALS, score
from evenhand.integrations.scores import as_logits, make_splits, response, smallest_probability
from evenhand.integrations.sklearn import TiltCorrector, scorers

FEW = "ignore:not recommended. .* too few to judge:UserWarning"


def every_check(estimators):
    """`parametrize_with_checks`; older versions pass a generator, which newer versions of pytest warn of."""
    mark = parametrize_with_checks(estimators)
    names, values = mark.args
    return pytest.mark.parametrize(names, list(values), **mark.kwargs)


def long_tail(rows=3000, classes=6, seed=0):
    """Rows of normal clusters with geometric class sizes; string labels whose sorted order is not by size."""
    rng = np.random.default_rng(seed)
    share = 0.45 ** np.arange(classes)
    y = rng.choice(classes, rows, p=share / share.sum())
    X = rng.normal(size=(rows, 4)) + 1.5 * rng.normal(size=(classes, 4))[y]
    return X, np.array([f"c{(5 * c) % classes if classes % 5 else c}" for c in range(classes)])[y]


@pytest.fixture(scope="module")
def data():
    X, y = long_tail()
    return X[:2000], y[:2000], X[2000:], y[2000:]


def weighted():
    return LogisticRegression(class_weight="balanced")


@pytest.mark.filterwarnings(FEW)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@every_check(
    [
        TiltCorrector(LogisticRegression(C=1), cv=3),
        TiltCorrector(LinearSVC(), cv=3),
        TiltCorrector(DecisionTreeClassifier(max_depth=3, random_state=0)),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings(FEW)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@every_check([TiltCorrector(LogisticRegression(C=1), cv=3, goal="macro-f1", when="always")])
def test_scikit_learn_checks_where_the_goal_moves_decisions(estimator, check):
    check(estimator)


def test_weights_are_undone(data):
    X, y, new, truth = data
    model = TiltCorrector(weighted()).fit(X, y)
    plain, tilted = LogisticRegression().fit(X, y).score(new, truth), weighted().fit(X, y).score(new, truth)
    assert model.correction_.recommended
    assert model.applied_ is model.correction_
    assert 0.6 < model.correction_.evidence["tau"] < 1.4
    assert model.score(new, truth) > tilted + 0.8 * (plain - tilted)
    assert plain > tilted + 0.02


def test_the_correction_is_that_of_the_out_of_fold_scores(data):
    X, y, new, _ = data
    model = TiltCorrector(weighted(), cv=4, goal="balanced-accuracy").fit(X, y)
    p = cross_val_predict(weighted(), X, y, cv=4, method="predict_proba")
    codes = np.searchsorted(model.classes_, y)
    fix = fit_correction(
        np.log(p), codes, goal="balanced-accuracy", offset_known=np.zeros(6), train_counts=np.bincount(codes),
        class_names=model.classes_.tolist(),
    )  # fmt: skip
    np.testing.assert_allclose(model.correction_.offset, fix.offset, atol=1e-4)
    assert model.correction_.names_hash == fix.names_hash
    z = np.log(model.estimator_.predict_proba(new))
    np.testing.assert_array_equal(model.predict(new), model.classes_[model.applied_.predict(z)])


@pytest.mark.parametrize("goal", [g for g in GOALS if not GOALS[g].needs])
def test_every_goal_decides_by_its_own_decision_function(data, goal):
    X, y, new, truth = data
    model = TiltCorrector(LogisticRegression(), goal=goal, when="always").fit(X, y)
    decided = model.predict(new)
    np.testing.assert_array_equal(model.classes_[model.decision_function(new).argmax(axis=1)], decided)
    z = np.log(model.estimator_.predict_proba(new))
    np.testing.assert_array_equal(model.classes_[model.correction_.predict(z)], decided)
    np.testing.assert_allclose(model.predict_proba(new).sum(axis=1), 1, rtol=1e-6)
    sign = GOALS[goal].metric.sign
    codes = [np.searchsorted(model.classes_, v) for v in (truth, decided, model.estimator_.predict(new))]
    kept, moved = (sign * score(goal, codes[0], c, classes=6) for c in (codes[2], codes[1]))
    assert moved > kept - 0.02


def test_costs_and_a_prior_by_label(data):
    X, y, new, _ = data
    labels = np.unique(y)
    rare = min(labels, key=lambda c: (y == c).sum())
    stated = {c: 20.0 if c == rare else 1.0 for c in labels.tolist()}
    kept = (TiltCorrector(LogisticRegression()).fit(X, y).predict(new) == rare).sum()
    for goal, name in (("cost", "costs"), ("prior", "prior")):
        model = TiltCorrector(LogisticRegression(), goal=goal, when="always", **{name: stated}).fit(X, y)
        assert (model.predict(new) == rare).sum() > kept
        vector = TiltCorrector(
            LogisticRegression(), goal=goal, when="always", **{name: [stated[c] for c in labels.tolist()]}
        ).fit(X, y)
        np.testing.assert_array_equal(model.correction_.offset, vector.correction_.offset)
    with pytest.raises(InputError, match="no value for 'c0'"):
        TiltCorrector(LogisticRegression(), goal="prior", prior={"c1": 1.0}).fit(X, y)


def test_what_is_not_recommended_changes_no_decision():
    X, y = long_tail(100, 3)
    new, _ = long_tail(500, 3)
    model = TiltCorrector(LogisticRegression(), goal="balanced-accuracy", cv=3).fit(X, y)
    assert not model.correction_.recommended
    assert model.applied_ is not model.correction_
    assert not model.applied_.offset.any()
    np.testing.assert_array_equal(model.predict(new), model.estimator_.predict(new))
    always = TiltCorrector(LogisticRegression(), goal="balanced-accuracy", cv=3, when="always").fit(X, y)
    assert always.applied_ is always.correction_
    assert (always.predict(new) != model.predict(new)).any()


def test_noise_is_not_taken_for_a_gain():
    """The labels of the other folds as counts would make 9 of these 20 corrections of pure noise look recommended."""
    taken = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
        taken += TiltCorrector(LogisticRegression(), goal="balanced-accuracy").fit(X, y).correction_.recommended
    assert taken <= 4


@pytest.mark.parametrize("labels", [2, 3])
def test_classifiers_without_probabilities_become_calibrated(labels):
    X, y = make_classification(2000, n_informative=4, n_classes=labels, random_state=3)
    model = TiltCorrector(LinearSVC(class_weight="balanced"), cv=3).fit(X[:1000], y[:1000])
    p = model.predict_proba(X[1000:])
    assert model.response_method_ == "decision_function"
    confidence, right = p.max(axis=1), model.predict(X[1000:]) == y[1000:]
    assert abs(confidence.mean() - right.mean()) < 0.05
    assert model.decision_function(X).shape == ((2000,) if labels == 2 else (2000, 3))
    np.testing.assert_array_equal(model.predict(X), p_decision(model, X))


def p_decision(model, X):
    d = model.decision_function(X)
    return model.classes_[(d > 0).astype(int) if d.ndim == 1 else d.argmax(axis=1)]


@pytest.mark.parametrize(
    "inner",
    [Perceptron(), RidgeClassifier(), RandomForestClassifier(10, random_state=0), DecisionTreeClassifier(), SVC()],
    ids=lambda e: type(e).__name__,
)
def test_any_classifier(inner, data):
    X, y, new, truth = data
    model = TiltCorrector(inner, cv=3).fit(X[:800], y[:800])
    p = model.predict_proba(new)
    assert np.isfinite(np.log(p)).all(), "a forest's 0 is small, not impossible"
    assert model.score(new, truth) > inner.fit(X[:800], y[:800]).score(new, truth) - 0.03
    np.testing.assert_array_equal(model.predict(new), p_decision(model, new))


def test_zeros_of_a_forest_are_small_probabilities():
    raw = np.array([[0.0, 0.02, 0.98], [np.nan, 0.5, 0.5]])
    assert smallest_probability(raw) == 0.01
    np.testing.assert_allclose(
        as_logits(raw, 0.01), [[np.log(0.01), np.log(0.02), np.log(0.98)], [-np.inf, np.log(0.5), np.log(0.5)]]
    )


def test_a_decision_function_of_two_columns_per_pair_is_refused():
    X, y = long_tail(300, 4)
    with pytest.raises(InputError, match="one column per class"):
        TiltCorrector(SVC(decision_function_shape="ovo"), cv=3).fit(X, y)


def test_a_class_that_a_fold_has_not_seen_is_impossible_there():
    X, y = long_tail(200, 3)
    fold = LogisticRegression().fit(X[y != "c1"], y[y != "c1"])
    raw = response(fold, X, "predict_proba", np.unique(y))
    assert np.isnan(raw[:, 1]).all()
    np.testing.assert_array_equal(raw[:, [0, 2]], fold.predict_proba(X))
    with pytest.raises(InputError, match="not among the labels"):
        response(fold, X, "predict_proba", np.array(["c0", "c9"]))


def test_rows_of_lonely_classes_stay_in_every_training_part():
    y = np.array([0] * 30 + [1] * 20 + [2, 3])
    splits = make_splits(5, np.zeros((52, 1)), y, y, {})
    assert all({50, 51} <= set(train) and not {50, 51} & set(test) for train, test in splits)
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(50))
    X = np.random.default_rng(0).normal(size=(52, 2)) + y[:, None]
    assert TiltCorrector(LogisticRegression()).fit(X, y).correction_.classes == 4


def test_splits_that_test_rows_twice_are_refused(data):
    X, y = data[:2]
    with pytest.raises(InputError, match="more than once"):
        TiltCorrector(LogisticRegression(), cv=ShuffleSplit(3, random_state=0)).fit(X, y)
    held_out = TiltCorrector(LogisticRegression(), cv=ShuffleSplit(1, test_size=0.4, random_state=0)).fit(X, y)
    assert held_out.correction_.rows == 800


@pytest.mark.parametrize("frozen", [True, False])
def test_prefit(data, frozen):
    X, y, new, truth = data
    inner = weighted().fit(X, y)
    model = TiltCorrector(FrozenEstimator(inner)) if frozen else TiltCorrector(inner, cv="prefit")
    model.set_params(train_counts=dict(zip(*np.unique(y, return_counts=True), strict=True)))
    model.fit(new, truth)
    codes = np.searchsorted(inner.classes_, truth)
    counts = np.unique(y, return_counts=True)[1]
    fix = fit_correction(np.log(inner.predict_proba(new)), codes, train_counts=counts)
    np.testing.assert_array_equal(model.correction_.offset, fix.offset)
    assert model.n_features_in_ == 4
    with pytest.raises(InputError, match="not among the 6 classes"):
        model.fit(new, np.where(truth == "c0", "other", truth))


def test_prefit_needs_a_fitted_estimator(data):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        TiltCorrector(LogisticRegression(), cv="prefit").fit(*data[:2])
    with pytest.raises(NotFittedError):
        TiltCorrector(LogisticRegression()).predict(data[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"goal": "fame"}, "expected a goal among"),
        ({"when": "never"}, "when must be"),
        ({"cv": "fit"}, "cv must be"),
        ({"train_counts": [1, 2]}, "belong to cv='prefit'"),
        ({"response_method": "predict"}, "response_method must be"),
        ({"goal": "prior"}, "needs prior"),
        ({"at_least": {"accuracy": 0.5}}, "another metric"),
    ],
)
def test_bad_options(data, options, sentence):
    with pytest.raises(InputError, match=sentence):
        TiltCorrector(LogisticRegression(), **options).fit(*data[:2])


def test_a_transformer_has_no_scores(data):
    with pytest.raises(InputError, match="has none"):
        TiltCorrector(StandardScaler()).fit(*data[:2])


def test_pipelines_both_ways_and_grid_search_over_goals(data):
    X, y, new, truth = data
    inside = TiltCorrector(make_pipeline(StandardScaler(), LogisticRegression()), cv=3)
    around = make_pipeline(StandardScaler(), TiltCorrector(LogisticRegression(), cv=3, when="always"))
    goals = ["accuracy", "balanced-accuracy", "counts"]
    for search in (
        GridSearchCV(inside.set_params(when="always"), {"goal": goals}, scoring=scorers()["balanced-accuracy"], cv=2),
        GridSearchCV(around, {"tiltcorrector__goal": goals}, scoring=scorers(), refit="balanced-accuracy", cv=2),
    ):
        search.fit(X, y)
        assert "balanced-accuracy" in search.best_params_.values()
        assert set(search.predict(new)) <= set(y)
    assert inside.fit(X, y).score(new, truth) > 0.5


def test_fit_parameters_reach_the_classifier_cut_to_the_fold(data):
    X, y = data[:2]
    w = np.where(y == "c0", 1.0, 10.0)
    model = TiltCorrector(LogisticRegression(), cv=3).fit(X, y, sample_weight=w)
    np.testing.assert_allclose(model.estimator_.coef_, LogisticRegression().fit(X, y, w).coef_)
    # The weights tilt the classifier, and the correction, which counts every row once, undoes it.
    assert model.correction_.recommended
    assert model.score(X, y) > model.estimator_.score(X, y)
    with pytest.raises(InputError, match="trains nothing"):
        TiltCorrector(model.estimator_, cv="prefit").fit(X, y, sample_weight=w)


def test_metadata_is_routed(data):
    X, y = data[:2]
    w, groups = np.where(y == "c0", 1.0, 10.0), np.arange(len(y)) % 7
    with sklearn.config_context(enable_metadata_routing=True):
        asking = LogisticRegression().set_fit_request(sample_weight=True)
        model = TiltCorrector(asking, cv=GroupKFold(3)).fit(X, y, sample_weight=w, groups=groups)
        np.testing.assert_allclose(model.estimator_.coef_, LogisticRegression().fit(X, y, w).coef_)
        splits = GroupKFold(3).split(X, y, groups)
        same = TiltCorrector(asking, cv=list(splits)).fit(X, y, sample_weight=w)
        np.testing.assert_array_equal(model.correction_.offset, same.correction_.offset)
        # Through the tools above as well: a grid search hands the weights down.
        model_of = TiltCorrector(asking, cv=3).set_score_request(sample_weight=False)
        search = GridSearchCV(model_of, {"goal": ["accuracy"]}, cv=2).fit(X, y, sample_weight=w)
        np.testing.assert_allclose(search.best_estimator_.estimator_.coef_, model.estimator_.coef_)
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError):
            TiltCorrector(LogisticRegression(), cv=3).fit(X, y, sample_weight=w)
        ignoring = LogisticRegression().set_fit_request(sample_weight=False)
        with pytest.raises(TypeError):
            TiltCorrector(ignoring, cv=3).fit(X, y, sample_weight=w)


def test_few_rows_leave_the_classifier_as_it_is():
    X, y = long_tail(15, 2)
    with pytest.warns(UserWarning, match="used as it is"):
        model = TiltCorrector(LogisticRegression(), cv=2).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), model.estimator_.predict(X))
    np.testing.assert_allclose(model.predict_proba(X), model.estimator_.predict_proba(X), rtol=1e-6)
    assert not model.correction_.recommended


def test_it_can_be_copied_saved_and_put_to_work_elsewhere(data, tmp_path):
    X, y, new, _ = data
    model = TiltCorrector(weighted(), cv=KFold(3)).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(new), model.predict(new))
    model.applied_.save(tmp_path / "fix.json")
    loaded = Correction.load(tmp_path / "fix.json", class_names=model.classes_)
    z = model.estimator_.decision_function(new)
    np.testing.assert_array_equal(model.classes_[loaded.predict(z)], model.predict(new))
    with pytest.raises(InputError, match="another order"):
        Correction.load(tmp_path / "fix.json", class_names=model.classes_[::-1])


def test_jobs_change_nothing(data):
    X, y = data[:2]
    models = [TiltCorrector(weighted(), cv=StratifiedKFold(3), n_jobs=n).fit(X, y) for n in (None, 2)]
    np.testing.assert_array_equal(models[0].correction_.offset, models[1].correction_.offset)


def test_scorers_of_every_goal(data):
    X, y, new, truth = data
    labels = np.unique(y).tolist()
    costs = dict.fromkeys(labels, 2.0)
    found = scorers(labels=labels, costs=costs, prior=dict.fromkeys(labels, 1.0))
    assert list(found) == list(GOALS)
    model = LogisticRegression().fit(X, y)
    decided = model.predict(new)
    codes = [np.searchsorted(labels, v) for v in (truth, decided)]
    for name, scorer in found.items():
        extra = {"cost": {"costs": [2.0] * 6}, "prior": {"prior": [1.0] * 6}}.get(name, {})
        expected = GOALS[name].metric.sign * score(name, *codes, classes=6, **extra)
        assert scorer(model, new, truth) == expected
    assert found["prior"](model, new, truth) == pytest.approx(found["balanced-accuracy"](model, new, truth))
    assert found["cost"](model, new, truth) == pytest.approx(2 * (model.score(new, truth) - 1))
    results = cross_validate(model, X, y, scoring=scorers(), cv=2)
    assert {f"test_{n}" for n in scorers()} <= set(results)
    with pytest.raises(InputError, match="needs labels"):
        scorers(costs=[1.0, 2.0])


@pytest.mark.parametrize("package", ["xgboost", "lightgbm"])
def test_boosting(package, data):
    booster = pytest.importorskip(package)
    X, y, new, truth = data
    kind = booster.XGBClassifier if package == "xgboost" else booster.LGBMClassifier
    quiet = {"verbosity": 0 if package == "xgboost" else -1, "n_estimators": 20, "n_jobs": 1}
    labels, codes = np.unique(y, return_inverse=True)
    w = (len(y) / np.bincount(codes))[codes]
    w *= len(w) / w.sum()
    target = codes if package == "xgboost" else y
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        model = TiltCorrector(kind(**quiet), cv=3).fit(X, target, sample_weight=w)
        decided = model.predict(new)
        tilted = model.estimator_.predict(new)
    truth = np.searchsorted(labels, truth) if package == "xgboost" else truth
    assert model.correction_.recommended
    assert (decided == truth).mean() > (tilted == truth).mean()


def test_skorch(data):
    skorch = pytest.importorskip("skorch")
    torch = pytest.importorskip("torch")
    X, y, new, truth = data
    labels, codes = np.unique(y, return_inverse=True)
    X, new, truth = X.astype(np.float32), new.astype(np.float32), np.searchsorted(labels, truth)
    weight = torch.tensor(len(y) / (6 * np.bincount(codes)), dtype=torch.float32)
    torch.manual_seed(0)
    net = skorch.NeuralNetClassifier(
        torch.nn.Linear, module__in_features=4, module__out_features=6, criterion=torch.nn.CrossEntropyLoss,
        criterion__weight=weight, lr=0.5, max_epochs=15, verbose=0, train_split=None,
    )  # fmt: skip
    model = TiltCorrector(net, cv=3).fit(X, codes)
    assert model.correction_.recommended
    assert model.score(new, truth) > (model.estimator_.predict(new) == truth).mean() + 0.02
