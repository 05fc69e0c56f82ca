"""Remedies as code to copy, per framework. Plain strings: the reports escape them."""

from __future__ import annotations


def offset_snippets(tau: float) -> dict[str, str]:
    """Undo a measured tilt: add ``tau * log prior`` to the logits, or to the last bias."""
    t = f"{tau:.3f}"
    head = (
        "import numpy as np\n\n# train_counts: rows per class in training; half a row more keeps absent classes finite\n"
        "prior = (train_counts + 0.5) / (train_counts + 0.5).sum()\n"
    )
    return {
        "pytorch": "import torch\n"
        + head
        + f"with torch.no_grad():  # model.head is the last nn.Linear\n    model.head.bias += {t} * torch.as_tensor("
        "np.log(prior), dtype=model.head.bias.dtype, device=model.head.bias.device)",
        "keras": head + f"kernel, bias = model.layers[-1].get_weights()  # last Dense layer, before the softmax\n"
        f"model.layers[-1].set_weights([kernel, bias + {t} * np.log(prior)])",
        "huggingface": head
        + "head = model.classifier  # an nn.Linear; model.classifier.out_proj in RoBERTa-like models\n"
        f"with torch.no_grad():\n    head.bias += {t} * torch.as_tensor(np.log(prior), dtype=head.bias.dtype)",
        "lightning": head + f"with torch.no_grad():  # module.head is the last nn.Linear of the LightningModule\n"
        f"    module.head.bias += {t} * torch.as_tensor(np.log(prior), dtype=module.head.bias.dtype)\n"
        'trainer.save_checkpoint("corrected.ckpt")',
        "scikit-learn": head
        + f"log_p = np.log(model.predict_proba(X)) + {t} * np.log(prior)\npredicted = model.classes_[log_p.argmax(axis=1)]",
    }


def weight_snippets() -> dict[str, str]:
    """Weights that belong to the right classes."""
    make = (
        "from evenhand import class_counts, class_weights\n\ncounts = class_counts(train_labels, classes=K)  # by index\n"
        'weights = class_weights(counts, "sqrt")  # or "balanced", if every class matters the same\n'
    )
    return {
        "pytorch": make + "loss = nn.CrossEntropyLoss(weight=torch.as_tensor(weights, dtype=torch.float32))",
        "keras": make + "model.fit(X, y, class_weight=dict(enumerate(weights)))",
        "huggingface": make + "loss = nn.CrossEntropyLoss(weight=torch.as_tensor(weights, dtype=torch.float32))\n"
        "trainer = Trainer(..., compute_loss_func=lambda out, labels, num_items_in_batch=None: "
        "loss(out.logits, labels))",
        "lightning": make
        + "self.loss = nn.CrossEntropyLoss(weight=torch.as_tensor(weights, dtype=torch.float32))  # in __init__",
        "scikit-learn": make + "model = LogisticRegression(class_weight=dict(enumerate(weights)))",
    }


def logits_snippets() -> dict[str, str]:
    """Pass raw logits to the loss."""
    return {
        "pytorch": "logits = self.head(features)       # nn.Linear, no activation after it\n"
        "loss = F.cross_entropy(logits, target)  # applies log_softmax itself",
        "keras": "x = keras.layers.Dense(K)(x)  # no activation\nmodel.compile(loss=keras.losses.SparseCategoricalCrossentropy("
        "from_logits=True))",
        "huggingface": "logits = self.classifier(pooled)  # return these as logits; no softmax in forward()",
        "lightning": "def training_step(self, batch, _):\n    x, y = batch\n"
        "    return F.cross_entropy(self.head(self.body(x)), y)  # raw logits",
        "scikit-learn": "# audit decision_function or log(predict_proba), not a second softmax of probabilities\n"
        "log_p = np.log(model.predict_proba(X))",
    }


def softmax_axis_snippets() -> dict[str, str]:
    """Softmax over classes, not over rows."""
    return {
        "pytorch": "probs = logits.softmax(dim=-1)  # over classes; dim=0 is the batch",
        "keras": "probs = keras.ops.softmax(logits, axis=-1)",
        "huggingface": "probs = outputs.logits.softmax(dim=-1)",
        "lightning": "probs = self(x).softmax(dim=-1)",
        "scikit-learn": "probs = scipy.special.softmax(scores, axis=1)",
    }


def prior_snippets() -> dict[str, str]:
    """Move a model from the training prior to another."""
    head = "import numpy as np\n\n# both (K,), summing to one\nshift = np.log(new_prior) - np.log(train_prior)\n"
    return {
        "pytorch": head + "predicted = (logits + torch.as_tensor(shift, dtype=logits.dtype)).argmax(dim=-1)",
        "keras": head + "predicted = (model.predict(X) + shift).argmax(axis=-1)  # logits",
        "huggingface": head + "predicted = (output.predictions + shift).argmax(axis=-1)",
        "lightning": head + "predicted = (logits + torch.as_tensor(shift, dtype=logits.dtype)).argmax(dim=-1)",
        "scikit-learn": head + "predicted = (np.log(model.predict_proba(X)) + shift).argmax(axis=1)",
    }


def ignore_snippets(index: int) -> dict[str, str]:
    """Leave padding out of loss, weights and evaluation."""
    return {
        "pytorch": f"loss = nn.CrossEntropyLoss(ignore_index={index}, weight=weights)  # weights counted without padding\n"
        f"keep = target != {index}\nlogits, target = logits[keep], target[keep]  # before saving predictions",
        "keras": f"model.fit(X, y, sample_weight=(y != {index}).astype('float32'))",
        "huggingface": f"labels[labels == {index}] = -100  # ignored by the loss",
        "lightning": f"self.loss = nn.CrossEntropyLoss(ignore_index={index})",
        "scikit-learn": f"keep = y != {index}\nmodel.fit(X[keep], y[keep])",
    }


def label_order_snippets() -> dict[str, str]:
    """One mapping from names to indices, saved with the model."""
    make = "classes = sorted(set(train_names))  # once; save it with the model\nindex = {name: i for i, name in enumerate(classes)}\n"
    use = make + "target = np.array([index[name] for name in eval_names])"
    return dict.fromkeys(("pytorch", "keras", "huggingface", "lightning", "scikit-learn"), use)


def order_of_rows_snippets() -> dict[str, str]:
    """Save labels and predictions from the same loop."""
    loop = (
        "logits, target = [], []\nfor x, y in loader:      # one loop for both; never a second, reshuffled pass\n"
        "    logits.append(model(x)); target.append(y)"
    )
    return {
        "pytorch": loop,
        "keras": "for x, y in dataset:\n    logits.append(model(x)); target.append(y)",
        "huggingface": "output = trainer.predict(dataset)\nlogits, target = output.predictions, output.label_ids",
        "lightning": "def predict_step(self, batch, _):\n    x, y = batch\n    return self(x), y  # keep them together",
        "scikit-learn": "X_test, y_test = X[test], y[test]  # the same index array for both\nproba = model.predict_proba(X_test)",
    }
