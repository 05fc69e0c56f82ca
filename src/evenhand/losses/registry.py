"""Every loss by name, in one table.

A new loss is a class in ``modules/`` (softmax) or ``multilabel/`` (sigmoid), whose ``law()`` returns the parameters of
the paper, and a row of :data:`LOSSES`: that makes it buildable, exported, and subject to the conformance suite's checks
of every registered loss. Type checkers find it by a line in this package's ``__init__``. Its formula as an oracle goes
to ``tests/conformance/oracles.py``.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from evenhand.declared import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Entry:
    """One loss: ``file:Class`` in ``modules/``, or ``folder.file:Class``, and what it does, with its source."""

    home: str
    line: str

    @property
    def module(self) -> str:
        """Module below this package."""
        module = self.home.split(":")[0]
        return module if "." in module else f"modules.{module}"

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.home.split(":")[1]

    def load(self) -> type[nn.Module]:
        """The class; imports torch."""
        found: type[nn.Module] = getattr(import_module(f"evenhand.losses.{self.module}"), self.name)
        return found


def build(name: str, counts: Any = None, **options: Any) -> nn.Module:
    """A loss by name.

    Args:
        name: one of :func:`available`.
        counts: (K,) rows per class of the training set, a dictionary from class name to rows, or
            :class:`evenhand.ClassCounts`. Most losses need them, and all need them to know their rule for
            balanced accuracy.
        **options: the loss's own (``gamma``, ``tau``, ``beta``, ``max_margin``, ...; see its class) and those of all:
            ``weight``, ``ignore_index``, ``label_smoothing``, ``reduction``, ...

    Returns:
        A module, called with logits and targets.

    Raises:
        InputError: an unknown name or option, missing counts, or a value that the loss refuses.

    Example:
        >>> build("focal", counts={"cat": 90, "newt": 10}, weight="balanced", gamma=1.0)
        FocalLoss(classes=2, gamma=1.0, reduction='mean', ignore_index=-100)
        >>> build("focus")
        Traceback (most recent call last):
            ...
        evenhand.declared.InputError: expected the name of a loss, got 'focus'; did you mean 'focal'?
    """
    found = entry(name).load()
    known = options_of(found)
    unknown = next((option for option in options if option not in known), None)
    if unknown is not None:
        close = get_close_matches(unknown, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(known))}"
        raise InputError(f"expected an option of the loss {name!r}, got {unknown!r}; {hint}")
    given = {*options, *(() if counts is None else ("counts",))}
    missing = next((p.name for p in inspect.signature(found).parameters.values() if _is_needed(p, given)), None)
    if missing is not None:
        advice = "give the training rows of each class" if missing == "counts" else f"see losses.{found.__name__}"
        raise InputError(f"expected {missing}= for the loss {name!r}, got none; {advice}")
    return found(**options) if counts is None else found(counts=counts, **options)


def available() -> dict[str, str]:
    """Every loss's name, and one line on what it does, with the year of its source. Does not import torch.

    Example:
        >>> available()["logit-adjusted"]
        'adds tau log prior in training: balanced answers without weights (Menon et al. 2021)'
    """
    return {name: found.line for name, found in LOSSES.items()}


def entry(name: str) -> Entry:
    """The table's row.

    Raises:
        InputError: an unknown name.
    """
    if not isinstance(name, str) or name not in LOSSES:
        close = get_close_matches(str(name), list(LOSSES), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(LOSSES)}"
        raise InputError(f"expected the name of a loss, got {name!r}; {hint}")
    return LOSSES[name]


def options_of(loss: type[Any]) -> set[str]:
    """Keyword arguments that a loss class takes, without `counts`: its own, and its base's where it passes them on."""
    names: set[str] = set()
    for parent in loss.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self", "counts"} - set(getattr(loss, "fixed_options", ()))


def _is_needed(parameter: inspect.Parameter, given: set[str]) -> bool:
    named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return named and parameter.default is parameter.empty and parameter.name not in given


LOSSES: dict[str, Entry] = {
    "cross-entropy": Entry("weighted:CrossEntropyLoss", "torch's loss: learns p(y | x) as it is (no source)"),
    "weighted": Entry("weighted:WeightedLoss", "class weights by a rule, balanced by default (King and Zeng 2001)"),
    "class-balanced": Entry(
        "weighted:ClassBalancedLoss",
        "weights by the effective number of rows, plain or focal (Cui et al. 2019)",
    ),
    "focal": Entry(
        "shaped:FocalLoss", "rows that are right already count less; no balance by itself (Lin et al. 2017)"
    ),
    "ldam": Entry("margins:LDAMLoss", "larger margins for rarer classes, on a cosine head (Cao et al. 2019)"),
    "balanced-softmax": Entry("adjusted:BalancedSoftmaxLoss", "adds the log prior in training (Ren et al. 2020)"),
    "logit-adjusted": Entry(
        "adjusted:LogitAdjustedLoss",
        "adds tau log prior in training: balanced answers without weights (Menon et al. 2021)",
    ),
    "cdt": Entry("adjusted:CDTLoss", "scales logits down by class rarity in training (Ye et al. 2020)"),
    "vs": Entry("adjusted:VSLoss", "scale and offset by class: CDT and logit adjustment in one (Kini et al. 2021)"),
    "poly": Entry("shaped:PolyLoss", "cross-entropy or focal loss with one more term of its series (Leng et al. 2022)"),
    "gce": Entry(
        "shaped:GeneralisedCrossEntropyLoss",
        "between cross-entropy and error, for noisy labels (Zhang et al. 2018)",
    ),
    "gla": Entry("adjusted:GLALoss", "generalised cross-entropy over adjusted logits (Cortes et al. 2025)"),
    "gca": Entry("adjusted:GCALoss", "a confidence margin per target class, and weights (Cortes et al. 2025)"),
    "label-aware-smoothing": Entry(
        "smoothing:LabelAwareSmoothingLoss",
        "frequent classes are smoothed more than rare ones (Zhong et al. 2021)",
    ),
    "los": Entry("smoothing:LOSLoss", "label over-smoothing, to train the classifier anew (Sun et al. 2025)"),
    "influence-balanced": Entry(
        "shaped:InfluenceBalancedLoss", "holds back rows that pull hard, late in training (Park et al. 2021)"
    ),
    "seesaw": Entry("pairwise:SeesawLoss", "spares rare classes the pull of frequent targets (Wang et al. 2021)"),
    "seql": Entry("pairwise:SEQLLoss", "rare classes leave the softmax of other targets at random (Tan et al. 2020)"),
    "gcl": Entry("pairwise:GCLLoss", "noise on the cosines of rare classes (Li et al. 2022)"),
    "sigmoid-focal": Entry(
        "multilabel.focusing:SigmoidFocalLoss",
        "multi-label: focal loss of every class (Lin et al. 2017)",
    ),
    "asymmetric": Entry(
        "multilabel.focusing:AsymmetricLoss",
        "multi-label: easy negatives are focused away and clipped (Ridnik et al. 2021)",
    ),
    "distribution-balanced": Entry(
        "multilabel.distribution_balanced:DistributionBalancedLoss",
        "multi-label: weights for labels that occur together (Wu et al. 2020)",
    ),
    "eqlv2": Entry(
        "multilabel.equalization:EqualizationV2Loss",
        "multi-label: balances positive against negative gradients (Tan et al. 2021)",
    ),
}
