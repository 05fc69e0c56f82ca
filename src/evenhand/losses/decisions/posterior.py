"""Class probabilities that a loss's minimiser stands for: the loss, solved for ``p(k | x)``.

For a loss ``w_y phi_y(gap_y)``, where ``gap_y = logsumexp_{k != y} z_k - z_y + m_y``, the minimiser of the expectation
over ``p(y | x)`` has ``sum_y p_y w_y phi_y' d gap_y / d z_j = 0`` for every j. With ``q = softmax(z)`` the derivatives
are ``q_j / (1 - q_y)`` for j != y and -1 for j = y, and the equations solve to

    p_j  proportional to  q_j (1 - q_j) / (w_j phi_j'(gap_j))

which is ``q_j / w_j`` for cross-entropy, ``q_j (1 - (1 - exp(-m_j)) q_j)`` for a target margin, and the transformation
of Charoenphakdee et al. (On Focal Loss for Class-Posterior Probability Estimation, 2021,
https://arxiv.org/abs/2011.09172) for focal loss. Smoothing is linear in p, and solved as such.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.losses.law import Law
from evenhand.losses.rows import softplus
from evenhand.losses.shapes import Focal, Generalised, Poly


def log_posterior(logits: Tensor, law: Law) -> Tensor:
    """(N, K) float64 ``log p(k | x)``, up to a constant per row, from the raw (N, K) logits of a model at the minimum.

    Args:
        logits: (N, K), before scale and offset.
        law: with a shape (focal, poly, generalised) or a margin, or with label smoothing, but not both; without
            temperature and pair offsets, which have no such solution.
    """
    z = logits.double()
    z = z if law.scale is None else z * law.scale.to(z)
    z = z if law.offset is None else z + law.offset.to(z)
    return _unsmoothed(torch.log_softmax(z, 1), law) if law.smooths else _unshaped(z, law)


def _unshaped(z: Tensor, law: Law) -> Tensor:
    others = _others(z)
    gap = others - z
    log_p = -softplus(gap) - softplus(-gap)  # log q + log(1 - q)
    if law.margin is not None:
        gap = gap + law.margin.to(gap)
    log_p = log_p + softplus(-gap) - _log_slope(gap, law)
    return log_p if law.class_weight is None else log_p - _log_weight(law.class_weight, z)


def _others(z: Tensor) -> Tensor:
    """(N, K) ``logsumexp_{j != k} z_j``: by subtraction, except for the largest, where nothing would be left of it."""
    top = z.argmax(1, keepdim=True)
    total = torch.logsumexp(z, 1, keepdim=True)
    rest = torch.logsumexp(z.scatter(1, top, float("-inf")), 1, keepdim=True)
    share = (z - total).exp().scatter(1, top, 0.0)
    return (total + torch.log1p(-share)).scatter(1, top, rest)


def _log_slope(gap: Tensor, law: Law) -> Tensor:
    """(N, K) ``log dphi / dL`` of every class as if it were the target; ``dphi / dgap`` is that times ``1 - p``."""
    shape = law.shape
    gap = gap.clamp(max=1e30)  # a masked class: inf minus inf is NaN
    nll, log_rest = softplus(gap), -softplus(-gap)
    if isinstance(shape, Generalised):
        return -shape.q * nll
    if not isinstance(shape, Focal | Poly):
        return torch.zeros_like(gap)
    gamma = shape.gamma.to(gap) if isinstance(shape.gamma, Tensor) else torch.as_tensor(shape.gamma).to(gap)
    p = torch.exp(-nll)
    focus = gamma * torch.exp(torch.log(nll) - log_rest - nll)  # gamma p L / (1 - p)
    slope = gamma * log_rest
    if isinstance(shape, Poly):
        return slope + torch.log1p(focus + shape.epsilon * (gamma + 1) * p)
    slope = slope + torch.log1p(focus)
    if shape.alpha is None:
        return slope
    alpha = shape.alpha.to(gap) if isinstance(shape.alpha, Tensor) else torch.as_tensor(shape.alpha).to(gap)
    return slope + _log_weight(alpha, gap)


def _unsmoothed(log_q: Tensor, law: Law) -> Tensor:
    """Solve ``(1 - e_k) r_k + c = q_k``, where c is what the smoothing puts on every class, for r with sum 1.

    With class weights, ``r_k`` is proportional to ``w_k p_k`` if the smoothing keeps its own weight; if it is weighted
    by the class it falls on, as in torch, ``q_k`` over ``w_k`` stands in for ``q_k``.
    """
    weight = None if law.class_weight is None else law.class_weight.to(log_q)
    by_class = weight is not None and law.smoothing_mass == "weighted"
    if by_class and weight is not None:
        log_q = torch.log_softmax(log_q - _log_weight(weight, log_q), 1)
    smoothing = law.label_smoothing
    kept = 1 - (smoothing if isinstance(smoothing, Tensor) else torch.as_tensor(smoothing)).to(log_q)
    kept = kept.expand(log_q.shape[1])
    q = log_q.exp()
    everywhere = ((q / kept).sum(1, keepdim=True) - 1) / (1 / kept).sum()
    share = ((q - everywhere) / kept).clamp(min=torch.finfo(q.dtype).tiny)
    return share.log() if by_class or weight is None else share.log() - _log_weight(weight, log_q)


def _log_weight(weight: Tensor, like: Tensor) -> Tensor:
    """``log w``, and inf where w is 0: what was never learned cannot be read, and drops out."""
    wide = weight.to(like)
    return torch.where(wide > 0, wide, torch.inf).log()
