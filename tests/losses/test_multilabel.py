"""Sigmoid losses: float64 oracles from the papers, limits, saturation, masks, layouts, reductions, thresholds."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from torch import Tensor  # noqa: E402

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses import (  # noqa: E402
    AsymmetricLoss,
    DistributionBalancedLoss,
    SigmoidFocalLoss,
    SigmoidLoss,
)
from evenhand.losses.multilabel import rows as sigmoid_rows  # noqa: E402
from evenhand.losses.multilabel.functional import sigmoid_cross_entropy, sigmoid_row_losses  # noqa: E402
from evenhand.losses.multilabel.label_rule import threshold  # noqa: E402
from evenhand.losses.multilabel.law import SigmoidLaw  # noqa: E402
from evenhand.losses.reduction import reduce  # noqa: E402

K = 6
COUNTS = np.array([400, 120, 40, 9, 1, 0])
ROWS = 500


def batch(rows: int = 12, *, soft: bool = False, spread: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """float64 logits and targets, about a third of them positive; the first row without any label."""
    g = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(rows, K, generator=g, dtype=torch.float64)
    u = torch.rand(rows, K, generator=g, dtype=torch.float64)
    y = u if soft else (u < 0.35).double()
    if not soft:
        y[0] = 0
    return z, y


def log_p(z: Tensor) -> Tensor:
    return -torch.logaddexp(torch.zeros_like(z), -z)


# Each oracle is the paper's formula, entry by entry, in float64.


def focal_oracle(z: Tensor, y: Tensor, alpha: Any = 0.25, gamma: Any = 2.0) -> Tensor:
    p = log_p(z).exp()
    return -alpha * y * (1 - p) ** gamma * log_p(z) - (1 - alpha) * (1 - y) * p**gamma * log_p(-z)


def asl_oracle(z: Tensor, y: Tensor, pos: Any = 0.0, neg: Any = 4.0, clip: float = 0.05) -> Tensor:
    p = log_p(z).exp()
    q = (p - clip).clamp(min=0)
    return -y * (1 - p) ** pos * log_p(z) - (1 - y) * q**neg * torch.log(1 - q)


def db_oracle(
    z: Tensor,
    y: Tensor,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
    lam: float = 2.0,
    kappa: float = 0.05,
    gamma: float = 2.0,
) -> Tensor:
    n = np.maximum(COUNTS, 1)
    out = torch.empty_like(z)
    for i in range(len(z)):
        repeat = sum(float(y[i, j]) / n[j] for j in range(K))
        for k in range(K):
            r = (1 / n[k]) / repeat if repeat else math.inf
            weight = alpha + 1 / (1 + math.exp(-min(700.0, beta * (r - mu))))
            u = z[i, k] + kappa / lam * -math.log(ROWS / n[k] - 1)
            p, q = torch.sigmoid(u), torch.sigmoid(lam * u)
            positive = (1 - p) ** gamma * torch.log1p(torch.exp(-u))
            negative = q**gamma * torch.log1p(torch.exp(lam * u)) / lam
            out[i, k] = weight * (y[i, k] * positive + (1 - y[i, k]) * negative)
    return out


GAMMAS = torch.tensor([0.0, 0.3, 0.5, 1.0, 2.0, 5.0])
ALPHAS = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
CASES: dict[str, tuple[Callable[[], SigmoidLoss], Callable[[Tensor, Tensor], Tensor]]] = {
    "focal": (SigmoidFocalLoss, focal_oracle),
    "focal-half": (lambda: SigmoidFocalLoss(gamma=0.5, alpha=None), lambda z, y: 2 * focal_oracle(z, y, 0.5, 0.5)),
    "focal-by-class": (
        lambda: SigmoidFocalLoss(gamma=GAMMAS, alpha=ALPHAS),
        lambda z, y: focal_oracle(z, y, ALPHAS.double(), GAMMAS.double()),
    ),
    "asl": (AsymmetricLoss, asl_oracle),
    "asl-code": (lambda: AsymmetricLoss(gamma_pos=1.0), lambda z, y: asl_oracle(z, y, 1.0)),
    "asl-clip-only": (
        lambda: AsymmetricLoss(gamma_neg=0.0, clip=0.3),
        lambda z, y: asl_oracle(z, y, 0.0, 0.0, 0.3),
    ),
    "asl-by-class": (
        lambda: AsymmetricLoss(gamma_pos=GAMMAS, gamma_neg=GAMMAS.flip(0), clip=0.5),
        lambda z, y: asl_oracle(z, y, GAMMAS.double(), GAMMAS.flip(0).double(), 0.5),
    ),
    "db": (lambda: DistributionBalancedLoss(COUNTS, rows=ROWS), db_oracle),
    "db-no-focal": (
        lambda: DistributionBalancedLoss(COUNTS, rows=ROWS, gamma=0.0, mu=0.3, negative_scale=5.0, kappa=0.1),
        lambda z, y: db_oracle(z, y, mu=0.3, lam=5.0, kappa=0.1, gamma=0.0),
    ),
}
case = pytest.mark.parametrize("name", CASES)


def made(name: str, **options: Any) -> SigmoidLoss:
    criterion = CASES[name][0]()
    for key, value in options.items():
        setattr(criterion, key, value)
    return criterion


@case
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_are_the_papers(name: str, soft: bool) -> None:
    z, y = batch(soft=soft)
    z.requires_grad_()
    ours = made(name, reduction="none")(z, y)
    oracle = CASES[name][1](z, y)
    # buffers are float32: the papers' constants are rounded once
    torch.testing.assert_close(ours, oracle, rtol=2e-6, atol=1e-9)
    up = torch.randn_like(z)
    (mine,) = torch.autograd.grad((ours * up).sum(), z)
    (theirs,) = torch.autograd.grad((oracle * up).sum(), z)
    torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=1e-8)


@case
def test_gradients_of_both_orders_are_those_of_the_value(name: str) -> None:
    z, y = batch(4, soft=True)
    z.requires_grad_()
    hard = (y > 0.6).double()
    for target in (y, hard):
        for reduction in ("mean", "none"):
            loss = partial(made(name, reduction=reduction), target=target)
            assert torch.autograd.gradcheck(loss, (z,))
            assert torch.autograd.gradgradcheck(loss, (z,))


@case
def test_the_blocks_are_the_plain_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = batch(40)
    law = made(name).law()
    whole = z.clone().requires_grad_()
    total = sigmoid_rows._plain(whole, y, None, law.beside(z), True)
    total.sum().backward()
    monkeypatch.setattr(sigmoid_rows, "_CPU_BLOCK", 7 * K)
    cut = z.clone().requires_grad_()
    rows = sigmoid_rows.summed_losses(cut, y, law)
    rows.sum().backward()
    torch.testing.assert_close(rows, total, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(cut.grad, whole.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.3, 0.5, 0.99, 1.0, 2.0, 7.5])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("soft", [False, True])
def test_saturated_logits_stay_finite_and_right(gamma: float, clip: float, soft: bool) -> None:
    edge = math.log(clip / (1 - clip)) if clip else 0.0
    z = torch.tensor(
        [-200, -104, -90, -40, -17, edge - 0.01, edge + 0.01, 3, 17, 40, 90, 104, 200], dtype=torch.float32
    )
    y = torch.tensor([[0.0], [1.0], [0.3 if soft else 1.0]])
    law = SigmoidLaw(gamma_positive=gamma, gamma_negative=gamma, clip=clip)
    found = []
    for dtype in (torch.float32, torch.float64):
        x = z.to(dtype).expand(3, -1).contiguous().requires_grad_()
        loss = sigmoid_cross_entropy(x, y.expand(3, len(z)).to(dtype), law, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
        (again,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(again.sum(), x)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()
        assert torch.isfinite(again).all()
        assert torch.isfinite(second).all()
        found.append((loss.double(), gradient.double(), again.double()))
    for narrow, wide in zip(*found, strict=True):
        torch.testing.assert_close(narrow, wide, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found[1][1], found[1][2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_infinite_logits_of_masked_classes_cost_nothing(gamma: float) -> None:
    z = torch.tensor([[-math.inf, 1.0, math.inf]], requires_grad=True)
    law = SigmoidLaw(gamma_positive=gamma, gamma_negative=torch.full((3,), gamma))
    loss = sigmoid_cross_entropy(z, torch.tensor([[0.0, 1.0, 1.0]]), law, reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) * (1 / (1 + math.e)) ** gamma, rel=1e-5)
    assert torch.isfinite(z.grad).all()


def test_plain_is_torchs_to_the_last_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        z, y = (x.to(dtype) for x in batch())
        for reduction in ("mean", "sum", "none"):
            expected = F.binary_cross_entropy_with_logits(z, y, reduction=reduction)
            assert torch.equal(sigmoid_cross_entropy(z, y, reduction=reduction), expected)
            assert torch.equal(SigmoidLoss(reduction=reduction)(z, y.bool()), expected)


@pytest.mark.parametrize(
    "criterion",
    [
        SigmoidFocalLoss(gamma=torch.zeros(K), alpha=None),
        AsymmetricLoss(gamma_pos=torch.zeros(K), gamma_neg=torch.zeros(K), clip=0.0),
        DistributionBalancedLoss(
            COUNTS, rows=ROWS, gamma=0.0, kappa=0.0, negative_scale=1.0 + 1e-15, rebalance=False, denominator="elements"
        ),
    ],
    ids=["focal", "asymmetric", "distribution-balanced"],
)
def test_with_every_option_neutral_it_is_binary_cross_entropy(criterion: SigmoidLoss) -> None:
    z, y = batch(soft=True)
    torch.testing.assert_close(criterion(z, y), F.binary_cross_entropy_with_logits(z, y), rtol=1e-12, atol=0)
    row = criterion.rows(z, y)
    torch.testing.assert_close(reduce(row), F.binary_cross_entropy_with_logits(z, y), rtol=1e-12, atol=0)


def test_asymmetric_with_equal_gammas_and_no_clip_is_focal_without_alpha() -> None:
    z, y = batch()
    focal, asl = SigmoidFocalLoss(alpha=None, gamma=3.0), AsymmetricLoss(gamma_pos=3.0, gamma_neg=3.0, clip=0.0)
    assert torch.equal(focal(z, y), asl(z, y))


def test_a_vanishing_clip_is_no_clip() -> None:
    z, y = batch()
    torch.testing.assert_close(AsymmetricLoss(clip=1e-12)(z, y), AsymmetricLoss(clip=0.0)(z, y), rtol=1e-9, atol=1e-12)


def test_detached_focus_keeps_the_value_and_drops_the_factors_slope() -> None:
    for y in (batch()[1], batch(soft=True)[1]):
        for clip in (0.0, 0.05):
            z = batch()[0].requires_grad_()
            p = torch.sigmoid(z)
            q = (p - clip).clamp(min=0)
            weight = (1 - p.detach()) ** 1.0, q.detach() ** 4.0
            oracle = -(y * weight[0] * log_p(z) + (1 - y) * weight[1] * torch.log(1 - q)).sum()
            loss = AsymmetricLoss(gamma_pos=1.0, clip=clip, detach_focus=True, reduction="sum")(z, y)
            torch.testing.assert_close(loss, oracle)
            mine, theirs = (torch.autograd.grad(x, z)[0] for x in (loss, oracle))
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@case
def test_classes_have_no_order(name: str) -> None:
    z, y = batch()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    if name.startswith("db"):
        there = DistributionBalancedLoss(COUNTS[order.numpy()], rows=ROWS, reduction="none")
        here = DistributionBalancedLoss(COUNTS, rows=ROWS, reduction="none")
    else:
        here, there = made(name, reduction="none"), made(name, reduction="none")
        for key, value in list(there._buffers.items()):
            there._buffers[key] = value[order]
    torch.testing.assert_close(there(z[:, order], y[:, order]), here(z, y)[:, order])


@case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_computed_in_float32(name: str, dtype: Any) -> None:
    z, y = batch(64)
    narrow = z.to(dtype).requires_grad_()
    wide = narrow.detach().double().requires_grad_()
    criterion = made(name).to(dtype)
    loss = criterion(narrow, y)
    loss.backward()
    exact = criterion(wide, y)
    exact.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=2e-6, atol=0)
    assert narrow.grad.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=step, atol=2 * torch.finfo(dtype).tiny)


@case
def test_ignored_entries_are_as_if_they_were_not_there(name: str) -> None:
    z, y = batch(8)
    gone = torch.rand(8, K, generator=torch.Generator().manual_seed(3)) < 0.4
    gone[2] = True
    dirty = z.clone()
    dirty[gone] = torch.tensor([math.nan, math.inf, -math.inf]).double().repeat(20)[: int(gone.sum())]
    dirty.requires_grad_()
    entry = made(name, reduction="none")(z, torch.where(gone, 0.0, y))
    loss = made(name)(dirty, torch.where(gone, -1.0, y))
    torch.testing.assert_close(loss, entry[~gone].mean())
    (gradient,) = torch.autograd.grad(loss, dirty, create_graph=True)
    assert (gradient[gone] == 0).all()
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(torch.autograd.grad(gradient.square().sum(), dirty)[0]).all()
    rows = made(name).rows(dirty, torch.where(gone, -1.0, y))
    assert rows.weight.tolist() == (~gone).sum(1).tolist()
    assert rows.counted.tolist() == (~gone).any(1).tolist()
    whole = torch.where(gone, 255, y).to(torch.uint8)
    torch.testing.assert_close(made(name, ignore_index=255)(dirty, whole), loss)


def test_everything_ignored_is_zero_or_nan_on_request() -> None:
    z = torch.randn(3, K, requires_grad=True)
    nothing = torch.full((3, K), -1)
    loss = SigmoidFocalLoss()(z, nothing)
    loss.backward()
    assert loss.item() == 0
    assert (z.grad == 0).all()
    assert math.isnan(SigmoidFocalLoss(empty="nan")(z, nothing).item())
    assert SigmoidLoss()(z[:0], nothing[:0]).item() == 0
    assert math.isnan(SigmoidLoss(empty="nan")(z[:0], nothing[:0]).item())
    assert SigmoidLoss(reduction="none")(z[:0], nothing[:0]).shape == (0, K)


def test_layouts_agree() -> None:
    z, y = batch(12)
    criterion = SigmoidFocalLoss(gamma=GAMMAS, alpha=ALPHAS)
    flat, entries = criterion(z, y), made("focal-by-class", reduction="none")(z, y)
    last = SigmoidFocalLoss(gamma=GAMMAS, alpha=ALPHAS, class_dim=-1)
    torch.testing.assert_close(last(z.view(3, 2, 2, K), y.view(3, 2, 2, K)), flat)
    image = z.view(3, 4, K).movedim(-1, 1)
    assert not image.is_contiguous()
    torch.testing.assert_close(criterion(image, y.view(3, 4, K).movedim(-1, 1)), flat)
    apart = made("focal-by-class", reduction="none")(image, y.view(3, 4, K).movedim(-1, 1))
    torch.testing.assert_close(apart, entries.view(3, 4, K).movedim(-1, 1))
    torch.testing.assert_close(made("focal-by-class", reduction="none")(z[0], y[0]), entries[0])
    assert criterion.rows(image, y.view(3, 4, K).movedim(-1, 1)).numerator.shape == (3, 4)
    weight = torch.rand(3, 4, dtype=torch.float64)
    torch.testing.assert_close(
        apart.sum() * 0 + criterion(image, y.view(3, 4, K).movedim(-1, 1), weight),
        (entries.view(3, 4, K) * weight[..., None]).sum() / (K * weight.sum()),
    )


def test_denominators() -> None:
    z, y = batch(12, soft=True)
    entries = made("focal", reduction="none")(z, y)
    for denominator, divisor in (("elements", 12 * K), ("positives", y.sum()), ("rows", 12)):
        torch.testing.assert_close(SigmoidFocalLoss(denominator=denominator)(z, y), entries.sum() / divisor)
        rows = SigmoidFocalLoss(denominator=denominator).rows(z, y)
        torch.testing.assert_close(rows.weight.sum(), torch.as_tensor(divisor, dtype=torch.float64))
    law = SigmoidFocalLoss().law()
    torch.testing.assert_close(sigmoid_cross_entropy(z, y, law, denominator=7.0), entries.sum() / 7)
    torch.testing.assert_close(sigmoid_cross_entropy(z, y, law, reduction="sum"), entries.sum())


def test_a_batch_without_positives_still_trains_the_negatives() -> None:
    z = torch.randn(4, K, requires_grad=True)
    loss = SigmoidFocalLoss(denominator="positives")(z, torch.zeros(4, K))
    loss.backward()
    assert loss.item() > 0
    assert (z.grad > 0).all()
    torch.testing.assert_close(loss, SigmoidFocalLoss(reduction="sum")(z, torch.zeros(4, K)))


@pytest.mark.parametrize("denominator", ["elements", "positives", "rows"])
def test_sums_of_parts_are_the_whole(denominator: Any) -> None:
    z, y = batch(20)
    y[3, 2] = -1
    weight = torch.rand(20, dtype=torch.float64)
    criterion = SigmoidFocalLoss(denominator=denominator)
    parts = [criterion.rows(z[i : i + 7], y[i : i + 7], weight[i : i + 7]) for i in range(0, 20, 7)]
    total = sum(p.numerator.sum() for p in parts) / sum(p.weight.sum() for p in parts)
    torch.testing.assert_close(total, criterion(z, y, weight))


def test_sample_weights_have_gradients() -> None:
    z, y = batch(4)
    weight = torch.rand(4, dtype=torch.float64, requires_grad=True)
    z.requires_grad_()
    criterion = SigmoidFocalLoss()
    assert torch.autograd.gradcheck(lambda x, w: criterion(x, y, w), (z, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: criterion(x, y, w), (z, weight))


def test_learnable_parameters_and_targets_have_gradients() -> None:
    z, y = batch(3, soft=True)
    parts = [torch.rand(K, dtype=torch.float64).add_(0.5).requires_grad_() for _ in range(6)]
    y.requires_grad_()

    def loss(y: Tensor, *parts: Tensor) -> Tensor:
        scale, offset, a, b, gp, gn = parts
        law = SigmoidLaw(scale, offset, a, b, gp, gn, clip=0.05)
        return sigmoid_cross_entropy(z, y, law)

    assert torch.autograd.gradcheck(loss, (y.clamp(0.01, 0.99).detach().requires_grad_(), *parts))


def test_scale_and_offset_enter_the_blocks_too() -> None:
    z, y = batch()
    z.requires_grad_()
    scale, offset = torch.linspace(0.5, 2, K, dtype=torch.float64), torch.linspace(-1, 1, K, dtype=torch.float64)
    for law in (SigmoidLaw(scale, offset, gamma_positive=1.0), SigmoidLaw(scale, offset, clip=0.1)):
        unscaled = SigmoidLaw(gamma_positive=law.gamma_positive, clip=law.clip)
        mine = sigmoid_cross_entropy(z, y, law)
        theirs = sigmoid_cross_entropy(z * scale + offset, y, unscaled)
        torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(torch.autograd.grad(mine, z), torch.autograd.grad(theirs, z))


def test_no_gradient_is_asked_for() -> None:
    z, y = batch()
    z.requires_grad_()
    with torch.no_grad():
        assert not SigmoidFocalLoss()(z, y).requires_grad
    with torch.inference_mode():
        value = SigmoidFocalLoss()(z, y).item()
    assert value == pytest.approx(SigmoidFocalLoss()(z.detach(), y).item(), rel=1e-12)


def test_absent_and_ever_present_classes_are_finite() -> None:
    criterion = DistributionBalancedLoss([0, 50, 100], rows=100)
    z = torch.randn(4, 3, requires_grad=True)
    criterion(z, torch.tensor([[0, 0, 0], [1, 0, 1], [1, 0, 0], [0, 1, 1]])).backward()
    assert torch.isfinite(z.grad).all()
    for goal in ("accuracy", "balanced-accuracy"):
        assert np.isfinite(criterion.correction(goal).offset).all()


def test_one_class_is_a_binary_problem() -> None:
    z, y = torch.randn(5, 1), torch.tensor([[1.0], [0], [0], [1], [0]])
    loss = DistributionBalancedLoss([2], rows=5, rebalance=False, kappa=0.0, negative_scale=1.0, gamma=0.0)(z, y)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(z, y))


def test_counts_of_every_kind() -> None:
    from evenhand.counts import ClassCounts

    z, y = batch()
    expected = DistributionBalancedLoss(COUNTS, rows=ROWS)(z, y)
    for counts in (COUNTS.tolist(), torch.tensor(COUNTS), {f"c{i}": int(n) for i, n in enumerate(COUNTS)}):
        assert torch.equal(DistributionBalancedLoss(counts, rows=ROWS)(z, y), expected)
    assert torch.equal(DistributionBalancedLoss(ClassCounts.from_counts(COUNTS), rows=ROWS)(z, y), expected)


@case
def test_modules_are_copied_pickled_and_moved_whole(name: str) -> None:
    z, y = batch()
    criterion = made(name)
    assert list(criterion.state_dict()) == []
    expected = criterion(z, y)
    stored = io.BytesIO()
    torch.save(criterion, stored)
    stored.seek(0)
    for other in (
        copy.deepcopy(criterion),
        pickle.loads(pickle.dumps(criterion)),
        torch.load(stored, weights_only=False),
        copy.deepcopy(criterion).to(torch.bfloat16),
        copy.deepcopy(criterion).double(),
    ):
        assert torch.equal(other(z, y), expected)
    assert "reduction" in repr(criterion)


@case
def test_autocast_changes_nothing(name: str) -> None:
    z, y = (x.float() for x in batch())
    criterion = made(name)
    expected = criterion(z, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(criterion(z, y), expected)
        assert criterion(z.bfloat16(), y.bfloat16()).dtype == torch.float32


def test_vmap_and_functional_gradients() -> None:
    z, y = batch(6)
    criterion = SigmoidFocalLoss(reduction="sum")
    each = torch.func.vmap(torch.func.grad(lambda x, t: criterion(x, t)))(z, y)
    whole = z.clone().requires_grad_()
    criterion(whole, y).backward()
    torch.testing.assert_close(each, whole.grad)


def test_compiles_without_graph_breaks() -> None:
    z, y = (x.float() for x in batch())
    y[0, 0] = -1
    for criterion in (AsymmetricLoss(), DistributionBalancedLoss(COUNTS, rows=ROWS)):
        compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
        mine, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
        loss, expected = compiled(mine, y), criterion(theirs, y)
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(mine.grad, theirs.grad)


# Thresholds


@case
def test_the_threshold_is_the_minimiser_of_the_expected_loss(name: str) -> None:
    law = replace(CASES[name][0]().law(), offset=None, entry_weight=None)
    for share in (0.5, 0.02, 0.3):
        at = torch.from_numpy(threshold(law, np.full(K, math.log(share / (1 - share)))))
        around = at + torch.linspace(-3, 3, 601, dtype=torch.float64)[:, None]
        risk = sigmoid_cross_entropy(around, torch.full_like(around, share), law, reduction="none")
        found = at.abs() < 59
        assert ((risk.argmin(0) - 300).abs() <= 1)[found].all()
        ramp = torch.linspace(3, 12, 10, dtype=torch.float64)[:, None].expand(-1, K)
        falling = sigmoid_cross_entropy(ramp, torch.full_like(ramp, share), law, reduction="none").diff(dim=0) < 0
        assert falling.all(0)[~found].all(), "where there is no minimum, the risk falls for ever"
        assert found.sum() >= K - 1


def test_a_goal_out_of_reach_is_said() -> None:
    rule = AsymmetricLoss(classes=2, gamma_neg=5.0, clip=0.5).correction()
    assert not rule.exact
    assert "infinite logit" in rule.why


def test_weighted_cross_entropy_has_its_threshold_in_closed_form() -> None:
    rule = SigmoidFocalLoss(COUNTS, rows=ROWS, alpha=ALPHAS[[0, 1, 2, 3, 4, 4]], gamma=0.0).correction()
    a = ALPHAS[[0, 1, 2, 3, 4, 4]].double().numpy()
    np.testing.assert_allclose(rule.offset, -np.log(a / (1 - a)), rtol=1e-6)
    assert rule.exact
    balanced = SigmoidLoss(COUNTS, rows=ROWS).correction("balanced-accuracy")
    n = np.maximum(COUNTS, 1)
    np.testing.assert_allclose(balanced.offset, -np.log(n / (ROWS - n)))


def test_symmetric_losses_cut_at_zero() -> None:
    for criterion in (SigmoidLoss(classes=3), SigmoidFocalLoss(classes=3, alpha=None)):
        np.testing.assert_allclose(criterion.correction().offset, np.zeros(3), atol=1e-12)
    assert (np.abs(AsymmetricLoss(classes=3).correction().offset) > 0.1).all()


def test_a_rule_answers_by_class() -> None:
    rule = SigmoidFocalLoss(classes=2, alpha=0.9, gamma=0.0).correction()
    assert rule.predict(torch.tensor([[2.0, 2.5]])).tolist() == [[False, True]]
    assert rule.predict(np.array([[2.0, 2.5]])).tolist() == [[False, True]]


def test_trained_to_the_end_the_rule_is_bayes() -> None:
    """One logit per cell of known P: after minimising, cutting at the rule answers yes exactly where P > 1/2."""
    p = torch.tensor([0.05, 0.2, 0.35, 0.45, 0.55, 0.7, 0.9], dtype=torch.float64)[:, None]
    for criterion in (
        SigmoidFocalLoss(classes=1, alpha=0.25),
        AsymmetricLoss(classes=1),
        AsymmetricLoss(classes=1, gamma_pos=1.0),
    ):
        z = torch.zeros_like(p, requires_grad=True)
        optimiser = torch.optim.LBFGS([z], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

        def closure(criterion: SigmoidLoss = criterion, z: Tensor = z, optimiser: Any = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = criterion(z, p)
            loss.backward()
            return loss

        optimiser.step(closure)
        rule = criterion.correction()
        assert rule.exact
        assert rule.predict(z.detach())[:, 0].tolist() == (p > 0.5)[:, 0].tolist()
        assert (z.detach() > 0)[:, 0].tolist() != (p > 0.5)[:, 0].tolist()


def test_rules_that_are_no_theorem_say_so() -> None:
    rule = DistributionBalancedLoss(COUNTS, rows=ROWS).correction()
    assert not rule.exact
    assert "other labels" in rule.why
    assert DistributionBalancedLoss(COUNTS, rows=ROWS, rebalance=False).correction().exact


# Words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: SigmoidLoss()(torch.zeros(2, 3), torch.zeros(2, 4)), "one target in .0, 1. per logit"),
        (lambda: SigmoidLoss()(torch.zeros(2, 3), torch.tensor([0, 1])), "one_hot"),
        (lambda: SigmoidLoss()(torch.zeros(2, 3), torch.full((2, 3), 2)), "got 2; give ignore_index=2"),
        (lambda: SigmoidLoss()(torch.zeros(2, 3), torch.full((2, 3), math.nan)), "got nan"),
        (lambda: SigmoidLoss(ignore_index=None)(torch.zeros(2, 3), torch.full((2, 3), -1)), "got -1"),
        (lambda: SigmoidLoss(ignore_index=1)(torch.zeros(2, 3), torch.zeros(2, 3)), "outside .0, 1."),
        (lambda: SigmoidLoss()(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(3)), "sample_weight of shape .2,."),
        (lambda: SigmoidLoss()(torch.zeros(2, 3).long(), torch.zeros(2, 3)), "floating-point logits"),
        (lambda: SigmoidLoss(reduction="avg"), "reduction"),  # type: ignore[arg-type]
        (lambda: SigmoidLoss(denominator="weights"), "denominator"),  # type: ignore[arg-type]
        (lambda: SigmoidFocalLoss(gamma=-1.0), "gamma to be a finite number of 0 or more"),
        (lambda: SigmoidFocalLoss(gamma=[1.0, -1.0]), "gamma"),
        (lambda: SigmoidFocalLoss(alpha=1.5), "alpha in .0, 1."),
        (lambda: SigmoidFocalLoss(alpha=[0.1, 2.0]), "alpha in .0, 1."),
        (lambda: SigmoidFocalLoss(classes=3, alpha=[0.1, 0.2]), "3 values of alpha"),
        (lambda: SigmoidFocalLoss(gamma=[1.0, 2.0])(torch.zeros(2, 3), torch.zeros(2, 3)), "shape .3,."),
        (lambda: AsymmetricLoss(clip=1.0), "clip"),
        (lambda: DistributionBalancedLoss([3, 4], rows=3), "at most rows=3"),
        (lambda: DistributionBalancedLoss([[3, 4]], rows=3), "one number of rows per class"),
        (lambda: DistributionBalancedLoss([3, -4], rows=9), "class 1 has -4"),
        (lambda: DistributionBalancedLoss([3, 4], rows=9, negative_scale=0.0), "negative_scale"),
        (lambda: SigmoidFocalLoss().correction(), "classes= or counts="),
        (lambda: SigmoidFocalLoss([3, 4]).correction("balanced-accuracy"), "counts= and rows="),
        (lambda: SigmoidFocalLoss([3, 4]).correction("f1"), "goal"),
    ],
)
def test_mistakes_are_told_in_one_sentence(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_rows_and_whole_agree_on_the_functional_face() -> None:
    z, y = batch()
    law = SigmoidLaw(gamma_positive=2.0, gamma_negative=1.0)
    torch.testing.assert_close(reduce(sigmoid_row_losses(z, y, law)), sigmoid_cross_entropy(z, y, law))
