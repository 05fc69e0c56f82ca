"""Decisions on calibrated posteriors: the class of the largest expected utility.

``u_j = gain_j p_j - charge_j - sum_y p_y extra[y, j]``: a right answer j is worth gain_j, answering j at all takes
charge_j, and answering j where y is true takes extra[y, j]. With gains alone the decision is an offset log gain per
class, which a bias can hold; charges and pairs must be worked out from the posteriors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from evenhand.declared import Floats
from evenhand.tilt import Singles


@dataclass(frozen=True, eq=False)
class Decision:
    """What decides between the classes.

    Attributes:
        gain: (K,) float64; above 0 where there is nothing else. charge: (K,) or None. extra: (K, K) sparse or dense,
            [true, decided], or None.
    """

    gain: Floats
    charge: Floats | None = None
    extra: Any = None

    @property
    def additive(self) -> bool:
        """Whether it is an offset per class."""
        return self.charge is None and self.extra is None

    @property
    def offset(self) -> Floats:
        """(K,) log gain, for a decision that is additive."""
        return np.asarray(np.log(self.gain))

    def utilities(self, p: Singles) -> Singles:
        """(n, K) utilities of (n, K) posteriors."""
        u = p * self.gain.astype(np.float32)
        if self.charge is not None:
            u -= self.charge.astype(np.float32)
        if self.extra is not None:
            u -= np.asarray(p @ self.extra, dtype=np.float32)
        return u

    def scaled(self, factor: float) -> Decision:
        """The same decision in other units."""
        charge = None if self.charge is None else self.charge * factor
        return Decision(self.gain * factor, charge, None if self.extra is None else self.extra * factor)

    def stake(self, prior: Floats) -> float:
        """What a row is worth on average; makes decisions comparable before they are mixed."""
        extra = 0.0
        if self.extra is not None:
            most = abs(self.extra).max(axis=1)
            extra = float(prior @ np.asarray(most.toarray() if sparse.issparse(most) else most, np.float64).ravel())
        return float(prior @ np.abs(self.gain)) + extra


def from_offset(offset: Floats) -> Decision:
    """The decision ``argmax(log p + offset)``."""
    return Decision(np.exp(np.clip(offset - offset.mean(), -500, 500)))


def softmax_rows(e: Singles) -> Singles:
    """Posteriors of (n, K) scores, in place."""
    e -= e.max(axis=1, keepdims=True)
    np.exp(e, out=e)
    e /= (e @ np.ones(e.shape[1], np.float32))[:, None]
    return e


def mix(first: Decision, second: Decision, share: float) -> Decision:
    """``(1 - share) first + share second``, term by term: the utilities of a Lagrangian.

    Where both serve metrics that are linear in the outcome of each row, these mixtures for shares from 0 to 1 are all
    the best compromises between the two. Both must be in comparable units, see `Decision.stake`.

    Example:
        >>> mixed = mix(Decision(np.array([1.0, 1.0])), Decision(np.array([1.0, 3.0])), 0.5)
        >>> mixed.gain.tolist(), mixed.additive
        ([1.0, 2.0], True)
    """
    if share <= 0:
        return first
    if share >= 1:
        return second
    a, b = first.scaled(1 - share), second.scaled(share)
    return Decision(a.gain + b.gain, _sum(a.charge, b.charge), _sum(a.extra, b.extra))


def _sum(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def path(first: Decision, second: Decision, prior: Floats, shares: Floats) -> list[Decision]:
    """Decisions from the first to the second, each brought to the same stake before."""
    a, b = first.scaled(1 / first.stake(prior)), second.scaled(1 / second.stake(prior))
    return [mix(a, b, float(share)) for share in shares]
