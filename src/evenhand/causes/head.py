"""Causes in the model's head: bounded or squashed logits, a softmax too many or over the wrong axis, ties, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.causes import remedies
from evenhand.causes.registry import TILT_CAUSES, Verdict, cause, percent, some_names
from evenhand.declared import Floats, Ints
from evenhand.evidence import Evidence
from evenhand.tilt import Singles

FLAT = 1.3  # logits must be stretched at least this much before a bound is to blame; sound networks need 0.75 to 1.1
FAR = 2.0  # surely this many times too small: no soundly trained network is


def raw_scores(e: Evidence) -> Singles:
    """Sample scores without classes that are -inf throughout; of probabilities, their logarithms."""
    scores = e.tally.sample.scores
    masked = e.tally.minus_infinite == e.rows
    return scores[:, ~masked] if masked.any() else scores


def stretched(e: Evidence) -> bool:
    """Whether the best fit needs logits surely more spread out than they are."""
    if e.fit is not None:
        return e.fit.beta_interval[0] > FLAT
    return e.beta_only[0] > FLAT


def head_evidence(e: Evidence, **more: object) -> dict[str, object]:
    """Numbers shared by the head causes."""
    fit = e.fit
    found: dict[str, object] = {"beta": round(e.beta, 3)}
    if fit is not None:
        found |= {"beta_interval": [round(v, 3) for v in fit.beta_interval], "tau": round(float(fit.tau[0]), 3)}
    return found | more


@cause("double-softmax", "EH402", "Probabilities were passed as logits", needs_scores=True,
       explains=(*TILT_CAUSES, "bounded-logits", "collapsed", "argmax-amplification", "tied-logits", "prior-shift",
                 "misordered-weights", "masked-classes"))  # fmt: skip
def double_softmax(e: Evidence) -> Verdict | None:
    """The scores are themselves probabilities: in [0, 1], every row summing to one."""
    z = raw_scores(e)
    if e.tally.kind == "logits" and not (z.min() > -0.01 and z.max() < 1.1):
        return None  # most logits are ruled out here, before a copy of the sample is made
    if not np.isfinite(z).all():
        return None
    z = z.astype(np.float64)
    if e.tally.kind == "probs":
        # log p is known up to a constant per row; of a second softmax the constant is fixed by rows summing to one.
        z = z + ((1.0 - z.sum(axis=1)) / z.shape[1])[:, None]
        informative = float(np.quantile(z.max(axis=1), 0.9)) > min(0.5, 5.0 / z.shape[1])
        if not informative or not stretched(e):
            return None
    tolerance = 2e-2 if e.tally.kind == "logits" else 2e-3
    inside = z.min() > -tolerance / 10 and z.max() < 1 + tolerance
    if not inside or np.abs(z.sum(axis=1) - 1.0).max() > tolerance:
        return None
    limit = float(np.exp(1.0) / (np.exp(1.0) + e.classes - 1))
    sentence = (
        "The scores used as logits are already probabilities: every row lies between 0 and 1 and sums to one. A second "
        f"softmax over them cannot give any of the {e.classes} classes more than {percent(limit)}."
    )
    return Verdict(
        "fault",
        0.98,
        sentence,
        head_evidence(e, smallest=float(z.min()), largest=float(z.max()), largest_probability=limit),
        "Remove the softmax before the loss and save raw logits; if only the file holds probabilities, name them probs.",
        remedies.logits_snippets(),
    )


@cause("bounded-logits", "EH401", "A saturating head bounds the logits", needs_scores=True,
       explains=("argmax-amplification", "tied-logits", "partial-weights", *TILT_CAUSES, "misordered-weights",
                 "prior-shift"))  # fmt: skip
def bounded_logits(e: Evidence) -> Verdict | None:
    """An LSTM state, tanh, sigmoid or cosine as logits: too small for the softmax to become sure of anything."""
    z = raw_scores(e)
    if not stretched(e):
        return _saturated(e, z)
    finite = np.isfinite(z).all(axis=1)
    if not finite.any():
        return None
    if not finite.all():
        z = z[finite]  # copied only where it must be: with 100,000 classes the sample fills most of a gigabyte
    far = e.fit is not None and e.fit.beta_interval[0] > FAR
    bound, kind = _bound(z, e.tally.kind == "probs", far=far)
    if bound is None:
        return None
    cap = float(np.exp(2 * bound) / (np.exp(2 * bound) + e.classes - 1))
    floor = float(np.log1p((e.classes - 1) * np.exp(-2 * bound)))
    sentence = (
        f"The logits never leave {kind}, so no class can get a probability above {percent(cap)} and the loss cannot "
        f"fall below {floor:.2f} nats; they would have to be {e.beta:.1f} times larger to be calibrated. "
        "A saturating head (an LSTM state, tanh, sigmoid, or cosine without a scale) feeds the loss."
    )
    return Verdict(
        "fault",
        0.96,
        sentence,
        head_evidence(e, bound=round(bound, 4), largest_probability=cap, loss_floor=floor),
        "Put a linear layer after the LSTM (or remove the squashing activation, or scale cosines by 16 or more) and "
        "retrain. Until then multiply the logits by the fitted beta.",
        remedies.logits_snippets(),
    )


def _saturated(e: Evidence, z: NDArray[np.floating[Any]]) -> Verdict | None:
    """The same head driven into its bound, right or wrong: larger logits would not help, so that beta is not above 1."""
    if e.tally.kind != "logits" or z.shape[1] < 10 or not (z.min() >= -1.002 and z.max() <= 1.002):
        return None
    high = float(z.max())
    crowd = float((z.max(axis=1) > high - 0.01).mean())
    several = float(((z > high - 0.01).sum(axis=1) > 1).mean())
    if high < 0.99 or crowd < 0.5 or several < 0.1:
        return None
    cap = float(np.exp(2.0) / (np.exp(2.0) + e.classes - 1))
    sentence = (
        f"The logits never leave [-1, 1], so no class can get a probability above {percent(cap)}, and they are driven into that "
        f"bound: in {percent(crowd)} of the rows the largest is within 0.01 of it, in {percent(several)} several classes share it. "
        "A saturating head (an LSTM state or tanh) feeds the loss."
    )
    return Verdict(
        "fault",
        0.95,
        sentence,
        head_evidence(e, bound=1.0, largest_probability=cap, rows_at_bound=round(crowd, 4), shared=round(several, 4)),
        "Put a linear layer after the LSTM (or remove the squashing activation) and retrain.",
        remedies.logits_snippets(),
    )


def _bound(z: NDArray[np.floating[Any]], logs: bool, *, far: bool) -> tuple[float | None, str]:
    """Half-width of the range that the logits are confined to, and its name; None if they are not confined."""
    width = float((z.max(axis=1) - z.min(axis=1)).max())
    if z.shape[1] < 5 and not far and (np.ptp(z, axis=1) > 0.95 * width).mean() < 0.2:
        return None, ""  # few classes need small logits only: the bound must be seen to hold them back
    if logs:  # known up to a constant per row: only the range of a row counts
        return (width / 2, f"a range of {width:.2f}") if width <= 2.002 else (None, "")
    low, high = float(z.min()), float(z.max())
    if low >= -1e-6 and high <= 1.002:
        return 0.5, "[0, 1]"
    if low >= -1.002 and high <= 1.002:
        return 1.0, "[-1, 1]"
    if width <= 2.002:
        return width / 2, f"a range of {width:.2f}"
    # Any other bound must be seen to saturate, and keep every class below one half: label smoothing bounds logits too.
    crowd = float((z.max(axis=1) > high - 0.01 * (high - low)).mean())
    tight = np.exp(high - low) < z.shape[1] - 1
    return ((high - low) / 2, f"[{low:.3g}, {high:.3g}]") if crowd > 0.2 and tight else (None, "")


@cause("batch-softmax", "EH403", "Softmax over the batch axis", explains=(*TILT_CAUSES, "argmax-amplification",
       "double-softmax", "bounded-logits", "prior-shift", "confused-pairs", "misordered-weights", "tied-logits"))  # fmt: skip
def batch_softmax(e: Evidence) -> Verdict | None:
    """Columns of each batch sum to one instead of rows."""
    if e.tally.kind == "predicted":
        return None
    low, high = (float(end(e.tally.lead.scores, initial=0.0)) for end in (np.min, np.max))
    as_given = e.tally.kind == "probs" or (low >= 0 and high <= 1.001)
    if not as_given and high > 1e-3:
        return None  # neither probabilities nor their logarithms
    lead = e.tally.lead.scores.astype(np.float64)
    p = lead if as_given else np.exp(np.minimum(lead, 50))
    rows_off = float(np.abs(p.sum(axis=1) - 1).max()) if len(p) else 0.0
    if e.tally.kind == "probs":
        rows_off = e.tally.row_sum_error
    if rows_off < 0.02:
        return None
    size = batch_of_unit_columns(p)
    columns = e.tally.column_sum
    level = e.tally.kind == "probs" and columns.min() > 0 and np.ptp(columns) < 0.01 * columns.mean()
    if size is None and not level:
        return None
    batch = size if size is not None else e.rows / float(columns.mean())
    sentence = (
        f"The softmax runs over the batch, not over the classes: within every {batch:.0f} rows each class sums to "
        "one, rows do not. Whatever a class's frequency, it gets the same share of each batch."
    )
    return Verdict(
        "fault",
        0.98,
        sentence,
        {"batch_size": round(float(batch)), "row_sum_error": round(rows_off, 4)},
        "Use the class axis (dim=-1), in the loss as well if it was written by hand, and retrain.",
        remedies.softmax_axis_snippets(),
    )


def batch_of_unit_columns(p: Floats) -> int | None:
    """Smallest number of leading rows over which every column sums to one, if there is one."""
    if len(p) < 2:
        return None
    sums = np.cumsum(p, axis=0)
    even = np.flatnonzero(np.abs(sums - 1.0).max(axis=1) < 0.02)
    return int(even[0]) + 1 if len(even) and even[0] > 0 else None


@cause("collapsed", "EH404", "The model hardly looks at its input", needs_scores=True,
       explains=("argmax-amplification", *TILT_CAUSES, "bounded-logits", "misaligned-rows", "tied-logits",
                 "prior-shift", "masked-classes", "confused-pairs", "misordered-weights", "permuted-labels"))  # fmt: skip
def collapsed(e: Evidence) -> Verdict | None:
    """Between rows the logits hardly vary, and what varies says nothing about the label."""
    z = np.maximum(e.z[: max(500, 500_000 // e.classes)].astype(np.float64), -60.0)
    z = z - z.mean(axis=1, keepdims=True)
    between = float(np.sqrt(np.median(z.var(axis=0))))
    spread = float(z.mean(axis=0).std())
    top = float(np.sort(e.tally.decoded)[::-1][: max(1, e.classes // 100)].sum() / e.rows)
    still = between < 0.02 or between < 0.01 * spread
    if not still:
        return None
    if e.fit is not None and e.fit.beta_interval[0] > 0.3 and e.beta * between > 0.1:
        return None  # small logits that mean something once stretched: weak features, not a dead model
    gain = information_gain(e)
    if gain is None or gain > 0.02 + 3 / label_nats(e):
        return None
    sentence = (
        f"The logits hardly depend on the input (standard deviation between rows {between:.2g}); {percent(top)} of the "
        f"predictions fall on {max(1, e.classes // 100)} of {e.classes} classes and tell "
        f"{percent(max(gain, 0.0))} of what there is to know about the label."
    )
    return Verdict(
        "fault",
        0.95,
        sentence,
        head_evidence(e, between_rows=between, information_gain=round(gain, 5), top_share=round(top, 4)),
        "No offset can repair this: look for a learning rate far too high, dead activations, a detached or constant "
        "input, or a loss that is not a number.",
        {},
    )


def label_nats(e: Evidence) -> float:
    """Entropy of the labels of the sample, in nats over all its rows: what chance gains is a few of these."""
    prior = np.bincount(e.y, minlength=e.classes) / len(e.y)
    return max(-float((prior[prior > 0] * np.log(prior[prior > 0])).sum()) * len(e.y), 1e-6)


def information_gain(e: Evidence) -> float | None:
    """Share of the label entropy that the scores explain beyond class frequencies: (H - nll of the best fit) / H."""
    nats = label_nats(e)
    if e.biases is None:
        return None
    fitted = e.biases.log_likelihood - e.biases.freedom / 2
    own = (len(np.unique(e.y)) - 1) / 2  # the frequencies were fitted to the same rows
    return float((fitted + nats + own) / nats)


@cause("tied-logits", "EH405", "Ties decide the predictions", needs_scores=True, explains=("argmax-amplification",))
def tied_logits(e: Evidence) -> Verdict | None:
    """Low precision: several classes share the maximum, and argmax takes the lowest index."""
    z = e.tally.sample.scores
    ties = (z == e.sample_top[:, None]).sum(axis=1) > 1
    share = float(ties.mean())
    error = float(np.sqrt(max(share * (1 - share), 1e-9) / len(z)))
    if share - 2 * error < 0.015 or share < 0.02:
        return None
    distinct = len(np.unique(z[: max(1, 20_000 // z.shape[1])]))
    sentence = (
        f"In {percent(share)} of the rows several classes share the largest score and argmax takes the lowest index: "
        f"the logits were saved or computed in low precision ({distinct} distinct values in the first rows)."
    )
    return Verdict(
        "fault" if share > 0.05 else "warning",
        0.93,
        sentence,
        head_evidence(e, tied_rows=round(share, 4), rows_used=len(z)),
        "Keep the logits in float32 from the last layer on: leave the autocast region before the head, and do not "
        "round when saving.",
        {
            "pytorch": "with torch.autocast('cuda', enabled=False):\n    logits = self.head(features.float())",
            "keras": "outputs = keras.layers.Dense(K, dtype='float32')(x)",
            "huggingface": "logits = self.classifier(pooled.float())",
            "lightning": "logits = self.head(features.float())",
            "scikit-learn": "scores = model.decision_function(X).astype('float32')",
        },
    )


@cause("masked-classes", "EH406", "Some classes cannot be predicted", explains=("argmax-amplification",
       "confused-pairs"))  # fmt: skip
def masked_classes(e: Evidence) -> Verdict | None:
    """Classes with rows whose score is -inf, a constant sentinel, or that the decision rule never returns."""
    masked = masked_by_score(e) if e.scored else never_decoded(e)
    if e.scored and not len(masked):
        masked = np.flatnonzero((e.tally.predicted == 0) & (e.tally.decoded >= 10))
    rows = int(e.tally.true[masked].sum())
    if not len(masked) or rows < 3:
        return None
    sentence = (
        f"{len(masked)} of {e.classes} classes can never be predicted although {rows:,} rows belong to them "
        f"({some_names(e, masked.tolist())}): their scores are masked, or the decision rule leaves them out."
    )
    return Verdict(
        "fault",
        0.95 if e.scored else 0.7,
        sentence,
        {"classes": masked[:50].tolist(), "count": len(masked), "rows": rows, "share_of_rows": rows / e.rows},
        "Look for a mask (-inf, -1e9) on these outputs, a head with too few outputs, or a class list that lacks them.",
        {},
        "" if e.scored else "Give the logits.",
    )


def masked_by_score(e: Evidence) -> Ints:
    """Classes with rows whose scores are -inf or a constant far below the maximum in every row."""
    never = np.flatnonzero((e.tally.true > 0) & (e.tally.predicted == 0))
    if not len(never):
        return never
    scores = e.tally.sample.scores if len(never) == e.classes else e.tally.sample.scores[:, never]
    high, low = scores.max(axis=0, initial=-np.inf), scores.min(axis=0, initial=np.inf)
    with np.errstate(invalid="ignore"):
        sentinel = (high < -500) | (high - low < 1e-3)
        far = (scores - e.sample_top[:, None]).max(axis=0, initial=-np.inf) < -20 if sentinel.any() else sentinel
    masked = (e.tally.minus_infinite == e.rows)[never] | (sentinel & far)
    if e.tally.soft is not None and e.tally.kind == "probs":
        masked |= e.tally.soft[never] <= 0
    return np.asarray(never[masked])


def never_decoded(e: Evidence) -> Ints:
    """Labels only: classes never answered although classes of their size are answered about as often as they occur."""
    true, predicted = e.tally.true.astype(np.float64), e.tally.predicted.astype(np.float64)
    if e.spearman < 0.5 or e.classes < 20:
        return np.empty(
            0, np.int64
        )  # predictions do not follow the labels at all: nothing is to be expected of a class
    order = np.argsort(-true, kind="stable")
    suspects = []
    for rank, c in enumerate(order):
        if predicted[c] > 0 or true[c] < 50:
            continue
        near = [d for d in order[max(0, rank - 5) : rank + 6] if d != c]
        answered = predicted[near] > 0
        expected = true[c] * float(np.median(predicted[near] / np.maximum(true[near], 1)))
        alike = (true[near] > 0.5 * true[c]).mean() > 0.7  # of the size of c: rarer ones are expected to vanish
        known = np.median(e.tally.hits[near] / np.maximum(true[near], 1)) > 0.4  # a weak model drops classes by itself
        if answered.mean() > 0.9 and alike and known and expected > 30:
            suspects.append(int(c))
    return np.array(suspects, dtype=np.int64)
