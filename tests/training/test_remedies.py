"""The remedies: each does what its line says, rows come as its sampler says, and every loss has one or a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenhand.counts import ClassCounts
from evenhand.declared import InputError
from evenhand.losses import available
from evenhand.losses.modules.base import SoftmaxLoss
from evenhand.losses.registry import entry
from evenhand.training import REMEDIES, Recipe, Remedy, Training, fit, parse_remedy
from evenhand.training.remedies import NOT_RACED
from evenhand.training.samplers import EffectiveNumberSampler
from evenhand.training.stages import head_of, stages_of

ROWS = np.array([300, 60, 30, 10])
COUNTS = ClassCounts.from_counts(ROWS)
Part = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def data() -> Part:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(4), ROWS))
    x = 1.5 * rng.normal(size=(4, 6))[y] + rng.normal(size=(len(y), 6))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 4))


def begun(data: Part, remedy: str | Remedy, epochs: float = 5, seed: int = 0, dropout: float = 0.0) -> Training:
    recipe = Recipe(batch_size=40, learning_rate=0.01)
    return Training(network(dropout=dropout), data, remedy, epochs=epochs, recipe=recipe, seed=seed)


def watched(training: Training) -> list[Tensor]:
    """The rows' inputs of every batch, as the model is called with them."""
    seen: list[Tensor] = []
    training.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    training.advance()
    return seen


def shares(training: Training) -> np.ndarray:
    """(epochs, K) share of each class among the targets of each epoch, as the losses are called with them."""
    seen: list[Tensor] = []
    for criterion in {id(stage.criterion): stage.criterion for stage in training.stages}.values():
        criterion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    training.advance()
    epochs = torch.cat(seen).reshape(-1, len(training.rows))
    return np.stack([np.bincount(epoch, minlength=4) / len(epoch) for epoch in epochs.numpy()])


def test_progressive_draws_go_from_natural_to_balanced(data: Part) -> None:
    natural, balanced = ROWS / ROWS.sum(), np.full(4, 0.25)
    drawn = shares(begun(data, "progressive-sampler"))
    for epoch, share in enumerate([0, 0.25, 0.5, 0.75, 1]):
        np.testing.assert_allclose(drawn[epoch], (1 - share) * natural + share * balanced, atol=1 / 400)
    halfway = shares(begun(data, "progressive-sampler:power=0.5..0", epochs=2))
    np.testing.assert_allclose(halfway[0], ROWS**0.5 / (ROWS**0.5).sum(), atol=1 / 400)
    np.testing.assert_allclose(halfway[1], balanced, atol=1 / 400)


def test_late_draws_may_move_as_well(data: Part) -> None:
    drawn = shares(begun(data, "deferred-sampler:start=0.4,late_power=1..0"))
    natural, balanced = ROWS / ROWS.sum(), np.full(4, 0.25)
    for epoch, share in enumerate([0, 0, 0, 0.5, 1]):
        np.testing.assert_allclose(drawn[epoch], (1 - share) * natural + share * balanced, atol=1 / 400)


def test_effective_numbers_decide_the_draws(data: Part) -> None:
    for name, beta in (("effective-sampler", 0.999), ("sampler:beta=0.99", 0.99)):
        wanted = EffectiveNumberSampler(data[1], beta).sampler_rate
        np.testing.assert_allclose(shares(begun(data, name)), np.tile(wanted, (5, 1)), atol=1 / 400)


@pytest.mark.parametrize(
    ("one", "other", "epochs"),
    [
        ("plain", "focal", range(5)),
        ("plain", "deferred-sampler", range(4)),
        ("sampler", "deferred-sampler", range(4, 5)),
        ("sampler", "crt", range(4, 5)),
        ("effective-sampler", "vs:beta=0.999", range(5)),
        ("progressive-sampler", "weighted:power=1..0", range(5)),
    ],
)
def test_batches_are_the_same_wherever_the_samplers_agree(one: str, other: str, epochs: range, data: Part) -> None:
    first, second = (watched(begun(data, name, seed=4)) for name in (one, other))
    assert len(first) == len(second) == 50
    for number in (epoch * 10 + batch for epoch in epochs for batch in range(10)):
        assert torch.equal(first[number], second[number])


@pytest.mark.parametrize("name", REMEDIES)
@pytest.mark.parametrize("stop", [7, 38, 45, 50])
def test_a_run_taken_up_in_the_middle_is_the_same_bit_for_bit(name: str, stop: int, data: Part) -> None:
    """Whatever torch's generators did in between: dropout and the noise of losses come from seed and step alone."""
    whole, left, taken_up = (begun(data, name, seed=3, dropout=0.5) for _ in range(3))
    torch.manual_seed(1)
    whole.advance()
    torch.manual_seed(2)
    left.advance(stop)
    torch.rand(7)
    taken_up.load_state_dict(left.state_dict())
    taken_up.advance()
    expected, found = (training.model.state_dict() for training in (whole, taken_up))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    for a, b in zip(whole.stages, taken_up.stages, strict=True):
        assert all(map(torch.equal, a.criterion.state_dict().values(), b.criterion.state_dict().values()))


def test_rates_that_move_need_two_epochs(data: Part) -> None:
    with pytest.raises(InputError, match="expected two epochs or more"):
        begun(data, "progressive-sampler", epochs=1)
    begun(data, "progressive-sampler", epochs=1.1)
    with pytest.raises(InputError, match="expected two epochs or more"):
        begun(data, "deferred-sampler:late_power=1..0")


@pytest.mark.parametrize(
    ("remedy", "message"),
    [
        ("sampler:power=half", "expected power as a number, or as FROM..TO, got 'half'"),
        ("sampler:power=1..x", "FROM..TO"),
        ("sampler:power=99", "power between -10 and 10"),
        ("progressive-sampler:power=1..99", "power between -10 and 10"),
        ("deferred-sampler:late_power=late", "FROM..TO"),
        ("effective-sampler:beta=1", r"beta in \[0, 1\)"),
        ("sampler:power=0,beta=0.9", "expected power or beta"),
        (Remedy("own", "", power=0.0, beta=0.9), "expected power or beta"),
        ("los:rate=0", "expected rate above 0"),
        ("ldam:scale=0", "scale of the cosines above 0"),
        ("ldam:max_margin=wide", "max_margin"),
        ("crt:start=late", "between 0 and 1"),
        ("tau-norm:tau=large", "tau to be a finite number"),
    ],
)
def test_options_that_no_sampler_takes_are_told_before_training(remedy: str | Remedy, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stages_of(parse_remedy(remedy), COUNTS)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("progressive-sampler:power=0.5..-.5", lambda r: r.power == (0.5, -0.5)),
        ("sampler:beta=0.9", lambda r: (r.power, r.beta) == (None, 0.9)),
        ("effective-sampler:power=0.5", lambda r: (r.power, r.beta) == (0.5, None)),
        ("sampler:power=none", lambda r: r.power is None),
        ("class-balanced:beta=0.9", lambda r: (r.beta, r.options["beta"]) == (None, 0.9)),
        ("influence-balanced:weight=none", lambda r: r.options["weight"] is None),
        ("ldam:max_margin=0.2", lambda r: (r.cosine, r.options["max_margin"]) == (30, 6)),
        ("ldam-drw:scale=20", lambda r: (r.cosine, r.options) == (20, {"scale": 1, "max_margin": 10})),
        ("gcl:noise=0.5,scale=20", lambda r: r.options == {"scale": 1, "margin": 10, "noise": 10}),
        ("cosine:scale=16", lambda r: (r.cosine, dict(r.options)) == (16, {})),
        ("seesaw:online=false", lambda r: r.options["online"] is False),
    ],
)
def test_options_are_read(text: str, read: Callable[[Remedy], bool]) -> None:
    assert read(parse_remedy(text))


def test_every_loss_is_raced_or_has_a_reason_not_to() -> None:
    """By what the stages train with: a new loss belongs to a remedy or to the table of exceptions."""
    used = {type(stage.criterion) for remedy in REMEDIES.values() for stage in stages_of(remedy, COUNTS)}
    left_out = {name for name in available() if entry(name).load() not in used}
    assert left_out == set(NOT_RACED)
    for name, reason in NOT_RACED.items():
        with pytest.raises(InputError, match=f"{name!r}; that loss cannot be raced: {reason}"):
            parse_remedy(name)


def test_multi_label_losses_alone_are_left_out() -> None:
    softmax = {name for name in available() if issubclass(entry(name).load(), SoftmaxLoss)}
    assert not softmax & set(NOT_RACED)


def calls_of(training: Training, stage: int) -> list[tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
    """What a stage's loss is called with."""
    seen: list[tuple[tuple[Tensor, ...], dict[str, Tensor]]] = []
    training.stages[stage].criterion.register_forward_pre_hook(
        lambda _, given, named: seen.append((tuple(part.detach() for part in given), named)), with_kwargs=True
    )
    return seen


def test_influence_balance_begins_half_way_and_sees_the_features(data: Part) -> None:
    plain, balanced = begun(data, "plain"), begun(data, "influence-balanced")
    assert balanced.edges == [0, 25, 50]
    for training in (plain, balanced):
        training.advance(25)
    # plain training's rate goes on along the same cosine, so that the first half is the same
    assert all(map(torch.equal, plain.model.parameters(), balanced.model.parameters()))

    calls = calls_of(balanced, 1)
    features: list[Tensor] = []
    balanced.model[2].register_forward_hook(lambda _, inputs, output: features.append(output.detach()))
    losses = [balanced.advance(step) for step in range(26, 51)]
    assert len(calls) == len(losses) == 25
    weight = torch.tensor(1 / ROWS / (1 / ROWS).mean(), dtype=torch.float32)
    for ((logits, target), named), h, loss in zip(calls, features, losses, strict=True):
        torch.testing.assert_close(named["extra"], h.abs().sum(1))
        p = torch.softmax(logits, 1)
        influence = (p - nn.functional.one_hot(target, 4)).abs().sum(1) * h.abs().sum(1)
        rows = weight[target] * nn.functional.cross_entropy(logits, target, reduction="none") / influence
        assert loss == pytest.approx(float(1000 * rows.mean()), rel=0.02)  # the formula's epsilon is left out here


def test_over_smoothing_trains_the_head_alone_at_the_end(data: Part) -> None:
    plain, smoothed = begun(data, "plain", epochs=4), begun(data, "los")
    for training in (plain, smoothed):
        training.advance(40)
    assert all(map(torch.equal, plain.model.parameters(), smoothed.model.parameters()))
    body, head = smoothed.model[0].weight.clone(), smoothed.model[3].weight.clone()
    calls = calls_of(smoothed, 1)
    losses = [smoothed.advance(step) for step in range(41, 51)]
    assert smoothed.optimiser.param_groups[0]["peak"] == pytest.approx(0.01 / 20)
    assert torch.equal(smoothed.model[0].weight, body)
    assert 0.9 * head.norm() < smoothed.model[3].weight.norm() < head.norm()
    expected = [float(nn.functional.cross_entropy(*given, label_smoothing=0.9)) for given, _ in calls]
    assert losses == pytest.approx(expected, rel=1e-5)
    drawn = torch.cat([given[1] for given, _ in calls])
    assert np.bincount(drawn, minlength=4).tolist() == ROWS.tolist()  # no sampler: every row once


def test_clouds_are_noise_in_the_units_of_cosines_then_the_head_is_refined(data: Part) -> None:
    clouded = begun(data, "gcl")
    criterion = clouded.stages[0].criterion
    behind = np.log(ROWS.max() / ROWS) / np.log(ROWS.max() / ROWS.min())
    np.testing.assert_allclose(criterion.spread, 30 * behind, rtol=1e-6)
    assert float(criterion.margin[0]) == 30 * 0.5
    assert float(criterion.scale[0]) == 1  # the head has it
    assert clouded.edges == [0, 40, 50]
    clouded.advance(40)
    body, head = clouded.model[0].weight.clone(), head_of(clouded.model).weight.clone()
    calls = calls_of(clouded, 1)
    clouded.advance()
    assert torch.equal(clouded.model[0].weight, body)
    moved = nn.functional.cosine_similarity(head_of(clouded.model).weight, head)
    assert ((moved > 0.5) & (moved < 0.99999)).all()  # it goes on, and does not start anew
    wanted = EffectiveNumberSampler(data[1], 0.9999).quotas(4)
    assert np.bincount(torch.cat([given[1] for given, _ in calls]), minlength=4).tolist() == wanted.tolist()


@pytest.mark.parametrize("name", ["seql", "gcl"])
def test_the_noise_of_losses_changes_with_step_and_seed_alone(name: str, data: Part) -> None:
    """On a network that stands still, whole batches differ by the noise alone."""

    def losses(remedy: str, seed: int) -> list[float]:
        recipe = Recipe(batch_size=400, learning_rate=1e-30, weight_decay=0.0)
        training = Training(network(), data, remedy, steps=5, recipe=recipe, seed=seed)
        return [training.advance(step) for step in range(1, 4)]

    assert losses("plain", 3) == pytest.approx([losses("plain", 3)[0]] * 3, rel=1e-6)
    found = losses(name, 3)
    torch.manual_seed(99)
    assert losses(name, 3) == found
    assert all(abs(a - b) > 1e-4 for a, b in zip(found, [*found[1:], losses(name, 4)[0]], strict=True))


class Unwatched(nn.Module):
    """Uses its head's weight, or calls it twice, or gives it more than one row per row."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.head, self.way = nn.Linear(6, 4), way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "weight":
            return nn.functional.linear(x, self.head.weight, self.head.bias)
        if self.way == "twice":
            return self.head(x) + self.head(-x)
        return self.head(torch.stack([x, x], 1)).mean(1)


@pytest.mark.parametrize(("way", "got"), [("weight", "no call"), ("twice", r"\(40, 6\), \(40, 6\)"), ("three", "2, 6")])
def test_a_head_that_cannot_be_watched_is_told_at_the_first_step(way: str, got: str, data: Part) -> None:
    training = Training(Unwatched(way), data, "influence-balanced", epochs=5, recipe=Recipe(batch_size=40))
    with pytest.raises(InputError, match=f"features \\(n, D\\).*{got}"):
        training.advance(1)
    fit(Unwatched(way), data, "focal", steps=2)


def test_the_page_lists_every_remedy_with_its_meaning_and_source() -> None:
    page = (Path(__file__).parents[2] / "docs" / "race.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([\w+-]+)` \| (.*?)(?: \(\[(.*?)\]\((.*?)\)\))? \|$", page.split("## The remedies")[1], re.M
    )
    told = {name: (meaning, ", ".join(filter(None, (source, link)))) for name, meaning, source, link in rows}
    assert told == {name: (remedy.meaning, remedy.cites) for name, remedy in REMEDIES.items()}
