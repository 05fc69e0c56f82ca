"""Worlds whose truth is known: Gaussian classes, exact posteriors, and what sound networks make of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PROFILES = (
    "zipf-0.6",
    "zipf-1",
    "zipf-1.4",
    "exponential-30",
    "exponential-300",
    "step-20",
    "step-100",
    "lognormal",
    "dominant",
    "balanced",
)
PROBE_ROWS = 400
EFFECT_ROWS = 1000


@dataclass(frozen=True)
class Setting:
    """Everything that makes a case, apart from the fault itself. The same setting always gives the same case.

    Attributes:
        seed: of every random draw.
        classes, rows: K and N.
        profile: shape of the training counts, one of PROFILES.
        shuffled: whether class indices are in random order; otherwise the most frequent class is class 0.
        skill: how far the accuracy of exact posteriors lies between always answering the most frequent class (0) and
            never erring (1).
        model: ``exact`` posteriors, or ``noisy``: what soundly trained networks show (see `Quirks`).
        declared: ``all``, ``weights`` (weights and sampler), ``counts`` (training counts) or ``nothing``.
        evaluation: ``natural`` (the training prior) or ``balanced``.
        kind: ``logits``, ``probs`` or ``predicted``.
        dtype: of the stored scores.
    """

    seed: int
    classes: int = 100
    rows: int = 5000
    profile: str = "zipf-1"
    shuffled: bool = True
    skill: float = 0.5
    model: str = "exact"
    declared: str = "all"
    evaluation: str = "natural"
    kind: str = "logits"
    dtype: str = "float32"


def profile_prior(profile: str, classes: int, rng: np.random.Generator) -> Floats:
    """(K,) prior, most frequent class first."""
    name, _, parameter = profile.partition("-")
    rank = np.arange(classes, dtype=float)
    if name == "zipf":
        shape = (rank + 1) ** -float(parameter)
    elif name == "exponential":
        shape = float(parameter) ** -(rank / max(classes - 1, 1))
    elif name == "step":
        shape = np.where(rank < classes / 2, float(parameter), 1.0)
    elif name == "lognormal":
        shape = np.sort(rng.lognormal(0, 1.3, classes))[::-1]
    elif name == "dominant":
        rest = np.sort(rng.lognormal(0, 0.4, classes))[::-1]
        shape = np.where(rank == 0, 1.2 * rest[1:].sum(), rest)
    elif name == "balanced":
        shape = np.ones(classes)
    else:
        raise ValueError(f"unknown profile {profile}")
    return shape / shape.sum()


def log_softmax(logits: Floats, axis: int = -1) -> Floats:
    shifted = logits - logits.max(axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):
        return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def softmax(logits: Floats, axis: int = -1) -> Floats:
    return np.exp(log_softmax(logits, axis))


@dataclass(frozen=True)
class Quirks:
    """What a sound network adds to exact posteriors.

    Attributes:
        beta: 1 when calibrated, below 1 when overconfident: the logits are divided by it.
        bias: (K,) free class biases, among them a little tilt.
        features: (N, D) what the network sees instead of the features, or None.
    """

    beta: float
    bias: Floats
    features: Floats | None

    @classmethod
    def none(cls, world: World) -> Quirks:
        return cls(1.0, np.zeros(world.setting.classes), None)

    @classmethod
    def usual(cls, world: World, rng: np.random.Generator) -> Quirks:
        """What soundly trained networks show: beta 0.75 to 1.1, |tau| below 0.15, small free biases, noisy features."""
        beta, tau = rng.uniform(0.75, 1.1), np.clip(rng.normal(0, 0.07), -0.15, 0.15)
        bias = rng.normal(0, rng.uniform(0.02, 0.1), world.setting.classes) - tau * world.log_prior
        return cls(float(beta), bias, world.features + rng.normal(0, 0.1, world.features.shape))


@dataclass(frozen=True)
class World:
    """Classes, training counts and evaluation rows; `logits` are those of a sound model on these rows."""

    setting: Setting
    counts: Ints
    means: Floats
    features: Floats
    target: Ints

    @property
    def prior(self) -> Floats:
        return self.counts / self.counts.sum()

    @property
    def log_prior(self) -> Floats:
        return np.log(self.prior)

    @cached_property
    def truth(self) -> Floats:
        """(N, K) logits of the exact posteriors under the training prior."""
        return posterior_logits(self.features, self.means, self.log_prior)

    @cached_property
    def quirks(self) -> Quirks:
        return Quirks.none(self) if self.setting.model == "exact" else Quirks.usual(self, self.rng("model"))

    @cached_property
    def logits(self) -> Floats:
        return self.tilted(np.zeros(self.setting.classes))

    def tilted(self, tilt: Floats) -> Floats:
        """Logits of the same network trained under a tilt (K,): what it overstates, it overstates as a whole."""
        quirks = self.quirks
        seen = self.truth if quirks.features is None else posterior_logits(quirks.features, self.means, self.log_prior)
        return (seen + tilt + quirks.bias) / quirks.beta

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for every purpose, so that one more draw here changes nothing there."""
        return np.random.default_rng([self.setting.seed, *purpose.encode()])


def posterior_logits(features: Floats, means: Floats, log_prior: Floats) -> Floats:
    """log p(x|k) + log pi_k up to a constant per row, for unit Gaussians around the means."""
    return features @ means.T - 0.5 * (means**2).sum(axis=1) + log_prior


def make_world(setting: Setting, *, train_rows: int | None = None, dimension: int | None = None) -> World:
    rng = np.random.default_rng(setting.seed)
    classes = setting.classes
    prior = profile_prior(setting.profile, classes, rng)
    total = train_rows or max(60 * classes, 20_000)
    counts = np.maximum(1, np.round(prior * total)).astype(np.int64)
    if setting.shuffled:
        counts = rng.permutation(counts)
    prior = counts / counts.sum()
    size = dimension or (8 if classes <= 20 else 16 if classes <= 100 else 32 if classes <= 1000 else 48)
    directions = rng.normal(size=(classes, size))
    means = directions * _scale_for(setting.skill, directions, prior, rng)
    drawn = prior if setting.evaluation == "natural" else np.full(classes, 1 / classes)
    target = rng.choice(classes, size=setting.rows, p=drawn)
    features = means[target] + rng.normal(size=(setting.rows, size))
    return World(setting, counts, means, features, target)


def _scale_for(skill: float, directions: Floats, prior: Floats, rng: np.random.Generator) -> float:
    """Spread of the class means that gives exact posteriors the wanted accuracy, by bisection on probe rows."""
    wanted = prior.max() + skill * (1 - prior.max())
    label = rng.choice(len(prior), size=PROBE_ROWS, p=prior)
    noise = rng.normal(size=(PROBE_ROWS, directions.shape[1]))
    low, high = 0.02, 8.0
    for _ in range(9):
        scale = (low * high) ** 0.5
        means = scale * directions
        right = posterior_logits(means[label] + noise, means, np.log(prior)).argmax(axis=1) == label
        low, high = (scale, high) if right.mean() < wanted else (low, scale)
    return (low * high) ** 0.5


def difference(reference: Floats, faulty: Floats) -> tuple[float, float]:
    """How much a fault changes the answers: (effect, nats per row).

    effect: the larger of the mean total variation between the two posteriors and the share of rows whose argmax
    changes. nats: the smaller of the two mean Kullback-Leibler divergences, what one row tells an oracle that knows
    both models.
    """
    a, b = log_softmax(reference[:EFFECT_ROWS]), log_softmax(faulty[:EFFECT_ROWS])
    p, q = np.exp(a), np.exp(b)
    variation = 0.5 * np.abs(p - q).sum(axis=1).mean()
    switched = (reference[:EFFECT_ROWS].argmax(axis=1) != faulty[:EFFECT_ROWS].argmax(axis=1)).mean()
    with np.errstate(invalid="ignore"):
        forward = np.where(p > 0, p * (a - b), 0).sum(axis=1).mean()
        backward = np.where(q > 0, q * (b - a), 0).sum(axis=1).mean()
    return float(max(variation, switched)), float(min(forward, backward))
