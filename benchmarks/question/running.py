"""All runs of the question that are not stored yet, seed by seed, so that whatever is finished can be compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.question import data, store, trials
from benchmarks.question.remedies import KEY, REMEDIES, Remedy

log = logging.getLogger("benchmarks.question")


def pending(
    sets: Sequence[str], remedies: Sequence[Remedy], seeds: int, done: set[store.Key]
) -> Iterator[tuple[str, int, list[Remedy]]]:
    """(set, seed, remedies still to run), all sets of one seed before the next seed."""
    for seed in range(seeds):
        for name in sets:
            order = sorted(remedies, key=lambda remedy: remedy.name not in KEY)
            left = [remedy for remedy in order if (name, remedy.name, seed) not in done]
            if left:
                yield name, seed, left


def run_all(
    folder: Path,
    out: Path,
    *,
    sets: Sequence[str],
    remedies: Sequence[Remedy] = REMEDIES,
    seeds: int,
    epochs: int | None,
) -> int:
    """Run and store what is missing; returns how many runs were added."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    done = {store.key(run) for run in store.read(out)}
    added = 0
    for name, seed, left in pending(sets, remedies, seeds, done):
        part = data.load(name, folder, seed)
        for remedy in left:
            run = trials.run(part, remedy, seed, trials.budget_of(part, remedy, epochs))
            store.append(out, run)
            added += 1
            log.info("%s, %s, seed %d: %.1f s", name, remedy.name, seed, run["seconds"]["all"])
    return added
