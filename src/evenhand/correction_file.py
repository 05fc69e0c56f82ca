"""The file of a correction: JSON with the offsets inline, or npz; schema ``evenhand.correction/1``. Never unpickles."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.declared import InputError
from evenhand.files.containers import read_npz
from evenhand.output import PathLike, write_bytes_atomically

SCHEMA = "evenhand.correction/1"
TYPES: dict[str, type | tuple[type, ...]] = {
    "scale": (int, float), "goal": str, "model": str, "evidence": dict, "rows": int, "folds": int,
    "recommended": bool, "why": str, "names_hash": (str, type(None)),
}  # fmt: skip


def hash_names(class_names: Iterable[str]) -> str:
    """SHA-256 of the class names in their order.

    Example:
        >>> hash_names(["cat", "dog"]) == hash_names(["dog", "cat"])
        False
    """
    return hashlib.sha256(json.dumps([str(name) for name in class_names]).encode()).hexdigest()


def write_fields(path: PathLike, fields: Mapping[str, Any]) -> None:
    """Write the fields of a correction; float64 offsets come back bit by bit.

    Raises:
        InputError: another ending than .json or .npz. OSError: the file cannot be written.
    """
    offset = fields["offset"]
    facts = {"schema": SCHEMA, "classes": len(offset)} | {key: fields[key] for key in TYPES}
    if _ending(path) == ".json":
        text = json.dumps(facts | {"offset": offset.tolist()}, indent=1, allow_nan=False)
        write_bytes_atomically(path, (text + "\n").encode())
        return
    buffer = io.BytesIO()
    np.savez(buffer, offset=offset, facts=np.array(json.dumps(facts, allow_nan=False)))
    write_bytes_atomically(path, buffer.getvalue())


def read_fields(path: PathLike) -> dict[str, Any]:
    """The fields that `write_fields` wrote, each checked for its type.

    Raises:
        InputError: not such a file, or damaged. OSError: it cannot be opened.
    """
    path = Path(path)
    facts = _facts(path)
    came = facts.get("schema")
    if came != SCHEMA:
        raise InputError(
            f"{path} should have schema {SCHEMA} but has {came!r:.40}; name a file that evenhand fix wrote"
        )
    values: dict[str, Any] = {key: facts.get(key) for key in TYPES}
    offset: Any = facts.get("offset")
    scale: Any = values["scale"]
    typed = all(isinstance(values[key], kind) for key, kind in TYPES.items())
    if not typed or not _numbers(offset, facts.get("classes")) or not _numbers([scale], 1) or not scale > 0:
        raise InputError(f"{path} is damaged: fields are missing or hold impossible values; write it again")
    return values | {"scale": float(scale), "offset": np.array(offset, np.float64)}


def _numbers(values: Any, length: Any) -> bool:
    """Whether `values` is a list of that many finite numbers."""
    if not isinstance(values, list) or len(values) != length:
        return False
    return all(isinstance(v, (int, float)) and -1e300 < v < 1e300 for v in values)


def _ending(path: PathLike) -> str:
    ending = Path(path).suffix.lower()
    if ending not in (".json", ".npz"):
        raise InputError(
            f"a correction is kept in a .json or .npz file but {Path(path).name!r} was named; change the ending"
        )
    return ending


def _facts(path: Path) -> dict[str, Any]:
    if _ending(path) == ".npz":
        arrays = read_npz(path).arrays
        held = arrays.get("facts")
        if held is None or "offset" not in arrays or held.dtype.kind != "U" or held.size != 1:
            raise InputError(f"{path} holds no correction but other arrays; name a file that evenhand fix wrote")
        return _object(path, held.reshape(()).item()) | {"offset": arrays["offset"].tolist()}
    return _object(path, path.read_bytes())


def _object(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not parse as JSON ({error}); write it again with evenhand fix") from error
    if not isinstance(facts, dict):
        raise InputError(f"{path} should hold a JSON object but holds a {type(facts).__name__}; write it again")
    return facts
