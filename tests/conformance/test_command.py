"""`python -m benchmarks conformance` prints the table, tells JSON, and names what is not installed."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parents[2]))  # `benchmarks` is no part of the installed package
conformance = importlib.import_module("benchmarks.conformance")
losspeers = importlib.import_module("benchmarks.losspeers")


def run(*arguments):
    result = CliRunner().invoke(conformance.command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_the_known_failures_of_torch_are_found():
    first, *rest = (json.loads(line) for line in run("--peer", "torch", "--json").stdout.splitlines())
    assert first["kind"] == "machine"
    assert set(first["peers"]) == {"torch"}
    failed = {line["name"] for line in rest if line["outcome"] == "fail"}
    assert failed == {"one-hot", "all ignored", "all weights 0", "weight types", "bf16, weighted"}
    assert {line["name"] for line in rest if line["outcome"] == "not offered"} >= {"focal", "sigmoid focal"}


def test_the_table_has_a_row_for_every_property_and_counts_them(monkeypatch):
    chosen = conformance.properties()[:2]
    monkeypatch.setattr(conformance, "properties", lambda: chosen)
    text = run("--peer", "evenhand", "--peer", "torch").stdout.splitlines()
    assert text[0].split() == ["evenhand", "torch"]
    assert [line.split()[-2:] for line in text[1:3]] == [["yes", "yes"]] * 2
    assert text[3].split()[-2:] == ["2/2", "2/2"]


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(losspeers.PEERS, "torch", losspeers.Peer("some-losses", "no_such_module", losspeers.torch))
    result = run("--peer", "torch")
    assert "torch: not installed; pip install some-losses" in result.stderr


def test_the_benchmark_of_the_losses_tells_every_part(monkeypatch):
    benchmark = importlib.import_module("benchmarks.losses")
    monkeypatch.setattr(benchmark, "memory_figures", lambda shapes: iter(()))  # starts processes
    result = CliRunner().invoke(benchmark.command, ["--quick", "--json"], catch_exceptions=False)
    first, *rest = (json.loads(line) for line in result.stdout.splitlines())
    assert (first["kind"], first["quick"]) == ("machine", True)
    figures = [line for line in rest if line["kind"] == "figure"]
    assert {line["part"] for line in figures} >= {"dense", "linear", "micro-batches"}
    by_name = {line["name"]: line["value"] for line in figures if line["part"] in ("dense", "micro-batches")}
    assert by_name["bits that differ from torch, options off"] == 0
    assert by_name["gradient error, numerators and denominators"] < 1e-6
    assert by_name["gradient error, mean of weighted means"] > 0.05
    assert all(line["goal"] is None for line in figures)  # tiny shapes are not judged


def test_the_usual_code_of_the_benchmark_is_the_same_loss():
    cases = importlib.import_module("benchmarks.losscases")
    values = {name: work().item() for name, work in cases.dense_works(32, 50).items()}
    assert values["usual code, all options"] == pytest.approx(values["evenhand, all options"], rel=1e-5)
    assert values["torch"] == values["evenhand, options off"]
    batch = cases.head_batch(24, 8, 30)
    plain = {name: loss().item() for name, loss in cases.linear_losses(batch).items()}
    assert plain == pytest.approx(dict.fromkeys(plain, plain["dense"]), rel=1e-5)
