"""The JSON face: the documented schema, every number finite or null, nothing lost on the way."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evenhand.report import to_dict, to_json
from evenhand.report.jsonify import SCHEMA, jsonable

KEYS = {
    "": [
        "schema", "rows", "classes", "metrics", "counts", "pattern", "tilt", "homogeneity", "findings", "fix",
        "classes_table",
    ],
    "metrics": ["accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "groups"],
    "counts": ["true", "predicted", "expected", "total_variation"],
    "pattern": ["name", "slope", "slope_interval", "spearman"],
    "tilt": ["tau", "tau_interval", "beta", "beta_interval", "share", "rows_used", "declared"],
    "homogeneity": ["statistic", "df", "p"],
    "fix": ["goal", "offsets_file", "before", "after", "after_interval", "recommended", "why"],
}  # fmt: skip
FINDING = ["cause", "code", "title", "severity", "probability", "sentence", "evidence", "remedy", "snippets"]
ROW = [
    "class",
    "name",
    "true",
    "predicted",
    "expected",
    "recall",
    "precision",
    "interval",
    "q_value",
    "verdict",
]


@pytest.mark.parametrize("case", ["mirrored", "binary", "healthy", "hostile"])
def test_keys_are_exactly_those_of_the_schema(cases, case):
    told = to_dict(cases[case])
    assert told["schema"] == SCHEMA == "evenhand.audit/1"
    for block, keys in KEYS.items():
        assert list(told[block] if block else told) == keys
    assert list(told["counts"]["total_variation"]) == ["hard", "soft", "noise_floor"]
    assert all(list(finding) == FINDING for finding in told["findings"])
    assert all(list(row) == ROW for row in told["classes_table"])
    assert [row["class"] for row in told["classes_table"]] == list(range(cases[case].classes))


@pytest.mark.parametrize("indent", [0, 2, 4])
@pytest.mark.parametrize("case", ["mirrored", "labels_only", "hostile", "binary"])
def test_text_round_trips(cases, case, indent):
    text = to_json(cases[case], indent=indent)
    assert text.isascii()
    assert json.loads(text) == to_dict(cases[case])
    assert "NaN" not in text
    assert "Infinity" not in text


def test_class_names_come_back_exactly(cases, hostile_names):
    rows = json.loads(to_json(cases["hostile"]))["classes_table"]
    assert [row["name"] for row in rows] == hostile_names


def test_labels_only_claims_no_tilt_and_no_soft_counts(cases):
    told = to_dict(cases["labels_only"])
    assert told["tilt"] is None
    assert told["counts"]["expected"] is None
    assert told["counts"]["total_variation"]["soft"] is None
    assert told["metrics"]["nll"] is None
    assert {row["expected"] for row in told["classes_table"]} == {None}


def test_counts_are_whole_numbers_and_kept(cases):
    audit = cases["mirrored"]
    told = to_dict(audit)
    assert told["counts"]["true"] == audit.true.tolist()
    assert all(type(n) is int for n in told["counts"]["predicted"])
    assert sum(told["counts"]["true"]) == told["rows"]


def test_missing_and_infinite_numbers_become_null(cases):
    audit = replace(cases["binary"], metrics=cases["binary"].metrics | {"nll": float("inf"), "ece": np.float32("nan")})
    told = to_dict(audit)
    assert told["metrics"]["nll"] is None
    assert told["metrics"]["ece"] is None


def test_a_value_json_cannot_hold_is_refused_by_name():
    with pytest.raises(TypeError, match="complex"):
        jsonable({"a": [1j]})


def test_rows_of_the_class_table_stay_on_one_line(cases):
    text = to_json(cases["mirrored"])
    assert len(re.findall(r'^    \{"class": \d+, .*\},?$', text, re.M)) == 500
    assert len(text.splitlines()) < 700


def test_every_key_is_documented():
    page = Path(__file__).parents[2] / "docs" / "json-schema.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the tests")
    text = page.read_text(encoding="utf-8")
    named = {key for keys in KEYS.values() for key in keys} | set(FINDING) | set(ROW)
    named |= {"hard", "soft", "noise_floor", "head", "medium", "tail", "correlation"}
    assert [key for key in sorted(named) if f"`{key}`" not in text] == []
