"""Finished runs as JSON lines, one file per set: what is in the file is whole, whenever the process was killed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

Run = dict[str, Any]
Key = tuple[str, str, int]


def key(run: Run) -> Key:
    return run["set"], run["remedy"], run["seed"]


def read(folder: Path) -> list[Run]:
    """All finished runs of a folder; of a run that was stored twice the last, and never a torn line."""
    found: dict[Key, Run] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            run = _whole(line)
            if run is not None:
                found[key(run)] = run
    return list(found.values())


def append(folder: Path, run: Run) -> None:
    """Store a finished run with one write, after whatever a killed process left unfinished."""
    path = folder / f"{run['set']}.jsonl"
    line = json.dumps(_finite(run), allow_nan=False, ensure_ascii=False) + "\n"
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, ("\n" * torn + line).encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(line: str) -> Run | None:
    try:
        run = json.loads(line)
    except json.JSONDecodeError:
        return None
    return run if isinstance(run, dict) and {"set", "remedy", "seed", "curve", "decisions"} <= set(run) else None


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, rounded to six digits: JSON knows neither."""
    if isinstance(value, dict):
        return {name: _finite(held) for name, held in value.items()}
    if isinstance(value, list):
        return [_finite(held) for held in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
