"""From a setting to a labelled case, and stratified draws of settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import heads, rows, sound, tilts
from .cases import VARIANTS, Case, Plan, Variant, judge
from .worlds import PROFILES, Setting, World, make_world, softmax

__all__ = ["FAMILIES", "draw_settings", "plant", "plant_variant"]

FAMILIES = (tilts, heads, rows, sound)
SKEWED = tuple(profile for profile in PROFILES if profile != "balanced")
SIZES = ((2, 0.03), (10, 0.17), (20, 0.1), (50, 0.1), (100, 0.3), (500, 0.25), (5000, 0.05))


def plant(cause: str, *, seed: int, **options: Any) -> Case:
    """One case of a cause; the seed also chooses the way it happens. `options` are the fields of `Setting`."""
    ways = [name for name, way in VARIANTS.items() if way.cause == cause]
    if not ways:
        raise ValueError(f"unknown cause {cause}")
    return plant_variant(ways[seed % len(ways)], Setting(seed=seed, **options))


def plant_variant(name: str, setting: Setting) -> Case:
    way = VARIANTS[name]
    world = make_world(setting)
    plan = way.make(world)
    effect, nats = judge(world, plan)
    return Case(way.cause, name, setting, _arrays(world, plan), plan.acceptable, plan.why, effect, nats)


def _arrays(world: World, plan: Plan) -> dict[str, Any]:
    kind = plan.kind or world.setting.kind
    dtype = world.setting.dtype
    arrays: dict[str, Any] = {"target": world.target if plan.target is None else plan.target, **plan.given}
    if kind == "predicted":
        arrays["predicted"] = plan.scores.argmax(axis=1)
    elif kind == "probs" and plan.kind is None:
        arrays["probs"] = softmax(plan.scores).astype(dtype)
    else:
        lowest = np.finfo(dtype).min
        arrays[kind] = np.where(plan.scores == -np.inf, -np.inf, np.maximum(plan.scores, lowest)).astype(dtype)
    return arrays


def draw_settings(way: Variant, draws: int, *, seed: int, sizes: Sequence[tuple[int, float]] = SIZES,
                  rows: tuple[int, int] = (500, 20_000), cells: float = 1e7) -> Iterator[Setting]:  # fmt: skip
    """Settings to which a variant applies, stratified at random; N K stays below `cells`."""
    rng = np.random.default_rng([seed, *way.name.encode()])
    allowed = [(size, weight) for size, weight in sizes if way.classes[0] <= size <= way.classes[1]]
    weights = np.array([weight for _, weight in allowed])
    profiles = PROFILES if way.cause == "sound" else SKEWED
    for _ in range(draws):
        classes = allowed[rng.choice(len(allowed), p=weights / weights.sum())][0]
        least = 100 if way.cause == "sound" else rows[0]
        most = max(rows[0], min(rows[1], int(cells / classes)))
        setting = Setting(
            seed=int(rng.integers(2**31)),
            classes=classes,
            rows=round(float(np.exp(rng.uniform(np.log(least), np.log(most))))),
            profile=str(rng.choice(profiles)),
            shuffled=bool(rng.random() < 0.6),
            skill=float(rng.uniform(*way.skills)),
            model=str(rng.choice(way.models)),
            declared=str(rng.choice(way.declared)),
            evaluation=str(rng.choice(way.evaluations)),
            kind=str(rng.choice(way.kinds)),
        )
        small = rng.random() < (0.3 if way.cause == "sound" else 0.1)
        yield replace(setting, dtype="float16") if small and setting.kind == "logits" else setting
