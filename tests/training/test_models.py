"""Built-in networks on dense features, token bags and sequences, alone and together."""

import pytest
import torch

from evenhand.declared import InputError
from evenhand.training.models import BAG_RATE, MODELS, RecurrentModel, Shape, built_in, padded
from evenhand.training.rows import Inputs, Ragged, TableRows, TensorRows, as_rows

BAGS = Ragged(torch.tensor([1, 2, 2, 5]), torch.tensor([0, 2, 2]), torch.tensor([0.5, 1.0, 2.0, 1.0]))
STEPS = Ragged(torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 4]))
DENSE = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "inputs",
    [Inputs(DENSE), Inputs(tokens=BAGS), Inputs(sequence=STEPS), Inputs(DENSE, BAGS, STEPS)],
    ids=["dense", "tokens", "sequence", "all"],
)
def test_every_model_takes_every_kind_of_rows(model: str, inputs: Inputs) -> None:
    rows = TableRows(inputs, TARGET, buckets=8)
    torch.manual_seed(0)
    network = built_in(model, rows, 3)().eval()
    together = network(rows.batch(torch.arange(3)))
    assert together.shape == (3, 3)
    # A row's logits do not depend on its neighbours: padding and offsets leave no trace.
    alone = torch.cat([network(rows.batch(torch.tensor([i]))) for i in (2, 0, 1)])
    torch.testing.assert_close(alone, together[[2, 0, 1]])
    assert len({tuple(row) for row in together.tolist()}) > 1


def test_bags_are_weighted_sums() -> None:
    rows = TableRows(Inputs(tokens=BAGS), TARGET, buckets=8)
    network = built_in("linear", rows, 3)()
    table = BAG_RATE * network.bag.table.weight
    expected = network.head(torch.stack([0.5 * table[1] + table[2], 0 * table[0], 2 * table[2] + table[5]]))
    torch.testing.assert_close(network(rows.batch(torch.arange(3))), expected)


def test_padding_follows_the_lengths() -> None:
    filled, lengths = padded(STEPS)
    assert lengths.tolist() == [1, 3, 1]
    assert filled[:, :, 0].tolist() == [[0, 0, 0], [2, 4, 6], [0, 0, 0]]


def test_the_lstm_as_head_keeps_every_logit_within_one() -> None:
    network = RecurrentModel(Shape(dense=5), 7, head="lstm")
    assert float(network(100 * DENSE).detach().abs().max()) <= 1


@pytest.mark.parametrize("shape", [(4,), (4, 2, 2, 2)])
def test_other_shapes_are_told(shape: tuple[int, ...]) -> None:
    rows = TensorRows(torch.zeros(shape), torch.zeros(4, dtype=torch.long))
    with pytest.raises(InputError, match=r"\(n, D\) or \(n, T, D\)"):
        built_in("mlp", rows, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((torch.zeros(3, 2), [0, 1]), "one class for each"),
        ((torch.zeros(2, 2), [0.5, 1.0]), "whole numbers"),
        ((torch.zeros(2, 2), [-1, 1]), "0 or more"),
        ((torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)), "at least one row"),
        (iter([]), "torch data set with a length"),
    ],
)
def test_unusable_rows_are_told(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_rows(data)
