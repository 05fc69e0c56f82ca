"""``evenhand race``: train remedies side by side on a table, and tell which one to take."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evenhand.training.racing.result import RaceResult

FILE = click.Path(path_type=Path)
GOALS = ("balanced-accuracy", "accuracy", "macro-f1", "g-mean", "worst-group", "counts")
GRACE = 3.0  # seconds that the first of several processes has to tell what is wrong
NEEDED = {"torch": "torch", "optuna": "optuna", "safetensors": "safetensors", "sklearn": "scikit-learn"}

EPILOG = """
\b
Examples:
  evenhand race birds.parquet --label family --ignore species
  evenhand race titles.csv --label code --text title --budget 10m --html race.html
  evenhand race train.parquet --valid valid.parquet --label y --goal accuracy --seeds 5
  evenhand race rows.npz --label y --remedies "plain,sampler,focal:gamma=1" --model lstm
  evenhand race train.parquet --label y --out folder      (again, after a kill: it goes on)
  torchrun --nproc-per-node 4 --no-python evenhand race train.parquet --label y --out folder

FILE is a Parquet, CSV, Arrow or npz file with one row per example. Every column that is not named otherwise is a
feature: numbers, lists of numbers (sequences); texts need --text. Exit codes: 0 done, whatever the answer; 2 unusable
input or options.
"""


class _ListsRemedies(click.Command):
    """Lists the remedies below the options, reading their table only when help is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of remedies."""
        with contextlib.suppress(ImportError):
            from evenhand.training.remedies import REMEDIES

            with formatter.section("Remedies"):
                formatter.write_dl([(name, remedy.meaning) for name, remedy in REMEDIES.items()])
        super().format_epilog(ctx, formatter)


@contextlib.contextmanager
def _in_turn() -> Iterator[None]:
    """What all processes of a race find wrong is told once: the first tells it, and torchrun ends those that wait."""
    from evenhand.training.racing.processes import Process

    try:
        yield
    except Exception:
        if not Process.this().leads:
            time.sleep(GRACE)
        raise


@click.command(cls=_ListsRemedies, name="race", epilog=EPILOG)
@click.argument("file", type=FILE)
@click.option("--label", required=True, metavar="COL", help="Column of the class.")
@click.option("--text", multiple=True, metavar="COL", help="Column of text, as hashed n-grams; several times.")
@click.option("--category", multiple=True, metavar="COL", help="Column of a few names, one input each.")
@click.option("--ignore", multiple=True, metavar="COL", help="Column that is no feature.")
@click.option("--group", metavar="COL", help="Rows with the same value stay on one side of every split.")
@click.option("--split", metavar="COL", help="Column that tells train from valid rows.")
@click.option("--valid", type=FILE, metavar="FILE", help="Valid rows. [default: 30 % of every class of FILE]")
@click.option("--impute", is_flag=True, help="Missing numbers become the median of the training rows.")
@click.option("--goal", type=click.Choice(GOALS), default=GOALS[0], show_default=True, help="What to race for.")
@click.option("--remedies", metavar="LIST", help="Names with options, with commas. [default: a good dozen]")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings per remedy.")
@click.option(
    "--budget", default="20epochs", show_default=True, metavar="AMOUNT",
    help="20epochs or 2000steps for every training; 5m or 1h for all together.",
)  # fmt: skip
@click.option("--model", type=click.Choice(["mlp", "linear", "lstm"]), default="mlp", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=2), default=128, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), default=3e-3, show_default=True)
@click.option(
    "--out", "--resume", "folder", type=FILE, metavar="DIR",
    help="Keep finished trainings here; a race that was killed goes on, several processes share one.",
)  # fmt: skip
@click.option("--html", type=FILE, metavar="FILE", help="Write the report.")
@click.option("--json", "json_path", type=click.Path(), metavar="FILE|-", help="Write everything as JSON.")
@_in_turn()
def command(
    file: Path,
    label: str,
    goal: str,
    remedies: str | None,
    seeds: int,
    budget: str,
    model: str,
    batch_size: int,
    learning_rate: float,
    folder: Path | None,
    valid: Path | None,
    html: Path | None,
    json_path: str | None,
    **columns: Any,
) -> None:
    """Train remedies for unevenly frequent classes side by side on your data, and tell which one to take.

    Plain training always takes part, and every model competes with and without its post-hoc correction. One half of the
    valid rows chooses, the other half judges.
    """
    from evenhand.training.racing.processes import Process

    process = Process.this()
    require_extra()
    process.require_folder(folder, "--out DIR")
    outputs = {name: Path(path) for name, path in (("html", html), ("json", json_path)) if path and path != "-"}
    _check(outputs if process.leads else {}, file, valid, folder)
    from evenhand.commands.race_progress import watched
    from evenhand.demo.training import one_thread
    from evenhand.training.encoding import load
    from evenhand.training.fitting import Recipe
    from evenhand.training.models import built_in
    from evenhand.training.racing.api import race
    from evenhand.training.racing.plan import make_plan
    from evenhand.training.tables import Columns

    make_plan(remedies, seeds=seeds, goal=goal, budget=budget)  # a misspelt remedy shows before a long table is read
    data = load(file, Columns(label, **columns), valid=valid)
    with watched(process.leads) as watcher, one_thread(), _told_of(folder, process.leads):
        result = race(
            built_in(model, data.train, len(data.class_names)),
            data.train,
            data.valid,
            remedies=remedies,
            seeds=seeds,
            budget=budget,
            goal=goal,
            group=data.group,
            recipe=Recipe(batch_size=batch_size, learning_rate=learning_rate),
            folder=folder,
            name=file.name,
            notes=data.notes,
            watcher=watcher,
        )
    if process.leads:
        _write(result, html, json_path)


def _write(result: RaceResult, html: Path | None, json_path: str | None) -> None:
    if html is not None:
        from evenhand.output import write_text_atomically

        write_text_atomically(html, result.html())
    if json_path != "-":
        click.echo(result.to_text(_width()))
    if json_path is not None:
        from evenhand.commands.weights import write_json

        write_json(json_path, result.to_dict())
    if html is not None:
        click.echo(f"wrote {click.format_filename(html)}", err=True)


def _width() -> int | None:
    """Columns of the terminal that stdout is, None where it is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def require_extra() -> None:
    """Say in a sentence which extra is missing.

    Raises:
        InputError: a package that the race needs is not installed.
    """
    from importlib.util import find_spec

    from evenhand.declared import InputError

    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise InputError(
            f"the race needs {' and '.join(missing)}, not installed here; pip install 'evenhand[training]'"
        )


def _check(outputs: dict[str, Path], file: Path, valid: Path | None, folder: Path | None) -> None:
    from evenhand.commands.audit import check_outputs
    from evenhand.declared import InputError

    check_outputs(outputs, [path for path in (file, valid) if path is not None])
    if valid is not None and valid.resolve() == file.resolve():
        raise InputError(
            f"--valid names the training rows, {file.name}; give other rows, or leave it out to hold some out"
        )
    if folder is None:
        return
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise InputError(f"--out names a folder but {place} is a file; choose another name")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {folder} cannot be written: no permission in {place}; choose another folder")


@contextlib.contextmanager
def _told_of(folder: Path | None, leads: bool) -> Iterator[None]:
    """What the folder refuses while the race goes on, and what of it is left after Ctrl-C, with what to do about it."""
    from evenhand.declared import InputError

    try:
        yield
    except KeyboardInterrupt as stopped:
        click.echo(err=True)  # the terminal has written ^C where the cursor was
        raise click.Abort(_left(folder) if leads else "") from stopped
    except BrokenPipeError:
        raise
    except OSError as error:
        if folder is None:
            raise
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise InputError(
            f"the race cannot be kept in {folder}: {reason}; what was finished is not lost, put that right and give "
            "the same command again"
        ) from error


def _left(folder: Path | None) -> str:
    """What Ctrl-C leaves of a race."""
    if folder is None:
        return "interrupted; the trainings that were finished are lost, and --out DIR would have kept them"
    return (
        f"interrupted; finished trainings are kept in {folder}, and the one under way as it was at its last quarter or "
        "a few minutes ago: the same command goes on"
    )
