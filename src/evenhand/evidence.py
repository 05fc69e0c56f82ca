"""Evidence: the figures that every cause looks at, computed once from a tally."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evenhand.biases import BiasFit, explained_share, fit_biases, one_step_biases, soft_counts
from evenhand.count_evidence import CountEvidence
from evenhand.declared import Floats, Ints
from evenhand.likelihood import Likelihood, Part, Singles, centred_rows
from evenhand.orders import weighted_correlation
from evenhand.priors import fold_log_priors
from evenhand.scatter import Scatter, steadied
from evenhand.tilt import TiltFit, fit_beta, maximise

HOPELESS = -500.0  # a true class this far below the maximum was masked, not scored
MEASURABLE = 20.0  # an interval of tau wider than this is no measurement
SMALL_BIAS = 0.2  # class biases of this standard deviation are fitted by one Newton step to within a per cent
ENOUGH_ROWS = 20  # below this not even a tilt of one can be told from none


@dataclass(frozen=True)
class Evidence(CountEvidence):
    """One tally, what was declared, and every figure derived from them, fits included; expensive ones on first use."""

    @cached_property
    def sample_top(self) -> Singles:
        """(rows of the sample,) largest score of each row."""
        return np.asarray(self.tally.sample.scores.max(axis=1, initial=-np.inf))

    @cached_property
    def usable_rows(self) -> Ints:
        """Sample rows whose true class is not masked (-inf, -1e9): one such row would drown all others."""
        sample = self.tally.sample
        if not len(sample.target):
            return np.empty(0, np.int64)
        gap = sample.scores[np.arange(len(sample.target)), sample.target] - self.sample_top
        return np.flatnonzero(gap > HOPELESS)

    @cached_property
    def z(self) -> Singles:
        """(n, K) centred logits of the usable sample rows."""
        scores = self.tally.sample.scores
        return centred_rows(scores if len(self.usable_rows) == len(scores) else scores[self.usable_rows])

    @cached_property
    def y(self) -> Ints:
        """(n,) labels of the usable sample rows."""
        return self.tally.sample.target[self.usable_rows]

    @cached_property
    def fitted(self) -> bool:
        """Whether a likelihood fit is possible at all."""
        return self.scored and len(self.y) >= ENOUGH_ROWS

    def parts(self, *directions: Floats, prior_first: bool = True) -> tuple[Part, ...]:
        """Rows with their offset and directions; the first direction is the (cross-fitted) log prior if asked."""
        extra = [d - d.mean() for d in directions]
        if not prior_first or self.train_given or self.counts_by_weight is not None:
            columns = ([self.log_prior - self.log_prior.mean()] if prior_first else []) + extra
            return (Part(slice(None), self.offset, _columns(columns, self.classes)),)
        folds = fold_log_priors(self.tally.true, self.y)
        return tuple(Part(rows, self.offset, _columns([a - a.mean(), *extra], self.classes)) for rows, a in folds)

    @cached_property
    def fit(self) -> TiltFit | None:
        """(beta, tau) along the log prior; None for labels only, too few rows or equally frequent classes."""
        if not self.fitted or not self.imbalanced:
            return None
        start = np.array([self.beta_only[0], 0.0])
        fit = maximise(Likelihood(self.z, self.y, self.parts(), self.threads), start=start)
        # Rows of one class, or answers that are all right, say nothing about the tilt: no number is better than any.
        return fit if np.ptp(fit.tau_interval[0]) < MEASURABLE else None

    @cached_property
    def beta_only(self) -> tuple[float, float]:
        """(beta, log-likelihood) with no tilt."""
        parts = (Part(slice(None), self.offset, np.zeros((self.classes, 0))),)
        return fit_beta(Likelihood(self.z, self.y, parts, self.threads))

    @cached_property
    def beta(self) -> float:
        """Inverse temperature of the best fit available."""
        return self.fit.beta if self.fit is not None else self.beta_only[0]

    @cached_property
    def around_fit(self) -> tuple[Part, ...]:
        """Rows with the fitted tilt as their constant."""
        tau = self.fit.tau if self.fit is not None else np.zeros(1)
        return tuple(Part(p.rows, p.offset + p.directions @ tau, p.directions) for p in self.parts())

    @cached_property
    def around(self) -> tuple[float, Floats, Floats]:
        """(log-likelihood, true - soft counts (K,), information (K,)) of the sample at the fitted tilt."""
        zero = np.zeros(self.classes)
        likelihood, soft, v = soft_counts(self.z, self.y, self.beta, self.around_fit, zero, threads=self.threads)
        return likelihood, np.bincount(self.y, minlength=self.classes) - soft, v

    @cached_property
    def scatter(self) -> tuple[float, Floats]:
        """(variance, information (K,)) of the class biases that are left around the fitted tilt."""
        left = Scatter(*self.around[1:])
        return left.variance, left.information

    @cached_property
    def untilted(self) -> tuple[Floats, Floats]:
        """(true - soft counts, information), each (K,), of the sample at the best temperature without any tilt."""
        parts = (Part(slice(None), self.offset, np.zeros((self.classes, 0))),)
        beta = self.beta_only[0]
        _, soft, v = soft_counts(self.z, self.y, beta, parts, np.zeros(self.classes), threads=self.threads)
        return np.bincount(self.y, minlength=self.classes) - soft, v

    def score_along(self, direction: Floats) -> float:
        """Score statistic of a direction at no tilt, in standard deviations: O(K), to sift many candidates."""
        gap, v = self.untilted
        d = direction - np.average(direction, weights=v + 1e-12)
        return float(gap @ d / np.sqrt(max(float(v @ d**2), 1e-300)))

    @cached_property
    def plan_scatter(self) -> Scatter:
        """What is left of the class biases around the fitted plan (around the fitted tilt if there is no plan)."""
        if self.plan_fit is None or self.plan is None:
            return Scatter(*self.around[1:])
        return self.scatter_around(self.plan.direction, self.plan_fit)

    def scatter_around(self, direction: Floats, fit: TiltFit) -> Scatter:
        """What a fit along one direction (without the log prior) leaves of the class biases of the sample."""
        parts = tuple(
            Part(p.rows, p.offset + p.directions @ fit.tau, p.directions)
            for p in self.parts(direction, prior_first=False)
        )
        _, soft, v = soft_counts(self.z, self.y, fit.beta, parts, np.zeros(self.classes), threads=self.threads)
        return Scatter(np.bincount(self.y, minlength=self.classes) - soft, v)

    @cached_property
    def tau_judged(self) -> tuple[float, float, float]:
        """(tau, low, high) along the log prior, for judging; no fit: (0, -inf, inf)."""
        if self.fit is None:
            return 0.0, -np.inf, np.inf
        tau, low, high, _ = steadied(self.fit)
        return tau, *Scatter(*self.around[1:]).widened(tau, low, high, self.log_prior)

    @cached_property
    def fraction_judged(self) -> tuple[float, float, float]:
        """(f, low, high) along the declared plan, for judging; no fit: (0, -inf, inf)."""
        if self.plan_fit is None or self.plan is None:
            return 0.0, -np.inf, np.inf
        fraction, low, high, _ = steadied(self.plan_fit)
        return fraction, *self.plan_scatter.widened(fraction, low, high, self.plan.direction)

    @cached_property
    def shift_gain(self) -> float:
        """Log-likelihood that the known prior difference brings to the model as it is."""
        if self.shift is None or not self.shift.present or not self.fitted:
            return 0.0
        bare = (Part(slice(None), np.zeros(self.classes), np.zeros((self.classes, 0))),)
        return self.beta_only[1] - fit_beta(Likelihood(self.z, self.y, bare, self.threads))[1]

    @cached_property
    def biases(self) -> BiasFit | None:
        """Free class biases around the fitted tilt: one Newton step where they are small, else a full fit."""
        if not self.fitted:
            return None
        if np.sqrt(self.scatter[0]) < SMALL_BIAS:
            likelihood, gap, v = self.around
            return one_step_biases(likelihood, gap, v)
        return self.full_biases

    @cached_property
    def full_biases(self) -> BiasFit:
        """Free class biases by a full fit: those of rare classes may be large where most are small."""
        first = fit_biases(self.z, self.y, self.beta, self.around_fit, threads=self.threads)
        parts = tuple(Part(p.rows, p.offset + first.bias, np.zeros((self.classes, 0))) for p in self.around_fit)
        beta, _ = fit_beta(Likelihood(self.z, self.y, parts, self.threads), self.beta)
        if abs(beta - self.beta) < 0.1 * abs(self.beta):
            return first  # else a wrong tilt had bent the temperature, and that the biases
        return fit_biases(self.z, self.y, beta, self.around_fit, threads=self.threads, start=first.bias)

    @cached_property
    def free_bias(self) -> Floats | None:
        """(K,) all class bias, tilt included: what must be added to the logits, in the direction of ``log pi``."""
        if self.biases is None:
            return None
        return self.biases.bias + self.tilt_bias

    @property
    def tilt_bias(self) -> Floats:
        """(K,) the part of the class bias that the fitted tilt holds."""
        tau = float(self.fit.tau[0]) if self.fit is not None else 0.0
        return np.asarray(tau * (self.log_prior - self.log_prior.mean()))

    @cached_property
    def bias_weight(self) -> Floats:
        """(K,) how much the sample says about the bias of each class."""
        if self.biases is None:
            return self.tally.true.astype(np.float64)
        return np.maximum(self.biases.information, 1e-12)  # rows that are all certain say nothing: all classes alike

    @cached_property
    def share(self) -> float | None:
        """Share of the class-bias likelihood that tau explains; None where there is no class bias to explain."""
        if self.fit is None or self.biases is None:
            return None
        base = self.beta_only[1]
        gain = self.fit.log_likelihood - base
        return explained_share(gain, self.biases.log_likelihood - base, self.biases.freedom)

    @cached_property
    def plan_fit(self) -> TiltFit | None:
        """(beta, f) along the declared direction: f = 1 means that the plan is expressed in full."""
        if self.plan is None or not self.fitted or self.plan.spread < 0.02:
            return None
        return self.fit_along(self.plan.direction)

    def fit_along(self, direction: Floats) -> TiltFit:
        """(beta, f) along one direction (without the log prior)."""
        likelihood = Likelihood(self.z, self.y, self.parts(direction, prior_first=False), self.threads)
        return maximise(likelihood, start=np.array([self.beta, 0.0]))

    def correlation(self, direction: Floats) -> float:
        """Weighted correlation of the free biases with a direction."""
        return 0.0 if self.free_bias is None else weighted_correlation(self.free_bias, direction, self.bias_weight)


def _columns(directions: list[Floats], classes: int) -> Floats:
    return np.stack(directions, axis=1) if directions else np.zeros((classes, 0))
