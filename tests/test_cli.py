"""The command line: what it prints, what it writes, and which exit code says what."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import polars as pl
import pytest

from evenhand import cli, output
from evenhand.causes import REGISTRY
from evenhand.commands import audit
from evenhand.commands.gates import FIGURES, parse_rule
from evenhand.declared import InputError
from evenhand.goals import GOALS

K = 10
COUNTS = (600 / np.arange(1, K + 1)).astype(int)


def make_predictions(path: Path, **more: object) -> Path:
    """A model that has been balanced: it knows the features but not how frequent the classes are."""
    rng = np.random.default_rng(3)
    target = rng.permutation(np.repeat(np.arange(K), COUNTS))
    logits = rng.normal(size=(len(target), K)).astype(np.float32)
    logits[np.arange(len(target)), target] += 1
    weight = COUNTS.sum() / (K * COUNTS)
    np.savez(path, logits=logits, target=target, train_counts=COUNTS * 5, class_weight=weight, **more)
    return path


@pytest.fixture
def val(tmp_path: Path) -> Path:
    return make_predictions(tmp_path / "val.npz")


def evenhand(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evenhand.cli", *map(str, arguments)]
    # Unbuffered output, which some machines have set, hides what is lost in the buffer when Python ends.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    defaults = {"capture_output": True, "env": environment}
    return subprocess.run(command, check=False, text=True, **{**defaults, **options})


def test_help_imports_nothing_heavy() -> None:
    heavy = {"numpy", "scipy", "polars", "altair", "jinja2", "rich", "torch"}
    for arguments in (["--help"], ["audit", "--help"], ["tally", "--help"], ["--version"]):
        code = (
            "import sys; from evenhand.cli import run; code = run(sys.argv[1:]); "
            f"print(sorted({heavy!r} & sys.modules.keys()), code, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, text=True, capture_output=True)
        assert done.stderr == "[] 0\n", arguments
        assert done.stdout


def test_help_lists_every_command_with_one_line() -> None:
    text = evenhand("--help").stdout
    for name in cli.COMMANDS:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_table_and_the_command_agree(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    assert command.params
    assert command.help


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["adit"]) == 2
    assert "adit" in capsys.readouterr().err
    assert cli.run(["audit"]) == 2
    assert "--logits Z.npy --target Y.npy" in capsys.readouterr().err


def test_audit_prints_the_verdict(val: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["audit", str(val)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("val.npz")
    assert "[class-weights]" in printed.out
    assert printed.err == ""


def test_json_on_stdout_is_only_json(val: Path) -> None:
    done = evenhand("audit", val, "--json", "-", "--fail-on", "any")
    content = json.loads(done.stdout)
    assert content["schema"] == "evenhand.audit/1"
    assert content["findings"][0]["cause"] == "class-weights"
    assert done.returncode == 1
    assert done.stderr == "--fail-on rule met: any\n"


def test_weights_that_do_what_the_goal_asks_pass_the_gate(val: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = ["audit", str(val), "--fail-on", "any"]
    assert cli.run(gate) == 1
    assert cli.run([*gate, "--goal", "counts"]) == 1
    for level in ("balanced-accuracy", "g-mean", "worst-group"):
        assert cli.run([*gate, "--goal", level]) == 0
    assert cli.run([*gate, "--goal", "balanced-accuracy", "--fail-on", "cause=class-weights"]) == 1
    assert "Note: The loss weights did what they ask for" in capsys.readouterr().out


@pytest.mark.parametrize("goal", audit.GOALS)
def test_every_goal_that_needs_nothing_stated_is_offered_and_measured(val: Path, goal: str) -> None:
    assert set(audit.GOALS) == {name for name, wanted in GOALS.items() if not wanted.needs}
    fix = json.loads(evenhand("audit", val, "--json", "-", "--goal", goal).stdout)["fix"]
    assert fix["goal"] == goal
    key = GOALS[goal].metric.key
    low, high = fix["after_interval"][key]
    assert low <= fix["after"][key] <= high


def test_piped_output_has_no_blanks_at_the_ends_of_lines(val: Path) -> None:
    lines = evenhand("audit", val).stdout.splitlines()
    assert len(lines) > 8
    assert lines == [line.rstrip() for line in lines]


def test_every_output_in_one_run(val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"html": "r.html", "json": "r.json", "markdown": "r.md", "plot": "r.svg"}
    options = [part for kind, name in files.items() for part in (f"--{kind}", str(tmp_path / name))]
    assert cli.run(["audit", str(val), *options, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    starts = {kind: (tmp_path / name).read_text(encoding="utf-8").lstrip()[:4] for kind, name in files.items()}
    assert starts["html"].lower() == "<!do"
    assert starts["json"][0] == "{"
    assert starts["markdown"][0] == "#"
    assert starts["plot"] == "<svg"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*files.values(), "val.npz"])


def test_a_pair_of_arrays_and_options(val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(val) as held:
        np.save(tmp_path / "z.npy", held["logits"])
        np.save(tmp_path / "y.npy", held["target"])
    (tmp_path / "counts.csv").write_text("\n".join(map(str, COUNTS)))
    (tmp_path / "names.txt").write_text("\n".join(f"name {k}" for k in range(K)))
    arguments = ["audit", "--logits", tmp_path / "z.npy", "--target", tmp_path / "y.npy", "--json", "-",
                 "--train-counts", tmp_path / "counts.csv", "--class-names", tmp_path / "names.txt",
                 "--sampler", "balanced", "--goal", "balanced-accuracy", "--ignore-index", "0"]  # fmt: skip
    assert cli.run([str(argument) for argument in arguments]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["rows"] == COUNTS[1:].sum()
    assert content["classes_table"][3]["name"] == "name 3"
    assert content["fix"]["goal"] == "balanced-accuracy"


def test_labels_alone_from_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = np.repeat(np.arange(K), COUNTS)
    pl.DataFrame({"target": target, "predicted": np.roll(target, 40)}).write_parquet(tmp_path / "p.parquet")
    assert cli.run(["audit", str(tmp_path / "p.parquet"), "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["rows"], content["tilt"]) == (COUNTS.sum(), None)
    assert cli.run(["audit", str(tmp_path / "p.parquet"), "--fail-on", "tilt>1"]) == 2
    assert "does not give that figure" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("any", 1),
        ("cause=class-weights", 1),
        ("cause=double-correction", 0),
        ("tilt>0.5", 1),
        ("tilt>1.6", 0),
        ("accuracy < 1", 1),
        ("balanced-accuracy<=0.01", 0),
        ("tilt=1", 2),
        ("tilt", 2),
        ("any,", 2),
        ("", 2),
        ("cause=unheard-of", 2),
        ("cause = class-weights", 1),
        ("acuracy<0.5", 2),
        ("tilt>nan", 2),
        ("tilt>1.2.3", 2),
        ("1<tilt", 2),
        ("tilt>1 or any", 2),
    ],
)
def test_fail_on(val: Path, capsys: pytest.CaptureFixture[str], rule: str, code: int) -> None:
    assert cli.run(["audit", str(val), "--quiet", "--fail-on", rule]) == code
    assert bool(capsys.readouterr().err) == (code != 0)


def test_one_met_rule_of_several_is_enough(val: Path) -> None:
    assert cli.run(["audit", str(val), "--quiet", "--fail-on", "tilt>1.6", "--fail-on", "tilt>0.5"]) == 1


def test_any_leaves_out_notes() -> None:
    audit = SimpleNamespace(findings=[SimpleNamespace(cause="healthy", severity="note")])
    assert not parse_rule("any").met(audit)
    assert parse_rule("cause=healthy").met(audit)
    audit.findings.append(SimpleNamespace(cause="sampler", severity="warning"))
    assert parse_rule("any").met(audit)


def test_a_figure_without_a_value_never_passes_in_silence() -> None:
    group = {"accuracy": None}
    audit = SimpleNamespace(
        tilt=None, metrics={"nll": None, "accuracy": float("nan"), "groups": {"tail": group}}, pattern={"slope": None},
        total_variation={"hard": None, "soft": None},
    )  # fmt: skip
    for name in FIGURES:
        with pytest.raises(InputError, match="cannot be judged"):
            parse_rule(f"{name}<1").met(audit)


def test_cause_ids_are_those_of_the_documentation() -> None:
    pages = Path(__file__).parents[1] / "docs" / "causes"
    assert {page.stem for page in pages.glob("*.md")} - {"README", "index"} <= set(REGISTRY)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.npz"], "missing.npz: no such file or directory"),
        (["{val}", "--json", "{val}"], "is an input and would be overwritten"),
        (["{val}", "--json", "{dir}/a", "--markdown", "{dir}/a"], "two outputs were given the same file name"),
        (["{val}", "--html", "{dir}/none/r.html"], "does not exist; create it first"),
        (["{val}", "--plot", "{dir}/r.pdf"], "ending in .png or .svg"),
        (["{val}", "{val}"], "Several inputs"),
        (["{val}", "--train-counts", "{dir}/none.csv"], "no such file or directory"),
        (["{dir}"], "should end in one of"),
    ],
)
def test_errors_are_one_sentence_and_leave_nothing(
    val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    before = val.read_bytes()
    assert cli.run(["audit", *(text.format(val=val, dir=tmp_path) for text in arguments)]) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["val.npz"]
    assert val.read_bytes() == before


def test_no_output_is_written_when_one_fails(
    val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(audit: object, path: Path) -> None:
        path.write_bytes(b"<svg")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("evenhand.report.figure", full, raising=False)
    (tmp_path / "r.json").write_text("old")
    arguments = ["--json", tmp_path / "r.json", "--markdown", tmp_path / "r.md", "--plot", tmp_path / "r.svg"]
    assert cli.run(["audit", str(val), *map(str, arguments)]) == 2
    assert capsys.readouterr().err == f"evenhand: {tmp_path / 'r.svg'}: no space left on device\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "val.npz"]
    assert (tmp_path / "r.json").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout(val: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = evenhand("audit", val, "--json", "-", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "evenhand: no space left on device\n")


def test_a_closed_pipe_is_quiet(val: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = evenhand("audit", val, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (cli.PIPE_CLOSED, "")


def test_an_interrupt_is_one_word() -> None:
    code = (
        "import sys, time, click; from evenhand import cli\n"
        "@click.command()\n"
        "def wait():\n    print('ready', flush=True); time.sleep(60)\n"
        "cli.cli.get_command = lambda ctx, name: wait\n"
        "sys.exit(cli.run(['audit']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error.strip()) == (130, "evenhand: interrupted")


def test_a_defect_shows_its_traceback_and_is_no_met_rule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**options: object) -> None:
        raise KeyError("unexpected")

    monkeypatch.setattr(cli.cli, "main", broken)
    assert cli.run([]) == cli.DEFECT
    assert "KeyError" in capsys.readouterr().err


def test_atomic_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    output.write_text_atomically(path, "one\r\ntwo \udcff")
    assert path.read_bytes() == b"one\r\ntwo \\udcff"
    path.chmod(0o640)
    output.write_bytes_atomically(path, b"three")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"three", 0o640)
    for target, reason in ((tmp_path, "directory"), (tmp_path / "none" / "a.txt", "folder does not exist")):
        with pytest.raises(OSError, match=reason):
            output.write_text_atomically(target, "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        output.save_atomically(path, fail)
    assert caught.value.filename == str(path)
    with pytest.raises(ZeroDivisionError):
        output.save_atomically(path, lambda temporary: 1 / 0)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("parts", [1, 3])
def test_tallies_of_parts_give_the_audit_of_the_whole(
    val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: int
) -> None:
    with np.load(val) as held:
        arrays = dict(held)
    names, first = [], 0
    for part in np.array_split(np.arange(len(arrays["target"])), parts):
        np.savez(tmp_path / "part.npz", **(arrays | {key: arrays[key][part] for key in ("logits", "target")}))
        names.append(str(tmp_path / f"{first}.tally.npz"))
        assert cli.run(["tally", str(tmp_path / "part.npz"), "-o", names[-1], "--row-offset", str(first)]) == 0
        assert f"{len(part):,} rows of {K} classes" in capsys.readouterr().err
        first += len(part)
    assert cli.run(["audit", str(val), "--json", "-"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert cli.run(["audit", *reversed(names), "--json", "-"]) == 0
    summed = json.loads(capsys.readouterr().out)
    assert summed["counts"]["predicted"] == whole["counts"]["predicted"]
    assert summed["findings"][0]["cause"] == whole["findings"][0]["cause"]
    assert summed["tilt"]["tau"] == pytest.approx(whole["tilt"]["tau"], rel=1e-6)
    assert summed["tilt"]["rows_used"] == whole["tilt"]["rows_used"]


def test_tallies_that_cannot_be_added(val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tally = str(tmp_path / "a.tally.npz")
    assert cli.run(["tally", str(val), "-o", str(tmp_path / "a.npz")]) == 2
    assert "should be named *.tally.npz" in capsys.readouterr().err
    assert cli.run(["tally", str(val), "-o", tally]) == 0
    capsys.readouterr()
    for arguments, expected in (
        ([tally, tally], "counted twice"),
        ([tally, "--ignore-index", "3"], "--ignore-index cannot change a tally"),
        ([tally, str(val)], "Several inputs"),
        ([tally, "--sampler", "none.npy"], "no such file"),
    ):
        assert cli.run(["audit", *arguments]) == 2
        assert expected in capsys.readouterr().err


def test_names_from_a_file_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "p.npz", **{"\x1b[2J\nlogits ok": np.zeros(3)})
    assert cli.run(["audit", str(tmp_path / "p.npz")]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1
