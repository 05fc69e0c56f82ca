"""evenhand's own losses have every property, and the properties catch the mistakes that circulate."""

import pytest

torch = pytest.importorskip("torch")

from .mutants import MUTANTS  # noqa: E402
from .numerics import ARITHMETIC  # noqa: E402
from .ours import EVERYTHING, SIGMOID, SOFTMAX  # noqa: E402
from .properties import FORMULAS  # noqa: E402
from .sigmoid import MULTI_LABEL  # noqa: E402
from .subject import Subject, judge  # noqa: E402

SINGLE_LABEL = {wanted.name: wanted for wanted in (*FORMULAS, *ARITHMETIC)}


@pytest.mark.parametrize("name", SINGLE_LABEL)
def test_evenhand_has_every_property(name):
    verdict = judge(SOFTMAX, SINGLE_LABEL[name])
    assert verdict.outcome == "pass", verdict


@pytest.mark.parametrize("wanted", MULTI_LABEL, ids=lambda x: x.name)
def test_evenhand_has_every_multi_label_property(wanted):
    verdict = judge(SIGMOID, wanted)
    assert verdict.outcome == "pass", verdict


@pytest.mark.parametrize(("mutant", "name"), [(m, n) for m, (_, names) in MUTANTS.items() for n in sorted(names)])
def test_a_mistake_is_caught(mutant, name):
    subject = Subject(mutant, MUTANTS[mutant][0], EVERYTHING)
    assert judge(subject, SINGLE_LABEL[name]).outcome == "fail"


def test_every_property_catches_some_mistake():
    assert set().union(*(names for _, names in MUTANTS.values())) == set(SINGLE_LABEL)


def test_what_is_not_offered_is_not_judged():
    bare = Subject("bare", MUTANTS["torch"][0], frozenset(("softmax",)))
    assert judge(bare, SINGLE_LABEL["focal"]).outcome == "not offered"
    assert judge(bare, SINGLE_LABEL["cross-entropy"]).outcome == "pass"
    assert judge(bare, MULTI_LABEL[0]).outcome == "not offered"
