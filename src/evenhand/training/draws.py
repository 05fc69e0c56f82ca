"""How a stage of a training draws its rows: all of them once per epoch, or classes at chosen rates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.training.sampling.drawing import effective_number_rate, power_rate

Power = float | tuple[float, float]


@dataclass(frozen=True)
class Draw:
    """At which rates rows are drawn; without power and beta every row comes once per epoch.

    Attributes:
        power: class k is drawn at a rate proportional to ``n_k^power``; of a pair the rates go from the first power's
            to the second's, on a straight line over the epochs of the stage.
        beta: class k is drawn at ``n_k / E_k``, its effective number ``E_k = (1 - beta^n_k) / (1 - beta)``.

    Example:
        >>> Draw(power=(1.0, 0.0)).moves, Draw(beta=0.999).moves
        (True, False)
    """

    power: Power | None = None
    beta: float | None = None

    @property
    def moves(self) -> bool:
        """Whether the rates change from epoch to epoch."""
        return isinstance(self.power, tuple)

    def check(self, counts: ClassCounts) -> None:
        """See that rates can be drawn at before anything is trained.

        Raises:
            InputError: powers outside [-10, 10], beta outside [0, 1), or both a power and a beta.
        """
        if self.power is not None and self.beta is not None:
            raise InputError(
                f"expected power or beta of the sampler, got power={self.power!r} and beta={self.beta!r}; give one"
            )
        for power in self.power if isinstance(self.power, tuple) else (self.power,):
            if power is not None:
                power_rate(counts.counts, power)
        if self.beta is not None:
            effective_number_rate(counts.counts, self.beta)

    def check_epochs(self, epochs: int) -> None:
        """See that rates that move have the epochs for it: they stay the same within one.

        Raises:
            InputError: they move, and the stage has one epoch.
        """
        if self.moves and epochs < 2:
            raise InputError(
                "expected two epochs or more for draws whose rates move from epoch to epoch, got one; train longer, or "
                "draw at one power"
            )


NATURAL, BALANCED = Draw(), Draw(0.0)


def as_power(value: Any) -> Power | None:
    """A power, or ``FROM..TO`` as the pair of the rates that move, from text or as it is.

    Raises:
        InputError: neither.

    Example:
        >>> as_power("1..0"), as_power(0.5)
        ((1.0, 0.0), 0.5)
    """
    if isinstance(value, str):
        number = r"([-+]?(?:\d+\.?\d*|\.\d+))"
        found = re.fullmatch(rf"{number}\.\.{number}", value)
        if found is None:
            raise InputError(
                f"expected power as a number, or as FROM..TO, got {value!r:.60}; 0 draws all classes equally often, "
                "1..0 moves from natural to balanced draws"
            )
        return float(found[1]), float(found[2])
    found_power: Power | None = value
    return found_power
