"""Tally: everything an audit needs from the rows, in one pass, as statistics that add.

A tally of all rows equals the sum of the tallies of any split of the rows: exactly for every count, to rounding for
the sums of probabilities. Memory is O(K) plus a bounded row sample and one entry per distinct (true, predicted) pair
of errors. Nothing is K x K.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evenhand.declared import Declared, Floats, InputError, Ints
from evenhand.row_sample import RowSample as RowSample
from evenhand.row_sample import Singles as Singles
from evenhand.row_sample import join as join
from evenhand.row_sample import lead_size as lead_size
from evenhand.row_sample import row_hash as row_hash
from evenhand.row_sample import sample_size as sample_size
from evenhand.row_sample import smallest as smallest

Kind = Literal["logits", "probs", "predicted"]
Indices = NDArray[np.int32]

SCHEMA = "evenhand.tally/1"
ARRAYS = ("edge_true", "edge_predicted", "edge_count")
STEP = 1 << 20  # pairs that are counted together
BINS = 15  # equal-width confidence bins of the expected calibration error
ADDITIVE = (
    "rows", "true", "predicted", "hits", "decoded", "soft", "soft_square", "nll", "impossible", "bins",
    "minus_infinite", "column_sum",
)  # fmt: skip


@dataclass(frozen=True)
class Tally:
    """Additive statistics of predictions. ``a + b`` is the tally of both.

    Attributes:
        kind: ``logits``, ``probs`` or ``predicted``. rows: N.
        true, predicted, hits: (K,) int64, rows per true class, per predicted class, and right ones.
        decoded: (K,) int64, rows per class of the largest score (differs from `predicted` only when the input held
            both scores and predicted labels).
        edge_true, edge_predicted: (E,) int32, the distinct pairs of true and predicted class, right ones left out,
            sorted by both; millions of them fit (convert before computing with them: K squared overflows).
        edge_count: (E,) int64, rows of each pair.
        soft: (K,) float64, sum over rows of the posterior p_i(c); soft_square: sum of p_i(c)^2. None for labels.
        nll: sum over rows of -log p_i(y_i), over rows whose class has a finite score; impossible: the other rows.
        bins: (15, 3) float64, confidence bins: rows, sum of confidence, right rows.
        minus_infinite: (K,) int64, rows in which the class scored -inf.
        column_sum: (K,) float64, sum of the raw probabilities (0 for logits); equal after a softmax over rows.
        row_sum_error: largest distance of a row of probabilities from sum one (0 for logits).
        sample: rows with the smallest hashes; lead: the first rows in file order.
        declared: what the user said about the training.
    """

    kind: Kind
    rows: int
    true: Ints
    predicted: Ints
    hits: Ints
    decoded: Ints
    edge_true: Indices
    edge_predicted: Indices
    edge_count: Ints
    soft: Floats | None
    soft_square: Floats | None
    nll: float
    impossible: int
    bins: Floats
    minus_infinite: Ints
    column_sum: Floats
    row_sum_error: float
    sample: RowSample
    lead: RowSample
    declared: Declared = dataclasses.field(default_factory=Declared)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.true)

    def __add__(self, other: Tally) -> Tally:
        return combine([self, other]) if isinstance(other, Tally) else NotImplemented

    def save(self, path: Path) -> None:
        """Write the tally as ``.npz``: arrays and one JSON string, nothing that needs unpickling."""
        arrays = {name: getattr(self, name) for name in (*ARRAYS, *ADDITIVE) if getattr(self, name) is not None}
        for part in ("sample", "lead"):
            arrays |= {f"{part}_{f.name}": getattr(getattr(self, part), f.name) for f in dataclasses.fields(RowSample)}
        facts, declared = dataclasses.asdict(self.declared), {}
        for name, value in facts.items():
            if isinstance(value, np.ndarray):
                arrays[f"declared_{name}"] = value
            elif value is not None:
                declared[name] = value
        head = {"schema": SCHEMA, "kind": self.kind, "row_sum_error": self.row_sum_error, "declared": declared}
        with path.open("wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Tally:
        """Read a tally written by `save`.

        Raises:
            InputError: the file is no tally, of another version, or damaged.
        """
        try:
            # Opened here: np.load leaves its own file open when the file is no archive.
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return _restored({name: file[name] for name in file.files})
        except DAMAGE as error:
            raise InputError(
                f"expected a tally written by `evenhand tally`, got a file that is none or damaged: {path.name}; "
                "write it again"
            ) from error


# Everything that NumPy, zipfile, zlib and JSON raise on damaged files; what cannot be opened stays an OSError.
DAMAGE = (
    KeyError, ValueError, TypeError, AttributeError, EOFError, OverflowError, RuntimeError, MemoryError, struct.error,
    zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def _restored(held: dict[str, Any]) -> Tally:
    """The tally that `Tally.save` took apart; raises one of `DAMAGE` unless everything is there and fits."""
    head = json.loads(str(held["head"]))
    if head["schema"] != SCHEMA or head["kind"] not in get_args(Kind):
        raise ValueError("another schema or kind")
    facts = head["declared"] | {
        name.removeprefix("declared_"): value for name, value in held.items() if name.startswith("declared_")
    }
    if facts.get("class_names") is not None:
        facts["class_names"] = tuple(facts["class_names"])
    optional = ("soft", "soft_square") if head["kind"] == "predicted" else ()
    fields: dict[str, Any] = {n: held.get(n) if n in optional else held[n] for n in (*ARRAYS, *ADDITIVE)}
    fields |= {name: held[name].item() for name in ("rows", "nll", "impossible")}
    for part in ("sample", "lead"):
        fields[part] = RowSample(*(held[f"{part}_{f.name}"] for f in dataclasses.fields(RowSample)))
    tally = Tally(kind=head["kind"], row_sum_error=head["row_sum_error"], declared=Declared(**facts), **fields)
    _check_shapes(tally)
    pairs = {name: getattr(tally, name).astype(np.int32, copy=False) for name in ("edge_true", "edge_predicted")}
    return dataclasses.replace(tally, **pairs)


def _check_shapes(t: Tally) -> None:
    """Raise ValueError unless every part has its type and shape and the counts add up."""
    k, edges = len(t.true), len(t.edge_count)
    scored = t.kind != "predicted"
    whole = (t.true, t.predicted, t.hits, t.decoded, t.minus_infinite)
    wanted: list[tuple[Any, type, tuple[int, ...]]] = [(values, np.int64, (k,)) for values in whole]
    wanted.append((t.edge_count, np.int64, (edges,)))
    for values in (t.edge_true, t.edge_predicted):  # the first versions wrote them as int64
        wanted.append((values, np.int64 if values.dtype == np.int64 else np.int32, (edges,)))
    wanted += [(t.bins, np.float64, (BINS, 3)), (t.column_sum, np.float64, (k,))]
    wanted += [(values, np.float64, (k,)) for values in (t.soft, t.soft_square) if scored]
    for part, columns in ((t.sample, k), (t.lead, k if scored or not len(t.lead.row_id) else 1)):
        n = len(part.row_id)
        wanted += [
            (part.row_id, np.int64, (n,)),
            (part.target, np.int64, (n,)),
            (part.scores, np.float32, (n, columns)),
        ]
    wanted += [(np.asarray(t.rows), np.int64, ()), (np.asarray(t.impossible), np.int64, ())]
    wanted += [(np.asarray(value), np.float64, ()) for value in (t.nll, t.row_sum_error)]
    if any(values.dtype != dtype or values.shape != shape for values, dtype, shape in wanted):
        raise ValueError("a member of another type or shape")
    labels = (t.edge_true, t.edge_predicted, t.sample.target, t.lead.target)
    if any(len(x) and not 0 <= x.min() <= x.max() < k for x in labels):
        raise ValueError("a class out of range")
    if not t.rows == t.true.sum() == t.predicted.sum() == t.hits.sum() + t.edge_count.sum():
        raise ValueError("counts that do not add up")


def combine(parts: Sequence[Tally]) -> Tally:
    """The sum of tallies of disjoint rows, in one step (adding in pairs would copy the row sample each time).

    Raises:
        InputError: parts of different kinds or numbers of classes, or none at all; or parts that share row ids, as far
            as the rows they keep can tell.
    """
    if not parts:
        raise InputError("expected at least one tally to add, got none; tally some predictions first")
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if (part.kind, part.classes) != (first.kind, first.classes):
            raise InputError(
                f"tallies to be added must be of one kind and number of classes: got {first.kind} with {first.classes} "
                f"classes and {part.kind} with {part.classes} classes; tally the same kind of predictions everywhere"
            )
    _refuse_shared_rows(parts)
    k = first.classes
    key = np.concatenate([p.edge_true.astype(np.int64) * k + p.edge_predicted for p in parts])
    edges = merge_edges(key, np.concatenate([p.edge_count for p in parts]), k)

    def total(name: str) -> Any:
        values = [getattr(p, name) for p in parts]
        return None if values[0] is None else sum(values[1:], start=values[0])

    return Tally(
        kind=first.kind,
        edge_true=edges[0],
        edge_predicted=edges[1],
        edge_count=edges[2],
        row_sum_error=max(p.row_sum_error for p in parts),
        sample=smallest([p.sample for p in parts], sample_size(k)),
        lead=join([p.lead for p in parts]).first(lead_size(k)),
        declared=first.declared,
        **{name: total(name) for name in ADDITIVE},
    )


def _refuse_shared_rows(parts: Sequence[Tally]) -> None:
    """Raise InputError when two parts keep rows with one id: the smallest hashes of either hold what both have.

    Labels alone keep no hashed rows but the first ones. Ids that repeat inside one part are the user's own.
    """
    kept = [part.lead if part.kind == "predicted" else part.sample for part in parts]
    kept = [part for part in kept if len(part.row_id)]
    if len(kept) < 2:
        return
    ids, times = np.unique(np.concatenate([np.unique(part.row_id) for part in kept]), return_counts=True)
    shared = ids[times > 1]
    if not len(shared):
        return
    some = ", ".join(str(i) for i in shared[:3]) + (", ..." if len(shared) > 3 else "")
    raise InputError(
        f"expected tallies of different rows, got the row id{'s' * (len(shared) > 1)} {some} in two of them; add "
        "each part once, or, if the rows differ, give every part ids of its own (--row-offset or row_id)"
    )


def merge_edges(key: Ints, count: Ints, classes: int) -> tuple[Indices, Indices, Ints]:
    """Sum the counts of equal keys ``true * K + predicted``; returns (true, predicted, count), sorted."""
    order = np.argsort(key)
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(count[order], starts) if len(key) else np.empty(0, np.int64)
    unique = key[starts]
    return (unique // classes).astype(np.int32), (unique % classes).astype(np.int32), total


def count_edges(key: Ints, classes: int) -> tuple[Indices, Indices, Ints]:
    """How often each key ``true * K + predicted`` occurs; returns (true, predicted, count), sorted.

    Sorting the keys themselves is several times as fast as finding the order in which they would be sorted.
    """
    key = np.sort(key)
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    unique, count = key[starts], np.diff(starts, append=len(key))
    return (unique // classes).astype(np.int32), (unique % classes).astype(np.int32), count


def empty_tally(kind: Kind, classes: int, declared: Declared | None = None) -> Tally:
    """The neutral element of addition."""
    zero = np.zeros(classes, np.int64)
    none, indices = np.empty(0, np.int64), np.empty(0, np.int32)
    scored = kind != "predicted"
    return Tally(
        kind=kind,
        rows=0,
        true=zero,
        predicted=zero,
        hits=zero,
        decoded=zero,
        edge_true=indices,
        edge_predicted=indices,
        edge_count=none,
        soft=np.zeros(classes) if scored else None,
        soft_square=np.zeros(classes) if scored else None,
        nll=0.0,
        impossible=0,
        bins=np.zeros((BINS, 3)),
        minus_infinite=zero,
        column_sum=np.zeros(classes),
        row_sum_error=0.0,
        sample=RowSample.empty(classes),
        lead=RowSample.empty(classes),
        declared=declared or Declared(),
    )


def tally_edges(
    true: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    count: Ints,
    *,
    classes: int,
    declared: Declared | None = None,
) -> Tally:
    """Tally of labels alone, from (true, predicted) pairs and how often each occurs; equal pairs are added.

    Example:
        >>> import numpy as np
        >>> t = tally_edges(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([5, 2, 3]), classes=2)
        >>> t.true.tolist(), t.predicted.tolist(), t.hits.tolist(), t.edge_count.tolist()
        ([7, 3], [5, 5], [5, 3], [2])
    """
    of_true, decoded = (_rows_per_class(label, count, classes) for label in (true, predicted))
    wrong = true != predicted
    edge_true, edge_predicted, edge_count = true[wrong], predicted[wrong], count[wrong]
    if _distinct_and_sorted(edge_true, edge_predicted):
        edges = edge_true.astype(np.int32, copy=False), edge_predicted.astype(np.int32, copy=False), edge_count
    else:
        edges = merge_edges(edge_true.astype(np.int64) * classes + edge_predicted, edge_count, classes)
    return dataclasses.replace(
        empty_tally("predicted", classes, declared),
        rows=int(count.sum()),
        true=of_true,
        predicted=decoded,
        decoded=decoded,
        hits=of_true - _rows_per_class(edge_true, edge_count, classes),
        edge_true=edges[0],
        edge_predicted=edges[1],
        edge_count=edges[2],
    )


def _rows_per_class(label: NDArray[np.integer[Any]], rows: Ints, classes: int) -> Ints:
    total = np.zeros(classes, np.int64)
    for start in range(0, len(label), STEP):  # bincount copies both arrays to eight bytes per entry
        part = slice(start, start + STEP)
        total += np.bincount(label[part], weights=rows[part], minlength=classes).astype(np.int64)
    return total


def _distinct_and_sorted(true: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]) -> bool:
    """Whether pairs come in order and only once, as counters give them: millions need not be sorted again."""
    up = true[1:] > true[:-1]
    up |= (true[1:] == true[:-1]) & (predicted[1:] > predicted[:-1])
    return bool(up.all())
