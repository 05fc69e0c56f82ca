"""Properties of a multi-label focal loss: sigmoid, (N, K) targets of 0 and 1, mean over the entries."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .oracles import sigmoid_focal_gradient, sigmoid_focal_mean
from .properties import a_property, away
from .subject import Subject

LEVELS = (0.0, 5.0, 12.0, 30.0, 60.0, 100.0, -5.0, -12.0, -30.0, -100.0)


def labelled(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(20, 5, generator=generator), (torch.rand(20, 5, generator=generator) < 0.3).float()


def value(subject: Subject, gamma: float, alpha: float | None = None) -> float:
    logits, target = labelled(0)
    options = {"gamma": gamma} if alpha is None else {"gamma": gamma, "alpha": alpha}
    truth = sigmoid_focal_mean(logits.double().numpy(), target.double().numpy(), gamma, alpha)
    return away(subject(logits, target, **options), truth)


def saturated(subject: Subject, gammas: tuple[float, ...]) -> float:
    """Gradient of entries from lost to certain against float64."""
    logits = torch.tensor(LEVELS)[:, None].repeat(1, 2)
    target = torch.tensor([[0.0, 1.0]]).repeat(len(LEVELS), 1)
    errors = []
    for gamma in gammas:
        leaf = logits.clone().requires_grad_()
        subject(leaf, target, gamma=gamma).backward()
        assert leaf.grad is not None
        truth = sigmoid_focal_gradient(logits.double().numpy(), target.double().numpy(), gamma)
        errors.append(float(np.max(np.abs(leaf.grad.double().numpy() - truth) / (1 + np.abs(truth)))))
    return float(np.max(errors))


def half(subject: Subject) -> float:
    generator = torch.Generator().manual_seed(2)
    logits = (3 * torch.randn(256, 100, generator=generator)).bfloat16()
    target = (torch.rand(256, 100, generator=generator) < 0.1).float()
    wide = F.binary_cross_entropy_with_logits(logits.double(), target.double())
    own = (F.binary_cross_entropy_with_logits(logits, target.bfloat16()).double() - wide).abs() + 1e-12
    return float((subject(logits, target.bfloat16(), gamma=0.0).double() - wide).abs() / own)


def derivatives(subject: Subject) -> float:
    logits, target = labelled(3)
    loss = subject.build(gamma=2.0)
    good = torch.autograd.gradcheck(
        lambda z: loss(z, target[:3].double()), (logits[:3].double().requires_grad_(),), raise_exception=False
    )
    return 0.0 if good else 1.0


def compiled(subject: Subject) -> float:
    logits, target = labelled(4)
    torch.compiler.reset()
    whole = torch.compile(subject.build(gamma=2.0), fullgraph=True, backend="aot_eager")
    found = away(whole(logits, target), subject(logits, target, gamma=2.0))
    torch.compiler.reset()
    return found


MULTI_LABEL = (
    a_property("sigmoid focal", "equals the float64 formula, gamma 2", "sigmoid", lambda s: value(s, 2.0)),
    a_property("sigmoid gamma 0", "is binary cross-entropy", "sigmoid", lambda s: value(s, 0.0)),
    a_property("sigmoid alpha", "weighs positives and negatives", "sigmoid alpha", lambda s: value(s, 2.0, 0.25)),
    a_property(
        "sigmoid saturated", "gamma 2: gradient finite and right", "sigmoid", lambda s: saturated(s, (2.0,)), 1e-6
    ),
    a_property("sigmoid sharp", "gamma in (0, 1): the same", "sigmoid", lambda s: saturated(s, (0.1, 0.5, 0.9)), 1e-6),
    a_property("sigmoid bf16", "error over torch's own", "sigmoid", half, 1.0),
    a_property("sigmoid gradcheck", "first derivatives in float64", "sigmoid", derivatives, 0.0),
    a_property("sigmoid compile", "in one graph", "sigmoid", compiled),
)
