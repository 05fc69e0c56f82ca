"""Lightning: a callback that audits at the end of validation, logs the figures and writes the report.

Needs Lightning: ``pip install 'evenhand[lightning]'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.audit_figures import tally_scalars
from evenhand.auditing import Audit, audit_tally
from evenhand.declared import InputError
from evenhand.integrations.metrics import AuditMetric
from evenhand.integrations.reporting import write_report
from evenhand.output import PathLike
from evenhand.tally import Tally

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    if error.name not in ("lightning", "lightning.pytorch"):
        raise
    raise ImportError("evenhand.integrations.lightning needs Lightning: pip install 'evenhand[lightning]'") from error

__all__ = ["AuditCallback"]

TARGETS = ("target", "targets", "labels", "label", "y")


class AuditCallback(Callback):  # type: ignore[misc]
    """Audits what ``validation_step`` returns, over all processes.

    ``validation_step`` must return its logits, as ``{"logits": z, "target": y}`` or with the loss beside them. Where
    the target is missing, it is taken from the batch: the second of a pair, or under one of the usual names.

    Args:
        train_counts, class_weight, sampler, class_names, config: as in :func:`evenhand.audit`.
        every: audit every so many validations, beginning with the first; the others cost nothing.
        html: file for the report, written whole or not at all by process zero; ``{epoch}`` and ``{step}`` in its name
            are filled in, without them the last report stays. None for no report, only numbers.
        logits_key, target_key: names in what ``validation_step`` returns.
        ignore_index: target value whose rows are dropped. goal: of the fix in the report.
        prefix: before the names that are logged; with several validation loaders ``/1``, ``/2``, ... follow the names.

    Attributes:
        tallies: loader number -> tally of the last audited validation, on every process.

    Raises:
        InputError: outputs without logits, already in Lightning's sanity check; scores or labels that cannot be used.

    Example:
        >>> callback = AuditCallback(train_counts=[900, 90, 10], class_weight="balanced", every=5, html="audit.html")
        >>> # Trainer(callbacks=[callback]).fit(module); callback.audit().verdict
    """

    def __init__(
        self,
        *,
        every: int = 1,
        html: PathLike | None = None,
        logits_key: str = "logits",
        target_key: str = "target",
        goal: str = "accuracy",
        prefix: str = "evenhand/",
        **declared: Any,
    ) -> None:
        if every < 1:
            raise InputError(f"expected every to be 1 or more validations, got {every}; 1 audits all of them")
        self.every, self.html, self.goal, self.prefix = every, html, goal, prefix
        self.logits_key, self.target_key, self.declared = logits_key, target_key, declared
        self.validations = 0
        self.tallies: dict[int, Tally] = {}
        self._metrics: dict[int, AuditMetric] = {}

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last validation."""
        self._metrics = {}

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count one batch."""
        if self.validations % self.every and not trainer.sanity_checking:
            return
        logits = self._logits(outputs)
        if dataloader_idx not in self._metrics:
            self._metrics[dataloader_idx] = AuditMetric(logits.shape[-1], **self.declared).to(pl_module.device)
        self._metrics[dataloader_idx].update(logits, self._target(outputs, batch))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Add up over processes, log, and write the report."""
        if trainer.sanity_checking:
            return
        self.validations += 1
        if not self._metrics:
            return
        self.tallies = {number: metric.tally() for number, metric in self._metrics.items()}
        self._metrics = {}
        for number, tally in self.tallies.items():
            ending = str(number) if len(self.tallies) > 1 else ""
            found = {f"{name}/{ending}".rstrip("/"): v for name, v in tally_scalars(tally, self.prefix).items()}
            pl_module.log_dict(found, sync_dist=True, add_dataloader_idx=False)
            if self.html is not None and trainer.is_global_zero:
                place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
                write_report(self.audit(number), self.html, ending=f"-{ending}".rstrip("-"), **place)

    def audit(self, loader: int = 0) -> Audit:
        """The whole audit of the last audited validation, with its causes.

        Raises:
            InputError: there was none.
        """
        if loader not in self.tallies:
            raise InputError(f"expected an audited validation of loader {loader}, got none yet; run fit or validate")
        return audit_tally(self.tallies[loader], goal=self.goal, name="validation")

    def _logits(self, outputs: Any) -> Any:
        if isinstance(outputs, Mapping) and self.logits_key in outputs:
            return outputs[self.logits_key]
        came = (
            f"a mapping with {', '.join(map(repr, outputs))}"
            if isinstance(outputs, Mapping)
            else type(outputs).__name__
        )
        raise InputError(
            f"AuditCallback expected validation_step to return a mapping with {self.logits_key!r}, got {came}; end it "
            f'with return {{"{self.logits_key}": logits, "{self.target_key}": target}}, or name its key as logits_key'
        )

    def _target(self, outputs: Mapping[str, Any], batch: Any) -> Any:
        if self.target_key in outputs:
            return outputs[self.target_key]
        if isinstance(batch, Mapping):
            named = [batch[name] for name in (self.target_key, *TARGETS) if name in batch]
            if named:
                return named[0]
        elif isinstance(batch, (tuple, list)) and len(batch) == 2:
            return batch[1]
        raise InputError(
            f"AuditCallback expected {self.target_key!r} in what validation_step returns, got none there and no batch "
            "of two parts or with labels; return the target beside the logits"
        )
