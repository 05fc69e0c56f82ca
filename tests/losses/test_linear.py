"""The linear losses are the dense losses: same value, same gradients, without the logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from evenhand.auditing import audit_tally  # noqa: E402
from evenhand.declared import InputError  # noqa: E402
from evenhand.losses import (  # noqa: E402
    Counting,
    available,
    build,
    cross_entropy,
    linear_cross_entropy,
    linear_nll,
    linear_rows,
    losses_by_row,
    nll,
    reduce,
)
from evenhand.losses.law import Law  # noqa: E402
from evenhand.losses.linear.chunks import rows_per_chunk  # noqa: E402
from evenhand.losses.modules.base import SoftmaxLoss  # noqa: E402
from evenhand.losses.registry import entry  # noqa: E402
from evenhand.losses.shapes import Focal, Generalised, InfluenceBalanced, Poly, confidence_weighted  # noqa: E402

D = 5
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def head(rows: int, classes: int, seed: int = 0, dtype: Any = torch.float64) -> tuple[Any, Any, Any, Any]:
    """Features, weight, bias that want gradients, and a target."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((rows, D), (classes, D), (classes,))
    x, weight, bias = (torch.randn(s, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)
    return x, weight, bias, torch.randint(classes, (rows,), generator=g)


def both(x: Any, weight: Any, bias: Any, target: Any, law: Law, wanted: list[Any], **options: Any) -> tuple[Any, Any]:
    """(value, gradients) of the linear and of the dense loss, under one upstream gradient."""
    results = []
    step = options.pop("chunk_rows", None)
    for loss in (
        linear_cross_entropy(x, weight, target, law, bias=bias, chunk_rows=step, **options),
        cross_entropy(F.linear(x, weight, bias), target, law, class_dim=-1, **options),
    ):
        upstream = torch.linspace(-1.0, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape) * 1.7 + 0.3
        results.append((loss, torch.autograd.grad(loss, wanted, upstream) if wanted else ()))
    return results[0], results[1]


def assert_same(first: tuple[Any, Any], second: tuple[Any, Any], **tolerance: float) -> None:
    tolerance = tolerance or EXACT
    torch.testing.assert_close(first[0], second[0], **tolerance)
    for a, b in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def half_gap(gap: Any, target: Any, extra: Any) -> Any:
    """A shape of the user's own."""
    return confidence_weighted(gap) + 0.5 * gap.sigmoid()


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Offsets that depend on logits and target, one of them a class taken out."""

    def __call__(self, logits: Any, target: Any) -> Any:
        offsets = 0.1 * logits.tanh() * target[:, None]
        return offsets.masked_fill(torch.arange(logits.shape[1]) == (target[:, None] + 1), float("-inf"))


SHAPES: list[Any] = [None, Focal(0.5), Poly(2.0), Generalised(0.7), InfluenceBalanced(), half_gap]


@st.composite
def laws(draw: Any, classes: int) -> Law:
    g = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))

    def vector(low: float, high: float) -> Any:
        values = low + (high - low) * torch.rand(classes, generator=g, dtype=torch.float64)
        return draw(st.sampled_from([None, values]))

    smoothing = draw(st.sampled_from([0.0, 0.2, torch.rand(classes, generator=g, dtype=torch.float64) * 0.5]))
    pairs = draw(st.sampled_from([None, None, Pairs()]))
    return Law(
        scale=vector(0.5, 2.0),
        offset=vector(-3.0, 1.0),
        margin=vector(0.0, 1.0),
        temperature=vector(0.5, 2.0),
        pair_offset=pairs,
        shape=draw(st.sampled_from(SHAPES)),
        class_weight=vector(0.0, 3.0),
        label_smoothing=0.0 if pairs is not None else smoothing,
        smoothing_mass=draw(st.sampled_from(["weighted", "uniform"])),
        z_loss=draw(st.sampled_from([0.0, 0.01])),
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_chunks_are_the_dense_loss(data: Any) -> None:
    rows, classes = data.draw(st.integers(0, 12)), data.draw(st.integers(2, 9))
    x, weight, bias, target = head(rows, classes, data.draw(st.integers(0, 99)))
    law = data.draw(laws(classes))
    bias = data.draw(st.sampled_from([None, bias]))
    ignored = data.draw(st.sampled_from([-100, 0]))
    g = torch.Generator().manual_seed(1)
    by_row = torch.rand(rows, generator=g, dtype=torch.float64)
    frozen = data.draw(st.sets(st.sampled_from(range(3)), max_size=2))
    parts = [p for i, p in enumerate((x, weight, bias)) if p is not None and i not in frozen]
    for i, p in enumerate((x, weight, bias)):
        if p is not None and i in frozen:
            p.requires_grad_(False)
    linear, dense = both(
        x, weight, bias, target, law, parts,
        sample_weight=data.draw(st.sampled_from([None, by_row])),
        extra=data.draw(st.sampled_from([None, by_row + 1])),
        ignore_index=ignored,
        reduction=data.draw(st.sampled_from(["mean", "sum", "none"])),
        denominator=data.draw(st.sampled_from(["weights", "count", 3.0])),
        chunk_rows=data.draw(st.sampled_from([None, 1, 3, 5, 50])),
    )  # fmt: skip
    assert_same(linear, dense)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_and_their_gradients_are_those_of_the_function(reduction: str) -> None:
    x, weight, bias, target = head(4, 3)
    law = Law(class_weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1, shape=Focal(0.5), z_loss=0.01)

    def loss(*parts: Any) -> Any:
        return linear_cross_entropy(
            parts[0],
            parts[1],
            target,
            law,
            bias=parts[2],
            reduction=reduction,
            chunk_rows=3,  # type: ignore[arg-type]
        )

    assert torch.autograd.gradcheck(loss, (x, weight, bias))
    assert torch.autograd.gradgradcheck(loss, (x, weight, bias))


def test_any_leading_dimensions() -> None:
    x, weight, bias, target = head(24, 6)
    shaped, places = x.detach().reshape(2, 3, 4, D).requires_grad_(), target.reshape(2, 3, 4)
    assert_same(*both(shaped, weight, bias, places, Law(z_loss=0.1), [shaped, weight, bias], reduction="none"))
    one = x[0].detach()
    rows = linear_rows(one, weight, target[0], bias=bias)
    torch.testing.assert_close(rows.numerator, nll(F.linear(one, weight, bias), target[0]), **EXACT)
    strided = x.detach().t().contiguous().t().requires_grad_()
    assert_same(*both(strided, weight, bias, target, Law(z_loss=0.1), [strided, weight]))


def test_rows_and_nll_are_the_dense_ones() -> None:
    x, weight, bias, target = head(9, 6)
    target[3] = -100
    law = Law(class_weight=torch.arange(6.0, dtype=torch.float64), margin=torch.ones(6, dtype=torch.float64))
    linear, dense = (
        linear_rows(x, weight, target, law, bias=bias, chunk_rows=4),
        losses_by_row(F.linear(x, weight, bias), target, law),
    )
    for a, b in zip(linear, dense, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    offset = torch.arange(6.0, dtype=torch.float64)
    torch.testing.assert_close(
        linear_nll(x, weight, target, bias=bias, offset=offset, chunk_rows=2),
        nll(F.linear(x, weight, bias), target, offset=offset),
        **EXACT,
    )


@pytest.mark.parametrize("empty", ["zero", "nan"])
def test_batches_in_which_nothing_counts(empty: Any) -> None:
    x, weight, bias, target = head(5, 3)
    linear, dense = both(x, weight, bias, torch.full_like(target, -100), Law(), [x, weight, bias], empty=empty)
    torch.testing.assert_close(linear[0], dense[0], equal_nan=True)
    if empty == "zero":
        assert linear[0] == 0
        assert all((g == 0).all() for g in linear[1])
    weightless = Law(class_weight=torch.zeros(3, dtype=torch.float64))
    assert linear_cross_entropy(x, weight, target, weightless, bias=bias) == 0


def test_a_weight_used_twice_gets_both_gradients() -> None:
    _, weight, _, target = head(8, 6)
    tied = torch.nn.Parameter(weight.detach().clone())
    words = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
    linear_cross_entropy(tied[words], tied, target, Law(z_loss=0.1), chunk_rows=3).backward()
    found, tied.grad = tied.grad, None
    cross_entropy(F.linear(tied[words], tied), target, Law(z_loss=0.1)).backward()
    torch.testing.assert_close(found, tied.grad, **EXACT)


def test_a_second_backward_pass_is_as_right_as_the_first() -> None:
    x, weight, bias, target = head(8, 6)
    loss = linear_cross_entropy(x, weight, target, bias=bias, chunk_rows=3)
    first = torch.autograd.grad(loss * 2, (x, weight, bias), retain_graph=True)
    again = torch.autograd.grad(loss * 2, (x, weight, bias), retain_graph=True)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    torch.autograd.grad(loss, (x,))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, (x,))


class Learned(torch.nn.Module):
    """A law with everything learnable."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        start = 1 + 0.1 * torch.arange(classes, dtype=torch.float64)
        self.scale, self.offset, self.margin, self.temperature, self.gamma, self.weight = (
            torch.nn.Parameter(start.clone()) for _ in range(6)
        )

    def law(self, names: tuple[str, ...]) -> Law:
        known: dict[str, Any] = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return Law(
            shape=Focal(self.gamma) if "shape" in names else None,
            class_weight=self.weight if "class_weight" in names else None,
            **known,
        )


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    "names",
    [("scale",), ("offset",), ("temperature",), ("scale", "offset", "temperature", "margin", "shape", "class_weight")],
    ids=lambda names: "-".join(names),
)
def test_a_law_that_is_learned_gets_its_gradient(names: tuple[str, ...], with_bias: bool) -> None:
    x, weight, bias, target = head(8, 6)
    learned = Learned(6)
    parameters = [
        learned.weight if n == "class_weight" else learned.gamma if n == "shape" else getattr(learned, n) for n in names
    ]
    parts = [x, weight, *([bias] if with_bias else []), *parameters]
    assert_same(*both(x, weight, bias if with_bias else None, target, learned.law(names), parts, chunk_rows=3))


def test_row_weights_that_are_learned_get_their_gradient() -> None:
    x, weight, bias, target = head(8, 6)
    by_row = torch.rand(8, dtype=torch.float64, requires_grad=True)
    assert_same(*both(x, weight, bias, target, Law(z_loss=0.1), [weight, by_row], sample_weight=by_row, chunk_rows=3))


@dataclasses.dataclass(frozen=True)
class Noise:
    """Random offsets from torch's own numbers or a generator of its own."""

    generator: Any = None

    def __call__(self, logits: Any, target: Any) -> Any:
        return torch.randn(logits.shape, generator=self.generator, dtype=logits.dtype)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_random_offsets_are_the_same_in_both_passes(reduction: Any, own: bool) -> None:
    x, weight, bias, target = head(8, 6)
    noise = Noise(torch.Generator().manual_seed(3) if own else None)
    torch.manual_seed(3)
    loss = linear_cross_entropy(x, weight, target, Law(pair_offset=noise), bias=bias, reduction=reduction, chunk_rows=8)
    after = torch.rand(1, generator=noise.generator)
    found = [torch.autograd.grad(loss.sum(), (x, weight, bias), retain_graph=True) for _ in range(2)]
    following = torch.rand(1, generator=noise.generator)
    fixed = Noise(torch.Generator().manual_seed(3))
    dense = cross_entropy(F.linear(x, weight, bias), target, Law(pair_offset=fixed), reduction=reduction)
    for each in found:
        for a, b in zip(each, torch.autograd.grad(dense.sum(), (x, weight, bias), retain_graph=True), strict=True):
            torch.testing.assert_close(a, b, **EXACT)
    g = torch.Generator().manual_seed(3)
    torch.randn((8, 6), generator=g, dtype=torch.float64)
    assert after == torch.rand(1, generator=g)
    assert following == torch.rand(1, generator=g)


class Largest(TorchDispatchMode):
    """Remembers the most cells of any tensor that an operation returns."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.cells = max(self.cells, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_as_large_as_the_logits(reduction: Any, dtype: Any) -> None:
    rows, classes = 400, 50
    x, weight, bias, target = head(rows, classes, dtype=dtype)
    vector = torch.ones(classes)
    law = Law(scale=vector, offset=vector, class_weight=vector, label_smoothing=0.1, shape=Focal(), z_loss=0.1)
    with Largest() as largest:
        loss = linear_cross_entropy(x, weight, target, law, bias=bias, reduction=reduction, chunk_rows=16)
        loss.sum().backward()
    assert largest.cells <= max(16 * classes, rows * D)
    with Largest() as largest:
        cross_entropy(F.linear(x, weight, bias), target, law).backward()
    assert largest.cells >= rows * classes


def error(run: Callable[..., Any], truth: list[Any], parts: list[Any]) -> list[float]:
    """Relative root-mean-square error of value and gradients."""
    loss = run(*parts)
    found = [loss, *torch.autograd.grad(loss, parts)]
    return [((f.double() - t).norm() / t.norm()).item() for f, t in zip(found, truth, strict=True)]


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_no_worse_than_dense(autocast: bool) -> None:
    rows, classes = 192, 40
    exact = head(rows, classes)
    target = exact[3]
    law = Law(class_weight=torch.rand(classes, dtype=torch.float64) + 0.1, shape=Focal(1.0))
    dtype = torch.float32 if autocast else torch.bfloat16
    parts = [p.detach().to(torch.bfloat16).to(dtype).requires_grad_() for p in exact[:3]]
    wide = [p.detach().double().requires_grad_() for p in parts]
    loss = cross_entropy(F.linear(*wide), target, law)
    truth = [loss, *torch.autograd.grad(loss, wide)]

    def dense(*p: Any) -> Any:
        return cross_entropy(F.linear(*p), target, law)

    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return linear_cross_entropy(x, weight, target, law, bias=bias, chunk_rows=24)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, theirs = error(linear, truth, parts), error(dense, truth, parts)
    for ours, other in zip(found, theirs, strict=True):
        assert ours <= 1.1 * other + 1e-6
    assert linear(*parts).dtype == torch.float32 if not autocast else True


def test_float16_keeps_gradients_that_one_over_the_batch_would_lose() -> None:
    x, weight, bias, target = head(64, 6, dtype=torch.float16)
    small = linear_cross_entropy(x, weight, target, bias=bias, denominator=1e6) * 1e6
    wide = [p.detach().float().requires_grad_() for p in (x, weight, bias)]
    truth = torch.autograd.grad(cross_entropy(F.linear(*wide), target, reduction="sum"), wide)
    for a, b in zip(torch.autograd.grad(small, (x, weight, bias)), truth, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=2e-2, atol=2e-2)


def test_autocast_returns_gradients_in_the_parameters_own_type() -> None:
    x, weight, bias, target = head(8, 6, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for reduction in ("mean", "none"):
            loss = linear_cross_entropy(x, weight, target, bias=bias, reduction=reduction)  # type: ignore[arg-type]
            assert loss.dtype == torch.float32
            mixed = linear_cross_entropy(x.detach().bfloat16(), weight, target, bias=bias)
            torch.testing.assert_close(mixed, loss.mean(), rtol=1e-5, atol=1e-6)
            for part, slope in zip((x, weight, bias), torch.autograd.grad(loss.sum(), (x, weight, bias)), strict=True):
                assert slope.dtype == part.dtype


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's, at any graph break
def test_compiled_code_may_call_it() -> None:
    x, weight, bias, target = head(8, 6)
    law = Law(class_weight=torch.arange(1.0, 7.0, dtype=torch.float64))

    def step(x: Any, weight: Any, bias: Any) -> Any:
        return linear_cross_entropy(x * 2, weight, target, law, bias=bias, chunk_rows=3) * 3

    compiled = torch.compile(step, backend="eager")
    assert_same(
        (compiled(x, weight, bias), torch.autograd.grad(compiled(x, weight, bias), (x, weight, bias))),
        (step(x, weight, bias), torch.autograd.grad(step(x, weight, bias), (x, weight, bias))),
    )


def test_functional_transforms_take_the_dense_way() -> None:
    x, weight, bias, target = head(8, 6)
    slope = torch.func.grad(lambda w: linear_cross_entropy(x.detach(), w, target, bias=bias.detach()))(weight.detach())
    loss = linear_cross_entropy(x, weight, target, bias=bias)
    torch.testing.assert_close(slope, torch.autograd.grad(loss, weight)[0], **EXACT)
    by_row = torch.func.vmap(lambda a, y: linear_nll(a, weight.detach(), y))(x.detach(), target)
    torch.testing.assert_close(by_row, nll(x @ weight.t(), target).detach(), **EXACT)


def test_without_gradients_nothing_is_recorded() -> None:
    x, weight, bias, target = head(8, 6)
    with torch.no_grad():
        loss = linear_cross_entropy(x, weight, target, bias=bias)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(x, weight, bias), target).detach(), **EXACT)


def test_modules_have_it() -> None:
    x, weight, bias, target = head(12, 6, dtype=torch.float32)
    target[2] = 5
    module = SoftmaxLoss(weight=torch.arange(1.0, 7.0), ignore_index=5, label_smoothing=0.1, denominator="count")
    torch.testing.assert_close(
        module.linear(x, weight, target, bias, chunk_rows=5), module(F.linear(x, weight, bias), target)
    )


def test_counting_sees_what_the_dense_logits_say() -> None:
    x, weight, bias, target = head(40, 6)
    target[::7] = -100
    offset = torch.tensor([9.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    law = Law(offset=offset, class_weight=torch.arange(1.0, 7.0, dtype=torch.float64))
    logits = F.linear(x, weight, bias).detach()
    answer = logits.argmax(1)
    kept = target != -100
    nats = nll(logits, target, offset=offset)
    for reduction in ("mean", "none"):
        counting = Counting(6)
        options: dict[str, Any] = {"bias": bias, "reduction": reduction, "counting": counting}
        for part in (slice(0, 25), slice(25, 40)):
            linear_cross_entropy(x[part], weight, target[part], law, chunk_rows=4, **options)
        tally = counting.tally()
        matrix = np.zeros((6, 6), dtype=int)
        np.add.at(matrix, (target[kept].numpy(), answer[kept].numpy()), 1)
        assert tally.true.tolist() == matrix.sum(1).tolist()
        assert tally.predicted.tolist() == matrix.sum(0).tolist()
        assert tally.hits.tolist() == matrix.diagonal().tolist()
        mean = [nats[kept & (target == k)].mean().item() for k in range(6)]
        np.testing.assert_allclose(counting.mean_loss(), mean, rtol=1e-12)


def test_counts_add_and_feed_the_audit() -> None:
    g = torch.Generator().manual_seed(0)
    target, answer = torch.randint(3, (900,), generator=g), torch.randint(3, (900,), generator=g)
    whole, first, second = Counting(3), Counting(3), Counting(3)
    whole.add(target, answer)
    first.add(target[:500].reshape(50, 10), answer[:500].reshape(50, 10))
    first.tally()
    first.add(target[500:600], answer[500:600])
    second.add(target[600:], answer[600:])
    total = first.tally() + second.tally()
    for name in ("true", "predicted", "hits", "edge_true", "edge_predicted", "edge_count"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole.tally(), name))
    found = audit_tally(total)
    assert found.rows == 900
    assert found.kind == "predicted"
    assert np.isnan(whole.mean_loss()).all()
    whole.reset()
    assert whole.tally().rows == 0


def test_counting_merges_before_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenhand.losses.counting._PENDING_ROWS", 10)
    counting = Counting(2)
    for _ in range(7):
        counting.add(torch.tensor([0, 1, 1, -1]), torch.tensor([0, 1, 0, 0]), ignore_index=-1)
    assert len(counting._pending) < 3
    assert counting.tally().true.tolist() == [7, 14]
    with pytest.raises(InputError, match="of one shape"):
        counting.add(torch.tensor([0]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="at least 1"):
        Counting(0)


@given(st.integers(0, 5000), st.integers(1, 10**7), st.sampled_from([2, 4, 8]), st.booleans())
def test_chunks_have_enough_rows_and_bounded_memory(rows: int, classes: int, cell: int, on_cpu: bool) -> None:
    step = rows_per_chunk(rows, classes, cell, on_cpu=on_cpu)
    assert 1 <= step <= max(1, rows)
    assert step * classes * cell <= max(2**31, classes * cell)
    chunks = -(-rows // step)
    if 128 * classes * cell <= 2**31 and rows:
        assert step >= min(rows, 128) / 2
        assert chunks <= -(-rows // 128)
    if rows >= 512:
        assert step <= rows // 4


def call(**changed: Any) -> Any:
    x, weight, bias, target = head(8, 6)
    given: dict[str, Any] = {"features": x, "weight": weight, "target": target, "bias": bias} | changed
    return linear_cross_entropy(given.pop("features"), given.pop("weight"), given.pop("target"), **given)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"features": torch.zeros(8, 6)}, r"features of shape \(\.\.\., 5\)"),
        ({"features": torch.zeros(8, 5)}, "one type, got torch.float32 and torch.float64"),
        ({"features": torch.zeros(8, 5, dtype=torch.int64)}, "floating-point features"),
        ({"weight": torch.zeros(5, dtype=torch.float64)}, r"weight of shape \(K, D\)"),
        ({"weight": torch.zeros(0, 5, dtype=torch.float64)}, r"weight of shape \(K, D\)"),
        ({"bias": torch.zeros(5, dtype=torch.float64)}, r"bias of shape \(6,\)"),
        ({"bias": torch.zeros(6, dtype=torch.int64)}, "floating-point bias"),
        ({"target": torch.zeros(8, 6)}, "soft targets"),
        ({"target": torch.zeros(7, dtype=torch.int64)}, r"target of shape \(8,\)"),
        ({"target": torch.full((8,), 6)}, r"labels in \[0, 6\)"),
        ({"target": torch.zeros(8, dtype=torch.int64, device="meta")}, "on one device, got cpu and meta"),
        ({"law": Law(class_weight=torch.ones(5))}, r"class_weight of shape \(6,\)"),
        ({"sample_weight": torch.ones(7)}, "sample_weight of the target's shape"),
        ({"chunk_rows": 0}, "chunk_rows to be at least 1"),
        ({"counting": Counting(5)}, "counting for 6 classes"),
        ({"reduction": "total"}, "reduction to be one of"),
        ({"denominator": "rows"}, "denominator to be one of"),
        ({"empty": "one"}, "empty to be one of"),
        (
            {"law": Law(temperature=torch.ones(6, dtype=torch.float64, requires_grad=True), pair_offset=Pairs())},
            "learnable temperature",
        ),
    ],
)
def test_bad_input_is_named_in_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call(**changed)


def test_reduced_rows_are_the_reduced_loss() -> None:
    x, weight, bias, target = head(8, 6)
    rows = linear_rows(x, weight, target, bias=bias)
    for kind in ("mean", "sum"):
        torch.testing.assert_close(reduce(rows, kind), call(reduction=kind), **EXACT)


RANDOM = ("seql", "gcl")  # their draws differ between chunks and the whole


@pytest.mark.parametrize(
    "name", [n for n in available() if n not in RANDOM and issubclass(entry(n).load(), SoftmaxLoss)]
)
def test_every_softmax_loss_of_the_registry_has_it(name: str) -> None:
    counts = [50, 20, 9, 4, 2, 1]
    first, second = build(name, counts), build(name, counts)
    x, weight, bias, target = head(12, 6, dtype=torch.float32)
    found, dense = first.linear(x, weight, target, bias, chunk_rows=5), second(F.linear(x, weight, bias), target)
    torch.testing.assert_close(found, dense, rtol=1e-5, atol=1e-5)
    slopes = (torch.autograd.grad(loss, (x, weight, bias)) for loss in (found, dense))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
