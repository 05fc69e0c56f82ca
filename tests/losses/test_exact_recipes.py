"""The recipes of the documentation, against one large batch per step, in the frameworks themselves."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from evenhand.declared import InputError  # noqa: E402
from evenhand.losses.exact import TrainerLoss  # noqa: E402
from evenhand.losses.modules.base import SoftmaxLoss  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"
CLASSES, FEATURES = 10, 16
# what the frameworks themselves warn about, and processes that they leave to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore")


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def long_tailed(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    labels = torch.multinomial(torch.linspace(10, 0.1, CLASSES), rows, replacement=True, generator=generator)
    return torch.randn(rows, FEATURES, generator=generator), labels, torch.linspace(0.1, 10, CLASSES)


def head() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(FEATURES, CLASSES)


def by_whole_windows(x: Tensor, y: Tensor, weight: Tensor, rows: int) -> nn.Linear:
    """Plain steps, each over a whole window at once."""
    model = head()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for a, b in zip(x.split(rows), y.split(rows), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(a), b, weight=weight).backward()
        optimizer.step()
    return model


def same(ours: nn.Module, theirs: nn.Module) -> None:
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-5, atol=1e-6)


def test_plain_loop() -> None:
    errors = example("exact_plain")["main"]()
    assert errors["usual"] > 0.05
    assert max(errors["exact_mean"], errors["WeightedAccumulation"]) < 1e-6


@pytest.mark.parametrize(("name", "rows", "accumulate"), [("Classifier", 8, 3), ("ManualClassifier", 24, 1)])
def test_lightning(name: str, rows: int, accumulate: int) -> None:
    pytest.importorskip("lightning")
    recipe = example("exact_lightning")
    x, y, weight = long_tailed(52)  # the last window is shorter
    trained = recipe["train"](
        recipe[name](head(), weight), x, y, rows, accumulate, devices=1, enable_model_summary=False
    )
    same(trained, by_whole_windows(x, y, weight, 24))


@pytest.mark.parametrize("average_over_ranks", [True, False])
def test_trainer(average_over_ranks: bool) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    recipe = example("exact_trainer")
    x, y, weight = long_tailed(60)  # the last micro-batch is shorter
    model = recipe["Classifier"](FEATURES, CLASSES)
    model.head.load_state_dict(head().state_dict())
    more = {"average_tokens_across_devices": average_over_ranks, "per_device_eval_batch_size": 60}
    trainer = recipe["train"](model, x, y, weight, rows=8, accumulate=8, steps=1, **more)
    same(model.head, by_whole_windows(x, y, weight, 60))
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model.head(x), y, weight=weight).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_accelerate() -> None:
    pytest.importorskip("accelerate")
    x, y, weight = long_tailed(52)
    trained = example("exact_accelerate")["train"](head(), x, y, weight, rows=8, accumulate=3)
    same(trained, by_whole_windows(x, y, weight, 24))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "needs"), [("exact_trainer", "transformers"), ("exact_accelerate", "accelerate")])
def test_two_ranks(name: str, needs: str) -> None:
    pytest.importorskip(needs)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, timeout=300)
    errors = [float(line.rsplit(maxsplit=1)[1]) for line in done.stdout.splitlines() if line.startswith("error of")]
    assert len(errors) == 2, done.stderr[-2000:]
    assert max(errors) < 1e-6


def test_a_loss_that_nobody_attached_refuses_to_train() -> None:
    loss = TrainerLoss(SoftmaxLoss())
    logits = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(InputError, match="attach"):
        loss({"logits": logits}, torch.tensor([0, 1]), num_items_in_batch=2)
    assert loss((logits,), torch.tensor([0, 1])).item() == pytest.approx(1.0986123)
    with pytest.raises(InputError, match="reduction"):
        TrainerLoss(SoftmaxLoss(reduction="sum"))


def test_a_loss_of_another_trainer_is_not_attached() -> None:
    class Other:
        compute_loss_func = None

    with pytest.raises(InputError, match="compute_loss_func"):
        TrainerLoss(SoftmaxLoss()).attach(Other())


def test_a_step_where_nothing_counts_is_zero() -> None:
    class Steps:
        compute_loss_func: Any = None

        class args:  # noqa: N801
            device, world_size = torch.device("cpu"), 1

        def get_batch_samples(self) -> tuple[list[dict[str, Tensor]], int]:
            return [{"labels": torch.tensor([[-100, -100]])}], 0

    loss, steps = TrainerLoss(SoftmaxLoss(torch.ones(3))), Steps()
    steps.compute_loss_func = loss
    batches, total = loss.attach(steps).get_batch_samples()
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    value = loss({"logits": logits}, batches[0]["labels"], num_items_in_batch=total)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
