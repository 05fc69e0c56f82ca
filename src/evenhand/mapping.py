"""Is the model right under another label order? Named orders first, then any renaming that holds on unseen rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

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


def find_label_map(t: Tally, *, names: Sequence[str] | None = None) -> LabelMap | None:
    """Search for a renaming; None when the given order is as good as any."""
    if t.rows < 20:
        return None
    table = full_table(t)
    named = _named_map(t, table, names)
    return named if named is not None else _free_map(t, table)


def _named_map(t: Tally, table: Table, names: Sequence[str] | None) -> LabelMap | None:
    identity = np.arange(t.classes)
    accuracy, chance, precision = table.rates(identity)
    best: tuple[float, str, Ints] | None = None
    for order in known_orders(t.true.astype(np.float64), names):
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
    rng = np.random.default_rng(seed)
    half = rng.binomial(table.count.astype(np.int64), 0.5).astype(np.float64)
    if not _suspicious(table):
        return None
    true_of = _matching(Table(table.true, table.predicted, half, table.classes))
    other = Table(table.true, table.predicted, table.count - half, table.classes)
    true_of = _keep_confirmed(true_of, other)
    moved = np.flatnonzero(true_of != np.arange(t.classes))
    if len(moved) < 2:
        return None
    found = _describe(t, other, true_of, None)
    enough = found.rows >= 10 and found.accuracy_after > max(0.3, 5 * found.accuracy_before)
    # Renaming every tenth row or class must not hide that the model is simply bad on its tail.
    base = float(other.count[other.true == other.predicted].sum() / max(other.rows, 1))
    if not enough or found.accuracy_after < 0.4 * base:
        return None
    return _describe(t, table, true_of, None)


def _suspicious(table: Table) -> bool:
    """Whether at least two columns are led by another class than their own, by rows and not only by its size."""
    predicted = np.bincount(table.predicted, table.count, table.classes)
    own = np.zeros(table.classes)
    same = table.true == table.predicted
    own[table.predicted[same]] = table.count[same]
    largest = np.zeros(table.classes)
    np.maximum.at(largest, table.predicted[~same], table.count[~same])
    return int(((largest >= 3) & (largest > 3 * own) & (largest > 0.3 * predicted)).sum()) >= 2


def _matching(table: Table) -> Ints:
    """One-to-one matching of predicted to true classes with the largest sum of association n / sqrt(n_true n_pred)."""
    k = table.classes
    true = np.bincount(table.true, table.count, k)
    predicted = np.bincount(table.predicted, table.count, k)
    size = np.sqrt(np.maximum(true[table.true] * predicted[table.predicted], 1e-12))
    weight = table.count / size
    keep = weight > 0.05
    everyone = np.arange(k)
    # A tiny weight on the diagonal makes a full matching exist, and leaves classes without evidence in place.
    graph = coo_array(
        (
            np.concatenate([weight[keep], np.full(k, 1e-3)]),
            (np.concatenate([table.predicted[keep], everyone]), np.concatenate([table.true[keep], everyone])),
        ),
        shape=(k, k),
    ).tocsr()
    rows, columns = min_weight_full_bipartite_matching(graph, maximize=True)
    true_of = np.empty(k, np.int64)
    true_of[rows] = columns
    return true_of


def _keep_confirmed(true_of: Ints, table: Table) -> Ints:
    """Undo every cycle of the renaming that the other half of the rows does not confirm."""
    k = table.classes
    match = table.true == true_of[table.predicted]
    same = table.true == table.predicted
    renamed = np.bincount(table.predicted[match], table.count[match], k)
    own = np.bincount(table.predicted[same], table.count[same], k)
    total = np.bincount(table.true, table.count, k)[true_of]
    result, seen = true_of.copy(), np.zeros(k, bool)
    for start in np.flatnonzero(true_of != np.arange(k)):
        if seen[start]:
            continue
        cycle = [int(start)]
        while int(true_of[cycle[-1]]) != start:
            cycle.append(int(true_of[cycle[-1]]))
        seen[cycle] = True
        gained, lost, rows = renamed[cycle].sum(), own[cycle].sum(), total[cycle].sum()
        if gained < 5 or gained < 5 * lost or gained < 0.25 * rows:
            result[cycle] = cycle
    return result
