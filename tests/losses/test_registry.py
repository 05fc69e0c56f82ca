"""Losses by name."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import torch

import evenhand
from evenhand import InputError, losses
from evenhand.losses import registry

SOFTMAX = """cross-entropy weighted class-balanced focal ldam balanced-softmax logit-adjusted cdt vs poly gce gla gca
    label-aware-smoothing los influence-balanced seesaw seql gcl"""
NAMES = [*SOFTMAX.split(), "sigmoid-focal", "asymmetric", "distribution-balanced", "eqlv2"]


def test_the_names_are_those_of_the_design():
    assert list(losses.available()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_builds_says_what_it_does_and_is_exported(name):
    line = losses.available()[name]
    assert re.search(r"\(.*(\d{4}|no source)\)$", line)
    assert "\n" not in line
    assert len(line) <= 100
    loss = losses.build(name, [5, 3, 2], **({"rows": 20} if name == "distribution-balanced" else {}))
    assert isinstance(loss, torch.nn.Module)
    assert getattr(losses, type(loss).__name__) is type(loss)
    documentation = type(loss).__doc__
    assert "Source:" in documentation or "(no source)" in line
    assert ">>>" in documentation
    assert "evenhand" in type(loss).__module__


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_known_to_the_class(name):
    loss = registry.entry(name).load()
    options = registry.options_of(loss)
    assert {"reduction", "ignore_index"} <= options
    assert not options & {"self", "counts", "options"}


def test_softmax_losses_are_torchs_own_kind():
    for name in SOFTMAX.split():
        assert isinstance(losses.build(name, [3, 2]), torch.nn.CrossEntropyLoss)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.build("focl"), "did you mean 'focal'"),
        (lambda: losses.build("xyz"), "choose one of cross-entropy, weighted"),
        (lambda: losses.build(3), "got 3"),
        (lambda: losses.build("focal", gama=2), "did you mean 'gamma'"),
        (lambda: losses.build("focal", gamma="2"), "gamma to be a number"),
        (lambda: losses.build("los", zzz=2), "it has class_dim"),
        (lambda: losses.build("label-aware-smoothing", [2, 1], label_smoothing=0.1), "option of the loss"),
        (lambda: losses.build("class-balanced", [2, 1], weight=[1, 2]), "option of the loss"),
        (lambda: losses.build("vs"), "expected counts= for the loss 'vs'"),
        (lambda: losses.build("distribution-balanced", [2, 1]), "expected rows="),
        (lambda: losses.build("vs", [1.5, 2]), "whole numbers"),
    ],
)
def test_mistakes_get_one_sentence_with_a_hint(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_all_is_what_can_be_imported():
    assert sorted(losses.__all__) == dir(losses)
    assert len(set(losses.__all__)) == len(losses.__all__)
    for name in losses.__all__:
        assert getattr(losses, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = losses.nonsense


def test_no_function_hides_a_module():
    for name in losses.__all__:
        assert name == "shapes" or f"evenhand.losses.{name}" not in sys.modules


def fresh(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_torch_comes_with_the_first_loss_and_not_before():
    code = "import sys; from evenhand import losses; losses.available(); print('torch' in sys.modules)"
    assert fresh(code) == ["False"]
    assert fresh("from evenhand import losses; print(type(losses.build('focal')).__name__)") == ["FocalLoss"]
    assert evenhand.losses is losses
