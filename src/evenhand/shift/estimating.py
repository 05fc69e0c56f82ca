"""Has the class prior of new, unlabelled rows moved, where to, and how sure is that?

A model's posteriors hold the class frequencies of its own data. If only these change (label shift: ``p(x|y)`` stays),
the posteriors of new rows tell the new prior q by maximum likelihood, without a label. Everything here is in
docs/shift.md: the formulas, when they fail, and measured figures.

Sources: Saerens et al. (2002), https://doi.org/10.1162/089976602753284446; Alexandari et al. (2020),
https://arxiv.org/abs/1901.06852; Sipka et al., "The hitchhiker's guide to prior-shift adaptation" (2022),
https://arxiv.org/abs/2106.11695, for the Dirichlet prior and the mean posterior as training prior.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evenhand.correction import Correction
from evenhand.counts import counts_array
from evenhand.declared import Floats, InputError, Ints
from evenhand.files.checks import check_scores
from evenhand.files.opening import as_array
from evenhand.shift.confusion import cross_check, predicted_labels
from evenhand.shift.intervals import Uncertainty, class_intervals, class_q_values, uncertainty, verdicts
from evenhand.shift.likelihood import (
    PASSES,
    Dirichlet,
    Maximum,
    expectation,
    maximise_likelihood,
    moments,
    posteriors,
    ratios,
    sum_blocks,
)
from evenhand.shift.reference import Reference
from evenhand.shift.result import PriorEstimate
from evenhand.shift.score import (
    Looseness,
    ShiftTest,
    looseness,
    normal_quantile,
    pooled_prior,
    score_no_shift,
)
from evenhand.shift.strength import held_out_ratio
from evenhand.tilt import Singles

TOO_WIDE = 0.1  # if a shift of this total variation could go unnoticed, "not moved" would say too much


def estimate_prior(
    logits: Any,
    train_prior: Any = None,
    *,
    calibration: Reference | Correction | None = None,
    alpha: float = 0.05,
    strength: float | None = None,
    passes: int = PASSES,
    threads: int = 1,
    seed: int = 0,
) -> PriorEstimate:
    """Estimate the class prior of unlabelled rows, test whether it has moved, and say which classes did.

    q maximises ``sum_i log sum_c (q_c / pi_c) p_i(c) + m sum_c r_c log q_c`` with p the calibrated posteriors under
    pi: EM with a Dirichlet prior worth m rows. Without a sure shift q stays at pi. With one, r is the mean posterior,
    and m is what lets halves of the rows foretell each other best: between the mean posterior and plain EM. Where only
    a few classes moved, they are left out of the prior and the others are held at pi.

    Args:
        logits: (n, K) scores of the new rows, NumPy or torch, float16 to float64. For probabilities pass their logs.
        train_prior: (K,) frequencies or counts that the posteriors ``softmax(logits)`` stand for. A zero is taken for
            half of the smallest frequency above zero.
        calibration: from `labelled_reference`, which also gives pi and the cross-check; or a `Correction` whose
            corrected scores are posteriors under `train_prior`. None: ``softmax(logits)`` is taken at its word.
        alpha: level of the test, the intervals (1 - alpha) and the false discovery rate.
        strength: m, above 0, around pi; None to find it. passes: of EM over the rows, at most.
        threads: over row blocks. seed: of the draws behind intervals and tests, and of the halves.

    Returns:
        PriorEstimate, also where there is too little data to say.

    Raises:
        InputError: arrays that do not fit together, NaN or +inf scores, neither or both sources of pi.

    Limits:
        Holds where ``p(x|y)`` is what it was and the posteriors are calibrated; see the cross-check. Needs one float32
        copy of the logits. With far fewer rows than classes only large or common shifts can be seen.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pi = np.array([0.7, 0.2, 0.1]); q = np.array([0.3, 0.2, 0.5])
        >>> y = rng.choice(3, 3000, p=q)
        >>> z = np.log(pi) + 2 * rng.normal(size=(3000, 3)) - 2; z[np.arange(3000), y] += 4   # posteriors under pi
        >>> found = estimate_prior(z, pi)
        >>> found.answer, found.prior.round(2).tolist(), found.average.round(2).tolist()
        ('moved', [0.3, 0.21, 0.49], [0.43, 0.23, 0.34])
        >>> found.verdict
        ('less often', 'as before', 'more often')
    """
    scores = as_array("logits", logits)
    check_scores("logits", scores.shape, scores.dtype)
    _check_numbers(len(scores), alpha, strength, passes)
    pi, scale, offset, reference = _source(scores.shape[1], train_prior, calibration)
    rng = np.random.default_rng(seed)
    # In random order: halves of rows that come sorted by class would foretell each other too well.
    order = rng.permutation(len(scores)).astype(np.int64)
    p = posteriors(scores, scale, offset, threads, order)
    n, known = len(p), None if reference is None else reference.rows
    mean, square = moments(p, threads)
    test = score_no_shift(
        p,
        mean,
        square,
        pi,
        reference_rows=known,
        reference_square=None if reference is None else reference.square,
        rng=rng,
    )
    found, wide, firm = _fit(p, pi, mean, test, known, strength, passes, threads)
    open_ = uncertainty(p, pi, found, wide, n_eff=test.n_eff, rng=rng)
    check = None
    if reference is not None:
        counts = np.bincount(predicted_labels(p, threads), minlength=len(pi)).astype(np.float64)
        check = cross_check(reference.confusion, counts, pi, found.q, strength=wide.strength, rng=rng)
    interval, q_value = _class_answers(found.q, open_, pi, alpha)
    distance = 0.5 * float(np.abs(found.q - pi).sum())
    around, possible = _distances(distance, open_, pi, alpha)
    answer = "moved" if test.p_value < alpha else "too-little-data" if possible > TOO_WIDE else "same"
    words = verdicts(open_.centre, interval, pi, q_value if answer == "moved" else np.ones(len(pi)), alpha)
    return PriorEstimate(
        answer=answer,
        prior=found.q,
        interval=interval,
        train_prior=pi,
        average=mean,
        p_value=test.p_value,
        statistic=test.statistic,
        df=test.df,
        likelihood_ratio=2 * found.log_likelihood,
        distance=distance,
        distance_interval=around,
        possible=possible,
        q_value=q_value,
        verdict=tuple(words),
        cross_check=check,
        expected_accuracy=_expected_accuracy(p, pi, found.q, predicted_labels(scores, threads)[order], threads),
        strength=firm,
        passes=found.passes,
        converged=found.converged,
        rows=n,
        reference_rows=known,
        alpha=alpha,
        scale=scale,
        offset=offset,
        names_hash=getattr(calibration, "names_hash", None),
    )


def _check_numbers(rows: int, alpha: float, strength: float | None, passes: int) -> None:
    if rows == 0:
        raise InputError("expected at least one row of logits, got none; pass the scores of the new rows")
    if not 0 < alpha < 1:
        raise InputError(f"expected alpha between 0 and 1, got {alpha!r:.40}; 0.05 is the usual choice")
    if strength is not None and not strength > 0:
        raise InputError(f"expected strength above 0 rows, got {strength!r:.40}; leave it out to find it from the data")
    if passes < 1:
        raise InputError(f"expected at least 1 pass over the rows, got {passes!r:.40}; 20 are enough")


def _source(
    classes: int, train_prior: Any, calibration: Reference | Correction | None
) -> tuple[Floats, float | Floats, Floats, Reference | None]:
    """pi, scale and offset of the posteriors, and the labelled rows behind them if there are any."""
    labelled = calibration if isinstance(calibration, Reference) else None
    if (labelled is None) == (train_prior is None):
        came = "neither" if train_prior is None else "both"
        raise InputError(
            f"expected the old class frequencies from train_prior or from labelled rows (calibration), got {came}; "
            "pass one of the two"
        )
    if calibration is not None and calibration.classes != classes:
        raise InputError(
            f"the calibration is for {calibration.classes} classes but the new rows have {classes}; use one model"
        )
    if labelled is not None:
        return labelled.prior, labelled.scale, labelled.offset, labelled
    pi = counts_array(train_prior)
    if len(pi) != classes:
        raise InputError(
            f"train_prior has {len(pi)} entries but the logits have {classes} classes; give one number per class"
        )
    pi = np.where(pi > 0, pi, pi[pi > 0].min() / 2)
    if calibration is None or isinstance(calibration, Reference):
        return pi / pi.sum(), 1.0, np.zeros(classes), None
    goal = 0.0 if calibration.goal_offset is None else calibration.goal_offset  # posteriors, not decisions, are wanted
    return pi / pi.sum(), calibration.scale, calibration.offset - goal, None


def _fit(
    p: Singles,
    pi: Floats,
    mean: Floats,
    test: ShiftTest,
    known: int | None,
    strength: float | None,
    passes: int,
    threads: int,
) -> tuple[Maximum, Dirichlet, float]:
    """The estimate, the wide prior of its interval, and the strength used."""
    n = len(p)
    worth = n / test.n_eff
    loose = looseness(test, pi, mean)
    if strength is not None:
        loose = Looseness(0.0, np.zeros(len(pi), bool), strength)
    # Without shift old and new rows say the same: the centre is the mean of both. pi alone would be worse than
    # averaging the new rows where these are many more than the labelled ones.
    pooled = pooled_prior(pi, mean, n, known)
    centre, used = pooled, np.inf if strength is None else strength
    if loose.moved > 0:

        def between(mean: Floats) -> Floats:
            return np.asarray((1 - loose.moved) * pooled + loose.moved * (mean / mean.sum()))

        centre = between(mean)
        used = held_out_ratio(p, pi, between, rows_worth=test.n_eff, threads=threads) * n / worth
    wide = Dirichlet(pi, min(loose.wide, used), loose.free)
    if np.isinf(used) and not loose.free.any():
        value, soft = expectation(p, pi, centre, threads)
        return Maximum(centre, soft, value, 1, True), wide, used
    belief = Dirichlet(centre, used * worth, loose.free)
    found = maximise_likelihood(p, pi, belief, start=belief.maximise(mean * n), passes=passes, threads=threads)
    return found, wide, used


def _class_answers(q: Floats, open_: Uncertainty, pi: Floats, alpha: float) -> tuple[Floats, Floats]:
    interval = class_intervals(open_.centre, open_.error, alpha)
    interval = np.column_stack([np.minimum(interval[:, 0], q), np.maximum(interval[:, 1], q)])
    return interval, class_q_values(open_.centre, open_.error, pi)


def _distances(distance: float, open_: Uncertainty, pi: Floats, alpha: float) -> tuple[tuple[float, float], float]:
    """Interval of the distance between q and pi, and the largest that the rows leave open.

    The lower end goes along the estimated change alone: drawn anew, every class moves a little and adds to a distance.
    The upper end counts just that, for what the rows do not resolve may have moved.
    """
    change = open_.centre - pi
    half = normal_quantile(alpha) * float((0.5 * (np.sign(change) @ open_.draws)).std())
    drawn = 0.5 * np.abs(change[:, None] + open_.draws).sum(axis=0)
    low = min(distance, 0.5 * float(np.abs(change).sum()) - half)
    high = max(distance, float(np.quantile(drawn, 1 - alpha / 2)))
    return (max(0.0, low), min(1.0, high)), min(1.0, float(np.quantile(drawn, 0.95)))


def _expected_accuracy(p: Singles, pi: Floats, q: Floats, now: Ints, threads: int) -> tuple[float, float]:
    """Mean posterior under q of the answers that the model gives `now`, and of the best answers."""
    ratio = ratios(pi, q)

    def block(e: Singles, rows: slice) -> tuple[Floats, ...]:
        new = e * ratio
        new /= (new @ np.ones(new.shape[1], np.float32))[:, None]
        kept = new[np.arange(len(e)), now[rows]].sum(dtype=np.float64)
        return (np.array([kept, new.max(axis=1).sum(dtype=np.float64)]),)

    (total,) = sum_blocks(p, block, threads)
    return float(total[0] / len(p)), float(total[1] / len(p))
