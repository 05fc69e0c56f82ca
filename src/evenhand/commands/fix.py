"""``evenhand fix``: fit the offsets that serve a goal, or write corrected predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evenhand.commands.inputs import FILE, input_options, single

if TYPE_CHECKING:
    from evenhand.correction import Correction
    from evenhand.files import Predictions

GOALS = ("accuracy", "balanced-accuracy", "counts")

EPILOG = """
\b
Examples:
  evenhand fix val.npz --goal accuracy -o fix.json
  evenhand fix val.npz --goal counts --train-counts counts.csv -o fix.json
  evenhand fix --apply fix.json test.npz -o corrected.npz

PREDICTIONS is an npz, safetensors, Parquet, Arrow or CSV file with target and logits or probs, of rows the model was
not trained on. Exit codes: 0 done, also when the correction is not recommended; 2 unusable input or options.
"""


@click.command(epilog=EPILOG)
@click.argument("predictions", required=False, type=FILE)
@click.option(
    "--goal",
    type=click.Choice(GOALS),
    default="accuracy",
    show_default=True,
    help="As many rows right as possible; every class equally often right; every class as often as it occurs.",
)
@click.option("--apply", "correction", type=FILE, metavar="FIX", help="Write corrected predictions with this file.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="fix.json or fix.npz; with --apply: corrected.npz.")
@click.option("--wanted-counts", type=FILE, metavar="FILE", help="Counts that --goal counts should meet.")
@input_options
def command(
    predictions: Path | None,
    goal: str,
    correction: Path | None,
    output: Path | None,
    wanted_counts: Path | None,
    **given: Any,
) -> None:
    """Find the offsets that put the predictions right, and apply them."""
    from evenhand.commands.audit import check_outputs
    from evenhand.declared import InputError
    from evenhand.files import open_predictions

    if wanted_counts is not None and (goal != "counts" or correction is not None):
        what = f"the goal is {goal}" if correction is None else "--apply takes its goal from the file"
        raise InputError(f"--wanted-counts belongs to --goal counts but {what}; add --goal counts or leave it out")
    path = single(() if predictions is None else (predictions,), given)
    inputs = [predictions, correction, wanted_counts, *given.values()]
    if output is not None:
        check_outputs({"output": output}, [path for path in inputs if isinstance(path, Path)])
    opened = open_predictions(path, **given)
    refuse_labels(opened)
    if correction is not None:
        apply_file(correction, opened, path, output)
    else:
        fit_file(opened, goal, wanted_counts, output)


def refuse_labels(opened: Predictions) -> None:
    """Predicted labels hold nothing to move."""
    from evenhand.declared import InputError

    if opened.kind == "predicted":
        raise InputError(
            f"a correction needs logits or probabilities but {opened.name} holds only predicted labels; save the scores"
        )


def fit_file(opened: Predictions, goal: str, wanted_counts: Path | None, output: Path | None) -> None:
    """Fit on a bounded row sample, print the effect, and write the correction."""
    from evenhand.correction import fit_correction
    from evenhand.correction_rows import MARK, sample_rows
    from evenhand.files import read_vector
    from evenhand.scanning import workers

    if MARK in opened.declared.extra:
        click.echo(f"note: {opened.name} was corrected before; these offsets come on top of that correction", err=True)
    scores, target, rows = sample_rows(opened)
    found = fit_correction(
        scores,
        target,
        goal=goal,
        train_counts=opened.declared.train_counts,
        wanted_counts=None if wanted_counts is None else read_vector(wanted_counts),
        threads=workers(),
        class_names=opened.declared.class_names,
    )
    if output is not None:
        found.save(output)
    click.echo(describe(found, opened.name, rows))
    if output is not None:
        click.echo(f"written: {click.format_filename(output)}")


def describe(found: Correction, name: str, rows: int) -> str:
    """What was fitted and what it brings, as a small table."""
    from evenhand.goals import METRICS

    sampled = "" if found.rows == rows else f" · fitted on {found.rows:,} of them"
    evidence = found.evidence
    tau = f", tau {evidence['tau']:.2f}" if found.model in ("tilt", "biases") else ""
    lines = [
        f"{printable(name)} · {rows:,} rows · {found.classes:,} classes{sampled}",
        f"goal {found.goal} · model {found.model} (scale {found.scale:.2f}{tau}) · {found.folds} folds",
        "",
        f"  {'':<20}{'before':>8}{'after':>8}   95 % interval",
    ]
    for key in METRICS:
        low, high = evidence["after_interval"][key]
        before, after = evidence["before"][key], evidence["after"][key]
        lines.append(f"  {key.replace('_', ' '):<20}{before:>8.3f}{after:>8.3f}   {low:.3f} to {high:.3f}")
    return "\n".join([*lines, "", found.why])


def printable(text: str) -> str:
    """File names are untrusted: control characters could rewrite the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def apply_file(correction: Path, opened: Predictions, path: Path | None, output: Path | None) -> None:
    """Write the predictions with corrected scores."""
    from evenhand.correction import Correction
    from evenhand.correction_rows import write_corrected

    if output is None:
        raise click.UsageError("--apply needs -o corrected.npz.")
    found = Correction.load(correction, classes=opened.classes, class_names=opened.declared.class_names)
    if not found.recommended:
        click.echo(f"note: this correction is {found.why}", err=True)
    rows = write_corrected(found, opened, path, output)
    click.echo(f"{rows:,} rows corrected for {found.goal}\nwritten: {click.format_filename(output)}")
