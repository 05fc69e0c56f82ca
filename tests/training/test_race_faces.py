"""What a race shows: the lines to copy, the leaderboard in a terminal, how far it is, what Ctrl-C leaves."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

import torch

from evenhand import losses, training
from evenhand.cli import run
from evenhand.commands.race_progress import Lines, drawing
from evenhand.training import REMEDIES, Recipe, Remedy
from evenhand.training.racing.comparing import Estimate
from evenhand.training.racing.entries import Entry, Verdict
from evenhand.training.racing.following import next_steps
from evenhand.training.racing.plan import make_plan
from evenhand.training.racing.result import RaceResult
from evenhand.training.racing.text import SPARED, TITLES

ESCAPED = "mi\x1b[31mne\nsecond line"
OWN = Remedy(ESCAPED, "my own", loss="focal", options={"gamma": 0.25}, power=0.5)
METRICS = dict.fromkeys(("accuracy", "head", "medium", "tail", "nll", "ece", "count_distance"), 0.5)


def told(
    remedy: str | Remedy = "weighted", *, corrected: bool = False, kind: str = "take", seeds: int = 3, **options: Any
) -> RaceResult:
    """A result as a race would have it, with `remedy` recommended."""
    plan = make_plan([remedy], seeds=seeds, recipe=Recipe(**options))
    name = remedy.name if isinstance(remedy, Remedy) else remedy
    moved = Estimate(0.05, 0.01, (0.03, 0.07), 0.001, 50) if seeds > 1 else Estimate(0.05, np.nan, (np.nan,) * 2, 1, 0)
    level = Estimate(0.5, 0.01, (0.48, 0.52), 0.0, 50)
    shared: dict[str, Any] = {
        "metrics": METRICS,
        "value": level,
        "tau": 0.98,
        "tau_interval": (0.9, 1.1),
        "seeds": seeds,
    }
    entry = Entry(name, corrected, "finished", difference=moved, p=0.01, seconds=12.0, **shared)
    others = [] if name == "plain" else [Entry("plain", False, "finished", seconds=12.0, **shared)]
    return RaceResult(
        name="rows.npz", plan=plan, metric="balanced_accuracy", words="balanced accuracy", share=True, sign=1,
        classes=3, rows={"train": 60, "choosing": 40, "judging": 40}, steps=6, entries=[entry, *others],
        verdict=Verdict(entry, kind, "A sentence that says at some length what was found, and is wrapped."), notes=[],
        trainings={"finished": 2 * seeds, "stopped": 0, "failed": 0, "reused": 0}, wall=1.0, training=0.9,
    )  # fmt: skip


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


def scope() -> dict[str, Any]:
    """What a reader has in a program of their own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [36, 15, 9])
    target = np.repeat(np.arange(3), [120, 60, 60])
    rows = torch.tensor(rng.normal(size=(60, 4)), dtype=torch.float32), torch.tensor(labels)
    logits = rng.normal(size=(240, 3)) + 2.0 * np.eye(3)[target]
    return {"model": Network(), "train": rows, "labels": labels, "counts": [36, 15, 9], "remedy": OWN, "np": np,
            "logits": logits, "target": target}  # fmt: skip


@pytest.mark.parametrize("remedy", [*REMEDIES, "vs:power=0.5", "focal:gamma=0.5,weight=balanced", OWN], ids=str)
def test_the_lines_run_in_a_program_of_ones_own(remedy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = scope()
    before = {name: value.clone() for name, value in known["model"].state_dict().items()}
    lines = next_steps(told(remedy, corrected=True, batch_size=20))
    assert 2 <= len(lines) <= 5
    exec("\n".join(lines), known)
    after = known["model"].state_dict()
    assert any(name not in after or not torch.equal(value, after[name]) for name, value in before.items())
    found = training.parse_remedy(remedy)
    if found.schedule != "one-stage" or found.cosine:  # a loss alone would be another remedy
        assert not {"criterion", "sampler"} & set(known)
        return
    assert ("criterion" in known) == (found.loss != "cross-entropy" or bool(found.options))
    assert ("sampler" in known) == (found.power is not None or found.beta is not None)
    if "criterion" in known:
        z, y = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
        wanted = losses.build(found.loss, [36, 15, 9], **found.options)
        drawn = [(torch.manual_seed(1), loss(z, y))[1] for loss in (known["criterion"], wanted)]
        assert torch.equal(*drawn)
    if found.name == "sqrt-sampler":
        assert (
            known["sampler"].quotas().tolist()
            == training.samplers.ClassPowerSampler(known["labels"], 0.5).quotas().tolist()
        )


def test_the_command_of_the_correction_runs_on_the_file_that_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = next_steps(told("weighted", corrected=True))
    exec("\n".join(lines), scope())
    command = lines[-1].partition("then: evenhand ")[2]
    assert run(command.split()) == 0
    assert (tmp_path / "fix.json").is_file()


def test_the_lines_have_what_the_race_was_given() -> None:
    call = next_steps(told("balanced-softmax", batch_size=64, learning_rate=1e-3))[1]
    assert call == 'training.fit(model, train, "balanced-softmax", steps=6, batch_size=64, learning_rate=0.001)'
    assert next_steps(told("balanced-softmax"))[2].startswith('criterion = losses.build("balanced-softmax", counts)  #')
    own = next_steps(told(Remedy("my-focal", "my own", loss="focal", options={"gamma": 9.0})))
    assert own[1].startswith("training.fit(model, train, remedy, steps=6)  # remedy: your Remedy object")
    for remedy in ("plain", "sampler", "weighted"):
        assert "\n".join(next_steps(told(remedy, corrected=True))).count("counts: training rows per class") == 1
    assert "optimiser=optimiser" in next_steps(told(optimiser=torch.optim.SGD))[1]


def test_one_seed_recommends_nothing() -> None:
    result = told(kind="unknown", seeds=1)
    assert next_steps(result) == []
    text, page = str(result), result.html()
    assert "  > " not in text
    assert "training.fit" not in text + page
    assert 'class="badge' not in page
    assert "  > weighted" in str(told())
    assert 'class="badge' in told().html()


def test_an_own_name_cannot_write_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    result = told(OWN)
    said: list[str] = []
    clock = iter(range(0, 1000, 20))
    lines = Lines(said.append, lambda: float(next(clock)))
    lines.begin(4, 6)
    lines.settled(0)
    lines.training(ESCAPED, 0)
    lines.settled(1)
    for shown in (str(result), result.to_text(80), result.html(), repr(result), *said):
        assert "\x1b" not in shown
        assert "mi[31mne\nsecond" not in shown
    assert said[0].startswith("mi[31mne second line, seed 0: ")
    assert sum("mi[31mne second line" in line for line in str(result).splitlines()) == 1
    assert all(line.isprintable() for line in next_steps(result))


@pytest.mark.parametrize("width", [160, 130, 110, 100, 80])
def test_the_table_fits_the_terminal(width: int) -> None:
    result = told("deferred-weights", corrected=True)
    text = result.to_text(width)
    lines = text.splitlines()[: -len(next_steps(result))]
    assert max(map(len, lines)) <= width
    head = next(line for line in lines if " vs plain " in line and "goal" in line)
    for title in ("goal", "vs plain", "95 % interval", "tail", "count dist", "tau"):
        assert title in head
    shown = [re.search(rf"\b{re.escape(TITLES[key])}(?:\s|$)", head) is not None for key in SPARED]
    assert shown == sorted(shown)  # what goes first is gone whenever a later one is
    if width == 160:
        assert all(shown)
        assert "0.98 (0.90 to 1.10)" in text
    if width == 80:
        assert not any(shown)


def test_a_file_gets_long_lines() -> None:
    result = told()
    assert result.verdict.sentence in str(result).splitlines()
    assert result.verdict.sentence not in result.to_text(40).splitlines()
    assert result.verdict.sentence in re.sub(r"\s+", " ", result.to_text(40))


def test_notebooks_get_the_page_and_a_short_repr() -> None:
    result = told()
    assert len(repr(result)) < 300
    assert "take: weighted (balanced accuracy 0.500)" in repr(result)
    frame = result._repr_html_()
    assert frame.startswith("<iframe ")
    assert frame.count("<") == 2  # the page is escaped into an attribute
    assert "evenhand race on rows.npz" in frame


def test_the_page_fits_screens_of_all_widths(tmp_path: Path) -> None:
    """The whole table at 1,200 pixels, names and dots apart, and no figure wider than its card."""
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    (tmp_path / "race.html").write_text(told("deferred-weights", corrected=True).html(), encoding="utf-8")
    with play.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page()
        for width in (1200, 800, 400):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto((tmp_path / "race.html").as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            shown = tab.locator(".race:visible")
            assert shown.count() == 1
            assert shown.evaluate("e => e.scrollWidth <= e.clientWidth")
            letters = shown.evaluate(
                "e => Math.min(...[...e.querySelectorAll('text')].map(t => t.getBoundingClientRect().height))"
            )
            assert letters >= 9
            if width == 1200:
                assert tab.locator(".board").evaluate("e => e.scrollWidth <= e.clientWidth")
        browser.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_per_training_and_not_more_often_than_every_ten_seconds() -> None:
    said: list[str] = []
    clock = Clock()
    lines = Lines(said.append, clock)
    lines.begin(18, 640)
    lines.settled(0)
    for number, seconds in enumerate((4.0, 3.0, 5.0, 40.0), 1):
        lines.training("plain", number)
        lines.step(640 if number < 4 else 320)
        clock.now += seconds
        lines.settled(number)
    assert said == [
        "plain, seed 3: finished in 5 s, 3 of 18, about 60 s left",
        "plain, seed 4: stopped at step 320 after 40 s, 4 of 18, about 3 min left",
    ]
    lines.settled(4)  # waits for others
    clock.now += 30
    lines.settled(6)
    assert said[2:] == ["others, 6 of 18, about 3 min left"]


def test_a_race_of_seconds_says_nothing_on_the_way() -> None:
    said: list[str] = []
    clock = Clock()
    lines = Lines(said.append, clock)
    lines.begin(3, 10)
    lines.settled(0)
    for done in (1, 2, 3):
        lines.training("plain", done)
        clock.now += 3
        lines.settled(done)
    assert said == []


def test_a_terminal_has_two_bars_however_many_trainings() -> None:
    from rich.console import Console

    with drawing(Console(file=io.StringIO(), force_terminal=True, width=100)) as bars:
        bars.begin(6, 10)
        for number in range(5):
            bars.settled(number)
            bars.training("[red]x\x1b", number)
            bars.step(5)
        race, one = bars.progress.tasks
        assert (race.total, race.completed) == (60, 45)
        assert (one.description, one.total, one.completed) == ("[red]x, seed 4", 10, 5)
        assert race.time_remaining is not None


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_says_what_is_left(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of the first training, as the signal would have it."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), [160, 100, 80])
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(len(y), 4)), y=y)
    monkeypatch.chdir(tmp_path)
    real = training.Training.advance

    def stopped(self: training.Training, until: int) -> None:
        real(self, min(until, 2))
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "advance", stopped)
    more = ["--out", "folder"] if kept else []
    assert run(["race", "rows.npz", "--label", "y", "--remedies", "weighted", "--budget", "40steps", *more]) == 130
    said = capsys.readouterr().err.strip()
    if kept:
        assert said.startswith("evenhand: interrupted; finished trainings are kept in folder, and the one under way")
        assert said.endswith("the same command goes on")
    else:
        assert said == (
            "evenhand: interrupted; the trainings that were finished are lost, and --out DIR would have kept them"
        )


def test_no_dot_lies_on_the_names() -> None:
    from evenhand.report.charts import Dot, dots

    chart = dots([Dot("a", 0.0, None, None), Dot("b", 5.0, None, None)], "x").to_dict()
    low, high = chart["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low < 0
    assert high > 5
