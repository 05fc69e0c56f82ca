"""Every registered softmax loss: the paper's formula in float64, its limiting identities, and the same symmetries."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from evenhand import losses  # noqa: E402
from evenhand.losses.modules.base import SoftmaxLoss  # noqa: E402
from evenhand.losses.registry import entry  # noqa: E402

from .oracles import ROWS as ORACLES  # noqa: E402
from .oracles import registered_mean  # noqa: E402

COUNTS = [5000, 900, 400, 120, 50, 9, 2]
K = len(COUNTS)
SETTLED = {
    "seesaw": {"online": False},
    "seql": {"gamma": 1.0},
    "gcl": {"noise": 0.0},
}  # nothing random, nothing counted
NAMES = [name for name in losses.available() if issubclass(entry(name).load(), SoftmaxLoss)]
ONE_CLASS = {"gca", "seesaw", "seql", "gcl"}  # have no meaning for soft targets
NOT_SHIFTED = {"cdt", "vs"}  # scale every class by itself
CONSTANT_FACTOR = {"influence-balanced", "seesaw"}  # hold part of the loss out of the gradient, as their papers do


def build(name, counts=COUNTS, **options):
    return losses.build(name, counts=counts, **SETTLED.get(name, {}), **options)


def batch(seed=0, rows=24, dtype=torch.float64, classes=K):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(rows, classes, generator=generator, dtype=torch.float64) * 2 - 1  # cosines, for LDAM and GCL
    return logits.to(dtype), torch.randint(classes, (rows,), generator=generator)


def slope(loss, logits, target):
    leaf = logits.clone().requires_grad_()
    loss(leaf, target).sum().backward()
    return leaf.grad


def test_every_softmax_loss_has_an_oracle():
    assert set(NAMES) == set(ORACLES)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_the_papers_formula(name, reduction):
    logits, target = batch()
    found = build(name, reduction=reduction)(logits, target)
    truth = registered_mean(name, logits.numpy(), target.tolist(), COUNTS, reduction)
    np.testing.assert_allclose(found.numpy(), truth, rtol=3e-7)  # class-wise vectors are float32


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_near_the_oracle(name):
    logits, target = batch(1, dtype=torch.float32)
    truth = registered_mean(name, logits.double().numpy(), target.tolist(), COUNTS, "mean")
    assert build(name)(logits, target).item() == pytest.approx(truth, rel=5e-6)


LIMITS = {
    "class-balanced": ({"beta": 0.0}, {}),
    "focal": ({"gamma": 0.0}, {}),
    "ldam": ({"max_margin": 0.0, "scale": 1.0}, {}),
    "logit-adjusted": ({"tau": 0.0}, {}),
    "cdt": ({"gamma": 0.0}, {}),
    "vs": ({"gamma": 0.0, "tau": 0.0}, {}),
    "poly": ({"epsilon": 0.0}, {}),
    "gce": ({"q": 1e-6}, {}),
    "gla": ({"q": 1e-6, "tau": 0.0}, {}),
    "gca": ({"q": 1e-6, "exponent": 0.0, "weight": np.ones(K)}, {}),
    "label-aware-smoothing": ({"head": 0.0, "tail": 0.0}, {}),
    "los": ({"label_smoothing": 0.0}, {}),
    "influence-balanced": ({"active": False, "weight": None}, {}),
    "seesaw": ({"p": 0.0, "q": 0.0}, {}),
    "seql": ({"gamma": 0.0}, {}),
    "gcl": ({"noise": 0.0, "margin": 0.0, "scale": 1.0}, {}),
    "vs at gamma 0": ({"gamma": 0.0}, {"name": "logit-adjusted"}),
    "vs at tau 0": ({"tau": 0.0}, {"name": "cdt"}),
    "gla at q 0": ({"q": 1e-6}, {"name": "logit-adjusted"}),
    "poly at epsilon 0": ({"epsilon": 0.0, "gamma": 2.0}, {"name": "focal", "gamma": 2.0}),
    "logit-adjusted at tau 1": ({"tau": 1.0}, {"name": "balanced-softmax"}),
    "label-aware-smoothing with head = tail": (
        {"head": 0.9, "tail": 0.9},
        {"name": "los"},
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_limit_is_the_simpler_loss(case):
    options, simpler = LIMITS[case]
    logits, target = batch(2)
    one = losses.build(case.split(" ")[0], counts=COUNTS, **options)
    other = losses.build(
        simpler.get("name", "cross-entropy"), COUNTS, **{k: v for k, v in simpler.items() if k != "name"}
    )
    torch.testing.assert_close(one(logits, target), other(logits, target), rtol=2e-5, atol=1e-9)
    torch.testing.assert_close(slope(one, logits, target), slope(other, logits, target), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["weighted", "class-balanced", "balanced-softmax", "cdt", "gce", "los"])
def test_equal_counts_make_no_difference(name):
    logits, target = batch(3)
    alike = {"weighted", "class-balanced", "balanced-softmax", "cdt"}
    other = losses.build("cross-entropy") if name in alike else losses.build(name)
    torch.testing.assert_close(losses.build(name, [70] * K)(logits, target), other(logits, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_renaming_the_classes_changes_nothing(name):
    logits, target = batch(4)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(1))
    moved = build(name, [COUNTS[i] for i in order])(logits[:, order], order.argsort()[target])
    torch.testing.assert_close(moved, build(name)(logits, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_SHIFTED))
def test_shifting_a_row_changes_nothing(name):
    logits, target = batch(5)
    shift = torch.linspace(-3, 3, len(target), dtype=torch.float64)[:, None]
    torch.testing.assert_close(build(name)(logits + shift, target), build(name)(logits, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - ONE_CLASS))
def test_one_hot_is_the_index(name):
    logits, target = batch(6)
    soft = F.one_hot(target, K).double()
    for reduction in ("mean", "none"):
        loss = build(name, reduction=reduction)
        torch.testing.assert_close(loss(logits, soft), loss(logits, target), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(slope(loss, logits, soft), slope(loss, logits, target), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", sorted(ONE_CLASS))
def test_soft_targets_without_meaning_are_refused(name):
    logits, target = batch(6)
    with pytest.raises(ValueError, match="soft targets"):
        build(name)(logits, F.one_hot(target, K).double())


@pytest.mark.parametrize("name", sorted(set(NAMES) - CONSTANT_FACTOR))
def test_derivatives(name):
    logits, target = batch(7, rows=4)
    loss = build(name)
    leaf = logits.clone().requires_grad_()
    # along random directions; tests/losses/test_core.py looks at every entry, shape by shape
    assert torch.autograd.gradcheck(lambda z: loss(z, target), (leaf,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, target), (leaf,), fast_mode=True)


def test_held_out_factors_leave_the_gradient_of_cross_entropy():
    logits, target = batch(8)
    loss = build("influence-balanced", weight=None, reduction="sum")
    p = logits.softmax(1)
    error = 1 - p.gather(1, target[:, None])
    expected = 1000 / (2 * error + 1e-3) * (p - F.one_hot(target, K))
    torch.testing.assert_close(slope(loss, logits, target), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_ignored_rows_do_not_count(name):
    logits, target = batch(9)
    loss = build(name)
    marked = target.masked_fill(torch.arange(len(target)) % 3 == 0, -100)
    kept = marked != -100
    torch.testing.assert_close(loss(logits, marked), loss(logits[kept], target[kept]), rtol=1e-12, atol=0)
    found = slope(loss, logits, marked)
    assert not found[~kept].any()
    nothing = torch.full_like(target, -100)
    assert loss(logits, nothing).item() == 0
    assert not slope(loss, logits, nothing).any()
    assert build(name, empty="nan")(logits, nothing).isnan()


@pytest.mark.parametrize("name", NAMES)
def test_saturated_rows_stay_finite_and_near_float64(name):
    levels = torch.tensor([0.0, 12.0, 30.0, 60.0, 100.0, -12.0, -30.0, -100.0])
    logits = torch.zeros(len(levels), K)
    logits[:, 3] = levels
    target = torch.full((len(levels),), 3)
    loss = build(name, reduction="sum")
    wide, narrow = (slope(loss, logits.to(t), target).double() for t in (torch.float64, torch.float32))
    assert narrow.isfinite().all()
    torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-6 * max(1.0, wide.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_computed_wide(name, dtype):
    logits, target = batch(10, dtype=dtype)
    found = build(name)(logits, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), build(name)(logits.double(), target), rtol=2e-6, atol=0)
    assert slope(build(name), logits, target).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_and_vmap(name):
    logits, target = batch(11, dtype=torch.float32)
    loss = build(name)
    if name not in {"seesaw", "seql", "gcl"}:
        torch.compiler.reset()
        whole = torch.compile(loss, fullgraph=True, backend="eager")
        torch.testing.assert_close(whole(logits, target), loss(logits, target), rtol=1e-5, atol=1e-6)
        torch.compiler.reset()
    several, labels = logits.view(3, 8, K), target.view(3, 8)
    if name not in {"seql", "gcl"}:  # draw anew for every row
        found = torch.func.vmap(torch.func.grad(loss))(several, labels)
        each = torch.stack([slope(loss, z, y) for z, y in zip(several, labels, strict=True)])
        torch.testing.assert_close(found, each, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_chunked_is_dense(name):
    linear = pytest.importorskip("evenhand.losses.linear")
    generator = torch.Generator().manual_seed(12)
    features = torch.randn(24, 6, generator=generator, dtype=torch.float64)
    head = torch.randn(K, 6, generator=generator, dtype=torch.float64) / 6
    target = torch.randint(K, (24,), generator=generator)
    loss = build(name)
    one, other = ([x.clone().requires_grad_() for x in (features, head)] for _ in range(2))
    chunked = linear.linear_cross_entropy(*one, target, loss.law(), chunk_rows=5, denominator=loss.divisor)
    dense = loss(other[0] @ other[1].T, target)
    torch.testing.assert_close(chunked, dense, rtol=1e-10, atol=0)
    for value in (chunked, dense):
        value.backward()
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_classes_without_rows_are_finite(name):
    logits, target = batch(13)
    loss = build(name, [5000, 900, 0, 120, 50, 9, 0])
    assert math.isfinite(loss(logits, target).item())
    assert slope(loss, logits, target).isfinite().all()
