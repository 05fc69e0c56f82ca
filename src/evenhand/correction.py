"""Correction after training: one scale and one offset per class, fitted on held-out labels for a stated goal.

``scale * logits + offset`` first makes the posteriors right (temperature, tilt, and where the rows carry it, class
biases), then adds what the goal asks for. The model is chosen by its likelihood on rows it has not seen, and so is
the expected effect measured; a correction that may do harm says so itself.

Sources: Menon et al., "Long-tail learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314; Guo et al.,
"On calibration of modern neural networks" (2017), https://arxiv.org/abs/1706.04599; Alexandari et al., "Maximum
likelihood with bias-corrected calibration" (2020), https://arxiv.org/abs/1901.06852.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.biases import fit_biases
from evenhand.crossfit import (
    FoldModel,
    at,
    crossfit_effect,
    decide_folds,
    decide_raw,
    fold_edges,
    judge,
    leave_out_fits,
    measure_effect,
    row_log_likelihood,
    without,
)
from evenhand.declared import Floats, InputError, Ints
from evenhand.goals import Calibrated, find_goal
from evenhand.priors import prior_shift, smoothed_log_prior
from evenhand.tilt import BLOCK_CELLS, FLOOR, Part, Singles, centred_rows

__all__ = ["MODELS", "Correction", "crossfit_effect", "fit_correction"]

MODELS = ("identity", "temperature", "tilt", "biases")
ENOUGH_ROWS = 20
FINE_PARTS = 5


@dataclass(frozen=True, eq=False)
class Correction:
    """``scale * logits + offset``: what puts a model's decisions right for a goal.

    Attributes:
        scale: above 0. offset: (K,) float64, mean 0. goal: what it is for. model: the calibration model chosen.
        evidence: before, after, after_interval, difference_interval by metric, and what was fitted.
        rows: labelled rows used. folds: cross-fitting folds. recommended: whether harm is excluded. why: in words.
        class_names: the names it belongs to, or None.
    """

    scale: float
    offset: Floats
    goal: str
    model: str
    evidence: dict[str, Any]
    rows: int
    folds: int
    recommended: bool
    why: str
    class_names: tuple[str, ...] | None = None

    @property
    def classes(self) -> int:
        """K."""
        return len(self.offset)

    def apply(self, logits: Any) -> Any:
        """``scale * logits + offset``."""
        return self.scale * logits + self.offset


@dataclass(frozen=True)
class _Rows:
    """The rows of a fit: centred, in random order, those whose own class is masked last.

    Attributes: z, y: all rows. usable: rows that a likelihood can judge. masked: whether any score is -inf.
    """

    z: Singles
    y: Ints
    usable: int
    masked: bool


@dataclass(frozen=True)
class _Prior:
    """Known offset, direction and log evaluation prior, from the labels outside of each fold.

    Attributes: folds: one Part per fold. fine: the parts used in fits. final: for new rows. log_priors: per fold, and
    last for new rows.
    """

    folds: tuple[Part, ...]
    fine: tuple[Part, ...]
    final: Part
    log_priors: tuple[Floats, ...]


@dataclass(frozen=True)
class _Fitted:
    """One calibration model: on all rows, and for each fold on the rows outside it."""

    name: str
    theta: Floats
    bias: Floats
    fold_theta: tuple[Floats, ...]
    fold_bias: tuple[Floats, ...]
    log_likelihood: Floats


def fit_correction(
    logits: Any,
    target: Any,
    *,
    goal: str = "accuracy",
    train_counts: Any = None,
    models: Sequence[str] = MODELS,
    folds: int = 5,
    threads: int = 1,
    offset_known: Any = None,
    wanted_counts: Any = None,
    seed: int = 0,
    class_names: Any = None,
) -> Correction:
    """Fit the offsets that serve a goal, and measure what they bring on rows the fit has not seen."""
    chosen, names = find_goal(goal), _models(models)
    rows = _prepare(logits, target, seed)
    k = rows.z.shape[1]
    slices = fold_edges(rows.usable, folds)
    counts = None if train_counts is None else np.asarray(train_counts, np.float64)
    known = None if offset_known is None else np.asarray(offset_known, np.float64)
    prior = _prior(rows.y[: rows.usable], k, slices, counts, known)
    fitted, compared = _select(rows, prior, slices, names, threads)
    wanted = None if wanted_counts is None else np.asarray(wanted_counts, np.float64)
    after = decide_folds(
        rows.z, _fold_models(fitted, prior, slices, rows.usable), chosen, wanted=wanted, masked=rows.masked,
        threads=threads,
    )  # fmt: skip
    full = at((Part(slice(0, rows.usable), prior.final.offset, prior.final.directions),), fitted.theta, fitted.bias)
    calibrated = Calibrated(rows.z, float(fitted.theta[0]), full, rows.masked, threads)
    extra = chosen.rule(calibrated, prior.log_priors[-1], wanted)
    rest = (Part(slice(rows.usable, len(rows.y)), full[0].offset, full[0].directions),)
    unusable = Calibrated(rows.z, float(fitted.theta[0]), rest, rows.masked, threads).decide(extra)
    effect = measure_effect(rows.y, decide_raw(rows.z, threads), np.concatenate([after, unusable]), seed=seed)
    recommended, why = judge(effect, chosen.metric)
    offset = full[0].offset + extra
    fit = {"beta": float(fitted.theta[0]), "tau": fitted.theta[1:].tolist(), "log_likelihood": compared}
    return Correction(
        scale=float(fitted.theta[0]),
        offset=offset - offset.mean(),
        goal=goal,
        model=fitted.name,
        evidence=effect.as_dict() | fit,
        rows=len(rows.y),
        folds=len(slices),
        recommended=recommended,
        why=why,
        class_names=None if class_names is None else tuple(class_names),
    )


def _models(models: Sequence[str]) -> list[str]:
    unknown = [m for m in models if m not in MODELS]
    if unknown or not models or isinstance(models, str):
        raise InputError(f"expected models among {', '.join(MODELS)}, got {models!r:.80}; name at least one of them")
    return [m for m in MODELS if m in models]


def _prepare(logits: Any, target: Any, seed: int) -> _Rows:
    """One centred float32 copy of the logits in random order, rows whose own class is masked last."""
    from evenhand.files import from_arrays

    from_arrays(logits=logits, target=target)
    scores, y = np.asarray(logits), np.asarray(target).astype(np.int64)
    order: Ints = np.random.default_rng(seed).permutation(len(y))
    possible = np.isfinite(scores[order, y[order]])
    order = np.concatenate([order[possible], order[~possible]])
    z = np.empty(scores.shape, np.float32)
    step = max(4, BLOCK_CELLS // z.shape[1])
    for start in range(0, len(z), step):
        z[start : start + step] = centred_rows(scores[order[start : start + step]])
    return _Rows(z, y[order], int(possible.sum()), bool(z.min() <= FLOOR))


def _prior(y: Ints, classes: int, slices: list[slice], train: Floats | None, known: Floats | None) -> _Prior:
    """Parts for every fold from the labels outside it; without training counts those labels also stand in for them."""
    total = np.bincount(y, minlength=classes)

    def part(rows: slice, counts: Ints) -> tuple[Part, Floats]:
        log_prior = smoothed_log_prior(counts if train is None else train)
        offset = np.zeros(classes) if known is None else known
        if train is not None and known is None:
            offset = prior_shift(counts, train).offset
        return Part(rows, offset, (log_prior - log_prior.mean())[:, None]), log_prior + offset

    def parts(pieces: list[slice]) -> list[tuple[Part, Floats]]:
        return [part(rows, total - np.bincount(y[rows], minlength=classes)) for rows in pieces]

    own = parts(slices)
    final, log_prior = part(slice(None), total)
    finer = len(slices) < FINE_PARTS and train is None
    fine = own if not finer else parts(fold_edges(len(y), len(slices) * -(-FINE_PARTS // len(slices))))
    return _Prior(tuple(p for p, _ in own), tuple(p for p, _ in fine), final, (*(prior for _, prior in own), log_prior))


def _select(
    rows: _Rows, prior: _Prior, slices: list[slice], names: list[str], threads: int
) -> tuple[_Fitted, dict[str, float]]:
    """The simplest model that no more complex one beats by more than a standard error, by held-out likelihood."""
    best: _Fitted | None = None
    compared = {}
    for name in names:
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


def _fit_model(name: str, rows: _Rows, prior: _Prior, slices: list[slice], threads: int) -> _Fitted:
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
    return _Fitted(name, theta, bias, fold_theta, fold_bias, np.concatenate(held_out))


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


def _fold_models(fitted: _Fitted, prior: _Prior, slices: list[slice], rows: int) -> list[FoldModel]:
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
