"""Properties of a softmax loss: values, limiting identities, symmetries, and batches with something missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .oracles import focal_mean, smoothed_mean
from .subject import Property, Subject

ROWS, CLASSES = 40, 7
SAME = 1e-5  # float32 values of the same formula
IGNORED = -100


def batch(seed: int = 0, rows: int = ROWS, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Float32 logits with classes of all kinds, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator)
    return logits, torch.randint(classes, (rows,), generator=generator)


def long_tailed(classes: int = CLASSES, ratio: float = 1e4) -> Tensor:
    """Float32 weights from 0.01 up, `ratio` apart."""
    return 0.01 * ratio ** (torch.arange(classes) / (classes - 1))


def away(value: Tensor | float, truth: Any) -> float:
    """Largest relative difference; NaN where either has one."""
    found = np.asarray(value.detach().double().numpy() if isinstance(value, Tensor) else value)
    wanted = np.asarray(truth.detach().double().numpy() if isinstance(truth, Tensor) else truth)
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.max(np.abs(found - wanted) / np.maximum(np.abs(wanted), 1e-12), initial=0.0))


def gradient(subject: Subject, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Of the mean loss by the logits."""
    leaf = logits.clone().requires_grad_()
    subject(leaf, target, **options).backward()
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def value(subject: Subject, **options: Any) -> float:
    logits, target = batch()
    share = options.get("label_smoothing")
    known = {k: v for k, v in options.items() if k in ("gamma", "weight")}
    z, y = logits.double().numpy(), target.tolist()
    truth = focal_mean(z, y, **known) if share is None else smoothed_mean(z, y, share, options.get("weight"))
    return away(subject(logits, target, **options), truth)


def mean_over_rows(subject: Subject) -> float:
    """Of the loss as the package has it."""
    logits, target = batch()
    return away(subject.make()(logits, target), focal_mean(logits.double().numpy(), target.tolist()))


def same(subject: Subject, one: dict[str, Any], other: dict[str, Any]) -> float:
    """Between two ways to ask for the same loss, in value and gradient."""
    logits, target = batch(1)
    values = away(subject(logits, target, **one), subject(logits, target, **other))
    slopes = (gradient(subject, logits, target, **one) - gradient(subject, logits, target, **other)).abs().max()
    return max(values, float(slopes))


def one_hot(subject: Subject) -> float:
    logits, target = batch(2)
    weight = long_tailed()
    soft = F.one_hot(target, CLASSES).float()
    return away(subject(logits, soft, weight=weight), subject(logits, target, weight=weight))


def permuted(subject: Subject) -> float:
    logits, target = batch(3)
    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    options, moved = richest(subject), richest(subject)
    if "weight" in options:
        moved["weight"] = options["weight"][order]
    return away(subject(logits[:, order], place[target], **moved), subject(logits, target, **options))


def shifted(subject: Subject) -> float:
    logits, target = batch(4)
    shift = torch.arange(ROWS)[:, None] * 0.5
    return away(subject(logits + shift, target, **richest(subject)), subject(logits, target, **richest(subject)))


def duplicated(subject: Subject) -> float:
    """A mean does not change when every row comes twice."""
    logits, target = batch(5)
    twice = subject(logits.repeat(2, 1), target.repeat(2), **richest(subject))
    return away(twice, subject(logits, target, **richest(subject)))


def summed(subject: Subject) -> float:
    """The sum is the rows' sum, and the mean is that over the sum of the rows' weights."""
    logits, target = batch(6)
    options = richest(subject)
    weight = options.get("weight", torch.ones(CLASSES))
    rows = subject(logits, target, reduction="none", **options)
    if rows.shape != target.shape:
        return float("inf")
    total = rows.double().sum()
    mean = away(subject(logits, target, **options), total / weight.double()[target].sum())
    return max(mean, away(subject(logits, target, reduction="sum", **options), total))


def more_axes(subject: Subject) -> float:
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(3, CLASSES, 4, 5, generator=generator)
    target = torch.randint(CLASSES, (3, 4, 5), generator=generator)
    flat = subject(logits.movedim(1, -1).reshape(-1, CLASSES), target.reshape(-1), **richest(subject))
    return away(subject(logits, target, **richest(subject)), flat)


def ignored(subject: Subject, **options: Any) -> float:
    """Rows to ignore change nothing: neither the mean nor the gradient, even if their logits are infinite."""
    logits, target = batch(8)
    logits = logits.clone()
    out = torch.arange(ROWS) % 3 == 0
    marked = target.masked_fill(out, IGNORED)
    kept = away(
        subject(logits, marked, ignore_index=IGNORED, **options),
        focal_mean(logits.double().numpy(), marked.tolist(), ignore_index=IGNORED, **options),
    )
    slope = gradient(subject, logits, marked, ignore_index=IGNORED, **options)
    return max(kept, float(slope[out].abs().max()))


def nothing_left(subject: Subject) -> float:
    """Largest entry of value and gradient where every row is ignored: 0, not NaN."""
    logits, target = batch(9)
    marked = torch.full_like(target, IGNORED)
    value = subject(logits, marked, ignore_index=IGNORED)
    slope = gradient(subject, logits, marked, ignore_index=IGNORED)
    return float(torch.cat([value.detach().reshape(1).abs(), slope.abs().reshape(-1)]).max())


def silent(subject: Subject) -> float:
    """The same where every row's class has weight 0."""
    logits, _ = batch(10)
    target = torch.zeros(ROWS, dtype=torch.int64)
    weight = torch.ones(CLASSES).index_fill(0, torch.tensor([0]), 0.0)
    value = subject(logits, target, weight=weight).detach()
    slope = gradient(subject, logits, target, weight=weight)
    return float(torch.cat([value.reshape(1).abs(), slope.abs().reshape(-1)]).max())


def some_silent(subject: Subject) -> float:
    logits, target = batch(11)
    weight = torch.ones(CLASSES).index_fill(0, torch.tensor([0, 3]), 0.0)
    truth = focal_mean(logits.double().numpy(), target.tolist(), weight=weight.tolist())
    return away(subject(logits, target, weight=weight), truth)


def missing(subject: Subject) -> float:
    """Classes without a row in the batch, weights 10^4 apart."""
    logits, _ = batch(12)
    target = torch.arange(ROWS) % 2 + 2
    weight = long_tailed()
    truth = focal_mean(logits.double().numpy(), target.tolist(), weight=weight.tolist())
    return away(subject(logits, target, weight=weight), truth)


def untouched(subject: Subject) -> float:
    """The caller's tensors after the call."""
    logits, target = batch(13)
    options = richest(subject)
    before = [x.clone() for x in (logits, target, *(v for v in options.values() if isinstance(v, Tensor)))]
    subject(logits, target, **options)
    after = (logits, target, *(v for v in options.values() if isinstance(v, Tensor)))
    return max(float((x - y).abs().max()) for x, y in zip(before, after, strict=True))


def richest(subject: Subject) -> dict[str, Any]:
    """All of weight and gamma that the subject has."""
    options: dict[str, Any] = {"weight": long_tailed(ratio=100.0), "gamma": 2.0}
    return {name: option for name, option in options.items() if name in subject.offers}


def a_property(name: str, meaning: str, needs: str, error: Any, limit: float = SAME) -> Property:
    """Needs as words; a property of a softmax loss unless ``sigmoid`` is among them."""
    words = frozenset(needs.split())
    return Property(name, meaning, words if "sigmoid" in words else words | {"softmax"}, error, limit)


UNEVEN = {"weight": long_tailed()}
FORMULAS = (
    a_property("mean over rows", "not over rows times classes", "", mean_over_rows),
    a_property("cross-entropy", "equals the float64 formula", "", value),
    a_property("focal", "equals the float64 formula, gamma 2", "gamma", lambda s: value(s, gamma=2.0)),
    a_property("weighted mean", "divides by the sum of the rows' weights", "weight", lambda s: value(s, **UNEVEN)),
    a_property(
        "weighted focal",
        "takes p from the unweighted loss, and divides by the weights",
        "weight gamma",
        lambda s: value(s, gamma=2.0, **UNEVEN),
    ),
    a_property("smoothing", "equals the float64 formula", "label_smoothing", lambda s: value(s, label_smoothing=0.1)),
    a_property(
        "weighted smoothing",
        "equals torch's formula",
        "label_smoothing weight",
        lambda s: value(s, label_smoothing=0.1, **UNEVEN),
    ),
    a_property("gamma 0", "is cross-entropy", "gamma", lambda s: same(s, {"gamma": 0.0}, {})),
    a_property(
        "equal weights", "are no weights", "weight", lambda s: same(s, {"weight": torch.full((CLASSES,), 3.0)}, {})
    ),
    a_property("smoothing 0", "is no smoothing", "label_smoothing", lambda s: same(s, {"label_smoothing": 0.0}, {})),
    a_property("one-hot", "has the value of the index, under weights", "soft weight", one_hot),
    a_property("permutation", "of the classes changes nothing", "", permuted),
    a_property("shift", "of a row's logits changes nothing", "", shifted, 1e-4),
    a_property("rows twice", "do not change the mean", "", duplicated),
    a_property("reductions", "none, sum and mean agree", "none sum", summed),
    a_property("more axes", "(N, K, d1, d2) is the flat batch", "dims", more_axes),
    a_property("ignored rows", "leave mean and gradient alone", "ignore_index", ignored),
    a_property(
        "ignored, weighted",
        "the same with weights",
        "ignore_index weight",
        lambda s: ignored(s, weight=UNEVEN["weight"]),
    ),
    a_property("all ignored", "gives 0 with zero gradient", "ignore_index", nothing_left, 0.0),
    a_property("some weights 0", "leave the other rows' mean", "weight", some_silent),
    a_property("all weights 0", "gives 0 with zero gradient", "weight", silent, 0.0),
    a_property("missing classes", "under weights 10^4 apart", "weight", missing),
    a_property("inputs", "are left as they were", "", untouched, 0.0),
)
