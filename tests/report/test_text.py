"""Terminal and Markdown: the tone of the verdict, widths, colours, and names that try to be markup."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from evenhand.report import print_audit, to_markdown, to_text
from evenhand.report.formats import plain
from evenhand.report.wording import (
    class_label,
    evidence_rows,
    fix_command,
    fix_rows,
    headline,
    pattern_line,
    proof,
    severity_of,
)


def test_sentence_then_number_then_remedy_then_fix(cases):
    text = " ".join(to_text(cases["mirrored"]).split())
    order = [
        "demo.npz · 30,000 rows · 500 classes · logits · training counts given",
        "the model expresses both. Predictions favour classes the rarer they are.",
        "tau 1.92 (1.90 to 1.94); this alone explains 96% of the class bias",
        "your settings predict 1.96",
        "Predicted counts are mirrored (slope -0.80): the 50 rarest classes come out",
        "Drop the sampler or the weights.",
        "Without retraining: add 1.92 * log prior to the logits",
        "accuracy 0.061 -> 0.213 (0.208 to 0.218)",
        "balanced accuracy 0.152 -> 0.131 (0.126 to 0.136) worse",
        "evenhand fix demo.npz --goal accuracy -o fix.json",
        "Warning: 12 directed pairs",
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places, [part for part, at in zip(order, places, strict=True) if at < 0]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [60, 80, 100, 120])
@pytest.mark.parametrize("case", ["mirrored", "labels_only", "healthy", "hostile", "binary"])
def test_lines_fit_the_width(cases, case, width):
    lines = to_text(cases[case], width=width).splitlines()
    assert max(len(line) for line in lines if "evenhand fix" not in line) <= width


def test_the_cause_is_named_at_the_right_edge(cases):
    line = next(line for line in to_text(cases["mirrored"], width=110).splitlines() if "[double-correction]" in line)
    assert line.endswith("[double-correction]")
    assert len(line) == 110


def test_labels_only_says_no_tau_and_that_evaluation_counts_stand_in(cases):
    text = " ".join(to_text(cases["labels_only"]).split())
    assert "predicted labels only · no training counts: evaluation counts stand in" in text
    assert "tau" not in text
    assert "log prior" not in text
    assert "evenhand fix" not in text
    assert "no correction recommended" in text
    assert "To be surer: Give logits" in text


def test_a_sound_model_is_told_no_remedy(cases):
    text = to_text(cases["healthy"])
    assert text.count("Nothing to do") == 0
    assert "evenhand fix" not in text
    assert "no clear change" in text


def test_colours_only_where_the_console_has_them(cases, monkeypatch):
    def shown(**options) -> str:
        buffer = io.StringIO()
        print_audit(cases["mirrored"], Console(file=buffer, force_terminal=True, width=100, **options))
        return buffer.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.search(r"\x1b\[[\d;]*3[1-6]", shown(color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*3[1-6]", shown(color_system="standard"))
    assert "\x1b" not in to_text(cases["mirrored"])


def test_names_and_sentences_cannot_smuggle_markup_or_escapes(cases):
    audit = cases["mirrored"]
    said = replace(audit.findings[0], sentence="[red]x[/red] \x1b[31m\x07 [link=file:///etc]y[/link]", evidence={})
    text = to_text(replace(audit, name="[bold]a[/bold]\x1b]0;t\x07.npz", findings=(said,)))
    assert "[red]x[/red]" in text
    assert "[bold]a[/bold]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_file_name_is_quoted_for_the_shell(cases):
    command = fix_command(replace(cases["mirrored"], name="my file; rm -rf.npz"))
    assert command == "evenhand fix 'my file; rm -rf.npz' --goal accuracy -o fix.json"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("part.tally.npz", "PREDICTIONS"),
        ("2 tallies", "PREDICTIONS"),
        ("predictions", "PREDICTIONS"),
        ("Z.npy", "--logits Z.npy --target Y.npy"),
        ("val.csv", "val.csv"),
    ],
)
def test_the_command_names_something_that_can_be_fitted(cases, name, command):
    told = fix_command(replace(cases["mirrored"], name=name))
    assert told == f"evenhand fix {command} --goal accuracy -o fix.json"


def test_figures_in_the_sentence_are_not_said_twice(cases):
    audit = cases["mirrored"]
    assert " ".join(proof(audit, audit.findings[0])).count("tau 1.92") == 1
    silent = replace(audit.findings[0], sentence="Both are on.")
    assert proof(audit, silent)[0].startswith("tau 1.92 (1.90 to 1.94); your settings predict 1.96")


@pytest.mark.parametrize(
    ("sentence", "head"),
    [
        ("Plain words.", "Plain words."),
        ("Words (no figures in here).", "Words (no figures in here)."),
        ("Words (tau 1 (0 to 2)).", "Words."),
        ("Odd brackets 1) 2).", "Odd brackets 1) 2)."),
    ],
)
def test_headline_leaves_out_only_figures_in_closing_brackets(cases, sentence, head):
    assert headline(replace(cases["binary"].findings[0], sentence=sentence))[0] == head


def test_change_is_judged_by_the_interval_and_the_direction_of_the_metric(cases):
    audit = cases["mirrored"]
    assert {row["metric"]: row["change"] for row in fix_rows(audit)} == {
        "accuracy": "better",
        "balanced accuracy": "worse",
        "count distance": "better",
    }
    wide = audit.fix | {"after_interval": {"accuracy": [0.0, 0.5]}}
    assert fix_rows(replace(audit, fix=wide))[0]["change"] == "no clear change"
    paired = wide | {"difference_interval": {"accuracy": [0.14, 0.16], "balanced_accuracy": [-0.04, 0.01]}}
    assert [row["change"] for row in fix_rows(replace(audit, fix=paired))][:2] == ["better", "no clear change"]


def test_rarest_classes_are_those_of_the_training_counts(fake_audit):
    audit = fake_audit(50)
    assert "the 5 rarest classes" in pattern_line(audit)
    true, predicted = audit.true.copy(), audit.true.copy()
    rarest = audit.declared.train_counts.argsort()[:5]
    predicted[rarest] *= 3
    assert "come out 3 times too often" in pattern_line(replace(audit, true=true, predicted=predicted))
    predicted[rarest] = 0
    assert "come out never" in pattern_line(replace(audit, true=true, predicted=predicted))
    true[rarest] = 0
    assert "do not occur among these rows" in pattern_line(replace(audit, true=true, predicted=predicted))


def test_a_pattern_without_a_slope_is_still_told(cases):
    audit = replace(cases["binary"], true=np.array([900, 100]), predicted=np.array([980, 20]))
    audit = replace(audit, declared=replace(audit.declared, train_counts=None))
    audit = replace(audit, table=audit.table | {"interval_high": audit.true + 5.0})
    told = pattern_line(replace(audit, pattern={"name": "proportional", "slope": None, "slope_interval": None}))
    assert told.startswith("The rarer class comes out ")
    told = pattern_line(replace(audit, pattern={"name": "amplified", "slope": None, "slope_interval": None}))
    assert told.startswith("Predicted counts are amplified: the rarer class comes out ")


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.0, "(slope +1.01); the 50 rarest classes come out about as often as they should."),
        (0.5, "(slope +1.01), but the 50 rarest classes come out only 0.5 times as often as they should."),
        (3.0, "(slope +1.01), but the 50 rarest classes come out 3 times too often."),
    ],
)
def test_proportional_is_not_left_to_contradict_the_rarest_classes(fake_audit, factor, words):
    audit = fake_audit(500, healthy=True)
    predicted, true = audit.true.astype(float), audit.true + 4
    rarest = audit.declared.train_counts.argsort()[:50]
    predicted = true.astype(float)
    predicted[rarest] *= factor
    band = {"interval_high": true + 0.5, "interval_low": true - 0.5}
    table = audit.table | band
    told = pattern_line(replace(audit, true=true, predicted=predicted, table=table))
    assert told == f"Predicted counts are proportional to the true ones {words}"
    if factor != 1:
        noisy = audit.table | {"interval_high": true + 1000.0}
        told = pattern_line(replace(audit, true=true, predicted=predicted, table=noisy))
        assert told.endswith("which is within sampling noise.")


@pytest.mark.parametrize(("case", "label"), [("mirrored", "Fault"), ("labels_only", "Warning"), ("healthy", "Sound")])
def test_the_severity_comes_first(cases, case, label):
    assert f"\n\n{label}: " in to_text(cases[case])


def test_no_blanks_at_the_ends_of_lines_where_no_terminal_is(cases):
    buffer = io.StringIO()
    print_audit(cases["mirrored"], Console(file=buffer, width=70))
    lines = buffer.getvalue().splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert max(map(len, lines)) <= 70
    assert to_text(cases["mirrored"], width=70) == buffer.getvalue()


def test_the_plan_of_a_vector_with_holes_is_not_told(cases):
    audit = cases["mirrored"]
    holes = replace(audit.findings[0], cause="incomplete-weights")
    assert "settings predict" in " ".join(proof(audit, audit.findings[0]))
    assert "settings predict" not in " ".join(proof(audit, holes))
    assert "what they ask for" not in " ".join(proof(audit, holes))


def test_a_sample_is_called_one(cases):
    audit = cases["mirrored"]
    assert "random sample of 20,000 of the 30,000 rows" in to_markdown(audit)
    whole = replace(audit, tilt=audit.tilt | {"rows_used": audit.rows})
    assert "random sample" not in to_markdown(whole)


def test_names_that_look_the_same_are_numbered(fake_audit):
    long = "x" * 70
    audit = fake_audit(6, names=["twin", "twin", "own", "", f"{long}a", f"{long}b"])
    assert [class_label(audit, k) for k in (0, 1, 2, 3)] == ["twin #0", "twin #1", "own", "class 3"]
    assert class_label(audit, 4).endswith("… #4")
    assert class_label(audit, 4)[:-1] == class_label(audit, 5)[:-1]


def test_markdown_shows_names_literally(cases):
    text = to_markdown(cases["hostile"])
    assert "<img" not in re.sub(r"\\<", "", text)
    assert "\u202e" not in text
    assert "\ufffe" not in text
    for row in [line for line in text.splitlines() if line.startswith("| ")]:
        assert row.endswith(" |")
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) in {4, 5, 6, 7}, row
    assert max(len(line) for line in text.splitlines()) < 800


def test_markdown_says_what_it_leaves_out(cases):
    text = to_markdown(cases["mirrored"])
    assert "## Classes furthest off (20 of 500 classes)" in text
    assert "(https://github.com/evenhand/evenhand/blob/main/docs/causes/double-correction.md)" in text
    assert "| accuracy | 0.061 | 0.213 | (0.208 to 0.218) | better |" in text
    assert "tau" not in to_markdown(cases["labels_only"])


def test_plain_keeps_words_of_every_script():
    assert plain("naïve 日本語 فئة 👩\u200d🔬") == "naïve 日本語 فئة 👩\u200d🔬"
    assert plain("a\ud800\ufdd0\x9fb") == "ab"


def test_no_known_cause_is_not_called_sound(cases):
    found = cases["healthy"].findings[0]
    assert severity_of(found) == "sound"
    assert severity_of(replace(found, probability=0.5)) == "note"
    assert severity_of(replace(found, evidence={"counts_differ": True})) == "note"


def test_evidence_puts_intervals_beside_numbers_and_never_says_p_is_zero():
    evidence = {"tau": 1.92, "tau_interval": [1.9, 1.94], "p": 0.0, "many": list(range(20)), "in": {"a": 1, "b": None}}
    assert evidence_rows(evidence) == [
        ("tau", "1.920 (1.900 to 1.940)"),
        ("p", "below 0.001"),
        ("many", "0, 1, 2, 3, 4, 5, 6, 7, … (20 in all)"),
        ("in: a", "1"),
        ("in: b", "–"),
    ]
