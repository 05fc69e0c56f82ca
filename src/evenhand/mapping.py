"""Is the model right under another label order? Named orders first, then any renaming that holds on unseen rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evenhand.declared import Floats, Ints
from evenhand.orders import known_orders
from evenhand.tally import Tally


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
    """The sparse table of true and predicted classes, right rows included."""

    true: Ints
    predicted: Ints
    count: Floats
    classes: int

    @property
    def rows(self) -> float:
        """N."""
        return float(self.count.sum())

    def rates(self, true_of: Ints) -> tuple[float, float, float]:
        """(accuracy, chance accuracy, macro precision) when predicted class c means `true_of[c]`."""
        match = self.true == true_of[self.predicted]
        hits = np.bincount(self.predicted[match], self.count[match], self.classes)
        predicted = np.bincount(self.predicted, self.count, self.classes)
        true = np.bincount(self.true, self.count, self.classes)
        used = predicted > 0
        chance = float((true[true_of] * predicted).sum()) / self.rows**2
        return float(hits.sum()) / self.rows, chance, float((hits[used] / predicted[used]).mean())


def full_table(t: Tally) -> Table:
    """Errors and hits of a tally as one sparse table."""
    right = np.flatnonzero(t.hits)
    return Table(
        np.concatenate([t.edge_true, right]),
        np.concatenate([t.edge_predicted, right]),
        np.concatenate([t.edge_count, t.hits[right]]).astype(np.float64),
        t.classes,
    )


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
    same = table.true == table.predicted
    diagonal = np.bincount(table.true[same], table.count[same], k)
    size = np.bincount(table.true, table.count, k)
    best: tuple[float, int, int] | None = None
    for step in (1, -1):
        next_door = table.true == table.predicted + step
        shifted = np.bincount(table.true[next_door], table.count[next_door], k)
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
    match, inside = table.true == true_of[table.predicted], np.isin(table.true, members)
    hits = float(table.count[match & inside].sum())
    true = np.bincount(table.true, table.count, table.classes)
    predicted = np.bincount(true_of[table.predicted], table.count, table.classes)
    chance, rows = float((true * predicted)[members].sum()) / table.rows, float(true[members].sum())
    better = table.count[match].sum() > table.count[table.true == table.predicted].sum()
    return bool(better and hits > chance + 6 * chance**0.5 and hits - chance > 0.1 * (rows - chance))


def _named_map(t: Tally, table: Table, counts: Sequence[Floats], names: Sequence[str] | None) -> LabelMap | None:
    identity = np.arange(t.classes)
    accuracy, chance, precision = table.rates(identity)
    best: tuple[float, str, Ints] | None = None
    orders = [o for c in (t.true, t.predicted, *counts) for o in known_orders(np.asarray(c, np.float64), names)]
    for order in {o.index.tobytes(): o for o in orders}.values():
        a, c, p = table.rates(order.index)
        kappa, own = (a - c) / max(1 - c, 1e-9), (accuracy - chance) / max(1 - chance, 1e-9)
        error = np.sqrt(max(a * (1 - a), c * (1 - c)) / table.rows)
        if kappa > 2 * max(own, 0) + 0.05 and p > 2 * precision + 0.02 and a - c > 6 * error and a > 1.5 * accuracy:  # noqa: SIM102
            if best is None or kappa > best[0]:
                best = (kappa, order.name, order.index)
    if best is None:
        return None
    return _describe(t, table, best[2], best[1])


def _describe(t: Tally, table: Table, true_of: Ints, name: str | None) -> LabelMap:
    moved = np.flatnonzero(true_of != np.arange(t.classes))
    rows = np.isin(table.true, true_of[moved])
    total = max(float(table.count[rows].sum()), 1.0)
    before = float(table.count[rows & (table.true == table.predicted)].sum())
    after = float(table.count[rows & (table.true == true_of[table.predicted])].sum())
    return LabelMap(true_of, name, len(moved), int(total), before / total, after / total)


def _free_map(t: Tally, table: Table, seed: int = 0) -> LabelMap | None:
    """Match predicted to true classes on a random half of the rows; keep what holds on the other half.

    Rows of one cell are exchangeable, so a binomial draw from every cell is a random split of the rows.
    """
    if not _suspicious(table):
        return None
    rng = np.random.default_rng(seed)
    half = rng.binomial(table.count.astype(np.int64), 0.5).astype(np.float64)
    proposed = _matching(Table(table.true, table.predicted, half, table.classes))
    other = Table(table.true, table.predicted, table.count - half, table.classes)
    base = float(other.count[other.true == other.predicted].sum() / max(other.rows, 1))
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
    crossed = table.count[(table.true == true) & (table.predicted == predicted)].sum()
    return bool(
        table.count[table.true == predicted].sum() + table.count[table.predicted == true].sum() < 0.02 * crossed
    )


def _kept(pairs: Ints, table: Table) -> float:
    """Share of the rows of the old names that are still answered by their old name."""
    moved = np.flatnonzero(pairs >= 0)
    rows = np.isin(table.true, moved)
    same = rows & (table.true == table.predicted)
    return float(table.count[same].sum() / max(table.count[rows].sum(), 1.0))


def _gains(pairs: Ints, table: Table) -> tuple[Floats, Floats, Floats]:
    """Per renamed prediction: rows right under the new name, right as given (either class), rows of the class."""
    k = table.classes
    match, same = table.true == pairs[table.predicted], table.true == table.predicted
    renamed = np.bincount(table.predicted[match], table.count[match], k)
    own = np.bincount(table.predicted[same], table.count[same], k)
    own = np.maximum(own, own[pairs])
    size = np.bincount(table.true, table.count, k)
    moved = (pairs >= 0).astype(np.float64)
    return renamed * moved, own * moved, size[pairs] * moved


def _suspicious(table: Table) -> bool:
    """Whether some column is led by another class than its own, by rows and not only by its size."""
    predicted = np.bincount(table.predicted, table.count, table.classes)
    own = np.zeros(table.classes)
    same = table.true == table.predicted
    own[table.predicted[same]] = table.count[same]
    largest = np.zeros(table.classes)
    np.maximum.at(largest, table.predicted[~same], table.count[~same])
    return int(((largest >= 3) & (largest > 3 * own) & (largest > 0.3 * predicted)).sum()) >= 1


def _matching(table: Table) -> Ints:
    """(K,) true class for each predicted class under a one-to-one matching, -1 where it is its own or none.

    Pairs that prefer each other by association n / sqrt(n_true n_predicted) are matched and taken out, round by round:
    the greedy matching. (A full optimal assignment takes minutes on such sparse graphs, and differs where nothing
    can be learned anyway.) The diagonal takes part, so classes that are right under their own name stay.
    """
    k = table.classes
    true = np.bincount(table.true, table.count, k)
    predicted = np.bincount(table.predicted, table.count, k)
    size = np.sqrt(np.maximum(true[table.true] * predicted[table.predicted], 1e-12))
    weight = table.count / size
    keep = (weight > 0.1) & (table.count > 0)
    i, j, w = table.predicted[keep], table.true[keep], weight[keep]
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
