from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from evenhand.demo import data, training  # noqa: E402
from evenhand.demo.network import NextNameNetwork  # noqa: E402
from evenhand.demo.recipe import Recipe  # noqa: E402


@pytest.fixture(scope="module")
def task(arrays: dict[str, Any]) -> data.NextNames:
    return data.draw(data.most_frequent(arrays, 50), rows=2000, validation_rows=500, seed=0)


def test_the_network_is_that_of_the_question() -> None:
    network = NextNameNetwork(100, 20)
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("Embedding") == kinds.count("LSTM") == 1
    assert kinds.count("Linear") == 4
    assert network(torch.randint(100, (7, 8))).shape == (7, 20)


def test_the_state_of_an_lstm_is_bounded_and_a_softmax_sums_to_one() -> None:
    context = torch.randint(100, (50, 8))
    bounded = NextNameNetwork(100, 20, head="lstm")
    for parameter in bounded.parameters():
        parameter.data *= 50
    assert bounded(context).shape == (50, 20)
    assert bounded(context).abs().max() <= 1
    torch.testing.assert_close(NextNameNetwork(100, 20, softmax=True)(context).sum(1), torch.ones(50))


def test_accumulated_loss_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(12, 5, generator=generator), torch.randint(5, (12,), generator=generator)
    weight = torch.tensor([0.1, 1.0, 2.0, 5.0, 10.0])
    row_loss = torch.nn.functional.cross_entropy(logits, target, weight=weight, reduction="none")
    one_piece = training.accumulated_loss(row_loss, weight[target], 12)
    torch.testing.assert_close(one_piece, torch.nn.functional.cross_entropy(logits, target, weight=weight))
    single_rows = training.accumulated_loss(row_loss, weight[target], 1)
    torch.testing.assert_close(single_rows, torch.nn.functional.cross_entropy(logits, target))
    by_hand = torch.stack(
        [torch.nn.functional.cross_entropy(logits[i : i + 5], target[i : i + 5], weight=weight) for i in (0, 5, 10)]
    ).mean()
    torch.testing.assert_close(training.accumulated_loss(row_loss, weight[target], 5), by_hand)


def test_training_learns_repeats_and_leaves_the_global_generator_alone(task: data.NextNames) -> None:
    state = torch.random.get_rng_state()
    losses: list[float] = []
    recipe = Recipe(epochs=4, rows=2000)
    one = training.train(task, recipe, None, seed=3, progress=lambda step, total, loss: losses.append(loss))
    two = training.train(task, recipe, None, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(losses) == 4 * 8
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    logits = training.predict(one, task.validation.context)
    assert logits.shape == (len(task.validation), 50)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, training.predict(two, task.validation.context))
    frequent = np.bincount(task.validation.target).max() / len(task.validation)
    assert np.mean(logits.argmax(1) == task.validation.target) > frequent
    other = training.train(task, recipe, None, seed=4)
    assert not np.array_equal(logits, training.predict(other, task.validation.context))


def test_training_and_predicting_use_one_thread_and_give_the_others_back(task: data.NextNames) -> None:
    before, seen = torch.get_num_threads(), []
    recipe = Recipe(epochs=1, rows=2000)
    try:
        torch.set_num_threads(2)
        network = training.train(task, recipe, None, seed=0, progress=lambda *_: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 2
        training.predict(
            network, task.validation.context, progress=lambda done, total: seen.append(torch.get_num_threads())
        )
        assert torch.get_num_threads() == 2
        assert set(seen) == {1}
        with pytest.raises(KeyboardInterrupt):
            training.train(task, recipe, None, seed=0, progress=_interrupt)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def _interrupt(step: int, total: int, loss: float) -> None:
    raise KeyboardInterrupt


def test_the_sampler_draws_every_class_equally_often(task: data.NextNames) -> None:
    order = training._order(task.train, Recipe(sampler=True), 50, torch.Generator().manual_seed(0))
    drawn = np.bincount(task.train.target[order.numpy()], minlength=50)
    assert drawn.sum() == 2000
    assert np.sum((drawn - 40.0) ** 2 / 40.0) < 95  # chi-square, 49 degrees of freedom, p about 1e-4


def test_trained_networks_are_found_again_and_never_confused(task: data.NextNames, tmp_path: Path) -> None:
    recipe, weight = Recipe(epochs=1, rows=2000), np.full(50, 2.0)
    first, cached, message = training.trained(task, recipe, weight, seed=0, folder=tmp_path)
    assert not cached
    assert message is None
    second, cached, _ = training.trained(task, recipe, weight, seed=0, folder=tmp_path)
    assert cached
    np.testing.assert_array_equal(
        training.predict(first, task.validation.context), training.predict(second, task.validation.context)
    )
    keys = {
        training.fingerprint(task, recipe, weight, seed=0),
        training.fingerprint(task, recipe, weight, seed=1),
        training.fingerprint(task, recipe, None, seed=0),
        training.fingerprint(task, recipe, weight + 1, seed=0),
        training.fingerprint(task, Recipe(epochs=2, rows=2000), weight, seed=0),
    }
    assert len(keys) == 5
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert not training.trained(task, recipe, weight, seed=0, folder=tmp_path)[1]
    assert training.trained(task, recipe, weight, seed=0, folder=tmp_path)[1]
    np.savez(file, **{"head.weight": np.zeros((3, 3), dtype=np.float32)})
    assert not training.trained(task, recipe, weight, seed=0, folder=tmp_path)[1]
    assert not training.trained(task, recipe, weight, seed=0, folder=tmp_path, fresh=True)[1]
