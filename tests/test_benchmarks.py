"""The speed benchmark runs, at sizes where its figures mean nothing, and tells them as JSON lines."""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is no part of the installed package
audit, generate, measure, peers = (
    importlib.import_module(f"benchmarks.{name}") for name in ("audit", "generate", "measure", "peers")
)

TINY = audit.Sizes((3_000, 20), (500, 20), ((5_000, 20),), (300, 2_000), ((400, 20),), scaled=True)


def allocate(megabytes):
    def work():
        held = np.ones(megabytes * 125_000)
        return {"sum": float(held.sum())}

    return work


def test_a_run_tells_time_result_and_the_memory_it_used():
    small, large = (measure.fresh("tests.test_benchmarks:allocate", megabytes=size) for size in (1, 200))
    assert large.result == {"sum": 25_000_000.0}
    assert 0 < large.seconds < large.start
    assert large.resident_mb - small.resident_mb > 150
    if measure.anonymous_mb(os.getpid()) is not None:
        assert 150 < large.anonymous_mb - small.anonymous_mb < 250


def test_a_failing_case_is_no_result():
    with pytest.raises(RuntimeError, match="exit code 1"):
        measure.fresh("benchmarks.peers:prepare", peer="none", logits="x", target="y", rows=1)


def test_the_peers_agree_with_the_audit(tmp_path):
    pytest.importorskip("sklearn")
    files = generate.scores(tmp_path, 3_000, 20)
    z, y = np.load(files["logits"]), np.load(files["target"])
    own, other = peers.evenhand(z, y), peers.scikit_learn(z, y, 1_000)
    assert own == pytest.approx(other, rel=1e-4)


def test_the_whole_array_at_once_agrees_with_the_audit(tmp_path):
    pytest.importorskip("sklearn")
    files = generate.scores(tmp_path, 3_000, 20)
    z, y = np.load(files["logits"]), np.load(files["target"])
    assert peers.evenhand(z[:2_000], y[:2_000]) == pytest.approx(peers.at_once(z, y, 2_000), rel=1e-4)


@pytest.mark.parametrize("peer", peers.PEERS)
def test_every_peer_is_prepared_as_the_benchmark_does_it(tmp_path, peer):
    pytest.importorskip("torchmetrics" if peer.startswith("torchmetrics") else "sklearn")
    files = generate.scores(tmp_path, 300, 6)
    assert 0 < peers.prepare(peer, files["logits"], files["target"], 300)()["accuracy"] < 1


@pytest.mark.parametrize("plan", audit.DECLARED)
def test_a_declared_plan_is_what_its_name_says(tmp_path, plan):
    """What must be added to logits whose prior is divided out once makes them follow the plan, or not, as it says."""
    files = generate.scores(tmp_path, 4_000, 30)
    found = audit.in_memory(**files, declared=plan)()
    expected = {
        "weights": "class-weights", "weights, reversed in use": "misordered-weights",
        "weights and sampler": "double-correction", "sampler": "sampler", "weights, not expressed": "partial-weights",
        "weights, in an unknown order in use": "partial-weights", "weights in an unknown order": "misordered-weights",
        "weights, turned round": "inverted-weights", "weights of other counts": "foreign-weights",
        "weights and label smoothing": "class-weights",
    }  # fmt: skip
    assert found["cause"] == expected[plan]


def test_data_are_written_once(tmp_path):
    first = generate.labels(tmp_path, 1_000, 10)
    stamp = Path(first["path"]).stat().st_mtime_ns
    assert generate.labels(tmp_path, 1_000, 10) == first
    assert Path(first["path"]).stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [Path(first["path"]).name]


def test_every_case_gives_json_lines(monkeypatch):
    monkeypatch.setattr(audit, "QUICK", TINY)
    monkeypatch.setattr(audit, "PEERS", ("scikit-learn + SciPy, 10,000 rows at a time",))
    monkeypatch.setattr(audit, "DECLARED", ("weights, reversed in use",))
    result = CliRunner().invoke(audit.command, ["--quick", "--json", "--runs", "1"])
    assert result.exception is None
    about, *rows = [json.loads(text) for text in result.stdout.splitlines()]
    assert about["kind"] == "machine"
    assert "numpy" in about["versions"]
    assert {row["kind"] for row in rows} == {"row"}
    assert len({row["case"] for row in rows}) == len(audit.CASES)
    assert all(row["met"] is None for row in rows if row["case"] != "evenhand --help")
    assert all(row["value"] > 0 for row in rows if row["value"] is not None)
    assert any("same figures" in row["detail"] for row in rows)


def test_a_goal_is_judged_at_full_size_only():
    full, scaled = (audit.Bench(Path(), sizes, 1) for sizes in (audit.FULL, TINY))
    assert full.row("c", "f", 1.0, "s", 2.0).met is True
    assert full.row("c", "f", 1.0, "GB/s", 2.0, most=False).met is False
    assert full.row("c", "f", 1.0, "s").met is None
    assert scaled.row("c", "f", 1.0, "s", 2.0).met is None


def test_the_effect_of_a_fault_is_that_of_its_tilt_alone():
    """Weights of equally frequent classes do nothing, weights of unequal ones do, and a saturated head is no tilt."""
    pytest.importorskip("torch")
    causes = importlib.import_module("benchmarks.causes")
    z = np.random.default_rng(0).normal(size=(500, 6))
    level, steep = np.full(6, 50.0), np.geomspace(10, 1000, 6)
    assert causes.planted_effect(z, causes.RECIPES["squared"], level) == (np.inf, np.inf)
    nearly = level + np.array([0, 1, 0, -1, 0, 1])
    assert causes.planted_effect(z, causes.RECIPES["class-weights"], nearly)[0] < 0.02
    assert causes.planted_effect(z, causes.RECIPES["class-weights"], steep)[0] > 0.2
    assert causes.planted_effect(z, causes.RECIPES["tanh-head"], steep) == (np.inf, np.inf)
    in_order = causes.planted_effect(z, causes.RECIPES["class-weights"], steep)
    assert causes.planted_effect(z, causes.RECIPES["misordered"], steep)[0] <= in_order[0]
