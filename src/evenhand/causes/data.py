"""Causes in the data: labels under another order, rows that do not belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.causes import remedies
from evenhand.causes.registry import TILT_CAUSES, Verdict, cause, percent, some_names
from evenhand.declared import Floats, Ints
from evenhand.evidence import Evidence
from evenhand.mapping import LabelMap, find_label_map
from evenhand.orders import weighted_correlation
from evenhand.swaps import find_swap
from evenhand.tally import Tally

MODEL_CAUSES = (*TILT_CAUSES, "prior-shift", "padding-class", "argmax-amplification", "bounded-logits", "confused-pairs",
                "misordered-weights", "tied-logits", "tail-overfit", "masked-classes")  # fmt: skip


@cause("permuted-labels", "EH101", "Labels and predictions use different class orders",
       explains=(*MODEL_CAUSES, "misaligned-rows", "masked-classes"))  # fmt: skip
def permuted_labels(e: Evidence) -> Verdict | None:
    """Predictions are right once their classes are renamed; the renaming is named or listed."""
    counts = [e.prior_counts] if e.train_given else []
    found = find_label_map(e.tally, counts=counts, names=e.declared.class_names)
    if found is None or not holds_without_tilt(e, found):
        found = find_swap(e.tally, e.z, e.y) if e.fitted else None
    if found is None:
        return None
    moved = np.flatnonzero(found.true_of != np.arange(e.classes))
    example = "; ".join(_arrow(e, int(found.true_of[c]), int(c)) for c in moved[:3])
    which = f"({found.name})" if found.name else f"({example}{', ...' if len(moved) > 3 else ''})"
    sentence = (
        f"The predictions are right under another label order {which}: accuracy on these rows is "
        f"{percent(found.accuracy_before)} as given and {percent(found.accuracy_after)} after renaming "
        f"{found.classes_moved} of {e.classes} classes."
    )
    return Verdict(
        "fault",
        0.98 if found.name else 0.95,
        sentence,
        _map_evidence(found, moved),
        "Map names to indices once, save that mapping with the model, and use it for training and evaluation.",
        remedies.label_order_snippets(),
    )


def holds_without_tilt(e: Evidence, found: LabelMap) -> bool:
    """Whether the renaming survives once temperature and tilt are put right.

    A strongly tilted model answers each frequent class with the rare one most like it, which looks like a renaming;
    without the tilt it is right under the given names.
    """
    if not e.scored:
        return _renamed_labels(e, found)
    if e.fit is None or e.fit.beta < 0.5:  # scores that the fit ignores tell nothing about the given names
        return True
    moved = np.flatnonzero(found.true_of != np.arange(e.classes))
    rows = np.isin(e.y, found.true_of[moved])
    if not rows.any():
        return True
    a = e.log_prior - e.log_prior.mean()
    best = (np.float32(e.fit.beta) * e.z[rows] + (e.offset + e.fit.tau[0] * a).astype(np.float32)).argmax(axis=1)
    as_given, renamed = (best == e.y[rows]).mean(), (found.true_of[best] == e.y[rows]).mean()
    return bool(renamed > 3 * as_given and renamed > 0.5 * found.accuracy_after)


def _renamed_labels(e: Evidence, found: LabelMap) -> bool:
    """Labels alone: whether a renaming is more than what a tilted model would look like.

    A mirrored model answers frequent classes with rare ones, so a renaming that puts them there must explain nearly
    everything. Any other one need only be right many times as often as the given names.
    """
    log_count = np.log(e.tally.true + 0.5)
    turns = weighted_correlation(log_count, log_count[found.true_of], np.ones(e.classes)) < -0.3
    mirrored = e.pattern is not None and e.pattern.interval[1] < 0
    if mirrored and (turns or found.name is None):
        clear = found.accuracy_after > (0.3 if found.name is not None else 0.5)
        return clear and found.accuracy_after > 10 * found.accuracy_before
    factor = 5 if found.name is not None else 20
    return found.accuracy_after > (0.3 if found.name is not None else 0.5) or (
        found.accuracy_after > max(0.1, factor * found.accuracy_before)
    )


def _arrow(e: Evidence, true: int, predicted: int) -> str:
    return f"{some_names(e, [true])} is answered as {some_names(e, [predicted])}"


def _map_evidence(found: LabelMap, moved: Ints) -> dict[str, Any]:
    return {
        "order": found.name,
        "accuracy_before": round(found.accuracy_before, 4),
        "accuracy_after": round(found.accuracy_after, 4),
        "classes_moved": found.classes_moved,
        "rows": found.rows,
        "renaming": [{"predicted": int(c), "true": int(found.true_of[c])} for c in moved[:50]],
    }


@cause("misaligned-rows", "EH102", "Labels and predictions belong to different rows", explains=MODEL_CAUSES)
def misaligned_rows(e: Evidence) -> Verdict | None:
    """Confident predictions that agree with the labels no more often than chance, in all rows or in a stretch."""
    if e.rows < 50 or np.count_nonzero(e.tally.true) < 2:
        return None
    lag = best_lag(e)
    if lag is not None:
        return _misaligned(
            f"Labels belong to the row {abs(lag)} {'after' if lag < 0 else 'before'}", e, {"lag": lag}, 0.98
        )
    chance = float((e.tally.true / e.rows) @ (e.tally.predicted / e.rows))
    error = float(np.sqrt(chance * (1 - chance) / e.rows)) + 1e-12
    if (e.accuracy - chance) / error < 4 and _should_know(e, chance):
        return _misaligned("Labels and predictions belong to different rows", e, {}, 0.93 if e.scored else 0.6)
    stretch = bad_stretch(e)
    if stretch is not None:
        said = f"From about row {stretch['first']:,} to {stretch['last']:,} labels and predictions belong to different rows"
        return _misaligned(said, e, stretch, 0.9)
    return None


def _misaligned(said: str, e: Evidence, more: dict[str, Any], probability: float) -> Verdict:
    chance = float((e.tally.true / e.rows) @ (e.tally.predicted / e.rows))
    confidence = mean_confidence(e.tally)
    sure = (
        f", while the model expects {percent(confidence)} of its answers to be right" if confidence is not None else ""
    )
    sentence = f"{said}: accuracy is {percent(e.accuracy)}, chance would give {percent(chance)}{sure}."
    return Verdict(
        "fault",
        probability,
        sentence,
        {"accuracy": e.accuracy, "chance": chance, "mean_confidence": confidence} | more,
        "Save labels and predictions in one loop, without shuffling in between, and join them by row id.",
        remedies.order_of_rows_snippets(),
        "" if e.scored else "Give the logits.",
    )


def mean_confidence(t: Tally) -> float | None:
    """Mean of the largest probability; None for labels only."""
    return None if t.kind == "predicted" else float(t.bins[:, 1].sum() / max(t.bins[:, 0].sum(), 1))


def _should_know(e: Evidence, chance: float) -> bool:
    """Whether the predictions claim to know: confident well beyond chance and spread over classes like the labels."""
    p, q = e.tally.predicted / e.rows, e.tally.true / e.rows
    diverse = float((p**2).sum()) < min(0.9, 3 * float((q**2).sum()) + 0.1)
    confidence = mean_confidence(e.tally)
    if confidence is None:
        return diverse and _nothing_known(e, chance)
    # The scores claim to know more than chance, yet the best use of them is to ignore them (beta near zero).
    return diverse and confidence > chance + 0.01 and e.fitted and abs(e.beta) < 0.3


def _nothing_known(e: Evidence, chance: float) -> bool:
    """Labels alone: answers of many classes that agree with the labels no more often than chance.

    A model that knows little answers its largest class and is right at least as often as that class occurs. Varied
    answers that are surely wrong more often, or surely not even a little better than chance, come from other rows.
    """
    error = float(np.sqrt((e.accuracy * (1 - e.accuracy) + 1 / e.rows) / e.rows))
    known = (e.accuracy + 2 * error - chance) / max(1 - chance, 1e-9)
    largest = float(e.tally.true.max() / e.rows)
    level = float(np.sqrt(largest * (1 - largest) / e.rows))
    worse = e.accuracy + 3 * error < largest - level
    return (known < 0.03 or (known < 0.1 and worse)) and not associated(e.tally)


def associated(t: Tally, *, draws: int = 20, rows: int = 20_000, seed: int = 0) -> bool:
    """Whether answers and labels depend on each other at all, right or wrong: chi-square against shuffled labels.

    Labels of other rows are independent of the answers; labels under another order are not.
    """
    rng = np.random.default_rng(seed)
    right = np.flatnonzero(t.hits)
    count = np.concatenate([t.edge_count, t.hits[right]]).astype(np.int64)
    if t.rows > rows:
        count = rng.binomial(count, rows / t.rows)
    true = np.repeat(np.concatenate([t.edge_true, right]), count)
    predicted = np.repeat(np.concatenate([t.edge_predicted, right]), count)
    size = np.bincount(true, minlength=t.classes).astype(np.float64), np.bincount(predicted, minlength=t.classes)

    def statistic(labels: Ints) -> float:
        cell, n = np.unique(labels * t.classes + predicted, return_counts=True)
        return float((n**2 / (size[0][cell // t.classes] * size[1][cell % t.classes])).sum())

    shuffled = np.array([statistic(rng.permutation(true)) for _ in range(draws)])
    return bool(statistic(true) > shuffled.mean() + 5 * max(float(shuffled.std(ddof=1)), 1e-12))


def best_lag(e: Evidence) -> int | None:
    """Row shift under which the first rows agree, if they agree clearly better than as given."""
    lead = e.tally.lead
    if len(lead.target) < 50 or not np.all(np.diff(lead.row_id) == 1):
        return None
    predicted = lead.scores.argmax(axis=1) if e.scored else lead.scores[:, 0].astype(np.int64)
    here = float((predicted == lead.target).mean())
    best, best_rate = None, 0.0
    for lag in (-3, -2, -1, 1, 2, 3):
        shifted = lead.target[lag:] == predicted[:-lag] if lag > 0 else lead.target[:lag] == predicted[-lag:]
        rate = float(shifted.mean())
        if rate > best_rate:
            best, best_rate = lag, rate
    # Rows sorted by class agree with their neighbours too: then they agree with themselves even better.
    error = float(np.sqrt(best_rate * (1 - best_rate) / len(predicted))) + 1e-12
    share = np.bincount(lead.target, minlength=e.classes) / len(predicted)
    chance = float(share @ (np.bincount(predicted, minlength=e.classes) / len(predicted)))
    return best if best_rate - here > 6 * error and here - chance < 0.3 * (best_rate - chance) else None


def bad_stretch(e: Evidence) -> dict[str, Any] | None:
    """A stretch of rows at the end or start where accuracy falls to chance though confidence and labels stay the same."""
    if not e.scored or len(e.y) < 400:
        return None
    order = np.argsort(e.tally.sample.row_id[e.usable_rows], kind="stable")
    y, top = e.y[order], e.z.argmax(axis=1)[order]
    hit = (top == y).astype(np.float64)
    n = len(hit)
    cut = np.arange(n // 10, n - n // 10)
    before, total = np.cumsum(hit)[cut - 1], hit.sum()
    a, b = before / cut, (total - before) / (n - cut)
    gain = _bernoulli(before, cut) + _bernoulli(total - before, n - cut) - _bernoulli(np.array([total]), np.array([n]))
    best = int(np.argmax(gain))
    c = int(cut[best])
    bad = slice(c, n) if b[best] < a[best] else slice(0, c)
    good = slice(0, c) if b[best] < a[best] else slice(c, n)
    k = e.classes
    chance = float(
        (np.bincount(y[bad], minlength=k) / len(y[bad])) @ (np.bincount(top[bad], minlength=k) / len(y[bad]))
    )
    low, high = hit[bad].mean() - chance, hit[good].mean() - chance
    if gain[best] < 20 or low > 0.15 * high or high < 0.1:
        return None
    if not (_alike(y[bad], y[good], k) and _alike(top[bad], top[good], k)):
        return None
    ids = e.tally.sample.row_id[e.usable_rows][order]
    return {"first": int(ids[bad][0]), "last": int(ids[bad][-1]), "accuracy_there": float(hit[bad].mean()),
            "accuracy_elsewhere": float(hit[good].mean())}  # fmt: skip


def _bernoulli(hits: Floats, rows: Ints) -> Floats:
    p = np.clip(hits / rows, 1e-9, 1 - 1e-9)
    return np.asarray(hits * np.log(p) + (rows - hits) * np.log(1 - p))


def _alike(first: Ints, second: Ints, classes: int) -> bool:
    """Whether two samples of labels have about the same class frequencies: rows sorted by class do not."""
    p, q = (np.bincount(x, minlength=classes) / len(x) for x in (first, second))
    noise = np.sqrt((p + q) / 2 * (1 / len(first) + 1 / len(second)))
    return bool(np.abs(p - q).sum() < 2.0 * np.sqrt(2 / np.pi) * noise.sum() + 0.05)
