"""skorch: a loss of this package as criterion, and a corrector around the net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'evenhand[sklearn]'")
skorch = pytest.importorskip("skorch", reason="skorch is not installed: pip install 'evenhand[skorch]'")

from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from torch import nn  # noqa: E402

from evenhand import audit, class_weights  # noqa: E402
from evenhand.integrations.sklearn import TiltCorrector  # noqa: E402
from evenhand.losses import LogitAdjustedLoss, SoftmaxLoss  # noqa: E402

COUNTS, FEATURES = np.array([500, 200, 70, 30]), 6


def data(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(4), COUNTS))
    x = rng.normal(size=(len(y), FEATURES)).astype(np.float32)
    x[np.arange(len(y)), y] += 1.5
    return x, y


def net(criterion: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return skorch.NeuralNetClassifier(
        nn.Linear, module__in_features=FEATURES, module__out_features=4, criterion=criterion, train_split=None,
        optimizer=torch.optim.Adam, lr=0.05, max_epochs=8, verbose=0, **options,
    )  # fmt: skip


def test_class_weights_and_probabilities() -> None:
    x, y = data()
    weight = torch.tensor(class_weights(COUNTS, "balanced"), dtype=torch.float32)
    ours = net(SoftmaxLoss, criterion__weight=weight).fit(x, y)
    theirs = net(nn.CrossEntropyLoss, criterion__weight=weight).fit(x, y)
    p = ours.predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)  # skorch applies a softmax for a CrossEntropyLoss only
    np.testing.assert_allclose(p, theirs.predict_proba(x), rtol=1e-3, atol=1e-5)
    assert audit(probs=p, target=y, train_counts=COUNTS, class_weight=weight).verdict.cause == "class-weights"


def test_options_are_parameters_of_the_net() -> None:
    x, y = data()
    model = net(LogitAdjustedLoss, criterion__counts=COUNTS, criterion__tau=1.0)
    assert clone(model).get_params()["criterion__tau"] == 1.0
    search = GridSearchCV(model, {"criterion__tau": [0.0, 1.0]}, scoring="balanced_accuracy", cv=2).fit(x, y)
    assert search.best_params_ == {"criterion__tau": 1.0}
    plain, adjusted = search.cv_results_["mean_test_score"]
    assert adjusted > plain + 0.02


def test_a_corrector_around_the_net() -> None:
    (x, y), (new, true) = data(), data(1)
    weight = torch.tensor(class_weights(COUNTS, "balanced"), dtype=torch.float32)
    weighted = net(SoftmaxLoss, criterion__weight=weight)
    fixed = TiltCorrector(weighted, goal="accuracy", cv=3).fit(x, y)
    assert fixed.correction_.recommended
    assert (fixed.predict(new) == true).mean() > (weighted.fit(x, y).predict(new) == true).mean() + 0.02
