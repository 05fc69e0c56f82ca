"""The training loop: what a remedy changes, that nothing else differs, and that a run can be taken up anywhere."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evenhand.declared import InputError
from evenhand.losses import available
from evenhand.training import REMEDIES, Recipe, Remedy, Training, fit, parse_remedies, parse_remedy, predict_logits
from evenhand.training.draws import Draw
from evenhand.training.fitting import DivergedError
from evenhand.training.orders import Orders
from evenhand.training.stages import ScaledCosine, head_of
from evenhand.training.steps import mixed_seed

ROWS = np.array([120, 40, 20, 12])


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(4), ROWS))
    centre = rng.normal(size=(4, 6)) * 1.5
    x = centre[y] + rng.normal(size=(len(y), 6))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 4))


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_trains_and_is_repeatable(name: str, data: tuple[Tensor, Tensor]) -> None:
    first, second = (fit(network(), data, name, epochs=3, batch_size=32, seed=5) for _ in range(2))
    logits = predict_logits(first, data)
    assert logits.shape == (192, 4)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, predict_logits(second, data))
    assert REMEDIES[name].loss in available()


def test_rows_changed_at_random_are_the_same_after_a_rest(data: tuple[Tensor, Tensor]) -> None:
    class Noisy(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(data[1])

        def __getitem__(self, row: int) -> tuple[Tensor, int]:
            return data[0][row] + torch.randn(6), int(data[1][row])

    def trained(*stops: int) -> Tensor:
        training = Training(network(), Noisy(), "plain", steps=9, recipe=Recipe(batch_size=32), seed=3)
        for stop in (*stops, 9):
            training.advance(stop)
            torch.randn(7)  # the caller's own draws
        return predict_logits(training.model, data)

    assert torch.equal(trained(), trained(1, 4))


def test_plain_is_the_loop_everyone_writes(data: tuple[Tensor, Tensor]) -> None:
    """An independent loop with torch's own loss and the same rates ends at the same parameters."""
    steps, batches = 12, 6
    ours = fit(network(), data, "plain", steps=steps, batch_size=32, learning_rate=0.01, seed=1, clip=0.0)
    model = network()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
    warm = 1
    for epoch in range(2):
        generator = torch.Generator().manual_seed(mixed_seed(1, -2 - epoch))
        order = torch.randperm(192, generator=generator)
        for number, rows in enumerate(order.tensor_split(batches)):
            step = epoch * batches + number
            rate = 1.0 if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
            optimiser.param_groups[0]["lr"] = 0.01 * rate
            optimiser.zero_grad()
            nn.CrossEntropyLoss()(model(data[0][rows]), data[1][rows]).backward()
            optimiser.step()
    for a, b in zip(ours.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("power", "expected"), [(1.0, ROWS / 192), (0.0, np.full(4, 0.25)), (0.5, None)])
def test_drawing_rates_follow_the_power(power: float, expected: np.ndarray | None, data: tuple[Tensor, Tensor]) -> None:
    orders = Orders(data[1], classes=4, seed=0)
    drawn = torch.cat([orders.of(Draw(power), epoch) for epoch in range(100)])
    share = np.bincount(data[1][drawn], minlength=4) / len(drawn)
    wanted = ROWS**0.5 / (ROWS**0.5).sum() if expected is None else expected
    np.testing.assert_allclose(share, wanted, atol=0.001)
    per_row = np.bincount(drawn, minlength=192)[data[1].numpy() == 3]
    assert per_row.max() - per_row.min() <= 1


def test_head_alone_is_trained_in_the_second_stage(data: tuple[Tensor, Tensor]) -> None:
    training = Training(network(), data, "crt:start=0.5", epochs=4, recipe=Recipe(batch_size=32))
    training.advance(training.edges[1])
    body, head = (training.model.get_submodule(name).weight.clone() for name in ("0", "3"))
    training.advance()
    assert torch.equal(training.model.get_submodule("0").weight, body)
    assert not torch.equal(training.model.get_submodule("3").weight, head)


def test_scales_alone_are_trained_by_lws_and_folded_in(data: tuple[Tensor, Tensor]) -> None:
    training = Training(network(), data, "lws:start=0.5", epochs=6, recipe=Recipe(batch_size=32))
    training.advance(training.edges[1])
    body, head = (training.model.get_submodule(name).weight.clone() for name in ("0", "3"))
    training.advance()
    assert torch.equal(training.model.get_submodule("0").weight, body)
    factor = training.model.get_submodule("3").weight / head
    assert torch.allclose(factor, factor[:, :1].expand_as(factor))
    assert float((factor[:, 0] - 1).abs().max().detach()) > 1e-3
    assert set(training.model.state_dict()) == set(network().state_dict())


def test_deferred_weights_begin_late(data: tuple[Tensor, Tensor]) -> None:
    plain, deferred = (
        Training(network(), data, name, epochs=5, recipe=Recipe(batch_size=32))
        for name in ("plain", "deferred-weights")
    )
    for training in (plain, deferred):
        training.advance(deferred.edges[1])
    assert torch.equal(predict_logits(plain.model, data), predict_logits(deferred.model, data))
    for training in (plain, deferred):
        training.advance()
    assert not torch.equal(predict_logits(plain.model, data), predict_logits(deferred.model, data))


def test_tau_normalisation_makes_the_norms_equal(data: tuple[Tensor, Tensor]) -> None:
    model = fit(network(), data, "tau-norm:tau=1", epochs=2, batch_size=32)
    norms = head_of(model).weight.norm(dim=1)
    torch.testing.assert_close(norms, norms.mean().expand(4))


def test_ldam_trains_a_cosine_head(data: tuple[Tensor, Tensor]) -> None:
    model = fit(network(), data, "ldam", epochs=2, batch_size=32)
    assert isinstance(head_of(model), ScaledCosine)
    assert float(predict_logits(model, data).abs().max()) <= 30.001


def test_callbacks_see_every_epoch_in_evaluation_mode(data: tuple[Tensor, Tensor]) -> None:
    seen: list[tuple[int, bool]] = []
    fit(network(), data, epochs=3, batch_size=32, on_epoch=lambda epoch, model: seen.append((epoch, model.training)))
    assert seen == [(1, False), (2, False), (3, False)]


def test_torch_data_sets_are_trained_on(data: tuple[Tensor, Tensor]) -> None:
    dataset = torch.utils.data.TensorDataset(*data)
    model = fit(network(), dataset, "sampler", epochs=2, batch_size=32, seed=4)
    again = fit(network(), data, "sampler", epochs=2, batch_size=32, seed=4)
    assert torch.equal(predict_logits(model, dataset), predict_logits(again, data))


def test_a_loss_that_is_not_a_number_is_an_error(data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(DivergedError, match=r"the loss became (nan|inf) at step \d+; lower the learning rate"):
        fit(network(), data, epochs=3, learning_rate=1e30, weight_decay=0.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focus", "did you mean 'focal'"),
        ("focal:gama=2", "did you mean 'gamma'"),
        ("focal:gamma", "NAME=VALUE"),
        ("crt:start=1.5", "between 0 and 1"),
    ],
)
def test_wrong_remedies_are_told(text: str, message: str, data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=message):
        fit(network(), data, text, epochs=1)


def test_remedies_are_read_from_a_list() -> None:
    names = [remedy.name for remedy in parse_remedies("plain, focal:gamma=0.5,weight=balanced,sampler:power=0.25")]
    assert names == ["plain", "focal:gamma=0.5,weight=balanced", "sampler:power=0.25"]
    assert parse_remedy("sampler:power=0.25").power == 0.25
    own = Remedy("mine", "my own", loss="focal", options={"gamma": 3.0})
    assert parse_remedy(own) is own


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "epochs= or steps="), ({"epochs": 1, "steps": 1}, "one of them"), ({"steps": 0}, "at least one step")],
)
def test_unusable_plans_are_told(options: dict[str, int], message: str, data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=message):
        fit(network(), data, **options)


def test_a_head_that_cannot_be_found_is_told(data: tuple[Tensor, Tensor]) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.zeros(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    assert predict_logits(fit(Bare(), data, epochs=1), data).shape == (192, 4)
    with pytest.raises(InputError, match="call it `head`"):
        fit(Bare(), data, "ldam", epochs=1)


def test_a_state_that_does_not_fit_is_refused(data: tuple[Tensor, Tensor]) -> None:
    """An earlier stage has another optimiser and head; another length has another learning rate at the same step."""
    early, late = (Training(network(), data, "crt", steps=20, seed=1) for _ in range(2))
    early.advance(4)
    late.advance(18)
    with pytest.raises(InputError, match="not beyond the stage of the state, step 4, but it is at step 18"):
        late.load_state_dict(early.state_dict())
    with pytest.raises(InputError, match="a training of 30 steps, got one of 20"):
        Training(network(), data, "crt", steps=30, seed=1).load_state_dict(early.state_dict())


def test_arrays_of_numpy_are_trained_on_as_they_come(data: tuple[Tensor, Tensor]) -> None:
    inputs, target = data
    arrays = (inputs.double().numpy(), target.numpy())
    first, second = (fit(network(), part, "plain", steps=3, seed=1) for part in (data, arrays))
    assert torch.equal(predict_logits(first, data), predict_logits(second, arrays))
