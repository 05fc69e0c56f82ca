"""Loss and metrics inside the real Trainer, with a small BERT of random weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'evenhand[transformers]'"
)
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'evenhand[transformers]'")

from torch import nn  # noqa: E402

from evenhand import InputError, audit, losses  # noqa: E402
from evenhand.integrations.transformers import AuditMetrics, trainer_loss  # noqa: E402

COUNTS = [60, 25, 10, 5]
K, LENGTH = len(COUNTS), 6
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers")


def rows(n: int = 90) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    y = torch.multinomial(torch.tensor(COUNTS).double(), n, replacement=True, generator=generator)
    x = torch.randint(5, 30, (n, LENGTH), generator=generator)
    x[:, 0] = y
    return [{"input_ids": a, "attention_mask": torch.ones_like(a), "labels": b} for a, b in zip(x, y, strict=True)]


def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=K, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def trainer(folder: Path, model: Any, data: Any, **given: Any) -> Any:
    options: dict[str, Any] = {
        "per_device_train_batch_size": 10, "per_device_eval_batch_size": 16, "max_steps": 1, "optim": "sgd",
        "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "report_to": [],
        "disable_tqdm": True, "save_strategy": "no", "batch_eval_metrics": True, **given.pop("arguments", {}),
    }  # fmt: skip
    arguments = transformers.TrainingArguments(output_dir=str(folder), use_cpu=True, **options)
    return transformers.Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data, **given)


def stacked(data: list[dict[str, Any]], name: str) -> Any:
    return torch.stack([row[name] for row in data])


@pytest.mark.parametrize("name", ["weighted", "logit-adjusted", "focal"])
def test_the_step_under_accumulation_is_that_of_the_whole_batch(tmp_path: Path, name: str) -> None:
    data, model, twin = rows(), bert(), bert()
    options = {"gamma": 2.0} if name == "focal" else {}
    loss = trainer_loss(name, COUNTS, **options)
    running = loss.attach(
        trainer(tmp_path, model, data, compute_loss_func=loss, arguments={"gradient_accumulation_steps": 9})
    )
    running.train()
    criterion = losses.build(name, COUNTS, **options)
    twin.train()
    criterion(twin(input_ids=stacked(data, "input_ids")).logits, stacked(data, "labels")).backward()
    for (key, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        expected = theirs.detach() - (0 if theirs.grad is None else 0.5 * theirs.grad)
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-4, atol=1e-6, msg=key)


def test_the_audit_is_among_the_metrics_and_no_batch_is_kept(tmp_path: Path) -> None:
    data, model = rows(), bert()
    metrics = AuditMetrics(K, train_counts=COUNTS)
    running = trainer(tmp_path, model, data, compute_metrics=metrics)
    sizes: list[int] = []
    add = metrics._running.add
    metrics._running.add = lambda z, y: (sizes.append(len(z)), add(z, y))[1]  # type: ignore[method-assign]
    for _ in range(2):  # a second evaluation begins anew
        found = running.evaluate()
    assert sizes == [16] * 5 + [10] + [16] * 5 + [10]
    with torch.no_grad():
        logits = model.eval()(input_ids=stacked(data, "input_ids")).logits
    whole = audit(logits=logits, target=stacked(data, "labels"), train_counts=COUNTS)
    ours = {name.removeprefix("eval_"): value for name, value in found.items()}
    assert {name: ours[name] for name in whole.scalars("")} == pytest.approx(whole.scalars(""), rel=1e-4)
    assert metrics.tally.rows == 90
    assert metrics.audit().verdict.cause == whole.verdict.cause


def test_tokens_and_tuples_of_outputs() -> None:
    metrics = AuditMetrics(3)
    labels = np.array([[0, 1, -100], [2, -100, -100]])
    logits = np.eye(3)[np.where(labels < 0, 0, labels)]
    found = metrics(SimpleNamespace(predictions=(logits, "hidden states"), label_ids=labels), compute_result=True)
    assert found["accuracy"] == 1
    assert metrics.tally.rows == 3


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    running = trainer(
        tmp_path, bert(), rows(), compute_metrics=AuditMetrics(K), arguments={"batch_eval_metrics": False}
    )
    with pytest.raises(InputError, match="batch_eval_metrics=True"):
        running.evaluate()
    with pytest.raises(InputError, match="got none"):
        AuditMetrics(K).audit()
    with pytest.raises(InputError, match="options"):
        trainer_loss(nn.CrossEntropyLoss(), COUNTS)
    with pytest.raises(InputError, match="softmax loss module of evenhand"):
        trainer_loss(nn.CrossEntropyLoss())
