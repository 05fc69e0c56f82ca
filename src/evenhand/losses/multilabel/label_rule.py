"""Where to cut the logits of a model trained with a sigmoid loss: one threshold per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenhand.declared import Floats
from evenhand.losses.decisions.rule import DecisionRule, as_scores
from evenhand.losses.multilabel.law import SigmoidLaw, is_off, negative_loss, positive_loss

FARTHEST = 60.0  # nats: beyond these log odds a float64 sigmoid is 0 or 1


@dataclass(frozen=True, eq=False)
class LabelRule(DecisionRule):
    """Answer yes to class k where ``scale_k z_k + offset_k > 0``; the fields are those of :class:`DecisionRule`.

    Only the sign is meant: with a focusing factor the adjusted logit is not the log odds of the class.
    """

    def predict(self, logits: Any) -> Any:
        """(..., K) bool, the classes that are answered with yes."""
        self.check(logits)
        return self.apply(as_scores(logits, least_bytes=4)) > 0


def threshold(law: SigmoidLaw, log_odds: Floats) -> Floats:
    """(K,) logits ``u`` at which the loss is at its minimum for a class whose true log odds are `log_odds`.

    At the minimum ``P a h+(u) = (1 - P) b h-(u)``, with h the slopes of the two terms, so that the true log odds are
    ``log(b h-(u)) - log(a h+(u))``, which grows with u. Without focusing, clip and lambda that is
    ``u = log_odds + log(a / b)``; otherwise u is found by bisection between -60 and 60 nats. A loss with a clip sends
    all probabilities above some bound to an infinite logit; u is then one end of that range.

    Args:
        law: parameters; scale, offset and entry weights are left out.
        log_odds: (K,) float64.
    """
    plain = is_off(law.gamma_positive, 0) and is_off(law.gamma_negative, 0) and law.clip == 0
    with np.errstate(divide="ignore"):
        weights = np.log(_wide(law.positive_weight)) - np.log(_wide(law.negative_weight))
    aim: Floats = log_odds + weights
    if plain and law.negative_scale == 1:
        return aim
    low, high = np.full_like(aim, -FARTHEST), np.full_like(aim, FARTHEST)
    law = law.beside(torch.empty(0, dtype=torch.float64))
    for _ in range(64):
        middle = (low + high) / 2
        below = _log_odds_at(middle, law) < aim
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found: Floats = (low + high) / 2
    return found


def _log_odds_at(u: Floats, law: SigmoidLaw) -> Floats:
    at = torch.from_numpy(u).requires_grad_()
    with torch.enable_grad():
        (rise,) = torch.autograd.grad(negative_loss(at, law).sum(), at)
        (fall,) = torch.autograd.grad(positive_loss(at, law).sum(), at)
    with np.errstate(divide="ignore"):
        odds: Floats = np.log(rise.numpy()) - np.log(-fall.numpy())
    return odds


def _wide(value: float | Tensor) -> Floats:
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
