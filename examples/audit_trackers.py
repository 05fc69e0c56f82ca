"""MLflow and Weights & Biases: figures as metrics, the report as an artefact; into local folders, no network.

python examples/audit_trackers.py
"""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tiny_data import CLASSES, PRIOR, long_tailed

from evenhand import Audit, audit


def log_to_mlflow(found: Audit) -> None:
    import mlflow

    with mlflow.start_run():
        mlflow.log_metrics(found.scalars())
        mlflow.log_text(found.html(), "audit.html")
        mlflow.log_dict(found.to_dict(), "audit.json")


def log_to_wandb(found: Audit) -> None:
    import wandb

    with wandb.init(project="evenhand", mode="offline") as run:
        run.log(found.scalars())
        run.log({"audit": wandb.Html(found.html())})


def main() -> None:
    x, y = long_tailed(3000)
    balanced = x * 2.0  # what a classifier with balanced weights would say
    found = audit(logits=balanced, target=y, train_counts=np.rint(1e5 * PRIOR), class_weight=1 / (CLASSES * PRIOR))
    print(repr(found), "\n")
    os.environ.setdefault("MLFLOW_TRACKING_URI", Path("mlruns").absolute().as_uri())
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder instead of a database
    os.environ.setdefault("WANDB_SILENT", "true")
    for name, log in (("mlflow", log_to_mlflow), ("wandb", log_to_wandb)):
        if find_spec(name) is None:
            print(f"{name} is not installed")
            continue
        log(found)
        print(f"{name}: {len(found.scalars())} numbers and the report")


if __name__ == "__main__":
    main()
