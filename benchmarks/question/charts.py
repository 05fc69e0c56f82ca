"""The question's figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from PIL import Image

from benchmarks.question.remedies import BY_NAME, PLAIN
from benchmarks.question.summary import Figure, Results, at_epoch, decision, final
from evenhand.output import write_bytes_atomically
from evenhand.report.charts.style import BAND, EXPECTED, INK, MUTED, OVER, UNDER, Chart, drawn_from, save

COLOURS = {
    "plain": INK, "focal-2": EXPECTED, "sqrt": "#2f8f6b", "weights": OVER, "double": UNDER,
    "balanced-softmax": "#b0892b", "plain, minus log prior": MUTED,
}  # fmt: skip
COUNTED = ("plain", "focal-2", "sqrt", "weights", "double", "lstm-head-weights")
DOTS = (
    "plain", "focal-0.5", "focal-1", "focal-2", "focal-5", "sqrt", "weights", "sampler", "class-balanced",
    "focal-2-alpha", "double", "logit-adjusted", "balanced-softmax", "vs", "cosine", "ldam-drw", "lstm-head",
    "lstm-head-weights",
)  # fmt: skip
LABELLED = {"plain", "focal-2", "sqrt", "weights", "double", "balanced-softmax", "cosine", "ldam-drw"}
BIN = 10
NONE = 0.03  # where a logarithmic axis shows classes that are never predicted
PALETTE = 128


def words(remedy: str) -> str:
    return BY_NAME[remedy].words if remedy in BY_NAME else f"{BY_NAME[PLAIN].words}, minus log prior"


def colour(remedies: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=[words(r) for r in remedies], range=[COLOURS[r] for r in remedies])
    legend = alt.Legend(
        orient="top", title=None, direction="horizontal", columns=4, labelLimit=260, symbolType="stroke"
    )
    return alt.Color("training:N", scale=scale, legend=legend)


def counts(results: Results, name: str) -> Chart | None:
    """True and predicted counts, ten classes of neighbouring frequency at a time, for the trainings of the question."""
    rows = []
    for remedy in COUNTED:
        held = next((run["counts"] for run in results.of(name, remedy).values() if run["counts"]), None)
        for kind in ("true", "predicted") if held else ():
            values = np.array(held[kind], float)
            values = np.add.reduceat(values, np.arange(0, len(values), BIN)) / BIN
            rows += [
                {
                    "training": words(remedy),
                    "rank": BIN * place + BIN / 2,
                    "count": max(float(value), 0.03),
                    "kind": kind,
                }
                for place, value in enumerate(values)
            ]
    if not rows:
        return None
    scale = alt.Scale(domain=["true", "predicted"], range=[BAND, UNDER])
    legend = alt.Legend(orient="top", title=None, direction="horizontal")
    rank = alt.X("rank:Q", title="classes, most frequent first", scale=alt.Scale(nice=False))
    count = alt.Y("count:Q", title=f"test rows per class (means of {BIN})", scale=alt.Scale(type="log"),
                  axis=alt.Axis(values=[0.1, 1, 10, 100, 1000], format="~g"))  # fmt: skip
    encoded = drawn_from(rows).encode(x=rank, y=count, color=alt.Color("kind:N", scale=scale, legend=legend))
    line = encoded.mark_line(interpolate="step", strokeWidth=1.8).properties(width=270, height=150)
    order = [words(remedy) for remedy in COUNTED]
    return line.facet(facet=alt.Facet("training:N", sort=order, title=None), columns=3)


def long_run(results: Results, sets: Sequence[str]) -> Chart | None:
    """Tail recall, accuracy and tau at the checkpoints of one training, mean over seeds."""
    figures: dict[str, Callable[[int], Figure]] = {
        "recall of the rarest third (%)": lambda e: at_epoch(e, "recall", "tail"),
        "accuracy, natural test (%)": lambda e: at_epoch(e, "natural", "accuracy"),
        "balanced accuracy (%)": lambda e: at_epoch(e, "balanced", "accuracy"),
        "tau": lambda e: at_epoch(e, "tau"),
    }
    adjusted = {
        "balanced accuracy (%)": ("balanced", "accuracy"),
        "accuracy, natural test (%)": ("natural", "accuracy"),
    }
    rows: list[dict[str, Any]] = []
    for name in sets:
        for label, made in figures.items():
            wanted = [(remedy, remedy, made) for remedy in COLOURS if remedy in BY_NAME]
            if label in adjusted:
                path = adjusted[label]
                extra = "plain, minus log prior"
                wanted.append((extra, PLAIN, lambda e, path=path: at_epoch(e, "minus log prior", *path)))
            for shown, remedy, figure in wanted:
                for epoch in results.epochs(name, remedy):
                    told = results.mean(name, remedy, figure(epoch))
                    if told.known:
                        value = told.mean * (100 if "%" in label else 1)
                        rows.append({"set": name, "figure": label, "training": words(shown), "epoch": epoch,
                                     "value": round(value, 3)})  # fmt: skip
    if not rows:
        return None
    base = drawn_from(rows).encode(
        x=alt.X("epoch:Q", scale=alt.Scale(type="log"), axis=alt.Axis(values=[1, 2, 5, 10, 20, 50, 100], format="d")),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=colour(tuple(COLOURS)),
    )
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22)).properties(width=250, height=135)
    grid = line.facet(row=alt.Row("figure:N", sort=list(figures), title=None, header=alt.Header(labelAngle=-90)),
                      column=alt.Column("set:N", sort=list(sets), title=None))  # fmt: skip
    return grid.resolve_scale(y="independent")


def trade_off(results: Results, sets: Sequence[str]) -> Chart | None:
    """Accuracy on the natural test against balanced accuracy: every training by its largest score, and what
    `evenhand.fit_correction` makes of plain training for either goal."""
    rows = []

    def point(name: str, remedy: str, told: str, kind: str, label: str) -> None:
        x, y = (results.mean(name, remedy, decision(told, test, "accuracy")) for test in ("natural", "balanced"))
        if x.known and y.known:
            rows.append({"set": name, "training": label, "kind": kind, "x": 100 * x.mean, "y": 100 * y.mean})

    for name in sets:
        for remedy in DOTS:
            if BY_NAME[remedy].head == "lstm":  # far from all others: they would squeeze the rest together
                continue
            kind = "focal alone" if remedy.startswith("focal") and "alpha" not in remedy else "other training"
            kind = "plain training" if remedy == PLAIN else kind
            point(name, remedy, "argmax", kind, remedy if remedy in LABELLED else "")
        for goal, label in (("accuracy", "fix: accuracy"), ("balanced-accuracy", "fix: balanced")):
            point(name, PLAIN, f"fix {goal}", "plain training, corrected afterwards", label)
    if not rows:
        return None
    domain = ["plain training", "focal alone", "other training", "plain training, corrected afterwards"]
    shapes = alt.Scale(domain=domain, range=["circle", "square", "circle", "diamond"])
    legend = alt.Legend(orient="top", direction="horizontal", labelLimit=280)
    encoded = drawn_from(rows).encode(
        x=alt.X("x:Q", title="accuracy, natural test (%)", scale=alt.Scale(zero=False, padding=18)),
        y=alt.Y("y:Q", title="balanced accuracy (%)", scale=alt.Scale(zero=False, padding=12)),
        color=alt.Color(
            "kind:N", title=None, scale=alt.Scale(domain=domain, range=[INK, EXPECTED, OVER, UNDER]), legend=legend
        ),
        shape=alt.Shape("kind:N", title=None, scale=shapes),
    )
    points = encoded.mark_point(filled=True, size=55, opacity=0.9)
    labels = encoded.mark_text(align="left", dx=6, dy=-4, fontSize=8).encode(text="training:N")
    layer = alt.layer(points, labels).properties(width=300, height=230)
    grid = layer.facet(facet=alt.Facet("set:N", sort=list(sets), title=None), columns=3)
    return grid.resolve_scale(x="independent", y="independent")


def tilts(results: Results, sets: Sequence[str]) -> Chart | None:
    """tau of every training on every set, with 95 % intervals over seeds; grey lines at 0, 0.5, 1 and 2."""
    rows = []
    for name in sets:
        for remedy in DOTS:
            told = results.mean(name, remedy, final("tau"))
            if told.known:
                half = told.half if np.isfinite(told.half) else 0.0
                rows.append({"set": name, "training": words(remedy), "tau": told.mean, "low": told.mean - half,
                             "high": told.mean + half})  # fmt: skip
    if not rows:
        return None
    y = alt.Y("training:N", sort=[words(r) for r in DOTS], title=None, axis=alt.Axis(labelLimit=300, grid=True))
    clip = alt.Scale(domain=[-1, 2.5], clamp=True)
    base = drawn_from(rows)
    bars = base.mark_rule(color=OVER).encode(x=alt.X("low:Q", scale=clip, title="tau"), x2="high:Q", y=y)
    dots = base.mark_point(filled=True, color=OVER, size=35).encode(x=alt.X("tau:Q", scale=clip, title="tau"), y=y)
    layer = alt.layer(bars, dots).properties(width=165, height=300)
    return layer.facet(column=alt.Column("set:N", sort=list(sets), title=None))


def shrink(path: Path) -> None:
    """A figure of few colours needs no 32 bits per pixel: a tenth of the size, to the eye the same."""
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(PALETTE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, format="png", optimize=True)
    write_bytes_atomically(path, buffer.getvalue())


def draw(results: Results, folder: Path) -> list[Path]:
    """Write every figure that the results can fill; returns the files."""
    sets = results.sets
    long = [name for name in ("stdlib", "avonet", "kanjivg_radical", *sets) if name in sets]
    made = {
        "question-counts": counts(results, "stdlib" if "stdlib" in sets else sets[0]) if sets else None,
        "question-long-run": long_run(results, list(dict.fromkeys(long))[:3]),
        "question-trade-off": trade_off(results, sets),
        "question-tau": tilts(results, sets),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in made.items():
        if chart is not None:
            written.append(folder / f"{name}.png")
            save(chart, written[-1])
            shrink(written[-1])
    return written
