"""Faults of the head and of the decision: what reaches the loss, or the argmax, is not what it should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .cases import Plan, causes, given, variant
from .tilts import balanced
from .worlds import Floats, World, log_softmax, softmax

EVERY = ("all", "nothing")


def spoiled(world: World, scores: Floats, *acceptable: str, why: str = "", **facts: object) -> Plan:
    return Plan(
        scores,
        given(world, **facts),
        causes(*acceptable),
        why,
        references=(world.logits,),
        visible=True,
    )


# -- bounded-logits ------------------------------------------------------------------------------------------------


def centred(world: World) -> Floats:
    return world.logits - world.logits.mean(axis=1, keepdims=True)


@variant("bounded-logits", declared=EVERY, kinds=("logits",))
def tanh_head(world: World) -> Plan:
    gain = world.rng("gain").uniform(0.2, 0.8)
    return spoiled(world, np.tanh(gain * centred(world)), "bounded-logits")


@variant("bounded-logits", declared=EVERY, kinds=("logits",))
def sigmoid_head(world: World) -> Plan:
    gain = world.rng("gain").uniform(0.3, 0.8)
    return spoiled(world, 1 / (1 + np.exp(-gain * (centred(world) - 2))), "bounded-logits")


@variant("bounded-logits", declared=EVERY, kinds=("logits",))
def lstm_state_head(world: World) -> Plan:
    """h = sigmoid(o) tanh(c): what an LSTM returns."""
    rng = world.rng("lstm")
    drive = centred(world)
    gate = 1 / (1 + np.exp(-(0.3 * drive + rng.normal(1, 0.5, world.setting.classes))))
    return spoiled(world, gate * np.tanh(rng.uniform(0.2, 0.6) * drive), "bounded-logits")


@variant("bounded-logits", declared=EVERY, kinds=("logits",))
def cosine_head_without_scale(world: World) -> Plan:
    """Cosines between features (with a constant for the bias) and class vectors."""
    vectors = np.column_stack([world.means, world.log_prior - 0.5 * (world.means**2).sum(axis=1)])
    features = np.column_stack([world.features, np.ones(world.setting.rows)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return spoiled(world, features @ vectors.T, "bounded-logits")


@variant("bounded-logits", declared=("all", "weights"), kinds=("logits",))
def tanh_head_with_weights(world: World) -> Plan:
    weight = balanced(world)
    gain = world.rng("gain").uniform(0.2, 0.8)
    tilted = world.tilted(np.log(weight))
    tilted -= tilted.mean(axis=1, keepdims=True)
    return spoiled(world, np.tanh(gain * tilted), "bounded-logits", weight=weight)


# -- double-softmax ------------------------------------------------------------------------------------------------


@variant("double-softmax", declared=EVERY, kinds=("logits",))
def softmax_layer_before_the_loss(world: World) -> Plan:
    """The loss pushes the inner softmax towards one-hot answers, the more so the longer it trains."""
    return spoiled(world, softmax(world.rng("push").uniform(1, 4) * world.logits), "double-softmax")


@variant("double-softmax", declared=EVERY, kinds=("logits",))
def probabilities_saved_as_logits(world: World) -> Plan:
    return spoiled(world, softmax(world.logits), "double-softmax")


@variant("double-softmax", declared=("all", "weights"), kinds=("logits",))
def softmax_layer_with_weights(world: World) -> Plan:
    weight = balanced(world)
    return spoiled(world, softmax(2 * world.tilted(np.log(weight))), "double-softmax", weight=weight)


# -- batch-softmax -------------------------------------------------------------------------------------------------


def over_batches(world: World) -> tuple[Floats, int]:
    """log softmax over the batch axis; the last batch is ragged unless the rows happen to divide."""
    size = int(world.rng("batch").choice([32, 64, 100, 128, 256, 512]))
    starts = range(0, world.setting.rows, size)
    return np.concatenate([log_softmax(world.logits[start : start + size], axis=0) for start in starts]), size


@variant("batch-softmax", declared=EVERY, kinds=("probs",))
def probabilities_over_the_batch(world: World) -> Plan:
    scores, size = over_batches(world)
    plan = spoiled(world, scores, "batch-softmax", config={"batch_size": size})
    effect = _moved(world, scores)
    return replace(plan, scores=np.exp(scores), references=(), kind="probs", effect=effect)


@variant("batch-softmax", declared=EVERY, kinds=("logits",))
def log_probabilities_over_the_batch(world: World) -> Plan:
    scores, _ = over_batches(world)
    return spoiled(world, scores, "batch-softmax")


@variant("batch-softmax", declared=EVERY, kinds=("logits",))
def batch_probabilities_as_logits(world: World) -> Plan:
    scores, size = over_batches(world)
    why = "they are also probabilities passed as logits"
    return spoiled(world, np.exp(scores), "batch-softmax", "double-softmax", why=why, config={"batch_size": size})


def _moved(world: World, scores: Floats) -> float:
    return float((scores.argmax(axis=1) != world.logits.argmax(axis=1)).mean())


# -- tied-logits ---------------------------------------------------------------------------------------------------


def rounded(world: World, scores: Floats) -> Plan:
    """The effect is the share of rows whose answer the rounding changes."""
    return Plan(scores, given(world), causes("tied-logits"), visible=True, effect=_moved(world, scores))


def bfloat16(values: Floats) -> Floats:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(float)


@variant("tied-logits", declared=EVERY, kinds=("logits",), skills=(0.1, 0.6))
def bfloat16_logits_far_from_zero(world: World) -> Plan:
    offset = world.rng("offset").uniform(20, 120)
    shifted = world.logits - world.logits.max(axis=1, keepdims=True) + offset
    return rounded(world, bfloat16(shifted))


@variant("tied-logits", declared=EVERY, kinds=("logits",), skills=(0.1, 0.6))
def int8_logits(world: World) -> Plan:
    step = np.abs(world.logits).max() / 127
    return rounded(world, np.round(world.logits / step) * step)


@variant("tied-logits", declared=EVERY, kinds=("logits",), skills=(0.1, 0.6))
def logits_with_one_decimal(world: World) -> Plan:
    return rounded(world, np.round(world.logits, world.rng("decimals").choice([0, 1])))


# -- masked-classes ------------------------------------------------------------------------------------------------


def masked(world: World, classes: Floats, value: float) -> Plan:
    scores = world.logits.copy()
    scores[:, classes] = value
    return spoiled(world, scores, "masked-classes")


def frequent_class(world: World) -> Floats:
    ranks = np.argsort(-world.counts)[: max(1, world.setting.classes // 20)]
    return np.array([world.rng("which").choice(ranks)])


@variant("masked-classes", declared=EVERY, classes=(3, 100_000))
def one_class_minus_infinity(world: World) -> Plan:
    return masked(world, frequent_class(world), -np.inf)


@variant("masked-classes", declared=EVERY, kinds=("logits",), classes=(3, 100_000))
def one_class_at_minus_1e9(world: World) -> Plan:
    return masked(world, frequent_class(world), -1e9)


@variant("masked-classes", declared=EVERY, classes=(10, 100_000))
def random_classes_masked(world: World) -> Plan:
    some = world.rng("which").permutation(world.setting.classes)[: max(2, world.setting.classes // 8)]
    return masked(world, some, -np.inf)


@variant("masked-classes", declared=EVERY, classes=(10, 100_000))
def rarer_half_masked(world: World) -> Plan:
    return masked(world, np.argsort(world.counts)[: world.setting.classes // 2], -np.inf)


# -- collapsed -----------------------------------------------------------------------------------------------------


def constant(world: World, bias: Floats, noise: float) -> Plan:
    jitter = world.rng("jitter").normal(0, noise, world.logits.shape)
    return spoiled(world, bias + jitter, "collapsed")


@variant("collapsed", declared=EVERY, skills=(0.4, 0.9))
def collapsed_to_the_prior(world: World) -> Plan:
    return constant(world, world.log_prior, 1e-3)


@variant("collapsed", declared=EVERY, skills=(0.4, 0.9))
def collapsed_to_noise_around_a_random_bias(world: World) -> Plan:
    return constant(world, world.rng("bias").normal(0, 1, world.setting.classes), 1e-2)


@variant("collapsed", declared=EVERY, skills=(0.4, 0.9), classes=(3, 100_000))
def collapsed_to_two_classes(world: World) -> Plan:
    bias = world.log_prior.copy()
    bias[world.rng("two").permutation(world.setting.classes)[:2]] = bias.max() + 4
    return constant(world, bias, 1e-2)


@variant("collapsed", declared=("all", "weights"), skills=(0.4, 0.9))
def collapsed_under_weights(world: World) -> Plan:
    plan = constant(world, np.zeros(world.setting.classes), 1e-2)
    return replace(plan, given=given(world, weight=balanced(world)))
