"""What is found out about the class prior of unlabelled rows, and the correction that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.correction import Correction
from evenhand.correction.effects import WORTH
from evenhand.declared import Floats, Ints
from evenhand.shift.confusion import CrossCheck
from evenhand.shift.intervals import LESS, MORE


@dataclass(frozen=True, eq=False, repr=False)
class PriorEstimate:
    """Class frequencies of unlabelled rows, compared with those the model answers for. Built by `estimate_prior`.

    Attributes:
        answer: ``moved``, ``same`` or ``too-little-data``.
        prior: (K,) estimate q, sums to 1. interval: (K, 2) of level 1 - alpha. train_prior: (K,) pi.
        average: (K,) mean posterior of the rows, what plain averaging would answer.
        p_value, statistic, df: test of "no shift", see `evenhand.shift.score`. likelihood_ratio: 2 (l(q) - l(pi)).
        distance, distance_interval: total variation between q and pi, in [0, 1].
        possible: the largest total variation that the rows leave open (95 %).
        q_value: (K,) false discovery rate at which a class counts as moved. verdict: (K,) ``more often``,
            ``less often``, ``as before``, ``too few rows to judge``.
        cross_check: what the predicted labels say; None without labelled rows.
        expected_accuracy: (before, after) correction to q, as the posteriors foretell it.
        strength: rows that the Dirichlet prior counts for; inf where q is its centre. passes; converged: of EM.
        rows: n. reference_rows: N behind pi, None where pi was given. alpha: level. scale, offset: the calibration.
    """

    answer: str
    prior: Floats
    interval: Floats
    train_prior: Floats
    average: Floats
    p_value: float
    statistic: float
    df: float
    likelihood_ratio: float
    distance: float
    distance_interval: tuple[float, float]
    possible: float
    q_value: Floats
    verdict: tuple[str, ...]
    cross_check: CrossCheck | None
    expected_accuracy: tuple[float, float]
    strength: float
    passes: int
    converged: bool
    rows: int
    reference_rows: int | None
    alpha: float
    scale: float | Floats
    offset: Floats
    names_hash: str | None = None

    @property
    def classes(self) -> int:
        """K."""
        return len(self.prior)

    @property
    def moved(self) -> Ints:
        """Classes that moved, those with the largest change of log frequency first."""
        found = np.flatnonzero([word in (MORE, LESS) for word in self.verdict])
        change = np.abs(np.log(np.maximum(self.prior[found], 1e-300) / self.train_prior[found]))
        return np.asarray(found[np.argsort(-change, kind="stable")], dtype=np.int64)

    def correction(self) -> Correction:
        """``scale z + offset + log(q / pi)``: the calibration moved to the new prior, for `evenhand fix --apply`."""
        held = (self.prior > 0) & (self.train_prior > 0)
        change = np.log(np.where(held, self.prior, 1.0) / np.where(held, self.train_prior, 1.0))
        offset = self.offset + change
        before, after = self.expected_accuracy
        recommended, why = self._judged()
        return Correction(
            scale=self.scale,
            offset=offset - offset.mean(),
            goal="prior",
            model="prior-shift",
            evidence={
                "before": {"accuracy": before},
                "after": {"accuracy": after},
                "without_labels": True,
                "p_value": self.p_value,
                "distance": self.distance,
            },
            rows=self.rows,
            folds=0,
            recommended=recommended,
            why=why,
            names_hash=self.names_hash,
        )

    def _judged(self) -> tuple[bool, str]:
        before, after = self.expected_accuracy
        if self.answer == "too-little-data":
            return False, "not recommended: too few rows to say whether class frequencies have moved"
        if self.answer == "same":
            return False, "not recommended: class frequencies have not moved"
        if self.cross_check is not None and not self.cross_check.agrees:
            return False, "not recommended: the predicted labels contradict a shift of class frequencies alone"
        if after - before < WORTH:
            return False, "not recommended: the expected gain in accuracy is below 0.1 points"
        return True, f"recommended: accuracy is expected to rise by {100 * (after - before):.1f} points on the new rows"

    def to_dict(self) -> dict[str, Any]:
        """The estimate as JSON values, schema ``evenhand.shift/1``."""
        from evenhand.shift.words import to_dict

        return to_dict(self)

    def __repr__(self) -> str:
        return (
            f"<PriorEstimate: {self.answer}, p {self.p_value:.3g}, total variation {self.distance:.3f}, "
            f"{len(self.moved)} of {self.classes:,} classes moved, {self.rows:,} rows>"
        )
