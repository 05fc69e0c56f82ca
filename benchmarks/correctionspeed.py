"""What fitting costs, in passes: one pass is log-sum-exp and argmax over the same scores, by processor time.

The goals were set where a pass of plain NumPy code took 0.022 s, so that is the unit. The same figures are also given
in passes of the fastest code we know, which works in place on blocks that stay in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import correctionpeers as peers
from evenhand.correction import fit_correction
from evenhand.goals import Aim, Calibrated, find_goal
from evenhand.shift import estimate_prior
from evenhand.tilt import BLOCK_CELLS, Part, centred_rows

GOALS = {"temperature": 10.0, "biases": 60.0, "prior: EM, test and intervals": 20.0}  # passes
F1_SECONDS, LARGE_SECONDS = 2.0, 60.0
USUAL, LARGE = (10_000, 500), (50_000, 10_000)
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Speed:
    """One row of the table. `value` is in `unit` (passes or seconds of processor time), `fast` in fast passes."""

    shape: str
    name: str
    value: float
    unit: str
    goal: float | None
    fast: float | None
    seconds: float
    wall: float

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


def world(rows: int, classes: int, seed: int = 0) -> tuple[Singles, NDArray[np.int64], NDArray[np.int64]]:
    """Overconfident scores with Zipf class counts: logits, labels, training counts."""
    rng = np.random.default_rng(seed)
    prior = 1 / np.arange(1, classes + 1)
    prior /= prior.sum()
    y = rng.choice(classes, rows, p=prior)
    z = rng.standard_normal((rows, classes), np.float32)
    z[np.arange(rows), y] += np.float32(np.log(classes) / 2 + 1)
    z += (0.7 * np.log(prior)).astype(np.float32)
    z *= np.float32(1.6)
    return z, y, np.maximum(np.rint(prior * 20 * rows), 1).astype(np.int64)


def one_pass(z: Singles) -> float:
    """Plain NumPy, block by block."""
    total, rows = 0.0, max(4, BLOCK_CELLS // z.shape[1])
    for start in range(0, len(z), rows):
        block = z[start : start + rows]
        best = block.argmax(axis=1)
        top = block[np.arange(len(block)), best]
        total += float((np.log(np.exp(block - top[:, None]).sum(axis=1)) + top).sum())
    return total


def fast_pass(z: Singles) -> float:
    """The same in place, with a matrix product for the sums."""
    total, rows, ones = 0.0, max(4, BLOCK_CELLS // z.shape[1]), np.ones(z.shape[1], np.float32)
    buffer = np.empty((rows, z.shape[1]), np.float32)
    for start in range(0, len(z), rows):
        block = z[start : start + rows]
        top = block[np.arange(len(block)), block.argmax(axis=1)]
        e = buffer[: len(block)]
        np.subtract(block, top[:, None], out=e)
        np.exp(e, out=e)
        total += float((np.log(e @ ones) + top).sum())
    return total


def timed(work: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Medians of processor time and wall time; the first of several runs is left out."""
    times = []
    if runs > 1:
        work()
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = np.median(times, axis=0)
    return float(cpu), float(wall)


def works(z: Singles, y: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, Callable[[], Any]]:
    """name -> what is timed. The fits are whole calls: all folds, the effect and its intervals included."""

    def fit(*models: str, goal: str = "accuracy") -> Callable[[], Any]:
        return lambda: fit_correction(z, y, goal=goal, train_counts=counts, models=models)

    pi = counts / counts.sum()
    k = z.shape[1]

    def balance_f1() -> Any:
        # Centred here: a copy that lived as long as the others would count as theirs.
        rows = Calibrated(centred_rows(z), 0.7, (Part(slice(None), np.zeros(k), np.zeros((k, 0))),))
        return find_goal("macro-f1").rule(rows, Aim(np.log(pi)), None)

    return {
        "effect and intervals alone (no fit)": fit("identity"),
        "temperature": fit("temperature"),
        "biases": fit("biases"),
        "macro-F1 rule": balance_f1,
        "prior: EM, test and intervals": lambda: estimate_prior(z, pi),
    }


def speeds(shape: tuple[int, int], *, runs: int, absent: dict[str, str], judged: bool = True) -> Iterator[Speed]:
    n, k = shape
    z, y, counts = world(n, k)
    words, large = f"{n:,} x {k:,}", n * k >= 10**8
    single, wall = timed(lambda: one_pass(z), max(runs, 3))
    quick, quick_wall = timed(lambda: fast_pass(z), max(runs, 3))
    yield Speed(words, "one pass, plain NumPy", single, "s", None, single / quick, single, wall)
    yield Speed(words, "one pass, fast", quick, "s", None, 1.0, quick, quick_wall)

    def row(name: str, cpu: float, wall: float, goal: float | None = None, *, seconds: bool = False) -> Speed:
        value, unit = (cpu, "s") if seconds else (cpu / single, "passes")
        return Speed(words, name, value, unit, goal if judged else None, cpu / quick, cpu, wall)

    base = 0.0
    for name, work in works(z, y, counts).items():
        cpu, wall = timed(work, runs)
        if name.startswith("effect"):
            base = cpu
        if large:
            yield row(name, cpu, wall, LARGE_SECONDS, seconds=True)
        elif name == "macro-F1 rule":
            yield row(name, cpu, wall, F1_SECONDS, seconds=True)
        elif name in ("temperature", "biases"):  # what the fit adds to a call that fits nothing
            yield row(f"{name}: the fit in all folds", cpu - base, wall, GOALS[name])
            yield row(f"{name}: whole call", cpu, wall)
        else:
            yield row(name, cpu, wall, GOALS.get(name))
    if not large:
        for name, work in peer_works(z, y, absent).items():
            yield row(name, *timed(work, 1))


def peer_works(z: Singles, y: Any, absent: dict[str, str]) -> dict[str, Callable[[], Any]]:
    contenders: dict[str, Callable[[], Any]] = {}
    p = np.exp(peers.tempered(z, 0.7))
    if "sklearn" not in absent:
        contenders["scikit-learn's temperature"] = lambda: peers.scikit_learn_temperature(z, y)
    if "xcolumns" not in absent:
        peers.block_coordinate_f1(p[:50])  # compiles
        contenders["xCOLUMNs, macro F1"] = lambda: peers.block_coordinate_f1(p)
    if "quapy" not in absent:
        contenders["QuaPy EMQ"] = lambda: peers.quapy_prior(p, p.mean(axis=0))
    if "abstention" not in absent:
        contenders["abstention EM"] = lambda: peers.abstention_prior(p, p.mean(axis=0), p)
    return contenders
