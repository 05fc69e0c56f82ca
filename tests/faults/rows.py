"""Faults of the data: labels, rows, classes and priors that do not belong together."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, kl_div

from .cases import Plan, causes, given, variant
from .tilts import frequency_order, name_order, names, reversed_order, shift_order, string_order
from .worlds import EFFECT_ROWS, Floats, Ints, World, difference, log_softmax, posterior_logits, softmax

EVERY = ("all", "nothing")


def information(world: World) -> float:
    """Nats that one row tells about its label: mean KL(posterior || prior); less for labels alone."""
    if world.setting.kind == "predicted":
        predicted = world.logits.argmax(axis=1)
        hits, chance = (predicted == world.target).mean(), world.prior[predicted].mean()
        return float(kl_div(hits, chance) + kl_div(1 - hits, 1 - chance))
    logs = log_softmax(world.truth[:EFFECT_ROWS])
    return float((np.exp(logs) * (logs - world.log_prior)).sum(axis=1).mean())


# -- permuted-labels -----------------------------------------------------------------------------------------------


def permuted(world: World, order: Ints, *extra: str, choices: float = 0.0, why: str = "", **facts: object) -> Plan:
    """Labels under another order; a permutation out of e^choices costs an oracle as many nats."""
    target = order[world.target]
    moved = float((target != world.target).mean())
    nats = world.setting.rows * moved * information(world) - choices
    plan_given = given(world, **facts)
    if "train_counts" in plan_given:
        plan_given["train_counts"] = np.bincount(order, weights=world.counts, minlength=world.setting.classes)
    return Plan(
        world.logits, plan_given, causes("permuted-labels", *extra), why, effect=moved, nats=nats, target=target
    )


def arbitrary(world: World) -> float:
    """Nats that an oracle must spend to find one order among all orders of the classes that occur."""
    return float(gammaln(len(np.unique(world.target)) + 1))


def either_way(world: World, order: Ints) -> Ints:
    return order if world.rng("direction").random() < 0.5 else np.argsort(order)


@variant("permuted-labels", declared=EVERY, kinds=("logits", "probs", "predicted"), classes=(11, 100_000))
def labels_in_string_order(world: World) -> Plan:
    return permuted(world, either_way(world, string_order(world)))


@variant("permuted-labels", declared=EVERY, kinds=("logits", "probs", "predicted"), classes=(5, 100_000))
def labels_shifted_by_one(world: World) -> Plan:
    return permuted(world, shift_order(world))


@variant("permuted-labels", declared=EVERY, kinds=("logits", "probs", "predicted"), classes=(5, 100_000))
def labels_reversed(world: World) -> Plan:
    return permuted(world, reversed_order(world))


@variant("permuted-labels", declared=EVERY, classes=(5, 100_000))
def labels_in_frequency_order(world: World) -> Plan:
    """Nothing says how frequent the model's own classes were, so this order must be found like an arbitrary one."""
    return permuted(world, either_way(world, frequency_order(world)), choices=arbitrary(world))


@variant("permuted-labels", declared=("all",), classes=(10, 100_000))
def labels_in_name_order(world: World) -> Plan:
    order = name_order(world)
    return permuted(world, np.argsort(order), class_names=names(world))


@variant("permuted-labels", declared=EVERY, kinds=("logits", "predicted"), classes=(5, 1000))
def labels_in_random_order(world: World) -> Plan:
    order = world.rng("order").permutation(world.setting.classes)
    return permuted(world, order, choices=arbitrary(world))


@variant("permuted-labels", declared=EVERY, classes=(10, 1000), skills=(0.3, 0.9))
def two_classes_swapped(world: World) -> Plan:
    first, second = np.argsort(-world.counts)[world.rng("two").permutation(min(8, world.setting.classes))[:2]]
    order = np.arange(world.setting.classes)
    order[[first, second]] = second, first
    choices = float(2 * np.log(world.setting.classes))
    return permuted(world, order, "confused-pairs", choices=choices, why="a swap is also a pair that is confused")


@variant("permuted-labels", declared=EVERY, classes=(10, 100_000))
def missing_class_shifts_the_indices(world: World) -> Plan:
    """The labels were numbered without one class: all above it are one too low."""
    classes = world.setting.classes
    gap = int(world.rng("gap").integers(0, classes // 2))
    order = np.concatenate([np.arange(gap), [classes - 1], np.arange(gap, classes - 1)])
    return permuted(world, order, choices=float(np.log(classes)))


# -- misaligned-rows -----------------------------------------------------------------------------------------------


def misaligned(world: World, target: Ints) -> Plan:
    moved = float((target != world.target).mean())
    nats = world.setting.rows * moved * information(world)
    return Plan(world.logits, given(world), causes("misaligned-rows"), effect=moved, nats=nats, target=target)


@variant("misaligned-rows", declared=EVERY, kinds=("logits", "probs", "predicted"))
def rows_shuffled(world: World) -> Plan:
    return misaligned(world, world.rng("shuffle").permutation(world.target))


@variant("misaligned-rows", declared=EVERY, kinds=("logits", "probs", "predicted"))
def rows_shifted_by_one(world: World) -> Plan:
    return misaligned(world, np.roll(world.target, world.rng("shift").choice([-1, 1])))


@variant("misaligned-rows", declared=EVERY)
def rows_shifted_after_the_middle(world: World) -> Plan:
    middle = int(world.setting.rows * world.rng("middle").uniform(0.3, 0.6))
    return misaligned(world, np.concatenate([world.target[:middle], np.roll(world.target[middle:], 1)]))


@variant("misaligned-rows", declared=EVERY)
def second_half_shuffled(world: World) -> Plan:
    middle = world.setting.rows // 2
    tail = world.rng("shuffle").permutation(world.target[middle:])
    return misaligned(world, np.concatenate([world.target[:middle], tail]))


# -- prior-shift ---------------------------------------------------------------------------------------------------


def redrawn(world: World, prior: Floats) -> Plan:
    """New evaluation rows from another prior; the model stays what it was."""
    rng = world.rng("redraw")
    target = rng.choice(world.setting.classes, size=world.setting.rows, p=prior)
    features = world.means[target] + rng.normal(size=(world.setting.rows, world.means.shape[1]))
    scores = posterior_logits(features, world.means, world.log_prior)
    variation = 0.5 * float(np.abs(prior - world.prior).sum())
    nats = world.setting.rows * float(
        np.where(prior > 0, prior * np.log(np.maximum(prior, 1e-300) / world.prior), 0).sum()
    )
    return Plan(scores, given(world), causes("prior-shift"), effect=variation, nats=nats, target=target)


@variant("prior-shift", declared=("counts", "all"), models=("exact",))
def evaluation_balanced(world: World) -> Plan:
    return redrawn(world, np.full(world.setting.classes, 1 / world.setting.classes))


@variant("prior-shift", declared=("counts", "all"), models=("exact",))
def evaluation_less_skewed(world: World) -> Plan:
    prior = world.prior**0.5
    return redrawn(world, prior / prior.sum())


@variant("prior-shift", declared=("counts", "all"), models=("exact",))
def evaluation_of_another_season(world: World) -> Plan:
    prior = world.prior * world.rng("season").lognormal(0, 1, world.setting.classes)
    return redrawn(world, prior / prior.sum())


@variant("prior-shift", declared=("counts", "all"), models=("exact",), classes=(10, 100_000))
def evaluation_without_some_classes(world: World) -> Plan:
    prior = np.where(world.rng("some").random(world.setting.classes) < 0.5, 0.0, world.prior)
    return redrawn(world, prior / prior.sum())


# -- padding-class -------------------------------------------------------------------------------------------------


def with_padding(world: World, share: float) -> tuple[Floats, Ints, int]:
    """Scores and labels where a share of the rows is padding, which the model recognises with near certainty."""
    pad = 0 if world.rng("end").random() < 0.7 else world.setting.classes - 1
    rows = world.rng("pad").random(world.setting.rows) < share
    scores = world.logits.copy()
    scores[:, pad] = scores.min(axis=1) - 6
    scores[rows, pad] = scores[rows].max(axis=1) + 6
    target = np.where(world.target == pad, (pad + 1) % world.setting.classes, world.target)
    return scores, np.where(rows, pad, target), pad


def pad_names(world: World, pad: int) -> list[str]:
    listed = names(world)
    listed[pad] = str(world.rng("padname").choice(["<pad>", "[PAD]", "PAD", "padding", "<PAD>"]))
    return listed


def padded(world: World, scores: Floats, target: Ints, share: float, *extra: str, **facts: object) -> Plan:
    return Plan(
        scores,
        {key: value for key, value in (given(world) | facts).items() if value is not None},
        causes("padding-class", *extra),
        effect=share,
        visible=True,
        target=target,
    )


def padded_counts(world: World, pad: int, share: float) -> Ints:
    counts = world.counts.copy()
    counts[pad] = 0
    counts[pad] = round(counts.sum() * share / (1 - share))
    return counts


@variant("padding-class", kinds=("logits", "probs", "predicted"), classes=(10, 100_000))
def padding_counted_as_a_class(world: World) -> Plan:
    share = world.rng("share").uniform(0.3, 0.8)
    scores, target, pad = with_padding(world, share)
    counts = padded_counts(world, pad, share)
    return padded(world, scores, target, share, train_counts=counts, class_names=pad_names(world, pad))


@variant("padding-class", kinds=("logits", "probs", "predicted"), classes=(10, 100_000))
def padding_counted_but_not_in_training(world: World) -> Plan:
    """Nothing is named, but the training counts leave the padding out."""
    share = world.rng("share").uniform(0.3, 0.8)
    scores, target, pad = with_padding(world, share)
    return padded(world, scores, target, share, "prior-shift", train_counts=padded_counts(world, pad, 0.0))


@variant("padding-class", kinds=("logits", "probs", "predicted"), classes=(10, 100_000))
def padding_predicted_for_real_rows(world: World) -> Plan:
    """The labels hold no padding, yet the model answers it for a share of the rows."""
    share = world.rng("share").uniform(0.1, 0.5)
    scores, padded_target, pad = with_padding(world, share)
    real = np.where(world.target == pad, (pad + 1) % world.setting.classes, world.target)
    named = world.rng("named").random() < 0.6
    facts = {"train_counts": padded_counts(world, pad, 0.0), "class_names": pad_names(world, pad) if named else None}
    return padded(world, scores, real, float((padded_target != real).mean()), **facts)


@variant("padding-class", classes=(10, 100_000))
def padding_weighted(world: World) -> Plan:
    """Weights from counts that include the padding, which stays in the evaluation rows."""
    share = world.rng("share").uniform(0.3, 0.8)
    scores, target, pad = with_padding(world, share)
    counts = padded_counts(world, pad, share)
    weight = counts.sum() / (world.setting.classes * np.maximum(counts, 1))
    facts = {"train_counts": counts, "class_weight": weight, "class_names": pad_names(world, pad)}
    return padded(world, scores + np.log(weight), target, share, **facts)


# -- confused-pairs ------------------------------------------------------------------------------------------------


def confused(world: World, pairs: int, rate: float) -> Plan:
    """A share of the training rows of class a was labelled b, so the model moves that share of a's probability to b.

    Each pair out of K^2 costs an oracle 2 log K nats."""
    ranks = np.argsort(-world.counts)[: max(2 * pairs, min(world.setting.classes, 12))]
    chosen = world.rng("pairs").permutation(ranks)[: 2 * pairs]
    p = softmax(world.logits)
    for source, destination in zip(chosen[:pairs], chosen[pairs:], strict=True):
        moved = rate * p[:, source]
        p[:, destination] += moved
        p[:, source] -= moved
    with np.errstate(divide="ignore"):
        scores = np.log(p)
    effect, evidence = difference(world.logits, scores)
    nats = world.setting.rows * evidence - 2 * pairs * float(np.log(world.setting.classes))
    return Plan(scores, given(world), causes("confused-pairs"), effect=effect, nats=nats)


@variant("confused-pairs", declared=EVERY, kinds=("logits", "probs"), classes=(10, 100_000), skills=(0.5, 0.9))
def one_class_labelled_as_another(world: World) -> Plan:
    return confused(world, 1, world.rng("rate").uniform(0.6, 0.95))


@variant("confused-pairs", declared=EVERY, kinds=("logits", "probs"), classes=(20, 100_000), skills=(0.5, 0.9))
def three_classes_labelled_as_others(world: World) -> Plan:
    return confused(world, 3, world.rng("rate").uniform(0.6, 0.95))


# -- tail-overfit --------------------------------------------------------------------------------------------------


@variant("tail-overfit", declared=("all",), kinds=("logits",), classes=(10, 200), models=("exact",), skills=(0.3, 0.7))
def class_means_memorised(world: World) -> Plan:
    """Class means estimated from the training rows themselves: a class of few rows reproduces its own noise."""
    rng = world.rng("train")
    classes, width = world.means.shape
    spare = 64
    counts = np.maximum(1, np.round(world.prior * 15 * classes)).astype(int)
    label = np.repeat(np.arange(classes), counts)
    noise_only = rng.normal(size=(world.setting.rows, spare))
    features = rng.normal(size=(len(label), width + spare))
    features[:, :width] += world.means[label]
    sums = np.zeros((classes, width + spare))
    np.add.at(sums, label, features)
    learned, prior = sums / counts[:, None], np.log(counts / counts.sum())
    seen = np.column_stack([world.features, noise_only])
    facts = {
        "train_counts": counts,
        "train_logits": posterior_logits(features, learned, prior).astype(np.float32),
        "train_target": label,
    }
    scores = posterior_logits(seen, learned, prior)
    return Plan(scores, facts, causes("tail-overfit"), references=(world.logits,))
