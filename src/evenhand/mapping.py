"""Is the model right under another label order? Named orders first, then any renaming that holds on unseen rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evenhand.declared import Floats, Ints
from evenhand.orders import known_orders
from evenhand.tally import Tally

Labels = NDArray[np.integer[Any]]
STEP = 1 << 20  # errors that are looked at together


@dataclass(frozen=True)
class LabelMap:
    """A renaming of predicted classes under which the predictions are right.

    Attributes:
        true_of: (K,) true class that predicted class c stands for. name: of the order, or None.
        classes_moved: how many classes are renamed. rows: rows of those classes.
        accuracy_before, accuracy_after: share of right rows among rows of the moved classes.
    """

    true_of: Ints
    name: str | None
    classes_moved: int
    rows: int
    accuracy_before: float
    accuracy_after: float


@dataclass(frozen=True)
class Table:
    """The sparse table of true and predicted classes.

    Attributes:
        true, predicted, count: (E,) errors, sorted by true then predicted class. right: (K,) rows on the diagonal.
        classes: K.
    """

    true: Labels
    predicted: Labels
    count: Ints
    right: Ints
    classes: int

    @cached_property
    def rows(self) -> float:
        """N."""
        return float(self.count.sum() + self.right.sum())

    @cached_property
    def true_rows(self) -> Floats:
        """(K,) rows per true class."""
        return self._per_class(self.true)

    @cached_property
    def predicted_rows(self) -> Floats:
        """(K,) rows per predicted class."""
        return self._per_class(self.predicted)

    def _per_class(self, label: Labels) -> Floats:
        total = self.right.astype(np.float64)
        for at in self.slices:
            total += np.bincount(label[at], self.count[at], self.classes)
        return total

    @property
    def slices(self) -> list[slice]:
        """Pieces of the errors: statistics by pieces need little extra memory."""
        return [slice(start, start + STEP) for start in range(0, len(self.count), STEP)]

    @cached_property
    def _starts(self) -> Ints:
        return np.searchsorted(self.true, np.arange(self.classes + 1, dtype=self.true.dtype))

    def cells(self, true: Ints, predicted: Ints) -> Floats:
        """Rows of some cells: a bisection among the errors of each true class, so that errors are never scanned."""
        low, high = self._starts[true], self._starts[true + 1]
        end = high
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            below = (low < high) & (self.predicted[np.minimum(middle, len(self.count) - 1)] < predicted)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        at = np.minimum(low, len(self.count) - 1)
        diagonal = np.where(true == predicted, self.right[true], 0)
        if not len(self.count):
            return diagonal.astype(np.float64)
        found = (low < end) & (self.predicted[at] == predicted)
        return np.where(found, self.count[at], diagonal).astype(np.float64)

    def renamed(self, true_of: Ints) -> Floats:
        """(K,) right rows per predicted class c if it means `true_of[c]`; none where that is negative."""
        named = true_of >= 0
        return np.where(named, self.cells(np.where(named, true_of, 0), np.arange(self.classes)), 0.0)

    def rates(self, true_of: Ints, among: Ints | None = None) -> tuple[float, float, float]:
        """(accuracy, chance accuracy, macro precision) when predicted class c means `true_of[c]`.

        With `among`, a set of classes that `true_of` maps onto itself, on the rows of these classes alone.
        """
        hits, true, predicted = self.renamed(true_of), self.true_rows[true_of], self.predicted_rows
        if among is not None:
            hits, true, predicted = hits[among], true[among], predicted[among]
        used, rows = predicted > 0, max(float(true.sum()), 1.0)
        precision = float((hits[used] / predicted[used]).mean()) if used.any() else 0.0
        return float(hits.sum()) / rows, float((true * predicted).sum()) / (rows * self.rows), precision


def full_table(t: Tally) -> Table:
    """Errors and hits of a tally as one sparse table."""
    return Table(t.edge_true, t.edge_predicted, t.edge_count, t.hits, t.classes)


def find_label_map(t: Tally, *, counts: Sequence[Floats] = (), names: Sequence[str] | None = None) -> LabelMap | None:
    """Search for a renaming; None when the given order is as good as any.

    Args:
        counts: class counts, in either order, from which a frequency order may have been made.
        names: class names, for their alphabetical order.
    """
    if t.rows < 20:
        return None
    table = full_table(t)
    named = _named_map(t, table, counts, names) or _shifted_from(t, table)
    free = _free_map(t, table)
    if named is None or free is None:
        return named if free is None else free
    # Sorting classes by their predicted counts undoes any renaming in part: a name must explain as much as no name.
    return named if table.rates(named.true_of)[0] > 0.9 * table.rates(free.true_of)[0] else free


def _shifted_from(t: Tally, table: Table) -> LabelMap | None:
    """All classes from some class on are shifted by one, as after a class that was missing when indices were made."""
    k = t.classes
    diagonal, size = table.right.astype(np.float64), table.true_rows
    best: tuple[float, int, int] | None = None
    for step in (1, -1):
        inside = np.arange(max(step, 0), k + min(step, 0))  # true classes with a neighbour on that side
        shifted = np.zeros(k)
        shifted[inside] = table.cells(inside, inside - step)
        # Rows of the classes from c on: right under the shift, right as given.
        tail_shifted, tail_own, tail_rows = (np.cumsum(x[::-1])[::-1] for x in (shifted, diagonal, size))
        gain = tail_shifted - tail_own
        c = int(np.argmax(gain))
        # The classes before c must be right as given, or this is just another shift of all of them.
        before = float(diagonal[:c].sum() / max(size[:c].sum(), 1.0))
        wanted = float(np.clip(0.6 * before, 0.05, 0.3)) if c > 0 else 0.3
        if tail_shifted[c] < max(10, wanted * tail_rows[c]) or tail_shifted[c] < 3 * tail_own[c] or k - c < 3:
            continue
        if best is None or gain[c] > best[0]:
            best = (float(gain[c]), c, step)
    if best is None:
        return None
    _, c, step = best
    true_of = np.arange(k)
    # true = predicted + step for true classes from c on; the class that falls off the end fills the gap
    members = np.arange(c, k)
    true_of[np.clip(members - step, 0, k - 1)] = members
    missing = np.setdiff1d(np.arange(k), true_of)
    doubled = np.setdiff1d(np.arange(k), np.clip(members - step, 0, k - 1))
    free = [d for d in doubled if d >= c or true_of[d] in members]
    for predicted, true in zip(free, missing, strict=False):
        true_of[predicted] = true
    if not _beats_chance(table, true_of, members):
        return None
    return _describe(t, table, true_of, f"shifted by {-step:+d} from class {c} on")


def _beats_chance(table: Table, true_of: Ints, members: Ints) -> bool:
    """Whether a renaming is right more often than the given names, and on `members` more often than by chance.

    A model that always answers its largest class is "right" on all rows of any class this answer is renamed to.
    """
    right, predicted = (np.bincount(true_of, x, table.classes) for x in (table.renamed(true_of), table.predicted_rows))
    hits, true = float(right[members].sum()), table.true_rows
    chance, rows = float((true * predicted)[members].sum()) / table.rows, float(true[members].sum())
    better = right.sum() > table.right.sum()
    return bool(better and hits > chance + 6 * chance**0.5 and hits - chance > 0.1 * (rows - chance))


def _named_map(t: Tally, table: Table, counts: Sequence[Floats], names: Sequence[str] | None) -> LabelMap | None:
    identity = np.arange(t.classes)
    best: tuple[float, str, Ints] | None = None
    orders = [o for c in (t.true, t.predicted, *counts) for o in known_orders(np.asarray(c, np.float64), names)]
    for order in {o.index.tobytes(): o for o in orders}.values():
        # Classes that an order leaves in place are right either way: with them a large class would outvote all others.
        moved = np.flatnonzero(order.index != identity)
        rows = max(float(table.true_rows[moved].sum()), 1.0)
        accuracy, chance, precision = table.rates(identity, moved)
        a, c, p = table.rates(order.index, moved)
        kappa, own = (a - c) / max(1 - c, 1e-9), (accuracy - chance) / max(1 - chance, 1e-9)
        error = np.sqrt(max(a * (1 - a), c * (1 - c)) / rows)
        if kappa > 2 * max(own, 0) + 0.05 and p > 2 * precision + 0.02 and a - c > 6 * error and a > 1.5 * accuracy:  # noqa: SIM102
            if best is None or kappa > best[0]:
                best = (kappa, order.name, order.index)
    if best is None:
        return None
    return _describe(t, table, best[2], best[1])


def _describe(t: Tally, table: Table, true_of: Ints, name: str | None) -> LabelMap:
    moved = np.flatnonzero(true_of != np.arange(t.classes))
    rows = np.unique(true_of[moved])
    total = max(float(table.true_rows[rows].sum()), 1.0)
    before, after = float(table.right[rows].sum()), float(table.renamed(true_of)[np.isin(true_of, rows)].sum())
    return LabelMap(true_of, name, len(moved), int(total), before / total, after / total)


def _free_map(t: Tally, table: Table, seed: int = 0) -> LabelMap | None:
    """Match predicted to true classes on a random half of the rows; keep what holds on the other half.

    Rows of one cell are exchangeable, so a binomial draw from every cell is a random split of the rows.
    """
    if not _suspicious(table):
        return None
    rng = np.random.default_rng(seed)
    half, right = rng.binomial(table.count, 0.5), rng.binomial(table.right, 0.5)
    proposed = _matching(dataclasses.replace(table, count=half, right=right))
    other = dataclasses.replace(table, count=table.count - half, right=table.right - right)
    del half
    base = float(other.right.sum() / max(other.rows, 1))
    for pairs in (proposed, _confirmed_chains(proposed, other)):
        gained, lost, rows = _gains(pairs, other)
        total, against, size = float(gained.sum()), float(lost.sum()), float(rows.sum())
        # Renaming the tail must not hide that the model is simply bad on it, and a class that takes over another's
        # name must have left its own: else its rows were merely merged into it.
        kept = _kept(pairs, other)
        rate = total / max(size, 1.0)
        surely = total > 3 * against and total - against > 5 * np.sqrt(total + against)
        believable = total >= 10 and surely and rate > max(0.3, 0.5 * base) and kept < 0.35 * rate
        if _complete(pairs, table) and believable:
            return _describe(t, table, _completed(pairs), None)
    return None


def _complete(pairs: Ints, table: Table) -> bool:
    """Two renamed classes, or one whose old name no label and whose new name no prediction uses."""
    moved = np.flatnonzero(pairs >= 0)
    if len(moved) != 1:
        return len(moved) >= 2
    predicted, true = int(moved[0]), int(pairs[moved[0]])
    crossed = table.cells(np.array([true]), np.array([predicted]))[0]
    return bool(table.true_rows[predicted] + table.predicted_rows[true] < 0.02 * crossed)


def _kept(pairs: Ints, table: Table) -> float:
    """Share of the rows of the old names that are still answered by their old name."""
    moved = np.flatnonzero(pairs >= 0)
    return float(table.right[moved].sum() / max(table.true_rows[moved].sum(), 1.0))


def _gains(pairs: Ints, table: Table) -> tuple[Floats, Floats, Floats]:
    """Per renamed prediction: rows right under the new name, right as given (either class), rows of the class."""
    moved = (pairs >= 0).astype(np.float64)
    own = np.maximum(table.right, table.right[pairs])
    return table.renamed(pairs), own * moved, table.true_rows[pairs] * moved


def _suspicious(table: Table) -> bool:
    """Whether some column is led by another class than its own, by rows and not only by its size."""
    largest = np.zeros(table.classes, np.int64)
    for at in table.slices:
        np.maximum.at(largest, table.predicted[at], table.count[at])
    return bool(((largest >= 3) & (largest > 3 * table.right) & (largest > 0.3 * table.predicted_rows)).any())


def _matching(table: Table) -> Ints:
    """(K,) true class for each predicted class under a one-to-one matching, -1 where it is its own or none.

    Pairs that prefer each other by association n / sqrt(n_true n_predicted) are matched and taken out, round by round:
    the greedy matching. (A full optimal assignment takes minutes on such sparse graphs, and differs where nothing
    can be learned anyway.) The diagonal takes part, so classes that are right under their own name stay.
    """
    k = table.classes
    i, j, w = _associations(table)
    true_of = np.full(k, -1, np.int64)
    for _ in range(50):
        if not len(w):
            break
        best_i, best_j = np.zeros(k), np.zeros(k)
        np.maximum.at(best_i, i, w)
        np.maximum.at(best_j, j, w)
        mutual = np.flatnonzero((w == best_i[i]) & (w == best_j[j]))
        # Equal weights may claim a class twice: the first one gets it.
        mutual = mutual[np.unique(i[mutual], return_index=True)[1]]
        mutual = mutual[np.unique(j[mutual], return_index=True)[1]]
        true_of[i[mutual]] = j[mutual]
        taken = np.zeros(k, bool)
        taken[true_of[true_of >= 0]] = True
        open_ = (true_of[i] < 0) & ~taken[j]
        i, j, w = i[open_], j[open_], w[open_]
    return np.where(true_of == np.arange(k), -1, true_of)


def _associations(table: Table) -> tuple[Ints, Ints, Floats]:
    """(predicted, true, association) of all cells, right ones last, whose association exceeds 0.1."""
    own = np.arange(table.classes)
    cells = [(table.true[at], table.predicted[at], table.count[at]) for at in table.slices]
    found = []
    for true, predicted, count in [*cells, (own, own, table.right)]:
        size = np.sqrt(np.maximum(table.true_rows[true] * table.predicted_rows[predicted], 1e-12))
        weight = count / size
        keep = weight > 0.1
        found.append((predicted[keep].astype(np.int64), true[keep].astype(np.int64), weight[keep]))
    i, j, w = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return i, j, w


def _confirmed_chains(pairs: Ints, table: Table) -> Ints:
    """Keep the chains and cycles of the renaming that the other half of the rows confirms one by one."""
    gained, lost, rows = _gains(pairs, table)
    moved = np.flatnonzero(pairs >= 0)
    graph = coo_array((np.ones(len(moved)), (moved, pairs[moved])), shape=(table.classes, table.classes))
    _, label = connected_components(graph, directed=False)
    total, against, size = (np.bincount(label, x) for x in (gained, lost, rows))
    good = (total >= 5) & (total >= 5 * against) & (total >= 0.25 * size)
    return np.where(good[label], pairs, -1)


def _completed(pairs: Ints) -> Ints:
    """A full permutation: unmatched classes keep their own name if it is free, else take what is left, in order."""
    result = pairs.copy()
    everyone = np.arange(len(pairs))
    taken = np.zeros(len(pairs), bool)
    taken[result[result >= 0]] = True
    own = (result < 0) & ~taken
    result[own] = everyone[own]
    taken[everyone[own]] = True
    result[result < 0] = everyone[~taken]
    return result
