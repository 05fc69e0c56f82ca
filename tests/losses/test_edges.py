"""The softmax losses in a hostile user's hands: layouts, empty batches, dtypes, modes of autograd, wrong types."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from torch import Tensor  # noqa: E402

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses.decisions.implied import PosteriorRule  # noqa: E402
from evenhand.losses.decisions.rule import DecisionRule  # noqa: E402
from evenhand.losses.functional import cross_entropy, losses_by_row  # noqa: E402
from evenhand.losses.law import Law  # noqa: E402
from evenhand.losses.modules.base import SoftmaxLoss  # noqa: E402
from evenhand.losses.multilabel.label_rule import LabelRule  # noqa: E402
from evenhand.losses.shapes import Focal, Generalised, InfluenceBalanced, Poly  # noqa: E402

K, N = 5, 7
WEIGHT = torch.tensor([0.2, 0.5, 1.0, 2.0, 4.0])
LAWS = {
    "plain": Law(),
    "weighted": Law(class_weight=WEIGHT),
    "offset": Law(offset=WEIGHT.log()),
    "smoothed": Law(offset=WEIGHT.log(), class_weight=WEIGHT, label_smoothing=0.1),
    "focal": Law(shape=Focal(0.5), scale=WEIGHT),
}
each_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


def batch(rows: int = N, dtype: Any = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(rows, K, generator=g, dtype=dtype), torch.randint(0, K, (rows,), generator=g)


# Layouts


@each_law
def test_the_class_axis_is_where_it_is_said_to_be(law: Law) -> None:
    z, y = batch(K)  # as many rows as classes: a mixed-up axis would not be noticed by its length
    expected = cross_entropy(z, y, law)
    for axis, turned in ((1, z), (-1, z), (0, z.T), (-2, z.T)):
        torch.testing.assert_close(cross_entropy(turned, y, law, class_dim=axis), expected)
        assert not torch.isclose(cross_entropy(turned.T, y, law, class_dim=axis), expected)


@each_law
def test_dense_predictions(law: Law) -> None:
    z, y = batch(12)
    expected = cross_entropy(z, y, law, reduction="none").view(2, 3, 2)
    deep = z.view(2, 3, 2, K)
    for axis, turned in ((-1, deep), (3, deep), (1, deep.movedim(-1, 1)), (-3, deep.movedim(-1, 1))):
        found = cross_entropy(turned, y.view(2, 3, 2), law, class_dim=axis, reduction="none")
        torch.testing.assert_close(found, expected)


@each_law
def test_a_single_row_has_no_row_axis(law: Law) -> None:
    z, y = batch(1)
    for axis in (1, 0, -1):
        found = cross_entropy(z[0], y[0], law, class_dim=axis, reduction="none")
        assert found.shape == ()
        torch.testing.assert_close(found, cross_entropy(z, y, law, reduction="none")[0])


@each_law
def test_strided_and_broadcast_logits(law: Law) -> None:
    wide = torch.randn(2 * N, 2 * K)
    y = batch()[1]
    part = wide[::2, 1::2]
    torch.testing.assert_close(cross_entropy(part, y, law), cross_entropy(part.contiguous(), y, law))
    row = torch.randn(1, K, requires_grad=True)
    copied = row.detach().repeat(N, 1).requires_grad_()
    cross_entropy(row.expand(N, K), y, law).backward()
    cross_entropy(copied, y, law).backward()
    torch.testing.assert_close(row.grad, copied.grad.sum(0, keepdim=True))


@each_law
@pytest.mark.parametrize("soft", [False, True])
def test_an_empty_batch_is_zero_with_zero_gradient(law: Law, soft: bool) -> None:
    z = torch.randn(0, K, requires_grad=True)
    target = torch.empty(0, K) if soft else torch.empty(0, dtype=torch.int64)
    loss = cross_entropy(z, target, law)
    loss.backward()
    assert loss.item() == 0
    assert z.grad.shape == (0, K)
    assert math.isnan(cross_entropy(z, target, law, empty="nan").item())
    assert cross_entropy(z, target, law, reduction="none").shape == (0,)
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    assert cross_entropy(torch.randn(2, K, 0), nothing, law).item() == 0


@pytest.mark.parametrize("shape", [None, Focal(0.5), Poly(1.0, 2.0), Generalised(0.7)])
@pytest.mark.parametrize("soft", [False, True])
def test_one_class_is_certain(shape: Any, soft: bool) -> None:
    z = torch.randn(N, 1, requires_grad=True)
    target = torch.ones(N, 1) if soft else torch.zeros(N, dtype=torch.int64)
    loss = cross_entropy(z, target, Law(shape=shape, offset=torch.ones(1)))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(z.grad, torch.zeros_like(z))


# Numbers


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_autocast_changes_nothing(soft: bool, learned: bool) -> None:
    z, y = batch(40)
    target = F.one_hot(y, K).float() if soft else y
    law = Law(offset=WEIGHT.log().requires_grad_(learned), class_weight=WEIGHT, label_smoothing=0.3)
    expected = cross_entropy(z, target, law)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cross_entropy(z, target, law), expected)


@pytest.mark.parametrize("shape", [None, Focal(0.5), Focal(2.0), Poly(), Generalised()])
def test_soft_targets_leave_a_masked_class_alone(shape: Any) -> None:
    z, y = batch()
    y = y.clamp(max=K - 2)
    law = Law(shape=shape, offset=torch.tensor([0.0] * (K - 1) + [-math.inf]), z_loss=0.01)
    soft, hard = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss, expected = cross_entropy(soft, F.one_hot(y, K).float(), law), cross_entropy(hard, y, law)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(soft.grad, hard.grad)


def test_soft_targets_use_the_rows_extra_number() -> None:
    z, y = batch()
    norm = torch.linspace(0.5, 4, N)
    law = Law(shape=InfluenceBalanced())
    torch.testing.assert_close(
        cross_entropy(z, F.one_hot(y, K).float(), law, extra=norm), cross_entropy(z, y, law, extra=norm)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_class_weights_of_any_type(dtype: Any) -> None:
    z, y = batch()
    weight = torch.tensor([1, 2, 3, 4, 8])
    expected = F.cross_entropy(z, y, weight.float())
    torch.testing.assert_close(cross_entropy(z, y, Law(class_weight=weight.to(dtype))), expected)
    z64 = z.double()
    assert cross_entropy(z64, y, Law(class_weight=weight.to(dtype))).dtype == torch.float64


# Modes of autograd


def test_every_parameter_can_be_learned() -> None:
    z, y = batch(dtype=torch.float64)
    z.requires_grad_()
    parts = [WEIGHT.double().add(0.1 * i).requires_grad_() for i in range(7)]

    def loss(
        z: Tensor, scale: Tensor, offset: Tensor, margin: Tensor, t: Tensor, w: Tensor, g: Tensor, e: Tensor
    ) -> Tensor:
        law = Law(scale, offset, margin, t, shape=Focal(g), class_weight=w, label_smoothing=e / 10)
        return cross_entropy(z, y, law)

    assert torch.autograd.gradcheck(loss, (z, *parts))
    assert torch.autograd.gradgradcheck(loss, (z, *parts))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("offset", [None, WEIGHT.double()])
def test_class_weights_can_be_learned_wherever_they_enter(smoothing: float, offset: Tensor | None) -> None:
    z, y = batch(dtype=torch.float64)
    z.requires_grad_()
    weight = WEIGHT.double().requires_grad_()

    def loss(z: Tensor, w: Tensor) -> Tensor:
        return cross_entropy(z, y, Law(class_weight=w, offset=offset, label_smoothing=smoothing))

    assert torch.autograd.gradcheck(loss, (z, weight))


@each_law
def test_sample_weights_have_both_derivatives(law: Law) -> None:
    z, y = batch(dtype=torch.float64)
    z.requires_grad_()
    weight = torch.rand(N, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: cross_entropy(a, y, law, sample_weight=b), (z, weight))
    assert torch.autograd.gradgradcheck(lambda a, b: cross_entropy(a, y, law, sample_weight=b), (z, weight))


@each_law
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # forward mode's own, on first use
def test_forward_mode_and_hessians(law: Law) -> None:
    z, y = batch(dtype=torch.float64)
    direction = torch.randn_like(z)
    x = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(x, y, law), x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, direction)
        tangent = torch.autograd.forward_ad.unpack_dual(cross_entropy(dual, y, law)).tangent
    torch.testing.assert_close(tangent, (gradient * direction).sum())
    hessian = torch.func.hessian(lambda a: cross_entropy(a, y, law))(z)
    assert torch.isfinite(hessian).all()
    torch.testing.assert_close(hessian, hessian.permute(2, 3, 0, 1))


@each_law
def test_inference_mode_and_no_grad(law: Law) -> None:
    z, y = batch()
    expected = cross_entropy(z, y, law)
    z.requires_grad_()
    with torch.inference_mode():
        torch.testing.assert_close(cross_entropy(z, y, law).clone(), expected)
        inner = z * 1
    torch.testing.assert_close(cross_entropy(inner, y, law), expected)
    with torch.no_grad():
        assert not cross_entropy(z, y, law).requires_grad


@each_law
def test_backward_twice_and_checkpointed(law: Law) -> None:
    z, y = batch()
    once, twice, again = (z.clone().requires_grad_() for _ in range(3))
    cross_entropy(once, y, law).backward()
    loss = cross_entropy(twice, y, law)
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(twice.grad, 2 * once.grad)
    torch.utils.checkpoint.checkpoint(lambda x: cross_entropy(x, y, law), again, use_reentrant=False).backward()
    torch.testing.assert_close(again.grad, once.grad)


def test_logits_changed_in_place_do_not_change_the_gradient() -> None:
    z, y = batch()
    once = z.clone().requires_grad_()
    cross_entropy(once, y, LAWS["offset"]).backward()
    leaf = z.clone().requires_grad_()
    logits = leaf * 1
    loss = cross_entropy(logits, y, LAWS["offset"])
    logits.mul_(2)  # torch's own loss allows it, too: the gradient is made of what it has seen
    loss.backward()
    torch.testing.assert_close(leaf.grad, once.grad)
    logits = leaf * 1
    rows = losses_by_row(logits, y, LAWS["offset"])
    logits.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        rows.numerator.sum().backward()


# Modules


def test_modules_are_copied_saved_and_moved_whole() -> None:
    z, y = batch()
    criterion = SoftmaxLoss(WEIGHT, counts=[5, 4, 3, 2, 1], label_smoothing=0.1)
    stored = io.BytesIO()
    torch.save(criterion, stored)
    stored.seek(0)
    expected = criterion(z, y)
    for other in (copy.deepcopy(criterion), torch.load(stored, weights_only=False), copy.deepcopy(criterion).half()):
        assert torch.equal(other(z, y), expected)
        assert other.weight.dtype == torch.float32
    assert dict(criterion.state_dict()) == {}
    assert criterion.to("meta").weight.device.type == "meta"


SCORES = [[3, 2]]


@pytest.mark.parametrize("kind", ["DecisionRule", "LabelRule", "PosteriorRule"])
def test_a_rule_does_not_cut_off_what_it_adds(kind: str) -> None:
    rules: dict[str, Any] = {"DecisionRule": DecisionRule, "LabelRule": LabelRule, "PosteriorRule": PosteriorRule}
    rule = rules[kind]("accuracy", np.array([0.5, 1.5]), np.array([0.4, -0.9]), exact=True, why="")
    exact = rule.apply(np.array(SCORES, dtype=np.float64))
    for whole in (SCORES, np.array(SCORES), np.array(SCORES, dtype="f4")):
        np.testing.assert_allclose(rule.apply(whole), exact, rtol=1e-6)
    for dtype in (torch.int64, torch.float32, torch.float64):
        np.testing.assert_allclose(rule.apply(torch.tensor(SCORES).to(dtype)).numpy(), exact, rtol=1e-6)
    with pytest.raises(InputError, match=r"got shape \(1, 3\)"):
        rule.apply([[1, 2, 3]])


def test_half_precision_makes_no_ties() -> None:
    rule = DecisionRule("accuracy", np.ones(2), np.array([100.0, 100.1]), exact=True, why="")
    for z in (torch.zeros(1, 2, dtype=torch.bfloat16), np.zeros((1, 2), dtype=np.float16)):
        assert rule.predict(z).tolist() == [1]
    labels = LabelRule("accuracy", np.ones(2), np.array([-300.0, -301.0]), exact=True, why="")
    assert labels.predict(torch.full((1, 2), 300.5).half()).tolist() == [[True, False]]


# Words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda z, y: cross_entropy(z, y.numpy()), "target to be a torch tensor, got ndarray"),
        (lambda z, y: cross_entropy(z.tolist(), y), "logits to be a torch tensor, got list"),
        (lambda z, y: cross_entropy(z, y, class_dim=5), "class_dim"),
        (lambda z, y: cross_entropy(z, y, reduction="avg"), "reduction"),
        (lambda z, y: cross_entropy(z, y, reduction="none", denominator="row"), "denominator"),
        (lambda z, y: cross_entropy(z, y, reduction="none", empty="bad"), "empty"),
        (lambda z, y: cross_entropy(z, y, Law(label_smoothing=1.0)), "label_smoothing"),
        (lambda z, y: cross_entropy(z, y, Law(label_smoothing=math.nan)), "label_smoothing"),
        (lambda z, y: cross_entropy(z, y, Law(shape=Focal(torch.ones(K - 2)))), r"gamma of shape \(5,\)"),
        (lambda z, y: cross_entropy(z, y, Law(shape=Focal(2.0, torch.ones(K + 2)))), r"alpha of shape \(5,\)"),
        (lambda z, y: cross_entropy(z, y > 1), "integer type"),
        (lambda z, y: cross_entropy(z, F.one_hot(y, K)), "target of shape"),
        (lambda z, y: cross_entropy(z.to(torch.complex64), y), "floating-point"),
    ],
)
def test_mistakes_are_told_in_one_sentence(wrong: Callable[[Tensor, Tensor], Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        wrong(*batch())
    assert "\n" not in str(caught.value)
