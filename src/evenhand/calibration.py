"""Calibration models in order of complexity, fitted with and without each fold, and the choice among them.

identity < temperature (beta) < tilt (beta, tau along the log prior) < biases (one per class around the tilt, with a
Gaussian prior, so that classes with few rows stay on the tilt). A more complex model is taken only when it predicts
held-out labels better by more than a standard error.

Sources: Guo et al. (2017), https://arxiv.org/abs/1706.04599; Alexandari et al. (2020), https://arxiv.org/abs/1901.06852
(there without a prior on the biases); Breiman et al., "Classification and regression trees" (1984), section 3.4.3, for
the rule of one standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.biases import fit_biases
from evenhand.crossfit import FoldModel, at, fold_edges, leave_out_fits, row_log_likelihood, without
from evenhand.declared import Floats, InputError, Ints
from evenhand.priors import prior_shift, smoothed_log_prior
from evenhand.scanning import bad_rows
from evenhand.tilt import BLOCK_CELLS, FLOOR, Part, Singles, centred_rows

MODELS = ("identity", "temperature", "tilt", "biases")
ENOUGH_ROWS = 20
FINE_PARTS = 5


@dataclass(frozen=True)
class Rows:
    """The rows of a fit: centred, in random order, those whose own class is masked last.

    Attributes: z, y: all rows. usable: rows that a likelihood can judge. masked: whether any score is -inf.
    """

    z: Singles
    y: Ints
    usable: int
    masked: bool


@dataclass(frozen=True)
class Prior:
    """Known offset, direction and log evaluation prior, from the labels outside of each fold.

    Attributes: folds: one Part per fold. fine: the parts used in fits. final: for new rows. log_priors: per fold, and
    last for new rows.
    """

    folds: tuple[Part, ...]
    fine: tuple[Part, ...]
    final: Part
    log_priors: tuple[Floats, ...]


@dataclass(frozen=True)
class Fitted:
    """One calibration model: on all rows, and for each fold on the rows outside it."""

    name: str
    theta: Floats
    bias: Floats
    fold_theta: tuple[Floats, ...]
    fold_bias: tuple[Floats, ...]
    log_likelihood: Floats


def model_names(models: Sequence[str]) -> list[str]:
    """The models asked for, in order of complexity.

    Raises:
        InputError: none, or an unknown one.
    """
    unknown = [m for m in models if m not in MODELS]
    if unknown or not models or isinstance(models, str):
        raise InputError(f"expected models among {', '.join(MODELS)}, got {models!r:.80}; name at least one of them")
    return [m for m in MODELS if m in models]


def prepare(scores: NDArray[np.floating[Any]], target: Ints, *, seed: int = 0) -> Rows:
    """One centred float32 copy of the logits in random order, rows whose own class is masked last.

    Raises:
        InputError: rows with NaN, +inf or nothing but -inf; fewer than 20 rows that a likelihood can judge.
    """
    order = np.random.default_rng(seed).permutation(len(target)).astype(np.int64)
    possible = np.asarray(np.isfinite(scores[order, target[order]]), dtype=bool)
    usable = int(possible.sum())
    order = np.concatenate([order[possible], order[~possible]])
    z: Singles = np.empty(scores.shape, np.float32)
    step = max(4, BLOCK_CELLS // scores.shape[1])
    wrong = np.zeros(len(order), bool)
    for start in range(0, len(z), step):
        here = slice(start, start + step)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
            block = scores[order[here]].astype(np.float32)
        wrong[here] = ~np.isfinite(block.max(axis=1))
        block[wrong[here]] = 0
        z[here] = centred_rows(block)
    if wrong.any():
        raise bad_rows("logits", np.sort(order[wrong]))
    if usable < ENOUGH_ROWS:
        raise InputError(
            f"expected at least {ENOUGH_ROWS} rows whose true class has a finite score, got {usable}; "
            "fit the correction on more held-out rows"
        )
    return Rows(z, target[order], usable, bool(z.min() <= FLOOR))


def log_priors(y: Ints, classes: int, slices: list[slice], train: Floats | None, known: Floats | None) -> Prior:
    """Parts for every fold from the labels outside it; without training counts those labels also stand in for them."""
    total = np.bincount(y, minlength=classes)
    # Whether there is a shift is asked once: the answer costs seconds at 100,000 classes and turns on no single label.
    shifted = train is not None and known is None and prior_shift(total, train).present

    def part(rows: slice, counts: Ints) -> tuple[Part, Floats]:
        log_prior = smoothed_log_prior(counts if train is None else train)
        offset = np.zeros(classes) if known is None else known
        if train is not None and shifted:
            offset = prior_shift(counts, train).offset
        return Part(rows, offset, (log_prior - log_prior.mean())[:, None]), log_prior + offset

    def parts(pieces: list[slice]) -> list[tuple[Part, Floats]]:
        return [part(rows, total - np.bincount(y[rows], minlength=classes)) for rows in pieces]

    own = parts(slices)
    final, log_prior = part(slice(None), total)
    finer = len(slices) < FINE_PARTS and train is None
    fine = own if not finer else parts(fold_edges(len(y), len(slices) * -(-FINE_PARTS // len(slices))))
    return Prior(tuple(p for p, _ in own), tuple(p for p, _ in fine), final, (*(prior for _, prior in own), log_prior))


def select_model(
    rows: Rows, prior: Prior, slices: list[slice], names: list[str], threads: int
) -> tuple[Fitted, dict[str, float]]:
    """The simplest model that no more complex one beats by more than a standard error, by held-out likelihood."""
    best: Fitted | None = None
    compared = {}
    for name in names:
        if name == "biases" and len(names) > 1 and rows.usable < rows.z.shape[1]:
            continue  # less than one row per class cannot tell a class's bias, and the fit would cost the most
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
    d = 1 if name in ("tilt", "biases") else 0
    none = np.zeros(k)
    if name == "identity":
        theta = np.ones(1)
        fold_theta = (theta,) * len(slices)
    else:
        fits = leave_out_fits(z, y, _narrowed(prior.fine, d), slices, threads=threads)
        theta, fold_theta = fits.full, fits.folds
    theta, fold_theta = _padded(theta), tuple(_padded(t) for t in fold_theta)
    bias, fold_bias = none, (none,) * len(slices)
    if name == "biases":
        bias = fit_biases(z, y, float(theta[0]), at(prior.fine, theta), threads=threads).bias
        fold_bias = tuple(
            _biases_without(z, y, t, prior.fine, fold, threads) for t, fold in zip(fold_theta, slices, strict=True)
        )
    held_out = [
        row_log_likelihood(z, y, float(t[0]), at((part,), t, b), threads)
        for part, t, b in zip(prior.folds, fold_theta, fold_bias, strict=True)
    ]
    return Fitted(name, theta, bias, fold_theta, fold_bias, np.concatenate(held_out))


def _narrowed(parts: Sequence[Part], directions: int) -> tuple[Part, ...]:
    return tuple(Part(p.rows, p.offset, p.directions[:, :directions]) for p in parts)


def _padded(theta: Floats) -> Floats:
    """(beta, tau) with tau = 0 where the model has none."""
    return np.concatenate([theta, np.zeros(2 - len(theta))])


def _biases_without(z: Singles, y: Ints, theta: Floats, parts: Sequence[Part], fold: slice, threads: int) -> Floats:
    """Class biases from the rows outside a fold, moved together because the fit takes consecutive rows."""
    n = len(y)
    moved, start = [], 0
    for part in at(without(parts, fold, n), theta):
        length = part.rows.stop - part.rows.start
        moved.append(Part(slice(start, start + length), part.offset, part.directions))
        start += length
    rest_z = np.concatenate([z[: fold.start], z[fold.stop :]])
    rest_y = np.concatenate([y[: fold.start], y[fold.stop :]])
    return fit_biases(rest_z, rest_y, float(theta[0]), tuple(moved), threads=threads).bias


def fold_models(fitted: Fitted, prior: Prior, slices: list[slice], rows: int) -> list[FoldModel]:
    """The chosen model of every fold, with the rows it judges and the rows it was fitted on."""
    return [
        FoldModel(
            fold,
            float(theta[0]),
            at((own,), theta, bias),
            at(without(prior.fine, fold, rows), theta, bias),
            log_prior,
        )
        for fold, own, theta, bias, log_prior in zip(
            slices, prior.folds, fitted.fold_theta, fitted.fold_bias, prior.log_priors[:-1], strict=True
        )
    ]
