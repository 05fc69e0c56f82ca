"""Every face of audits that were really computed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import evenhand
from evenhand import report


def world(classes: int, rows: int, tau: float) -> dict[str, np.ndarray]:
    """Exact posteriors of Gaussian classes with Zipf counts, the prior divided out tau times."""
    rng = np.random.default_rng(classes)
    share = rng.permutation(1 / np.arange(1, classes + 1))
    share /= share.sum()
    target = rng.choice(classes, rows, p=share)
    centre = rng.normal(size=(classes, 12)) * 0.7
    features = centre[target] + rng.normal(size=(rows, 12))
    scores = features @ centre.T - 0.5 * (centre**2).sum(1) + (1 - tau) * np.log(share)
    counts = np.maximum(np.round(share * rows * 20), 1)
    return {"logits": scores.astype(np.float32), "target": target, "train_counts": counts}


@pytest.fixture(scope="module")
def real() -> dict[str, evenhand.Audit]:
    double, plain, two = world(40, 4000, 1.9), world(40, 4000, 0.0), world(2, 1500, 1.0)
    weight = double["train_counts"].sum() / double["train_counts"]
    names = [f"<b>{i}</b>" for i in range(40)]
    return {
        "double": evenhand.audit(**double, class_weight=weight, sampler="balanced", class_names=names, name="d.npz"),
        "plain": evenhand.audit(**plain, name="p.npz"),
        "two": evenhand.audit(**two, class_weight=two["train_counts"].sum() / two["train_counts"]),
        "labels": evenhand.audit(target=double["target"], predicted=double["logits"].argmax(1)),
        "few": evenhand.audit(logits=plain["logits"][:30], target=plain["target"][:30]),
    }


@pytest.mark.parametrize("case", ["double", "plain", "two", "labels", "few"])
def test_every_face(real, case, tmp_path):
    audit = real[case]
    told = json.loads(report.to_json(audit))
    assert told == report.to_dict(audit)
    assert told["findings"][0]["cause"] == audit.findings[0].cause
    page = report.to_html(audit)
    assert "&lt;b&gt;0&lt;/b&gt;" in page or case != "double"
    assert "<b>0" not in page
    assert f"[{audit.findings[0].cause}]" in report.to_text(audit)
    assert report.to_markdown(audit).startswith("# Audit of ")
    assert audit._repr_html_().startswith("<iframe ")
    report.figure(audit, tmp_path / "all.svg")
    assert set(report.figures(audit)) >= {"counts_by_frequency", "counts_by_class", "ratio"}


def test_the_double_correction_reads_as_designed(real):
    text = " ".join(report.to_text(real["double"]).split())
    tau = real["double"].tilt["tau"]
    assert real["double"].findings[0].cause == "double-correction"
    assert f"Without retraining: add {tau:.2f} * log prior to the logits" in text
    assert text.count(f"tau {tau:.2f}") == 1
    assert "evenhand fix d.npz --goal accuracy" in text
    assert "tau" not in report.to_text(real["labels"])
