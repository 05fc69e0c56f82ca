"""The weights and forecast commands: files in, files out, sentences for what cannot be used."""

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from evenhand.cli import run
from evenhand.commands.forecast import command as forecast_command
from evenhand.commands.weights import command as weights_command
from evenhand.weights import RULES, class_weights

COUNTS = np.array([900, 90, 10, 50])


@pytest.fixture
def counts_file(tmp_path):
    path = tmp_path / "counts.npy"
    np.save(path, COUNTS)
    return str(path)


def invoke(command, *arguments):
    result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("ending", ["npy", "csv", "txt", "json"])
def test_weights_written_are_the_weights_read_back(tmp_path, counts_file, ending):
    path = tmp_path / f"weights.{ending}"
    invoke(weights_command, counts_file, "-o", path)
    result = invoke(forecast_command, counts_file, "--class-weight", path, "--json", "-")
    assert json.loads(result.stdout)["tilt"]["tau"] == pytest.approx(1, abs=1e-12)
    assert not [other for other in tmp_path.iterdir() if other.name.startswith(".")]


def test_rule_options_and_absent_policy_reach_the_function(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("count\n900\n90\n0\n")
    result = invoke(
        weights_command,
        path,
        "--rule",
        "capped",
        "-p",
        "ratio=3",
        "--absent",
        "largest",
        "--normalise",
        "mean",
        "--json",
        "-",
    )
    wanted = class_weights([900, 90, 0], "capped", ratio=3, absent="largest", normalise="mean")
    assert json.loads(result.stdout)["weights"] == wanted.tolist()


def test_labels_are_counted(tmp_path):
    labels, names = tmp_path / "labels.npy", tmp_path / "names.txt"
    np.save(labels, np.array([0, 0, 2, 2, 2, -100, 1]))
    names.write_text("cat\nnewt\ndog\n")
    result = invoke(weights_command, labels, "--labels", "--ignore-index", -100, "--class-names", names, "--json", "-")
    content = json.loads(result.stdout)
    assert (content["counts"], content["names"]) == ([2, 1, 3], ["cat", "newt", "dog"])


def test_labels_without_the_option_are_recognised(tmp_path, capsys):
    hint = "This looks like one label per row; add --labels if it is."
    np.save(tmp_path / "labels.npy", np.array([0, 1, 2, 0, 0, 1] * 10))
    (tmp_path / "names.csv").write_text("animal\ncat\ndog\ncat\n")
    for name in ("labels.npy", "names.csv"):
        assert run(["weights", str(tmp_path / name)]) == 2
        assert hint in capsys.readouterr().err
        assert run(["weights", str(tmp_path / name), "--labels"]) == 0
        assert hint not in capsys.readouterr().err
    assert run(["forecast", str(tmp_path / "labels.npy")]) == 0
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("counts", [COUNTS, [0, 3, 1, 2], [1] * 40, list(range(1, 11)) * 10])
def test_counts_are_not_taken_for_labels(tmp_path, capsys, counts):
    np.save(tmp_path / "counts.npy", np.asarray(counts))
    run(["weights", str(tmp_path / "counts.npy"), "--absent", "one"])
    assert "--labels" not in capsys.readouterr().err


def test_text_for_people(tmp_path, counts_file):
    output = invoke(weights_command, counts_file).stdout
    assert "4 classes · 1,050 rows · largest class 90 times the smallest" in output
    path = tmp_path / "forecast.json"
    result = invoke(
        forecast_command, counts_file, "--class-weight", "balanced", "--sampler", "balanced", "--json", path
    )
    assert "This over-corrects" in result.stdout
    assert "[double-correction]" in result.stdout
    assert json.loads(path.read_text())["warnings"][0]["id"] == "double-correction"


def test_long_lists_are_shortened_and_names_cannot_move_the_cursor(tmp_path):
    counts, names = tmp_path / "counts.npy", tmp_path / "names.json"
    np.save(counts, np.arange(1, 101))
    names.write_text(json.dumps([f"\x1b[2Jclass {k}" for k in range(100)]))
    output = invoke(weights_command, counts, "--class-names", names).stdout
    assert "... 88 more classes" in output
    assert "\x1b" not in output


def test_list_names_every_rule():
    output = invoke(weights_command, "--list").stdout
    assert [line.split()[0] for line in output.splitlines()] == list(RULES)


def test_help_shows_examples():
    for command in (weights_command, forecast_command):
        assert "Examples:" in invoke(command, "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["weights", "missing.npy"], "missing.npy: no such file"),
        (["weights"], "Expected a file"),
        (["weights", "{counts}", "--rule", "best"], "Expected a weight rule"),
        (["weights", "{counts}", "-p", "ratio"], "NAME=NUMBER"),
        (["weights", "{counts}", "--classes", "9"], "together with --labels"),
        (["weights", "{counts}", "-o", "{folder}/w.pickle"], "output file ending in"),
        (["weights", "{counts}", "-o", "{folder}/none/w.npy"], "/none"),
        (["weights", "{zero}"], "1 class has no rows (1)"),
        (["weights", "{half}"], "entry 0 is 0.5"),
        (["forecast", "{counts}", "--class-weight", "heavy"], "or a file, got 'heavy'"),
        (["forecast", "{counts}", "--class-weight", "{zero}"], "each of 4 classes"),
        (["forecast", "{counts}", "--accuracy", "0.1"], "accuracy above"),
    ],
)
def test_unusable_input_exits_2_with_one_sentence(tmp_path, counts_file, capfd, arguments, sentence):
    np.save(tmp_path / "zero.npy", [5, 0])
    np.save(tmp_path / "half.npy", [0.5, 0.5])
    places = {"counts": counts_file, "zero": tmp_path / "zero.npy", "half": tmp_path / "half.npy", "folder": tmp_path}
    before = sorted(tmp_path.iterdir())
    assert run([argument.format(**places) for argument in arguments]) == 2
    told = capfd.readouterr().err
    assert sentence.lower() in told.lower()
    assert "Traceback" not in told
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("page", ["weights.md", "forecast.md"])
def test_examples_in_the_docs_run(page):
    path = Path(__file__).parents[1] / "docs" / page
    outcome = doctest.testfile(str(path), module_relative=False)
    assert outcome.attempted > 5
    assert outcome.failed == 0
