"""What somebody who replaces ``nn.CrossEntropyLoss`` for the first time gets wrong, and how the losses answer."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import evenhand  # noqa: E402
from evenhand import losses  # noqa: E402
from evenhand.counts import ClassCounts  # noqa: E402
from evenhand.declared import InputError  # noqa: E402
from evenhand.weights import class_weights  # noqa: E402

LABELS = [2, 2, 2, 0, 1, 1]
COUNTS = [900, 300, 50, 5]


class Frequencies:
    """Entries with their class, most frequent first, as pandas has them in ``value_counts()``."""

    def __init__(self, pairs):
        self.pairs = pairs

    def keys(self):
        return [key for key, _ in self.pairs]

    def items(self):
        return iter(self.pairs)

    def __getitem__(self, key):
        return dict(self.pairs)[key]


def batch(classes=4, rows=8):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator)
    return logits.requires_grad_(), torch.randint(classes, (rows,), generator=generator)


def softmax_losses():
    return [
        name
        for name in losses.available()
        if name not in ("sigmoid-focal", "asymmetric", "distribution-balanced", "eqlv2")
    ]


@pytest.mark.parametrize(
    "counts",
    [
        Counter(LABELS),
        {np.int64(2): 3, np.int64(0): 1, np.int64(1): 2},
        Frequencies([(2.0, 3), (1.0, 2), (0.0, 1)]),
        Frequencies([(2, 3), (1, 2), (0, 1)]),
    ],
)
def test_counts_by_class_index_come_in_class_order_whatever_order_they_were_counted_in(counts):
    known = ClassCounts.from_counts(counts)
    assert (known.counts.tolist(), known.names) == ([1, 2, 3], None)
    assert losses.build("weighted", counts).weight.tolist() == losses.build("weighted", [1, 2, 3]).weight.tolist()


@pytest.mark.parametrize(
    ("counts", "missing"), [({0: 3, 2: 1}, 1), ({1: 3, 2: 1}, 0), ({-1: 4, 0: 2, 1: 3}, 2), ({0: 9}, 1)]
)
def test_counts_by_class_index_with_a_gap_are_refused_since_k_is_unknown(counts, missing):
    with pytest.raises(InputError, match=f"found no class {missing}"):
        losses.build("weighted", counts)


def test_weights_and_audits_read_counts_by_class_index_alike():
    assert class_weights(Counter(LABELS)).tolist() == class_weights([1, 2, 3]).tolist()
    rng = np.random.default_rng(0)
    given = {"logits": rng.normal(size=(60, 3)), "target": rng.integers(0, 3, 60)}
    shuffled = evenhand.audit(**given, train_counts=Counter(LABELS), class_weight={2: 3.0, 1: 2.0, 0: 1.0})
    in_order = evenhand.audit(**given, train_counts=[1, 2, 3], class_weight=[1.0, 2.0, 3.0])
    assert json.dumps(shuffled.to_dict(), default=str) == json.dumps(in_order.to_dict(), default=str)
    with pytest.raises(InputError, match="no class 1"):
        evenhand.audit(**given, train_counts={0: 5, 2: 7})


def test_named_counts_keep_their_order():
    assert losses.build("weighted", {"newt": 1, "cat": 3}).weight.argmax().item() == 0


def test_weights_by_class_index_need_no_names():
    assert losses.build("cross-entropy", weight={2: 3.0, 0: 1.0, 1: 2.0}).weight.tolist() == [1, 2, 3]
    assert losses.build("focal", [5, 5, 5], alpha={1: 2.0, 2: 3.0, 0: 1.0}).law().shape.alpha.tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="3 weights"):
        losses.build("cross-entropy", [5, 5, 5], weight={1: 2.0, 0: 1.0})


@pytest.mark.parametrize("name", softmax_losses())
def test_every_loss_with_counts_refuses_logits_of_another_number_of_classes(name):
    criterion = losses.build(name, COUNTS)
    logits, target = batch(classes=5)
    target = target.clamp(max=3)
    with pytest.raises(InputError, match=r"expected 4 classes, .* got 5 on axis 1 of shape \(8, 5\)"):
        criterion(logits, target)
    with pytest.raises(InputError, match="expected 4 classes"):
        criterion.rows(logits, target)
    with pytest.raises(InputError, match=r"expected 4 classes, .* got 5 on axis 0"):
        criterion.linear(torch.ones(8, 2), torch.ones(5, 2), target)


def test_number_of_classes_is_read_off_the_right_axis():
    logits, target = batch()
    built = losses.build("cross-entropy", COUNTS, reduction="none")
    assert built(logits[0], target[0]).shape == ()
    last = losses.build("cross-entropy", COUNTS, class_dim=-1, reduction="none")
    assert last(logits[None], target[None]).shape == (1, 8)
    with pytest.raises(InputError, match="axis 1"):
        built(logits[None], target[None])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ignore_index": None}, "ignore_index to be a whole number, got None"),
        ({"ignore_index": 1.5}, "ignore_index to be a whole number"),
        ({"class_dim": None}, "class_dim to be a whole number"),
        ({"label_smoothing": "0.1"}, r"label_smoothing in \[0, 1\), got '0.1'"),
        ({"label_smoothing": None}, "label_smoothing in"),
        ({"z_loss": -1.0}, "z_loss of 0 or more"),
        ({"z_loss": "1"}, "z_loss of 0 or more"),
    ],
)
def test_options_of_the_wrong_kind_are_named_when_the_loss_is_built(options, said):
    with pytest.raises(InputError, match=said):
        losses.build("cross-entropy", **options)


def test_numpy_numbers_are_numbers():
    logits, target = batch()
    told = {"label_smoothing": np.float32(0.5), "ignore_index": np.int64(2), "z_loss": np.float32(0.25)}
    plain = {"label_smoothing": 0.5, "ignore_index": 2, "z_loss": 0.25}
    ours = losses.build("logit-adjusted", COUNTS, tau=np.float32(0.5), **told)
    assert torch.equal(ours(logits, target), losses.build("logit-adjusted", COUNTS, tau=0.5, **plain)(logits, target))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda z, y: losses.build("cross-entropy")(z, y, sample_weight=[1.0] * 8), "sample_weight"),
        (lambda z, y: losses.build("influence-balanced", COUNTS)(z, y, extra=np.ones(8)), "extra"),
        (lambda z, y: losses.cross_entropy(z, y, losses.Law(offset=[0.0] * 4)), "offset"),
        (lambda z, y: losses.cross_entropy(z, y, losses.Law(scale=2.0)), "scale"),
        (lambda z, y: losses.cross_entropy(z, y, losses.Law(class_weight=[1.0] * 4)), "class_weight"),
        (lambda z, y: losses.build("cross-entropy").linear(torch.ones(8, 2), nn.Linear(2, 4), y), "weight"),
        (lambda z, y: losses.build("cross-entropy").linear(np.ones((8, 2)), torch.ones(4, 2), y), "features"),
        (lambda z, y: losses.build("cross-entropy", weight=[1.0] * 4).denominator(y.numpy()), "target"),
    ],
)
def test_what_is_no_tensor_is_named(call, name):
    with pytest.raises(InputError, match=f"expected {name} to be a torch tensor"):
        call(*batch())


@pytest.mark.parametrize(
    ("logits", "target", "said"),
    [
        (torch.zeros(8, 4), torch.eye(4)[torch.zeros(8).long()].long(), r"target\.float\(\)"),
        (torch.zeros(8, 4), torch.zeros(8, 1).long(), r"target\.reshape"),
        (torch.zeros(2, 4, 3, 3), torch.zeros(2, 1, 3, 3).long(), r"target\.reshape"),
        (torch.zeros(2, 7, 5), torch.zeros(2, 7).long(), "class_dim=-1"),
        (torch.zeros(8, 4), torch.zeros(5).long(), r"shape \(8,\) for these logits, got \(5,\)"),
        (torch.zeros(8, 1), torch.ones(8).long(), "SigmoidLoss"),
        (torch.zeros(8, 4), torch.full((8,), 255), "ignore_index=255"),
    ],
)
def test_targets_that_do_not_fit_get_the_remedy_that_fits(logits, target, said):
    with pytest.raises(InputError, match=said):
        losses.build("cross-entropy")(logits, target)
    with pytest.raises(InputError, match=said):
        losses.build("focal")(logits, target)


class Classifier(nn.Module):
    def __init__(self, criterion):
        super().__init__()
        self.head, self.criterion = nn.Linear(3, 3), criterion


def test_checkpoints_of_models_that_held_torchs_loss_load_with_its_weight():
    saved = Classifier(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]).half())).state_dict()
    model = Classifier(losses.build("cross-entropy", weight=[1.0, 1.0, 1.0]))
    assert str(model.load_state_dict(saved)) == "<All keys matched successfully>"
    assert model.criterion.weight.tolist() == [1, 2, 4]
    assert model.criterion.weight.dtype == torch.float32
    assert "criterion.weight" not in model.state_dict()
    assert model.load_state_dict(model.state_dict()) is not None


@pytest.mark.parametrize("criterion", [losses.build("cross-entropy"), losses.build("cross-entropy", weight=[1.0, 1.0])])
def test_a_saved_weight_without_a_place_is_not_dropped_silently(criterion):
    saved = Classifier(nn.CrossEntropyLoss(weight=torch.ones(3))).state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*criterion\.weight"):
        Classifier(criterion).load_state_dict(saved)


def test_denominator_count_is_torchs_mean_of_weighted_soft_targets():
    logits, target = batch()
    mixed = 0.7 * nn.functional.one_hot(target, 4) + 0.3 * nn.functional.one_hot(target.flip(0), 4)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for smoothing in (0.0, 0.1):
        ours = losses.build("cross-entropy", weight=weight, label_smoothing=smoothing, denominator="count")
        torchs = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
        torch.testing.assert_close(ours(logits, mixed), torchs(logits, mixed))


@pytest.mark.parametrize("name", ["cross-entropy", "focal", "logit-adjusted"])
def test_scores_given_as_soft_targets_are_refused(name):
    logits, _ = batch()
    with pytest.raises(InputError, match=r"soft targets of 0 or more, got -0\.5"):
        losses.build(name, COUNTS)(logits, torch.tensor([[1.5, -0.5, 0.0, 0.0]] * 8))


def test_deferred_weights_need_a_loss_that_can_switch():
    with pytest.raises(InputError, match="got CrossEntropyLoss"):
        losses.DeferredReweighting(nn.CrossEntropyLoss(), start=1)
