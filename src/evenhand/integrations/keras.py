"""Keras 3: the losses of this package on the torch backend, and on every backend an audit after every epoch.

Needs Keras: ``pip install 'evenhand[keras]'`` and, for the losses, ``KERAS_BACKEND=torch``. A correction for the last
layer, `evenhand.integrations.heads.fold_into_dense`, needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evenhand.auditing import Audit
from evenhand.counts import to_numpy
from evenhand.declared import InputError
from evenhand.integrations.reporting import write_report
from evenhand.output import PathLike
from evenhand.running import RunningTally
from evenhand.tally import Kind

try:
    import keras
except ImportError as error:
    if error.name != "keras":  # Keras is there, its backend is not
        raise
    raise ImportError("evenhand.integrations.keras needs Keras: pip install 'evenhand[keras]'") from error

__all__ = ["AuditCallback", "EvenhandLoss"]


@keras.saving.register_keras_serializable("evenhand")
class EvenhandLoss(keras.losses.Loss):  # type: ignore[misc]
    """A loss of ``evenhand.losses`` for ``model.compile``; it is saved with the model as its name and options.

    ``sample_weight`` and ``class_weight`` of ``fit`` count in the numerator and the denominator of the mean. The
    model's last layer gives logits: ``Dense(K)`` without an activation. Masks of layers are not read; give
    ``ignore_index``.

    Args:
        loss: a name of ``losses.available()``. counts: (K,) rows per class of the training set.
        name: in the logs. options: as in ``losses.build``, such as ``tau`` or ``label_smoothing``.

    Raises:
        InputError: another backend than torch; an unknown name or options that do not fit.

    Example:
        >>> import numpy as np
        >>> loss = EvenhandLoss("weighted", counts=[3, 1])
        >>> print(f"{float(loss(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 0.0]], np.float32))):.4f}")
        0.5982
    """

    def __init__(self, loss: str, counts: Any = None, *, name: str | None = None, **options: Any) -> None:
        super().__init__(name=name)
        if keras.backend.backend() != "torch":
            raise InputError(
                f"EvenhandLoss expected the torch backend, got {keras.backend.backend()}; set KERAS_BACKEND=torch "
                "before Keras is imported, or correct the trained model with fold_into_dense"
            )
        from evenhand import losses

        self.loss, self.options = loss, options
        known = counts is None or isinstance(counts, Mapping)
        self.counts = counts if known else to_numpy(getattr(counts, "counts", counts)).tolist()  # as JSON can hold them
        self.criterion = losses.build(loss, self.counts, **options)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The mean loss. y_true: (B,) or (B, 1) classes, or (B, K) soft targets; y_pred: (B, K) logits."""
        logits, target = keras.ops.convert_to_tensor(y_pred), keras.ops.convert_to_tensor(y_true)
        if logits.is_meta:  # Keras only asks for the shape; buffers moved to this device would lose their values
            return logits.sum()
        soft = target.shape == logits.shape
        target = target.to(logits.dtype) if soft else target.reshape(logits.shape[:-1]).long()
        weight = None if sample_weight is None else keras.ops.convert_to_tensor(sample_weight).reshape(target.shape[:1])
        return self.criterion.to(logits.device)(logits, target, weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The mean loss without sample weights."""
        return self(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """The arguments, from which the loss is built again when a model is loaded."""
        return {"loss": self.loss, "counts": self.counts, "name": self.name, **self.options}


class AuditCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Audits the model at the end of epochs and puts the figures among the epoch's logs.

    List it before callbacks that read them, such as
    ``EarlyStopping(monitor="evenhand/balanced_accuracy", mode="max")``.

    Args:
        validation: ``(x, y)``, arrays, or an iterable of such pairs that can be read every epoch, such as a
            ``DataLoader``. from_logits: whether the model gives logits (True) or probabilities (False).
        every: audit every so many epochs. batch_size: rows predicted together, for arrays.
        html: file for the report; ``{epoch}`` in its name is filled in. prefix: before the names.
        declared: ``train_counts``, ``class_weight``, ... as in :func:`evenhand.audit`.

    Raises:
        InputError: when training, for scores or labels that cannot be used.

    Example:
        >>> import numpy as np
        >>> class Model:  # stands for a Keras model
        ...     predict_on_batch = staticmethod(lambda x: 5 * x)
        >>> callback = AuditCallback((np.eye(2, dtype="float32"), np.array([0, 1])), from_logits=True)
        >>> # model.fit(x, y, callbacks=[callback]) calls it; one epoch by hand:
        >>> logs = {}
        >>> callback.set_model(Model())
        >>> callback.on_epoch_end(0, logs)
        >>> "evenhand/balanced_accuracy" in logs, callback.audit().rows
        (True, 2)
    """

    def __init__(
        self,
        validation: tuple[Any, Any] | Iterable[tuple[Any, Any]],
        *,
        from_logits: bool,
        every: int = 1,
        batch_size: int = 256,
        html: PathLike | None = None,
        prefix: str = "evenhand/",
        **declared: Any,
    ) -> None:
        super().__init__()
        self.validation, self.batch_size, self.every = validation, batch_size, every
        self.html, self.prefix, self.declared = html, prefix, declared
        self.kind: Kind = "logits" if from_logits else "probs"
        self.running: RunningTally | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Predict, count, log."""
        if epoch % self.every:
            return
        self.running = None
        for x, y in self._batches():
            scores = self.model.predict_on_batch(x)
            if self.running is None:
                self.running = RunningTally(scores.shape[-1], kind=self.kind, **self.declared)
            self.running.add(scores, keras.ops.convert_to_numpy(y).reshape(scores.shape[:-1]))
        found = self.audit()
        if logs is not None:
            logs.update(found.scalars(self.prefix))
        if self.html is not None:
            write_report(found, self.html, epoch=epoch)

    def audit(self, *, goal: str = "accuracy") -> Audit:
        """The audit of the last audited epoch, with its causes.

        Raises:
            InputError: there was none, or it had no rows.
        """
        if self.running is None:
            raise InputError("expected an audited epoch with some rows, got none; pass the callback to fit")
        return self.running.audit(goal=goal)

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        if not isinstance(self.validation, tuple):
            yield from self.validation
            return
        x, y = self.validation
        for start in range(0, len(y), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield ({name: part[rows] for name, part in x.items()} if isinstance(x, Mapping) else x[rows]), y[rows]
