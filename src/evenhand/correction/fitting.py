"""Correction after training: fitted on held-out labels for a stated goal, and measured on rows the fit has not seen.

The posteriors are made right first (temperature, tilt, and where the rows carry it, numbers per class), then the goal
decides. The model is chosen by its likelihood on rows it has not seen, and so is the expected effect measured; a
correction that may do harm says so itself.

Sources: Menon et al., "Long-tail learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314; Alexandari et
al., "Maximum likelihood with bias-corrected calibration" (2020), https://arxiv.org/abs/1901.06852.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.correction.calibration import (
    MODELS,
    Fitted,
    Prior,
    Rows,
    fold_models,
    log_priors,
    model_names,
    prepare,
    select_model,
)
from evenhand.correction.crossfit import at, decide_raw, fold_edges, fold_numbers
from evenhand.correction.effects import Effect, judge, measure_effect, never_hit
from evenhand.correction.result import Correction
from evenhand.correction.serving import Limit, measure_abstention, measure_ranks, parse_limit, serve
from evenhand.correction.storage import hash_names
from evenhand.counts import to_numpy
from evenhand.declared import Floats, InputError, Ints
from evenhand.files import from_arrays
from evenhand.files.opening import as_array
from evenhand.goals import (
    METRICS,
    REPORTED,
    Aim,
    Calibrated,
    Goal,
    Metric,
    as_costs,
    find_goal,
    frequency_groups,
    stated_prior,
)
from evenhand.goals.rules import as_offset
from evenhand.tilt import Part


def fit_correction(
    logits: Any,
    target: Any,
    *,
    goal: str = "accuracy",
    train_counts: Any = None,
    costs: Any = None,
    prior: Any = None,
    at_least: Any = None,
    foldable: bool = False,
    models: Sequence[str] = MODELS,
    folds: int = 5,
    threads: int = 1,
    offset_known: Any = None,
    wanted_counts: Any = None,
    group: Any = None,
    seed: int = 0,
    class_names: Any = None,
) -> Correction:
    """Fit what serves a goal, and measure what it brings on rows the fit has not seen.

    With ``p = softmax(beta (1 + a) z + o + tau log pi + b)`` fitted to the labels (as much of it as held-out likelihood
    bears out), the class decided is ``argmax log p + g`` with g = 0 for ``accuracy``, ``-log pi_eval`` for
    ``balanced-accuracy``, ``log(q / pi_eval)`` for ``prior``, log costs for ``cost``, and for ``counts`` the offsets at
    which every class is predicted as often as p expects; formulas of all goals are in docs/fix.md. Where held-out rows
    do not bear the goal's decision out, it is mixed with the most probable class.

    Args:
        logits: (N, K) float16, float32 or float64 scores z of **held-out** rows; of training rows the effect would be
            far too good. NumPy or torch. For probabilities pass their logarithms. -inf marks a class as impossible.
        target: (N,) true classes.
        goal: a name of `evenhand.goals.GOALS`.
        train_counts: (K,) training rows per class; without them the labels stand in, for a fold those outside it.
        costs: for the goal ``cost``: (K,) per missed class, (K, K) dense or sparse matrix [true, decided], or
            (true, decided, cost) vectors; see `evenhand.goals.as_costs`.
        prior: for the goal ``prior``: (K,) counts or shares of the classes where the model will be used.
        at_least: ``{"accuracy": 0.8}``: the best value of the goal among decisions that keep this metric on held-out
            rows; also balanced-accuracy, macro-f1, g-mean and worst-group.
        foldable: whether a goal that is no offset (macro-f1, a matrix of costs) should be served by the offsets that
            decide every class as often, so that a layer can hold it.
        models: calibration models to choose from, see :data:`MODELS`. Class biases are tried when N >= K, vector
            scaling when N >= 10 K.
        folds: at least 2. threads: over blocks of rows.
        offset_known: (K,) log(evaluation prior / training prior), where known; None to estimate it from the counts.
        wanted_counts: (K,) counts or shares that the goal ``counts`` should meet; None for the expected counts. Only
            with that goal.
        group: (N,) what rows have in common, such as a patient or a text: rows of one group are never on both sides of
            a fold, and are drawn together for the intervals. Numbers or names; None for rows that stand alone.
        seed: of the order of the rows and of the bootstrap. class_names: (K,), kept as a hash.

    Returns:
        Correction, also where it is not recommended.

    Raises:
        InputError: arrays that do not fit together, NaN or +inf, fewer than 20 usable rows, rows of one class only, an
            unknown goal or model, a goal without what it needs, or a limit `at_least` that no decision keeps.

    Limits:
        Holds one float32 copy of the logits. The effect on new data is that of rows like these; with another class
        prior there it is another.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> n = np.array([6000, 2500, 1000, 500]); y = rng.permutation(np.repeat(np.arange(4), n // 5))
        >>> z = rng.normal(size=(2000, 4)); z[np.arange(2000), y] += 1.0   # trained with balanced weights
        >>> fix = fit_correction(z, y, train_counts=n)
        >>> fix.recommended, fix.model, 0.7 < fix.evidence["tau"] < 1.3
        (True, 'tilt', True)
        >>> fix.evidence["before"]["accuracy"] < 0.6 < fix.evidence["after"]["accuracy"]
        True
    """
    chosen, names = find_goal(goal), model_names(models)
    limit = parse_limit(at_least, chosen)
    opened = from_arrays(logits=logits, target=target, train_counts=train_counts, class_names=class_names)
    k = opened.classes
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError(f"expected at least 2 folds, got {folds!r:.40}; 5 is a good choice")
    known = _per_class("offset_known", offset_known, k)
    aim = _stated(chosen, k, costs, prior, wanted_counts)
    y = as_array("target", target).astype(np.int64)
    rows = prepare(as_array("logits", logits), y, group=_groups(group, len(y)), seed=seed)
    if len(np.unique(rows.y)) < 2:
        raise InputError(
            "expected rows of at least two classes, got rows of one; a correction fitted on them would always answer "
            "that class, so give rows drawn like those of use"
        )
    slices = fold_edges(rows.usable, min(folds, rows.usable), rows.group)
    if len(slices) < 2:
        raise InputError("expected rows of at least two groups, got one; leave group out if the rows stand alone")
    priors = log_priors(rows.y[: rows.usable], k, slices, opened.declared.train_counts, known)
    fitted, compared = select_model(rows, priors, slices, names, threads)
    frequency = priors.log_prior if train_counts is None else opened.declared.train_counts
    aim = replace(aim, log_prior=priors.log_prior, groups=frequency_groups(np.asarray(frequency, np.float64)))
    server = replace(chosen, rule=as_offset(chosen.rule)) if foldable else chosen
    draft, effect, measured = _serve(rows, priors, slices, fitted, server, aim, limit, threads, seed)
    recommended, why = (False, draft.why) if draft.why else judge(effect, chosen.metric)
    named = opened.declared.class_names
    fit = {"beta": float(fitted.theta[0]), "tau": float(fitted.theta[1]), "log_likelihood": compared}
    if aim.wanted is not None:
        fit["wanted"] = (aim.wanted / aim.wanted.sum()).tolist()
    return replace(
        draft,
        goal=goal,
        evidence=effect.as_dict() | fit | measured,
        folds=len(slices),
        recommended=recommended,
        why=why + _kept(limit, effect),
        names_hash=None if named is None else hash_names(named),
    )


def _serve(
    rows: Rows,
    priors: Prior,
    slices: list[slice],
    fitted: Fitted,
    goal: Goal,
    aim: Aim,
    limit: Limit | None,
    threads: int,
    seed: int,
) -> tuple[Correction, Effect, dict[str, Any]]:
    """The correction for new rows, and its effect on rows the fit has not seen."""
    models = fold_models(fitted, priors, slices)
    known = at((priors.final,), fitted.theta, fitted.classes[0])[0].offset

    def some(start: int, stop: int) -> Calibrated:
        part = Part(slice(start, stop), known, np.zeros((len(known), 0)))
        return Calibrated(rows.z, fitted.scale, (part,), rows.masked, threads, rows.top)

    served = serve(goal, aim, some(0, rows.usable), models, rows.y[: rows.usable], limit=limit)
    # Rows whose true class is masked took no part in the fit, so the final decision has not seen them either.
    unusable = some(rows.usable, len(rows.y)).choose([served.decision])[0]
    limits = [] if limit is None else [limit.goal.metric]
    metrics: dict[str, Metric] = {key: METRICS[key] for key in REPORTED}
    metrics |= {m.key: m.bound(aim) for m in (*limits, goal.metric)}
    after = np.concatenate([served.after, unusable])
    # A tilt and a scale match no class's count; numbers per class and decisions fitted to the other folds do.
    own = goal.fitted or bool(fitted.classes.any())
    numbers, matched = fold_numbers(slices, len(after)) if own else None, goal.metric.key == "count_distance"
    raw = decide_raw(rows.z, threads)
    effect = measure_effect(
        rows.y, raw, after, metrics=metrics, folds=numbers, matched=matched, together=rows.group, seed=seed
    )
    if served.final is not None:
        # The folds' decisions favour different classes and reach more of them together than the final one does.
        effect = replace(effect, missed=(effect.missed[0], max(effect.missed[1], never_hit(rows.y, served.final))))
    measured = {
        "share": served.share,
        "share_tuned": served.share_tuned,
        "top_k": measure_ranks(served.rank, len(known)),
        "abstention": measure_abstention(rows.y[: rows.usable], served.after, served.confidence),
    }
    if limit is not None:
        measured["at_least"] = {limit.goal.metric.key: limit.least}
    # A fold's labels are what the others lack: constant answers that differ between folds seem to know something.
    same = [len(np.unique(served.after[fold])) == 1 for fold in slices]
    why = ""
    if all(same) and len(np.unique(served.after)) > 1:
        why = "not recommended: the decision is the same for all rows, the scores tell the classes too little"
    decided = np.empty(len(after), np.int64)
    decided[rows.order] = after
    draft = Correction(
        fitted.scale,
        known,
        goal.name,
        fitted.name,
        {},
        rows=len(rows.y),
        folds=0,
        recommended=False,
        why=why,
        cross_fitted=decided,
    )
    return draft.with_decision(known, served.decision), effect, measured


def _stated(goal: Goal, classes: int, costs: Any, prior: Any, wanted_counts: Any) -> Aim:
    """What the user stated beside the goal, checked; the frequencies are filled in later."""
    wanted = _per_class("wanted_counts", wanted_counts, classes)
    if wanted is not None and goal.name != "counts":
        raise InputError(
            f"wanted counts belong to the goal counts but the goal is {goal.name}; choose that goal or leave them out"
        )
    if wanted is not None and (wanted.min() < 0 or wanted.max() <= 0):
        raise InputError(
            "wanted_counts must be zero or more and not all zero; pass how often each class should come out"
        )
    for name, given in (("costs", costs), ("prior", prior)):
        if (given is not None) != (goal.needs == name):
            what = f"needs {name}" if given is None else f"takes no {name}"
            raise InputError(f"the goal {goal.name} {what}; {'state them' if given is None else 'leave them out'}")
    return Aim(
        np.zeros(classes),
        wanted=wanted,
        costs=None if costs is None else as_costs(costs, classes),
        stated_prior=None if prior is None else stated_prior(to_numpy(prior), classes),
    )


def _kept(limit: Limit | None, effect: Effect) -> str:
    """What became of the metric that was to be kept."""
    if limit is None:
        return ""
    key = limit.goal.metric.key
    low, high = effect.after_interval[key]
    return (
        f"; {limit.goal.metric.words} is {effect.after[key]:.3f} ({low:.3f} to {high:.3f}), at least {limit.least:g} "
        "was asked for"
    )


def _groups(group: Any, rows: int) -> Ints | None:
    """(N,) groups numbered from 0, or None."""
    if group is None:
        return None
    values = to_numpy(group)
    if values.shape != (rows,):
        raise InputError(f"expected a group for each of the {rows:,} rows, got shape {values.shape}; give one per row")
    return np.asarray(np.unique(values, return_inverse=True)[1], np.int64)


def _per_class(name: str, values: Any, classes: int) -> Floats | None:
    """(K,) finite numbers, or None."""
    if values is None:
        return None
    array: NDArray[Any] = to_numpy(values)
    if array.shape != (classes,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError(
            f"{name} must hold one finite number for each of the {classes} classes but has shape {array.shape} and "
            f"type {array.dtype}; give a vector in class order"
        )
    return array.astype(np.float64)
