"""The remedies: what one may do about unevenly frequent classes in training, each one row of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from evenhand.declared import InputError
from evenhand.training.draws import Draw, Power, as_power

NOTHING: Mapping[str, Any] = MappingProxyType({})
PLAIN = "plain"


@dataclass(frozen=True)
class Remedy:
    """One way to train: loss, sampler, schedule and head. Everything else is equal for all remedies.

    Attributes:
        name: as users write it. meaning: one sentence. cites: its source.
        loss: a name of :func:`evenhand.losses.available`. options: for :func:`evenhand.losses.build`.
        power: class k is drawn at a rate proportional to ``n_k^power`` (1 natural, 0.5 square root, 0 balanced); of a
            pair the rates move from the first power's to the second's over the epochs. None: every row once per epoch.
        beta: in place of power, class k is drawn at ``n_k / E_k``, its effective number
            ``E_k = (1 - beta^n_k) / (1 - beta)``.
        schedule: what changes in the course of training, a name of :data:`evenhand.training.stages.SCHEDULES`.
        schedule_options: its options.
        cosine: scale of a cosine head in place of the linear one; 0 keeps the linear head.
    """

    name: str
    meaning: str
    cites: str = ""
    loss: str = "cross-entropy"
    options: Mapping[str, Any] = field(default_factory=dict)
    power: Power | None = None
    beta: float | None = None
    schedule: str = "one-stage"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    cosine: float = 0.0

    @property
    def draw(self) -> Draw:
        """How its rows are drawn, before the schedule changes it."""
        return Draw(self.power, self.beta)

    def but(self, **changes: Any) -> Remedy:
        """The same with fields replaced."""
        return replace(self, **changes)


_WEIGHTS = "King and Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868"
_FOCAL = "Lin et al. 2017, https://arxiv.org/abs/1708.02002"
_LDAM = "Cao et al. 2019, https://arxiv.org/abs/1906.07413"
_DECOUPLED = "Kang et al. 2020, https://arxiv.org/abs/1910.09217"
_EFFECTIVE = "Cui et al. 2019, https://arxiv.org/abs/1901.05555"
_CORTES = "Cortes et al. 2025, https://arxiv.org/abs/2512.23947"
_COSINE = {"scale": 1.0, "max_margin": 15.0}  # the head carries the authors' scale of 30: 0.5 * 30 nats
_CLOUDS = {"scale": 1.0, "margin": 15.0, "noise": 30.0}

REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy
    for remedy in (
        Remedy(PLAIN, "cross-entropy on the rows as they are"),
        Remedy("weighted", "balanced class weights in the loss", _WEIGHTS, "weighted"),
        Remedy("sqrt-weighted", "square roots of the balanced weights", "", "weighted", {"rule": "sqrt"}),
        Remedy("weighted+sampler", "balanced weights and a balanced sampler: the prior goes out twice", "", "weighted",
               power=0.0),
        Remedy("sampler", "every class drawn equally often", _DECOUPLED, power=0.0),
        Remedy("sqrt-sampler", "classes drawn by the square root of their rows",
               "Mahajan et al. 2018, https://arxiv.org/abs/1805.00932", power=0.5),
        Remedy("progressive-sampler", "from natural to balanced draws, a little further every epoch", _DECOUPLED,
               power=(1.0, 0.0)),
        Remedy("effective-sampler", "classes drawn by their rows over the effective number of them", _EFFECTIVE,
               beta=0.999),
        Remedy("focal", "rows that are right already count less", _FOCAL, "focal", {"gamma": 2.0}),
        Remedy("focal+weights", "focal loss with balanced weights as its alpha", _FOCAL, "focal",
               {"gamma": 2.0, "weight": "balanced"}),
        Remedy("class-balanced", "weights by the effective number of rows", _EFFECTIVE, "class-balanced",
               {"beta": 0.999}),
        Remedy("label-smoothing", "a tenth of every target spread over all classes",
               "Szegedy et al. 2016, https://arxiv.org/abs/1512.00567", options={"label_smoothing": 0.1}),
        Remedy("poly", "one more term of the series of cross-entropy",
               "Leng et al. 2022, https://arxiv.org/abs/2204.12511", "poly"),
        Remedy("balanced-softmax", "the log prior is added while training and left out when answering",
               "Ren et al. 2020, https://arxiv.org/abs/2007.10740", "balanced-softmax"),
        Remedy("logit-adjusted", "the same with a strength, tau",
               "Menon et al. 2021, https://arxiv.org/abs/2007.07314", "logit-adjusted", {"tau": 1.0}),
        Remedy("cdt", "logits of rare classes are scaled down while training",
               "Ye et al. 2020, https://arxiv.org/abs/2001.01385", "cdt"),
        Remedy("vs", "scale and offset by class: CDT and logit adjustment in one",
               "Kini et al. 2021, https://arxiv.org/abs/2103.01550", "vs"),
        Remedy("gce", "between cross-entropy and the share of errors: rows found impossible lose their pull",
               "Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836", "gce"),
        Remedy("gla", "generalised cross-entropy over adjusted logits", _CORTES, "gla"),
        Remedy("gca", "generalised cross-entropy with a confidence margin per class, and weights", _CORTES, "gca"),
        Remedy("seesaw", "spares rare classes the pull of frequent targets",
               "Wang et al. 2021, https://arxiv.org/abs/2008.10032", "seesaw"),
        Remedy("seql", "rare classes leave the softmax of other targets at random",
               "Tan et al. 2020, https://arxiv.org/abs/2003.05176", "seql"),
        Remedy("cosine", "a cosine head alone, to tell its part in ldam", _LDAM, cosine=30.0),
        Remedy("ldam", "larger margins for rarer classes, on a cosine head", _LDAM, "ldam", _COSINE, cosine=30.0),
        Remedy("ldam-drw", "ldam with class weights at the end of training", _LDAM, "ldam", _COSINE,
               schedule="deferred-weights", cosine=30.0),
        Remedy("gcl", "noise on the cosines of rare classes, then the head alone on draws by effective number",
               "Li et al. 2022, https://arxiv.org/abs/2305.11733", "gcl", _CLOUDS, schedule="refined-head",
               cosine=30.0),
        Remedy("influence-balanced", "cross-entropy, then from half-way on rows that pull hard are held back",
               "Park et al. 2021, https://arxiv.org/abs/2110.02444", "influence-balanced", {"denominator": "count"},
               schedule="late-loss"),
        Remedy("deferred-weights", "class weights at the end of training only", _LDAM, schedule="deferred-weights"),
        Remedy("deferred-sampler", "a balanced sampler at the end of training only", _LDAM,
               schedule="deferred-sampler"),
        Remedy("crt", "features trained plainly, then a new head on balanced draws", _DECOUPLED, schedule="crt"),
        Remedy("lws", "features trained plainly, then one scale per class on balanced draws", _DECOUPLED,
               schedule="lws"),
        Remedy("tau-norm", "plain training, then head rows divided by their norm to the power tau", _DECOUPLED,
               schedule="tau-norm"),
        Remedy("label-aware-smoothing", "features trained plainly, then the head on balanced draws with frequent "
               "classes smoothed more", "Zhong et al. 2021, https://arxiv.org/abs/2104.00466", schedule="label-aware"),
        Remedy("los", "features trained plainly, then the head on targets hardly above uniform",
               "Sun et al. 2025, https://arxiv.org/abs/2403.00250", "los", schedule="late-loss-of-head"),
    )
}  # fmt: skip

_SETS = "its targets are sets of labels, and a race has one class per row"
NOT_RACED: dict[str, str] = {
    "sigmoid-focal": _SETS,
    "asymmetric": _SETS,
    "distribution-balanced": _SETS,
    "eqlv2": _SETS,
}  # losses of evenhand.losses that no remedy uses, and why

_WORDS = {"true": True, "false": False, "none": None}
_NOT_HERE = {"ignore_index", "reduction", "class_dim", "classes", "generator", "active"}  # the loop's, not the user's

_OF_COSINES = ("max_margin", "margin", "noise")


def parse_remedy(text: str | Remedy) -> Remedy:
    """A remedy from its name and options, ``NAME`` or ``NAME:OPTION=VALUE,OPTION=VALUE``.

    Options are those of its loss (``gamma``, ``tau``, ``weight``, ...), those of its schedule (``start``, ...), and of
    the sampler ``power`` (a number, or ``FROM..TO``) or ``beta``, where the loss has none of that name.

    Raises:
        InputError: an unknown name or option, or a value that is missing.

    Example:
        >>> remedy = parse_remedy("focal:gamma=0.5,weight=balanced")
        >>> remedy.name, dict(remedy.options)
        ('focal:gamma=0.5,weight=balanced', {'gamma': 0.5, 'weight': 'balanced'})
        >>> parse_remedy("progressive-sampler:power=0.5..0").power
        (0.5, 0.0)
        >>> parse_remedy("ldam-drw:start=0.6").schedule_options["start"]
        0.6
        >>> parse_remedy("forcal")
        Traceback (most recent call last):
            ...
        evenhand.declared.InputError: expected the name of a remedy, got 'forcal'; did you mean 'focal'?
    """
    if isinstance(text, Remedy):
        return text
    if not isinstance(text, str):
        raise InputError(f"expected a Remedy or its name as text, got {text!r:.60}; write 'weighted' for instance")
    name, _, given = text.strip().partition(":")
    if name not in REMEDIES:
        close = get_close_matches(name, list(REMEDIES), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(REMEDIES)}"
        if name in NOT_RACED:
            hint = f"that loss cannot be raced: {NOT_RACED[name]}"
        raise InputError(f"expected the name of a remedy, got {name!r:.60}; {hint}")
    found = REMEDIES[name]
    if not given:
        return found
    options = dict(map(_pair, given.split(",")))
    return _with_options(found, options).but(name=text.strip())


def parse_remedies(text: str) -> tuple[Remedy, ...]:
    """Several, with commas or blanks between them; a comma before ``OPTION=`` belongs to the remedy before it.

    Example:
        >>> [remedy.name for remedy in parse_remedies("plain,focal:gamma=1,weight=balanced,vs")]
        ['plain', 'focal:gamma=1,weight=balanced', 'vs']

    Raises:
        InputError: an unknown name or option, or no name at all.
    """
    parts = [part for part in re.split(r"\s+|,(?![\w-]+=)", text.strip()) if part]
    if not parts:
        raise InputError(f"expected names of remedies with commas, got {text!r:.60}; for instance weighted,sampler")
    return tuple(parse_remedy(part) for part in parts)


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not (sign and key and value):
        raise InputError(f"expected an option as NAME=VALUE, got {text!r:.60}; write focal:gamma=2 for instance")
    if value.lower() in _WORDS:
        return key, _WORDS[value.lower()]
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _with_options(remedy: Remedy, given: Mapping[str, Any]) -> Remedy:
    from evenhand.losses.registry import entry, options_of
    from evenhand.training.stages import SCHEDULES, options_of_schedule

    of_schedule = options_of_schedule(SCHEDULES[remedy.schedule])
    of_loss = options_of(entry(remedy.loss).load()) - _NOT_HERE - of_schedule
    of_loss |= {"scale"} if remedy.cosine else set()
    of_sampler = {"power", "beta"} - of_loss - of_schedule
    known = {*of_loss, *of_schedule, *of_sampler}
    unknown = next((key for key in given if key not in known), None)
    if unknown is not None:
        close = get_close_matches(unknown, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(known))}"
        raise InputError(f"expected an option of the remedy {remedy.name!r}, got {unknown!r:.60}; {hint}")
    given = {key: as_power(value) if key in ("power", "late_power") else value for key, value in given.items()}
    options, late, drawn = ({k: v for k, v in given.items() if k in own} for own in (of_loss, of_schedule, of_sampler))
    if drawn:  # power and beta exclude each other: what is given takes the place of what the remedy has
        drawn = {"power": None, "beta": None, **drawn}
    if remedy.cosine:
        remedy, options = _on_cosines(remedy, options)
    return remedy.but(
        options={**remedy.options, **options}, schedule_options={**remedy.schedule_options, **late}, **drawn
    )


def _on_cosines(remedy: Remedy, options: Mapping[str, Any]) -> tuple[Remedy, dict[str, Any]]:
    """Options as the loss's page has them: `scale` is that of the head, which multiplies what is said of cosines."""
    scale = options.get("scale", remedy.cosine)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        raise InputError(f"expected scale of the cosines above 0, got {scale!r:.60}; 30 is usual")
    kept = {key: value * scale / remedy.cosine for key, value in remedy.options.items() if key in _OF_COSINES}
    given = {
        key: value * scale if key in _OF_COSINES and isinstance(value, int | float) else value
        for key, value in options.items()
        if key != "scale"
    }
    return remedy.but(cosine=float(scale), options={**remedy.options, **kept}), given
