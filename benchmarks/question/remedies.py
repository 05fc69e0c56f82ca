"""What people do against uneven classes, as rows of one table: a loss, a sampler, a head, a schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from evenhand import losses

Head = Literal["linear", "cosine", "lstm"]
PLAIN = "plain"
COSINE_SCALE = 30.0


@dataclass(frozen=True)
class Remedy:
    """One way of training.

    Attributes:
        name: as in results. words: as in tables and figures. loss, options: for `losses.build`.
        sampler: rows are drawn with equal class frequencies. head: the last layer.
        deferred: effective-number weights in the last fifth of the epochs, as LDAM-DRW has them.
    """

    name: str
    words: str
    loss: str = "cross-entropy"
    options: dict[str, Any] = field(default_factory=dict)
    sampler: bool = False
    head: Head = "linear"
    deferred: bool = False

    def criterion(self, counts: Any) -> losses.SoftmaxLoss:
        return losses.build(self.loss, counts, **self.options)

    @property
    def weight_rule(self) -> str | None:
        """The rule of the weights a careful user would declare to the audit, None without weights."""
        if self.loss == "weighted":
            return str(self.options.get("rule", "balanced"))
        return "balanced" if self.options.get("alpha") == "balanced" else None


GAMMAS = (0.5, 1.0, 2.0, 5.0)
REMEDIES = (
    Remedy(PLAIN, "plain cross-entropy"),
    Remedy("weights", "balanced weights", "weighted"),
    Remedy("double", "balanced weights + balanced sampler", "weighted", sampler=True),
    Remedy("sqrt", "square-root weights", "weighted", {"rule": "sqrt"}),
    Remedy("sampler", "balanced sampler", sampler=True),
    *(Remedy(f"focal-{g:g}", f"focal, gamma {g:g}", "focal", {"gamma": g}) for g in GAMMAS),
    *(
        Remedy(f"focal-{g:g}-alpha", f"focal, gamma {g:g}, balanced alpha", "focal", {"gamma": g, "alpha": "balanced"})
        for g in GAMMAS
    ),
    Remedy("class-balanced", "class-balanced, beta 0.999", "class-balanced", {"beta": 0.999}),
    Remedy("ldam-drw", "LDAM-DRW (cosine head)", "ldam", head="cosine", deferred=True),
    Remedy("cosine", "cosine head, cross-entropy", "ldam", {"max_margin": 0.0}, head="cosine"),
    Remedy("balanced-softmax", "balanced softmax = logit-adjusted, tau 1", "balanced-softmax"),
    Remedy("logit-adjusted", "logit-adjusted, tau 0.5", "logit-adjusted", {"tau": 0.5}),
    Remedy("vs", "VS, gamma 0.1, tau 1", "vs", {"gamma": 0.1, "tau": 1.0}),
    Remedy("lstm-head", "LSTM state as logits", head="lstm"),
    Remedy("lstm-head-weights", "LSTM state as logits, balanced weights", "weighted", head="lstm"),
)
# Trained first of every seed: what the answer rests on.
KEY = (PLAIN, "weights", "double", "sqrt", "focal-2", "focal-2-alpha", "balanced-softmax", "ldam-drw", "cosine")
BY_NAME = {remedy.name: remedy for remedy in REMEDIES}
