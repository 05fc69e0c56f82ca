"""Each module against its paper's formula in float64, and what every module must bear."""

import copy
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from evenhand import InputError, class_weights, losses  # noqa: E402

COUNTS = np.array([500, 90, 40, 7, 1])
PRIOR = COUNTS / COUNTS.sum()
K = len(COUNTS)
SOFTMAX = [name for name, line in losses.available().items() if "multi-label" not in line]


def batch(rows=64, seed=0):
    """Float64 logits of every size, and labels."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(rows, K, generator=generator, dtype=torch.float64)
    return z, torch.randint(K, (rows,), generator=generator)


def direct(z, y, *, scale=1.0, offset=0.0, margin=0.0):
    """Probability of the target and of every class, written out."""
    z, y = z.numpy() * scale + offset, y.numpy()
    rows = np.arange(len(y))
    z[rows, y] -= (np.zeros(K) + margin)[y]
    e = np.exp(z - z.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return p[rows, y], p


def smoothed(z, y, e, w=None, mass="uniform"):
    _, p = direct(z, y)
    w = np.ones(K) if w is None else np.asarray(w)
    e, y = (np.zeros(K) + e)[y.numpy()], y.numpy()
    own = -np.log(p[np.arange(len(y)), y]) * w[y] * (1 - e)
    return own - e / K * (np.log(p) @ w if mass == "weighted" else np.log(p).sum(1) * w[y])


def effective(beta):
    w = (1 - beta) / (1 - beta**COUNTS)
    return w * K / w.sum()


def ldam(z, y, s=30.0, m=0.5):
    margin = m * (COUNTS.min() / COUNTS) ** 0.25
    return -np.log(direct(z, y, scale=s, margin=s * margin)[0])


def seesaw(z, y, seen, p=0.8, q=2.0, epsilon=0.01):
    _, sigma = direct(z, y)
    seen, out = np.maximum(seen, 1), []
    for i, t in enumerate(y.numpy()):
        mitigation = np.where(seen < seen[t], (seen / seen[t]) ** p, 1.0)
        ratio = sigma[i] / max(sigma[i, t], epsilon)
        factor = mitigation * np.where(sigma[i] > max(sigma[i, t], epsilon), ratio**q, 1.0)
        factor[t] = 1.0
        e = np.exp(z[i].numpy() - z[i].numpy().max())
        out.append(-np.log(e[t] / (factor * e).sum()))
    return np.array(out)


def by_target(w, y):
    return np.asarray(w)[y.numpy()]


BALANCED = COUNTS.sum() / (K * COUNTS)
FORMULAS = {
    "cross-entropy": ({}, lambda z, y: -np.log(direct(z, y)[0])),
    "cross-entropy, weights": ({"weight": BALANCED}, lambda z, y: -by_target(BALANCED, y) * np.log(direct(z, y)[0])),
    "weighted": ({}, lambda z, y: -by_target(BALANCED, y) * np.log(direct(z, y)[0])),
    "weighted, power": (
        {"rule": "power", "exponent": 0.5},
        lambda z, y: -np.sqrt(by_target(BALANCED, y)) * np.log(direct(z, y)[0]),
    ),
    "class-balanced": ({}, lambda z, y: -by_target(effective(0.9999), y) * np.log(direct(z, y)[0])),
    "class-balanced, focal": (
        {"beta": 0.99, "phi": "focal", "gamma": 0.5},
        lambda z, y: -by_target(effective(0.99), y) * (1 - direct(z, y)[0]) ** 0.5 * np.log(direct(z, y)[0]),
    ),
    "focal": ({}, lambda z, y: -((1 - direct(z, y)[0]) ** 2) * np.log(direct(z, y)[0])),
    "focal, weights": (
        {"weight": "balanced", "gamma": 1.0},
        lambda z, y: -by_target(BALANCED, y) * (1 - direct(z, y)[0]) * np.log(direct(z, y)[0]),
    ),
    "focal, by class": (
        {"gamma": [0.0, 0.5, 1.0, 2.0, 5.0], "alpha": [0.1, 0.2, 0.3, 0.4, 0.5]},
        lambda z, y: (
            -by_target([0.1, 0.2, 0.3, 0.4, 0.5], y)
            * (1 - direct(z, y)[0]) ** by_target([0.0, 0.5, 1.0, 2.0, 5.0], y)
            * np.log(direct(z, y)[0])
        ),
    ),
    "ldam": ({"scale": 4.0}, lambda z, y: ldam(z, y, 4.0)),
    "balanced-softmax": ({}, lambda z, y: -np.log(direct(z, y, offset=np.log(COUNTS))[0])),
    "logit-adjusted": ({"tau": 0.7}, lambda z, y: -np.log(direct(z, y, offset=0.7 * np.log(PRIOR))[0])),
    "cdt": ({"gamma": 0.2}, lambda z, y: -np.log(direct(z, y, scale=(COUNTS / 500) ** 0.2)[0])),
    "vs": ({}, lambda z, y: -np.log(direct(z, y, scale=(COUNTS / 500) ** 0.3, offset=np.log(PRIOR))[0])),
    "poly": ({"epsilon": 2.0}, lambda z, y: -np.log(direct(z, y)[0]) + 2 * (1 - direct(z, y)[0])),
    "poly, focal": (
        {"epsilon": 1.0, "gamma": 2.0},
        lambda z, y: -((1 - direct(z, y)[0]) ** 2) * np.log(direct(z, y)[0]) + (1 - direct(z, y)[0]) ** 3,
    ),
    "gce": ({}, lambda z, y: (1 - direct(z, y)[0] ** 0.7) / 0.7),
    "gla": ({"q": 0.5}, lambda z, y: (1 - direct(z, y, offset=np.log(PRIOR))[0] ** 0.5) / 0.5),
    "gca": (
        {"q": 0.5, "rho": [1.0, 0.8, 0.6, 0.5, 0.4]},
        lambda z, y: (
            (1 - direct(z / torch.tensor([1.0, 0.8, 0.6, 0.5, 0.4]).double()[y, None], y)[0] ** 0.5)
            / 0.5
            / by_target(PRIOR, y)
        ),
    ),
    "label-aware-smoothing": (
        {"head": 0.4, "tail": 0.1},
        lambda z, y: smoothed(z, y, 0.1 + 0.3 * np.sin(np.pi * (COUNTS - 1) / (2 * 499))),
    ),
    "los": ({}, lambda z, y: smoothed(z, y, 0.9)),
    "los, weights": ({"weight": BALANCED}, lambda z, y: smoothed(z, y, 0.9, BALANCED)),
    "influence-balanced": (
        {},
        lambda z, y: (
            -by_target(1 / COUNTS / (1 / COUNTS).mean(), y)
            * np.log(direct(z, y)[0])
            * 1000
            / (np.abs(direct(z, y)[1] - np.eye(K)[y.numpy()]).sum(1) + 1e-3)
        ),
    ),
    "seesaw": ({"online": False}, lambda z, y: seesaw(z, y, COUNTS)),
    "seesaw, online": ({}, lambda z, y: seesaw(z, y, np.bincount(y.numpy(), minlength=K))),
    "seql": ({"gamma": 0.0}, lambda z, y: -np.log(direct(z, y)[0])),
    "gcl": ({"noise": 0.0, "scale": 4.0}, lambda z, y: -np.log(direct(z, y, scale=4.0, margin=2.0)[0])),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_a_module_is_its_papers_formula(case):
    options, formula = FORMULAS[case]
    z, y = batch()
    loss = losses.build(case.split(",")[0], COUNTS, reduction="none", **options)
    expected = formula(z.clone(), y)
    np.testing.assert_allclose(loss(z, y).numpy(), expected, rtol=2e-6, atol=1e-12)
    mean = copy.deepcopy(loss).eval()
    mean.reduction = "mean"
    w = np.ones(K) if mean.weight is None else mean.weight.double().numpy()
    np.testing.assert_allclose(mean(z, y).item(), expected.sum() / by_target(w, y).sum(), rtol=2e-6)


def test_torchs_smoothing_with_weights():
    z, y = batch()
    loss = losses.build("weighted", COUNTS, label_smoothing=0.1, reduction="none")
    np.testing.assert_allclose(loss(z, y), smoothed(z, y, 0.1, BALANCED, "weighted"), rtol=2e-6)
    own = losses.build("weighted", COUNTS, label_smoothing=0.1, smoothing_mass="uniform", reduction="none")
    np.testing.assert_allclose(own(z, y), smoothed(z, y, 0.1, BALANCED), rtol=2e-6)
    torch.testing.assert_close(
        loss(z, y), F.cross_entropy(z, y, loss.weight.double(), reduction="none", label_smoothing=0.1)
    )


@pytest.mark.parametrize(
    ("curve", "middle"), [("concave", math.sin(math.pi / 8)), ("linear", 0.25), ("convex", None), ("exp", 0.0625)]
)
def test_curves_of_label_aware_smoothing(curve, middle):
    loss = losses.LabelAwareSmoothingLoss([101, 26, 1], 0.4, 0.1, curve=curve)
    share = 1 + math.sin(1.5 * math.pi + math.pi / 8) if middle is None else middle
    np.testing.assert_allclose(loss.smoothing, [0.4, 0.1 + 0.3 * share, 0.1], rtol=1e-6)
    assert losses.LabelAwareSmoothingLoss([7, 7], 0.4, 0.1, curve=curve).smoothing.tolist() == pytest.approx([0.1, 0.1])


LIMITS = {
    "focal": {"gamma": 0.0},
    "class-balanced": {"beta": 0.0},
    "ldam": {"max_margin": 0.0, "scale": 1.0},
    "logit-adjusted": {"tau": 0.0},
    "cdt": {"gamma": 0.0},
    "vs": {"gamma": 0.0, "tau": 0.0},
    "poly": {"epsilon": 0.0},
    "gce": {"q": 1e-6},
    "gla": {"q": 1e-6, "tau": 0.0},
    "label-aware-smoothing": {"head": 0.0, "tail": 0.0},
    "los": {"label_smoothing": 0.0},
    "influence-balanced": {"active": False, "weight": None},
    "seesaw": {"p": 0.0, "q": 0.0},
    "seql": {"gamma": 0.0},
    "gcl": {"margin": 0.0, "scale": 1.0, "noise": 0.0},
    "weighted": {"rule": "uniform"},
    "cross-entropy": {},
}


@pytest.mark.parametrize("name", LIMITS)
def test_switched_off_every_loss_is_cross_entropy(name):
    z, y = batch()
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = losses.build(name, COUNTS, **LIMITS[name])(a, y)
    loss.backward()
    expected = F.cross_entropy(b, y)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2), st.floats(0, 3))
def test_adjusting_by_the_prior_commutes_with_renaming_classes(seed, tau, gamma):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(K, generator=generator)
    z, y = batch(seed=seed)
    renamed = torch.empty_like(order).scatter_(0, order, torch.arange(K))
    for name, options in (("vs", {"tau": tau}), ("focal", {"gamma": gamma, "weight": "sqrt"}), ("ldam", {})):
        here, there = (losses.build(name, c, **options) for c in (COUNTS, COUNTS[order.numpy()]))
        torch.testing.assert_close(here(z, y), there(z[:, order], renamed[y]))


AWKWARD = {"cat": 100, "dog": 30, "yeti": 0, "newt": 7, "x": 0}


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_bears_absent_classes_ignored_rows_and_dense_layouts(name, dtype):
    loss = losses.build(name, AWKWARD, ignore_index=-1)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(6, K, 3, generator=generator).to(dtype).requires_grad_()
    y = torch.randint(K, (6, 3), generator=generator)
    y[0] = -1
    value = loss(z, y)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(z.grad).all()
    assert z.grad.dtype == dtype
    assert not z.grad[0].any()
    assert z.grad[1].any()
    flat = loss.eval()(z.detach().movedim(1, -1).reshape(-1, K), y.reshape(-1))
    torch.testing.assert_close(loss(z.detach(), y), flat)
    all_ignored = loss(z, torch.full_like(y, -1))
    assert all_ignored.item() == 0.0
    for b in loss.buffers():
        assert torch.isfinite(b).all()


@pytest.mark.parametrize("name", SOFTMAX)
def test_buffers_keep_their_precision_and_stay_out_of_the_state(name):
    loss = losses.build(name, COUNTS)
    before = {k: v.clone() for k, v in loss.named_buffers()}
    for changed in (loss.half(), loss.to(torch.bfloat16), loss.double()):
        for key, value in changed.named_buffers():
            assert value.dtype == before[key].dtype
            assert value.dtype in (torch.float32, torch.int64)
            assert torch.equal(value, before[key])
    assert list(loss.state_dict()) == (["seen"] if name == "seesaw" else [])


@pytest.mark.parametrize("name", SOFTMAX)
def test_copies_and_saved_states_go_on_as_the_original(name):
    z, y = batch()
    loss = losses.build(name, COUNTS)
    loss(z, y)
    twin = copy.deepcopy(loss)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    fresh = losses.build(name, COUNTS)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (twin, fresh):
        assert torch.equal(loss.eval()(z, y), other.eval()(z, y))
    assert repr(loss) == repr(fresh)


@pytest.mark.parametrize("name", SOFTMAX)
def test_every_loss_works_from_features_alone(name):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    head = torch.randn(K, 6, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.randint(K, (20,), generator=generator)
    y[3] = -100
    dense, lean = (losses.build(name, COUNTS) for _ in range(2))
    if name != "seesaw":  # which counts in training mode, as both must
        dense, lean = dense.eval(), lean.eval()
    expected = dense(F.linear(features, head), y)
    found = lean.linear(features, head, y, chunk_rows=7)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, head)[0], torch.autograd.grad(expected, head)[0])
    for here, there in zip(dense.buffers(), lean.buffers(), strict=True):
        assert torch.equal(here, there)


@pytest.mark.parametrize("name", SOFTMAX)
def test_soft_targets_are_taken_or_refused_in_a_sentence(name):
    z, y = batch()
    loss = losses.build(name, COUNTS, reduction="none").eval()
    one_hot = F.one_hot(y, K).double()
    if name in ("gca", "seesaw"):
        with pytest.raises(InputError, match="soft targets"):
            loss(z, one_hot)
        return
    torch.testing.assert_close(loss(z, one_hot), loss(z, y), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["ldam", "vs", "focal", "gca", "label-aware-smoothing", "seesaw"])
def test_compiled_without_graph_breaks(name):
    """One loss per mechanism: margin, scale and offset, shape, temperature, smoothing, pair offsets."""
    torch._dynamo.reset()
    z, y = batch()
    z = z.float().requires_grad_()
    loss = losses.build(name, COUNTS)
    compiled = torch.compile(losses.build(name, COUNTS), fullgraph=True, backend="aot_eager")
    expected, found = loss(z, y), compiled(z, y)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, z)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z)[0])
    if name == "seesaw":
        assert compiled.seen.sum() == len(y)


@pytest.mark.parametrize("name", SOFTMAX)
def test_nothing_waits_for_the_device(name):
    """Meta tensors have no values: whoever asks one for its number, as in `if` or `.item()`, gets an error."""
    smoothing = {} if name in ("seql", "label-aware-smoothing") else {"label_smoothing": 0.1}
    loss = losses.build(name, COUNTS, **smoothing).to("meta")
    z = torch.empty(9, K, device="meta", requires_grad=True)
    loss(z, torch.empty(9, dtype=torch.int64, device="meta")).backward()
    assert z.grad.shape == z.shape


def test_a_loss_shows_its_numbers():
    assert repr(losses.build("vs", COUNTS, tau=0.5)) == (
        "VSLoss(classes=5, gamma=0.3, tau=0.5, reduction='mean', ignore_index=-100)"
    )
    assert "rule='sqrt'" in repr(losses.build("weighted", COUNTS, rule="sqrt"))
    assert "label_smoothing=0.1" in repr(losses.build("focal", label_smoothing=0.1))


def test_the_factor_of_influence_has_no_gradient_and_takes_the_features():
    z, y = batch()
    z.requires_grad_()
    norm = torch.rand(len(y), dtype=torch.float64) * 10
    loss = losses.build("influence-balanced", COUNTS, reduction="none", weight=None)
    value = loss(z, y, extra=norm)
    plain = F.cross_entropy(z, y, reduction="none")
    factor = (value / plain).detach()
    error = (z.softmax(1) - F.one_hot(y, K)).abs().sum(1).detach()
    torch.testing.assert_close(factor, 1000 / (error * norm + 1e-3))
    torch.testing.assert_close(
        torch.autograd.grad(value.sum(), z)[0], torch.autograd.grad((plain * factor).sum(), z)[0]
    )


def test_seesaw_counts_in_training_only_what_counts_and_nothing_flows_through_its_offsets():
    z, y = batch()
    y[:5] = -100
    loss = losses.SeesawLoss(classes=K)
    loss(z, y)
    loss.rows(z, y)
    loss.eval()(z, y)
    assert loss.seen.tolist() == (2 * np.bincount(y[5:].numpy(), minlength=K)).tolist()
    z.requires_grad_()
    gradient = torch.autograd.grad(loss(z, y), z)[0]
    with torch.no_grad():
        index = y.clamp(min=0)
        offset = loss.law().pair_offset(z, index)
    fixed = F.cross_entropy(z + offset, y)
    torch.testing.assert_close(gradient, torch.autograd.grad(fixed, z)[0])
    with pytest.raises(InputError, match="labels in"):
        loss.train()(z, y.clone().fill_(K))


def test_seesaw_adds_up_what_the_ranks_count(monkeypatch):
    """The group is faked: two ranks that saw the same labels. The real thing sums the same vector of K numbers."""
    asked = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: asked.append(tuple(x.shape)) or x.mul_(2))
    loss = losses.SeesawLoss(classes=K)
    z, y = batch()
    loss(z, y)
    assert loss.seen.tolist() == (2 * np.bincount(y.numpy(), minlength=K)).tolist()
    assert asked == [(K,)]


def test_seql_drops_rare_classes_at_its_rate_and_never_the_target():
    counts = [1000] * 3 + [1] * 7
    generator = torch.Generator().manual_seed(0)
    loss = losses.SEQLLoss(counts, gamma=0.7, generator=generator)
    z, y = torch.zeros(4000, 10), torch.arange(4000) % 10
    offset = loss.law().pair_offset(z, y)
    assert not offset[torch.arange(4000), y].any()
    assert not offset[:, :3].any()
    dropped = offset[:, 3:].isinf()
    others = torch.ones_like(dropped)
    others[y >= 3, y[y >= 3] - 3] = False
    assert dropped[others].float().mean().item() == pytest.approx(0.7, abs=0.01)
    again = losses.SEQLLoss(counts, gamma=0.7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.law().pair_offset(z, y), offset)
    assert loss.eval().law().pair_offset is None


def test_gcl_clouds_are_half_normal_cut_at_one_and_scaled_by_rarity():
    generator = torch.Generator().manual_seed(0)
    loss = losses.GCLLoss([1000, 100, 10], scale=2.0, noise=3.0, generator=generator)
    noise = -loss.law().pair_offset(torch.zeros(20_000, 3), torch.zeros(20_000, dtype=torch.int64)) / 6.0
    assert not noise[:, 0].any()
    assert noise[:, 1].max() <= 0.5
    assert noise[:, 2].min() >= 0
    assert noise[:, 2].max() == 1.0
    assert noise[:, 2].mean().item() == pytest.approx(math.sqrt(2 / math.pi) / 3, abs=0.005)
    assert losses.GCLLoss([5, 5]).spread.tolist() == [0.0, 0.0]


def test_the_cosine_head_gives_cosines():
    head = losses.CosineLinear(6, 3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 5, 6)
    expected = F.cosine_similarity(x[..., None, :], head.weight, dim=-1)
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head(7 * x), expected)
    assert torch.isfinite(head(torch.zeros(1, 6))).all()
    again = losses.CosineLinear(6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.weight, again.weight)


def test_deferred_weights_switch_travel_and_resume():
    z, y = batch()
    loss = losses.LDAMLoss(COUNTS, scale=2.0)
    plan = losses.DeferredReweighting(loss, start=3, beta=0.99)
    assert not plan.active
    early, weights = loss(z, y), class_weights(COUNTS, "effective-number", beta=0.99)
    plan.step(2)
    assert loss.weight is None
    assert torch.equal(loss(z, y), early)
    plan.step(3)
    np.testing.assert_allclose(loss.weight, weights, rtol=1e-6)
    assert not torch.isclose(loss(z, y), early)
    assert list(loss.state_dict()) == []
    loss.half()
    assert loss.weight.dtype == torch.float32
    other = losses.LDAMLoss(COUNTS, scale=2.0)
    resumed = losses.DeferredReweighting(other, start=3, beta=0.99)
    resumed.load_state_dict(plan.state_dict())
    assert torch.equal(other(z, y), loss(z, y))
    resumed.load_state_dict({"epoch": None})
    assert other.weight is None
    assert resumed.epoch is None
    with pytest.raises(InputError, match="'epoch'"):
        resumed.load_state_dict({})
    for state in (None, {"epoch": "3"}, {"epoch": -1}):
        with pytest.raises(InputError, match=r"expected (a state|epoch)"):
            resumed.load_state_dict(state)
    for epoch in ("3", 1.0, -1, True):
        with pytest.raises(InputError, match="whole number of 0 or more"):
            resumed.step(epoch)
    with pytest.raises(InputError, match="counts"):
        losses.DeferredReweighting(losses.CrossEntropyLoss(), 3)
    elsewhere = losses.LDAMLoss(COUNTS).to("meta")
    losses.DeferredReweighting(elsewhere, 0).step(0)
    assert elsewhere.weight.device.type == "meta"
    given = losses.CrossEntropyLoss(weight=[1.0, 2.0])
    losses.DeferredReweighting(given, 0, [3.0, 4.0]).step(0)
    assert given.weight.tolist() == [3.0, 4.0]


def test_weights_by_rule_and_by_name():
    by_rule = losses.build("cross-entropy", AWKWARD, weight="sqrt").weight
    np.testing.assert_allclose(by_rule, class_weights(list(AWKWARD.values()), "sqrt", absent="largest"), rtol=1e-6)
    named = {"newt": 5, "cat": 1, "dog": 2, "x": 3, "yeti": 4}
    assert losses.build("focal", AWKWARD, weight=named).weight.tolist() == [1.0, 2.0, 4.0, 5.0, 3.0]
    assert losses.build("focal", AWKWARD, alpha=named).law().shape.alpha.tolist() == [1.0, 2.0, 4.0, 5.0, 3.0]
    assert losses.build("weighted", weight=[1, 2]).weight.tolist() == [1.0, 2.0]


def test_absent_classes_count_as_one_row():
    assert losses.build("logit-adjusted", [99, 0]).offset.tolist() == pytest.approx([math.log(0.99), math.log(0.01)])
    assert losses.build("cdt", [100, 0], gamma=0.5).scale.tolist() == pytest.approx([1.0, 0.1])
    assert losses.build("ldam", [16, 0]).margin.tolist() == pytest.approx([7.5, 15.0])
    assert losses.build("gca", [8, 0]).temperature.tolist() == pytest.approx([1.0, 2.0])
    assert losses.build("weighted", [3, 1, 0]).weight.tolist() == pytest.approx([2 / 3, 2.0, 2.0])
    assert losses.build("weighted", [3, 1, 0], absent="zero").weight.tolist() == pytest.approx([2 / 3, 2.0, 0.0])


WRONG = {
    "a rule without counts": (lambda: losses.build("focal", weight="balanced"), "counts="),
    "an unknown rule": (lambda: losses.build("focal", [2, 1], weight="balance"), "did you mean 'balanced'"),
    "alpha by an unknown rule": (lambda: losses.build("focal", [2, 1], alpha="foo"), "alpha .* rule"),
    "names without names": (lambda: losses.build("focal", [2, 1], weight={"a": 1}), "class names"),
    "a missing name": (lambda: losses.build("focal", {"a": 2, "b": 1}, weight={"a": 1}), "nothing for 'b'"),
    "an unknown name": (
        lambda: losses.build("focal", {"a": 2, "b": 1}, weight={"a": 1, "b": 1, "c": 1}),
        "'c', which is no class",
    ),
    "gamma below 0": (lambda: losses.build("focal", gamma=-1), "gamma"),
    "gamma of another length": (lambda: losses.build("focal", [2, 1], gamma=[1.0, 2.0, 3.0]), "2 of them"),
    "gamma in words": (lambda: losses.build("focal", gamma="two"), "gamma|array"),
    "gamma in two dimensions": (lambda: losses.build("focal", gamma=[[1.0]]), "gamma"),
    "weights below 0": (lambda: losses.build("focal", weight=[1, -1]), "weights of 0 or more"),
    "q": (lambda: losses.build("gce", q=1.5), "expected q between"),
    "q of 0": (lambda: losses.build("gla", [2, 1], q=0), "expected q"),
    "epsilon": (lambda: losses.build("poly", epsilon=-2), "epsilon of -1 or more"),
    "epsilon with gamma": (lambda: losses.build("poly", epsilon=-0.5, gamma=1), "epsilon of 0 or more"),
    "tau": (lambda: losses.build("vs", [2, 1], tau=float("nan")), "tau"),
    "beta": (lambda: losses.build("class-balanced", [2, 1], beta=1.0), "beta"),
    "phi": (lambda: losses.build("class-balanced", [2, 1], phi="foo"), "phi"),
    "rho": (lambda: losses.build("gca", [2, 1], rho=[1.0, 0.0]), "rho above 0"),
    "rho by length": (lambda: losses.build("gca", [2, 1], rho=[1.0, 1.0, 1.0]), "rho"),
    "head": (lambda: losses.build("label-aware-smoothing", [2, 1], head=1.0), "head"),
    "curve": (lambda: losses.build("label-aware-smoothing", [2, 1], curve="round"), "curve"),
    "two smoothings": (lambda: losses.LabelAwareSmoothingLoss([2, 1], label_smoothing=0.1), "head="),
    "seql smoothed": (lambda: losses.SEQLLoss([2, 1], label_smoothing=0.1), "seql cannot smooth"),
    "seesaw of no size": (lambda: losses.build("seesaw"), "classes="),
    "seesaw without counts": (lambda: losses.build("seesaw", classes=3, online=False), "classes"),
    "weighted of nothing": (lambda: losses.build("weighted"), "counts="),
    "an option of another rule": (lambda: losses.build("weighted", [2, 1], exponent=0.5), "takes no options"),
    "scale": (lambda: losses.build("ldam", [2, 1], scale=0), "scale"),
    "margin": (lambda: losses.build("ldam", [2, 1], max_margin=-0.5), "max_margin"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments_get_one_sentence(case):
    make, words = WRONG[case]
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
