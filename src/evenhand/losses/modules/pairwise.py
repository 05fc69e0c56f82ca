"""Losses whose offsets depend on the target as well as on the class: seesaw, SEQL, GCL."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.law import Law
from evenhand.losses.modules.arguments import as_counts, in_range, rows_or_one
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.modules.margins import checked_scale
from evenhand.losses.pair_offsets import Cloud, Dropped, Seesaw
from evenhand.losses.rows import is_traced
from evenhand.losses.targets import index_target, is_distributed


class SeesawLoss(SoftmaxLoss):
    """``-w_y log(exp z_y / sum_k M_yk C_yk exp z_k)``: rare classes are spared the pull of frequent targets.

    Mitigation ``M_yk = (N_k / N_y)^p`` where class k has fewer rows than the target, else 1; compensation
    ``C_yk = (p_k / max(p_y, epsilon))^q`` where the model prefers k, else 1. Neither has a gradient. N counts the
    targets seen so far: the buffer ``seen``, (K,) int64, learned in training mode and part of the ``state_dict``. In
    distributed training the counts are summed over all ranks, so that every rank must call the loss equally often.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; needed for :meth:`correction`, or for K.
        classes: K, where no counts are given.
        p: >= 0, 0.8. q: >= 0, 2. Both 0 is cross-entropy.
        epsilon: least probability of the target in the compensation, 0.01.
        online: False takes `counts` for N from the start instead of counting.
        weight: (K,) class weights, a rule's name, a dictionary by class name, or None.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: neither counts nor classes, numbers out of range.

    Limits:
        Class indices only. No decision rule follows from the loss: its offsets depend on the model's answer. Needs
        memory for a few numbers per logit.

    Source: Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, 2021, https://arxiv.org/abs/2008.10032.

    Example:
        >>> import torch
        >>> loss = SeesawLoss(classes=2, q=0.0)
        >>> value = loss(torch.zeros(10, 2), torch.tensor([0] * 9 + [1]))
        >>> loss.seen.tolist(), round(value.item(), 4)
        ([9, 1], 0.2125)
    """

    seen: Tensor

    def __init__(
        self,
        counts: Any = None,
        *,
        classes: int | None = None,
        p: float = 0.8,
        q: float = 2.0,
        epsilon: float = 1e-2,
        online: bool = True,
        weight: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(weight, counts=counts, **options)
        if self.counts is None and (classes is None or not online):
            raise InputError("seesaw needs the number of classes: give counts=, or classes= with online=True")
        known = None if self.counts is None else torch.as_tensor(self.counts.counts.copy())
        if known is None or online:
            known = torch.zeros(self.counts.classes if self.counts else int(classes or 0), dtype=torch.int64)
        self.register_buffer("seen", known)
        self.p = in_range("p", p, 0, 100, "0.8 is the authors' choice")
        self.q = in_range("q", q, 0, 100, "2 is the authors' choice")
        self.epsilon = in_range("epsilon", epsilon, 1e-30, 1, "0.01 is the authors' choice")
        self.online = online

    def law(self) -> Law:
        """The offset of mitigation and compensation."""
        return self.with_changes(pair_offset=Seesaw(self.seen, self.p, self.q, self.epsilon))

    @torch.no_grad()
    def observe(self, target: Tensor) -> None:
        """Count the targets of a training batch, over all ranks; nothing waits for the device."""
        if not (self.online and self.training) or not isinstance(target, Tensor) or target.is_floating_point():
            return
        labels = target.to_local() if is_distributed(target) else target  # type: ignore[attr-defined]
        labels, counted = index_target(
            labels, len(self.seen), tuple(labels.shape), self.ignore_index, traced=is_traced(labels)
        )
        once = torch.ones_like(labels) if counted is None else counted.long()
        batch = torch.zeros_like(self.seen).scatter_add_(0, labels.to(self.seen.device), once.to(self.seen.device))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(batch)
        self.seen += batch


class SEQLLoss(SoftmaxLoss):
    """Softmax equalisation: rare classes that are not the target leave the softmax in a random share of the rows.

    ``-w_y log(exp z_y / sum_k c_k exp z_k)`` with ``c_k = 0`` where class k is rare (``pi_k < threshold``), not the
    target, and a draw of probability gamma says so; else 1. Drawn per row and class, in training mode only.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`.
        gamma: in [0, 1]; 0.9. 0 is cross-entropy.
        threshold: the authors' lambda, chosen per data set; default ``1 / (2 K)``, half of an even share.
        generator: source of the draws, on the logits' device; default torch's own.
        **options: those of :class:`SoftmaxLoss`, without label smoothing, which would need the classes that left.

    Raises:
        InputError: no counts, numbers out of range, label smoothing.

    Limits:
        Class indices only. No decision rule follows from the loss.

    Source: Tan et al., Equalization Loss for Long-Tailed Object Recognition, 2020, https://arxiv.org/abs/2003.05176.

    Example:
        >>> loss = SEQLLoss([90, 8, 2], gamma=1.0)
        >>> loss.rare.tolist()
        [0.0, 1.0, 1.0]
        >>> round(loss(torch.zeros(1, 3), torch.tensor([1])).item(), 4)
        0.6931
    """

    rare: Tensor
    fixed_options: ClassVar[tuple[str, ...]] = ("label_smoothing",)

    def __init__(
        self,
        counts: Any,
        gamma: float = 0.9,
        threshold: float | None = None,
        *,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        if options.get("label_smoothing"):
            raise InputError("seql cannot smooth labels, since classes leave the softmax; leave label_smoothing at 0")
        known = as_counts(counts)
        super().__init__(counts=known, **options)
        self.gamma = in_range("gamma", gamma, 0, 1, "0.9 is the authors' choice")
        limit = 0.5 / known.classes if threshold is None else in_range("threshold", threshold, 0, 1, "it is a share")
        self.generator = generator
        self.keep("rare", known.prior < limit)

    def law(self) -> Law:
        """The random offset in training, cross-entropy otherwise."""
        return self.training_law() if self.training else self.with_changes()

    def training_law(self) -> Law:
        """The law with its random offset, whatever the mode."""
        return self.with_changes(pair_offset=Dropped(self.rare, self.gamma, self.generator))


class GCLLoss(SoftmaxLoss):
    """Gaussian clouded logits, ``-w_y log softmax(s (z_k - d_k noise |e_k| - margin [k = y]))_y``.

    ``d_k = (log n_max - log n_k) / (log n_max - log n_min)``, e normal of standard deviation 1/3 cut at 1: rare classes
    get the larger clouds. z are cosines, from :class:`CosineLinear`. Drawn per row and class, in training mode only.

    Args:
        counts: (K,) rows per class or :class:`evenhand.ClassCounts`; a class without rows counts as one row.
        margin: of the target, 0.5. scale: s, 30.
        noise: factor of the clouds, 1; 0 is a cosine head with one margin.
        generator: source of the draws, on the logits' device; default torch's own.
        **options: those of :class:`SoftmaxLoss`.

    Raises:
        InputError: no counts, numbers out of range.

    Limits:
        Class indices only. No decision rule follows from the loss.

    Source: Li et al., Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment, 2022,
        https://arxiv.org/abs/2305.11733.

    Example:
        >>> loss = GCLLoss([1000, 100, 10])
        >>> [round(d, 3) for d in (loss.spread / loss.s).tolist()]
        [0.0, 0.5, 1.0]
    """

    spread: Tensor

    def __init__(
        self,
        counts: Any,
        margin: float = 0.5,
        *,
        scale: float = 30.0,
        noise: float = 1.0,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        known = as_counts(counts)
        super().__init__(counts=known, **options)
        self.s, self.generator = checked_scale(scale), generator
        self.m = in_range("margin", margin, 0, 1e6, "0.5 is the authors' choice for cosines")
        self.noise = in_range("noise", noise, 0, 1e6, "1 is the authors' choice")
        behind = np.log(rows_or_one(known).max() / rows_or_one(known))
        self.keep("scale", np.full(known.classes, self.s))
        self.keep("margin", np.full(known.classes, self.s * self.m))
        self.keep("spread", self.s * self.noise * behind / max(behind.max(), 1e-12))

    def law(self) -> Law:
        """Scale and margin; in training the clouds."""
        return self.training_law() if self.training else self.with_changes(scale=self.scale, margin=self.margin)

    def training_law(self) -> Law:
        """The law with its clouds, whatever the mode."""
        return self.with_changes(scale=self.scale, margin=self.margin, pair_offset=Cloud(self.spread, self.generator))
