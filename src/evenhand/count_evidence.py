"""What labels, counts and declarations tell by themselves: the part of the evidence that needs no fit to scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evenhand.declared import Declared, Floats, Ints
from evenhand.homogeneity import Homogeneity, lopsided_pairs, noise_floor, stuart_maxwell
from evenhand.plan import Plan, declared_plan
from evenhand.priors import Shift, counts_by_weight, prior_shift, smoothed_log_prior
from evenhand.regression import CountSlope, count_slope
from evenhand.scatter import Scatter
from evenhand.tally import Tally
from evenhand.weight_vector import WeightVector, spearman


@dataclass(frozen=True)
class CountEvidence:
    """One tally, what was declared, and the figures that follow from counts; expensive ones on first use.

    Attributes:
        tally: the statistics. train: the tally of training rows, if their predictions were given.
        threads: for the fits.
    """

    tally: Tally
    train: Tally | None = None
    threads: int = 1

    @property
    def declared(self) -> Declared:
        """What the user said."""
        return self.tally.declared

    @property
    def rows(self) -> int:
        """N."""
        return self.tally.rows

    @property
    def classes(self) -> int:
        """K."""
        return self.tally.classes

    @property
    def accuracy(self) -> float:
        """Share of right rows."""
        return float(self.tally.hits.sum() / self.rows)

    @property
    def scored(self) -> bool:
        """Whether there are scores (logits or probabilities), not labels alone."""
        return self.tally.kind != "predicted"

    @cached_property
    def false_negative(self) -> Ints:
        """(K,) rows of the class answered as another."""
        return self.tally.true - self.tally.hits

    @cached_property
    def false_positive(self) -> Ints:
        """(K,) rows of other classes answered as this one."""
        return self.tally.predicted - self.tally.hits

    @cached_property
    def homogeneity(self) -> Homogeneity:
        """Stuart-Maxwell test of predicted against true counts."""
        t = self.tally
        return stuart_maxwell(t.edge_true, t.edge_predicted, t.edge_count, self.classes)

    @cached_property
    def pairs(self) -> dict[str, Any]:
        """Every confused pair of classes once, with the test of its two directions."""
        t = self.tally
        return lopsided_pairs(t.edge_true, t.edge_predicted, t.edge_count, self.classes)

    @cached_property
    def hard_distance(self) -> float:
        """Total variation between predicted and true counts."""
        return float(np.abs(self.tally.predicted - self.tally.true).sum() / (2 * self.rows))

    @cached_property
    def soft_distance(self) -> float | None:
        """Total variation between soft and true counts."""
        soft = self.tally.soft
        return None if soft is None else float(np.abs(soft - self.tally.true).sum() / (2 * self.rows))

    @cached_property
    def noise(self) -> float:
        """Total variation that chance alone would bring, given the errors made."""
        return noise_floor(self.false_positive, self.false_negative, self.rows)

    @cached_property
    def soft_noise(self) -> float:
        """The same for soft counts: sum over classes of sqrt(2 / pi sum_i p(1 - p)) / 2 N."""
        if self.tally.soft is None or self.tally.soft_square is None:
            return 0.0
        variance = np.maximum(self.tally.soft - self.tally.soft_square, 0)
        return float(np.sqrt(2 / np.pi * variance).sum() / (2 * self.rows))

    @property
    def train_given(self) -> bool:
        """Whether training counts were given (else the evaluation counts stand in)."""
        return self.declared.train_counts is not None

    @cached_property
    def prior_counts(self) -> Floats:
        """(K,) counts that stand for the training prior."""
        if self.declared.train_counts is not None:
            return self.declared.train_counts
        return self.tally.true.astype(np.float64) if self.counts_by_weight is None else self.counts_by_weight

    @cached_property
    def counts_by_weight(self) -> Floats | None:
        """(K,) smooth stand-in counts by the declared weights, see `priors.counts_by_weight`."""
        w = self.declared.class_weight
        if self.train_given or w is None or len(w) != self.classes:
            return None
        return counts_by_weight(self.tally.true.astype(np.float64), w)

    @cached_property
    def log_prior(self) -> Floats:
        """(K,) log pi, finite."""
        if self.counts_by_weight is not None:
            # Smooth already: with fewer rows than classes, half a row more for each would level them and stretch tau.
            return np.asarray(np.log(self.counts_by_weight / self.counts_by_weight.sum()))
        return smoothed_log_prior(self.prior_counts)

    @cached_property
    def imbalanced(self) -> bool:
        """Whether class frequencies differ enough for a tilt to mean anything."""
        weight = np.exp(self.log_prior)
        spread = np.sqrt(np.average((self.log_prior - weight @ self.log_prior) ** 2, weights=weight))
        if self.train_given or self.counts_by_weight is not None:
            return bool(spread > 0.05)
        # Counts of equally frequent classes scatter too: the spread must exceed that of a multinomial sample.
        n = self.tally.true
        even = Scatter(n - n.mean(), np.full(len(n), n.mean()))
        return bool(spread > max(0.05, 1.5 * np.sqrt(np.count_nonzero(n) / self.rows)) or (even.z > 8 and spread > 0.3))

    @cached_property
    def shift(self) -> Shift | None:
        """Difference between evaluation and training prior; None without training counts."""
        given = self.declared.train_counts
        return None if given is None else prior_shift(self.tally.true, given)

    @cached_property
    def offset(self) -> Floats:
        """(K,) log(evaluation prior / training prior) where they differ beyond noise, else zero."""
        return self.shift.offset if self.shift is not None and self.shift.present else np.zeros(self.classes)

    @property
    def bias_weight_for_plan(self) -> Floats:
        """(K,) weights for slopes and correlations over classes: rows, true and soft, that speak about the class."""
        soft = self.tally.soft if self.tally.soft is not None else self.tally.predicted
        return np.asarray(np.sqrt(np.maximum(self.tally.true + soft, 0.0)))

    @cached_property
    def weight_vector(self) -> WeightVector | None:
        """The declared weights beside the counts of their classes; None without weights or at a wrong length."""
        w = self.declared.class_weight
        if w is None or len(w) != self.classes:
            return None
        counts = self.prior_counts if self.train_given else self.tally.true.astype(np.float64)
        return WeightVector(w, counts, self.train_given, self.declared.class_names)

    @cached_property
    def pattern(self) -> CountSlope | None:
        """Slope of log predicted on log true counts, over classes that occur; None if those are equally frequent."""
        occurring = self.tally.true > 0
        return count_slope(
            self.tally.predicted[occurring].astype(np.float64), np.log(self.tally.true[occurring].astype(np.float64))
        )

    @cached_property
    def spearman(self) -> float:
        """Rank correlation of predicted and true counts, over classes that occur."""
        occurring = self.tally.true > 0
        return spearman(
            self.tally.predicted[occurring].astype(np.float64), self.tally.true[occurring].astype(np.float64)
        )

    @cached_property
    def plan(self) -> Plan | None:
        """The declared weights and sampler as a direction; None if nothing usable was declared or it is constant."""
        return declared_plan(self.declared, self.log_prior, self.bias_weight_for_plan)
