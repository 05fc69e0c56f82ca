"""What a planted case is, and the register of the ways to plant one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .worlds import Floats, Setting, World, difference

EFFECT = 0.02
NATS = 12.0


@dataclass(frozen=True)
class Plan:
    """What a variant does to a world.

    Attributes:
        scores: (N, K) logits, or probabilities if `kind` says so.
        given: what is declared, by the argument names of `evenhand.files.from_arrays`.
        acceptable: causes that are a right first answer.
        why: the reason why there is more than one, or "".
        references: logits of the models that the faulty one must be told from: without the fault, and where the fault
            replaces something legitimate (weights in the wrong order), with the legitimate thing in its place.
        visible: the fault can be read off the declared facts or off the numbers themselves, so that no minimum of
            statistical evidence is needed.
        effect, nats: given directly where the posteriors do not tell them (`nats` of all rows together).
        target: (N,) where the fault is in the labels.
        kind: overrides the setting's.
    """

    scores: Floats
    given: dict[str, Any]
    acceptable: frozenset[str]
    why: str = ""
    references: tuple[Floats, ...] = ()
    visible: bool = False
    effect: float | None = None
    nats: float | None = None
    target: Any = None
    kind: str | None = None


@dataclass(frozen=True)
class Case:
    """One labelled case: arguments for `evenhand.files.from_arrays` and the right answer.

    `effect` (see `worlds.difference`) and `nats` (what all rows together tell an oracle between the faulty model and
    its references) are computed from the planted models alone, before any audit: a fault that changes less than 2% of
    the answers, or for which an oracle that knows both models would have less than 12 nats of evidence, has no effect.
    """

    cause: str
    variant: str
    setting: Setting
    arrays: dict[str, Any] = field(repr=False)
    acceptable: frozenset[str]
    why: str
    effect: float
    nats: float

    @property
    def sound(self) -> bool:
        return self.cause == "sound"

    @property
    def effective(self) -> bool:
        return bool(self.effect >= EFFECT and self.nats >= NATS)


@dataclass(frozen=True)
class Variant:
    """One way in which a cause happens; the fields after `make` say to which settings it applies."""

    cause: str
    name: str
    make: Callable[[World], Plan]
    declared: tuple[str, ...]
    kinds: tuple[str, ...]
    evaluations: tuple[str, ...]
    classes: tuple[int, int]
    skills: tuple[float, float]
    models: tuple[str, ...]


VARIANTS: dict[str, Variant] = {}


def variant(
    cause: str,
    *,
    declared: Iterable[str] = ("all",),
    kinds: Iterable[str] = ("logits", "probs"),
    evaluations: Iterable[str] = ("natural",),
    classes: tuple[int, int] = (2, 100_000),
    skills: tuple[float, float] = (0.1, 0.9),
    models: Iterable[str] = ("exact", "noisy"),
) -> Callable[[Callable[[World], Plan]], Callable[[World], Plan]]:
    """Register a function as a way to plant `cause`, under its own name."""

    def register(make: Callable[[World], Plan]) -> Callable[[World], Plan]:
        name = make.__name__
        if name in VARIANTS:
            raise ValueError(f"two variants are called {name}")
        VARIANTS[name] = Variant(
            cause, name, make, tuple(declared), tuple(kinds), tuple(evaluations), classes, skills, tuple(models)
        )
        return make

    return register


def given(world: World, *, weight: Any = None, sampler: Any = None, **others: Any) -> dict[str, Any]:
    """The declared facts that the setting lets through; evaluation rows of another prior always come with counts."""
    level = world.setting.declared
    facts: dict[str, Any] = {}
    if level in ("all", "counts") or world.setting.evaluation != "natural":
        facts["train_counts"] = world.counts
    if level in ("all", "weights"):
        facts |= {"class_weight": weight, "sampler": sampler, **others}
    return {key: value for key, value in facts.items() if value is not None}


def weighs(world: World) -> bool:
    """Whether the setting declares weights and sampler."""
    return world.setting.declared in ("all", "weights")


def judge(world: World, plan: Plan) -> tuple[float, float]:
    """(effect, nats) of a plan, the smallest over its references."""
    pairs = [difference(reference, plan.scores) for reference in plan.references] if plan.effect is None else []
    effect = min(pair[0] for pair in pairs) if plan.effect is None else plan.effect
    if plan.visible:
        return effect, np.inf
    if plan.nats is not None:
        return effect, plan.nats
    return effect, world.setting.rows * min(pair[1] for pair in pairs)


def causes(*names: str) -> frozenset[str]:
    return frozenset(names)
