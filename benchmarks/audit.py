"""How fast is the audit, in how much memory, and beside the usual libraries: every case in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median as middle
from typing import Any

import click
import numpy as np

from benchmarks import peers
from benchmarks.measure import Run, fresh, machine, median, peak

MEMORY_MB = 400.0
MEMORY_MANY_MB = 4000.0
AGREE = 1e-4
PEER_MEMORY = 8  # times the input, which the whole array at once takes through scikit-learn's log loss
NOTHING = "nothing declared"
DECLARED = (
    "weights", "weights, reversed in use", "weights and sampler", "sampler", "weights, not expressed",
    "weights, in an unknown order in use", "weights in an unknown order", "weights, turned round",
    "weights of other counts", "weights and label smoothing",
)  # fmt: skip
PEERS = tuple(peers.PEERS)
LONG = 15.0  # seconds after which a peer is not run again


@dataclass(frozen=True)
class Sizes:
    """Rows and classes of the cases; `scaled` sizes have no goals."""

    large: tuple[int, int] = (1_000_000, 500)
    small: tuple[int, int] = (10_000, 500)
    labels: tuple[tuple[int, int], ...] = ((100_000_000, 500), (100_000_000, 10_000))
    many: tuple[int, int] = (20_000, 100_000)
    declared: tuple[tuple[int, int], ...] = ((10_000, 500), (10_000, 5_000))
    scaled: bool = False


FULL = Sizes()
QUICK = Sizes(
    (50_000, 500), (2_000, 500), ((2_000_000, 500), (2_000_000, 10_000)), (2_000, 20_000), ((2_000, 500),), scaled=True
)


@dataclass(frozen=True)
class Row:
    """A measured figure beside its goal; `met` is None without a goal or at scaled sizes."""

    case: str
    figure: str
    value: float | None
    unit: str
    goal: str
    met: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Bench:
    """What all cases share."""

    folder: Path
    sizes: Sizes
    runs: int

    def row(
        self, case: str, figure: str, value: float | None, unit: str, limit: float | None = None, *, most: bool = True,
        detail: str = "",
    ) -> Row:  # fmt: skip
        """A row; `limit` is the most (or, with `most` False, the least) that meets the goal."""
        goal = "" if limit is None else f"{'at most' if most else 'at least'} {limit:g} {unit}"
        judged = limit is not None and value is not None and not self.sizes.scaled
        met = (
            (value <= limit if most else value >= limit) if judged and limit is not None and value is not None else None
        )
        return Row(case, figure, value, unit, goal, met, detail)

    def memory(self, case: str, runs: list[Run], limit: float = MEMORY_MB) -> Row:
        """Anonymous memory: everything but mapped files."""
        return self.row(case, "peak memory beyond mapped files", peak(runs), "MB", limit, detail="interpreter included")

    def write(self, kind: str, size: tuple[int, int]) -> dict[str, str]:
        """Data files, written by another process and read once, so that every run finds them in the file cache."""
        arguments = {"kind": kind, "folder": str(self.folder), "rows": size[0], "classes": size[1]}
        files = fresh("benchmarks.generate:prepare", **arguments).result
        for path in files.values():
            with Path(path).open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass
        return files

    def repeat(self, case: str, **arguments: Any) -> list[Run]:
        """Some runs, each in its own process."""
        return [fresh(case, **arguments) for _ in range(self.runs)]


def told(runs: list[Run]) -> str:
    """Wall and processor time of the runs, and the spread of the wall time."""
    walls = [run.seconds for run in runs]
    return f"{min(walls):.2f} to {max(walls):.2f} s wall, {median(runs, 'cpu'):.2f} s of processor, {len(runs)} runs"


def from_files(**files: str) -> Callable[[], dict[str, Any]]:
    """Open, one pass, tilt, findings, fix and JSON text."""
    from evenhand.auditing import audit_predictions
    from evenhand.files import open_predictions
    from evenhand.report import to_json

    def work() -> dict[str, Any]:
        found = audit_predictions(open_predictions(files.pop("path", None), **files))
        return {"cause": found.verdict.cause, "characters": len(to_json(found)), "rows": found.rows}

    return work


def in_memory(logits: str, target: str, train_counts: str, declared: str = NOTHING) -> Callable[[], dict[str, Any]]:
    """The same from arrays in memory, with a plan of `DECLARED` said to be behind them."""
    from evenhand import audit
    from evenhand.report import to_json

    z, y, counts = np.load(logits), np.load(target), np.load(train_counts)
    given, tilt = plan_of(declared, counts)
    if tilt.any():
        z += tilt.astype(np.float32)

    def work() -> dict[str, Any]:
        found = audit(logits=z, target=y, train_counts=counts, **given)
        return {"cause": found.verdict.cause, "characters": len(to_json(found))}

    return work


def plan_of(declared: str, counts: np.typing.NDArray[np.int64]) -> tuple[dict[str, Any], np.typing.NDArray[np.float64]]:
    """Arguments that declare a plan, and what must be added to logits with the prior divided out once to express it."""
    balanced = counts.sum() / (len(counts) * counts)
    log_weight, order = np.log(balanced), np.random.default_rng(1).permutation(len(counts))
    weights = {"class_weight": balanced}
    return {
        NOTHING: ({}, 0 * log_weight),
        "weights": (weights, 0 * log_weight),
        "weights, not expressed": (weights, -log_weight),
        "weights, reversed in use": (weights, log_weight[::-1] - log_weight),
        "weights, in an unknown order in use": (weights, log_weight[order] - log_weight),
        "weights in an unknown order": ({"class_weight": balanced[order]}, log_weight[order] - log_weight),
        "weights, turned round": (weights, -2 * log_weight),
        "weights of other counts": ({"class_weight": balanced * np.exp(0.5 * np.sin(order))}, 0 * log_weight),
        "sampler": ({"sampler": "balanced"}, 0 * log_weight),
        "weights and sampler": (weights | {"sampler": "balanced"}, log_weight),
        "weights and label smoothing": (weights | {"config": {"label_smoothing": 0.1}}, 0 * log_weight),
    }[declared]


def declared(bench: Bench) -> Iterator[Row]:
    """The same with weights or a sampler declared: the search for the order that the weights act in comes on top."""
    for rows, classes in bench.sizes.declared:
        files, case = bench.write("scores", (rows, classes)), f"{rows:,} x {classes:,} logits in memory"
        for name in DECLARED if classes <= 500 else DECLARED[:4]:
            runs = bench.repeat("benchmarks.audit:in_memory", declared=name, **files)
            detail = f"{told(runs)}; found {runs[0].result['cause']}"
            limit = 0.5 if classes <= 500 else None
            yield bench.row(case, f"audit after import: {name}", median(runs, "seconds"), "s", limit, detail=detail)


def large(bench: Bench) -> Iterator[Row]:
    """Logits of a memory-mapped file, end to end; the same statistics through the peers, in turn."""
    rows, classes = bench.sizes.large
    files, case = bench.write("scores", (rows, classes)), f"{rows:,} x {classes} logits"
    inputs = {"logits": files["logits"], "target": files["target"], "rows": rows}
    ours: list[Run] = []
    others: dict[str, list[Run]] = {name: [] for name in PEERS}
    for _ in range(bench.runs):
        ours.append(fresh("benchmarks.audit:from_files", **files))
        for name, done in others.items():
            if not done or done[0].seconds < LONG:
                done.append(fresh("benchmarks.peers:prepare", peer=name, **inputs))
    gigabytes = rows * classes * 4 / 1e9
    seconds = median(ours, "seconds")
    detail = f"{told(ours)}; found {ours[0].result['cause']}"
    yield bench.row(case, "audit, end to end", gigabytes / seconds, "GB/s", 1.4, most=False, detail=detail)
    yield bench.memory(case, ours)
    yield bench.row(case, "whole process, imports included", median(ours, "start"), "s")
    own = fresh("benchmarks.peers:prepare", peer="evenhand", **inputs).result
    for name, runs in others.items():
        figures = dict(runs[0].result)
        part = figures.pop("rows") / rows
        yield bench.row(case, f"through {name}", part * gigabytes / median(runs, "seconds"), "GB/s",
                        detail=told(runs))  # fmt: skip
        ratio = median(runs, "seconds") / part / seconds
        if part < 1:
            detail = f"{part:.0%} of the rows, scaled up: all at once would need about {PEER_MEMORY * gigabytes:.0f} GB"
            yield bench.row(case, f"audit against {name}", ratio, "times as fast", 8, most=False, detail=detail)
            continue
        gap = max(abs(own[key] - figures[key]) / max(abs(own[key]), 1.0) for key in figures)
        agrees = f"same figures to {gap:.1e}" if gap < AGREE else f"figures differ by {gap:.1e}"
        agrees += f"; by processor time {median(runs, 'cpu') / median(ours, 'cpu'):.3g} times"
        yield bench.row(case, f"audit against {name}", ratio, "times as fast", 8, most=False, detail=agrees)


def small(bench: Bench) -> Iterator[Row]:
    """An audit from arrays in memory."""
    rows, classes = bench.sizes.small
    files, case = bench.write("scores", (rows, classes)), f"{rows:,} x {classes} logits in memory"
    runs = bench.repeat("benchmarks.audit:in_memory", **files)
    yield bench.row(case, "audit after import", median(runs, "seconds"), "s", 0.5, detail=told(runs))
    yield bench.memory(case, runs)


def start(bench: Bench) -> Iterator[Row]:
    """The time until `evenhand --help` has ended."""
    command = [sys.executable, "-c", "from evenhand.cli import main; main()", "--help"]
    walls = []
    for _ in range(2 * bench.runs + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - begin)
    yield Row("evenhand --help", "start to end", middle(walls), "s", "at most 0.2 s", middle(walls) <= 0.2,
              f"{min(walls):.2f} to {max(walls):.2f} s, {len(walls)} runs")  # fmt: skip


def labels(bench: Bench) -> Iterator[Row]:
    """True and predicted labels alone, from Parquet."""
    for rows, classes in bench.sizes.labels:
        files, case = bench.write("labels", (rows, classes)), f"{rows:,} labels, {classes:,} classes, Parquet"
        runs = bench.repeat("benchmarks.audit:from_files", **files)
        yield bench.row(case, "audit, end to end", median(runs, "seconds"), "s", 10, detail=told(runs))
        yield bench.memory(case, runs)


def many(bench: Bench) -> Iterator[Row]:
    """Very many classes."""
    rows, classes = bench.sizes.many
    files, case = bench.write("scores", (rows, classes)), f"{rows:,} x {classes:,} logits"
    for said, more in (("", {}), (", weights declared", {"class_weight": "balanced"})):
        runs = bench.repeat("benchmarks.audit:from_files", **files, **more)
        yield bench.row(case, f"audit, end to end{said}", median(runs, "seconds"), "s", 60, detail=told(runs))
        yield bench.memory(case, runs, MEMORY_MANY_MB)


CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "help": start, "small": small, "declared": declared, "large": large, "labels": labels, "many": many,
}  # fmt: skip


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder of the data: the given one, kept, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="evenhand-benchmark-") as folder:
        yield Path(folder)


def line(row: Row) -> str:
    """A row as text."""
    mark = {True: "met", False: "NOT MET", None: ""}[row.met]
    value = "-" if row.value is None else f"{row.value:.4g} {row.unit}"
    return f"{row.case:44s}{row.figure:60s}{value:23s}{row.goal:24s}{mark:8s}{row.detail}"


@click.command()
@click.option("--work", type=click.Path(file_okay=False, path_type=Path), help="Keep the data here (10.5 GB for all).")
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), help="Only these; may be repeated.")
@click.option("--runs", default=3, show_default=True, help="Runs per case; the median counts.")
@click.option("--quick", is_flag=True, help="Scaled-down sizes; goals are shown but not judged.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def command(work: Path | None, names: tuple[str, ...], runs: int, quick: bool, as_json: bool) -> None:
    """Time and memory of the audit, and the same statistics through scikit-learn + SciPy and torchmetrics."""
    about = machine()
    click.echo(json.dumps(about) if as_json else "\n".join(f"{key}: {value}" for key, value in about.items()) + "\n")
    with work_folder(work) as folder:
        bench = Bench(folder, QUICK if quick else FULL, runs)
        for name in names or CASES:
            for row in CASES[name](bench):
                click.echo(json.dumps({"kind": "row", **asdict(row)}) if as_json else line(row))
            if work is None:
                for path in folder.iterdir():
                    path.unlink()
