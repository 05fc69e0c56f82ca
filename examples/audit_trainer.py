"""Hugging Face Trainer: a loss for rare classes, and an audit of every evaluation without gathering its logits.

python examples/audit_trainer.py
"""

import tempfile
from typing import Any

import torch
from tiny_data import CLASSES, counts, long_tailed
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from evenhand.integrations.transformers import AuditMetrics, trainer_loss


def sentences(rows: int, seed: int) -> list[dict[str, Any]]:
    """Three words each: the strongest features of a row."""
    x, y = long_tailed(rows, seed)
    words = torch.from_numpy(1 + x.argsort(1)[:, -3:])
    return [
        {"input_ids": a, "attention_mask": torch.ones_like(a), "labels": int(b)} for a, b in zip(words, y, strict=True)
    ]


def main() -> None:
    set_seed(0)
    train, valid = sentences(2000, seed=0), sentences(1000, seed=1)
    n = counts(torch.tensor([row["labels"] for row in train]).numpy())
    model = BertForSequenceClassification(  # of random weights: nothing is downloaded
        BertConfig(
            vocab_size=22, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=8, num_labels=CLASSES,
        )
    )  # fmt: skip
    loss = trainer_loss("weighted", n)  # exact also with gradient accumulation and on several GPUs
    metrics = AuditMetrics(CLASSES, train_counts=n, class_weight="balanced")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, use_cpu=True, num_train_epochs=4, learning_rate=5e-3, per_device_train_batch_size=32,
            gradient_accumulation_steps=2, per_device_eval_batch_size=100, eval_strategy="epoch", save_strategy="no",
            batch_eval_metrics=True, report_to=[], disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = loss.attach(
            Trainer(
                model=model, args=arguments, train_dataset=train, eval_dataset=valid,
                compute_loss_func=loss, compute_metrics=metrics,
            )
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        found = trainer.evaluate()
    for name in ("eval_accuracy", "eval_balanced_accuracy", "eval_count_distance", "eval_tau"):
        print(f"{name:24}{found[name]:8.3f}")
    print(f"\n{metrics.audit().verdict.sentence}")


if __name__ == "__main__":
    main()
