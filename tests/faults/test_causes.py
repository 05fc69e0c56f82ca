"""The audit names the right cause: planted faults over seeds, sizes, imbalance profiles and separabilities."""

from __future__ import annotations

import pytest

from .auditor import judge_case, score, table
from .cases import VARIANTS
from .planting import draw_settings, plant_variant

SEED = 2
FAULTY = [name for name, way in VARIANTS.items() if way.cause != "sound"]
SOUND = [name for name, way in VARIANTS.items() if way.cause == "sound"]
LARGE = ((2, 0.02), (10, 0.15), (100, 0.3), (500, 0.33), (5000, 0.2))


def verdicts(names, draws, **options):
    for name in names:
        for setting in draw_settings(VARIANTS[name], draws, seed=SEED, **options):
            case = plant_variant(name, setting)
            if case.sound or case.effective:
                yield judge_case(case)


def test_first_finding_is_the_planted_cause():
    result = score(verdicts(FAULTY, 3))
    assert result.effective >= 200
    assert result.accuracy >= 0.97, table(result)


def test_sound_models_are_not_accused():
    result = score(verdicts(SOUND, 10))
    assert result.sound >= 140
    assert result.false_alarms <= 0.02, table(result)


@pytest.mark.slow
def test_first_finding_is_the_planted_cause_in_many_large_cases():
    result = score(verdicts(FAULTY, 30, sizes=LARGE, rows=(500, 100_000), cells=5e7))
    assert result.effective >= 1500
    assert result.accuracy >= 0.97, table(result)


@pytest.mark.slow
def test_sound_models_are_not_accused_in_many_large_cases():
    result = score(verdicts(SOUND, 80, sizes=LARGE, rows=(500, 100_000), cells=5e7))
    assert result.sound >= 1000
    assert result.false_alarms <= 0.02, table(result)
