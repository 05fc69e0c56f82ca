"""The file of a correction: JSON with the offsets inline, or npz. Never unpickles.

Schema ``evenhand.correction/2`` adds to /1 a scale per class, the goal's part of the offset, and decisions that are no
offset. Files of /1 are read as what they are: additive corrections.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from evenhand.declared import InputError
from evenhand.files.containers import read_npz
from evenhand.goals import Decision
from evenhand.output import PathLike, write_bytes_atomically

SCHEMA = "evenhand.correction/2"
READABLE = ("evenhand.correction/1", SCHEMA)
VECTORS = ("offset", "scale", "goal_offset", "gain", "charge", "extra", "true", "decided", "cost")  # arrays in an npz
TYPES: dict[str, type | tuple[type, ...]] = {
    "goal": str, "model": str, "evidence": dict, "rows": int, "folds": int,
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
    facts = {"schema": SCHEMA, "classes": len(fields["offset"])} | {key: fields[key] for key in TYPES}
    numbers = _numbers_of(fields)
    if _ending(path) == ".json":
        inline = {name: np.asarray(array).tolist() for name, array in numbers.items()}
        text = json.dumps(facts | inline, indent=1, allow_nan=False)
        write_bytes_atomically(path, (text + "\n").encode())
        return
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, facts=np.array(json.dumps(facts, allow_nan=False)), **numbers)
    write_bytes_atomically(path, buffer.getvalue())


def _numbers_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Every array of a correction by its name in the file; absent ones are left out."""
    numbers = {"offset": fields["offset"], "scale": np.asarray(fields["scale"], np.float64)}
    if fields["goal_offset"] is not None:
        numbers["goal_offset"] = fields["goal_offset"]
    decision = fields["decision"]
    if decision is None:
        return numbers
    numbers["gain"] = decision.gain
    if decision.charge is not None:
        numbers["charge"] = decision.charge
    if sparse.issparse(decision.extra):
        pairs = decision.extra.tocoo()
        numbers |= {"true": pairs.row, "decided": pairs.col, "cost": pairs.data}
    elif decision.extra is not None:
        numbers["extra"] = decision.extra
    return numbers


def read_fields(path: PathLike) -> dict[str, Any]:
    """The fields that `write_fields` wrote, each checked for its type.

    Raises:
        InputError: not such a file, or damaged. OSError: it cannot be opened.
    """
    path = Path(path)
    facts = _facts(path)
    came = facts.get("schema")
    if came not in READABLE:
        raise InputError(
            f"{path} should have schema {SCHEMA} but has {came!r:.40}; name a file that evenhand fix wrote"
        )
    values: dict[str, Any] = {key: facts.get(key) for key in TYPES}
    arrays = {name: _array(facts[name]) for name in VECTORS if name in facts}
    if not all(isinstance(values[key], kind) for key, kind in TYPES.items()) or not _fit(arrays, facts.get("classes")):
        raise InputError(f"{path} is damaged: fields are missing or hold impossible values; write it again")
    scale = arrays["scale"]
    return values | {
        "scale": float(scale) if scale.ndim == 0 else scale,
        "offset": arrays["offset"],
        "goal_offset": arrays.get("goal_offset"),
        "decision": _decision(arrays, len(arrays["offset"])),
    }


def _array(values: Any) -> NDArray[Any]:
    """Numbers as float64; anything else as an empty array, which fits nowhere."""
    try:
        array = np.asarray(values)
    except ValueError:
        return np.empty(0)
    numeric = array.dtype.kind in "iuf" and not isinstance(values, bool)
    return array.astype(np.float64) if numeric else np.empty(0)


def _fit(arrays: Mapping[str, NDArray[Any]], classes: Any) -> bool:
    """Whether the arrays belong to one correction of that many classes."""
    if not isinstance(classes, int) or not {"offset", "scale"} <= arrays.keys():
        return False
    if any(not (np.abs(array) < 1e300).all() for array in arrays.values()):
        return False
    scale, pairs = arrays["scale"], [arrays[n] for n in ("true", "decided", "cost") if n in arrays]
    shapes = {n: a.shape for n, a in arrays.items() if n in ("offset", "goal_offset", "gain", "charge")}
    indices = [a for n, a in arrays.items() if n in ("true", "decided")]
    return (
        set(shapes.values()) == {(classes,)}
        and scale.shape in ((), (classes,))
        and bool((scale > 0).all())
        and ("extra" not in arrays or arrays["extra"].shape == (classes, classes))
        and len(pairs) in (0, 3)
        and len({a.shape for a in pairs}) < 2
        and all(a.ndim == 1 and ((a >= 0) & (a < classes) & (a % 1 == 0)).all() for a in indices)
        and ("gain" in arrays or not {"charge", "extra", "true"} & arrays.keys())
    )


def _decision(arrays: Mapping[str, NDArray[Any]], classes: int) -> Decision | None:
    if "gain" not in arrays:
        return None
    extra: Any = arrays.get("extra")
    if extra is not None:
        extra = extra.astype(np.float32)
    if "cost" in arrays:
        place = (arrays["true"].astype(np.int64), arrays["decided"].astype(np.int64))
        extra = sparse.csr_array((arrays["cost"].astype(np.float32), place), (classes, classes))
    return Decision(arrays["gain"], arrays.get("charge"), extra)


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
        # /1 kept the scale among the facts.
        return _object(path, held.reshape(()).item()) | {n: a for n, a in arrays.items() if n in VECTORS}
    return _object(path, path.read_bytes())


def _object(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not parse as JSON ({error}); write it again with evenhand fix") from error
    if not isinstance(facts, dict):
        raise InputError(f"{path} should hold a JSON object but holds a {type(facts).__name__}; write it again")
    return facts
