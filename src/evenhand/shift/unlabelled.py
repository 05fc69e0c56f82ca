"""Opening predictions that need no labels: any labels that are there are left unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evenhand.declared import InputError
from evenhand.files import Predictions, from_arrays
from evenhand.files.columns import TABLES, TEXT, check_types, scan, score_columns, typed
from evenhand.files.containers import read_npz, read_safetensors
from evenhand.files.declaring import declare
from evenhand.files.fields import ALIASES, canonical
from evenhand.files.tables import SAVE_AGAIN, TableSource

ENDINGS = (".npz", ".safetensors", *TABLES)
LABELS = {"target", *ALIASES["target"]}


def open_unlabelled(path: Path, *, class_names: Any = None) -> Predictions:
    """Logits or probabilities of rows without labels; `Predictions` whose targets are all zero and mean nothing.

    Args:
        path: npz, safetensors, Parquet, Arrow or CSV file. class_names: (K,), in place of those in the file.

    Raises:
        InputError: another ending, no scores, scores of a wrong shape. OSError: the file cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in ENDINGS:
        raise InputError(f"{path} should end in one of {', '.join(ENDINGS)}; save the scores in such a format")
    if path.is_dir():
        raise InputError(f"{path} is a folder but a file of predictions was expected; name the file")
    return _table(path, class_names) if suffix in TABLES else _arrays(path, class_names)


def _arrays(path: Path, class_names: Any) -> Predictions:
    held = read_npz(path) if path.suffix.lower() == ".npz" else read_safetensors(path)
    renamed = canonical(name for name in held.arrays if name.lower() not in LABELS)
    arrays = {renamed.get(name, name): array for name, array in held.arrays.items()}
    kind = next((name for name in ("logits", "probs") if name in arrays), None)
    if kind is None:
        raise _no_scores(path, sorted(held.arrays))
    scores = arrays[kind]
    if kind in {renamed.get(name, name) for name in held.bfloat16}:
        scores = (scores.astype(np.uint32) << 16).view(np.float32)
    names = arrays.get("class_names") if class_names is None else class_names
    target = np.zeros(len(scores) if scores.ndim else 0, np.int64)
    logits, probs = (scores, None) if kind == "logits" else (None, scores)
    return from_arrays(logits=logits, probs=probs, target=target, class_names=names, name=path.name)


def _table(path: Path, class_names: Any) -> Predictions:
    import polars as pl

    from evenhand.files.checks import parsing

    with path.open("rb") as probe:
        if not probe.read(1):
            raise InputError(f"{path} is empty; save the predictions again")
    with parsing(str(path), SAVE_AGAIN):
        frame = scan(path)
        renamed = canonical(name for name in frame.collect_schema() if name.lower() not in LABELS)
        frame = frame.rename(renamed).with_columns(pl.lit(0, pl.Int64).alias("target"))
        schema = dict(frame.collect_schema())
        columns = score_columns(schema)
        kind = next((name for name in ("logits", "probs") if name in columns), None)
        if kind is None:
            raise _no_scores(path, sorted(set(schema) - {"target"}))
        check_types(schema, columns, csv=path.suffix.lower() in TEXT)
        frame, width = typed(frame, schema, columns[kind], kind)
    classes = width or len(columns[kind])
    source = TableSource(
        name=str(path),
        frame=frame,
        kind=kind,
        scores=columns[kind],
        width=width,
        predicted=False,
        row_id=False,
        ignore_index=None,
        label_classes=classes,
        positions=None,
        seekable=path.suffix.lower() not in TEXT,
    )
    fields = {} if class_names is None else {"class_names": tuple(class_names)}
    kinds: dict[str, Any] = {"logits": "logits", "probs": "probs"}
    return Predictions(path.name, kinds[kind], classes, declare(fields, {}, classes), None, None, source)


def _no_scores(path: Path, names: list[str]) -> InputError:
    found = ", ".join(" ".join(name.split())[:40] for name in names[:12]) or "nothing"
    return InputError(
        f"{path.name} must hold logits or probs of the new rows but holds {found}; predicted labels alone do not tell "
        "the class frequencies well enough, so save the scores"
    )
