"""The exact weighted mean in Hugging Face's Trainer, under gradient accumulation and data parallelism.

python examples/exact_trainer.py
torchrun --nproc-per-node 2 examples/exact_trainer.py
"""

import os
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from evenhand.losses import SoftmaxLoss, TrainerLoss


class Classifier(nn.Module):
    """Any model will do that returns its logits under this key, or first."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(x)}


def train(
    model: nn.Module, x: Tensor, y: Tensor, weight: Tensor, *, rows: int, accumulate: int, steps: int, **more: Any
) -> Trainer:
    loss = TrainerLoss(SoftmaxLoss(weight))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=accumulate,
            max_steps=steps,
            optim="sgd",
            learning_rate=0.5,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            remove_unused_columns=False,
            label_names=["labels"],
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **more,
        )
        data: Any = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
        trainer = loss.attach(
            Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data, compute_loss_func=loss)
        )
        trainer.train()
    return trainer


def error(model: Classifier, start: Classifier, x: Tensor, y: Tensor, weight: Tensor) -> float:
    """Between the step that was taken and the one over all rows at once."""
    nn.functional.cross_entropy(start(x)["logits"], y, weight=weight).backward()
    assert start.head.weight.grad is not None
    step = -0.5 * start.head.weight.grad
    return float((model.head.weight.detach().cpu() - start.head.weight.detach() - step).norm() / step.norm())


if __name__ == "__main__":
    torch.manual_seed(0)
    labels = torch.multinomial(torch.linspace(10, 0.1, 10), 64, replacement=True)
    features, rarity = torch.randn(64, 16), torch.linspace(0.1, 10, 10)
    model, twin = Classifier(16, 10), Classifier(16, 10)
    twin.load_state_dict(model.state_dict())
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    train(model, features, labels, rarity, rows=8, accumulate=8 // ranks, steps=1)
    print(f"error of the step against the whole batch: {error(model, twin, features, labels, rarity):.1e}")
