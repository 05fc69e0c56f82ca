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
