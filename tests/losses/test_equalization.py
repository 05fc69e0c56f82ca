"""EQLv2: its sums and weights against a slow loop, its life in checkpoints, under casts, compilers and ranks."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses.multilabel.equalization import EqualizationV2Loss  # noqa: E402

K = 5


def batches(steps: int = 6, rows: int = 8) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(0)
    rate = torch.tensor([0.6, 0.3, 0.1, 0.02, 0.0])
    return [
        (2 * torch.randn(rows, K, generator=g), (torch.rand(rows, K, generator=g) < rate).float()) for _ in range(steps)
    ]


class SlowLoop:
    """The paper, number by number, in Python floats."""

    def __init__(self) -> None:
        self.up, self.down = [0.0] * K, [0.0] * K

    def weights(self, k: int) -> tuple[float, float]:
        if self.up[k] == self.down[k] == 0:
            return 1.0, 1.0
        f = 1 / (1 + math.exp(-12 * (self.up[k] / (self.down[k] + 1e-10) - 0.8)))
        return 1 + 4 * (1 - f), f

    def step(self, z: Tensor, y: Tensor) -> float:
        loss, up, down = 0.0, [0.0] * K, [0.0] * K
        for row, labels in zip(z.tolist(), y.tolist(), strict=True):
            for k in range(K):
                p, (a, b) = 1 / (1 + math.exp(-row[k])), self.weights(k)
                loss -= a * labels[k] * math.log(p) + b * (1 - labels[k]) * math.log(1 - p)
                up[k] += a * labels[k] * (1 - p)
                down[k] += b * (1 - labels[k]) * p
        self.up = [x + more for x, more in zip(self.up, up, strict=True)]
        self.down = [x + more for x, more in zip(self.down, down, strict=True)]
        return loss / len(z)


def test_losses_and_sums_are_those_of_the_slow_loop() -> None:
    slow, criterion = SlowLoop(), EqualizationV2Loss(classes=K, denominator="rows")
    for z, y in batches():
        assert criterion(z, y).item() == pytest.approx(slow.step(z, y), rel=2e-5)
        assert criterion.positive_gradient.tolist() == pytest.approx(slow.up, rel=2e-5)
        assert criterion.negative_gradient.tolist() == pytest.approx(slow.down, rel=2e-5)
    assert criterion.gradient_ratio()[0] > criterion.gradient_ratio()[4] == 0


def test_the_first_batch_is_plain_binary_cross_entropy() -> None:
    z, y = batches(1)[0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, y)
    torch.testing.assert_close(EqualizationV2Loss(classes=K)(z, y), expected)


def test_the_gradient_uses_the_weights_from_before_the_batch() -> None:
    criterion = EqualizationV2Loss(classes=K, reduction="sum")
    (first, second) = batches(2)
    criterion(*first)
    law = criterion.law()
    z = second[0].clone().requires_grad_()
    criterion(z, second[1]).backward()
    p, y = torch.sigmoid(second[0]), second[1]
    torch.testing.assert_close(z.grad, -law.positive_weight * y * (1 - p) + law.negative_weight * (1 - y) * p)


def test_evaluation_leaves_the_sums_alone() -> None:
    criterion = EqualizationV2Loss(classes=K)
    (first, second) = batches(2)
    criterion(*first)
    before = copy.deepcopy(criterion.state_dict())
    criterion.eval()
    criterion(*second)
    criterion.rows(*second)
    assert all(torch.equal(before[name], value) for name, value in criterion.state_dict().items())
    criterion.train().rows(*second)
    assert not torch.equal(before["positive_gradient"], criterion.positive_gradient)


def test_a_resumed_training_goes_on_as_it_was(tmp_path: Path) -> None:
    whole, first = EqualizationV2Loss(classes=K), EqualizationV2Loss(classes=K)
    steps = batches()
    expected = [whole(*b).item() for b in steps]
    got = [first(*b).item() for b in steps[:3]]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = EqualizationV2Loss(counts=[5, 4, 3, 2, 1])
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert got + [resumed(*b).item() for b in steps[3:]] == expected
    assert set(first.state_dict()) == {"positive_gradient", "negative_gradient"}


def test_ignored_entries_and_row_weights_reach_the_sums() -> None:
    z, y = batches(1)[0]
    dirty, gone = z.clone(), y.clone()
    dirty[0, :3], gone[0, :3] = math.nan, -1
    criterion = EqualizationV2Loss(classes=K)
    weight = torch.rand(8)
    criterion(dirty, gone, weight)
    p = torch.sigmoid(z)
    counted = (gone >= 0) * weight[:, None]
    torch.testing.assert_close(criterion.positive_gradient, (counted * y * (1 - p)).sum(0))
    torch.testing.assert_close(criterion.negative_gradient, (counted * (1 - y) * p).sum(0))


def test_half_precision_keeps_its_sums_in_float32() -> None:
    z, y = batches(1)[0]
    criterion = EqualizationV2Loss(classes=K).to(torch.bfloat16)
    loss = criterion(z.bfloat16(), y.bfloat16())
    assert criterion.positive_gradient.dtype == torch.float32
    assert loss.dtype == torch.float32
    exact = EqualizationV2Loss(classes=K)
    torch.testing.assert_close(loss, exact(z.bfloat16().float(), y))
    torch.testing.assert_close(criterion.negative_gradient, exact.negative_gradient)


def test_compiled_it_keeps_the_same_sums() -> None:
    eager = EqualizationV2Loss(classes=K)
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for z, y in batches(3):
        torch.testing.assert_close(compiled(z, y), eager(z, y))
    torch.testing.assert_close(module.positive_gradient, eager.positive_gradient)


def test_the_rule_says_that_weights_moved() -> None:
    criterion = EqualizationV2Loss(classes=K)
    for b in batches():
        criterion(*b)
    rule = criterion.correction()
    assert not rule.exact
    assert rule.offset[4] < rule.offset[0], "the rarer class was pushed up further and must be cut higher"


def test_the_number_of_classes_must_be_known() -> None:
    with pytest.raises(InputError, match="classes= or counts="):
        EqualizationV2Loss()
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        EqualizationV2Loss(classes=K)(torch.zeros(2, 3), torch.zeros(2, 3))
