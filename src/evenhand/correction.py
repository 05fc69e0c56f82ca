"""Correction after training: one scale and one offset per class, fitted on held-out labels for a stated goal.

``scale * logits + offset`` first makes the posteriors right (temperature, tilt, and where the rows carry it, class
biases), then adds what the goal asks for. The model is chosen by its likelihood on rows it has not seen, and so is
the expected effect measured; a correction that may do harm says so itself.

Sources: Menon et al., "Long-tail learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314; Alexandari et
al., "Maximum likelihood with bias-corrected calibration" (2020), https://arxiv.org/abs/1901.06852.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.calibration import (
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
from evenhand.correction_file import hash_names, read_fields, write_fields
from evenhand.counts import to_numpy
from evenhand.crossfit import at, crossfit_effect, decide_folds, decide_raw, fold_edges
from evenhand.declared import Floats, InputError
from evenhand.effects import Effect, judge, measure_effect
from evenhand.files import from_arrays
from evenhand.files.opening import as_array
from evenhand.goals import Calibrated, Goal, find_goal
from evenhand.output import PathLike
from evenhand.tilt import BLOCK_CELLS, Part

FOLDED = "evenhand_correction"  # attribute of a layer that a correction was folded into

__all__ = ["MODELS", "Correction", "crossfit_effect", "fit_correction"]


@dataclass(frozen=True, eq=False)
class Correction:
    """``scale * logits + offset``: what puts a model's decisions right for a goal.

    Built by :func:`fit_correction` or :meth:`load`.

    Attributes:
        scale: above 0. offset: (K,) float64, in nats, mean 0.
        goal: what it is for. model: the calibration model chosen: identity, temperature, tilt or biases.
        evidence: ``before``, ``after``, ``after_interval``, ``difference_interval`` (metric -> value or 95 % interval),
            ``beta``, ``tau`` and ``log_likelihood`` (model -> held-out nats per row).
        rows: labelled rows used. folds: cross-fitting folds. recommended: whether harm is excluded. why: in words.
        names_hash: SHA-256 of the class names it belongs to, or None.
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
    names_hash: str | None = None

    @property
    def classes(self) -> int:
        """K."""
        return len(self.offset)

    def apply(self, logits: Any) -> Any:
        """``scale * logits + offset``.

        Args:
            logits: (..., K) NumPy array or torch tensor of floats; float16 and bfloat16 become float32. Classes at
                -inf stay there. For probabilities pass their logarithms.

        Returns:
            (..., K) of the same kind and device. Its softmax is the calibrated posterior, moved for the goal.

        Raises:
            InputError: the last axis is not K, or the scores are not floating-point numbers.
        """
        if hasattr(logits, "new_tensor"):
            self._check_last_axis(tuple(logits.shape), bool(logits.is_floating_point()))
            wide = logits.float() if logits.element_size() < 4 else logits
            return wide * self.scale + wide.new_tensor(self.offset)
        array = to_numpy(logits)
        self._check_last_axis(array.shape, array.dtype.kind == "f")
        if array.dtype.itemsize < 4:
            array = array.astype(np.float32)
        return array * self.scale + self.offset.astype(array.dtype)

    def predict(self, logits: Any) -> Any:
        """(...) int64 class of the largest corrected score; a NumPy array or tensor as `logits` is one."""
        if hasattr(logits, "new_tensor") or np.ndim(logits) != 2:
            return self.apply(logits).argmax(-1)
        array = to_numpy(logits)
        rows = max(4, BLOCK_CELLS // max(1, array.shape[1]))
        starts = range(0, max(1, len(array)), rows)
        return np.concatenate([self.apply(array[start : start + rows]).argmax(-1) for start in starts])

    def fold_into(self, linear: Any, *, again: bool = False) -> None:
        """Put the correction into the last layer, in place: ``weight *= scale``, ``bias = scale * bias + offset``.

        Args:
            linear: an ``nn.Linear`` (or any module with ``weight`` of K rows and ``bias``) whose outputs are the
                logits. A layer without a bias gets one. It is marked by the attribute ``evenhand_correction`` (the
                goal), which a copy keeps and a ``state_dict`` does not.
            again: correct a marked layer once more, for instance after it was given uncorrected weights.

        Raises:
            InputError: the object has no weight, or its weight has not K rows, or a correction is folded in already.
        """
        earlier = getattr(linear, FOLDED, None)
        if earlier is not None and not again:
            raise InputError(
                f"a correction for {earlier} is folded into this layer already and another would add to it; load the "
                "uncorrected weights and pass again=True"
            )
        weight = getattr(linear, "weight", None)
        if weight is None or not hasattr(weight, "detach") or weight.shape[0] != self.classes:
            came = type(linear).__name__ if weight is None else f"a weight of shape {tuple(weight.shape)}"
            raise InputError(
                f"expected a layer whose weight has {self.classes} rows, one per class, got {came}; pass the last "
                "linear layer of the model"
            )
        values = weight.detach()
        offset = values.new_tensor(self.offset)
        if getattr(linear, "bias", None) is None:
            linear.bias = type(weight)(offset)
        else:
            linear.bias.detach().mul_(self.scale).add_(offset)
        values.mul_(self.scale)
        setattr(linear, FOLDED, self.goal)

    def check(self, classes: int, class_names: Iterable[str] | None = None) -> None:
        """Refuse another number of classes, or other class names where both sides have names.

        Raises:
            InputError: one of them differs.
        """
        if classes != self.classes:
            raise InputError(
                f"the correction is for {self.classes} classes but the predictions have {classes}; use the correction "
                "that was fitted for this model"
            )
        if class_names is not None and self.names_hash is not None and hash_names(class_names) != self.names_hash:
            raise InputError(
                "the correction was fitted for other class names, or for another order of them; use the correction "
                "that was fitted for this model"
            )

    def save(self, path: PathLike) -> None:
        """Write a ``.json`` file (offsets inline) or a ``.npz`` file, whole or not at all; schema in docs/fix.md.

        Raises:
            InputError: another ending. OSError: the file cannot be written.
        """
        write_fields(path, {field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def load(
        cls, path: PathLike, *, classes: int | None = None, class_names: Iterable[str] | None = None
    ) -> Correction:
        """Read what :meth:`save` wrote; nothing is unpickled.

        Args:
            path: ``.json`` or ``.npz`` file. classes, class_names: what the model has, to be compared.

        Raises:
            InputError: not such a file, damaged, or made for other classes. OSError: it cannot be opened.
        """
        found = cls(**read_fields(path))
        found.check(found.classes if classes is None else classes, class_names)
        return found

    def _check_last_axis(self, shape: tuple[int, ...], floating: bool) -> None:
        if not floating or not shape or shape[-1] != self.classes:
            raise InputError(
                f"expected floating-point logits with {self.classes} classes on the last axis, got "
                f"{'' if floating else 'other numbers of '}shape {tuple(shape)}; pass the raw scores of the same model"
            )


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
    """Fit the offsets that serve a goal, and measure what they bring on rows the fit has not seen.

    With ``p = softmax(beta z + o + tau log pi + b)`` fitted to the labels (as much of it as held-out likelihood bears
    out), the corrected scores are ``beta z + o + tau log pi + b + g`` with g = 0 for ``accuracy``, ``-log pi_eval`` for
    ``balanced-accuracy``, and for ``counts`` the offsets at which every class is predicted as often as p expects.

    Args:
        logits: (N, K) float16, float32 or float64 scores z of **held-out** rows; of training rows the effect would be
            far too good. NumPy or torch. For probabilities pass their logarithms. -inf marks a class as impossible.
        target: (N,) true classes.
        goal: a name of `evenhand.goals.GOALS`.
        train_counts: (K,) training rows per class; without them the evaluation counts of the other folds stand in.
        models: calibration models to choose from, see :data:`MODELS`. Class biases are tried when N >= K.
        folds: at least 2. threads: over blocks of rows.
        offset_known: (K,) log(evaluation prior / training prior), where known; None to estimate it from the counts.
        wanted_counts: (K,) counts or shares that the goal ``counts`` should meet; None for the expected counts. Only
            with that goal.
        seed: of the order of the rows and of the bootstrap. class_names: (K,), kept as a hash.

    Returns:
        Correction, also where it is not recommended.

    Raises:
        InputError: arrays that do not fit together, NaN or +inf, fewer than 20 usable rows, rows of one class only, an
            unknown goal or model.

    Limits:
        Holds one float32 copy of the logits, and most of a second one while class biases are tried. The effect on new
        data is that of rows like these; with another class prior there it is another.

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
    opened = from_arrays(logits=logits, target=target, train_counts=train_counts, class_names=class_names)
    k = opened.classes
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError(f"expected at least 2 folds, got {folds!r:.40}; 5 is a good choice")
    known, wanted = _per_class("offset_known", offset_known, k), _per_class("wanted_counts", wanted_counts, k)
    if wanted is not None and goal != "counts":
        raise InputError(
            f"wanted counts belong to the goal counts but the goal is {goal}; choose the goal counts or leave them out"
        )
    if wanted is not None and (wanted.min() < 0 or wanted.max() <= 0):
        raise InputError(
            "wanted_counts must be zero or more and not all zero; pass how often each class should come out"
        )
    rows = prepare(as_array("logits", logits), as_array("target", target).astype(np.int64), seed=seed)
    if len(np.unique(rows.y)) < 2:
        raise InputError(
            "expected rows of at least two classes, got rows of one; a correction fitted on them would always answer "
            "that class, so give rows drawn like those of use"
        )
    slices = fold_edges(rows.usable, min(folds, rows.usable))
    prior = log_priors(rows.y[: rows.usable], k, slices, opened.declared.train_counts, known)
    fitted, compared = select_model(rows, prior, slices, names, threads)
    offset, effect = _serve(rows, prior, slices, fitted, chosen, wanted, threads, seed)
    recommended, why = judge(effect, chosen.metric)
    named = opened.declared.class_names
    fit = {"beta": float(fitted.theta[0]), "tau": float(fitted.theta[1]), "log_likelihood": compared}
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
        names_hash=None if named is None else hash_names(named),
    )


def _serve(
    rows: Rows,
    prior: Prior,
    slices: list[slice],
    fitted: Fitted,
    goal: Goal,
    wanted: Floats | None,
    threads: int,
    seed: int,
) -> tuple[Floats, Effect]:
    """The offset of the model and the goal for new rows, and the effect on rows the fit has not seen."""
    models = fold_models(fitted, prior, slices, rows.usable)
    after = decide_folds(rows.z, models, goal, wanted=wanted, masked=rows.masked, threads=threads)
    scale = float(fitted.theta[0])
    known = at((prior.final,), fitted.theta, fitted.bias)[0].offset
    nothing = np.zeros((len(known), 0))

    def some(start: int, stop: int) -> Calibrated:
        return Calibrated(rows.z, scale, (Part(slice(start, stop), known, nothing),), rows.masked, threads)

    extra = goal.rule(some(0, rows.usable), prior.log_priors[-1], wanted)
    # Rows whose true class is masked took no part in the fit, so the final offsets have not seen them either.
    unusable = some(rows.usable, len(rows.y)).decide(extra)
    effect = measure_effect(rows.y, decide_raw(rows.z, threads), np.concatenate([after, unusable]), seed=seed)
    return known + extra, effect


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
