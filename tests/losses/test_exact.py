"""Weighted means over micro-batches: the gradient is that of the whole batch; a mean of means is another one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from evenhand import losses  # noqa: E402
from evenhand.declared import InputError  # noqa: E402
from evenhand.losses import SigmoidFocalLoss  # noqa: E402
from evenhand.losses.denominators import denominator_of  # noqa: E402
from evenhand.losses.exact import WeightedAccumulation, exact_mean, expected_denominator  # noqa: E402
from evenhand.losses.functional import losses_by_row  # noqa: E402
from evenhand.losses.law import Law  # noqa: E402
from evenhand.losses.linear import linear_cross_entropy  # noqa: E402
from evenhand.losses.modules.base import SoftmaxLoss  # noqa: E402
from evenhand.losses.registry import entry, options_of  # noqa: E402
from evenhand.losses.shapes import Focal  # noqa: E402

CLASSES, FEATURES, ROWS = 100, 16, 64


class Shaped(SoftmaxLoss):
    """Every option that could disturb a mean."""

    def law(self) -> Law:
        return Law(class_weight=self.weight, shape=Focal(1.0), label_smoothing=0.1, z_loss=0.01)


def long_tailed(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prior = 0.01 ** (torch.arange(CLASSES) / (CLASSES - 1))
    labels = torch.multinomial(prior, ROWS, replacement=True, generator=generator)
    return torch.randn(ROWS, FEATURES, generator=generator), labels, prior.sum() / CLASSES / prior


def head() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(FEATURES, CLASSES)


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def error(ours: Tensor, whole: Tensor) -> float:
    return float((ours - whole).norm() / whole.norm())


def whole_gradient(criterion: SoftmaxLoss, x: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
    model = head()
    criterion(model(x), y, u).backward()
    return gradient(model)


def parts(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Micro-batches of unequal size."""
    return zip(*(t.split([5, 20, 8, 31]) for t in tensors), strict=True)


@pytest.mark.parametrize("kind", [SoftmaxLoss, Shaped])
@pytest.mark.parametrize("denominator", ["weights", "count"])
def test_accumulated_gradient_is_that_of_the_whole_batch(kind: type[SoftmaxLoss], denominator: str) -> None:
    x, y, weight = long_tailed()
    y[3] = -100
    criterion, u = kind(weight, denominator=denominator), torch.rand(ROWS, generator=torch.Generator().manual_seed(1))
    known, streamed, step = head(), head(), WeightedAccumulation(guess=30.0)
    pieces = list(parts(x, y, u))
    with exact_mean(criterion, [b for _, b, _ in pieces], sample_weights=[c for _, _, c in pieces]) as total:
        values = [criterion(known(a), b, c) for a, b, c in pieces]
        torch.stack(values).sum().backward()
    for a, b, c in pieces:
        rows = criterion.rows(streamed(a), b, c)
        step.add(rows, rows.denominator(denominator)).backward()
    mean = step.finish(streamed.parameters())
    whole = whole_gradient(criterion, x, y, u)
    expected = criterion(head()(x), y, u)
    assert error(gradient(known), whole) < 1e-6
    assert error(gradient(streamed), whole) < 1e-6
    assert sum(value.item() for value in values) == pytest.approx(expected.item(), rel=1e-6)
    assert mean.item() == pytest.approx(expected.item(), rel=1e-6)
    assert total.item() == pytest.approx(float(criterion.rows(head()(x), y, u).denominator(denominator)), rel=1e-6)


@pytest.mark.parametrize("rows", [8, 16, 32])
def test_a_mean_of_means_is_another_gradient(rows: int) -> None:
    x, y, weight = long_tailed()
    criterion, model = SoftmaxLoss(weight), head()
    pieces = list(zip(x.split(rows), y.split(rows), strict=True))
    for a, b in pieces:
        (criterion(model(a), b) / len(pieces)).backward()
    assert error(gradient(model), whole_gradient(criterion, x, y)) > 0.05


@given(st.data())
def test_denominators_add_and_are_those_of_the_rows(data: st.DataObject) -> None:
    labels = torch.tensor(data.draw(st.lists(st.integers(-1, 4), min_size=1, max_size=12)))
    u = torch.tensor(data.draw(st.lists(st.floats(0, 9), min_size=len(labels), max_size=len(labels))))
    cut = data.draw(st.integers(0, len(labels)))
    law = Law(class_weight=torch.tensor([0.0, 0.5, 1.0, 3.0, 40.0]))
    for kind in ("weights", "count"):
        of = lambda y, v: float(denominator_of(y, law, sample_weight=v, ignore_index=-1, kind=kind))  # noqa: B023, E731
        rows = losses_by_row(torch.zeros(len(labels), 5), labels, law, sample_weight=u, ignore_index=-1)
        assert of(labels, u) == pytest.approx(float(rows.denominator(kind)))
        assert of(labels, u) == pytest.approx(of(labels[:cut], u[:cut]) + of(labels[cut:], u[cut:]))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 4.0])])
@pytest.mark.parametrize("kind", ["weights", "count"])
def test_denominators_of_soft_targets(weight: Tensor | None, kind: str) -> None:
    soft = torch.rand(2, 3, 5)
    law, u = Law(class_weight=weight), torch.rand(2, 5)
    rows = losses_by_row(torch.zeros(2, 3, 5), soft, law, sample_weight=u)
    found = denominator_of(soft, law, sample_weight=u, kind=kind)
    assert found.item() == pytest.approx(rows.denominator(kind).item())


@pytest.mark.parametrize("name", losses.available())
def test_every_loss_knows_its_denominator_before_the_forward_pass(name: str) -> None:
    counts, labels = [900, 500, 90, 9], torch.tensor([0, 3, 1, -100, 0, 2])
    known = options_of(entry(name).load())
    given = {"weight": counts, "rows": 1000}
    criterion = losses.build(name, counts, **{option: given[option] for option in given if option in known})
    if not isinstance(criterion, SoftmaxLoss):
        with pytest.raises(InputError, match="WeightedAccumulation"), exact_mean(criterion, [labels]):
            pass
        return
    expected = criterion.rows(torch.zeros(6, 4), labels).denominator(criterion.mean_denominator)
    assert criterion.denominator(labels).item() == pytest.approx(expected.item())
    whole = criterion.eval()(torch.zeros(6, 4), labels)
    with exact_mean(criterion, labels.split(2)):
        parts = sum(criterion(torch.zeros(2, 4), y).item() for y in labels.split(2))
    if name not in ("seql", "gcl"):  # which draw noise
        assert parts == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("denominator", ["elements", "positives", "rows"])
def test_multi_label_losses_accumulate_by_their_rows(denominator: str) -> None:
    x, y, _ = long_tailed()
    present = nn.functional.one_hot(y, CLASSES).float() + (y[:, None] % 7 == torch.arange(CLASSES)).float()
    criterion, model, step = SigmoidFocalLoss(denominator=denominator), head(), WeightedAccumulation()
    for a, b in parts(x, present.clamp(max=1)):
        step.add(criterion.rows(model(a), b)).backward()
    mean = step.finish(model.parameters())
    twin = head()
    whole = criterion(twin(x), present.clamp(max=1))
    whole.backward()
    assert mean.item() == pytest.approx(whole.item(), rel=1e-6)
    assert error(gradient(model), gradient(twin)) < 1e-6


def test_losses_without_logits_take_the_same_denominator() -> None:
    x, y, weight = long_tailed()
    criterion, model = SoftmaxLoss(weight), head()
    with exact_mean(criterion, y.split(16)):
        for a, b in zip(x.split(16), y.split(16), strict=True):
            linear_cross_entropy(
                a, model.weight, b, criterion.law(), bias=model.bias, denominator=criterion.divisor
            ).backward()
    assert error(gradient(model), whole_gradient(criterion, x, y)) < 1e-6


def test_dense_targets_count_every_position() -> None:
    labels = torch.tensor([[0, 1, -100], [1, 1, 0]])
    assert SoftmaxLoss(torch.tensor([1.0, 10.0])).denominator(labels).item() == 32.0
    assert SoftmaxLoss().denominator(labels).item() == 5.0


def test_what_was_before_comes_back_also_after_an_exception() -> None:
    criterion, logits, target = SoftmaxLoss(), torch.zeros(2, 2), torch.tensor([0, 1])
    plain = criterion(logits, target)
    with exact_mean(criterion, denominator=4.0):
        with exact_mean(criterion, [target] * 4) as total:
            assert total.item() == 8.0
            assert criterion(logits, target).item() == pytest.approx(plain.item() / 4)
        with pytest.raises(InputError), exact_mean(criterion, [target]):
            criterion(logits, target + 2)
        assert criterion(logits, target).item() == pytest.approx(plain.item() / 2)
        assert criterion.denominator(target).item() == 2.0
    assert criterion(logits, target).item() == plain.item()


def test_a_framework_that_divides_is_multiplied_for() -> None:
    criterion, logits, target = SoftmaxLoss(), torch.zeros(2, 2), torch.tensor([0, 1])
    with exact_mean(criterion, [target], averaged_by=6):
        assert criterion(logits, target).item() == pytest.approx(
            6 * criterion.rows(logits, target).numerator.mean().item()
        )
    model, step = nn.Linear(1, 2, bias=False), WeightedAccumulation(averaged_by=6)
    (step.add(criterion.rows(model(torch.ones(2, 1)), target)) / 6).backward()
    step.finish(torch.optim.SGD(model.parameters(), lr=1.0))
    twin = nn.Linear(1, 2, bias=False)
    twin.load_state_dict(model.state_dict())
    criterion(twin(torch.ones(2, 1)), target).backward()
    torch.testing.assert_close(gradient(model), gradient(twin))


def test_nothing_that_counts_gives_zero_and_zero_gradients() -> None:
    criterion, model, ignored = SoftmaxLoss(), head(), torch.full((3,), -100)
    x = torch.ones(3, FEATURES)
    with exact_mean(criterion, [ignored]):
        loss = criterion(model(x), ignored)
        loss.backward()
    assert loss.item() == 0
    assert not gradient(model).any()
    step = WeightedAccumulation()
    step.add(criterion.rows(model(x), ignored)).backward()
    assert step.finish(model.parameters()).item() == 0
    assert not gradient(model).any()


def test_gradients_may_be_missing_or_sparse() -> None:
    table, unused = nn.Embedding(4, 2, sparse=True), nn.Linear(2, 2)
    target, step = torch.tensor([0, 1]), WeightedAccumulation()
    step.add(SoftmaxLoss().rows(table(torch.tensor([1, 3])), target)).backward()
    step.finish([*table.parameters(), *unused.parameters()])
    twin = nn.Embedding.from_pretrained(table.weight.detach(), freeze=False)
    SoftmaxLoss()(twin(torch.tensor([1, 3])), target).backward()
    assert table.weight.grad is not None
    assert twin.weight.grad is not None
    torch.testing.assert_close(table.weight.grad.to_dense(), twin.weight.grad)


def test_mixed_precision_as_documented() -> None:
    x, y, weight = long_tailed()
    criterion, model, step = SoftmaxLoss(weight), head(), WeightedAccumulation(guess=ROWS)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.0), torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for a, b in parts(x, y):
        scaler.scale(step.add(criterion.rows(model(a), b))).backward()
    scaler.unscale_(optimizer)
    step.finish(optimizer)
    assert error(gradient(model), whole_gradient(criterion, x, y)) < 1e-6
    scaler.step(optimizer)
    scaler.update()


def test_the_expected_denominator_is_the_mean_of_drawn_ones() -> None:
    counts, weight = torch.tensor([700, 200, 100]), torch.tensor([0.5, 2.0, 7.0])
    criterion = SoftmaxLoss(weight, counts=counts)
    drawn = torch.multinomial(counts.double(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert expected_denominator(criterion, 200_000) == pytest.approx(criterion.denominator(drawn).item(), rel=0.01)
    assert expected_denominator(criterion, 10, counts=[1, 1, 1]) == pytest.approx(10 * 9.5 / 3)
    assert expected_denominator(criterion, 10, counts=weight / weight.sum()) == pytest.approx(10 * 53.25 / 9.5)
    assert expected_denominator(SoftmaxLoss(), 10) == 10
    assert expected_denominator(SoftmaxLoss(weight, denominator="count"), 10) == 10


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exact_mean(SoftmaxLoss(reduction="sum"), [torch.tensor([0])]), "reduction='mean'"),
        (lambda: exact_mean(SoftmaxLoss()), "either the targets"),
        (lambda: exact_mean(SoftmaxLoss(), [torch.tensor([0])], denominator=1.0), "either the targets"),
        (lambda: exact_mean(SoftmaxLoss(), torch.tensor([0])), "wrap it"),
        (lambda: exact_mean(SoftmaxLoss(), []), "got 0 and 0"),
        (lambda: exact_mean(SoftmaxLoss(), [torch.tensor([0])], sample_weights=[]), "got 1 and 0"),
        (lambda: exact_mean(SoftmaxLoss(), [torch.tensor([0])], averaged_by=0), "averaged_by"),
        (lambda: exact_mean(SoftmaxLoss(torch.ones(2)), [torch.tensor([2])]), r"\[0, 2\)"),
    ],
)
def test_wrong_arguments_of_the_context(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words), call():
        pass


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: WeightedAccumulation(guess=0), "guess"),
        (lambda: WeightedAccumulation().finish([]), "at least one micro-batch"),
        (lambda: expected_denominator(SoftmaxLoss(torch.ones(2)), 4), "counts="),
        (lambda: expected_denominator(SoftmaxLoss(torch.ones(2)), 4, [1, 2, 3]), r"\(2,\)"),
        (lambda: denominator_of(torch.tensor([0]), kind="rows"), "kind"),
        (lambda: denominator_of(torch.tensor([0]), sample_weight=torch.ones(2)), "sample_weight"),
        (lambda: denominator_of(torch.rand(2, 3), Law(class_weight=torch.ones(2))), "class_weight"),
    ],
)
def test_other_wrong_arguments(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=words):
        call()


def test_a_failed_step_can_be_forgotten() -> None:
    criterion, model, step = SoftmaxLoss(), head(), WeightedAccumulation()
    step.add(criterion.rows(model(torch.ones(2, FEATURES)), torch.tensor([0, 1])))
    step.reset()
    with pytest.raises(InputError):
        step.finish(model.parameters())
