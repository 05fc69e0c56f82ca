"""Speed, memory and exactness of the losses, beside torch's own in the same run: the figures of docs/benchmarks.md."""

from __future__ import annotations

import gc
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.measure import fresh, machine

DENSE = ((4096, 500), (1024, 500), (256, 500), (1024, 10_000), (128, 100_000))
LINEAR = ((512, 384, 100_000), (256, 384, 10_000))
GPU_LINEAR = ((512, 384, 100_000), (1024, 768, 21_843), (4096, 1024, 1_000_000))
MICRO = ((100, 100, 8, 8), (1000, 256, 32, 8), (8142, 500, 8, 8))
QUICK_DENSE, QUICK_LINEAR, QUICK_MICRO = ((64, 500),), ((256, 16, 300),), ((50, 20, 8, 4),)
ENOUGH_SECONDS = 6.0  # per shape and contender
GOALS = {"off": 1.02, "all": 1.15, "eager": 1.5, "linear": 1.0, "memory": 0.25, "torch linear": 10.0, "exact": 1e-6}


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        part: which table. shape: of the batch. name: what is compared.
        value: the figure. goal: the bound on it, or None. at_least: whether it is a lower bound. detail: the times.
    """

    part: str
    shape: str
    name: str
    value: float
    goal: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def dense_figures(
    shapes: tuple[tuple[int, int], ...], quick: bool, device: str = "cpu", clock: str = "wall"
) -> Iterator[Figure]:
    from benchmarks.losscases import dense_works, interleaved, ratio, same_bits

    for rows, classes in shapes:
        works = dense_works(rows, classes, device)
        seconds = interleaved(works, _repetitions(works, quick), clock=clock)
        shape, said = f"N={rows:,}, K={classes:,}", _times(seconds)
        part = "dense" if device == "cpu" else f"dense, {device}"
        off, everything = "evenhand, options off", "evenhand, all options"
        yield Figure(part, shape, "options off / torch", ratio(seconds, off, "torch"), GOALS["off"], detail=said)
        yield Figure(
            part, shape, "all options / torch, weighted", ratio(seconds, everything, "torch, weighted"), GOALS["all"]
        )
        eager = ratio(seconds, "usual code, all options", everything)
        yield Figure(part, shape, "usual code / all options", eager, GOALS["eager"], at_least=True)
        if device == "cpu":
            yield Figure(
                part, shape, "bits that differ from torch, options off", float(not same_bits(rows, classes)), 0.0
            )


def linear_figures(
    shapes: tuple[tuple[int, int, int], ...], quick: bool, device: str = "cpu", clock: str = "wall"
) -> Iterator[Figure]:
    import torch

    from benchmarks.losscases import head_batch, interleaved, linear_losses, ratio, settings, trained

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    part = "linear" if device == "cpu" else f"linear, {device}, bf16"
    for rows, width, classes in shapes:
        batch = head_batch(rows, width, classes, device, dtype)
        losses = linear_losses(batch, settings(rows, classes, device)) | _liger(batch, device)
        slow = {"torch linear": trained(batch, losses.pop("torch linear"))}
        works = {name: trained(batch, loss) for name, loss in losses.items()}
        seconds = interleaved(works, _repetitions(works, quick), warm=1, clock=clock)
        seconds |= interleaved(slow, 1 if quick or device == "cpu" else 5, warm=int(device != "cpu"), clock=clock)
        shape = f"N={rows:,}, D={width:,}, K={classes:,}"
        speed = ratio(seconds, "evenhand linear", "dense")
        yield Figure(part, shape, "linear / dense, time", speed, GOALS["linear"], detail=_times(seconds))
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        gain = medians["torch linear"] / medians["evenhand linear"]
        yield Figure(part, shape, "torch linear / evenhand linear, time", gain, GOALS["torch linear"], at_least=True)
        yield Figure(
            part,
            shape,
            "linear, all options / dense plain, time",
            ratio(seconds, "evenhand linear, all options", "dense"),
        )
        del batch, losses, works, slow
        gc.collect()


def memory_figures(shapes: tuple[tuple[int, int, int], ...]) -> Iterator[Figure]:
    """Peak resident memory beyond inputs and gradients, each contender in a process of its own."""
    for rows, width, classes in shapes:
        shape = f"N={rows:,}, D={width:,}, K={classes:,}"
        extra = {}
        for name in ("dense", "evenhand linear", "torch linear"):
            run = fresh("benchmarks.losses:peak", name=name, rows=rows, width=width, classes=classes)
            extra[name] = run.result["extra_mb"]
        said = ", ".join(f"{name} {size:.0f} MB" for name, size in extra.items())
        share = extra["evenhand linear"] / extra["dense"]
        yield Figure("memory", shape, "linear / dense, extra memory", share, GOALS["memory"], detail=said)


def peak(name: str, rows: int, width: int, classes: int) -> Callable[[], dict[str, float]]:
    """The case of one memory figure: prepares the batch, then runs the loss once, forward and backward."""
    from benchmarks.losscases import head_batch, linear_losses, trained

    small = head_batch(8, width, 8)
    trained(small, linear_losses(small)[name])()  # what the first call loads is not the batch's
    batch = head_batch(rows, width, classes)
    for leaf in (batch.features, batch.head):
        leaf.grad = leaf.detach().clone()  # the gradients exist in every way of training
    work = trained(batch, linear_losses(batch)[name])

    def measured() -> dict[str, float]:
        batch.features.grad = batch.head.grad = None
        gradients = sum(x.numel() * x.element_size() for x in (batch.features, batch.head)) / 1e6
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS:")
        work()
        return {"extra_mb": _status("VmHWM:") - before - gradients}

    return measured


def micro_figures(cases: tuple[tuple[int, int, int, int], ...], quick: bool) -> Iterator[Figure]:
    from benchmarks.losscases import micro_batch_errors

    for classes, imbalance, rows, count in cases:
        found = micro_batch_errors(classes, imbalance, rows, count, 3 if quick else 20)
        shape = f"K={classes:,}, imbalance {imbalance}, {count} x {rows} rows"
        yield Figure("micro-batches", shape, "gradient error, mean of weighted means", found["mean of means"])
        exact = found["numerators and denominators"]
        yield Figure("micro-batches", shape, "gradient error, numerators and denominators", exact, GOALS["exact"])


def gpu_figures(quick: bool) -> Iterator[Figure | str]:
    import torch

    if not torch.cuda.is_available():
        yield "GPU: not measured, torch sees none here"
        return
    yield f"GPU: {torch.cuda.get_device_name()}"
    yield from dense_figures(QUICK_DENSE if quick else DENSE, quick, "cuda")
    yield from linear_figures(QUICK_LINEAR if quick else GPU_LINEAR, quick, "cuda")


def figures(quick: bool, clock: str = "wall") -> Iterator[Figure | str]:
    """Everything, in the order of the tables; a string is a remark."""
    yield from dense_figures(QUICK_DENSE if quick else DENSE, quick, clock=clock)
    yield from linear_figures(QUICK_LINEAR if quick else LINEAR, quick, clock=clock)
    if Path("/proc/self/clear_refs").exists():
        yield from memory_figures(QUICK_LINEAR if quick else LINEAR)
    else:
        yield "memory: not measured, the system does not tell the peak"
    yield from micro_figures(QUICK_MICRO if quick else MICRO, quick)
    yield from gpu_figures(quick)


def told(figure: Figure) -> str:
    """One line for people."""
    verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
    bound = "" if figure.goal is None else f"goal {'>=' if figure.at_least else '<='} {figure.goal:g}"
    line = f"{figure.part:14} {figure.shape:34} {figure.name:44} {figure.value:10.3g}  {bound:14} {verdict}"
    return line.rstrip() + (f"\n{'':15}{figure.detail}" if figure.detail else "")


def _repetitions(works: dict[str, Any], quick: bool) -> int:
    from benchmarks.losscases import interleaved

    if quick:
        return 2
    slowest = max(times[0] for times in interleaved(works, 1, warm=1).values())
    return max(5, min(201, int(ENOUGH_SECONDS / slowest)))


def _times(seconds: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {1e3 * statistics.median(times):.2f} ms" for name, times in seconds.items())


def _liger(batch: Any, device: str) -> dict[str, Any]:
    """Liger's fused linear loss, where it is installed and a GPU is at hand."""
    if device == "cpu":
        return {}
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return {}
    loss = LigerFusedLinearCrossEntropyLoss()
    return {"liger": lambda: loss(batch.head, batch.features, batch.target)}


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, the machine first.")
@click.option("--quick", is_flag=True, help="Tiny shapes, to see that it runs; the figures mean nothing.")
@click.option("--threads", type=int, help="Threads of torch; default its own choice.")
@click.option("--clock", type=click.Choice(["wall", "processor"]), default="wall", show_default=True)
def command(as_json: bool, quick: bool, threads: int | None, clock: str) -> None:
    """Speed, memory and exactness of the losses beside torch's own."""
    import torch

    if threads:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for the processes of the memory figures
    known = machine() | {"threads": torch.get_num_threads(), "quick": quick, "clock": clock}
    click.echo(json.dumps(known) if as_json else _header(known))
    for figure in figures(quick, clock):
        if quick and isinstance(figure, Figure):
            figure = replace(figure, goal=None)
        if isinstance(figure, str):
            click.echo(json.dumps({"kind": "remark", "remark": figure}) if as_json else figure)
        else:
            line = {"kind": "figure", "met": figure.met} | asdict(figure)
            click.echo(json.dumps(line) if as_json else told(figure))


def _header(known: dict[str, Any]) -> str:
    return (
        f"{known['processor']}, {known['threads']} threads, load {known['load']}, "
        f"torch {known['versions'].get('torch')}, {known['clock']} time; forward and backward, float32; "
        "ratios are medians over rounds in which all contenders take turns"
    )
