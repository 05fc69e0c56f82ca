"""A class that is padding: counted among the labels, predicted without ever being true, or in the weights."""

from __future__ import annotations

import re

import numpy as np

from evenhand.biases import soft_counts
from evenhand.causes import remedies
from evenhand.causes.registry import Verdict, cause, percent, some_names
from evenhand.evidence import Evidence
from evenhand.likelihood import Likelihood, Part, centred_rows
from evenhand.tilt import maximise

PAD_NAME = re.compile(r"^\W*(pad|padding|ignore|ignored)\W*$", re.IGNORECASE)


@cause("padding-class", "EH103", "One class holds the padding", explains=("class-weights", "partial-weights",
       "sampler", "foreign-weights", "argmax-amplification", "confused-pairs", "prior-shift"))  # fmt: skip
def padding_class(e: Evidence) -> Verdict | None:
    """A class that is padding: counted among the labels, predicted without ever being true, or in the weights."""
    for look in (_named_padding, _untrained_padding, _counted_padding, _predicted_padding, _weighted_padding):
        found = look(e)
        if found is not None:
            c, how, probability = found
            share = float(e.tally.true[c] / e.rows)
            return Verdict(
                "fault",
                probability,
                f"{some_names(e, [c])} looks like padding: {how}.",
                {"class": c, "share_of_rows": share, "share_of_predictions": float(e.tally.predicted[c] / e.rows)},
                "Leave padding out of the loss (ignore_index), of the counts behind the weights, and of the evaluation.",
                remedies.ignore_snippets(c),
            )
    return None


def _named_padding(e: Evidence) -> tuple[int, str, float] | None:
    for c, name in enumerate(e.declared.class_names or ()):
        share = max(e.tally.true[c], e.tally.predicted[c]) / e.rows
        if PAD_NAME.match(name) and share > 0.005:
            return (
                c,
                f"its name says so, and it holds {percent(e.tally.true[c] / e.rows)} of the labels and {percent(e.tally.predicted[c] / e.rows)} of the predictions",
                0.97,
            )
    return None


def _untrained_padding(e: Evidence) -> tuple[int, str, float] | None:
    """Labelled and answered often, though the training counts hold none of it: they were made without padding."""
    if not e.train_given:
        return None
    untrained = np.flatnonzero(e.prior_counts < 0.001 * e.prior_counts.sum())
    untrained = untrained[e.tally.true[untrained] > 0.1 * e.rows]
    if not len(untrained):
        return None
    c = int(untrained[np.argmax(e.tally.true[untrained])])
    if e.tally.hits[c] < 0.5 * e.tally.true[c]:
        return None
    share, right = percent(e.tally.true[c] / e.rows), percent(e.tally.hits[c] / e.tally.true[c])
    return (
        c,
        f"it holds {share} of the rows and {right} of them are right, yet the training counts have none of it",
        0.93,
    )


def _counted_padding(e: Evidence) -> tuple[int, str, float] | None:
    """By far the largest class, and next to never confused, in a model that errs elsewhere."""
    if e.classes < 5:
        return None
    order = np.argsort(-e.tally.true)
    c, second = int(order[0]), int(order[1])
    n, rows = int(e.tally.true[c]), e.rows
    if n < 0.15 * rows or n < 3 * e.tally.true[second]:
        return None
    errors = int(e.false_negative[c] + e.false_positive[c])
    rest_rows = rows - n
    rest_errors = int(e.false_negative.sum() - e.false_negative[c])
    rest_rate = rest_errors / max(rest_rows, 1)
    # Frequent classes are easier, but other frequent classes must not be as easy.
    peers = order[1 : max(3, e.classes // 10)]
    peer_rate = float(e.false_negative[peers].sum() / max(e.tally.true[peers].sum(), 1))
    # A class that is merely frequent draws the errors of all others to itself; padding draws none.
    drawn = int(e.false_positive[c]) / max(rest_errors, 1)
    if (
        errors / n < 0.003
        and rest_rate > 0.1
        and peer_rate > 0.05
        and errors / n < 0.1 * peer_rate
        and drawn < 0.01
        and rest_errors >= 100
    ):
        return c, (
            f"it holds {percent(n / rows)} of the rows and is next to never confused ({percent(errors / n)} errors), "
            f"while {percent(rest_rate)} of all other rows are wrong"
        ), 0.9  # fmt: skip
    return None


def _predicted_padding(e: Evidence) -> tuple[int, str, float] | None:
    """Answered often although no row is labelled so: masked among the labels, not among the outputs."""
    absent = np.flatnonzero(e.tally.true == 0)
    if not len(absent) or e.classes - len(absent) < 2:
        return None
    c = int(absent[np.argmax(e.tally.predicted[absent])])
    m = int(e.tally.predicted[c])
    typical = float(np.median(e.tally.predicted[e.tally.true > 0]))
    if m < max(10, 0.02 * e.rows) or m < 3 * typical:
        return None
    # Argmax alone can answer a class twenty times too often: it must be expected, not only answered.
    if e.tally.soft is not None and e.tally.soft[c] < max(20.0, 0.3 * m):
        return None
    if e.tally.soft is None and m < 150:
        return None
    # A doubly corrected model answers rare classes everywhere: with the tilt taken out they must still be expected.
    # No weight can do this for a class without training rows.
    trained = not e.train_given or e.prior_counts[c] > 0
    if trained and e.fit is not None and _expected_without_tilt(e, c) < 0.15 * m / e.rows * len(e.y):
        return None
    rate = m / e.rows
    if e.train_given and e.prior_counts[c] / e.prior_counts.sum() > 0.2 * rate:
        return None  # trained on, and merely absent here: another class frequency, not padding
    return c, f"no row is labelled so, yet it receives {percent(rate)} of the predictions", 0.85


def _expected_without_tilt(e: Evidence, c: int) -> float:
    """Sample rows expected in class c once the tilt of the *other* classes is taken out.

    No row is labelled c, so a fit that includes it would bend the tilt until c is hardly expected.
    """
    others = np.flatnonzero(np.arange(e.classes) != c)
    a = e.log_prior[others] - e.log_prior[others].mean()
    part = Part(slice(None), e.offset[others], a[:, None])
    fit = maximise(Likelihood(centred_rows(e.z[:, others]), np.searchsorted(others, e.y), (part,), e.threads))
    constant = e.offset + float(fit.tau[0]) * (e.log_prior - e.log_prior[others].mean())
    around = (Part(slice(None), constant, np.zeros((e.classes, 0))),)
    return float(soft_counts(e.z, e.y, fit.beta, around, np.zeros(e.classes), threads=e.threads)[1][c])


def _weighted_padding(e: Evidence) -> tuple[int, str, float] | None:
    """One class whose weight is far smaller than its count warrants: padding was counted when weights were made."""
    v = e.weight_vector
    if v is None or len(v.unusable) or len(v.defaults) or v.outlier is None:
        return None
    c = v.outlier
    w = v.weight[c] / np.median(v.weight[v.judged])
    return (
        c,
        f"its loss weight is far smaller than its training count warrants ({w:.2g} of the median weight), as if it had been counted with the padding",
        0.85,
    )
