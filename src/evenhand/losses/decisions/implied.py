"""What a loss makes of the truth, read backwards: from its parameters to the decision rule that goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenhand.counts import to_numpy
from evenhand.declared import Floats, InputError
from evenhand.losses.decisions.posterior import log_posterior
from evenhand.losses.decisions.rule import GOALS, DecisionRule, as_scores
from evenhand.losses.law import Law
from evenhand.losses.reduction import check_choice
from evenhand.losses.shapes import Focal, Generalised, Poly

_BLOCK = 1 << 20  # cells taken at a time: the inversion needs a dozen float64 copies of them


@dataclass(frozen=True, eq=False)
class PosteriorRule(DecisionRule):
    """``argmax_k log p_k + offset_k``, where p is what the minimiser of the loss says of ``p(k | x)``.

    For losses whose minimiser is known, but is no offset and scale away from ``log p``: focal loss, target margins,
    label smoothing. ``scale`` is 1, and ``offset`` is added after the inversion. Works in float64, in blocks of rows.
    """

    law: Law = field(default_factory=Law)

    def apply(self, logits: Any) -> Any:
        """(..., K) ``log p_k + offset_k`` up to a constant per row, array or tensor as `logits` is one.

        Raises:
            InputError: the last axis is not K.
        """
        self.check(logits)
        logits = as_scores(logits)
        raw = logits.detach() if isinstance(logits, Tensor) else torch.as_tensor(np.array(to_numpy(logits)))
        rows = raw.reshape(-1, len(self.offset))
        offset = torch.as_tensor(self.offset, device=raw.device)
        result = torch.empty_like(rows)
        step = max(1, _BLOCK // len(self.offset))
        for start in range(0, len(rows), step):
            result[start : start + step] = log_posterior(rows[start : start + step], self.law) + offset
        shaped = result.reshape(raw.shape)
        return shaped if isinstance(logits, Tensor) else shaped.numpy()


def decision_rule(
    law: Law, classes: int, goal: str = "accuracy", *, log_prior: Floats | None = None, absent: Any = None
) -> DecisionRule:
    """The rule that decides best for a goal if the model minimises a loss: nothing is fitted, all follows from the law.

    With ``z~ = scale z + offset``, class weights w and the prior pi, of the classes' probabilities p:

    ==============================  ==================================================================================
    loss                            rule for accuracy
    ==============================  ==================================================================================
    cross-entropy, weights          ``z~ - log w``: the softmax of z~ is proportional to ``w p``
    log-prior offset, class scale   the same: at test time they are kept, not dropped
    generalised cross-entropy       ``(1 - q) z~ - log w``
    focal, poly, margin             ``log p`` of :func:`evenhand.losses.log_posterior`; z~ itself where p has its order
    label smoothing                 the same; uniform smoothing without weights keeps the order of p
    target temperature, random or   not known: ``argmax z``, as their authors do, not exact
    online offsets, influence
    ==============================  ==================================================================================

    For balanced accuracy ``log pi`` is taken off ``log p``.

    Args:
        law: the loss's parameters. classes: K.
        goal: ``accuracy`` (on data with the training prior) or ``balanced-accuracy``.
        log_prior: (K,) log pi, nats; needed for balanced accuracy.
        absent: (K,) bool, classes without training rows: a weight of 0 costs nothing there.

    Raises:
        InputError: another goal, or balanced accuracy without prior.

    Limits:
        "If the model minimises the loss": an overfitted or underfitted model is off, most of all for rare classes.
        :func:`evenhand.fit_correction` measures what this function derives, on held-out rows.

    Example:
        >>> weighted = Law(class_weight=torch.tensor([0.5, 5.0]))
        >>> decision_rule(weighted, 2).offset.round(3).tolist()
        [0.693, -1.609]
    """
    check_choice("goal", goal, GOALS)
    if goal == "balanced-accuracy" and log_prior is None:
        raise InputError("balanced accuracy needs the training prior: give log_prior=, or build the loss with counts=")
    prior = log_prior if goal == "balanced-accuracy" and log_prior is not None else np.zeros(classes)
    law = _without_common_temperature(law, classes)
    unknown = _why_unknown(law)
    if unknown:
        return DecisionRule(goal, np.ones(classes), np.zeros(classes), exact=False, why=unknown)
    weight = _numbers(law.class_weight, classes)
    if isinstance(law.shape, Focal):
        weight = weight * _numbers(law.shape.alpha, classes)
    silenced = weight == 0
    known = not (silenced & ~np.asarray(np.zeros(classes, bool) if absent is None else absent)).any()
    if _is_affine(law, goal, weight):
        factor = 1.0 - law.shape.q if isinstance(law.shape, Generalised) else 1.0
        offset = factor * _numbers(law.offset, classes, 0.0) - np.log(np.where(silenced, np.inf, weight)) - prior
        why = _AFFINE if known else _SILENCED
        return DecisionRule(goal, factor * _numbers(law.scale, classes), offset, exact=known, why=why)
    known = known and not (silenced.any() and law.smooths)
    why = _INVERTED if known else _SILENCED
    offset = np.where(silenced, -np.inf, -prior)
    return PosteriorRule(goal, np.ones(classes), offset, exact=known, why=why, law=_held(law))


_AFFINE = "the loss's minimiser is log p(k | x) plus a known offset, or has its order; the offset is taken off"
_INVERTED = "the loss's minimiser is a known function of p(k | x), which is solved for p"
_SILENCED = "a class with training rows has weight 0, so that nothing was learned of it; it is never answered"
_FIT = "the authors take the largest logit; evenhand.fit_correction measures what to add on held-out rows"


def _why_unknown(law: Law) -> str | None:
    """Why no rule follows from the law, or None if one does."""
    if law.pair_offset is not None:
        return f"random or online offsets have no minimiser that is known; {_FIT}"
    if law.temperature is not None:
        return f"a temperature per target class has no minimiser that is known; {_FIT}"
    if law.shape is not None and not isinstance(law.shape, Focal | Poly | Generalised):
        return f"the weight of a row depends on the model's own answer, so that there is no fixed minimiser; {_FIT}"
    if isinstance(law.shape, Generalised) and law.shape.q >= 1:
        return f"with q = 1 the minimiser is certain of one class and says nothing of the others; {_FIT}"
    if law.margin is not None and (law.shape is not None or law.smooths or law.z_loss):
        return f"a target margin together with a shape, smoothing or z-loss has no minimiser that is known; {_FIT}"
    if law.smooths and law.shape is not None:
        return f"a shape together with label smoothing has no minimiser that is known; {_FIT}"
    return None


def _without_common_temperature(law: Law, classes: int) -> Law:
    """One temperature for all targets is a scale."""
    temperature = _numbers(law.temperature, classes)
    if law.temperature is None or not _same(temperature):
        return law
    scale = temperature * _numbers(law.scale, classes)
    offset = temperature * _numbers(law.offset, classes, 0.0)
    return replace(law, temperature=None, scale=torch.as_tensor(scale), offset=torch.as_tensor(offset))


def _is_affine(law: Law, goal: str, weight: Floats) -> bool:
    """Whether ``scale z + offset`` has the order that the goal asks for."""
    if law.margin is not None:
        return False
    if law.smooths:
        one_share = not isinstance(law.label_smoothing, Tensor)
        by_class = law.smoothing_mass == "weighted"
        return goal == "accuracy" and one_share and (by_class or _same(weight))
    if isinstance(law.shape, Focal):
        return goal == "accuracy" and _same(_numbers(law.shape.gamma, 1)) and _same(weight)
    if isinstance(law.shape, Poly):
        return goal == "accuracy" and _same(weight)
    return True


def _same(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _numbers(value: Any, classes: int, otherwise: float = 1.0) -> Floats:
    """(K,) float64, or `otherwise` everywhere for None."""
    if value is None:
        return np.full(classes, otherwise)
    return np.broadcast_to(np.asarray(to_numpy(value), np.float64), classes if np.ndim(value) == 0 else len(value))


def _held(law: Law) -> Law:
    """The law with its numbers as they are now: the module may train on, or defer its weights."""
    vectors: dict[str, Any] = {k: x.detach().clone() for k, x in vars(law).items() if isinstance(x, Tensor)}
    return replace(law, **vectors)
