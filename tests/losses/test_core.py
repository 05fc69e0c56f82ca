"""The core: row statistics, the law, soft targets, layouts and reductions, against whole-tensor float64."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses import rows as rows_module  # noqa: E402
from evenhand.losses.functional import cross_entropy, losses_by_row, nll  # noqa: E402
from evenhand.losses.law import Law  # noqa: E402
from evenhand.losses.reduction import RowLosses, divide, reduce  # noqa: E402
from evenhand.losses.rows import dense_statistics, softplus  # noqa: E402
from evenhand.losses.shapes import (  # noqa: E402
    Focal,
    Generalised,
    InfluenceBalanced,
    Poly,
    confidence_weighted,
    focal,
    generalised,
    poly_focal,
)

K = 6
SHAPES = {
    "none": None,
    "focal": Focal(2.0),
    "sharp focal": Focal(0.5),
    "gamma and alpha by class": Focal(torch.linspace(0, 3, K), torch.linspace(0.5, 2, K)),
    "poly": Poly(0.7),
    "poly focal": Poly(0.7, 2.0),
    "generalised": Generalised(0.6),
}


def batch(rows=16, classes=K, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (rows,), generator=generator)


def vectors(seed=1, classes=K, dtype=torch.float64):
    """scale, offset, margin, temperature, class weight."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(5, classes, generator=generator).to(dtype)
    return drawn[0] + 0.5, 4 * drawn[1] - 2, drawn[2], drawn[3] + 0.5, 3 * drawn[4]


def full_law(shape=None, share=0.1, mass="uniform", z_loss=0.01, dtype=torch.float64):
    scale, offset, margin, temperature, weight = vectors(dtype=dtype)
    return Law(
        scale=scale,
        offset=offset,
        margin=margin,
        temperature=temperature,
        shape=shape,
        class_weight=weight,
        label_smoothing=share,
        smoothing_mass=mass,
        z_loss=z_loss,
    )


def written_out(logits, target, law, sample_weight=None):
    """The law's docstring in whole tensors, without any of its code but the shape."""
    y = target[:, None]
    z = law.temperature[y] * (law.scale * logits + law.offset)
    z = z - law.margin * F.one_hot(target, logits.shape[1])
    log_p = torch.log_softmax(z, 1)
    own = log_p.gather(1, y)[:, 0]
    gap = torch.log(torch.expm1(-own))
    loss = -own if law.shape is None else law.shape(gap, target, None)
    weight = law.class_weight[target]
    share = law.label_smoothing[target] if isinstance(law.label_smoothing, torch.Tensor) else law.label_smoothing
    masses = weight[:, None] if law.smoothing_mass == "uniform" else law.class_weight
    smooth = -(masses * log_p).sum(1) / logits.shape[1]
    total = (1 - share) * weight * loss + share * smooth + weight * law.z_loss * torch.logsumexp(z, 1) ** 2
    factor = torch.ones_like(total) if sample_weight is None else sample_weight
    return total * factor, weight * factor


@pytest.mark.parametrize("share", [0.0, 0.2, "by class"])
@pytest.mark.parametrize("mass", ["uniform", "weighted"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_law_is_what_it_says(shape, mass, share):
    share = torch.linspace(0, 0.5, K, dtype=torch.float64) if share == "by class" else share
    law = full_law(SHAPES[shape], share, mass)
    logits, target = batch()
    leaf, other = (logits.clone().requires_grad_() for _ in range(2))
    factor = torch.rand(16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, weight = losses_by_row(leaf, target, law, sample_weight=factor)[:2]
    truth, expected = written_out(other, target, law, factor)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weight, expected, rtol=1e-12, atol=0)
    for value in (found.sum() / weight.sum(), truth.sum() / expected.sum()):
        value.backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-9, atol=1e-12)


@given(
    rows=st.integers(1, 9),
    classes=st.integers(1, 9),
    options=st.sets(st.sampled_from(["scale", "offset", "row_scale", "pair_offset", "direction"])),
    seed=st.integers(0, 10**6),
)
def test_blocks_are_the_whole_tensor(rows, classes, options, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logits, target = draw(rows, classes), torch.randint(classes, (rows,), generator=generator)
    made = {"scale": draw(classes), "offset": draw(classes), "row_scale": draw(rows)}
    made |= {"pair_offset": draw(rows, classes), "direction": draw(classes)}
    change = {name: made[name] for name in sorted(options)}
    order = (change.get(name) for name in ("scale", "offset", "row_scale", "pair_offset", "direction"))
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    blockwise = dense_statistics(one, target, **change)
    gap, own, mean = rows_module.plain_statistics(other, target, *order)
    whole = [gap, own] + ([mean] if "direction" in options else [])
    found = [x for x in blockwise if x is not None]
    upstream = [draw(rows).where(x.isfinite(), 0.0) for x in whole]
    for values in (found, whole):
        sum((u * x.where(x.isfinite(), 0.0)).sum() for u, x in zip(upstream, values, strict=True)).backward()
    for x, y in zip([*found, one.grad], [*whole, other.grad], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_many_blocks_are_one(monkeypatch):
    logits, target = batch(37)
    law = full_law(Focal(2.0))
    leaf, other = (logits.clone().requires_grad_() for _ in range(2))
    whole = cross_entropy(leaf, target, law)
    monkeypatch.setattr(rows_module, "_CPU_BLOCK", 4 * K)
    monkeypatch.setattr(rows_module, "_KEPT_CELLS", 0)
    parts = cross_entropy(other, target, law)
    for value in (whole, parts):
        value.backward()
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(other.grad, leaf.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_retained_graph_gives_the_same_gradient_again(monkeypatch, dtype, kept):
    monkeypatch.setattr(rows_module, "_KEPT_CELLS", kept)
    logits, target = batch(dtype=dtype)
    leaf = logits.requires_grad_()
    value = cross_entropy(leaf, target, full_law(Focal(2.0), dtype=torch.float32))
    value.backward(retain_graph=True)
    first, leaf.grad = leaf.grad, None
    value.backward()
    assert torch.equal(first, leaf.grad)
    assert first.dtype == dtype
    assert first.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives(shape):
    logits, target = batch(3)
    law = full_law(SHAPES[shape])
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, target, law), (leaf,))
    assert torch.autograd.gradgradcheck(lambda z: cross_entropy(z, target, law), (leaf,))


@pytest.mark.parametrize("mass", ["uniform", "weighted"])
def test_learnable_parameters_have_gradients(mass):
    logits, target = batch(4)
    scale, offset, margin, temperature, weight = (x.requires_grad_() for x in vectors())

    def loss(z, s, o, m, t, w):
        law = Law(s, o, m, t, None, Focal(1.5), w, 0.1, mass, 0.01)
        return cross_entropy(z, target, law)

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), scale, offset, margin, temperature, weight))


def test_gradient_by_soft_targets_logits():
    logits, _ = batch(4)
    soft = torch.softmax(batch(4, seed=5)[0], 1)
    scale, offset, margin, _, weight = vectors()
    law = Law(scale=scale, offset=offset, margin=margin, shape=Focal(1.5), class_weight=weight, label_smoothing=0.1)
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, soft, law), (logits.requires_grad_(),))


@pytest.mark.parametrize("mass", ["uniform", "weighted"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_hot_targets_are_indices(shape, mass):
    logits, target = batch()
    law = full_law(SHAPES[shape], 0.1, mass)
    law = replace(law, temperature=None)
    found = losses_by_row(logits, F.one_hot(target, K).double(), law)
    truth = losses_by_row(logits, target, law)
    torch.testing.assert_close(found.numerator, truth.numerator, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.weight, truth.weight, rtol=1e-12, atol=0)


def test_soft_targets_are_the_average_of_the_labels():
    """Which mixup relies on: 0.3 of one label and 0.7 of another is 0.3 and 0.7 of their losses."""
    logits, one = batch()
    other = (one + 2) % K
    law = Law(shape=Focal(2.0), class_weight=vectors()[4])
    mixed = 0.3 * F.one_hot(one, K).double() + 0.7 * F.one_hot(other, K).double()
    found = losses_by_row(logits, mixed, law)
    parts = [losses_by_row(logits, y, law) for y in (one, other)]
    torch.testing.assert_close(found.numerator, 0.3 * parts[0].numerator + 0.7 * parts[1].numerator)
    torch.testing.assert_close(found.weight, 0.3 * parts[0].weight + 0.7 * parts[1].weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_is_torch_bit_for_bit(dtype, reduction, share, weighted):
    logits, target = batch(50, dtype=dtype)
    target[::7] = -100
    weight = vectors()[4].to(dtype) if weighted else None
    leaf, other = (logits.clone().requires_grad_() for _ in range(2))
    found = cross_entropy(leaf, target, Law(class_weight=weight, label_smoothing=share), reduction=reduction)
    truth = F.cross_entropy(other, target, weight, reduction=reduction, label_smoothing=share)
    for value in (found, truth):
        value.sum().backward()
    if weighted and reduction == "mean":  # divided by hand, so that weights of 0 alone are no NaN
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=0)
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-5, atol=1e-8)
    else:
        assert torch.equal(found, truth)
        assert torch.equal(leaf.grad, other.grad)


LAYOUTS = {
    "(K,)": ((K,), 1),
    "(N, K)": ((4, K), 1),
    "(N, K, d)": ((4, K, 3), 1),
    "(N, K, d, d)": ((2, K, 3, 2), 1),
    "(N, T, K)": ((4, 3, K), -1),
    "(0, K)": ((0, K), 1),
}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("law", [Law(), Law(shape=Focal(1.0))], ids=["torch", "own"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, law, soft):
    shape, class_dim = LAYOUTS[layout]
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    axis = 0 if len(shape) == 1 else class_dim
    positions = torch.empty(shape).movedim(axis, -1).shape[:-1]
    target = torch.randint(K, positions, generator=torch.Generator().manual_seed(1))
    label = F.one_hot(target, K).movedim(-1, axis).float() if soft else target
    found = cross_entropy(logits, label, law, class_dim=class_dim, reduction="none")
    assert found.shape == positions
    flat = logits.movedim(axis, -1).reshape(-1, K)
    truth = losses_by_row(flat, target.reshape(-1), law).numerator
    torch.testing.assert_close(found.reshape(-1), truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_is_computed_in_float32(shape, dtype):
    logits, target = batch(dtype=dtype)
    law = full_law(SHAPES[shape], dtype=torch.float32)
    wide = full_law(SHAPES[shape])
    tensors = {k: v.double() for k, v in vars(law).items() if isinstance(v, torch.Tensor)}
    wide = replace(wide, **tensors)
    leaf = logits.clone().requires_grad_()
    found = cross_entropy(leaf, target, law)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(cross_entropy(logits.double(), target, wide).item(), rel=1e-5)
    found.backward()
    assert leaf.grad.dtype == dtype
    other = logits.double().requires_grad_()
    cross_entropy(other, target, wide).backward()
    torch.testing.assert_close(leaf.grad.double(), other.grad, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_autocast_changes_nothing():
    logits, target = batch(dtype=torch.float32)
    law = full_law(Focal(2.0), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cross_entropy(logits, target, law)
    torch.testing.assert_close(found, cross_entropy(logits, target, law), rtol=1e-5, atol=0)


def test_weights_of_any_float_type():
    logits, target = batch(dtype=torch.float32)
    weight = torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
    truth = cross_entropy(logits, target, Law(class_weight=weight))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        torch.testing.assert_close(cross_entropy(logits, target, Law(class_weight=weight.to(dtype))), truth)


@pytest.mark.parametrize("shape", ["none", "focal", "gamma and alpha by class"])
def test_one_graph_with_everything_on(shape):
    logits, target = batch(dtype=torch.float32)
    law = full_law(SHAPES[shape], dtype=torch.float32)
    torch.compiler.reset()
    whole = torch.compile(lambda z, y: cross_entropy(z, y, law), fullgraph=True, backend="aot_eager")
    leaf, other = (logits.clone().requires_grad_() for _ in range(2))
    for value in (whole(leaf, target), cross_entropy(other, target, law)):
        value.backward()
    torch.compiler.reset()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("law", [Law(), full_law(Focal(2.0))], ids=["plain", "full"])
def test_transforms(law):
    logits, target = batch(12)
    several, labels = logits.view(3, 4, K), target.view(3, 4)

    def loss(z, y):
        return cross_entropy(z, y, law)

    mapped = torch.func.vmap(torch.func.grad(loss))(several, labels)
    each = torch.stack(
        [torch.autograd.grad(loss(z.requires_grad_(), y), z)[0] for z, y in zip(several, labels, strict=True)]
    )
    torch.testing.assert_close(mapped, each)
    values = torch.func.vmap(loss)(several, labels)
    torch.testing.assert_close(values, torch.stack([loss(z, y) for z, y in zip(several, labels, strict=True)]))
    hessian = torch.func.jacrev(torch.func.grad(loss))(logits[:2], target[:2])
    assert hessian.shape == (2, K, 2, K)
    assert hessian.isfinite().all()


def test_ignored_rows_add_nothing_even_if_infinite():
    logits, target = batch(dtype=torch.float32)
    logits[3] = float("inf")
    target[3] = 255
    law = full_law(Focal(0.5), dtype=torch.float32)
    leaf = logits.clone().requires_grad_()
    found = losses_by_row(leaf, target, law, ignore_index=255)
    kept = torch.arange(16) != 3
    assert (found.numerator[3], found.weight[3], found.counted[3]) == (0, 0, False)
    reduce(found).backward()
    truth = logits[kept].requires_grad_()
    cross_entropy(truth, target[kept], law).backward()
    torch.testing.assert_close(leaf.grad[kept], truth.grad)
    assert torch.equal(leaf.grad[3].nan_to_num(), torch.zeros(K))


@pytest.mark.parametrize("law", [Law(), Law(class_weight=torch.ones(K)), Law(shape=Focal(2.0))], ids=str)
@pytest.mark.parametrize("rows", [0, 5])
def test_nothing_counted(law, rows):
    logits = torch.randn(rows, K, requires_grad=True)
    target = torch.full((rows,), -100)
    value = cross_entropy(logits, target, law)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()
    assert cross_entropy(logits, target, law, empty="nan").isnan()


def test_weights_of_zero_alone():
    logits, target = batch(dtype=torch.float32)
    leaf = logits.requires_grad_()
    value = cross_entropy(leaf, target, Law(class_weight=torch.zeros(K)))
    value.backward()
    assert value.item() == 0
    assert not leaf.grad.any()


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 0.9, 1.0, 2.0, 5.0])
def test_saturated_rows(gamma):
    """Value and gradient in float32 near float64, from hopeless to certain."""
    levels = torch.tensor([-200.0, -90.0, -30.0, 0.0, 8.0, 17.0, 30.0, 60.0, 88.0, 104.0, 200.0])
    logits = torch.zeros(len(levels), K)
    logits[:, 1] = levels
    target = torch.ones(len(levels), dtype=torch.int64)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = logits.clone().to(dtype).requires_grad_()
        value = cross_entropy(leaf, target, Law(shape=Focal(gamma)), reduction="none")
        value.sum().backward()
        found.append((value.detach().double(), leaf.grad.double()))
    (narrow, slope), (wide, truth) = found
    assert slope.isfinite().all()
    torch.testing.assert_close(narrow, wide, rtol=2e-5, atol=1e-37)
    torch.testing.assert_close(slope, truth, rtol=2e-5, atol=1e-6)


def test_confident_rows_keep_relative_precision():
    logits = torch.tensor([[17.0, 0.0, 0.0]])
    truth = math.log1p(2 * math.exp(-17))
    assert nll(logits, torch.tensor([0]), offset=torch.zeros(3)).item() == pytest.approx(truth, rel=1e-5)
    assert softplus(torch.tensor([-50.0])).item() == pytest.approx(math.exp(-50), rel=1e-5)


def test_masked_classes_leave_the_softmax():
    logits, target = batch(classes=4, dtype=torch.float32)
    target = target % 3
    offset = torch.tensor([0.0, 0.0, 0.0, -math.inf])
    leaf = logits.clone().requires_grad_()
    value = cross_entropy(leaf, target, Law(offset=offset, shape=Focal(2.0)))
    torch.testing.assert_close(value, cross_entropy(logits[:, :3], target, Law(shape=Focal(2.0))))
    value.backward()
    assert not leaf.grad[:, 3].any()


def test_one_class_left_is_certain():
    logits = torch.randn(3, 2, requires_grad=True)
    offset = torch.tensor([0.0, -math.inf])
    value = cross_entropy(logits, torch.zeros(3, dtype=torch.int64), Law(offset=offset, shape=Focal(0.5)))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@given(st.integers(0, 10**6), st.floats(0.0, 4.0))
def test_shapes_meet_their_formulas_in_p(seed, gamma):
    gap = 3 * torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = torch.sigmoid(-gap)
    loss = -p.log()
    torch.testing.assert_close(focal(gap, gamma), (1 - p) ** gamma * loss)
    torch.testing.assert_close(poly_focal(gap, gamma, 0.5), (1 - p) ** gamma * loss + 0.5 * (1 - p) ** (gamma + 1))
    torch.testing.assert_close(generalised(gap, 0.4), (1 - p**0.4) / 0.4)
    torch.testing.assert_close(confidence_weighted(gap), p * loss)
    norm = torch.full_like(gap, 3.0)
    found = InfluenceBalanced(10.0, 1e-3)(gap, torch.zeros(20, dtype=torch.int64), norm)
    torch.testing.assert_close(found, 10 / (2 * (1 - p) * 3 + 1e-3) * loss)


def test_numerators_and_denominators_add_over_micro_batches():
    logits, target = batch(30)
    law = full_law(Focal(2.0))
    whole = losses_by_row(logits, target, law)
    parts = [losses_by_row(z, y, law) for z, y in zip(logits.split(7), target.split(7), strict=True)]
    total = sum(part.denominator() for part in parts)
    torch.testing.assert_close(sum(reduce(part, denominator=total) for part in parts), reduce(whole))
    assert abs(sum(reduce(part) for part in parts) / len(parts) - reduce(whole)) > 1e-3


def test_reductions_and_denominators():
    rows = RowLosses(torch.tensor([2.0, 6.0, 0.0]), torch.tensor([1.0, 3.0, 0.0]), torch.tensor([True, True, False]))
    assert reduce(rows).item() == 2
    assert reduce(rows, denominator="count").item() == 4
    assert reduce(rows, denominator=16.0).item() == 0.5
    assert reduce(rows, denominator=torch.tensor(2.0)).item() == 4
    assert reduce(rows, "sum").item() == 8
    assert torch.equal(reduce(rows, "none"), rows.numerator)
    assert divide(torch.tensor(3.0), torch.tensor(0.0)).item() == 0
    assert divide(torch.tensor(3.0), torch.tensor(0.0), "nan").isinf()


def wrong(**changed):
    logits, target = batch(4, dtype=torch.float32)
    arguments = {"logits": logits, "target": target, "law": Law()} | changed
    return lambda: cross_entropy(arguments.pop("logits"), arguments.pop("target"), **arguments)


BAD = {
    "integer logits": (wrong(logits=torch.ones(4, K, dtype=torch.int64)), "floating-point logits"),
    "no class axis": (wrong(logits=torch.tensor(1.0), law=Law(shape=Focal())), "class axis"),
    "no such axis": (wrong(class_dim=5, law=Law(shape=Focal())), "class_dim"),
    "no class": (wrong(logits=torch.ones(4, 0), law=Law(shape=Focal())), "at least one class"),
    "target of the wrong length": (wrong(target=torch.zeros(5, dtype=torch.int64)), r"shape \(4,\).*\(5,\)"),
    "label too large": (wrong(target=torch.tensor([0, 1, 2, K])), rf"labels in \[0, {K}\).*got {K}"),
    "label too small": (wrong(target=torch.tensor([0, -1, 2, 3])), "got -1.*ignore_index=-1"),
    "label too large, own path": (wrong(target=torch.tensor([0, 1, 2, 9]), law=Law(shape=Focal())), "got 9"),
    "classes numbered from 1": (wrong(target=torch.tensor([1, 3, 2, K])), "subtract 1"),
    "two devices": (wrong(target=torch.zeros(4, dtype=torch.int64, device="meta")), "one device, got cpu and meta"),
    "boolean target": (wrong(target=torch.zeros(4, dtype=torch.bool)), "integer type"),
    "soft target of another shape": (wrong(target=torch.ones(4, K + 1)), "soft targets of the logits' shape"),
    "soft target with ignored rows": (wrong(target=torch.ones(4, K), ignore_index=3), "sample_weight 0"),
    "soft target with a temperature": (
        wrong(target=torch.ones(4, K), law=Law(temperature=torch.ones(K))),
        "one target class|class indices",
    ),
    "weights of the wrong length": (wrong(law=Law(class_weight=torch.ones(K + 1))), f"class_weight.*{K}"),
    "offset of the wrong length": (wrong(law=Law(offset=torch.ones(2))), "offset"),
    "margin of the wrong shape": (wrong(law=Law(margin=torch.ones(K, 1))), "margin"),
    "smoothing above 1": (wrong(law=Law(label_smoothing=1.5)), r"label_smoothing in \[0, 1\)"),
    "sample weights of the wrong length": (wrong(sample_weight=torch.ones(3)), "sample_weight"),
    "another reduction": (wrong(law=Law(shape=Focal()), reduction="average"), "mean, sum, none"),
    "another denominator": (wrong(law=Law(shape=Focal()), denominator="rows"), "weights, count"),
    "another word for empty": (wrong(law=Law(shape=Focal()), empty="one"), "zero, nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_sentence_for_every_mistake(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("integer", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_integer_type(integer):
    logits, target = batch()
    torch.testing.assert_close(cross_entropy(logits, target.to(integer)), cross_entropy(logits, target))
