"""Audits with known figures, made without running an audit, so that the report is tested apart from the computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from evenhand.auditing import Audit, Finding
from evenhand.declared import Declared
from evenhand.report.html import to_html

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "{{ 7 * 7 }} {% raw %}",
    "[bold red]markup[/] [link=x]",
    "فئة نادرة",
    "\u202eright-to-left override",
    "a\x07bell\x00nul\ufffe",
    "\ud800 lone surrogate",
    "",
    "   ",
    "long " * 200,
    "W" * 400,
    "line\nbreak | pipe `tick` *star* _under_",
    "quote \" and ' and & and \u2028 separator",
    "=cmd()",
    "日本語クラス",
    "same",
    "same",
]


@dataclass(frozen=True)
class FakeAudit(Audit):
    """An audit whose tau path is given instead of computed."""

    path: dict[str, Any] | None = None

    @property
    def tau_path(self) -> dict[str, Any] | None:
        return self.path


SNIPPETS = {
    "pytorch": "logits = model(x) + 1.92 * log_prior  # (K,) log of the training share",
    "keras": "logits = keras.layers.Add()([logits, 1.92 * log_prior])",
    "huggingface": "class Tilted(Trainer):\n    def compute_loss(self, model, inputs, **kw):\n        ...",
    "lightning": "trainer.fit(model, weighted_loader)  # drop one of the two",
    "scikit-learn": "TiltCorrector(model).fit(X_val, y_val)",
}


def finding(cause: str, severity: str = "fault", **more: Any) -> Finding:
    texts: dict[str, Any] = {
        "code": "EH104",
        "title": "The prior was divided out twice",
        "probability": 0.97,
        "sentence": "Loss weights and a sampler both divide out the class frequencies, and the model expresses both. "
        "Predictions favour classes the rarer they are (tau 1.92 (1.90 to 1.94); "
        "this alone explains 96% of the class bias).",
        "evidence": {
            "tau": 1.92,
            "tau_interval": [1.9, 1.94],
            "declared": ["class_weight", "sampler_rate"],
            "rows": 20000,
        },
        "remedy": "Drop the sampler or the weights. Without retraining, add 1.92 * log prior to the logits; "
        "balanced accuracy falls by about 0.02.",
        "snippets": SNIPPETS,
        "surer": "",
    }
    return Finding(cause=cause, severity=severity, **(texts | more))  # type: ignore[arg-type]


def curves(tau: float) -> dict[str, Any]:
    grid = np.linspace(-1.0, 3.0, 81)
    bell = lambda centre, top, width: top * np.exp(-(((grid - centre) / width) ** 2))  # noqa: E731
    return {
        "tau": grid,
        "accuracy": bell(tau, 0.21, 1.6),
        "balanced_accuracy": bell(tau - 1, 0.16, 1.5),
        "macro_f1": bell(tau - 0.5, 0.12, 1.3),
        "count_distance": 0.62 - bell(tau - 0.2, 0.55, 1.1),
        "best": {"accuracy": tau, "balanced_accuracy": tau - 1, "macro_f1": tau - 0.5, "count_distance": tau - 0.2},
    }


def group_rows(true: np.ndarray, predicted: np.ndarray, expected: np.ndarray | None) -> dict[str, Any]:
    order = np.argsort(-true, kind="stable")
    cut = [0, max(1, len(true) // 5), max(2, len(true) // 2), len(true)]
    return {
        name: {
            "classes": int(hi - lo),
            "rows": int(true[order[lo:hi]].sum()),
            "accuracy": 0.05 + 0.1 * i,
            "predicted": int(predicted[order[lo:hi]].sum()),
            "expected": None if expected is None else float(expected[order[lo:hi]].sum()),
        }
        for i, (name, lo, hi) in enumerate(zip(("head", "medium", "tail"), cut[:-1], cut[1:], strict=True))
    }


def make(
    K: int = 500,
    *,
    slope: float = -0.8,
    tau: float = 1.92,
    labels_only: bool = False,
    healthy: bool = False,
    names: list[str] | None = None,
    train_counts: bool = True,
    seed: int = 0,
) -> FakeAudit:
    """An audit of K Zipf classes whose predicted counts follow true counts to the power of ``slope``."""
    rng = np.random.default_rng(seed)
    rows = max(60 * K, 1000)
    share = rng.permutation(1.0 / np.arange(1, K + 1))
    share /= share.sum()
    true = rng.multinomial(rows, share)
    tilted = share if healthy else np.maximum(share, 1e-9) ** slope * np.exp(rng.normal(0, 0.45, K))
    tilted = tilted / tilted.sum()
    predicted = rng.multinomial(rows, tilted)
    expected = None if labels_only else rng.gamma(40, 1 / 40, K) * (0.5 * tilted + 0.5 * share) * rows
    half = 1.96 * np.sqrt(np.maximum(true, 1) * 1.4)
    low, high = np.maximum(true - half, 0), true + half
    far = (predicted > high) * 1 - (predicted < low) * 1
    verdict = np.array(["as often as true", "too often", "too rarely"])[far]
    verdict = verdict.astype(object)
    verdict[true + predicted < 6] = "too few rows to judge"
    recall = np.where(true > 0, rng.beta(2, 8, K), np.nan)
    declared_names = None if names is None else tuple((names * (K // len(names) + 1))[:K])
    table = {
        "name": [str(i) for i in range(K)] if declared_names is None else list(declared_names),
        "true": true,
        "predicted": predicted,
        "expected": expected,
        "recall": recall,
        "precision": np.where(predicted > 0, rng.beta(2, 9, K), np.nan),
        "interval_low": low,
        "interval_high": high,
        "q_value": np.clip(rng.uniform(0, 1, K) * np.where(far == 0, 1, 1e-6), 0, 1),
        "verdict": [str(v) for v in verdict],
    }
    if labels_only:
        findings = (
            finding(
                "class-weights",
                "warning",
                code="EH301",
                title="Counts are mirrored",
                sentence="Frequent classes are predicted too rarely and rare ones too often, as with weights.",
                evidence={"slope": slope, "spearman": -0.7, "z": 41.2},
                remedy="Save the logits and audit again: labels alone cannot tell how strong the tilt is.",
                surer="Give logits: only the count pattern can be judged.",
            ),
        )
    elif healthy:
        findings = (
            finding(
                "healthy",
                "note",
                code="EH001",
                title="Nothing is wrong",
                sentence="Predicted and true counts agree within sampling noise and no prior is missing.",
                remedy="Nothing to do.",
                snippets={},
            ),
        )
    else:
        findings = (
            finding("double-correction"),
            finding(
                "confused-pairs",
                "warning",
                code="EH302",
                title="A few pairs hold most of the error",
                sentence="12 directed pairs of classes hold 31% of the count error.",
                evidence={"pairs": 12, "share": 0.31},
                remedy="Look at those pairs first: labels, then features.",
                snippets={},
                surer="Give class names.",
            ),
        )
    before = {"accuracy": 0.061, "balanced_accuracy": 0.152, "count_distance": 0.62}
    return FakeAudit(
        name="demo.npz",
        rows=rows,
        classes=K,
        kind="predicted" if labels_only else "logits",
        declared=Declared(
            train_counts=share * 1e6 if train_counts else None,
            class_weight=None if healthy else 1 / share,
            class_names=declared_names,
        ),
        metrics={
            "accuracy": 0.061,
            "balanced_accuracy": 0.152,
            "macro_f1": 0.043,
            "nll": None if labels_only else 5.31,
            "ece": None if labels_only else 0.094,
            "groups": group_rows(true, predicted, expected),
        },
        true=true,
        predicted=predicted,
        expected=expected,
        total_variation={"hard": 0.62, "soft": None if labels_only else 0.55, "noise_floor": 0.04},
        pattern={
            "name": "proportional" if healthy else "mirrored",
            "slope": 1.01 if healthy else slope,
            "slope_interval": [0.98, 1.04] if healthy else [slope - 0.06, slope + 0.06],
            "spearman": 0.97 if healthy else -0.7,
        },
        tilt=None
        if labels_only
        else {
            "tau": 0.02 if healthy else tau,
            "tau_interval": [-0.01, 0.05] if healthy else [tau - 0.02, tau + 0.02],
            "beta": 0.98,
            "beta_interval": [0.95, 1.01],
            "share": 0.96,
            "rows_used": min(rows, 20000),
            "prior_shift": False,
            "declared": None
            if healthy
            else {"tau": 0.98, "tau_interval": [0.96, 1.0], "correlation": 1.0, "expected_tau": 1.96},
        },
        homogeneity={"statistic": 20345.2, "df": K - 1, "p": 0.0},
        findings=findings,
        fix={"goal": "accuracy", "offsets_file": None, "before": None, "after": None, "after_interval": None}
        | {"recommended": False, "why": "With predicted labels alone no offset can be fitted: save the logits."}
        if labels_only
        else {
            "goal": "accuracy",
            "offsets_file": None,
            "before": before,
            "after": before if healthy else {"accuracy": 0.213, "balanced_accuracy": 0.131, "count_distance": 0.08},
            "after_interval": {
                "accuracy": [0.058, 0.064],
                "balanced_accuracy": [0.147, 0.157],
                "count_distance": [0.61, 0.63],
            }
            if healthy
            else {"accuracy": [0.208, 0.218], "balanced_accuracy": [0.126, 0.136], "count_distance": [0.07, 0.09]},
            "recommended": not healthy,
            "why": "The interval does not exclude harm."
            if healthy
            else "The gain in accuracy is outside the interval of no change, measured on rows left out of the fit.",
        },
        table=table,
        worst_pairs=[
            {
                "true": int(np.argsort(-true)[i]),
                "predicted": int(np.argsort(true)[i]),
                "rows": 300 - 7 * i,
                "back": i,
                "q_value": 1e-12 * 10**i,
            }
            for i in range(min(K // 2, 12))
        ],
        evidence=None,  # type: ignore[arg-type]
        path=None if labels_only else curves(0.02 if healthy else tau),
    )


@pytest.fixture(scope="session")
def fake_audit() -> Callable[..., FakeAudit]:
    return make


@pytest.fixture(scope="session")
def hostile_names() -> list[str]:
    return HOSTILE


@pytest.fixture(scope="session")
def cases() -> dict[str, FakeAudit]:
    """The reports a reader meets: the question, large, tiny, labels only, sound, and with names meant to break it."""
    return {
        "mirrored": make(500),
        "large": make(10_000),
        "named": make(60, names=[f"species {i:03d}" for i in range(60)]),
        "binary": make(2, names=["spam", "ham"], slope=0.2, tau=0.95),
        "labels_only": make(500, labels_only=True, train_counts=False),
        "healthy": make(500, healthy=True),
        "hostile": make(len(HOSTILE), names=HOSTILE),
    }


@pytest.fixture(scope="session")
def page(cases: dict[str, FakeAudit]) -> Callable[[str], str]:
    """The HTML page of a case, made once."""
    made: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in made:
            made[name] = to_html(cases[name])
        return made[name]

    return get
