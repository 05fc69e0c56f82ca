"""Networks really trained with a fault: found as well, and a plainly trained one is not accused."""

from __future__ import annotations

import numpy as np
import pytest

from .auditor import judge_case, miss_line
from .cases import Case
from .training import RECIPES, train
from .worlds import Setting, difference, make_world

CLASSES, TRAIN_ROWS = 60, 16_000
SETTING = Setting(seed=4, classes=CLASSES, rows=24_000, profile="zipf-1", skill=0.45)
PROVED = (
    "class-weights",
    "sqrt-weights",
    "sampler",
    "double",
    "squared",
    "inverted",
    "misordered",
    "misordered-undeclared",
    "tanh-head",
    "double-softmax",
)


def trained(name: str) -> np.ndarray:
    world = make_world(SETTING)
    features = world.features.astype(np.float32)
    predict = train(features[:TRAIN_ROWS], world.target[:TRAIN_ROWS], CLASSES, RECIPES[name], epochs=6, seed=0)
    return predict(features[TRAIN_ROWS:])


def case_of(name: str, plain: np.ndarray) -> Case:
    recipe, world = RECIPES[name], make_world(SETTING)
    scores = plain if name == "none" else trained(name)
    counts = np.bincount(world.target[:TRAIN_ROWS], minlength=CLASSES).astype(float)
    facts = {key: value for key, value in recipe.facts(counts).items() if value is not None}
    target = world.target[TRAIN_ROWS:]
    effect, nats = difference(plain.astype(float), scores.astype(float))
    cause = "sound" if recipe.sound else name
    arrays = {"logits": scores, "target": target, **facts}
    return Case(cause, name, SETTING, arrays, recipe.acceptable, "", effect, nats * len(target))


@pytest.fixture(scope="module")
def plain():
    return trained("none")


def test_a_plainly_trained_network_is_not_accused(plain):
    verdict = judge_case(case_of("none", plain))
    assert verdict.ok, miss_line(verdict)


@pytest.mark.parametrize("name", PROVED)
def test_the_fault_a_network_was_trained_with_is_found(name, plain):
    case = case_of(name, plain)
    assert case.effective
    verdict = judge_case(case)
    assert verdict.ok, miss_line(verdict)
