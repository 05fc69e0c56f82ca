"""Samplers that draw classes at chosen rates: deterministic, resumable, shared between ranks without overlap or loss.

>>> from evenhand.training import samplers
>>> sampler = samplers.ClassPowerSampler([0] * 900 + [1] * 90 + [2] * 10, power=0)
>>> sampler.quotas().tolist()  # 1000 draws, a third of them from each class
[334, 333, 333]
"""

from __future__ import annotations

from typing import Any

from evenhand.declared import Floats, Ints
from evenhand.training.sampling.batching import ClassBatches
from evenhand.training.sampling.drawing import effective_number_rate, power_rate
from evenhand.training.sampling.rate_sampler import ClassRateSampler, whole

__all__ = ["ClassBatches", "ClassPowerSampler", "ClassRateSampler", "EffectiveNumberSampler", "ProgressiveSampler"]


class ClassPowerSampler(ClassRateSampler):
    """Draw classes at rates proportional to a power of their counts, ``q_k = n_k^power / sum_j n_j^power``.

    The expected tilt is ``log(q_k / pi_k)``, so tau = 1 - power: 0 (balanced) divides the prior out once, 0.5 half.

    Args:
        labels: (N,) class indices of the data set's rows.
        power: 1 natural, 0.5 square root, 0 balanced.
        **options: those of :class:`ClassRateSampler`.

    Raises:
        InputError: a power outside [-10, 10] or not a number; what :class:`ClassRateSampler` raises.

    Source: Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, 2020,
        https://arxiv.org/abs/1910.09217 (q there); Mahajan et al., 2018,
        https://arxiv.org/abs/1805.00932 (square root).

    Example:
        >>> import evenhand
        >>> sampler = ClassPowerSampler([0] * 900 + [1] * 90 + [2] * 10, power=0.5, seed=1)
        >>> sampler.sampler_rate.round(3).tolist(), sampler.quotas().tolist()
        ([0.703, 0.222, 0.074], [704, 222, 74])
        >>> round(evenhand.forecast(sampler.counts, sampler_rate=sampler.sampler_rate).tau, 6)
        0.5
    """

    def __init__(self, labels: Any, power: float = 0.0, **options: Any) -> None:
        super().__init__(labels, lambda counts: power_rate(counts, power), **options)
        self.power = float(power)

    def plan_words(self) -> str:
        """What decides the rates."""
        return f"power {self.power}"


class EffectiveNumberSampler(ClassRateSampler):
    """Draw every row at the rate ``1 / E_n``, so class k at ``n_k / E_(n_k)``; ``E_n = (1 - beta^n) / (1 - beta)``.

    beta = 0 draws as the data are; with beta near 1 all classes come equally often, up to about ``1 / (1 - beta)`` rows
    of a class, beyond which its rate rises with its rows.

    Args:
        labels: (N,) class indices of the data set's rows.
        beta: in [0, 1).
        **options: those of :class:`ClassRateSampler`.

    Raises:
        InputError: beta outside [0, 1); what :class:`ClassRateSampler` raises.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019, https://arxiv.org/abs/1901.05555.

    Example:
        >>> EffectiveNumberSampler([0] * 900 + [1] * 90 + [2] * 10, beta=0.99).sampler_rate.round(3).tolist()
        [0.779, 0.131, 0.09]
    """

    def __init__(self, labels: Any, beta: float = 0.999, **options: Any) -> None:
        super().__init__(labels, lambda counts: effective_number_rate(counts, beta), **options)
        self.beta = float(beta)

    def plan_words(self) -> str:
        """What decides the rates."""
        return f"effective number {self.beta}"


class ProgressiveSampler(ClassRateSampler):
    """Move from one power of the counts to another over the epochs; by default from natural to balanced.

    In epoch t of T the rates are ``(1 - t / (T - 1)) q(start) + t / (T - 1) q(end)``: the first epoch draws by `start`,
    the last one, and all after it, by `end`.

    Args:
        labels: (N,) class indices of the data set's rows.
        epochs: T, 2 or more.
        start, end: powers; see :class:`ClassPowerSampler`.
        **options: those of :class:`ClassRateSampler`. Weights are checked against the first and the last rates.

    Raises:
        InputError: epochs below 2, powers outside [-10, 10]; what :class:`ClassRateSampler` raises.

    Source: Kang et al., 2020, https://arxiv.org/abs/1910.09217, eq. 2.

    Example:
        >>> sampler = ProgressiveSampler([0] * 80 + [1] * 20, epochs=3)
        >>> [sampler.quotas(epoch).tolist() for epoch in (0, 1, 2, 3)]
        [[80, 20], [65, 35], [50, 50], [50, 50]]
    """

    def __init__(self, labels: Any, epochs: int, start: float = 1.0, end: float = 0.0, **options: Any) -> None:
        self.epochs, self.start, self.end = whole("epochs", epochs, 2), start, end
        super().__init__(labels, self._both, **options)

    _last: Floats

    def _both(self, counts: Ints) -> Floats:
        self._last = power_rate(counts, self.end)
        return power_rate(counts, self.start)

    def rate_at(self, epoch: int) -> Floats:
        """(K,) rates of an epoch, sum 1."""
        share = min(epoch / (self.epochs - 1), 1.0)
        return (1 - share) * self._rate + share * self._last

    def plan_words(self) -> str:
        """What decides the rates of all epochs."""
        return f"power {float(self.start)} to {float(self.end)} in {self.epochs}"

    @property
    def settled(self) -> int:
        """The last of the epochs."""
        return self.epochs - 1

    def rates_to_come(self) -> list[Floats]:
        """The first and the last rates."""
        return [self._rate, self._last]
