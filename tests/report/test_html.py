"""The page: one file, structure, escaping, size, a policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from evenhand.report import html as page_module
from evenhand.report import repr_html
from evenhand.report.html import to_html

VOID = {"meta", "link", "input", "br", "img", "path", "rect", "line", "circle"}
CASES = ["mirrored", "large", "named", "binary", "labels_only", "healthy", "hostile"]


class Outline(HTMLParser):
    """Every start tag with its attributes, the text, and whether tags close in order."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


@pytest.mark.parametrize("case", CASES)
def test_tags_close_ids_are_unique_and_references_exist(page, case):
    outline = Outline(page(case))
    assert outline.open == []
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in outline.tags:
        for key in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
            assert set((attrs.get(key) or "").split()) <= set(ids), attrs
        if (attrs.get("href") or "").startswith("#"):
            assert attrs["href"][1:] in ids


@pytest.mark.parametrize("case", CASES)
def test_the_page_needs_and_loads_nothing(page, case):
    outline = Outline(page(case))
    loading = [attrs.get("src") for _, attrs in outline.tags if "src" in attrs]
    assert loading == []
    assert [attrs["href"] for attrs in outline.all("link")] == ["data:,"]
    assert {attrs["href"].split("#")[0] for attrs in outline.all("a")} <= {"", *links(outline)}
    assert "@import" not in page(case)
    assert "url(http" not in page(case)


def links(outline: Outline) -> set[str]:
    found = {attrs["href"] for attrs in outline.all("a") if attrs["href"].startswith("http")}
    assert all(link.startswith("https://github.com/evenhand/evenhand/blob/main/docs/causes/") for link in found)
    return found


@pytest.mark.parametrize("case", CASES)
def test_no_handlers_or_styles_in_attributes_and_the_policy_fits(page, case):
    text = page(case)
    outline = Outline(text)
    for _, attrs in outline.tags:
        assert not [key for key in attrs if key.startswith("on") or key == "style"]
        assert not (attrs.get("href") or "").startswith("javascript:")
    policy = next(attrs["content"] for attrs in outline.all("meta") if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(content) == 1
        assert base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode() in policy


def test_hostile_names_are_text(page, hostile_names):
    text = page("hostile")
    outline = Outline(text)
    assert outline.all("img") == []
    assert len(outline.all("script")) == 2
    assert "<!--" not in text
    assert "\u202e" not in text
    assert "\u2028" not in text
    text.encode("utf-8")
    shown = data_of(text)["name"]
    assert shown[0] == hostile_names[0]
    assert shown[2] == hostile_names[2]
    assert hostile_names[0] in " ".join(outline.words)


def test_file_name_and_findings_are_escaped(fake_audit):
    audit = fake_audit(5)
    bad = "</script></title><img src=x onerror=alert(1)>"
    said = replace(audit.findings[0], sentence=bad, title=bad, remedy=bad, evidence={bad: bad}, snippets={bad: bad})
    text = to_html(replace(audit, name=bad, findings=(said,), fix=audit.fix | {"why": bad}))
    outline = Outline(text)
    assert outline.all("img") == []
    assert outline.open == []
    assert not [attrs for _, attrs in outline.tags if "onerror" in attrs]


@pytest.mark.parametrize("case", CASES)
def test_landmarks_headings_and_tables(page, case):
    outline = Outline(page(case))
    names = [tag for tag, _ in outline.tags]
    assert names.count("h1") == names.count("main") == names.count("nav") == names.count("header") == 1
    levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert outline.all("html")[0]["lang"] == "en"
    assert next(attrs for attrs in outline.all("a"))["class"] == "skip"
    assert names.count("th") == sum("scope" in attrs for attrs in outline.all("th"))
    for attrs in outline.all("svg"):
        assert attrs.get("aria-hidden") == "true" or "viewbox" in attrs
    pictures = [attrs for _, attrs in outline.tags if attrs.get("role") == "img"]
    assert pictures
    assert all(attrs.get("aria-labelledby") and attrs.get("aria-describedby") for attrs in pictures)


def test_verdict_first_then_fix_then_findings_then_figures_then_tables(page):
    text = page("mirrored")
    order = ['id="verdict"', 'id="fix"', 'id="findings"', 'id="counts-figure"', 'id="tilt-title"', 'id="ratio-title"']
    order += ['id="path-title"', 'id="groups"', 'id="pairs"', 'id="classes"']
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_sizes(page):
    assert len(page("mirrored").encode()) < 700_000
    assert len(page("large").encode()) < 2_000_000


def test_long_names_at_ten_thousand_classes_stay_under_three_megabytes(fake_audit):
    audit = fake_audit(10_000, names=["<&名前>" * 60])
    text = to_html(audit)
    assert len(text.encode()) < 3_000_000


def test_beyond_the_limit_the_classes_furthest_off_are_kept_and_it_says_so(fake_audit, monkeypatch):
    monkeypatch.setattr(page_module, "MAX_ROWS", 100)
    audit = fake_audit(300)
    text = to_html(audit)
    error = abs(audit.predicted - audit.true)
    data = data_of(text)
    assert "The 100 classes furthest off, of 300" in text
    assert len(data["id"]) == 100
    assert error[data["id"]].min() >= sorted(error)[-100]


def test_readable_without_scripts(page):
    outline = Outline(page("mirrored"))
    words = " ".join(" ".join(outline.words).split())
    assert "Without scripts the 200 classes with the largest count error are shown." in words
    assert "Loss weights and a sampler both divide out the class frequencies" in words
    assert "logits = model(x) + 1.92 * log_prior" in words
    assert "tau 1.92 (1.90 to 1.94)" in words


def test_the_data_of_the_table_are_those_of_the_audit(page, cases):
    audit, data = cases["named"], data_of(page("named"))
    assert data["true"] == audit.true.tolist()
    assert data["predicted"] == audit.predicted.tolist()
    assert [data["verdicts"][code] for code in data["verdict"]] == audit.table["verdict"]
    assert sorted(data["plots"]) == ["class", "frequency", "name"]


def test_labels_only_makes_no_claim_about_tilt(page):
    text = page("labels_only")
    words = " ".join(Outline(text).words)
    assert "tau" not in words
    assert 'id="tilt-title"' not in text
    assert "There are no expected (soft) counts" in words
    assert "evaluation counts stand in" in words


def test_notebook_fragment_is_isolated_and_smaller(cases, page):
    fragment = repr_html(cases["mirrored"])
    outline = Outline(fragment)
    assert [tag for tag, _ in outline.tags] == ["iframe"]
    frame = outline.all("iframe")[0]
    assert "allow-same-origin" not in frame["sandbox"]
    inner = frame["srcdoc"]
    assert inner.lstrip().startswith("<!doctype html>")
    assert len(data_of(inner)["id"]) == 200
    assert "The HTML file and the JSON output hold all classes." in inner
    assert len(inner) < len(page("mirrored"))
    assert html.escape(inner, quote=True) in fragment


def test_same_audit_same_page(fake_audit):
    assert to_html(fake_audit(40)) == to_html(fake_audit(40))
