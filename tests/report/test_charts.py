"""The figures: their numbers, their files, and names that would break the renderer."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from evenhand.declared import InputError
from evenhand.report import charts
from evenhand.report.captions import counts_takeaway, ratio_takeaway, tau_path_takeaway, tilt_takeaway
from evenhand.report.series import BINS, MAX_MARKS, counts_along, permutation, ratios, short_labels


@pytest.mark.parametrize("order", ["frequency", "class", "name"])
def test_every_class_is_shown_once(fake_audit, order):
    audit = fake_audit(300, names=[f"c{i}" for i in range(300)])
    data = counts_along(audit, order)
    assert not data.binned
    assert sorted(data.permutation) == list(range(300))
    assert np.array_equal(data.predicted, audit.predicted[data.permutation])


def test_orders(fake_audit):
    audit = fake_audit(4, names=["b", "A", "d", "c"])
    assert permutation(audit, "name").tolist() == [1, 0, 3, 2]
    assert permutation(audit, "class").tolist() == [0, 1, 2, 3]
    assert np.all(np.diff(audit.true[permutation(audit, "frequency")]) <= 0)


@pytest.mark.parametrize("classes", [MAX_MARKS + 1, 3333, 10_000])
def test_bins_keep_the_totals(fake_audit, classes):
    audit = fake_audit(classes)
    data = counts_along(audit, "frequency")
    size = np.diff(data.edges)
    assert data.binned
    assert len(size) == BINS
    assert size.max() - size.min() <= 1
    assert np.isclose((data.true * size).sum(), audit.true.sum())
    assert np.isclose((data.expected * size).sum(), audit.expected.sum())


def test_band_of_a_bin_is_narrower_than_that_of_a_class(fake_audit):
    audit = fake_audit(MAX_MARKS * 4)
    data = counts_along(audit, "class")
    half = audit.table["interval_high"] - audit.true
    expected = np.sqrt((half[:8] ** 2).sum()) / 8  # independent errors of 8 classes, of their mean
    assert np.isclose(data.high[0] - data.true[0], expected)


def test_ratio_line_has_the_slope_of_the_pattern_less_one(cases):
    data = ratios(cases["mirrored"])
    measured = np.diff(np.log(data.line)) / np.diff(np.log(data.line_true))
    assert np.allclose(measured, -0.8 - 1)
    assert np.all(data.line_low <= data.line)
    assert np.all(data.line <= data.line_high)


def test_ratio_leaves_out_classes_without_rows_and_keeps_those_never_predicted(fake_audit):
    audit = fake_audit(6)
    audit = replace(audit, true=np.array([0, 9, 9, 9, 9, 9]), predicted=np.array([5, 0, 9, 9, 9, 9]))
    data = ratios(audit)
    assert data.absent == 1
    assert np.isclose(data.ratio[0], 0.5 / 9.5)
    assert data.ratio[1] == 1


def test_cells_of_the_ratio_figure_hold_every_class(fake_audit):
    audit = fake_audit(5000)
    data = ratios(audit)
    assert len(data.ratio) < 1320
    assert data.classes.sum() == (audit.true > 0).sum()


def test_labels_are_short_and_unique(cases):
    audit = cases["hostile"]
    labels = short_labels(audit, np.arange(audit.classes))
    assert len(set(labels)) == audit.classes
    assert max(map(len, labels)) < 30
    assert all(labels)


def test_figures_that_the_audit_supports(cases):
    assert list(charts.figures(cases["labels_only"])) == ["counts_by_frequency", "counts_by_class", "ratio"]
    assert list(charts.figures(cases["binary"])) == [
        "counts_by_frequency",
        "counts_by_class",
        "counts_by_name",
        "ratio",
        "tilt",
        "tau_path",
    ]


def test_hostile_names_give_well_formed_svg_without_scripts(cases):
    for name, chart in charts.figures(cases["hostile"]).items():
        text = charts.svg(chart, name)
        tags = {element.tag.split("}")[1] for element in ET.fromstring(text).iter()}
        assert tags <= {"svg", "g", "path", "line", "text", "rect", "defs", "clipPath", "tspan"}, tags
        assert "style=" not in text
        assert "onerror" not in text or "&lt;img" in text


def test_svg_takes_its_colours_from_the_page_and_ids_of_its_own(cases):
    drawn = charts.figures(cases["mirrored"])
    text = charts.svg(drawn["ratio"], "r")
    assert 'fill="var(--over)"' in text
    assert 'fill="var(--under)"' in text
    assert charts.style.OVER not in text
    assert all(part.startswith("r-") for part in text.split(' id="')[1:])
    assert ">1.92<" in charts.svg(drawn["tilt"], "t")  # shortening coordinates must not shorten labels


def test_every_figure_can_be_saved_alone(cases, tmp_path):
    for name, chart in charts.figures(cases["binary"]).items():
        charts.save(chart, tmp_path / f"{name}.svg")
        assert ET.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    charts.save(charts.figures(cases["binary"])["tilt"], tmp_path / "tilt.PNG")
    assert (tmp_path / "tilt.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("case", ["labels_only", "binary"])
def test_composed_picture(cases, case, tmp_path):
    charts.figure(cases[case], tmp_path / "all.svg")
    text = (tmp_path / "all.svg").read_text(encoding="utf-8")
    assert "True, predicted and expected counts" in text
    assert ("The tilt of the model" in text) == (case == "binary")


def test_an_unknown_ending_is_refused_before_drawing(cases, tmp_path):
    with pytest.raises(InputError, match=r"\.png or \.svg was expected, but 'a\.pdf' came"):
        charts.figure(cases["binary"], tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_captions_state_the_takeaway(cases):
    audit = cases["mirrored"]
    outside = (audit.predicted > audit.table["interval_high"]) | (audit.predicted < audit.table["interval_low"])
    assert f"{outside.sum()} of 500 classes lie outside" in counts_takeaway(audit)
    assert "0.016 times as large" in ratio_takeaway(audit)  # 10 ** (-0.8 - 1)
    assert "accuracy at tau 1.92 (0.210)" in tau_path_takeaway(audit)
    assert "about twice" in tilt_takeaway(audit)
    assert "no tilt beyond" in tilt_takeaway(cases["healthy"])


@pytest.mark.parametrize(
    ("tau", "said"),
    [(-0.8, "multiplied in again"), (0.52, "square-root"), (0.95, "about once"), (3.1, "more than twice")],
)
def test_tau_in_words(fake_audit, tau, said):
    assert said in tilt_takeaway(fake_audit(20, tau=tau))


def test_a_tau_path_is_refused_without_scores(cases):
    with pytest.raises(InputError, match="save the logits"):
        charts.tau_path(cases["labels_only"])


def test_few_rows_and_equal_counts_draw(fake_audit):
    audit = fake_audit(3)
    same = np.array([7, 7, 7])
    table = audit.table | {"true": same, "predicted": same, "interval_low": same - 1.0, "interval_high": same + 1.0}
    flat = {"name": "proportional", "slope": None, "slope_interval": None, "spearman": None}
    audit = replace(audit, true=same, predicted=same, table=table, pattern=flat)
    assert ratios(audit).line is None
    for name, chart in charts.figures(audit).items():
        assert charts.svg(chart, name).startswith("<svg ")
