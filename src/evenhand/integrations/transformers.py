"""Hugging Face Trainer: any loss of this package under ``compute_loss_func``, and an audit as ``compute_metrics``.

Nothing here imports transformers; the loss needs torch: ``pip install 'evenhand[transformers]'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evenhand.audit_figures import tally_scalars
from evenhand.auditing import Audit, audit_tally
from evenhand.declared import InputError
from evenhand.running import RunningTally
from evenhand.tally import Tally

if TYPE_CHECKING:
    from evenhand.losses import TrainerLoss

__all__ = ["AuditMetrics", "trainer_loss"]

IGNORED = -100  # what the Trainer pads labels with


class AuditMetrics:
    """``Trainer(compute_metrics=...)`` with ``batch_eval_metrics=True``: the logits of all rows are never kept.

    The Trainer hands over one batch at a time, gathered over its processes and without the rows that were repeated to
    fill the last one, so every process counts all rows. The figures appear as ``eval_accuracy``, ``eval_tau``, ...; any
    of them can be the ``metric_for_best_model``.

    Args:
        num_classes: K. train_counts, class_weight, sampler, class_names, config: as in :func:`evenhand.audit`.

    Raises:
        InputError: the Trainer was not told ``batch_eval_metrics=True``; logits or labels that cannot be used.

    Source: ``transformers.TrainingArguments``, argument ``batch_eval_metrics``,
    https://huggingface.co/docs/transformers/main_classes/trainer.

    Example:
        >>> import numpy as np
        >>> from types import SimpleNamespace
        >>> metrics = AuditMetrics(2, train_counts=[90, 10])
        >>> batch = SimpleNamespace(predictions=np.eye(2), label_ids=np.array([0, 1]))
        >>> metrics(batch, compute_result=False)
        {}
        >>> metrics(batch, compute_result=True)["accuracy"], metrics.tally.rows
        (1.0, 4)
    """

    def __init__(self, num_classes: int, **declared: Any) -> None:
        self._running = RunningTally(num_classes, ignore_index=IGNORED, **declared)
        self._last: Tally | None = None

    def __call__(self, evaluated: Any, compute_result: bool | None = None) -> dict[str, float]:
        """Count one batch; with the last one, the figures.

        Args:
            evaluated: with `predictions`, the logits (B, K) or (B, T, K), or a tuple that begins with them, and
                `label_ids`. compute_result: whether this is the last batch.
        """
        if compute_result is None:
            raise InputError(
                "AuditMetrics expects one batch at a time, got the whole evaluation; set batch_eval_metrics=True in "
                "the TrainingArguments, so that the logits of all rows are never gathered"
            )
        found, labels = evaluated.predictions, evaluated.label_ids
        logits = found[0] if isinstance(found, (tuple, list)) else found
        if isinstance(logits, Mapping):
            logits = logits["logits"]
        self._running.add(logits, labels)
        if not compute_result:
            return {}
        self._last = self._running.tally()
        self._running.reset()
        return tally_scalars(self._last)

    @property
    def tally(self) -> Tally:
        """What the last finished evaluation counted.

        Raises:
            InputError: there was none.
        """
        if self._last is None:
            raise InputError("expected a finished evaluation, got none; call trainer.evaluate() first")
        return self._last

    def audit(self, *, goal: str = "accuracy", name: str = "evaluation") -> Audit:
        """The whole audit of the last finished evaluation, with its causes and report."""
        return audit_tally(self.tally, goal=goal, name=name)


def trainer_loss(loss: str | Any = "weighted", counts: Any = None, **options: Any) -> TrainerLoss:
    """A softmax loss for ``Trainer(compute_loss_func=...)``, exact under accumulation and data parallelism.

    Args:
        loss: a name of ``losses.available()``, built from `counts` and `options`, or a loss module of this package.
        counts, options: as in ``losses.build``.

    Returns:
        A :class:`evenhand.losses.TrainerLoss`; call its ``attach(trainer)`` before ``trainer.train()``.

    Raises:
        InputError: an unknown name or options that do not fit; a multi-label loss; options beside a finished loss.

    Example:
        >>> loss = trainer_loss("logit-adjusted", counts=[900, 90, 10])
        >>> type(loss).__name__
        'TrainerLoss'
    """
    try:
        from evenhand import losses
        from evenhand.losses import TrainerLoss
    except ImportError as error:
        if error.name != "torch":
            raise
        raise ImportError("trainer_loss needs torch: pip install 'evenhand[transformers]'") from error
    if isinstance(loss, str):
        return TrainerLoss(losses.build(loss, counts, **options))
    if counts is not None or options:
        raise InputError("trainer_loss expected a name or a finished loss, got a loss and options; give options to it")
    return TrainerLoss(loss)
