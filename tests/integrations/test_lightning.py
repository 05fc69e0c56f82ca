"""The callback inside real Lightning trainers, on one process and on two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed: pip install 'evenhand[lightning]'")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from evenhand import InputError, audit  # noqa: E402
from evenhand.integrations.lightning import AuditCallback  # noqa: E402
from evenhand.integrations.metrics import AuditMetric  # noqa: E402

CLASSES, FEATURES = 5, 8
pytestmark = [
    # advice of Lightning about workers and loggers, and what torch deprecates in Lightning's own code
    pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*:lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]


def data(rows: int = 400, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor([50.0, 25, 15, 7, 3]), rows, replacement=True, generator=generator)
    x = torch.randn(rows, FEATURES, generator=generator)
    x[torch.arange(rows), y] += 1.5
    return TensorDataset(x, y)


class Classifier(pl.LightningModule):
    returned = "both"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(FEATURES, CLASSES)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int, dataloader_idx: int = 0) -> Any:
        logits, target = self.net(batch[0]), batch[1]
        return {
            "both": {"logits": logits, "target": target},
            "logits": {"logits": logits},
            "loss": {"loss": logits.sum()},
        }[self.returned]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callback: AuditCallback, folder: Path, **more: Any) -> Any:
    options: dict[str, Any] = {"max_epochs": 3, "logger": CSVLogger(folder), "num_sanity_val_steps": 1}
    options |= {"callbacks": [callback], "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, log_every_n_steps=1, **(options | more))


def test_the_audit_is_logged_and_its_report_written(tmp_path: Path) -> None:
    report = tmp_path / "new" / "audit-{epoch}.html"
    callback = AuditCallback(train_counts=[500, 250, 150, 70, 30], every=2, html=report)
    module, valid = Classifier(), data(seed=1)
    running = trainer(callback, tmp_path)
    running.fit(module, DataLoader(data(), batch_size=32), DataLoader(valid, batch_size=50))
    with torch.no_grad():
        logits = module.net(valid.tensors[0])
    whole = audit(logits=logits, target=valid.tensors[1], train_counts=[500, 250, 150, 70, 30])
    logged = {name: float(value) for name, value in running.logged_metrics.items() if name.startswith("evenhand/")}
    assert logged == pytest.approx(whole.scalars(), rel=1e-5)
    assert callback.audit().verdict.cause == whole.verdict.cause
    assert sorted(p.name for p in report.parent.iterdir()) == ["audit-0.html", "audit-2.html"]
    assert "evenhand" in (report.parent / "audit-2.html").read_text(encoding="utf-8")
    lines = Path(running.logger.log_dir, "metrics.csv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split(",").index("evenhand/tau")
    assert sum(bool(line.split(",")[column]) for line in lines[1:]) == 2, "every second of three validations"


class WithMetric(Classifier):
    """The metric as an attribute, without a callback."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = AuditMetric(CLASSES)

    def validation_step(self, batch: Any, _: int) -> None:
        self.metric.update(self.net(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metric.compute())
        self.metric.reset()


def test_the_metric_alone_in_a_module(tmp_path: Path) -> None:
    module, valid = WithMetric(), data(seed=1)
    found = trainer(AuditCallback(), tmp_path, callbacks=[]).validate(
        module, DataLoader(valid, batch_size=64), verbose=False
    )
    with torch.no_grad():
        whole = audit(logits=module.net(valid.tensors[0]), target=valid.tensors[1])
    assert found[0] == pytest.approx(whole.scalars(""), rel=1e-5)
    assert set(module.state_dict()) == {"net.weight", "net.bias"}


@pytest.mark.parametrize("every", [1, 2])
def test_other_callbacks_can_watch_it(tmp_path: Path, every: int) -> None:
    best = pl.callbacks.ModelCheckpoint(tmp_path, monitor="evenhand/balanced_accuracy", mode="max")
    callback = AuditCallback(every=every)
    options = {"callbacks": [callback, best], "enable_checkpointing": True, "max_epochs": 2, "logger": False}
    trainer(callback, tmp_path, **options).fit(
        Classifier(), DataLoader(data(), batch_size=32), DataLoader(data(), batch_size=50)
    )
    assert 0.2 < float(best.best_model_score) <= 1


def test_several_loaders_and_targets_from_the_batch(tmp_path: Path) -> None:
    callback = AuditCallback(html=tmp_path / "audit.html")
    module = Classifier()
    module.returned = "logits"
    loaders = [DataLoader(data(rows), batch_size=40) for rows in (80, 120)]
    found = trainer(callback, tmp_path).validate(module, loaders, verbose=False)
    names = {name for part in found for name in part}
    assert {"evenhand/accuracy/0", "evenhand/accuracy/1"} <= names
    assert [callback.tallies[i].rows for i in (0, 1)] == [80, 120]
    assert {p.name for p in tmp_path.glob("*.html")} == {"audit-0.html", "audit-1.html"}


def test_outputs_without_logits_are_told_before_the_first_epoch(tmp_path: Path) -> None:
    module = Classifier()
    module.returned = "loss"
    with pytest.raises(InputError, match=r"return a mapping with 'logits', got a mapping with 'loss'; end it with"):
        trainer(AuditCallback(), tmp_path).fit(module, DataLoader(data()), DataLoader(data(), batch_size=50))
    with pytest.raises(InputError, match="got Tensor; end it"):
        AuditCallback()._logits(torch.zeros(3))
    with pytest.raises(InputError, match="no batch of two parts"):
        AuditCallback()._target({"logits": 0}, torch.zeros(3))
    assert AuditCallback()._target({"logits": 0}, {"labels": 7}) == 7
    with pytest.raises(InputError, match="none yet"):
        AuditCallback().audit()
    with pytest.raises(InputError, match="every"):
        AuditCallback(every=0)


def test_a_report_that_cannot_be_written_ends_no_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    callback = AuditCallback(html=tmp_path / "file" / "audit.html")
    with pytest.warns(UserWarning, match="was not written"):
        trainer(callback, tmp_path).validate(Classifier(), DataLoader(data(), batch_size=50), verbose=False)
    assert callback.tallies[0].rows == 400


TWO = """
import json, sys, runpy
from pathlib import Path
import torch
from torch.utils.data import DataLoader
given = runpy.run_path(sys.argv[1])
folder = Path(sys.argv[2])
callback = given["AuditCallback"](train_counts=[500, 250, 150, 70, 30], html=folder / "audit.html")
running = given["trainer"](callback, folder, devices=2, strategy="ddp", max_epochs=1)
module = given["Classifier"]()
running.validate(module, DataLoader(given["data"](seed=1), batch_size=50), verbose=False)
found = {n: float(v) for n, v in running.logged_metrics.items()}
(folder / f"{running.global_rank}.json").write_text(json.dumps([found, callback.tallies[0].rows]))
"""


@pytest.mark.slow
def test_two_processes_log_the_audit_of_all_rows(tmp_path: Path) -> None:
    """``pytest -m slow tests/integrations/test_lightning.py``: Lightning starts a second process by itself (ddp)."""
    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), __file__, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    valid = data(seed=1)
    with torch.no_grad():
        whole = audit(
            logits=Classifier().net(valid.tensors[0]), target=valid.tensors[1], train_counts=[500, 250, 150, 70, 30]
        )
    for rank in (0, 1):
        found, rows = json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8"))
        assert rows == 400
        assert found == pytest.approx(whole.scalars(), rel=1e-5)
    assert "evenhand" in (tmp_path / "audit.html").read_text(encoding="utf-8")
