"""`python -m benchmarks question`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import click

from benchmarks.question import charts, data, page, running, store, tables
from benchmarks.question.hindsight import hindsight_table
from benchmarks.question.remedies import BY_NAME, PLAIN
from benchmarks.question.summary import Results
from evenhand.output import write_text_atomically

DEFAULT_SETS = ("stdlib", "avonet", "kanjivg_radical", "clinc150_lt", "names18", "banking77")


def chosen(text: str, known: Iterable[str], what: str) -> list[str]:
    names, possible = [word.strip() for word in text.split(",") if word.strip()], list(known)
    if not names or not set(names) <= set(possible):
        raise click.BadParameter(f"expected {what} among {', '.join(possible)}, got {text!r}; name one or more of them")
    return names


@click.command()
@click.option("--data", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder of the real sets.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results.")
@click.option("--sets", default=",".join(DEFAULT_SETS), show_default=True, help="Which sets, comma-separated.")
@click.option("--remedies", default=",".join(BY_NAME), help="Which remedies, comma-separated; plain always runs.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Networks per remedy and set.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Instead of the set's own number.")
@click.option("--resume", is_flag=True, help="Go on with the results in --out; finished runs are kept.")
@click.option("--train/--no-train", default=True, show_default=True, help="--no-train only draws what is stored.")
@click.option("--docs", type=click.Path(file_okay=False, path_type=Path), default=None,
              help="Folder for the pages, and below it images/ for the figures; --out without it.")  # fmt: skip
@click.option("--longer", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None,
              help="Results of stdlib with more epochs, another --out, for the page of the answer.")  # fmt: skip
@click.option("--race", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="What `racehindsight` printed, for the page of the answer.")  # fmt: skip
def command(
    folder: Path,
    out: Path,
    sets: str,
    remedies: str,
    seeds: int,
    epochs: int | None,
    resume: bool,
    train: bool,
    docs: Path | None,
    longer: Path | None,
    race: Path | None,
) -> None:
    """The founding question, answered with measurements: what each remedy does to counts, tilt and recall.

    \b
    python -m benchmarks question --data DIR --out results
    python -m benchmarks question --data DIR --out results --resume --sets avonet --seeds 2
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = chosen(sets, data.SETS, "sets")
    wanted = [BY_NAME[name] for name in dict.fromkeys([PLAIN, *chosen(remedies, BY_NAME, "remedies")])]
    if train and not resume and out.is_dir() and store.read(out):
        raise click.UsageError(f"{out} holds results already; pass --resume to go on with them, or another --out")
    if train:
        running.run_all(folder, out, sets=names, remedies=wanted, seeds=seeds, epochs=epochs)
    found = store.read(out)
    if not found:
        raise click.UsageError(f"{out} holds no finished runs to draw; leave out --no-train")
    results, place = Results(found), docs or out
    for path in charts.draw(results, place / "images"):
        click.echo(f"wrote {path}")
    write_text_atomically(place / "the-question-tables.md", tables.document(results))
    click.echo(f"wrote {place / 'the-question-tables.md'}")
    if longer is not None and race is not None:
        write_text_atomically(place / "the-question.md", answer(results, longer, race))
        click.echo(f"wrote {place / 'the-question.md'}")
    click.echo("\n".join(hindsight_table(results)))


def answer(results: Results, longer: Path, race: Path) -> str:
    """The page of the answer, all sets and both other results at hand."""
    missing = [name for name in DEFAULT_SETS if name not in results.sets]
    if missing:
        raise click.UsageError(f"the page of the answer needs all sets, but {', '.join(missing)} have no results")
    lines = [json.loads(line) for line in race.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    raced = [line for line in lines if "recommended" in line]
    return page.Page(results, Results(store.read(longer)), raced).filled(page.TEMPLATE.read_text(encoding="utf-8"))
