"""`open_predictions` and `from_arrays`: from a file or from arrays to `Predictions`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.declared import InputError
from evenhand.files import declaring
from evenhand.files.blocks import Predictions, array_source
from evenhand.files.checks import Array
from evenhand.files.columns import TABLES, open_table
from evenhand.files.containers import Container, read_npy, read_npz, read_safetensors
from evenhand.files.fields import at_least_two, canonical, class_count, kind_of, parse_fields, same_model
from evenhand.files.vectors import PathLike

NAMES = (
    "logits", "probs", "predicted", "target", "row_id", "train_counts", "class_weight", "sampler_rate", "class_names",
    "config", "train_logits", "train_target",
)  # fmt: skip
SUFFIXES = (".npz", ".npy", ".safetensors", *TABLES)


def open_predictions(
    path: PathLike | None = None,
    *,
    logits: PathLike | None = None,
    probs: PathLike | None = None,
    predicted: PathLike | None = None,
    target: PathLike | None = None,
    train: PathLike | None = None,
    train_counts: Any = None,
    class_weight: Any = None,
    sampler: Any = None,
    class_names: Any = None,
    config: str | Mapping[str, object] | None = None,
    ignore_index: int | None = None,
) -> Predictions:
    """Open saved predictions; rows are checked here or in the one pass, scores are never all read into memory.

    Args:
        path: npz, safetensors, Parquet, Arrow IPC or CSV file, or None when the arrays come one per file.
        logits, probs, predicted, target: npy files, (N, K) or (N,), memory-mapped. They override what `path` holds.
        train: a file of the same kinds with predictions on training rows.
        train_counts, class_weight, class_names: (K,) arrays or files; they override what `path` holds.
        sampler: ``"balanced"``, ``"sqrt"``, a (K,) array of drawing rates or a file.
        config: JSON object or mapping (loss, label_smoothing, reduction, batch_size, gamma); overrides single fields.
        ignore_index: rows with this target are dropped.

    Returns:
        `Predictions`, opened but not read.

    Raises:
        InputError: what was found cannot be used; the message says what was expected, what came and what to do.
        OSError: a file cannot be opened.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "val.npz")
        ...     np.savez(file, logits=np.eye(3, dtype=np.float32), target=np.array([0, 1, 1]))
        ...     predictions = open_predictions(file)
        ...     predictions.kind, predictions.classes, predictions.rows
        ('logits', 3, 3)
    """
    options = {
        "train_counts": train_counts,
        "class_weight": class_weight,
        "class_names": class_names,
        "sampler": sampler,
    }
    given = {key: value for key, value in options.items() if value is not None}
    pieces = {"logits": logits, "probs": probs, "predicted": predicted, "target": target}
    files = {key: value for key, value in pieces.items() if value is not None}
    inner = None if train is None else open_predictions(train, ignore_index=ignore_index)
    if path is not None:
        path = Path(path)
        if path.suffix.lower() in TABLES:
            if files:
                raise InputError(
                    f"{path} is a table and takes no separate arrays but {', '.join(files)} came too; add columns"
                )
            return open_table(path, given=given, config=config, ignore_index=ignore_index, train=inner)
    held = Container({}) if path is None else _container(path)
    scores = {"logits", "probs", "predicted"}
    replaced = scores if scores & files.keys() else set()
    kept = {key: value for key, value in held.arrays.items() if key not in replaced}
    arrays = kept | {key: _labels_or_scores(value) for key, value in files.items()}
    bfloat16 = held.bfloat16 - files.keys()
    name = path.name if path is not None else Path(next(iter(files.values()), "predictions")).name
    opened = _assemble(name, arrays, bfloat16, given, (held.config, config), ignore_index, inner)
    _warn_of_unread(name, held.arrays)
    return opened


def from_arrays(
    *,
    logits: Any = None,
    probs: Any = None,
    predicted: Any = None,
    target: Any,
    row_id: Any = None,
    train_logits: Any = None,
    train_target: Any = None,
    train_counts: Any = None,
    class_weight: Any = None,
    sampler: Any = None,
    class_names: Any = None,
    config: str | Mapping[str, object] | None = None,
    ignore_index: int | None = None,
    name: str = "predictions",
) -> Predictions:
    """Predictions held in memory: NumPy arrays, sequences or torch tensors (bfloat16 included).

    Args:
        logits, probs: (N, K) floating-point scores. predicted: (N,) classes. One of the three is needed.
        target: (N,) true classes. row_id: (N,) ids that do not depend on the order of the rows.
        train_logits, train_target: the same for training rows.
        train_counts, class_weight, sampler, class_names, config, ignore_index: as in `open_predictions`.
        name: shown in the report.

    Raises:
        InputError: the arrays do not fit together or cannot be used.

    Example:
        >>> from_arrays(predicted=[0, 1, 1], target=[0, 1, 2]).edges().rows
        array([1, 1, 1])
    """
    pieces = {"logits": logits, "probs": probs, "predicted": predicted, "target": target, "row_id": row_id,
              "train_logits": train_logits, "train_target": train_target}  # fmt: skip
    arrays = {key: as_array(key, value) for key, value in pieces.items() if value is not None}
    options = {
        "train_counts": train_counts,
        "class_weight": class_weight,
        "class_names": class_names,
        "sampler": sampler,
    }
    given = {key: value for key, value in options.items() if value is not None}
    return _assemble(name, arrays, frozenset(), given, (None, config), ignore_index, None)


def _warn_of_unread(name: str, held: Iterable[str]) -> None:
    """Say which arrays of a file nobody reads: a misspelt class_weight would change the verdict unnoticed."""
    renamed = canonical(held)
    unread = [repr(key[:40]) for key in held if key not in NAMES and key not in renamed]
    if unread:
        more = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
        _warn_once(
            f"{name} holds {', '.join(unread[:5])}{more}, which evenhand does not read; the names it reads are "
            f"{', '.join(NAMES)}"
        )


@cache
def _warn_once(sentence: str) -> None:
    # Without handlers of the application's own, logging prints the bare sentence on stderr.
    logging.getLogger("evenhand").warning(sentence)


def as_array(name: str, value: Any) -> Array:
    """A NumPy array of whatever was passed; tensors are moved to the CPU, bfloat16 widened to float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is ragged ({error}); give every row the same length") from error


def _container(path: Path) -> Container:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} should end in one of {', '.join(SUFFIXES)}; save the predictions in such a format")
    if path.is_dir():
        raise InputError(f"{path} is a folder but a file of predictions was expected; name the file")
    if suffix == ".npy":
        raise InputError(
            f"{path} holds one array, but scores and target are needed; pass --logits Z.npy --target Y.npy"
        )
    return read_npz(path) if suffix == ".npz" else read_safetensors(path)


def _labels_or_scores(path: PathLike) -> Array:
    path = Path(path)
    if path.suffix.lower() != ".npy":
        raise InputError(f"{path} should be an npy file holding one array; save it with numpy.save")
    return read_npy(path)


def _assemble(
    name: str,
    arrays: Mapping[str, Array],
    bfloat16: frozenset[str],
    given: Mapping[str, Any],
    configs: tuple[Any, Any],
    ignore_index: int | None,
    train: Predictions | None,
) -> Predictions:
    """Check arrays by name, merge what the file declares with the options, and build the `Predictions`."""
    renamed = canonical(arrays)
    arrays = {renamed.get(key, key): value for key, value in arrays.items()}
    bfloat16 = frozenset(renamed.get(key, key) for key in bfloat16)
    config: dict[str, Any] = {}
    for text in (_config_text(arrays.get("config")), *configs):
        config |= declaring.parse_config(text)
    if ignore_index is not None:
        config["ignore_index"] = ignore_index
    ignore_index = config.get("ignore_index")
    fields = _fields(arrays, given)
    kind = kind_of(name, arrays)
    source, seen, rows = array_source(
        scores=None if kind == "predicted" else arrays[kind],
        predicted=arrays.get("predicted"),
        target=arrays["target"],
        row_id=arrays.get("row_id"),
        ignore_index=ignore_index,
        kind=kind,
        classes=class_count(fields),
        bfloat16=kind in bfloat16,
    )
    classes = source.scores.shape[1] if source.scores is not None else at_least_two(class_count(fields) or seen)
    if train is None and "train_logits" in arrays:
        inner = {key.removeprefix("train_"): arrays[key] for key in ("train_logits", "train_target") if key in arrays}
        brain = frozenset({"logits"} & {key.removeprefix("train_") for key in bfloat16})
        train = _assemble(f"{name} (training rows)", inner, brain, {}, (None, None), ignore_index, None)
    same_model(train, classes)
    declared = declaring.declare(fields, config, classes)
    return Predictions(name, kind, classes, declared, train, rows, source)


def _config_text(array: Array | None) -> str | bytes | None:
    if array is None:
        return None
    if array.size != 1 or array.dtype.kind not in "US":
        raise InputError("config must be one JSON string; save it as json.dumps({...})")
    text: str | bytes = array.reshape(()).item()
    return text


def _fields(arrays: Mapping[str, Array], given: Mapping[str, Any]) -> dict[str, Any]:
    """Per-class facts, options first: parsed, but their lengths not yet compared with K."""
    held = {key: arrays[key] for key in ("train_counts", "class_weight", "class_names") if key in arrays}
    if "sampler_rate" in arrays:
        held["sampler"] = arrays["sampler_rate"]
    return parse_fields(held | dict(given))
