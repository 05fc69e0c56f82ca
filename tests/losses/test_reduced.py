"""The gradient made together with the loss is the one autograd finds, on every law and path."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from evenhand.losses import rows as rows_module  # noqa: E402
from evenhand.losses.functional import cross_entropy, losses_by_row  # noqa: E402
from evenhand.losses.law import Law, row_losses  # noqa: E402
from evenhand.losses.reduced import can_reduce  # noqa: E402
from evenhand.losses.reduction import reduce  # noqa: E402
from evenhand.losses.rows import RowStatistics  # noqa: E402
from evenhand.losses.shapes import Focal, Generalised, InfluenceBalanced, Poly, confidence_weighted  # noqa: E402
from evenhand.losses.slopes import losses_and_slopes, row_weights  # noqa: E402

K, N = 5, 12
SHAPES = {
    "none": None,
    "focal": Focal(2.0),
    "sharp focal": Focal(0.5, 0.25),
    "by class": Focal(torch.linspace(0, 3, K).double(), torch.linspace(0.5, 2, K).double()),
    "poly": Poly(0.7),
    "poly focal": Poly(0.7, 2.0),
    "generalised": Generalised(0.6),
    "influence": InfluenceBalanced(3.0, 0.1),
    "own": lambda gap, target, extra: confidence_weighted(gap),
}


def drawn(*shape, seed=0, low=0.2):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + low


def law(shape, mass="uniform", share=0.1, z_loss=0.01):
    share = torch.linspace(0, 0.4, K).double() if share == "by class" else share
    return Law(
        scale=drawn(K, seed=1),
        offset=drawn(K, seed=2),
        margin=drawn(K, seed=3),
        temperature=drawn(K, seed=4),
        shape=shape,
        class_weight=drawn(K, seed=5),
        label_smoothing=share,
        smoothing_mass=mass,
        z_loss=z_loss,
    )


@pytest.mark.parametrize("z_loss", [0.0, 0.02])
@pytest.mark.parametrize("share", [0.0, 0.2, "by class"])
@pytest.mark.parametrize("mass", ["uniform", "weighted"])
@pytest.mark.parametrize("shape", SHAPES)
def test_slopes_are_those_of_the_law(shape, mass, share, z_loss):
    full = law(SHAPES[shape], mass, share, z_loss)
    leaves = [(3 * drawn(N, seed=s, low=-0.5)).requires_grad_() for s in (6, 7, 8)]
    index = torch.randint(K, (N,), generator=torch.Generator().manual_seed(9))
    counted, sample, extra = drawn(N, seed=10, low=0) > 0.3, drawn(N, seed=11), drawn(N, seed=12)
    direction = full.direction(K, leaves[0])
    statistics = RowStatistics(leaves[0], leaves[1], None if direction is None else leaves[2])
    said = row_losses(
        statistics, index, full, direction=direction, counted=counted, sample_weight=sample, extra=extra
    ).numerator
    truth = torch.autograd.grad(said.sum(), leaves, allow_unused=True)
    weights = row_weights(full, index, counted, sample, leaves[0])
    with torch.no_grad():
        found, slopes = losses_and_slopes(
            statistics, index, full, weights, direction=direction, counted=counted, extra=extra
        )
    torch.testing.assert_close(found, said.detach())
    for slope, true in zip(slopes, truth, strict=True):
        zeros = torch.zeros(N, dtype=torch.float64)
        torch.testing.assert_close(zeros if slope is None else slope, zeros if true is None else true)


def by_rows(logits, target, full, reduction="mean", **options):
    words = {name: options.pop(name) for name in ("denominator", "empty") if name in options}
    return reduce(losses_by_row(logits, target, full, **options), reduction, **words)


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "sum"},
        {"denominator": "count"},
        {"denominator": torch.tensor(7.0)},
        {"ignore_index": 2, "sample_weight": drawn(N, seed=13)},
        {"ignore_index": 2, "denominator": "count"},
    ],
    ids=str,
)
def test_the_reduced_loss_is_the_reduction_of_the_rows(monkeypatch, options, blocks):
    monkeypatch.setattr(rows_module, "_CPU_BLOCK", N * K // blocks)
    target = torch.arange(N) % K
    for full in (law(Focal(2.0)), law(None, "weighted"), Law(offset=drawn(K)), Law(shape=Generalised())):
        ours, other = ((4 * drawn(N, K, low=-0.5)).requires_grad_() for _ in range(2))
        assert can_reduce(ours, full)
        for leaf, loss in ((ours, cross_entropy), (other, by_rows)):
            value = loss(leaf, target, full, **options)
            (3 * value).backward()
        torch.testing.assert_close(ours.grad, other.grad)
        torch.testing.assert_close(value, cross_entropy(ours, target, full, **options))


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
def test_saturated_rows_one_by_one(gamma):
    """In float32 near float64, from hopeless to certain, also where nothing of one row can hide behind another."""
    for level in (-200.0, -90.0, -30.0, 0.0, 8.0, 17.0, 30.0, 60.0, 85.0):
        found = []
        for dtype in (torch.float32, torch.float64):
            leaf = torch.tensor([[0.0, level, 0.0, 0.0]], dtype=dtype, requires_grad=True)
            value = cross_entropy(leaf, torch.tensor([1]), Law(shape=Focal(gamma)), reduction="sum")
            value.backward()
            found.append((value.detach().double(), leaf.grad.double()))
        (narrow, slope), (wide, truth) = found
        torch.testing.assert_close(narrow, wide, rtol=2e-5, atol=1e-37)
        torch.testing.assert_close(slope, truth, rtol=2e-5, atol=1e-37)


def test_second_derivatives():
    target = torch.tensor([0, 1, 4, -100])
    z = (4 * drawn(4, K, low=-0.5)).requires_grad_()
    for full in (law(Focal(2.0)), law(SHAPES["by class"], "weighted", "by class")):
        assert torch.autograd.gradcheck(lambda x, full=full: cross_entropy(x, target, full), z)
        assert torch.autograd.gradgradcheck(lambda x, full=full: cross_entropy(x, target, full), z)


def test_one_class_left_and_masked_classes_have_finite_gradients():
    offset = torch.tensor([0.0, -math.inf, -math.inf])
    for shape in (Focal(0.0), Focal(0.5), Poly(), Generalised(), InfluenceBalanced()):
        leaf = torch.zeros(2, 3, requires_grad=True)
        value = cross_entropy(leaf, torch.zeros(2, dtype=torch.int64), Law(offset=offset, shape=shape))
        value.backward()
        assert value.item() == 0
        assert not leaf.grad.any()


def test_what_cannot_be_reduced_goes_the_long_way():
    logits = drawn(2, K).requires_grad_()
    learned = torch.zeros(K, requires_grad=True)
    assert not can_reduce(logits, Law(shape=SHAPES["own"]))  # may hold parameters
    assert not can_reduce(logits, Law(offset=learned))
    assert not can_reduce(logits, Law(shape=Focal(learned)))
    assert not can_reduce(logits, Law(), learned[:2])
    assert not can_reduce(logits.to(torch.bfloat16), Law())
    assert not can_reduce(logits.detach(), Law())
    with torch.no_grad():
        assert not can_reduce(logits, Law())
