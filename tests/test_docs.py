"""The documentation tells the truth: its examples run, its links lead somewhere, every cause has its page."""

from __future__ import annotations

import doctest
import re
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evenhand import causes
from evenhand.causes import REGISTRY

DOCS = Path(__file__).parents[1] / "docs"
CAUSES = DOCS / "causes"
PAGES = sorted(DOCS.rglob("*.md"))
INDEX = CAUSES / "README.md"
CAUSE_PAGES = sorted(p for p in CAUSES.glob("*.md") if p != INDEX)
HEADINGS = [
    "What it looks like",
    "Why it happens",
    "How to tell it from its neighbours",
    "How to fix it",
    "How sure is the verdict",
    "Sources",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MACHINE = re.compile(r"(?<![\w.])/(work|tmp|home|root|opt|mnt|Users)/|[A-Z]:\\|localhost|127\.0\.0\.1|file://")


def name(path: Path) -> str:
    return str(path.relative_to(DOCS))


def prose(text: str) -> str:
    """The text without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Anchors of the headings, made the way GitHub makes them."""
    titles = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def examples(path: Path) -> doctest.DocTest:
    """All ``>>>`` examples of a page as one doctest; line numbers are those of the page."""
    text = path.read_text(encoding="utf-8")
    kept = [""] * (text.count("\n") + 1)
    for block in FENCE.finditer(text):
        first = text[: block.start(2)].count("\n")
        for i, line in enumerate(block[2].splitlines()):
            kept[first + i] = line
    return doctest.DocTestParser().get_doctest("\n".join(kept), {}, name(path), str(path), 0)


def run(test: doctest.DocTest, namespace: dict[str, Any]) -> str:
    """Report of the failures, empty if all is well; `namespace` holds what the examples defined."""
    report: list[str] = []
    test.globs = namespace
    doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
    return "".join(report)


@cache
def finished_setup() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    assert run(examples(INDEX), namespace) == ""
    return {key: value for key, value in namespace.items() if not key.startswith("__")}


def setup() -> dict[str, Any]:
    """A fresh copy of what the index's set-up defines; the generator is in the same state for every page."""
    return {key: value if isinstance(value, ModuleType) else deepcopy(value) for key, value in finished_setup().items()}


WITH_EXAMPLES = [p for p in PAGES if p != INDEX and examples(p).examples]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name)
def test_examples_run(path: Path) -> None:
    report = run(examples(path), setup() if path.parent == CAUSES else {})
    assert not report, report


def test_every_cause_page_has_an_example_that_names_the_cause() -> None:
    shown = {p.stem for p in CAUSE_PAGES if any(f"'{p.stem}'" in e.want for e in examples(p).examples)}
    assert shown == set(REGISTRY)


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "DOCS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\n>>> 1 + 1\n3\n```\n", encoding="utf-8")
    assert "line 4" in run(examples(page), {})


def test_every_cause_has_a_page_and_every_page_a_cause() -> None:
    assert {p.stem for p in CAUSE_PAGES} == set(REGISTRY)


@pytest.mark.parametrize("path", CAUSE_PAGES, ids=name)
def test_a_cause_page_is_complete(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == f"# {path.stem} ({REGISTRY[path.stem].code})"
    assert lines[2].startswith("**"), "the page starts with its answer"
    assert re.findall(r"^## (.+)$", FENCE.sub("", text), re.MULTILINE) == HEADINGS
    assert re.search(r"^Severity: .*(fault|warning|note)", text, re.MULTILINE)


def test_the_index_lists_every_cause_with_its_code() -> None:
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(([\w-]+)\.md\) \| (EH\d{3}) \|", INDEX.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(rows) == sorted((c.id, c.id, c.code) for c in REGISTRY.values())


def test_the_index_of_the_documentation_links_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text(encoding="utf-8"))}
    assert {p for p in DOCS.glob("*.md") if p != index} | {INDEX} <= linked


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(prose(path.read_text(encoding="utf-8"))):
        if re.match(r"https?://|mailto:", target):
            assert target.startswith("https://"), f"{target} is not a secure address"
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{name(path)} links {target}, which does not exist"
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other.read_text(encoding="utf-8")), f"{name(path)} links {target}: no such heading"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_no_page_names_a_place_on_a_machine(path: Path) -> None:
    assert not MACHINE.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_code_fences_are_closed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"^\s*```", text, re.MULTILINE)) == 2 * len(
        re.findall(r"^\s*```.*?^\s*```$", text, re.MULTILINE | re.DOTALL)
    )


CALL = re.compile(r"evenhand (audit|demo|fix|forecast|tally|weights)\b([^`\n]*)")


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_and_options_exist(path: Path) -> None:
    for command, rest in CALL.findall(path.read_text(encoding="utf-8")):
        known = {o for p in import_module(f"evenhand.commands.{command}").command.params for o in p.opts} | {"--help"}
        used = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest.split("#")[0].split("|")[0]))
        assert used <= known, f"evenhand {command} has no {', '.join(sorted(used - known))}"


@pytest.mark.parametrize("constant", ["SOUND", "DOUBLE", "FULL", "FLAT"])
def test_constants_that_the_pages_name_exist(constant: str) -> None:
    assert any(f"`{constant}`" in p.read_text(encoding="utf-8") for p in PAGES)
    assert any(hasattr(module, constant) for module in (causes.judging, causes.tilt, causes.head))


def test_the_default_remedies_of_the_race_are_told():
    pytest.importorskip("torch")
    from evenhand.training.racing.plan import DEFAULT

    text = (DOCS / "race.md").read_text(encoding="utf-8")
    told = text.split("Without `--remedies` these take part:")[1].split(". (")[0]
    assert re.findall(r"`([^`]+)`", told) == list(DEFAULT)
