"""skorch: a loss of evenhand as criterion, and decisions for another goal around the same net.

python examples/audit_skorch.py
"""

import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from skorch import NeuralNetClassifier
from tiny_data import CLASSES, FEATURES, counts, long_tailed
from torch import nn

from evenhand import audit
from evenhand.integrations.sklearn import TiltCorrector
from evenhand.losses import SoftmaxLoss


def main() -> None:
    torch.manual_seed(0)
    (x, y), (new, true) = long_tailed(3000, seed=0), long_tailed(3000, seed=1)
    n = counts(y)
    weight = torch.tensor(n.sum() / (CLASSES * n), dtype=torch.float32)
    net = NeuralNetClassifier(
        nn.Linear, module__in_features=FEATURES, module__out_features=CLASSES,
        criterion=SoftmaxLoss, criterion__weight=weight,  # every loss of evenhand is a CrossEntropyLoss for skorch
        optimizer=torch.optim.AdamW, lr=0.02, max_epochs=8, train_split=None, verbose=0,
    )  # fmt: skip
    net.fit(x, y)
    found = audit(probs=net.predict_proba(new), target=true, train_counts=n, class_weight=weight)
    print(f"{found.verdict.sentence}\n")
    fixed = TiltCorrector(net, goal="accuracy", cv=3).fit(x, y)
    for name, model in (("weighted net", net), ("corrected", fixed)):
        answers = model.predict(new)
        print(
            f"{name:14}accuracy {accuracy_score(true, answers):.3f}, "
            f"balanced accuracy {balanced_accuracy_score(true, answers):.3f}"
        )


if __name__ == "__main__":
    main()
