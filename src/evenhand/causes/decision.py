"""Causes of count errors that are no tilt: argmax itself, overfitted tails, a few confused pairs; and health."""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.causes import remedies
from evenhand.causes.judging import described, material, surer, tilt_evidence, weak_evidence
from evenhand.causes.registry import Verdict, cause, class_label, percent
from evenhand.declared import Floats, Ints
from evenhand.evidence import Evidence
from evenhand.leaks import Leak, concentrated, find_leaks
from evenhand.likelihood import Likelihood, Part
from evenhand.metrics import prior_groups
from evenhand.tally import Tally
from evenhand.tilt import maximise

UNEXPLAINED = 0.1  # share of the rows that soft counts misplace beyond chance; sound networks stay below 0.07


@cause("tail-overfit", "EH501", "Rare classes are memorised, not learned", explains=("argmax-amplification",))
def tail_overfit(e: Evidence) -> Verdict | None:
    """Training rows of rare classes are right, held-out ones are not, and the gap grows as classes get rarer."""
    if e.train is None:
        return None
    members = prior_groups(e.prior_counts)
    gap = {g: _recall(e.train, m) - _recall(e.tally, m) for g, m in members.items()}
    error = _recall_error(e.tally, members["tail"]) + _recall_error(e.train, members["tail"])
    train_tail, held_tail = _recall(e.train, members["tail"]), _recall(e.tally, members["tail"])
    growth = gap["tail"] - gap["head"]
    if not np.isfinite(growth) or gap["tail"] < 0.3 or growth < max(0.15, 2 * error) or train_tail < 0.5:
        return None
    sentence = (
        f"Rare classes are memorised: of their training rows {percent(train_tail)} are right, of held-out rows "
        f"{percent(held_tail)}; for frequent classes the gap is {percent(max(gap['head'], 0))}. Weights cannot help there."
    )
    return Verdict(
        "fault",
        0.92,
        sentence,
        {"recall_gap": {g: round(v, 3) for g, v in gap.items()}, "train_tail": train_tail, "held_out_tail": held_tail},
        "Regularise (weight decay, dropout, augmentation, earlier stopping), or share features with frequent classes; "
        "more weight on rare classes makes it worse.",
        {},
    )


def _recall(tally: Tally, members: Ints) -> float:
    rows = int(tally.true[members].sum())
    return float(tally.hits[members].sum() / rows) if rows else float("nan")


def _recall_error(tally: Tally, members: Ints) -> float:
    return 0.5 / float(np.sqrt(max(int(tally.true[members].sum()), 1)))


@cause("confused-pairs", "EH502", "A few pairs of classes carry the count error", explains=("argmax-amplification",))
def confused_pairs(e: Evidence) -> Verdict | None:
    """A handful of directed pairs explain most of the difference between predicted and true counts."""
    return _lopsided_errors(e) or _leaking_probability(e)


def _lopsided_errors(e: Evidence) -> Verdict | None:
    if e.classes < 5 or e.homogeneity.p > 1e-3 or e.hard_distance < max(1.5 * e.noise, 0.005):
        return None
    pairs = e.pairs
    limit = max(1, min(10, e.classes // 10))
    order = np.argsort(pairs["back"] - pairs["rows"], kind="stable")[: 3 * limit]
    flow = np.array([_misplaced(e, pairs, int(i)) for i in order])
    order, flow = order[flow > 0][:limit], flow[flow > 0][:limit]
    if not len(order):
        return None
    hard = (e.tally.predicted - e.tally.true).astype(np.float64)
    explained = _explained_share(hard, pairs, order, flow, 2 * e.rows * e.noise)
    if e.scored:
        explained = max(
            explained - 0.1, _explained_share(count_error(e), pairs, order, flow, 2 * e.rows * e.soft_noise)
        )
    if explained < 0.5:
        return None
    shown = [
        f"{class_label(e, a)} answered as {class_label(e, b)} ({pairs['rows'][i]:,} rows, {pairs['back'][i]:,} back)"
        for i, a, b in ((i, int(pairs["true"][i]), int(pairs["predicted"][i])) for i in order[:3])
    ]
    sentence = (
        f"{len(order)} of the {pairs['distinct']:,} confused pairs of classes {'carries' if len(order) == 1 else 'carry'} {percent(explained)} "
        f"of the count error: {'; '.join(shown)}."
    )
    listed = [
        {"true": int(pairs["true"][i]), "predicted": int(pairs["predicted"][i]), "rows": int(pairs["rows"][i]),
         "back": int(pairs["back"][i])} for i in order
    ]  # fmt: skip
    return Verdict(
        "warning",
        0.9,
        sentence,
        {"pairs": listed, "explained_share": round(explained, 3)},
        "Look at rows of these pairs: one class under two names, a rule that merges them, or labels that contradict "
        "each other. Merge the classes or clean the labels.",
        {},
    )


def _leaking_probability(e: Evidence) -> Verdict | None:
    """The same seen in the probabilities, which show it with fewer rows and where argmax hides it."""
    if not e.fitted or e.classes < 5:
        return None
    tilted = e.offset + e.tilt_bias, e.around[1], e.around[2], e.beta
    plain = e.offset, *e.untilted, e.beta_only[0]
    for constant, gap, information, beta in (plain, tilted):
        leaks = find_leaks(e.z, e.y, beta, constant, gap)
        if not leaks or len(leaks) > max(1, e.classes // 10) or concentrated(gap, information, leaks) <= 0.6:
            continue
        if constant is tilted[0] or not material(e, *e.tau_judged) or _better_than_tilt(e, leaks):
            return _leaking(e, leaks, concentrated(gap, information, leaks))
    return None


def _better_than_tilt(e: Evidence, leaks: list[Leak]) -> bool:
    """Whether biases of the leaking classes alone make the rows likelier than a tilt of all classes does."""
    classes = np.unique([[p.source, p.destination] for p in leaks])
    directions = np.zeros((e.classes, len(classes)))
    directions[classes, np.arange(len(classes))] = 1.0
    fit = maximise(Likelihood(e.z, e.y, (Part(slice(None), e.offset, directions),), e.threads))
    return fit.log_likelihood - len(classes) > e.around[0] + 10


def _leaking(e: Evidence, leaks: list[Leak], share: float) -> Verdict:
    names = e.declared.class_names
    shown = [
        f"{names[p.source] if names else f'class {p.source}'} leaks to "
        f"{names[p.destination] if names else f'class {p.destination}'} (on its rows the model gives that class "
        f"{percent(p.share)} on average)"
        for p in leaks[:3]
    ]
    sentence = (
        f"{len(leaks)} {'pair of classes holds' if len(leaks) == 1 else 'pairs of classes hold'} {percent(min(share, 1.0))} "
        f"of the class bias: {'; '.join(shown)}. The other way round nothing is lost, as if rows of the one had been "
        "labelled as the other."
    )
    listed = [
        {"true": p.source, "predicted": p.destination, "rows": round(p.flow, 1), "share": round(p.share, 3)}
        for p in leaks
    ]
    return Verdict(
        "warning",
        0.85,
        sentence,
        {"pairs": listed, "explained_share": round(min(share, 1.0), 3)},
        "Look at training rows of these pairs: one class under two names, a rule that merges them, or labels that "
        "contradict each other. Merge the classes or clean the labels.",
        {},
    )


def count_error(e: Evidence) -> Floats:
    """(K,) what has to be explained: soft minus true counts, which argmax does not touch; for labels, predicted - true."""
    counted = e.tally.predicted if e.tally.soft is None else e.tally.soft
    return np.asarray(counted - e.tally.true, dtype=np.float64)


def _explained_share(error: Floats, pairs: dict[str, Any], order: Ints, flow: Floats, noise: float) -> float:
    """Share of the count error beyond noise that disappears when the pairs give back their flow."""
    left = error.copy()
    np.add.at(left, pairs["predicted"][order], -flow)
    np.add.at(left, pairs["true"][order], flow)
    return float((np.abs(error).sum() - np.abs(left).sum()) / max(np.abs(error).sum() - noise, 1.0))


def _misplaced(e: Evidence, pairs: dict[str, Any], i: int) -> float:
    """Rows that a pair moves from class a to class b beyond what tilt or argmax would; 0 if it does not stand out.

    A tilt or argmax moves rows into many classes in proportion to their size; here one class loses rows to one other,
    more than that other attracts from everywhere, and the count errors of both show it.
    """
    a, b, rows = int(pairs["true"][i]), int(pairs["predicted"][i]), int(pairs["rows"][i])
    flow = float(rows - pairs["back"][i])
    if flow < 8 or pairs["q_value"][i] > 1e-3:
        return 0.0
    lost, won = int(e.false_negative[a]), int(e.false_positive[b])
    elsewhere = max(float(e.false_positive.sum() - rows), 1.0)
    attraction = max(won - rows, 0) / elsewhere  # the share of all other errors that end in b
    stands_out = rows > 4 * max(attraction, 1 / e.classes) * lost or e.classes < 10
    if not stands_out or (rows < 0.4 * max(lost, 1) and rows < 0.4 * won):
        return 0.0
    if rows < 0.15 * min(int(e.tally.true[a]), int(e.tally.predicted[b])):
        return 0.0
    error = count_error(e)
    if not e.scored or (rows > 0.7 * lost and lost > 0.5 * e.tally.true[a] and e.classes >= 20):
        return flow  # a class lost to one other alone: duplicates, whether or not the probabilities know
    soft_flow = min(-error[a], error[b])
    spread = np.sqrt(max(float(e.tally.true[a] + e.tally.true[b]), 1.0))
    return float(soft_flow) if soft_flow > max(0.3 * flow, 2.0 * spread * 0.7) else 0.0


@cause("argmax-amplification", "EH503", "Argmax alone inflates the frequent classes", needs_scores=True)
def argmax_amplification(e: Evidence) -> Verdict | None:
    """Calibrated and not tilted: the soft counts are right, the hard counts are not."""
    if e.homogeneity.p > 1e-3 or e.hard_distance < max(0.02, 1.5 * e.noise) or e.soft_distance is None:
        return None
    if e.soft_distance > max(0.6 * e.hard_distance, 3 * e.soft_noise, 0.02):
        return None
    never = int(((e.tally.predicted == 0) & (e.tally.true > 0)).sum())
    sentence = (
        f"Nothing is wrong with the training: the probabilities add up to the true counts (distance "
        f"{e.soft_distance:.3f}), but taking the largest one per row moves the counts ({e.hard_distance:.3f}) towards "
        f"frequent classes{_never(never, e.classes)}."
    )
    return Verdict(
        "note",
        0.9,
        sentence,
        {"soft_distance": round(e.soft_distance, 4), "hard_distance": round(e.hard_distance, 4), "never": never}
        | tilt_evidence(e),
        "If counts matter, use the sum of probabilities per class, or the goal counts of evenhand fix; better features "
        "shrink the effect.",
        dict.fromkeys(
            remedies.weight_snippets(),
            "expected_counts = probs.sum(axis=0)  # instead of np.bincount(probs.argmax(axis=1))",
        ),
        surer(e),
    )


def _never(never: int, classes: int) -> str:
    if not never:
        return ""
    return f"; {never:,} of {classes:,} classes {'is' if never == 1 else 'are'} never answered"


@cause("unexplained", "EH504", "The probabilities are off, and no known cause shows", needs_scores=True)
def unexplained(e: Evidence) -> Verdict | None:
    """Soft counts far from the true ones, beyond chance, while every cause is silent: neither healthy nor argmax."""
    if e.soft_distance is None or e.soft_distance - 1.5 * e.soft_noise < UNEXPLAINED or e.homogeneity.p > 1e-3:
        return None
    error = count_error(e) / e.rows
    worst = np.argsort(-np.abs(error), kind="stable")[:3]
    shown = [
        f"{class_label(e, c)} {'too much' if error[c] > 0 else 'too little'} by {percent(abs(error[c]))} of the rows"
        for c in map(int, worst)
    ]
    sentence = (
        f"The probabilities, summed per class, miss the true counts (distance {e.soft_distance:.3f}, {e.soft_noise:.3f} "
        f"expected by chance), so argmax alone is not the reason; yet no known cause shows. Furthest off: {'; '.join(shown)}."
    )
    return Verdict(
        "warning",
        0.6,
        sentence,
        {"soft_distance": round(e.soft_distance, 4), "by_chance": round(e.soft_noise, 4),
         "hard_distance": round(e.hard_distance, 4), "furthest_off": [int(c) for c in worst]} | tilt_evidence(e),
        "Compare the per-class table with how these rows were drawn and labelled; evenhand fix fits a bias per class "
        "without knowing why it is needed.",
        {},
        " ".join(filter(None, [surer(e), "Predictions on training rows tell overfitting from the rest."])),
    )  # fmt: skip


@cause("healthy", "EH001", "No cause of unequal counts found")
def healthy(e: Evidence) -> Verdict | None:
    """Counts agree within noise, or differ without any sign of a cause; what could not be judged is said."""
    reasons = [weak_evidence(e)] if weak_evidence(e) else []
    differ = e.homogeneity.p <= 1e-3
    small = e.hard_distance < max(0.02, 1.5 * e.noise)
    distance = f"distance {e.hard_distance:.3f}, {e.noise:.3f} expected by chance"
    if not differ:
        sentence = f"Predicted and true counts agree ({distance})"
        if e.fit is not None:
            sentence += f", and the model is not tilted beyond what sound training shows ({described(e)})"
        sentence += "."
    else:
        how = "differ, by little but by more than chance explains" if small else "differ"
        sentence = f"Predicted and true counts {how} ({distance}); no known cause shows in these data" + (
            f": the model is not tilted beyond what sound training shows ({described(e)})."
            if e.fit is not None
            else "."
        )
    if reasons:
        sentence += f" Limits: {'; '.join(reasons)}."
    return Verdict(
        "note",
        0.5 if differ and not small else 0.9,
        sentence,
        {"distance": round(e.hard_distance, 4), "by_chance": round(e.noise, 4), "p": e.homogeneity.p}
        | {"counts_differ": differ}
        | tilt_evidence(e),
        "Look at the per-class table and the worst pairs." if differ else "Nothing to repair.",
        {},
        surer(e),
    )
