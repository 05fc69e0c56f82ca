"""The metric: over two processes, through the machinery of torchmetrics, and what it refuses."""

from __future__ import annotations

import copy
import json
import pickle
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchmetrics = pytest.importorskip(
    "torchmetrics", reason="torchmetrics is not installed: pip install 'evenhand[lightning]'"
)

from evenhand import InputError, audit  # noqa: E402
from evenhand.integrations.metrics import AuditMetric  # noqa: E402
from evenhand.tally import ADDITIVE  # noqa: E402

WORKER = Path(__file__).with_name("ranks_metrics.py")
OURS = runpy.run_path(str(WORKER))
CASES, counted, facts, rows = (OURS[name] for name in ("CASES", "counted", "facts", "rows"))
RANKS = 2


@pytest.fixture(scope="module")
def over_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two gloo processes found."""
    run_ranks = runpy.run_path(str(WORKER.parents[1] / "losses" / "test_ranks.py"))["run_ranks"]
    preload = ["torch", "evenhand.integrations.metrics", "evenhand.auditing"]
    found: list[dict[str, Any]] = run_ranks(WORKER, RANKS, tmp_path_factory.mktemp("ranks"), preload=preload)
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_what_one_finds(over_ranks: list[dict[str, Any]], case: str) -> None:
    alone = counted(case)
    whole = json.loads(json.dumps(facts(alone.tally())))
    for found in over_ranks:
        ours = found[case]["tally"]
        for name in whole:
            if name in ("soft", "soft_square", "nll", "bins"):
                np.testing.assert_allclose(ours[name], whole[name], rtol=1e-6, err_msg=name)
            else:
                assert ours[name] == whole[name], name
        theirs = {name: float(value) for name, value in alone.compute().items()}
        assert found[case]["scalars"] == pytest.approx(theirs, rel=1e-5)
        assert case != "dealt" or found[case]["verdict"] == alone.audit().verdict.cause


def test_what_is_sent_is_the_sample_of_all_not_of_each(over_ranks: list[dict[str, Any]]) -> None:
    n, classes = CASES["full"]
    assert max(found["full"]["sent"] for found in over_ranks) < 0.6 * 20_000 * classes < 0.6 * n * classes
    n, classes = CASES["many"]
    for found in over_ranks:
        assert found["many"]["sent"] < min(0.6 * 2_500 * classes, 0.5 * n * classes, classes * classes)


def test_it_is_the_audit_of_all_rows() -> None:
    z, y, counts = rows("dealt")
    metric = counted("dealt")
    found = audit(logits=z, target=y, train_counts=counts, class_weight="balanced")
    assert metric.audit().verdict.cause == found.verdict.cause == "class-weights"
    theirs = found.scalars("")
    assert {name: float(v) for name, v in metric.compute().items()} == pytest.approx(theirs, rel=1e-5)
    assert theirs["tau_low"] < 1 < theirs["tau_high"]


def test_it_lives_in_collections_copies_pickles_and_states() -> None:
    z, y, _ = rows("dealt")
    metric = AuditMetric(20, prefix="val/")
    both = torchmetrics.MetricCollection({"audit": metric, "mean": torchmetrics.MeanMetric()}, compute_groups=False)
    both["audit"].update(z, y)
    both["mean"].update(1.0)
    assert float(both.compute()["val/accuracy"]) == pytest.approx(float((z.argmax(1) == y).float().mean()))
    whole = both["audit"]
    for twin in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole)), whole.clone()):
        assert facts(twin.tally()) == facts(whole.tally())
    assert whole.state_dict() == {}
    whole.persistent(True)
    fresh = AuditMetric(20)
    fresh.persistent(True)
    fresh.load_state_dict(whole.state_dict())
    assert facts(fresh.tally()) == facts(whole.tally())
    whole.reset()
    assert not any(np.asarray(getattr(whole, name)).any() for name in ADDITIVE)
    with pytest.raises(InputError, match="at least one row"), pytest.warns(UserWarning, match="before the ``update``"):
        whole.compute()


def test_metrics_of_different_rows_merge() -> None:
    z, y, _ = rows("dealt")
    parts = [AuditMetric(20), AuditMetric(20)]
    for part, ids in zip(parts, torch.arange(len(y)).tensor_split(2), strict=True):
        part.update(z[ids], y[ids], ids)
    parts[0].merge_state(parts[1])
    whole = AuditMetric(20)
    whole.update(z, y)
    ours, theirs = facts(parts[0].tally()), facts(whole.tally())
    assert {n: v for n, v in ours.items() if n not in ("soft", "soft_square", "nll", "bins")} == {
        n: v for n, v in theirs.items() if n not in ("soft", "soft_square", "nll", "bins")
    }


def test_calling_it_updates_it_and_types_of_the_model_do_not_change_its_states() -> None:
    z, y, _ = rows("alone")
    metric = AuditMetric(4).to("cpu").half().to(torch.bfloat16)
    assert metric(z.bfloat16(), y) is None
    assert metric.soft.dtype == torch.float64
    assert int(metric.rows) == len(y)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="train_counts"):
        AuditMetric(4, train_counts=[1, 2])
    with pytest.raises(InputError, match=r"got \(3, 5\)"):
        AuditMetric(4).update(torch.zeros(3, 5), torch.zeros(3, dtype=torch.long))
