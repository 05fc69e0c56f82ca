"""The exact weighted mean in Hugging Face's Trainer: a callable for ``compute_loss_func``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.exact.means import check_mean
from evenhand.losses.reduction import divide


class TrainerLoss:
    """``Trainer(compute_loss_func=...)`` with any loss of this package, exact under accumulation and data parallelism.

    The Trainer tells a loss how many *labels* the whole optimiser step holds. For a weighted mean that is the wrong
    denominator. :meth:`attach` makes the Trainer add up the weights of these labels instead::

        loss = TrainerLoss(criterion)
        trainer = loss.attach(Trainer(model=model, args=args, train_dataset=data, compute_loss_func=loss))
        trainer.train()

    In evaluation every batch has its own weighted mean. Data parallelism is supported with and without
    ``average_tokens_across_devices``; tensor, context and sequence parallelism are not.

    Args:
        criterion: a softmax loss module with ``reduction="mean"``. Logits of shape (B, K) and (B, T, K) are both taken
            with their classes on the last axis, whatever ``class_dim`` says.

    Raises:
        InputError: a loss of another kind or reduction.

    Source: ``transformers.Trainer``, arguments ``compute_loss_func`` and method ``get_batch_samples``, release 5.23,
    https://huggingface.co/docs/transformers/main_classes/trainer.
    """

    def __init__(self, criterion: Any) -> None:
        check_mean(criterion)
        self.criterion = criterion
        self.attached = False

    def attach(self, trainer: Any) -> Any:
        """Let `trainer` hand over the sum of the weights where it counts labels; returns the trainer.

        Raises:
            InputError: the trainer was built with another ``compute_loss_func``.
        """
        if trainer.compute_loss_func is not self:
            raise InputError(
                "expected a Trainer built with this very compute_loss_func; pass the TrainerLoss to it first"
            )
        collect = trainer.get_batch_samples

        def get_batch_samples(*args: Any, **kwargs: Any) -> tuple[list[Any], Tensor | None]:
            batches, _ = collect(*args, **kwargs)
            return batches, self._total(trainer, batches) if batches else None

        trainer.get_batch_samples = get_batch_samples
        self.attached = True
        return trainer

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | float | None = None) -> Tensor:
        """The loss of one micro-batch, as a share of the optimiser step.

        Args:
            outputs: what the model returned: logits under the key ``logits`` or in the first place.
            labels: (B,) or (B, T) class indices.
            num_items_in_batch: what the Trainer passes.

        Raises:
            InputError: training with class weights before :meth:`attach`.
        """
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        if num_items_in_batch is None:
            mean: Tensor = self.criterion(logits, labels)
            return mean
        if not torch.is_grad_enabled():
            share = (labels != self.criterion.ignore_index).sum() / num_items_in_batch
            own: Tensor = self.criterion(logits, labels) * share
            return own
        if not self.attached:
            raise InputError(
                "the Trainer counts labels where this loss needs their weights: call attach(trainer) first"
            )
        numerator = self.criterion.rows(logits, labels).numerator.sum()
        return divide(numerator, torch.as_tensor(num_items_in_batch).to(numerator), self.criterion.empty)

    def _total(self, trainer: Any, batches: list[Any]) -> Tensor:
        """D of the step, on the trainer's device, such that the Trainer's own scaling over ranks makes it exact."""
        parts = [self.criterion.denominator(batch["labels"].reshape(-1)) for batch in batches]
        total = torch.stack(parts).sum().to(trainer.args.device, torch.float32)
        if trainer.args.world_size == 1:
            return total
        total = trainer.accelerator.reduce(total, "sum")
        # the Trainer multiplies the loss by the number of ranks only where it counts labels over all of them
        share: Tensor = total if trainer.args.average_tokens_across_devices else total / trainer.args.world_size
        return share
