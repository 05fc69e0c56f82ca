"""An integration without its framework says in one sentence what to install; the others do not need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

SENTENCES = {
    "metrics": ("torchmetrics", "needs torchmetrics: pip install 'evenhand[lightning]'"),
    "lightning": ("lightning", "needs Lightning: pip install 'evenhand[lightning]'"),
    "keras": ("keras", "needs Keras: pip install 'evenhand[keras]'"),
}


def run(code: str, *absent: str) -> str:
    hide = "; ".join(f"sys.modules[{name!r}] = None" for name in absent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {hide}\n{code}"], capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("name", SENTENCES)
def test_the_sentence_names_the_extra(name: str) -> None:
    absent, sentence = SENTENCES[name]
    if name == "lightning":
        pytest.importorskip("torchmetrics", reason="lightning.py imports the metric first")
    last = run(f"import evenhand.integrations.{name}", absent).splitlines()[-1]
    assert last.startswith("ImportError: evenhand.integrations.")
    assert last.endswith(sentence)


def test_the_others_import_no_framework() -> None:
    frameworks = "torchmetrics", "lightning", "transformers", "keras", "distributed", "sklearn"
    code = (
        "from evenhand.integrations import cluster, heads, reporting, states, transformers\n"
        "print(transformers.trainer_loss('weighted', [3, 1]).criterion.reduction)"
    )
    assert run(code, *frameworks) == "mean"
    code = (
        "from evenhand.integrations import cluster, transformers\nprint(transformers.AuditMetrics(2)._running.classes)"
    )
    assert run(code, "torch", *frameworks) == "2"
    last = run("from evenhand.integrations.transformers import trainer_loss\ntrainer_loss('weighted', [3, 1])", "torch")
    assert last.endswith("trainer_loss needs torch: pip install 'evenhand[transformers]'")
