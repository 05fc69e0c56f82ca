"""Sound models and legitimate choices: nobody must be accused of a fault here."""

from __future__ import annotations

import numpy as np

from .cases import Plan, causes, given, variant
from .worlds import Floats, World, log_softmax, posterior_logits, softmax

ANY = ("all", "counts", "nothing")
FINE = causes("healthy", "argmax-amplification")


def fine(world: World, scores: Floats, *extra: str, why: str = "", target: object = None, **facts: object) -> Plan:
    return Plan(scores, given(world, **facts), FINE | causes(*extra), why, effect=0.0, nats=0.0, target=target)


def kinds(*extra: str) -> tuple[str, ...]:
    return ("logits", "logits", "probs", *extra)


@variant("sound", declared=ANY, kinds=kinds("predicted"), skills=(0.6, 0.9), models=("exact",))
def strong_and_calibrated(world: World) -> Plan:
    return fine(world, world.logits)


@variant("sound", declared=ANY, kinds=kinds("predicted"), skills=(0.05, 0.3), models=("exact",))
def weak_and_calibrated(world: World) -> Plan:
    return fine(world, world.logits)


@variant("sound", declared=ANY, kinds=kinds(), models=("noisy",))
def network_as_usual(world: World) -> Plan:
    return fine(world, world.logits)


@variant("sound", declared=("all",), evaluations=("balanced",), kinds=kinds())
def sound_on_a_balanced_evaluation(world: World) -> Plan:
    return fine(world, world.logits, "prior-shift", why="the evaluation prior really differs from the training prior")


@variant("sound", declared=ANY, kinds=("logits",), models=("exact",))
def overconfident_by_a_tenth(world: World) -> Plan:
    return fine(world, world.logits / 0.9)


@variant("sound", declared=ANY, kinds=("logits",), models=("exact",))
def underconfident_by_a_tenth(world: World) -> Plan:
    return fine(world, 0.91 * world.logits)


@variant("sound", declared=("all", "weights"), kinds=kinds())
def weights_of_one(world: World) -> Plan:
    return fine(world, world.logits, weight=np.ones(world.setting.classes))


@variant("sound", declared=("all", "weights"), kinds=kinds())
def sampler_at_the_natural_rate(world: World) -> Plan:
    return fine(world, world.logits, sampler=world.prior)


@variant("sound", declared=("all", "weights"), kinds=kinds(), classes=(5, 100_000))
def mild_custom_weights(world: World) -> Plan:
    """Costs that have nothing to do with the counts, used and declared as they are."""
    weight = world.rng("custom").uniform(1, 2, world.setting.classes)
    why = "the weights do act, mildly and as asked"
    return fine(world, world.tilted(np.log(weight)), "class-weights", why=why, weight=weight)


@variant("sound", declared=("all", "weights"), kinds=kinds(), classes=(10, 100_000))
def a_few_important_classes(world: World) -> Plan:
    weight = np.ones(world.setting.classes)
    weight[world.rng("custom").permutation(world.setting.classes)[: max(1, world.setting.classes // 20)]] = 3.0
    why = "the weights do act, mildly and as asked"
    return fine(world, world.tilted(np.log(weight)), "class-weights", why=why, weight=weight)


@variant("sound", declared=("all",), kinds=("logits",))
def with_training_rows(world: World) -> Plan:
    """The same sound model on training rows that it did not memorise."""
    rng = world.rng("train")
    label = rng.choice(world.setting.classes, size=3000, p=world.prior)
    features = world.means[label] + rng.normal(size=(3000, world.means.shape[1]))
    scores = posterior_logits(features, world.means, world.log_prior).astype(np.float32)
    return fine(world, world.logits, train_logits=scores, train_target=label)


@variant("sound", declared=("all",), kinds=kinds(), classes=(10, 100_000))
def classes_that_never_occur(world: World) -> Plan:
    """A tenth of the classes, the rarest, has no evaluation rows: their few rows are dropped."""
    absent = np.argsort(world.counts)[: world.setting.classes // 10]
    donor = np.argmax(world.counts)
    hit = np.isin(world.target, absent)
    features = np.where(hit[:, None], world.features - world.means[world.target] + world.means[donor], world.features)
    scores = posterior_logits(features, world.means, world.log_prior)
    return fine(world, scores, target=np.where(hit, donor, world.target))


@variant("sound", declared=("all",), kinds=("logits",))
def smoothing_alone(world: World) -> Plan:
    mixed = 0.9 * softmax(world.logits) + 0.1 / world.setting.classes
    return fine(world, np.log(mixed), config={"label_smoothing": 0.1})


@variant("sound", declared=("all",), kinds=("logits",), models=("exact",), classes=(2, 100))
def focal_loss_alone(world: World) -> Plan:
    return fine(world, focal_optimum(world.logits, 2.0), config={"loss": "focal", "gamma": 2.0})


@variant("sound", declared=ANY, kinds=("logits",))
def named_classes_and_a_large_common_offset(world: World) -> Plan:
    offset = world.rng("offset").normal(0, 8, (world.setting.rows, 1))
    listed = [f"class {k}" for k in range(world.setting.classes)]
    return fine(world, world.logits + offset, class_names=listed)


def focal_optimum(logits: Floats, gamma: float) -> Floats:
    """Logits that minimise the expected focal loss: p_k proportional to 1 / -phi'(q_k), phi(q) = -(1 - q)^gamma log q.

    The multiplier is found per row by bisection on a table of q against -phi'(q).
    """
    grid = -np.expm1(-np.exp(np.linspace(np.log(1e-9), np.log(40), 4000)))
    rest = np.maximum(1 - grid, 1e-17)
    slope = rest**gamma / grid - gamma * rest ** (gamma - 1) * np.log(grid)
    inverse_slope, log_q = -np.log(slope), np.log(grid)
    increasing = np.maximum.accumulate(inverse_slope)
    logs = log_softmax(logits)
    low, high = np.full((len(logs), 1), -40.0), np.full((len(logs), 1), 40.0)
    for _ in range(26):
        middle = (low + high) / 2
        total = np.exp(np.interp(logs + middle, increasing, log_q)).sum(axis=1, keepdims=True)
        low, high = np.where(total < 1, middle, low), np.where(total < 1, high, middle)
    return np.interp(logs + low, increasing, log_q)
