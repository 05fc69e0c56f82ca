"""Keras 3 on torch: a loss of evenhand, an audit after every epoch, the correction inside the last layer.

KERAS_BACKEND=torch python examples/audit_keras.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from tiny_data import CLASSES, FEATURES, counts, long_tailed

from evenhand import fit_correction
from evenhand.integrations.heads import fold_into_dense
from evenhand.integrations.keras import AuditCallback, EvenhandLoss


def main() -> None:
    keras.utils.set_random_seed(0)
    (x, y), (valid_x, valid_y), (test_x, test_y) = (long_tailed(3000, seed) for seed in range(3))
    n = counts(y)
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])  # logits: no activation
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=EvenhandLoss("weighted", n))
    audits = AuditCallback((valid_x, valid_y), from_logits=True, train_counts=n, class_weight="balanced")
    history = model.fit(x, y, batch_size=128, epochs=5, verbose=0, callbacks=[audits]).history
    for epoch, tau in enumerate(history["evenhand/tau"]):
        print(f"epoch {epoch}: accuracy {history['evenhand/accuracy'][epoch]:.3f}, tau {tau:.2f}")
    print(f"\n{audits.audit().verdict.sentence}\n")

    def accuracy() -> float:
        return float((model.predict(test_x, verbose=0).argmax(1) == test_y).mean())

    before = accuracy()
    fix = fit_correction(model.predict(valid_x, verbose=0), valid_y, goal="accuracy", train_counts=n)
    fold_into_dense(fix, model.layers[-1])  # the model itself now decides as corrected: save it as always
    print(f"accuracy on new rows {before:.3f}, corrected {accuracy():.3f}")


if __name__ == "__main__":
    main()
