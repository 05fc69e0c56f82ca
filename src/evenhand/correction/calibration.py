"""Calibration models in order of complexity, fitted with and without each fold, and the choice among them.

identity < temperature (beta) < tilt (beta, tau along the log prior) < biases (one per class around the tilt, with a
Gaussian prior, so that classes with few rows stay on the tilt) < vector scaling (a scale per class as well, shrunk
towards the common one). A more complex model is taken only when it predicts held-out labels better by more than a
standard error.

Sources: Guo et al. (2017), https://arxiv.org/abs/1706.04599; Alexandari et al. (2020), https://arxiv.org/abs/1901.06852
(there without a prior on the biases); Berta et al. (2025), https://arxiv.org/abs/2511.03685, for structured vector
scaling; Breiman et al., "Classification and regression trees" (1984), section 3.4.3, for the rule of one standard
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.correction.crossfit import (
    FoldModel,
    at,
    leave_out_fits,
    row_log_likelihood,
    self_counted_fit,
    without,
)
from evenhand.correction.scaling import ClassFit, ClassRows, fit_classes, leave_out_classes, refit_classes
from evenhand.declared import Floats, InputError, Ints
from evenhand.priors import prior_shift, smoothed_log_prior
from evenhand.scanning import bad_rows
from evenhand.tilt import BLOCK_CELLS, FLOOR, Part, Singles, centred_rows

MODELS = ("identity", "temperature", "tilt", "biases", "vector-scaling")
ENOUGH_ROWS = 20
ROWS_PER_CLASS = {"biases": 1, "vector-scaling": 10}  # fewer cannot tell a class's number, and cost the most to fit


@dataclass(frozen=True)
class Rows:
    """The rows of a fit: centred, in random order, those whose own class is masked last.

    Attributes: z, y: all rows. usable: rows that a likelihood can judge. masked: whether any score is -inf. top: (n,)
        what was subtracted from each row. order: (n,) which row of the input each is. group: (n,) numbers of rows that
        belong together, each group's rows in a run, or None.
    """

    z: Singles
    y: Ints
    usable: int
    masked: bool
    top: Singles
    order: Ints
    group: Ints | None = None


@dataclass(frozen=True)
class Prior:
    """Known offset, direction and log evaluation prior, from the labels outside of each fold.

    Attributes: folds: one Part per fold, its own rows. rest: for each fold the parts of the rows outside it. fine: the
        parts of a fit on all rows. final: for new rows. log_prior: (K,) log frequencies of the rows. stand_in: (K,)
        label counts that stand in for training counts, per fold and last for new rows; None where these are given.
    """

    folds: tuple[Part, ...]
    rest: tuple[tuple[Part, ...], ...]
    fine: tuple[Part, ...]
    final: Part
    log_prior: Floats
    stand_in: tuple[Ints, ...] | None = None


@dataclass(frozen=True)
class Fitted:
    """One calibration model: on all rows, and for each fold on the rows outside it.

    Attributes: theta: (beta, tau). classes: (1 or 2, K) biases, and where they are fitted deviations of the scales.
    """

    name: str
    theta: Floats
    classes: Floats
    fold_theta: tuple[Floats, ...]
    fold_classes: tuple[Floats, ...]
    log_likelihood: Floats

    @property
    def scale(self) -> float | Floats:
        """beta, or (K,) beta (1 + a) with a scale per class."""
        return scale_of(self.theta, self.classes)


def scale_of(theta: Floats, classes: Floats) -> float | Floats:
    """beta, or (K,) beta (1 + a) with a scale per class."""
    return float(theta[0]) if len(classes) == 1 else np.asarray(theta[0] * (1 + classes[1]))


def model_names(models: Sequence[str]) -> list[str]:
    """The models asked for, in order of complexity.

    Raises:
        InputError: none, or an unknown one.
    """
    unknown = [m for m in models if m not in MODELS]
    if unknown or not models or isinstance(models, str):
        raise InputError(f"expected models among {', '.join(MODELS)}, got {models!r:.80}; name at least one of them")
    return [m for m in MODELS if m in models]


def prepare(scores: NDArray[np.floating[Any]], target: Ints, *, group: Ints | None = None, seed: int = 0) -> Rows:
    """One centred float32 copy of the logits in random order, groups in a run, rows whose own class is masked last.

    Raises:
        InputError: rows with NaN, +inf or nothing but -inf; fewer than 20 rows that a likelihood can judge.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(target)).astype(np.int64)
    if group is not None:
        place = rng.permutation(int(group.max()) + 1)
        order = order[np.argsort(place[group[order]], kind="stable")]
    possible = np.asarray(np.isfinite(scores[order, target[order]]), dtype=bool)
    usable = int(possible.sum())
    order = np.concatenate([order[possible], order[~possible]])
    z: Singles = np.empty(scores.shape, np.float32)
    top: Singles = np.empty(len(order), np.float32)
    step = max(4, BLOCK_CELLS // scores.shape[1])
    wrong = np.zeros(len(order), bool)
    for start in range(0, len(z), step):
        here = slice(start, start + step)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
            block = scores[order[here]].astype(np.float32)
        top[here] = block.max(axis=1)
        wrong[here] = ~np.isfinite(top[here])
        block[wrong[here]] = 0
        z[here] = centred_rows(block)
    if wrong.any():
        raise bad_rows("logits", np.sort(order[wrong]))
    if usable < ENOUGH_ROWS:
        raise InputError(
            f"expected at least {ENOUGH_ROWS} rows whose true class has a finite score, got {usable}; "
            "fit the correction on more held-out rows"
        )
    together = None if group is None else group[order]
    return Rows(z, target[order], usable, bool(z.min() <= FLOOR), top, order, together)


def log_priors(y: Ints, classes: int, slices: list[slice], train: Floats | None, known: Floats | None) -> Prior:
    """Parts for every fold from the labels outside it; without training counts those labels also stand in for them.

    Then all rows outside a fold share one direction. Directions that left out a fold at a time would betray the labels:
    a class that is rare in the others is frequent in the fold, so that even scores that are noise seem to predict it.
    """
    total = np.bincount(y, minlength=classes)
    # Whether there is a shift is asked once: the answer costs seconds at 100,000 classes and turns on no single label.
    shifted = train is not None and known is None and prior_shift(total, train).present

    def part(rows: slice, counts: Ints) -> tuple[Part, Floats]:
        log_prior = smoothed_log_prior(counts if train is None else train)
        offset = np.zeros(classes) if known is None else known
        if train is not None and shifted:
            offset = prior_shift(counts, train).offset
        return Part(rows, offset, (log_prior - log_prior.mean())[:, None]), log_prior + offset

    outside = [np.asarray(total - np.bincount(y[rows], minlength=classes)) for rows in slices]
    own = tuple(part(rows, counts)[0] for rows, counts in zip(slices, outside, strict=True))
    final, log_prior = part(slice(None), total)
    alone = [(Part(slice(None), p.offset, p.directions),) for p in own]
    rest = [without(alone[i] if train is None else own, fold, len(y)) for i, fold in enumerate(slices)]
    return Prior(
        folds=own,
        rest=tuple(rest),
        fine=(final,) if train is None else own,
        final=final,
        log_prior=log_prior,
        stand_in=(*outside, total) if train is None else None,
    )


def select_model(
    rows: Rows, prior: Prior, slices: list[slice], names: list[str], threads: int
) -> tuple[Fitted, dict[str, float]]:
    """The simplest model that no more complex one beats by more than a standard error, by held-out likelihood."""
    best: Fitted | None = None
    compared = {}
    for name in names:
        if len(names) > 1 and rows.usable < ROWS_PER_CLASS.get(name, 0) * rows.z.shape[1]:
            continue
        fitted = _fit_model(name, rows, prior, slices, threads)
        compared[name] = float(fitted.log_likelihood.mean())
        if best is None:
            best = fitted
            continue
        gain = fitted.log_likelihood - best.log_likelihood
        if gain.mean() > gain.std(ddof=1) / len(gain) ** 0.5:
            best = fitted
    if best is None:
        raise InputError("expected at least one model, got none; name one")
    return best, compared


def _fit_model(name: str, rows: Rows, prior: Prior, slices: list[slice], threads: int) -> Fitted:
    n, k = rows.usable, rows.z.shape[1]
    z, y = rows.z[:n], rows.y[:n]
    d = 1 if name in ("tilt", *ROWS_PER_CLASS) else 0
    classes = np.zeros((1, k))
    fold_classes = (classes,) * len(slices)
    if name == "identity":
        theta = _padded(np.ones(1))
        fold_theta = (theta,) * len(slices)
    elif d and prior.stand_in is not None:
        full, *of_folds = _fit_stand_in(name, rows, prior, threads)
        theta, classes = full.theta, full.classes
        fold_theta, fold_classes = tuple(f.theta for f in of_folds), tuple(f.classes for f in of_folds)
    else:
        fits = leave_out_fits(z, y, _narrowed(prior.fine, d), slices, threads=threads)
        theta, fold_theta = _padded(fits.full), tuple(_padded(t) for t in fits.folds)
        if name in ROWS_PER_CLASS:
            top = rows.top[:n] if name == "vector-scaling" else None
            around = ClassRows(z, y, prior.fine, theta, top, threads)
            x = fit_classes(around)
            found = [around.fit(x), *(around.fit(own) for own in leave_out_classes(around, x, slices))]
            (theta, classes), *rest = ((f.theta, f.classes) for f in found)
            fold_theta, fold_classes = tuple(t for t, _ in rest), tuple(c for _, c in rest)
    held_out = [
        row_log_likelihood(z, y, scale_of(t, c), at((part,), t, c[0]), threads, rows.top[:n])
        for part, t, c in zip(prior.folds, fold_theta, fold_classes, strict=True)
    ]
    return Fitted(name, theta, classes, fold_theta, fold_classes, np.concatenate(held_out))


def _fit_stand_in(name: str, rows: Rows, prior: Prior, threads: int) -> list[ClassFit]:
    """On all rows, and on those outside each fold, with a direction made of the very labels that it is fitted to."""
    z, y, counts = rows.z[: rows.usable], rows.y[: rows.usable], prior.stand_in or ()
    found: list[ClassFit] = []
    theta: Floats | None = None
    x: Floats | None = None
    for parts, n in zip(((prior.final,), *prior.rest), (counts[-1], *counts[:-1]), strict=True):
        own = self_counted_fit(z, y, parts, n, start=theta, threads=threads)
        theta = own if theta is None else theta
        if name not in ROWS_PER_CLASS:
            found.append(ClassFit(own, np.zeros((1, z.shape[1]))))
            continue
        top = rows.top[: rows.usable] if name == "vector-scaling" else None
        around = ClassRows(z, y, parts, own, top, threads, hold_tilt=True)
        fit = fit_classes(around) if x is None else refit_classes(around, x)
        x = fit if x is None else x
        found.append(around.fit(fit))
    return found


def _narrowed(parts: Sequence[Part], directions: int) -> tuple[Part, ...]:
    return tuple(Part(p.rows, p.offset, p.directions[:, :directions]) for p in parts)


def _padded(theta: Floats) -> Floats:
    """(beta, tau) with tau = 0 where the model has none."""
    return np.concatenate([theta, np.zeros(2 - len(theta))])


def fold_models(fitted: Fitted, prior: Prior, slices: list[slice]) -> list[FoldModel]:
    """The chosen model of every fold, with the rows it judges and the rows it was fitted on."""
    return [
        FoldModel(
            fold,
            scale_of(theta, classes),
            at((own,), theta, classes[0]),
            at(rest, theta, classes[0]),
        )
        for fold, own, rest, theta, classes in zip(
            slices, prior.folds, prior.rest, fitted.fold_theta, fitted.fold_classes, strict=True
        )
    ]
