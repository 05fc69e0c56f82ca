"""`training.race`: the whole race in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from evenhand.declared import InputError
from evenhand.output import PathLike
from evenhand.training.fitting import Recipe
from evenhand.training.models import built_in
from evenhand.training.racing.board import Key, Result
from evenhand.training.racing.plan import Budget, make_plan
from evenhand.training.racing.processes import Process, require_no_group
from evenhand.training.racing.remarks import remarks
from evenhand.training.racing.result import RaceResult
from evenhand.training.racing.running import Watcher, opened, run
from evenhand.training.racing.verdict import leaderboard
from evenhand.training.remedies import PLAIN, Remedy
from evenhand.training.rows import as_rows, require_finite


def race(
    model_fn: Callable[[], nn.Module] | str,
    train: Any,
    valid: Any,
    *,
    remedies: str | Sequence[str | Remedy] | None = None,
    seeds: int = 3,
    budget: str | Budget = "20epochs",
    goal: str = "balanced-accuracy",
    counts: Any = None,
    group: Any = None,
    recipe: Recipe | None = None,
    folder: PathLike | None = None,
    name: str = "race",
    notes: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> RaceResult:
    """Train remedies side by side on your data and model, and say which one to take.

    All remedies begin with the same weights, see the same batches (with the same seed) and get the same number of
    steps. Every trained model is judged twice: as it is, and with the post-hoc correction for the goal, so that plain
    training with a correction always competes. The valid rows are halved: one half fits the corrections, stops hopeless
    trainings and names the winner; the other half, which had no part in the choice, measures it.

    Args:
        model_fn: builds an untrained model that maps a batch of inputs to logits (n, K), or the name of a built-in one
            (``linear``, ``mlp``, ``lstm``). train, valid: ``(inputs, target)``, a torch data set of (input, class), or
            rows; `valid` should be drawn like the rows of use.
        remedies: names with options as in :func:`evenhand.training.parse_remedy`, own :class:`Remedy` objects, or a
            text with commas; None for a good dozen. Plain training always takes part.
        seeds: trainings per remedy. One seed tells nothing about another.
        budget: ``"20epochs"`` or ``"2000steps"`` for every training; ``"5m"`` or ``"1h"`` for the whole race on this
            machine, equally divided, with all processes that ``torchrun`` started.
        goal: ``accuracy``, ``balanced-accuracy``, ``macro-f1``, ``g-mean``, ``worst-group`` or ``counts``.
        counts: (K,) training rows per class; counted if None. group: (N valid,) rows that must stay together.
        recipe: batch size, learning rate, optimiser. folder: where finished trainings are kept: a race that was killed
            goes on where it was, and several processes with the same folder share the work. Those that ``torchrun``
            started need one, and each returns the whole result. name, notes: shown.
        watcher: is told how far the race is.

    Returns:
        RaceResult; print it, or take ``.recommended``, ``.to_dict()``, ``.html()``.

    Raises:
        InputError: unusable data (also NaN or infinite inputs in a tensor or array), remedies or budget; every remedy
            failed; several processes (``WORLD_SIZE``) without a folder, or with an open process group. OSError: the
            folder cannot be used.

    Limits:
        The choice is only as good as the valid rows: differences below their noise are reported as ties. A training
        that fails (out of memory, NaN) is told in the leaderboard, and the race goes on; only of plain training is
        an exception of an unexpected type raised as it is.

    Example:
        >>> import torch
        >>> y = torch.arange(400) % 8 // 7; x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> x[:, 0] += 2 * y
        >>> train, valid = (x[:200], y[:200]), (x[200:], y[200:])
        >>> result = race("linear", train, valid, remedies="weighted", seeds=2, budget="2epochs")
        >>> result.to_dict()["trainings"]["finished"]
        4
    """
    start = time.perf_counter()
    process = Process.this()
    process.require_folder(folder, "folder=")
    require_no_group()
    plan = make_plan(remedies, seeds=seeds, goal=goal, budget=budget, recipe=recipe)
    train_rows, valid_rows = as_rows(train), as_rows(valid)
    require_finite(train_rows, "training")
    require_finite(valid_rows, "valid")
    if isinstance(model_fn, nn.Module):
        raise InputError(
            f"expected a function that builds an untrained model, got a {type(model_fn).__name__}; every training "
            "needs a new one: pass its class, or a function that makes it"
        )
    place = None if folder is None else Path(folder)
    build = model_fn
    if isinstance(build, str):
        classes = int(train_rows.target.max()) + 1 if counts is None else len(getattr(counts, "counts", counts))
        build = built_in(build, train_rows, classes)
    options: dict[str, Any] = {"counts": counts, "group": group, "folder": place, "watcher": watcher}
    with opened(plan, build, train_rows, valid_rows, processes=process.count, **options) as (board, contest):
        before = {key for key, result in board.results().items() if result.state != "failed"}
        run(board, contest)
        results = {key: result for key, result in board.results().items() if key in set(plan.runs)}
        _refuse_total_failure(list(results.values()))
        entries, verdict = leaderboard(plan, contest.judge, results)
        metric = contest.judge.metric
        general = remarks(
            contest.judge,
            rows=len(train_rows),
            batch_size=plan.recipe.batch_size,
            steps=contest.steps,
            names=getattr(train_rows, "class_names", None) or getattr(counts, "names", None),
        )
        choosing = int(contest.judge.choosing.sum())
        mine = [r.record for r in results.values() if r.record.get("worker") == board.worker]
        states = [result.state for result in results.values()]
        return RaceResult(
            name=name,
            plan=plan,
            metric=metric.key,
            words=metric.words,
            share=metric.share,
            sign=metric.sign,
            classes=contest.counts.classes,
            rows={"train": len(train_rows), "choosing": choosing, "judging": len(valid_rows) - choosing},
            steps=contest.steps,
            entries=entries,
            verdict=verdict,
            notes=[*notes, *general, *_of_trainings(results)],
            trainings={state: states.count(state) for state in ("finished", "stopped", "failed")}
            | {"reused": len(before & set(results))},
            wall=time.perf_counter() - start,
            training=float(sum(r.get("seconds", 0.0) - r.get("earlier", 0.0) for r in mine)),
        )


def _of_trainings(results: Mapping[Key, Result]) -> list[str]:
    """What trainings note, each note once, with the training that it is about and the number of others."""
    about: dict[str, list[Key]] = {}
    for key, result in results.items():
        for note in result.record.get("notes", ()):
            about.setdefault(note, []).append(key)
    more = {note: f" and {len(keys) - 1} more" if len(keys) > 1 else "" for note, keys in about.items()}
    return [f"{note} ({keys[0][0]}, seed {keys[0][1]}{more[note]})" for note, keys in about.items()]


def _refuse_total_failure(results: Sequence[Result]) -> None:
    if results and all(result.state == "failed" for result in results):
        first = next((r for r in results if r.key[0] == PLAIN), results[0])
        raise InputError(f"expected at least one training to finish, but all failed; plain: {first.record['why']}")
