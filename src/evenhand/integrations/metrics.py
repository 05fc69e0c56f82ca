"""torchmetrics: an audit as a metric, for Lightning, Accelerate and loops of your own on one process or many.

Needs torchmetrics, which comes with ``pip install 'evenhand[lightning]'``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from evenhand.audit_figures import tally_scalars
from evenhand.auditing import Audit, audit_tally
from evenhand.integrations.states import JOINED, joined, restored, sample_parts, sums
from evenhand.row_sample import row_hash, sample_size
from evenhand.running import declare, many, sample_threshold, some_rows, tally_batch
from evenhand.tally import Tally, empty_tally

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    if error.name != "torchmetrics":  # it is there, but broken
        raise
    raise ImportError("evenhand.integrations.metrics needs torchmetrics: pip install 'evenhand[lightning]'") from error

__all__ = ["AuditMetric"]


class AuditMetric(Metric):  # type: ignore[misc]
    """The audit of an evaluation, added up over batches and processes; the N x K scores are never gathered.

    Counts, hits, soft counts, log-likelihood and confidence bins are sums, so processes add them. What is no sum:

    - The tilt needs rows: the likelihood of its two parameters has no sufficient statistic that adds, and sums on a
      grid of values would cost a pass per value and fix the precision beforehand. So the rows with the smallest hashed
      ids are kept, 5 million scores at most. Before processes exchange them they agree, by hashes alone, on the rows
      that belong to all of them together: 20 MB travel however many processes there are, and the sample is that of one.
    - Distinct pairs of confused classes, 16 bytes each, where a confusion matrix would have K x K.

    Args:
        num_classes: K.
        train_counts, class_weight, sampler, class_names, config: as in :func:`evenhand.audit`.
        ignore_index: target value whose rows are dropped.
        prefix: before every name that `compute` returns.
        options: of ``torchmetrics.Metric``, such as ``process_group``.

    Limits:
        Only `update` may be called per batch: the audit of one batch means nothing, so calling the metric updates it
        and returns None. Rows are numbered as ``DistributedSampler(shuffle=False)`` deals them out; rows that a sampler
        repeats to make the ranks equal are counted twice. States live on the CPU, where the pass over the scores is
        made, whatever the device; float64 sums need no support there.

    Raises:
        InputError: declared vectors of another length, logits or labels that cannot be used.

    Example:
        >>> metric = AuditMetric(num_classes=3, train_counts=[700, 200, 100])
        >>> generator = torch.Generator().manual_seed(0)
        >>> for _ in range(5):
        ...     metric.update(torch.randn(64, 3, generator=generator), torch.randint(3, (64,), generator=generator))
        >>> found = metric.compute()
        >>> int(metric.rows), sorted(found)[:3]
        (320, ['accuracy', 'accuracy_head', 'accuracy_medium'])
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    seen: Tensor
    _device: torch.device

    def __init__(
        self,
        num_classes: int,
        *,
        train_counts: Any = None,
        class_weight: Any = None,
        sampler: Any = None,
        class_names: Any = None,
        config: str | Mapping[str, object] | None = None,
        ignore_index: int | None = None,
        prefix: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        vectors = {"train_counts": train_counts, "class_weight": class_weight}
        vectors |= {"sampler": sampler, "class_names": class_names}
        self.declared = declare(num_classes, config=config, **vectors)
        self.num_classes, self.ignore_index, self.prefix = num_classes, ignore_index, prefix
        self.add_state("seen", torch.tensor(0), dist_reduce_fx="sum")
        for name, zero in sums(empty_tally("logits", num_classes)).items():
            self.add_state(name, zero, dist_reduce_fx="sum")
        for name in JOINED:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor, row_id: Any = None) -> None:
        """Count one batch: logits (B, K) or (B, T, K), target (B,) or (B, T); ids of the rows where they have any."""
        group = self.process_group
        rank, ranks = (dist.get_rank(group), dist.get_world_size(group)) if _distributed() else (0, 1)
        kept = sample_parts(self.metric_state)
        part, came = tally_batch(
            logits,
            target,
            rank + ranks * int(self.seen) if row_id is None else row_id,
            classes=self.num_classes,
            step=ranks,
            ignore_index=self.ignore_index,
            threshold=sample_threshold(kept[0], self.num_classes) if kept else None,
        )
        self.seen = self.seen + came
        for name, total in sums(part).items():
            setattr(self, name, getattr(self, name) + total)
        for name, rows in joined(part).items():
            getattr(self, name).append(rows)
        if many(sample_parts(self.metric_state), self.num_classes):
            self._keep(self._held())

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """`update`: a batch has no audit of its own."""
        self.update(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Accuracies, count distance, slope and tilt over all processes, see `evenhand.audit_figures.scalars`."""
        return {
            name: torch.tensor(v, device=self.device)
            for name, v in tally_scalars(some_rows(self._held()), self.prefix).items()
        }

    def tally(self) -> Tally:
        """Everything that was counted, by all processes together; where there are several, all must call it."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return some_rows(self._held())

    def audit(self, *, goal: str = "accuracy", name: str = "evaluation") -> Audit:
        """The whole audit with its causes and report; where there are several processes, all must call it."""
        return audit_tally(self.tally(), goal=goal, name=name)

    def _held(self) -> Tally:
        return restored(self.metric_state, self.num_classes, self.declared)

    def _keep(self, tally: Tally) -> None:
        for name, rows in joined(tally).items():
            setattr(self, name, [rows])

    def _sync_dist(self, dist_sync_fn: Callable[..., list[Tensor]], process_group: Any = None) -> None:
        """Agree on the sample by hashes alone, then let torchmetrics add sums and join what is kept."""

        def gather(x: Tensor, group: Any = None) -> list[Tensor]:
            return [other.cpu() for other in dist_sync_fn(x.to(self.device), group=group)]

        held = self._held()
        hashes = (row_hash(held.sample.row_id) >> np.uint64(1)).astype(np.int64)  # torch cannot order unsigned numbers
        everyone = torch.cat(gather(torch.from_numpy(hashes), process_group or self.process_group)).sort().values
        last = int(everyone[: sample_size(self.num_classes)][-1]) if len(everyone) else 0
        self._keep(dataclasses.replace(held, sample=held.sample.take(np.flatnonzero(hashes <= last))))
        super()._sync_dist(gather, process_group)

    def _apply(self, fn: Callable[[Tensor], Tensor], *_: Any) -> nn.Module:
        """Note the device; states stay where they are."""
        self._device = fn(torch.zeros(1, device=self._device)).device
        return self


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
