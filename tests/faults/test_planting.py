"""The planted cases are what they claim to be; checked without any audit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from .cases import VARIANTS
from .planting import draw_settings, plant, plant_variant
from .sound import focal_optimum
from .tilts import balanced
from .worlds import PROFILES, Setting, log_softmax, make_world, softmax

SETTING = Setting(seed=5, classes=40, rows=20_000, profile="zipf-1", skill=0.4)


@pytest.mark.parametrize("profile", PROFILES)
def test_exact_posteriors_are_calibrated(profile):
    world = make_world(replace(SETTING, profile=profile))
    p = softmax(world.truth)
    observed = np.bincount(world.target, minlength=40)
    z = (observed - p.sum(axis=0)) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert (z**2).sum() / 40 < 2
    assert abs(p.max(axis=1).mean() - (p.argmax(axis=1) == world.target).mean()) < 0.02


@pytest.mark.parametrize("skill", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("classes", [10, 500])
def test_skill_sets_the_accuracy(skill, classes):
    world = make_world(replace(SETTING, skill=skill, classes=classes, rows=4000))
    most = world.prior.max()
    accuracy = (world.truth.argmax(axis=1) == world.target).mean()
    assert abs(accuracy - (most + skill * (1 - most))) < 0.09


def test_balanced_weights_flatten_the_counts_and_squared_ones_mirror_them():
    world = make_world(replace(SETTING, skill=0.1, model="exact"))
    log_counts = np.log(world.counts)

    def slope(power):
        soft = softmax(world.logits + power * np.log(balanced(world))).sum(axis=0)
        return np.polyfit(log_counts, np.log(soft), 1)[0]

    assert slope(0) == pytest.approx(1, abs=0.1)
    assert abs(slope(1)) < 0.25
    assert slope(2) < -0.4


def test_noisy_networks_stay_within_what_sound_training_shows():
    for seed in range(5):
        world = make_world(replace(SETTING, seed=seed, model="noisy"))
        p = softmax(world.logits)
        observed = np.bincount(world.target, minlength=40)
        slope = np.polyfit(world.log_prior, np.log(p.sum(axis=0) / np.maximum(observed, 1)), 1)[0]
        assert abs(slope) < 0.25


def test_focal_optimum_is_stationary():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 6)) * 2
    p, q = softmax(logits), softmax(focal_optimum(logits, 2.0))
    multiplier = p * ((1 - q) ** 2 / q - 2 * (1 - q) * np.log(q))
    np.testing.assert_allclose(multiplier / multiplier.mean(axis=1, keepdims=True), 1, rtol=5e-3)


def test_focal_optimum_without_focus_is_the_posterior():
    logits = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(focal_optimum(logits, 0.0), log_softmax(logits), atol=1e-3)


@pytest.mark.parametrize("name", ["weights_in_string_order", "padding_weighted", "class_means_memorised"])
def test_the_same_setting_gives_the_same_case(name):
    setting = next(draw_settings(VARIANTS[name], 1, seed=0))
    first, second = plant_variant(name, setting), plant_variant(name, setting)
    assert first.arrays.keys() == second.arrays.keys()
    for key, value in first.arrays.items():
        np.testing.assert_array_equal(value, second.arrays[key])


def test_weights_have_no_effect_where_classes_are_balanced():
    case = plant("class-weights", seed=0, profile="balanced", classes=20)
    assert not case.effective
    assert plant("class-weights", seed=0, profile="zipf-1", classes=20).effective


def test_every_variant_of_every_cause_can_be_planted():
    planted = {plant_variant(name, next(draw_settings(way, 1, seed=1, sizes=((20, 1),), rows=(500, 600)))).cause
               for name, way in VARIANTS.items() if way.classes[1] >= 20}  # fmt: skip
    assert len(planted) == 22  # the 21 faults of the table, and sound
