"""The options that say where predictions are and how the model was trained; shared by the commands that read them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evenhand.files import Predictions
    from evenhand.tally import Tally

FILE = click.Path(path_type=Path)
TALLY_ENDING = ".tally.npz"
PROGRESS_CELLS = 50_000_000

OPTIONS = (
    click.option("--logits", type=FILE, metavar="Z.npy", help="Logits (N, K), memory-mapped."),
    click.option("--probs", type=FILE, metavar="P.npy", help="Probabilities (N, K), memory-mapped."),
    click.option("--predicted", type=FILE, metavar="C.npy", help="Predicted classes (N,)."),
    click.option("--target", type=FILE, metavar="Y.npy", help="True classes (N,)."),
    click.option("--train-counts", type=FILE, metavar="FILE", help="Training rows per class, in class order."),
    click.option(
        "--class-weight",
        type=FILE,
        metavar="RULE|FILE",
        help="The weights the loss was given, in class order: a file, or a rule such as balanced.",
    ),
    click.option(
        "--sampler", metavar="balanced|sqrt|FILE", help="How training rows were drawn: a rule or a file of rates."
    ),
    click.option("--class-names", type=FILE, metavar="FILE", help="One name per class, in class order."),
    click.option("--ignore-index", type=int, metavar="INT", help="Leave out rows with this target."),
)
OF_TRAINING = ("train_counts", "class_weight", "sampler", "class_names")


def input_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `OPTIONS` to a command; their values are the keyword arguments of `open_predictions`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def single(paths: tuple[Path, ...], given: Mapping[str, Any]) -> Path | None:
    """The one file of predictions, or None when the arrays are given one per file."""
    if len(paths) > 1:
        raise click.UsageError("Several inputs can only be added when all are tallies written by `evenhand tally`.")
    if not paths and all(given[key] is None for key in ("logits", "probs", "predicted")):
        raise click.UsageError("Name a file of predictions, or pass --logits Z.npy --target Y.npy.")
    if are_tallies(paths):
        from evenhand.declared import InputError

        raise InputError(
            f"{paths[0].name} is a tally, which holds counts but no rows; name the predictions that it was counted from"
        )
    return paths[0] if paths else None


def are_tallies(paths: tuple[Path, ...]) -> bool:
    """Whether every path names a tally."""
    return bool(paths) and all(path.name.endswith(TALLY_ENDING) for path in paths)


def added_tallies(paths: tuple[Path, ...], given: Mapping[str, Any]) -> Tally:
    """The sum of tallies, with what the options say about the training in place of what the parts said."""
    import dataclasses

    from evenhand.declared import InputError
    from evenhand.files.declaring import declare
    from evenhand.files.fields import parse_fields
    from evenhand.tally import Tally, combine

    places = [path.resolve() for path in paths]
    if len(set(places)) < len(places):
        raise InputError("a tally was named twice and its rows would be counted twice; name each tally once")
    useless = [name for name, value in given.items() if value is not None and name not in OF_TRAINING]
    if useless:
        raise InputError(f"--{useless[0].replace('_', '-')} cannot change a tally; pass it to `evenhand tally` instead")
    total = combine([Tally.load(path) for path in paths])
    said = {name: given[name] for name in OF_TRAINING if given.get(name) is not None}
    fields = parse_fields(said, total.declared.train_counts)
    if not fields:
        return total
    fields.setdefault("train_counts", total.declared.train_counts)
    declared = declare({name: value for name, value in fields.items() if value is not None}, {}, total.classes)
    renamed = {"sampler": "sampler_rate"}
    changes = {renamed.get(name, name): getattr(declared, renamed.get(name, name)) for name in fields}
    return dataclasses.replace(total, declared=dataclasses.replace(total.declared, **changes))


@contextlib.contextmanager
def progress_bar(predictions: Predictions) -> Iterator[Callable[[int], None] | None]:
    """A function to tell the rows done, drawn on stderr; None for short inputs and where no terminal is watching."""
    rows = predictions.rows or predictions.positions
    if not sys.stderr.isatty() or (rows is not None and rows * predictions.classes < PROGRESS_CELLS):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading predictions", total=rows)
        yield lambda done: bar.advance(task, done)
