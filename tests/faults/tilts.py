"""Faults of weights and samplers: exact tilts of the posteriors, p_train proportional to p(y|x) w_y q_y / pi_y."""

from __future__ import annotations

import numpy as np

from .cases import Plan, causes, given, variant, weighs
from .worlds import Floats, World, log_softmax, softmax

ANY = ("all", "weights", "counts", "nothing")
WEIGHTS = ("all", "weights")
COLLINEAR = 0.95


def balanced(world: World) -> Floats:
    return world.counts.sum() / (world.setting.classes * world.counts)


def tilt_plan(world: World, tilt: Floats, acceptable: frozenset[str], why: str = "", **facts: object) -> Plan:
    return Plan(world.tilted(tilt), given(world, **facts), acceptable, why, references=(world.logits,))


def expressed(world: World, tilt: Floats) -> float:
    """The share of a tilt that is there once the network's own biases are added: their slope on the tilt."""
    centred = tilt - world.prior @ tilt
    return 1 + float(world.prior @ (centred * world.quirks.bias) / max(world.prior @ centred**2, 1e-12))


# -- class-weights -------------------------------------------------------------------------------------------------


def proper(world: World, weight: Floats) -> Plan:
    """Weights used as declared: class-weights; undeclared, a sampler would leave the same trace."""
    acceptable = causes("class-weights") if weighs(world) else causes("class-weights", "sampler")
    why = "" if weighs(world) else "undeclared weights and an undeclared sampler leave the same tilt"
    if weighs(world) and not 0.8 < expressed(world, np.log(weight)) < 1.25:
        acceptable, why = acceptable | {"partial-weights"}, "the network's own biases undo or double a mild tilt"
    if world.setting.evaluation == "balanced":
        acceptable, why = acceptable | {"prior-shift"}, "the evaluation prior really differs, and the weights suit it"
    return tilt_plan(world, np.log(weight), acceptable, why, weight=weight)


@variant("class-weights", declared=ANY, evaluations=("natural", "natural", "natural", "balanced"))
def balanced_weights(world: World) -> Plan:
    return proper(world, balanced(world))


@variant("class-weights", declared=WEIGHTS)
def inverse_weights_without_scale(world: World) -> Plan:
    return proper(world, 1.0 / world.counts)


@variant("class-weights", declared=ANY)
def square_root_weights(world: World) -> Plan:
    return proper(world, balanced(world) ** 0.5)


@variant("class-weights", declared=WEIGHTS)
def power_weights(world: World) -> Plan:
    return proper(world, balanced(world) ** world.rng("power").uniform(0.3, 0.9))


@variant("class-weights", declared=WEIGHTS)
def effective_number_weights(world: World) -> Plan:
    beta = world.rng("beta").choice([0.99, 0.999, 0.9999])
    weight = (1 - beta) / (1 - beta ** world.counts.astype(float))
    return proper(world, weight / weight.mean())


@variant("class-weights", declared=WEIGHTS)
def capped_weights(world: World) -> Plan:
    weight = balanced(world)
    return proper(world, np.minimum(weight, world.rng("cap").choice([5.0, 10.0, 50.0]) * weight.min()))


@variant("class-weights", declared=WEIGHTS)
def log_weights(world: World) -> Plan:
    return proper(world, 1 / np.log(1.02 + world.prior))


@variant("class-weights", declared=WEIGHTS)
def add_one_smoothed_weights(world: World) -> Plan:
    return proper(world, 1.0 / (world.counts + 10.0))


# -- partial-weights -----------------------------------------------------------------------------------------------


@variant("partial-weights", declared=WEIGHTS)
def weights_half_expressed(world: World) -> Plan:
    weight, share = balanced(world), world.rng("share").uniform(0.2, 0.6)
    full = world.tilted(np.log(weight))
    return Plan(
        world.tilted(share * np.log(weight)),
        given(world, weight=weight),
        causes("partial-weights"),
        references=(world.logits, full),
    )


@variant("partial-weights", declared=WEIGHTS)
def weights_never_reach_the_loss(world: World) -> Plan:
    weight = balanced(world)
    full = world.tilted(np.log(weight))
    return Plan(world.logits, given(world, weight=weight), causes("partial-weights"), references=(full,))


# -- sampler -------------------------------------------------------------------------------------------------------


def sampled(world: World, power: float) -> Plan:
    rate = world.prior ** (1 - power)
    acceptable = causes("sampler") if weighs(world) else causes("class-weights", "sampler")
    return tilt_plan(world, np.log(rate / world.prior), acceptable, "", sampler=rate / rate.sum())


@variant("sampler", declared=ANY)
def balanced_sampler(world: World) -> Plan:
    return sampled(world, 1.0)


@variant("sampler", declared=WEIGHTS)
def square_root_sampler(world: World) -> Plan:
    return sampled(world, 0.5)


@variant("sampler", declared=WEIGHTS)
def sampler_with_weights_of_one(world: World) -> Plan:
    plan = sampled(world, 1.0)
    ones = np.ones(world.setting.classes)
    return Plan(plan.scores, plan.given | {"class_weight": ones}, plan.acceptable, references=plan.references)


# -- double-correction ---------------------------------------------------------------------------------------------


def doubled(world: World, tilt: Floats, **facts: object) -> Plan:
    """Beyond what one correction would have given: told from the plain model and from a singly corrected one."""
    once = world.tilted(-world.log_prior)
    return Plan(world.tilted(tilt), given(world, **facts), causes("double-correction"), references=(world.logits, once))


@variant("double-correction", declared=ANY, evaluations=("natural", "natural", "balanced"))
def weights_and_sampler(world: World) -> Plan:
    uniform = np.full(world.setting.classes, 1 / world.setting.classes)
    return doubled(world, -2 * world.log_prior, weight=balanced(world), sampler=uniform)


@variant("double-correction", declared=WEIGHTS)
def weights_and_undeclared_sampler(world: World) -> Plan:
    return doubled(world, -2 * world.log_prior, weight=balanced(world))


@variant("double-correction", declared=WEIGHTS)
def weights_and_square_root_sampler(world: World) -> Plan:
    rate = world.prior**0.5
    return doubled(world, -1.5 * world.log_prior, weight=balanced(world), sampler=rate / rate.sum())


@variant("double-correction", declared=WEIGHTS)
def weights_squared(world: World) -> Plan:
    return doubled(world, -2 * world.log_prior, weight=balanced(world) ** 2)


@variant("double-correction", declared=WEIGHTS)
def weights_applied_twice(world: World) -> Plan:
    return doubled(world, -1.9 * world.log_prior, weight=balanced(world), config={"reduction": "mean"})


@variant("double-correction", declared=WEIGHTS)
def weights_and_balanced_softmax(world: World) -> Plan:
    return doubled(world, -2 * world.log_prior, weight=balanced(world), config={"loss": "balanced-softmax"})


# -- inverted-weights ----------------------------------------------------------------------------------------------


@variant("inverted-weights", declared=WEIGHTS)
def weights_proportional_to_counts(world: World) -> Plan:
    weight = world.prior * world.setting.classes
    return tilt_plan(world, np.log(weight), causes("inverted-weights"), weight=weight)


@variant("inverted-weights", declared=WEIGHTS)
def root_weights_proportional_to_counts(world: World) -> Plan:
    weight = (world.prior * world.setting.classes) ** 0.5
    return tilt_plan(world, np.log(weight), causes("inverted-weights"), weight=weight)


@variant("inverted-weights", declared=WEIGHTS)
def declared_right_but_divided(world: World) -> Plan:
    return tilt_plan(world, world.log_prior, causes("inverted-weights"), weight=balanced(world))


@variant("inverted-weights", declared=("counts", "nothing"))
def undeclared_inversion(world: World) -> Plan:
    acceptable = causes("inverted-weights")
    if world.setting.declared == "nothing":
        acceptable |= {"prior-shift"}
    why = "without training counts a more skewed training prior looks the same"
    return tilt_plan(world, world.log_prior, acceptable, why)


# -- misordered-weights --------------------------------------------------------------------------------------------


def string_order(world: World) -> Floats:
    return np.argsort(np.arange(world.setting.classes).astype(str))


def shift_order(world: World) -> Floats:
    return np.roll(np.arange(world.setting.classes), world.rng("shift").choice([-1, 1]))


def reversed_order(world: World) -> Floats:
    return np.arange(world.setting.classes)[::-1]


def frequency_order(world: World) -> Floats:
    return np.argsort(-world.counts, kind="stable")


def random_order(world: World) -> Floats:
    return world.rng("order").permutation(world.setting.classes)


def names(world: World) -> list[str]:
    """Names in random alphabetical order, as labels of a data set come."""
    rng = world.rng("names")
    syllables = ["ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu"]
    return ["".join(rng.choice(syllables, 4)) + str(k) for k in rng.permutation(world.setting.classes)]


def name_order(world: World) -> Floats:
    return np.argsort(np.array(names(world)), kind="stable")


def wrong_order(world: World, order: Floats, **facts: object) -> Plan:
    """Balanced weights in a wrong order; `used` is declared as it was used, `right` as it should have been."""
    right = balanced(world)
    used = right[order] if world.rng("direction").random() < 0.6 else right[np.argsort(order)]
    as_used = weighs(world) and world.rng("declared").random() < 0.5
    acceptable, why = causes("misordered-weights"), ""
    if np.corrcoef(np.log(used), world.log_prior)[0, 1] > COLLINEAR:
        acceptable, why = acceptable | {"inverted-weights"}, "in this order the weights are exactly inverted"
        if world.setting.declared == "nothing":  # as for undeclared_inversion, whose arrays are the same
            acceptable |= {"prior-shift"}
    return Plan(
        world.tilted(np.log(used)),
        given(world, weight=used if as_used else right, **facts),
        acceptable,
        why,
        references=(world.logits, world.tilted(np.log(right))),
        visible=as_used and world.setting.declared == "all",
    )


@variant("misordered-weights", declared=ANY, classes=(11, 100_000))
def weights_in_string_order(world: World) -> Plan:
    return wrong_order(world, string_order(world))


@variant("misordered-weights", declared=ANY, classes=(5, 100_000))
def weights_shifted_by_one(world: World) -> Plan:
    return wrong_order(world, shift_order(world))


@variant("misordered-weights", declared=ANY, classes=(5, 100_000))
def weights_reversed(world: World) -> Plan:
    return wrong_order(world, reversed_order(world))


@variant("misordered-weights", declared=ANY, classes=(5, 100_000))
def weights_in_frequency_order(world: World) -> Plan:
    return wrong_order(world, frequency_order(world))


@variant("misordered-weights", declared=("all",), classes=(10, 100_000))
def weights_in_name_order(world: World) -> Plan:
    return wrong_order(world, name_order(world), class_names=names(world))


@variant("misordered-weights", declared=("all",), classes=(10, 100_000))
def weights_in_random_order(world: World) -> Plan:
    plan = wrong_order(world, random_order(world))
    if plan.visible:
        return plan
    why = "an arbitrary order cannot be named: that the declared weights are not what was expressed is all one sees"
    acceptable = plan.acceptable | {"partial-weights", "foreign-weights"}
    return Plan(plan.scores, plan.given, acceptable, why, references=plan.references)


# -- incomplete-weights --------------------------------------------------------------------------------------------


def broken(world: World, used: Floats, declared: Floats, effect: float | None = None) -> Plan:
    right = world.tilted(np.log(balanced(world)))
    scores = world.tilted(np.log(used))
    facts = given(world, weight=declared)
    return Plan(scores, facts, causes("incomplete-weights"), references=(right,), visible=True, effect=effect)


def some_classes(world: World, at_least: int = 1) -> Floats:
    """A few classes of the rarer half: those that go missing from a split."""
    rarer = np.argsort(world.counts)[: max(at_least, world.setting.classes // 2)]
    return world.rng("some").choice(rarer, size=max(at_least, world.setting.classes // 50), replace=False)


@variant("incomplete-weights", declared=WEIGHTS, classes=(3, 100_000))
def one_weight_too_few(world: World) -> Plan:
    weight = balanced(world)
    missing = some_classes(world)[0]
    return broken(world, weight, np.delete(weight, missing), effect=1.0)


@variant("incomplete-weights", declared=WEIGHTS)
def weights_with_nan(world: World) -> Plan:
    weight, declared = balanced(world), balanced(world)
    declared[some_classes(world)] = np.nan
    return broken(world, weight, declared, effect=1.0)


@variant("incomplete-weights", declared=WEIGHTS)
def weights_with_infinity(world: World) -> Plan:
    weight, declared = balanced(world), balanced(world)
    declared[some_classes(world)] = np.inf
    return broken(world, weight, declared, effect=1.0)


@variant("incomplete-weights", declared=WEIGHTS, classes=(5, 100_000))
def weights_with_zero(world: World) -> Plan:
    used, declared = balanced(world), balanced(world)
    zeros = some_classes(world)
    used[zeros], declared[zeros] = 1e-6, 0.0
    return broken(world, used, declared, effect=1.0)


@variant("incomplete-weights", declared=("all",), classes=(20, 100_000))
def missing_keys_became_one(world: World) -> Plan:
    """Keras gives a class that the dictionary lacks the weight 1; planted where 1 is at least 3 times too small."""
    used = balanced(world)
    heavy = np.flatnonzero(used > 3)
    chosen = world.rng("keys").permutation(heavy)[: max(3, world.setting.classes // 20)]
    used[chosen] = 1.0
    return broken(world, used, used, effect=None if len(chosen) >= 3 else 0.0)


# -- foreign-weights -----------------------------------------------------------------------------------------------


def foreign(world: World, counts: Floats) -> Plan:
    weight = counts.sum() / (world.setting.classes * counts)
    right = world.tilted(np.log(balanced(world)))
    facts = given(world, weight=weight)
    return Plan(world.tilted(np.log(weight)), facts, causes("foreign-weights"), references=(right,), visible=True)


@variant("foreign-weights", classes=(10, 100_000))
def weights_of_another_split(world: World) -> Plan:
    factor = world.rng("split").lognormal(0, world.rng("spread").uniform(0.7, 1.2), world.setting.classes)
    return foreign(world, np.maximum(1, np.round(world.counts * factor)))


@variant("foreign-weights", classes=(10, 100_000))
def weights_before_filtering(world: World) -> Plan:
    rng = world.rng("filter")
    factor = np.ones(world.setting.classes)
    chosen = rng.permutation(world.setting.classes)[: max(2, world.setting.classes // 5)]
    factor[chosen] = rng.uniform(5, 30, len(chosen))
    return foreign(world, np.round(world.counts * factor))


# -- smoothing-with-weights ----------------------------------------------------------------------------------------


@variant("smoothing-with-weights", declared=("all",), classes=(5, 100_000))
def smoothing_beyond_the_threshold(world: World) -> Plan:
    """w_k [(1 - e) p_k + e / K], where balanced weights make a rare class beat a certain frequent one."""
    classes, smoothing = world.setting.classes, world.rng("smoothing").choice([0.1, 0.2, 0.3])
    weight = balanced(world)
    mixed = np.log((1 - smoothing) * softmax(world.logits) + smoothing / classes)
    inverts = world.counts.max() / world.counts.min() > classes * (1 - smoothing) / smoothing + 1
    return Plan(
        log_softmax(mixed + np.log(weight)),
        given(world, weight=weight, config={"label_smoothing": float(smoothing)}),
        causes("smoothing-with-weights"),
        references=(world.logits, world.tilted(np.log(weight))),
        effect=None if inverts else 0.0,
        visible=True,
    )
