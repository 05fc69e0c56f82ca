"""Properties of a softmax loss's arithmetic: confident rows, low precision, derivatives, compilers."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .oracles import focal_gradient, focal_mean
from .properties import CLASSES, ROWS, a_property, away, batch, gradient, long_tailed, richest
from .subject import Subject

LEVELS = (0.0, 5.0, 12.0, 20.0, 30.0, 60.0, 100.0, -30.0)
SHARP = (0.1, 0.25, 0.5, 0.9)


def confident(subject: Subject) -> float:
    """Relative error of the focal loss of rows that the model is sure of, up to a probability of error of 1e-8."""
    errors = []
    for level in (5.0, 10.0, 15.0, 20.0):
        logits = torch.zeros(1, CLASSES)
        logits[0, 0] = level
        truth = focal_mean(logits.double().numpy(), [0], gamma=1.0)
        errors.append(away(subject(logits, torch.tensor([0]), gamma=1.0), truth))
    return max(errors)


def saturated(subject: Subject) -> float:
    """Focal gradient, gamma in (0, 1), of rows from lost to certain, against float64."""
    logits = torch.zeros(len(LEVELS), CLASSES)
    logits[:, 2] = torch.tensor(LEVELS)
    target = torch.full((len(LEVELS),), 2)
    errors = []
    for gamma in SHARP:
        truth = focal_gradient(logits.double().numpy(), target.tolist(), gamma)
        found = gradient(subject, logits, target, gamma=gamma).double().numpy()
        errors.append(float(np.max(np.abs(found - truth) / (1 + np.abs(truth)))))
    return float(np.max(errors))


def extreme(subject: Subject) -> float:
    """Not-finite numbers in value and gradient where logits are 10^4 apart."""
    logits, target = batch(20)
    slope = gradient(subject, 1e4 * logits, target, **richest(subject))
    value = subject(1e4 * logits, target, **richest(subject)).detach()
    return float((~slope.isfinite()).sum() + (~value.isfinite()).sum())


def half(subject: Subject, dtype: torch.dtype) -> float:
    """Error against float64 of the same rounded logits, over torch's own error there."""
    generator = torch.Generator().manual_seed(21)
    logits = (3 * torch.randn(256, 1000, generator=generator)).to(dtype)
    target = torch.randint(1000, (256,), generator=generator)
    wide = F.cross_entropy(logits.double(), target)
    own = (F.cross_entropy(logits, target).double() - wide).abs() + 1e-12
    found = subject(logits, target)
    return float((found.double() - wide).abs() / own)


def weight_types(subject: Subject) -> float:
    """Weights of another float type than the logits'."""
    logits, target = batch(22)
    weight = torch.tensor([0.25, 0.5, 1, 2, 4, 8, 16])
    plain = subject(logits, target, weight=weight)
    others = (subject(logits, target, weight=weight.to(t)) for t in (torch.float64, torch.float16, torch.bfloat16))
    return max(away(x, plain) for x in others)


def half_logits(subject: Subject) -> float:
    """bf16 logits with float32 weights: relative error of the value against float64."""
    logits, target = batch(23)
    low, weight = logits.bfloat16(), long_tailed()
    truth = focal_mean(low.double().numpy(), target.tolist(), weight=weight.tolist())
    return away(subject(low, target, weight=weight), truth)


def frozen(subject: Subject) -> float:
    """Without anything to differentiate: the same value, and no graph."""
    logits, target = batch(24)
    leaf = logits.clone().requires_grad_()
    bare = subject(logits, target, **richest(subject))
    return float(bare.requires_grad) + away(bare, subject(leaf, target, **richest(subject)))


def first_derivatives(subject: Subject) -> float:
    return _checked(subject, torch.autograd.gradcheck)


def second_derivatives(subject: Subject) -> float:
    return _checked(subject, torch.autograd.gradgradcheck)


def compiled(subject: Subject) -> float:
    """In one graph, value and gradient as without."""
    logits, target = batch(26)
    loss = subject.build(**richest(subject))
    torch.compiler.reset()
    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaf = logits.clone().requires_grad_()
    with redirect_stderr(io.StringIO()):
        value = whole(leaf, target)
        value.backward()
    torch.compiler.reset()
    slope = gradient(subject, logits, target, **richest(subject))
    assert leaf.grad is not None
    return max(away(value, loss(logits, target)), float((leaf.grad - slope).abs().max()))


def mapped(subject: Subject) -> float:
    """vmap of the gradient over batches, against a loop."""
    logits, target = batch(27)
    loss = subject.build(**richest(subject))
    several, labels = logits.view(4, ROWS // 4, CLASSES), target.view(4, ROWS // 4)
    found = torch.func.vmap(torch.func.grad(loss))(several, labels)
    each = [gradient(subject, z, y, **richest(subject)) for z, y in zip(several, labels, strict=True)]
    return float((found - torch.stack(each)).abs().max())


def autocast(subject: Subject) -> float:
    """Under autocast, float32 logits lose nothing."""
    logits, target = batch(28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = subject(logits, target, **richest(subject))
    return away(found, subject(logits, target, **richest(subject)))


def _checked(subject: Subject, check: Any) -> float:
    logits, target = batch(25, rows=4, classes=CLASSES)
    options = richest(subject)
    options |= {"weight": options["weight"].double()} if "weight" in options else {}
    loss = subject.build(**options)
    leaf = logits.double().requires_grad_()
    return 0.0 if check(lambda z: loss(z, target), (leaf,), raise_exception=False) else 1.0


ARITHMETIC = (
    a_property("confident rows", "keep relative precision in float32", "gamma", confident),
    a_property("sharp focal", "gamma in (0, 1): gradient finite and right in saturated rows", "gamma", saturated, 1e-6),
    a_property("huge logits", "10^4 apart: value and gradient finite", "", extreme, 0.0),
    a_property("bf16", "error over torch's own", "", lambda s: half(s, torch.bfloat16), 1.0),
    a_property("fp16", "error over torch's own", "", lambda s: half(s, torch.float16), 1.0),
    a_property("weight types", "weights of any float type", "weight", weight_types),
    a_property("bf16, weighted", "with float32 weights", "weight", half_logits),
    a_property("frozen logits", "need no gradient", "", frozen),
    a_property("gradcheck", "first derivatives in float64", "", first_derivatives, 0.0),
    a_property("gradgradcheck", "second derivatives in float64", "", second_derivatives, 0.0),
    a_property("compile", "in one graph", "", compiled),
    a_property("vmap", "of the gradient", "", mapped),
    a_property("autocast", "loses nothing", "", autocast),
)
