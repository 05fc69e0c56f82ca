"""Schedules: what each changes, that the rest stays, and that a run taken up anywhere is the run never left."""

from __future__ import annotations

import copy
import io
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from evenhand import losses  # noqa: E402
from evenhand.declared import InputError  # noqa: E402
from evenhand.training import schedules  # noqa: E402
from evenhand.training.samplers import (  # noqa: E402
    ClassPowerSampler,
    ClassRateSampler,
    EffectiveNumberSampler,
    ProgressiveSampler,
)
from evenhand.training.schedules import (  # noqa: E402
    ClassifierRetraining,
    DeferredResampling,
    DeferredReweighting,
    LabelAwareStageTwo,
    LearnableScaling,
    tau_normalise,
)

CLASSES, FEATURES, BATCH, EPOCHS, AT = 4, 6, 16, 4, 2
LABELS = np.repeat(np.arange(CLASSES), [60, 30, 8, 4])
COUNTS = np.bincount(LABELS)
ROWS = torch.randn(len(LABELS), FEATURES, generator=torch.Generator().manual_seed(1)) + torch.eye(FEATURES)[LABELS]
DATA = TensorDataset(ROWS, torch.from_numpy(LABELS))
STEPS = -(-len(LABELS) // BATCH)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, CLASSES)
    )


@dataclass
class Run:
    """One training: everything that has a state, and the loss."""

    model: nn.Sequential
    criterion: Callable[[Any, Any], Any]
    sampler: ClassRateSampler
    schedule: Any
    optimizer: torch.optim.Optimizer

    @property
    def epoch(self) -> int:
        return self.sampler.epoch

    def save(self) -> bytes:
        """As a user would: states in one file. A schedule that holds the sampler saves it too."""
        held = self.sampler is getattr(self.schedule, "sampler", self.schedule)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "sampler": None if held else self.sampler.state_dict(),
            "random": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def load(self, saved: bytes, schedule_first: bool) -> None:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        if schedule_first:
            self.schedule.load_state_dict(state["schedule"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if not schedule_first:
            self.schedule.load_state_dict(state["schedule"])
        if state["sampler"] is not None:
            self.sampler.load_state_dict(state["sampler"])
        torch.set_rng_state(state["random"])

    def train(self, steps: int) -> list[float]:
        """Up to a number of steps, over as many epochs as that takes; mid-epoch the loop goes on where it was."""
        found: list[float] = []
        while len(found) < steps and self.epoch < EPOCHS:
            self.schedule.step(self.epoch)
            self.sampler.set_epoch(self.epoch)
            self.model.train()
            # a generator of its own: a loader draws from torch's global one whenever it begins, also in mid-epoch
            for x, y in DataLoader(DATA, BATCH, sampler=self.sampler, generator=torch.Generator()):
                self.optimizer.zero_grad()
                loss = self.criterion(self.model(x), y)
                loss.backward()
                self.optimizer.step()
                found.append(loss.item())
                if len(found) == steps:
                    return found
            self.sampler.set_epoch(self.epoch + 1)
        return found


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), 0.01)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)


def balanced(seed: int = 5) -> ClassPowerSampler:
    return ClassPowerSampler(LABELS, 0, seed=seed)


def sampler_alone(sampler: ClassRateSampler) -> Run:
    model = network()
    return Run(model, nn.CrossEntropyLoss(), sampler, sampler, sgd(model))


def reweighted() -> Run:
    model, criterion = network(), losses.build("ldam", COUNTS, scale=1.0)
    sampler = ClassPowerSampler(LABELS, 1, seed=2)
    return Run(model, criterion, sampler, DeferredReweighting(criterion, AT), sgd(model))


def staged(build: Callable[..., Any], optimiser: Callable[[nn.Module], Any], **options: Any) -> Run:
    model = network()
    schedule = build(model, at=AT, sampler=balanced(), **options)
    schedule.optimizer = optimiser(model)

    def criterion(z: Any, y: Any) -> Any:
        return getattr(schedule, "criterion", nn.CrossEntropyLoss())(z, y)

    return Run(model, criterion, schedule.sampler, schedule, schedule.optimizer)


def crt(model: nn.Module, **options: Any) -> Any:
    return ClassifierRetraining(model, "4", **options)


def lws(model: nn.Sequential, **options: Any) -> Any:
    return LearnableScaling(model[4], model, **options)


def mislas(model: nn.Sequential, **options: Any) -> Any:
    return LabelAwareStageTwo(model, model[4], COUNTS, **options)


KINDS: dict[str, Callable[[], Run]] = {
    "balanced": lambda: sampler_alone(balanced()),
    "independent": lambda: sampler_alone(ClassPowerSampler(LABELS, 0, replacement=True)),
    "effective number": lambda: sampler_alone(EffectiveNumberSampler(LABELS, 0.9)),
    "progressive": lambda: sampler_alone(ProgressiveSampler(LABELS, EPOCHS)),
    "resampled": lambda: sampler_alone(DeferredResampling(balanced(), AT)),
    "reweighted": reweighted,
    "crt": lambda: staged(crt, sgd),
    "crt, adam": lambda: staged(crt, adam),
    "crt, body at work": lambda: staged(crt, sgd, body="train"),
    "lws": lambda: staged(lws, sgd),
    "lws, adam": lambda: staged(lws, adam),
    "mislas": lambda: staged(mislas, sgd),
    "mislas, still body": lambda: staged(mislas, adam, body="eval"),
}
STOPS = {"first step": 1, "stage one": STEPS + 3, "between": AT * STEPS, "begun": AT * STEPS + 1, "late": 3 * STEPS + 4}


def equal(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def unbroken() -> dict[str, tuple[Run, list[float]]]:
    runs = {kind: build() for kind, build in KINDS.items()}
    return {kind: (run, seeded(run)) for kind, run in runs.items()}


def seeded(run: Run, steps: int = EPOCHS * STEPS) -> list[float]:
    torch.manual_seed(11)
    return run.train(steps)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(
    kind: str, stop: str, unbroken: dict[str, tuple[Run, list[float]]]
) -> None:
    whole, told = unbroken[kind]
    first = KINDS[kind]()
    begun = seeded(first, STOPS[stop])
    saved = first.save()
    torch.manual_seed(999)
    again = KINDS[kind]()
    again.load(saved, schedule_first=list(STOPS).index(stop) % 2 == 0)
    assert begun + again.train(EPOCHS * STEPS) == told
    assert equal(again.model, whole.model)
    assert len(told) == EPOCHS * STEPS


@pytest.mark.parametrize("kind", ["crt", "crt, body at work", "lws", "mislas", "mislas, still body"])
def test_stage_two_trains_what_it_says_and_nothing_else(kind: str) -> None:
    first, run = KINDS[kind](), KINDS[kind]()
    seeded(first, AT * STEPS)
    run.load(first.save(), schedule_first=True)
    before = copy.deepcopy(run.model.state_dict())
    run.train(EPOCHS * STEPS)
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    head = {"4.weight", "4.bias"}
    moved = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    wanted = {
        "crt": head,
        "crt, body at work": head | moved,
        "lws": {"4.scale"},
        "mislas": head | moved | {"4.scale"},
        "mislas, still body": head | {"4.scale"},
    }
    assert changed == wanted[kind]
    names = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad}
    assert names == wanted[kind] - moved


def test_the_body_stays_in_evaluation_whatever_the_loop_says() -> None:
    model = network()
    stage = ClassifierRetraining(model, "4")
    stage.step(0)
    model.train()
    x = torch.randn(5, FEATURES)
    features = model[:4]
    assert torch.equal(features(x), features(x)), "dropout is off"
    assert not model[1].training
    assert model[4].training


def test_released_the_body_obeys_again() -> None:
    model = network()
    stage = ClassifierRetraining(model, "4")
    stage.step(0)
    stage.step(1)
    assert all(len(part._forward_pre_hooks) == 1 for part in model[:4]), "one hook each, however often it is told"
    stage.release()
    model.train()
    x = torch.randn(5, FEATURES)
    assert not torch.equal(model[:4](x), model[:4](x)), "dropout is on"
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_crt_draws_the_head_anew_once_and_leaves_the_generators_alone() -> None:
    model = network()
    old = copy.deepcopy(model[4].state_dict())
    stage = ClassifierRetraining(model, "4", at=1, seed=7)
    stage.step(0)
    assert torch.equal(model[4].weight, old["weight"])
    state = torch.get_rng_state()
    stage.step(1)
    assert torch.equal(torch.get_rng_state(), state)
    fresh = model[4].weight.detach().clone()
    assert not torch.equal(fresh, old["weight"])
    assert not torch.equal(model[4].bias, old["bias"])
    assert fresh.abs().max() <= 12**-0.5, "torch's own rule for a new layer"
    stage.step(2)
    assert torch.equal(model[4].weight, fresh)
    other = network()
    ClassifierRetraining(other, other[4], seed=7).step(0)
    assert torch.equal(other[4].weight, fresh), "the seed decides"


def test_momentum_of_the_old_head_is_forgotten() -> None:
    run = KINDS["crt"]()
    seeded(run, AT * STEPS)
    weight = run.model[4].weight
    assert weight in run.optimizer.state
    run.schedule.step(AT)
    assert weight not in run.optimizer.state
    assert run.model[0].weight in run.optimizer.state


def test_weight_decay_and_momentum_leave_the_frozen_body_alone() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    nn.functional.cross_entropy(model(ROWS), DATA.tensors[1]).backward()
    optimizer.step()
    stage = ClassifierRetraining(model, "4")
    stage.step(0)
    body = model[0].weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(model(ROWS), DATA.tensors[1]).backward()
        optimizer.step()
    assert torch.equal(model[0].weight, body)


def test_deferred_weights_come_at_their_epoch() -> None:
    criterion = losses.build("cross-entropy", COUNTS)
    deferred = DeferredReweighting(criterion, 2, "balanced")
    for epoch in range(4):
        deferred.step(epoch)
        assert deferred.active == (epoch >= 2)
        assert (criterion.weight is not None) == (epoch >= 2)
    torch.testing.assert_close(criterion.weight, torch.tensor(COUNTS.sum() / CLASSES / COUNTS, dtype=torch.float32))


def test_deferred_weights_beside_a_sampler_are_refused() -> None:
    criterion = losses.build("cross-entropy", COUNTS)
    DeferredReweighting(criterion, 2, "balanced", sampler=ClassPowerSampler(LABELS, 1))
    for sampler in (balanced(), DeferredResampling(balanced(), 3), ProgressiveSampler(LABELS, 8)):
        with pytest.raises(InputError, match=r"2\.00 times"):
            DeferredReweighting(criterion, 2, "balanced", sampler=sampler)
        DeferredReweighting(criterion, 2, "balanced", sampler=sampler, allow_double_correction=True)


def test_deferred_resampling_is_natural_then_the_sampler() -> None:
    late = balanced()
    deferred = DeferredResampling(late, 2)
    for epoch in range(4):
        deferred.step(epoch)
        assert deferred.active == (epoch >= 2)
        rate = COUNTS / COUNTS.sum() if epoch < 2 else np.full(CLASSES, 1 / CLASSES)
        np.testing.assert_allclose(deferred.sampler_rate, rate, rtol=1e-12)
        drawn = np.bincount(LABELS[list(deferred)], minlength=CLASSES)
        assert np.abs(drawn - len(LABELS) * rate).max() < 1
    assert len(list(deferred.batches(BATCH))) == STEPS


def test_deferred_resampling_of_a_progressive_sampler() -> None:
    late = ProgressiveSampler(LABELS, 4)
    deferred = DeferredResampling(late, 2, power=0.5)
    np.testing.assert_array_equal(deferred.rate_at(3), late.rate_at(3))
    np.testing.assert_allclose(deferred.rate_at(1), COUNTS**0.5 / (COUNTS**0.5).sum())


def test_scaling_multiplies_the_logits_and_folds_into_the_layer() -> None:
    model = network().eval()
    before = model(ROWS)
    stage = LearnableScaling("4", model)
    assert torch.equal(model(ROWS), before), "ones change nothing, not even the last bit"
    with torch.no_grad():
        stage.scale.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    torch.testing.assert_close(model(ROWS), before * stage.scale)
    scaled = model(ROWS)
    stage.fold()
    torch.testing.assert_close(model(ROWS), scaled)
    assert set(model.state_dict()) == set(network().state_dict()), "a plain layer again"
    assert not model[4]._forward_hooks


def test_scaling_of_a_layer_without_bias_alone() -> None:
    head = nn.Linear(3, 2, bias=False)
    stage = LearnableScaling(head)
    stage.step(0)
    head(torch.ones(1, 3)).sum().backward()
    assert head.weight.grad is None
    assert stage.scale.grad is not None
    stage.fold()
    assert [name for name, _ in head.named_parameters()] == ["weight"]


def test_label_aware_stage_changes_the_loss() -> None:
    model = network()
    first = nn.CrossEntropyLoss()
    stage = LabelAwareStageTwo(model, "4", COUNTS, at=1, first=first, smooth_head=0.3, smooth_tail=0.0)
    assert stage.criterion is first
    stage.step(1)
    e = stage.criterion.smoothing
    z, y = torch.randn(7, CLASSES, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    logs = z.log_softmax(1)
    smoothing = e.double()[y]
    by_hand = (-(1 - smoothing) * logs[torch.arange(7), y] - smoothing * logs.mean(1)).mean()
    torch.testing.assert_close(stage.criterion(z, y), by_hand)
    assert e[0] == pytest.approx(0.3)
    assert e[3] == 0


@pytest.mark.parametrize("tau", [0, 0.5, 1, -1])
def test_tau_normalisation_is_the_paper_s(tau: float) -> None:
    head = nn.Linear(5, 3, dtype=torch.float64)
    kept = copy.deepcopy(head.state_dict())
    new = tau_normalise(head, tau)
    for k in range(3):
        row = head.weight[k].detach()
        torch.testing.assert_close(new.weight[k].detach(), row / row.norm() ** tau)
    assert new.bias is None
    assert new.weight.dtype == torch.float64
    assert all(torch.equal(head.state_dict()[name], kept[name]) for name in kept), "the head is not changed"
    torch.testing.assert_close(tau_normalise(head, tau, bias=True).bias, head.bias)
    scaled = tau_normalise(head, tau, keep_scale=True)
    torch.testing.assert_close(scaled.weight.norm(dim=1).mean(), head.weight.norm(dim=1).mean())
    x = torch.randn(20, 5, dtype=torch.float64)
    assert torch.equal(scaled(x).argmax(1), new(x).argmax(1))


def test_tau_normalisation_of_a_row_of_zeros() -> None:
    head = nn.Linear(4, 2)
    nn.init.zeros_(head.weight[0])
    assert tau_normalise(head, 1).weight[0].tolist() == [0, 0, 0, 0]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 3)
        self.out = nn.Linear(3, CLASSES)
        self.out.weight = self.embedding.weight


def scale_of_its_own() -> nn.Linear:
    head = nn.Linear(2, 2)
    head.scale = 3
    return head


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "not linear": (lambda: ClassifierRetraining(network(), "2"), "torch.nn.Linear, got ReLU"),
    "not linear, scaled": (lambda: LearnableScaling(nn.ReLU()), "torch.nn.Linear, got ReLU"),
    "not linear, normalised": (lambda: tau_normalise(nn.Conv1d(1, 1, 1), 1), "torch.nn.Linear, got Conv1d"),
    "no such name": (lambda: ClassifierRetraining(network(), "fc"), "linear layers are 0, 4"),
    "another model's": (lambda: ClassifierRetraining(network(), nn.Linear(12, 4)), "part of the model"),
    "tied": (lambda: ClassifierRetraining(Tied(), "out"), "shares them with 'embedding'"),
    "at": (lambda: ClassifierRetraining(network(), "4", at=-1), "expected at"),
    "at, weights": (lambda: DeferredReweighting(losses.build("ldam", COUNTS), -1), "expected at"),
    "at, sampler": (lambda: DeferredResampling(balanced(), -3), "expected at"),
    "at, half": (lambda: DeferredResampling(balanced(), 2.5), "expected at"),
    "a torch sampler": (
        lambda: DeferredResampling(torch.utils.data.SequentialSampler(DATA), 1),
        "sampler of evenhand",
    ),
    "a torch loss": (lambda: DeferredReweighting(nn.CrossEntropyLoss(), 1), "softmax loss of evenhand"),
    "power": (lambda: DeferredResampling(balanced(), 1, power=float("nan")), "power between"),
    "body": (lambda: ClassifierRetraining(network(), "4", body="frozen"), "'eval' or 'train'"),
    "counts": (lambda: LabelAwareStageTwo(network(), "4", [1, 2]), "4 classes of the head, got 2"),
    "smoothing": (lambda: LabelAwareStageTwo(network(), "4", COUNTS, smooth_head=1.5), "head"),
    "tau": (lambda: tau_normalise(nn.Linear(2, 2), float("nan")), "finite number"),
    "tau, text": (lambda: tau_normalise(nn.Linear(2, 2), "1"), "finite number"),
    "scale": (lambda: LearnableScaling(scale_of_its_own()), "attribute `scale`"),
    "epoch": (lambda: ClassifierRetraining(network(), "4").step(-1), "epoch"),
    "state's epoch": (
        lambda: ClassifierRetraining(network(), "4").load_state_dict({"epoch": "3", "begun": False}),
        "epoch to be a whole number",
    ),
    "state": (lambda: ClassifierRetraining(network(), "4").load_state_dict({"epoch": 3}), "begun, epoch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_sentence(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises(InputError, match=words) as told:
        call()
    assert "\n" not in str(told.value)


def test_stage_two_does_not_go_back() -> None:
    stage = ClassifierRetraining(network(), "4", at=2)
    stage.step(2)
    with pytest.raises(InputError, match="epoch 2 or later"):
        stage.step(1)


def test_the_example_finds_more_of_rare_classes_with_every_schedule() -> None:
    found = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "deferred.py"))["main"]()
    plain = found.pop("plain")
    assert len(found) == 3
    for groups in found.values():
        assert groups["tail"] > plain["tail"] + 0.1
        assert groups["all"] > plain["all"]
        assert groups["head"] < plain["head"]


def test_names_are_exported() -> None:
    assert all(hasattr(schedules, name) for name in schedules.__all__)
