"""What a race is: remedies, seeds, goal and budget, checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from evenhand.declared import InputError
from evenhand.goals import GOALS
from evenhand.training.fitting import Recipe
from evenhand.training.remedies import PLAIN, REMEDIES, Remedy, parse_remedies, parse_remedy

DEFAULT = (
    "plain", "weighted", "sqrt-weighted", "sampler", "sqrt-sampler", "focal", "focal+weights", "class-balanced",
    "balanced-softmax", "logit-adjusted:tau=0.5", "vs", "ldam-drw", "deferred-weights", "crt",
)  # fmt: skip
UNITS = {"steps": 1.0, "epochs": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
RUNGS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Budget:
    """How long to train: `amount` of ``steps`` or ``epochs`` for every training, or ``seconds`` for the whole race."""

    amount: float
    unit: str


def parse_budget(text: str | Budget) -> Budget:
    """A budget from text: ``2000steps`` or ``20epochs`` for every training, ``90s``, ``5m`` or ``2h`` for all together.

    Raises:
        InputError: anything else, or an amount that is not above 0.

    Example:
        >>> parse_budget("5m"), parse_budget("2000 steps")
        (Budget(amount=300.0, unit='seconds'), Budget(amount=2000.0, unit='steps'))
    """
    if isinstance(text, Budget):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|s|m|h|min)\s*", str(text))
    if found is not None and found[2].startswith("step") and round(float(found[1])) == 0 < float(found[1]):
        raise InputError(f"expected a budget of at least one step, got {text!r:.40}; write 2000steps for instance")
    if found is None or float(found[1]) <= 0:
        raise InputError(f"expected a budget such as 20epochs, 2000steps, 5m or 1h, got {text!r:.40}; write it so")
    unit = {"step": "steps", "epoch": "epochs", "min": "m"}.get(found[2], found[2])
    kind = unit if unit in ("steps", "epochs") else "seconds"
    return Budget(float(found[1]) * UNITS[unit], kind)


@dataclass(frozen=True)
class Plan:
    """A race.

    Attributes:
        remedies: with plain training first. seeds: trainings per remedy. goal: a name of `evenhand.goals.GOALS`.
        budget: see :class:`Budget`. recipe: what is equal for all. rungs: shares of a training after which it may be
            stopped. split_seed: of the halves of the valid rows.
    """

    remedies: tuple[Remedy, ...]
    seeds: int = 3
    goal: str = "balanced-accuracy"
    budget: Budget = Budget(20.0, "epochs")
    recipe: Recipe = field(default_factory=Recipe)
    rungs: tuple[float, ...] = RUNGS
    split_seed: int = 0

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (remedy, seed), all remedies of a seed before the next seed, plain first."""
        return [(remedy.name, seed) for seed in range(self.seeds) for remedy in self.remedies]

    def remedy(self, name: str) -> Remedy:
        """The remedy of that name."""
        return next(remedy for remedy in self.remedies if remedy.name == name)


def make_plan(
    remedies: str | Sequence[str | Remedy] | None = None,
    *,
    seeds: int = 3,
    goal: str = "balanced-accuracy",
    budget: str | Budget = "20epochs",
    recipe: Recipe | None = None,
) -> Plan:
    """A checked plan; plain training is added where it is missing, for it is what all others are compared with.

    Raises:
        InputError: unknown names, fewer than one seed, a goal that needs costs or a prior, a remedy named twice or an
            own one with the name of a built-in one that it differs from.

    Example:
        >>> [remedy.name for remedy in make_plan("focal,weighted").remedies]
        ['plain', 'focal', 'weighted']
    """
    if remedies is None:
        remedies = DEFAULT
    if not isinstance(remedies, Sequence):
        raise InputError(f"expected remedies as text with commas or in a list, got {remedies!r:.60}; write 'weighted'")
    named = parse_remedies(remedies) if isinstance(remedies, str) else tuple(map(parse_remedy, remedies))
    for remedy in named:
        _refuse_borrowed_name(remedy)
    names = [remedy.name for remedy in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"expected different remedies, got {twice!r} twice; name it once")
    plain = [remedy for remedy in named if remedy.name == PLAIN] or [REMEDIES[PLAIN]]
    others = tuple(remedy for remedy in named if remedy.name != PLAIN)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InputError(f"expected seeds of 1 or more, got {seeds!r:.40}; 3 is usual, 5 tells more")
    _check_goal(goal)
    return Plan((plain[0], *others), seeds, goal, parse_budget(budget), recipe or Recipe())


def _check_goal(goal: str) -> None:
    able = ", ".join(name for name, known in GOALS.items() if not known.needs)
    if goal not in GOALS:
        raise InputError(f"expected a goal among {able}, got {goal!r:.60}; choose one of them")
    if GOALS[goal].needs:
        raise InputError(
            f"expected a goal that needs no {GOALS[goal].needs}, got {goal!r}; race for one of {able}, then use "
            "evenhand fix"
        )


def _refuse_borrowed_name(remedy: Remedy) -> None:
    """An own remedy under the name of a built-in one would stand in its place: under plain's, all are compared with it.

    Raises:
        InputError: it trains otherwise than the built-in remedy.
    """
    try:
        known = parse_remedy(remedy.name)
    except InputError:
        return
    try:
        same = remedy.but(name=known.name, meaning=known.meaning, cites=known.cites) == known
    except (ValueError, RuntimeError):
        same = False  # options that are arrays, which no built-in remedy has
    if not same:
        what = "plain training" if known.name == PLAIN else "a built-in remedy"
        raise InputError(
            f"expected a name of its own for a remedy of yours, got {remedy.name!r:.60}, the name of {what}, which it "
            f"differs from; call it {'my-' + remedy.name!r:.60} for instance"
        )
