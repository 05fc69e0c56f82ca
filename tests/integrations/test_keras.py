"""Keras 3 on the torch backend: the loss, the callback, a correction in the last layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install 'evenhand[keras]'")

from evenhand import InputError, audit, class_counts, fit_correction, losses  # noqa: E402
from evenhand.integrations.heads import fold_into_dense  # noqa: E402
from evenhand.integrations.keras import AuditCallback, EvenhandLoss  # noqa: E402

K, FEATURES = 4, 6
COUNTS = [300, 120, 60, 20]
pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "torch", reason="Keras runs on another backend: KERAS_BACKEND=torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),
]


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(K), COUNTS))
    x = rng.normal(size=(len(y), FEATURES)).astype(np.float32)
    x[np.arange(len(y)), y] += 1.5
    return x, y


def network(activation: str | None = None, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(K, activation=activation, **options)])


def one_step(loss: Any, x: Any, y: Any, **fit: Any) -> Any:
    model = network()
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss)
    model.fit(x, y, batch_size=len(y), epochs=1, verbose=0, shuffle=False, **fit)
    return model.get_weights()


def by_hand(criterion: Any, x: Any, y: Any, sample_weight: Any = None) -> Any:
    kernel, bias = (torch.tensor(w, requires_grad=True) for w in network().get_weights())
    weight = None if sample_weight is None else torch.tensor(sample_weight)
    criterion(torch.from_numpy(x) @ kernel + bias, torch.tensor(y), weight).backward()
    return [(p - 0.5 * p.grad).detach().numpy() for p in (kernel, bias)]


@pytest.mark.parametrize(
    ("name", "options"), [("weighted", {}), ("logit-adjusted", {"tau": 1.5}), ("focal", {"gamma": 1.0})]
)
def test_a_step_is_that_of_the_loss(name: str, options: dict[str, Any]) -> None:
    x, y = data()
    criterion = losses.build(name, COUNTS, **options)
    ours = one_step(EvenhandLoss(name, COUNTS, **options), x, y)
    for a, b in zip(ours, by_hand(criterion, x, y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    u = np.linspace(0.1, 2, len(y)).astype(np.float32)
    for a, b in zip(
        one_step(EvenhandLoss(name, COUNTS, **options), x, y, sample_weight=u), by_hand(criterion, x, y, u), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_columns_and_one_hot_targets_mean_the_same() -> None:
    x, y = data()
    loss = EvenhandLoss("weighted", COUNTS)
    logits = network()(x).detach()
    same = [float(loss(target, logits)) for target in (y, y[:, None], np.eye(K)[y])]
    assert same == pytest.approx([same[0]] * 3, rel=1e-6)
    assert float(loss.call(y, logits)) == same[0]


def test_counts_of_every_kind_give_the_same_loss() -> None:
    x, y = data()
    logits = network()(x).detach()
    kinds = [COUNTS, np.array(COUNTS), torch.tensor(COUNTS), class_counts(y), {str(c): n for c, n in enumerate(COUNTS)}]
    found = [float(EvenhandLoss("logit-adjusted", counts)(y, logits)) for counts in kinds]
    assert found == pytest.approx([found[0]] * len(kinds), rel=1e-6)


def test_the_loss_is_saved_with_the_model(tmp_path: Path) -> None:
    x, y = data()
    model = network()
    model.compile(loss=EvenhandLoss("logit-adjusted", COUNTS, tau=0.5))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.options == {"tau": 0.5}
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("from_logits", [True, False])
def test_the_audit_is_in_the_history_and_the_report_on_the_disk(tmp_path: Path, from_logits: bool) -> None:
    x, y = data()
    model = network(None if from_logits else "softmax")
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits))
    callback = AuditCallback(
        (x, y), from_logits=from_logits, batch_size=64, every=2, html=tmp_path / "{epoch}.html", train_counts=COUNTS
    )
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[callback]).history
    scores = model.predict(x, verbose=0)
    whole = audit(**{"logits" if from_logits else "probs": scores}, target=y, train_counts=COUNTS)
    last = {name: values[-1] for name, values in history.items() if name.startswith("evenhand/")}
    assert last == pytest.approx(whole.scalars(), rel=1e-4)
    assert len(history["evenhand/accuracy"]) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"0.html", "2.html"}


def test_batches_from_a_loader_and_a_later_callback(tmp_path: Path) -> None:
    x, y = data()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=90
    )
    model = network()
    model.compile(
        optimizer=keras.optimizers.SGD(0.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    stop = keras.callbacks.EarlyStopping("evenhand/balanced_accuracy", patience=1, mode="max")
    history = model.fit(x, y, epochs=9, verbose=0, callbacks=[AuditCallback(loader, from_logits=True), stop]).history
    assert len(history["evenhand/balanced_accuracy"]) == 2
    with pytest.raises(InputError, match="got none"):
        AuditCallback(loader, from_logits=True).audit()


def test_a_correction_in_the_last_layer() -> None:
    x, y = data()
    model = network()
    model.compile(
        optimizer=keras.optimizers.Adam(0.05), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, epochs=5, verbose=0, class_weight={c: 500 / (4 * n) for c, n in enumerate(COUNTS)})
    logits = model.predict(x, verbose=0)
    fix = fit_correction(logits, y, goal="accuracy", train_counts=COUNTS)
    fold_into_dense(fix, model.layers[-1])
    np.testing.assert_array_equal(model.predict(x, verbose=0).argmax(1), fix.predict(logits))
    assert (model.predict(x, verbose=0).argmax(1) == y).mean() > (logits.argmax(1) == y).mean()
    with pytest.raises(InputError, match="use_bias"):
        fold_into_dense(fix, network(use_bias=False).layers[-1])
