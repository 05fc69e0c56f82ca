"""Rates that change once, late in training."""

from __future__ import annotations

from evenhand.declared import Floats, InputError
from evenhand.training.sampling.drawing import power_rate
from evenhand.training.sampling.rate_sampler import ClassRateSampler, whole


class DeferredResampling(ClassRateSampler):
    """Draw the rows as they are, and from epoch `at` on as `sampler` does; itself the sampler for the loader.

    Args:
        sampler: what draws from `at` on; rows, seed, draws per epoch and ranks are its own. Rates that move
            are those of the epoch of the training, not of the epochs since `at`.
        at: first epoch of its rates.
        power: of the epochs before: 1 natural, 0.5 square root, 0 balanced.

    Raises:
        InputError: not a sampler of this package, `at` below 0, a power outside [-10, 10].

    Source: Cao et al., 2019, https://arxiv.org/abs/1906.07413 (deferred re-sampling, DRS).

    Example:
        >>> from evenhand.training.samplers import ClassPowerSampler
        >>> deferred = DeferredResampling(ClassPowerSampler([0] * 80 + [1] * 20), at=160)
        >>> [deferred.quotas(epoch).tolist() for epoch in (159, 160)]
        [[80, 20], [50, 50]]
    """

    def __init__(self, sampler: ClassRateSampler, at: int, *, power: float = 1.0) -> None:
        if not isinstance(sampler, ClassRateSampler):
            raise InputError(
                f"expected a sampler of evenhand.training.samplers, got {type(sampler).__name__}; build one"
            )
        self.late, self.at, self.power = sampler, whole("at", at, 0), power
        super().__init__(
            sampler.class_rows,
            lambda counts: power_rate(counts, power),
            num_samples=sampler.num_samples,
            seed=sampler.seed,
            num_replicas=sampler.num_replicas,
            rank=sampler.rank,
            replacement=sampler.replacement,
        )

    @property
    def active(self) -> bool:
        """Whether the late rates are in force."""
        return self.epoch >= self.at

    def rate_at(self, epoch: int) -> Floats:
        """(K,) rates of an epoch, sum 1."""
        return super().rate_at(epoch) if epoch < self.at else self.late.rate_at(epoch)

    @property
    def settled(self) -> int:
        """First epoch from which on the rates stay as they are."""
        return max(self.at, self.late.settled)

    def plan_words(self) -> str:
        """What the rates of all epochs depend on."""
        return f"power {float(self.power)} until {self.at}, then {self.late.plan_words()}"
