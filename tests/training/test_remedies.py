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
from evenhand.training import REMEDIES, Recipe, Remedy, Training, parse_remedy
from evenhand.training.samplers import EffectiveNumberSampler
from evenhand.training.stages import stages_of

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
        ("seesaw:online=false", lambda r: r.options["online"] is False),
    ],
)
def test_options_are_read(text: str, read: Callable[[Remedy], bool]) -> None:
    assert read(parse_remedy(text))


def test_the_page_lists_every_remedy_with_its_meaning_and_source() -> None:
    page = (Path(__file__).parents[2] / "docs" / "race.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([\w+-]+)` \| (.*?)(?: \(\[(.*?)\]\((.*?)\)\))? \|$", page.split("## The remedies")[1], re.M
    )
    told = {name: (meaning, ", ".join(filter(None, (source, link)))) for name, meaning, source, link in rows}
    assert told == {name: (remedy.meaning, remedy.cites) for name, remedy in REMEDIES.items()}
