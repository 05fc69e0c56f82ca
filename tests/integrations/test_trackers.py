"""The recipes for MLflow and Weights & Biases, into folders and without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand import Audit, audit
from evenhand.output import write_text_atomically

pytestmark = [pytest.mark.filterwarnings("ignore")]  # of the trackers, which warn about their own stores and processes


@pytest.fixture(scope="module")
def found() -> Audit:
    rng = np.random.default_rng(0)
    y = rng.choice(3, size=400, p=[0.7, 0.2, 0.1])
    z = rng.normal(size=(400, 3))
    z[np.arange(400), y] += 2
    return audit(logits=z, target=y)


def test_scalars_are_flat_floats_under_one_prefix(found: Audit) -> None:
    flat = found.scalars()
    assert all(type(value) is float and np.isfinite(value) for value in flat.values())
    assert all(name.startswith("evenhand/") for name in flat)
    assert {"accuracy", "balanced_accuracy", "macro_f1", "count_distance", "slope", "tau", "tau_low"} <= {
        name.removeprefix("evenhand/") for name in flat
    }
    assert found.scalars("val_")["val_tau"] == flat["evenhand/tau"]


def test_mlflow(found: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow-skinny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        mlflow.log_metrics(found.scalars())
        mlflow.log_text(found.html(), "audit.html")
        mlflow.log_dict(found.to_dict(), "audit.json")
    kept = mlflow.get_run(run.info.run_id)
    assert kept.data.metrics == pytest.approx(found.scalars())
    folder = next((tmp_path / "runs").rglob("audit.html")).parent
    assert (folder / "audit.html").read_text(encoding="utf-8") == found.html()
    assert json.loads((folder / "audit.json").read_text(encoding="utf-8"))["schema"] == "evenhand.audit/1"


def test_wandb_offline(found: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    write_text_atomically(tmp_path / "audit.html", found.html())
    with wandb.init(project="evenhand", mode="offline", dir=tmp_path) as run:
        run.log(found.scalars() | {"audit": wandb.Html(str(tmp_path / "audit.html"))})
        assert dict(run.summary)["evenhand/tau"] == pytest.approx(found.scalars()["evenhand/tau"])
    kept = list(tmp_path.rglob("*.html"))
    assert len(kept) >= 2, "the report is among the files of the run"
    assert list(tmp_path.rglob("*.wandb"))
