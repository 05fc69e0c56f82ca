"""Rows for a correction: a bounded sample to fit on, and corrected predictions written row block by row block."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from evenhand.correction.result import Correction
from evenhand.declared import Declared, InputError, Ints
from evenhand.files import Predictions
from evenhand.files.blocks import ArraySource
from evenhand.files.containers import read_npz
from evenhand.files.declaring import parse_config
from evenhand.files.fields import ALIASES, canonical
from evenhand.output import save_atomically
from evenhand.scanning import as_logits, bad_rows
from evenhand.tally import Kind, RowSample, Singles, join, row_hash

SAMPLE_CELLS = 25_000_000  # scores to fit on: 100 MB, held about twice
MIN_ROWS = 2_000
BLOCK_CELLS = 2_000_000
MARK = "corrected"  # field of `config` that says that the scores were corrected, and how
PER_CLASS = ("train_counts", "class_weight", "sampler_rate", "class_names")
PLAN = ("class_weight", "sampler_rate")  # an audit would look for their tilt in scores that no longer hold it
Array = NDArray[Any]


def sample_rows(opened: Predictions, *, cells: int = SAMPLE_CELLS) -> tuple[Singles, Ints, int]:
    """Logits and labels of all rows, or of those with the smallest hashes where all would be too many.

    Args:
        opened: logits or probabilities (whose logarithms are returned). cells: scores to hold, but 2,000 rows at least.

    Returns:
        (n, K) float32 logits, (n,) int64 labels, and the number of rows seen.
    """
    k = opened.classes
    wanted = max(MIN_ROWS, cells // k)
    parts: list[RowSample] = []
    limit = np.uint64(np.iinfo(np.uint64).max)
    total = held = 0
    for block in opened.blocks(max(4, BLOCK_CELLS // k)):
        if block.scores is None:
            raise InputError(f"a correction needs logits or probabilities but {opened.name} holds labels; save scores")
        # By position, not by row id: ids that repeat would be drawn together.
        position = np.arange(total, total + len(block.target), dtype=np.int64)
        total += len(position)
        chosen = np.flatnonzero(row_hash(position) <= limit)
        parts.append(RowSample(position[chosen], block.target[chosen], as_logits(block.scores[chosen], opened.kind)))
        held += len(chosen)
        if held > wanted + wanted // 4:
            parts = [join(parts).smallest_hashes(wanted)]
            held, limit = wanted, row_hash(parts[0].row_id).max()
    kept = join(parts) if held <= wanted else join(parts).smallest_hashes(wanted)
    return kept.scores, kept.target, total


def write_corrected(correction: Correction, opened: Predictions, path: Path | None, output: Path) -> int:
    """Write the predictions with corrected scores as npz, whole or not at all; returns the number of rows.

    Scores keep their kind and name; float16 becomes float32. Members beside them are kept, with these exceptions:
    ``predicted`` becomes the argmax of the corrected scores, ``train_logits`` is corrected too, ``class_weight`` and
    ``sampler_rate`` get the prefix ``before_``, and ``config`` says under ``corrected`` what was done. An npz keeps the
    rows of `ignore_index`; other formats leave them out.

    Args:
        correction: for the same classes. opened: logits or probabilities. path: the npz it was opened from, if so.

    Raises:
        InputError: labels only, an output that is no npz, scores that were corrected before, NaN or +inf.
    """
    if output.suffix.lower() != ".npz":
        raise InputError(f"corrected predictions are written as npz but {output.name!r} was named; change the ending")
    if MARK in opened.declared.extra:
        raise InputError(
            f"{opened.name} holds scores that were corrected already; apply the correction to the original file"
        )
    if opened.kind == "predicted":
        raise InputError(f"a correction needs logits or probabilities but {opened.name} holds labels; save scores")
    members = _members(opened, path)
    members["config"] = np.array(json.dumps(_config(opened, members) | {MARK: _note(correction)}))
    rows = len(members["target"])
    save_atomically(output, lambda place: _write(place, correction, _whole(opened), rows, members))
    return rows


def _whole(opened: Predictions) -> Predictions:
    """The same predictions with no row left out, where the source is a plain array."""
    if isinstance(opened.source, ArraySource):
        return replace(opened, source=replace(opened.source, ignore_index=None))
    return opened


def _members(opened: Predictions, path: Path | None) -> dict[str, Array]:
    """Everything but the scores: what an npz held, else labels, row ids and the facts about the training."""
    source = opened.source
    members: dict[str, Array] = {}
    if path is not None and path.suffix.lower() == ".npz":
        held = read_npz(path).arrays
        renamed = canonical(held)
        # Scores and answers of before, under whatever name, would contradict the corrected ones.
        stale = {"logits", "probs", "row_id", *ALIASES["probs"], *ALIASES["predicted"]}
        members = {renamed.get(n, n): a for n, a in held.items() if n.lower() not in stale}
    if isinstance(source, ArraySource):
        members["target"] = source.target
        members |= {} if source.row_id is None else {"row_id": source.row_id}
    else:
        blocks = [(b.target, b.row_id) for b in opened.blocks(max(4, BLOCK_CELLS // opened.classes))]
        members["target"], members["row_id"] = (np.concatenate(column) for column in zip(*blocks, strict=True))
    facts = {name: getattr(opened.declared, name) for name in PER_CLASS}
    members |= {name: np.asarray(value) for name, value in facts.items() if value is not None}
    return {f"before_{name}" if name in PLAN else name: array for name, array in members.items()}


def _config(opened: Predictions, members: dict[str, Array]) -> dict[str, Any]:
    """The config of the file, or what is declared where there is none."""
    if "config" in members:
        return parse_config(members["config"].reshape(()).item())
    default = Declared()
    names = ("loss", "label_smoothing", "reduction", "batch_size", "gamma", "ignore_index")
    said = {name: getattr(opened.declared, name) for name in names}
    return {n: v for n, v in said.items() if v != getattr(default, n)} | opened.declared.extra


def _note(correction: Correction) -> dict[str, Any]:
    scale = correction.scale if isinstance(correction.scale, float) else correction.scale.tolist()
    return {"goal": correction.goal, "model": correction.model, "scale": scale}


def _write(place: Path, correction: Correction, opened: Predictions, rows: int, members: dict[str, Array]) -> None:
    predicted = np.empty(rows, np.int64)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        done = 0
        with _member(archive, opened.kind) as file:
            for block in opened.blocks(max(4, BLOCK_CELLS // opened.classes)):
                if block.scores is None:
                    continue
                moved = _corrected(correction, block.scores, opened.kind, block.row_id)
                if done == 0:
                    _header(file, moved.dtype, (rows, opened.classes))
                file.write(np.ascontiguousarray(moved).data)
                predicted[done : done + len(moved)] = _decided(correction, block.scores, moved, opened.kind)
                done += len(moved)
        if not correction.additive:
            members = members | {"predicted": predicted}  # the largest score is not the decision
        for name, array in members.items():
            if name == "predicted":
                array = predicted
            moves = name == "train_logits"
            with _member(archive, name) as file:
                _copy(file, array, (lambda part: _corrected(correction, part, "logits", None)) if moves else None)


def _member(archive: zipfile.ZipFile, name: str) -> AbstractContextManager[IO[bytes]]:
    return archive.open(f"{name}.npy", "w", force_zip64=True)


def _header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)


def _copy(file: IO[bytes], array: Array, change: Callable[[Array], Array] | None) -> None:
    """Write an array chunk by chunk along its first axis: it may be a map larger than memory."""
    if array.ndim == 0:
        np.lib.format.write_array(file, array, allow_pickle=False)
        return
    for number, part in enumerate(_chunks(array)):
        moved = part if change is None else change(part)
        if number == 0:
            _header(file, moved.dtype, array.shape)
        file.write(np.ascontiguousarray(moved).tobytes())


def _chunks(array: Array) -> Iterator[Array]:
    step = max(1, BLOCK_CELLS // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, max(1, len(array)), step):
        yield array[start : start + step]


def _decided(correction: Correction, scores: Array, moved: Array, kind: Kind) -> Ints:
    """The class of the largest corrected score, or what the correction decides where that is something else."""
    if correction.additive:
        return np.asarray(moved.argmax(axis=1))
    with np.errstate(divide="ignore"):
        logits = scores if kind == "logits" else np.log(scores if scores.dtype.itemsize > 2 else np.float32(scores))
    return np.asarray(correction.predict(logits))


def _corrected(correction: Correction, scores: Array, kind: Kind, row_id: Ints | None) -> Array:
    """Corrected logits, or probabilities that sum to one; float32 unless they came as float64."""
    if kind == "logits":
        moved: Array = correction.apply(scores)
    else:
        wide = scores if scores.dtype.itemsize == 8 else scores.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = correction.apply(np.log(wide))
    top = moved.max(axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(top[:, 0]))
    if len(bad):
        raise bad_rows(kind, bad if row_id is None else row_id[bad])
    if kind == "probs":
        np.exp(moved - top, out=moved)
        moved /= moved.sum(axis=1, keepdims=True)
    return moved
