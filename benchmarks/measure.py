"""Time and memory of one case, each run in a process of its own; the machine and the versions they were taken on."""

from __future__ import annotations

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("evenhand", "numpy", "scipy", "polars", "scikit-learn", "torch", "torchmetrics")
POLL_SECONDS = 0.005
ROOT = Path(__file__).parents[1]  # the child imports `benchmarks` from here


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seconds: wall time of the work. cpu: processor time of all threads in it. start: wall time from the start of the
            process to its end, imports included.
        anonymous_mb: largest anonymous memory of the process (interpreter and libraries included, mapped files not),
            sampled every 5 ms; None where the system does not tell. resident_mb: largest resident set, maps included.
        result: what the work returned.
    """

    seconds: float
    cpu: float
    start: float
    anonymous_mb: float | None
    resident_mb: float
    result: dict[str, Any]


def fresh(case: str, **arguments: Any) -> Run:
    """Run ``module:function(**arguments)()`` in a new process: the outer call prepares, only the inner one is timed."""
    command = [sys.executable, "-m", "benchmarks.measure", case, json.dumps(arguments)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        peak = _watch(child)
        output, _ = child.communicate()
    if child.returncode:
        raise RuntimeError(f"the case {case} ended with exit code {child.returncode}; its message is above")
    told = json.loads(output.splitlines()[-1])
    return Run(start=time.perf_counter() - begin, anonymous_mb=peak, **told)


def _watch(child: subprocess.Popen[str]) -> float | None:
    """Largest anonymous memory of a child until it ends, in MB."""
    peak = None
    while child.poll() is None:
        size = anonymous_mb(child.pid)
        if size is not None:
            peak = max(size, peak or 0.0)
        time.sleep(POLL_SECONDS)
    return peak


def anonymous_mb(pid: int) -> float | None:
    """Anonymous memory of a process in MB (10^6 bytes), from the kernel's counters; None where there are none."""
    return _counter(pid, "RssAnon:")


def _counter(pid: int, name: str) -> float | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in lines if line.startswith(name)]
    return sizes[0] * 1024 / 1e6 if sizes else None


def median(runs: list[Run], name: str) -> float:
    """Median of one attribute over runs."""
    return float(statistics.median(getattr(run, name) for run in runs))


def peak(runs: list[Run]) -> float | None:
    """Largest anonymous memory over runs."""
    sizes = [run.anonymous_mb for run in runs if run.anonymous_mb is not None]
    return max(sizes) if sizes else None


def machine() -> dict[str, Any]:
    """Hardware, system, versions and the load at the start."""
    return {
        "kind": "machine",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(_memory() / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _resident_mb() -> float:
    # A process inherits ru_maxrss from the one that started it; the kernel's own high-water mark starts anew.
    peak = _counter(os.getpid(), "VmHWM:")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return 0.0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 1e6 if sys.platform == "darwin" else largest * 1024 / 1e6


def main(case: str, arguments: str) -> None:
    """The child: prepare, time, tell."""
    module, function = case.split(":")
    work = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    told = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "resident_mb": _resident_mb()}
    print(json.dumps(told | {"result": result}))


if __name__ == "__main__":
    main(*sys.argv[1:])
