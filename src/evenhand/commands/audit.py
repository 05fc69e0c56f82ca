"""``evenhand audit``: predictions in, verdict out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evenhand.commands.inputs import FILE, added_tallies, are_tallies, input_options, progress_bar, single

if TYPE_CHECKING:
    from evenhand.auditing import Audit

GOALS = ("accuracy", "balanced-accuracy", "macro-f1", "g-mean", "worst-group", "counts")  # that need nothing stated

EPILOG = """
\b
Examples:
  evenhand audit val.npz
  evenhand audit val.npz --train-counts counts.csv --class-weight weights.npy
  evenhand audit --logits Z.npy --target Y.npy --html report.html
  evenhand audit labels.parquet --json - | jq .findings[0].cause
  evenhand audit val.npz --fail-on cause=double-correction --fail-on "tilt>1.2"
  evenhand audit part-*.tally.npz

PREDICTIONS is an npz, safetensors, Parquet, Arrow or CSV file with target and logits, probs or predicted; or
tallies written by `evenhand tally`. Exit codes: 0 done, 1 a --fail-on rule is met, 2 unusable input or options.
"""


@click.command(epilog=EPILOG)
@click.argument("predictions", nargs=-1, type=FILE)
@input_options
@click.option(
    "--train", type=FILE, metavar="FILE", help="Predictions on training rows, to find overfitted rare classes."
)
@click.option("--goal", type=click.Choice(GOALS), default="accuracy", show_default=True, help="What the fix is for.")
@click.option("--html", type=FILE, metavar="FILE", help="Write the report as one HTML page.")
@click.option(
    "--json", "json_", type=FILE, metavar="FILE|-", help="Write the audit as JSON; - prints it and nothing else."
)
@click.option("--markdown", type=FILE, metavar="FILE", help="Write the verdict as Markdown.")
@click.option("--plot", type=FILE, metavar="FILE.png|svg", help="Draw the figures.")
@click.option(
    "--fail-on", multiple=True, metavar="RULE", help="Exit 1 on: any, cause=ID, or a comparison like tilt>1.2."
)
@click.option("--quiet", "-q", is_flag=True, help="No summary on the terminal.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    predictions: tuple[Path, ...],
    goal: str,
    html: Path | None,
    json_: Path | None,
    markdown: Path | None,
    plot: Path | None,
    fail_on: tuple[str, ...],
    quiet: bool,
    **given: Any,
) -> None:
    """Find out why predicted class counts differ from the true ones."""
    from evenhand.commands.gates import parse_rule

    rules = [parse_rule(text) for text in fail_on]
    to_stdout = json_ is not None and str(json_) == "-"
    files = {"html": html, "json": None if to_stdout else json_, "markdown": markdown, "plot": plot}
    outputs = {kind: path for kind, path in files.items() if path is not None}
    inputs = [*predictions, *(value for value in given.values() if isinstance(value, Path))]
    check_outputs(outputs, inputs)
    audit = audit_inputs(predictions, given, goal)
    met = [rule.text for rule in rules if rule.met(audit)]
    write_outputs(audit, outputs)
    if to_stdout:
        from evenhand.report import to_json

        click.echo(to_json(audit))
    elif not quiet:
        show(audit, outputs)
    for text in met:
        click.echo(f"--fail-on rule met: {text}", err=True)
    ctx.exit(1 if met else 0)


def check_outputs(outputs: dict[str, Path], inputs: list[Path]) -> None:
    """Refuse, before any work, outputs that cannot be written or would destroy an input or each other."""
    from evenhand.declared import InputError

    places = [path.resolve() for path in outputs.values()]
    if len(set(places)) < len(places):
        raise InputError("two outputs were given the same file name; give each its own")
    for place in places:
        if place in {path.resolve() for path in inputs}:
            raise InputError(f"{place.name} is an input and would be overwritten; choose another output name")
        if place.is_dir():
            raise InputError(f"{place.name} is a folder, expected a file to write; give a file name in it")
        if not place.parent.is_dir():
            raise InputError(f"the folder {place.parent} for {place.name} does not exist; create it first")
        if not os.access(place.parent, os.W_OK):
            raise InputError(f"the folder {place.parent} for {place.name} cannot be written to; choose another")
    plot = outputs.get("plot")
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"--plot expects a file ending in .png or .svg but got {plot.name!r}; change the ending")


def audit_inputs(paths: tuple[Path, ...], given: dict[str, Any], goal: str) -> Audit:
    """Open what was named and audit it, with a progress bar where the wait is long and someone watches."""
    from evenhand.auditing import audit_predictions, audit_tally
    from evenhand.files import open_predictions

    if are_tallies(paths):
        name = paths[0].name if len(paths) == 1 else f"{len(paths)} tallies"
        return audit_tally(added_tallies(paths, given), name=name, goal=goal)
    opened = open_predictions(single(paths, given), **given)
    with progress_bar(opened) as progress:
        return audit_predictions(opened, goal=goal, progress=progress)


def write_outputs(audit: Audit, outputs: dict[str, Path]) -> None:
    """Write every file asked for: all of them, or none."""
    from evenhand import report
    from evenhand.output import save_all

    writers: dict[str, Callable[[Path], object]] = {
        "html": lambda path: path.write_text(report.to_html(audit), encoding="utf-8", errors="backslashreplace"),
        "json": lambda path: path.write_text(report.to_json(audit) + "\n", encoding="utf-8"),
        "markdown": lambda path: path.write_text(
            report.to_markdown(audit), encoding="utf-8", errors="backslashreplace"
        ),
        "plot": lambda path: report.figure(audit, path),
    }
    save_all({path: writers[kind] for kind, path in outputs.items()})


def show(audit: Audit, outputs: dict[str, Path]) -> None:
    """The verdict on the terminal, and where the rest is."""
    from evenhand.report import print_audit

    print_audit(audit)
    if "html" in outputs:
        click.echo(f"\nFigures and all {audit.classes:,} classes: {click.format_filename(outputs['html'])}")
