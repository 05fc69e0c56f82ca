"""The one law of all softmax losses: a paper's method is a row of parameters of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from evenhand.declared import InputError
from evenhand.losses.reduction import RowLosses
from evenhand.losses.rows import RowStatistics, softplus
from evenhand.losses.targets import per_class

SmoothingMass = Literal["weighted", "uniform"]


class Shape(Protocol):
    """phi: maps the log odds against the target to a loss; see :mod:`evenhand.losses.shapes`."""

    def __call__(self, gap: Tensor, target: Tensor, extra: Tensor | None) -> Tensor:
        """(N,) loss in nats from (N,) `gap`, the (N,) int64 class it is the gap of, and (N,) `extra` of the caller."""
        ...


class PairOffset(Protocol):
    """r: an offset that depends on the row's target as well as on the class. No gradient flows through it."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K) offsets from (N, K) logits after scale and offset, without gradient, and the (N,) targets."""
        ...


@dataclass(frozen=True, eq=False)
class Law:
    """Parameters of one softmax loss; what is None is left out.

    For row i with target y, class weight ``w``, sample weight ``u``::

        z~_ik = t_y (scale_k z_ik + offset_k + r_ik) - margin_y [k = y]
        L_i   = -log softmax(z~_i)_y
        loss  = u_i w_y (1 - e_y) phi(L_i) + smoothing + u_i w_y z_loss logsumexp(z~_i)^2

    where the smoothing is ``u_i w_y e_y / K sum_k L_ik`` (``smoothing_mass="uniform"``) or, with torch's meaning,
    ``u_i e_y / K sum_k w_k L_ik`` (``"weighted"``), in which rare classes with large weights also draw the smoothing.
    The row adds ``u_i w_y`` to the denominator of the mean.

    Attributes:
        scale: (K,) s. offset: (K,) o, nats. margin: (K,) m, nats. temperature: (K,) t, a factor. All floats.
        pair_offset: r, a function of the adjusted logits and the target.
        shape: phi as a function of the log odds against the target.
        class_weight: (K,) w >= 0.
        label_smoothing: e in [0, 1), one number or (K,) per target class.
        smoothing_mass: ``weighted`` (torch) or ``uniform``.
        z_loss: coefficient of the squared log-normaliser.
    """

    scale: Tensor | None = None
    offset: Tensor | None = None
    margin: Tensor | None = None
    temperature: Tensor | None = None
    pair_offset: PairOffset | None = None
    shape: Shape | None = None
    class_weight: Tensor | None = None
    label_smoothing: float | Tensor = 0.0
    smoothing_mass: SmoothingMass = "weighted"
    z_loss: float = 0.0

    @property
    def smooths(self) -> bool:
        """Whether any class is smoothed."""
        return isinstance(self.label_smoothing, Tensor) or self.label_smoothing > 0

    @property
    def spreads_evenly(self) -> bool:
        """Whether the smoothing falls on all classes alike."""
        return self.class_weight is None or self.smoothing_mass == "uniform"

    @property
    def is_fixed(self) -> bool:
        """Whether it is known that nothing in the law is being learned: its vectors, and those of a shape that can tell
        its slope; other shapes may hold anything."""
        vectors = [self.scale, self.offset, self.margin, self.temperature, self.class_weight, self.label_smoothing]
        if self.shape is not None:
            if not hasattr(self.shape, "with_slope"):
                return False
            vectors += vars(self.shape).values()
        return not any(isinstance(x, Tensor) and x.requires_grad for x in vectors)

    @property
    def torch_can(self) -> bool:
        """Whether ``torch.nn.functional.cross_entropy`` has every option that is on."""
        extras = (self.scale, self.offset, self.margin, self.temperature, self.pair_offset, self.shape)
        plain_smoothing = not isinstance(self.label_smoothing, Tensor) and (
            self.label_smoothing == 0 or self.class_weight is None or self.smoothing_mass == "weighted"
        )
        return all(x is None for x in extras) and plain_smoothing and self.z_loss == 0

    def direction(self, classes: int, like: Tensor) -> Tensor | None:
        """(K,) share of the smoothing mass that falls on each class, times its weight; None without smoothing."""
        if not self.smooths:
            return None
        if self.class_weight is None or self.spreads_evenly:
            return like.new_full((classes,), 1.0 / classes)
        return self.class_weight.to(like) / classes


PLAIN = Law()


def row_losses(
    statistics: RowStatistics,
    target: Tensor,
    law: Law,
    *,
    direction: Tensor | None = None,
    counted: Tensor | None = None,
    sample_weight: Tensor | None = None,
    extra: Tensor | None = None,
) -> RowLosses:
    """The law, from row statistics that already hold scale, offset, temperature and pair offsets.

    Args:
        statistics: of the rows, from dense logits, from features or from class shards: the law does not care.
        target: (N,) int64 in [0, K); any class where a row is not counted.
        law: parameters. Scale, offset, temperature and pair offsets are not applied again.
        direction: what ``statistics.mean`` was taken with; needed with label smoothing.
        counted: (N,) bool, False for ignored rows; None if all count.
        sample_weight: (N,) factor of numerator and denominator.
        extra: (N,) handed to the shape.

    Returns:
        Numerators and weights of the rows.
    """
    gap, target_logit, mean = statistics
    if law.margin is not None:
        margin = law.margin.to(gap)[target]
        gap = gap + margin
        target_logit = target_logit - margin
        if mean is not None and direction is not None:
            mean = mean - margin * direction[target]
    nll = softplus(gap)
    loss = nll if law.shape is None else law.shape(gap, target, extra)
    weight = torch.ones_like(gap) if law.class_weight is None else law.class_weight.to(gap)[target]
    numerator = loss * weight
    log_normaliser = target_logit + nll
    if direction is not None and mean is not None:
        smoothing = law.label_smoothing
        share = smoothing.to(gap)[target] if isinstance(smoothing, Tensor) else smoothing
        mass = log_normaliser * direction.sum() - mean
        mass = mass if law.smoothing_mass == "weighted" else mass * weight
        numerator = (1 - share) * numerator + share * mass
    if law.z_loss:
        numerator = numerator + law.z_loss * weight * log_normaliser.square()
    if sample_weight is not None:
        numerator, weight = numerator * sample_weight, weight * sample_weight
    if counted is None:
        return RowLosses(numerator, weight, torch.ones_like(target, dtype=torch.bool))
    # where(), not a product: an ignored row with infinite logits must not turn the sum into NaN
    return RowLosses(numerator.where(counted, 0.0), weight.where(counted, 0.0), counted)


def check_law(law: Law, classes: int) -> None:
    """Refuse a law made for another number of classes.

    Raises:
        InputError: a class-wise vector of another length.
    """
    per_class("scale", law.scale, classes)
    per_class("offset", law.offset, classes)
    per_class("margin", law.margin, classes)
    per_class("temperature", law.temperature, classes)
    per_class("class_weight", law.class_weight, classes)
    if isinstance(law.label_smoothing, Tensor):
        per_class("label_smoothing", law.label_smoothing, classes)
    else:
        check_smoothing(law)
    if law.shape is None:
        return
    for name in ("gamma", "alpha"):
        value = getattr(law.shape, name, None)
        per_class(name, value if isinstance(value, Tensor) and value.dim() else None, classes)


def check_smoothing(law: Law) -> bool:
    """True, or an error for a share of the smoothing outside [0, 1).

    Raises:
        InputError: that.
    """
    if not isinstance(law.label_smoothing, Tensor) and not 0 <= law.label_smoothing < 1:
        raise InputError(f"expected label_smoothing in [0, 1), got {law.label_smoothing}; 0.1 is usual")
    return True
