"""``evenhand forecast``: what weights, a sampler, smoothing and batches will do to the predicted counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from evenhand.commands.weights import counts_options, read_counts, write_json

if TYPE_CHECKING:
    from evenhand.declared import Floats

EPILOG = """
\b
Examples:
  evenhand forecast counts.csv --class-weight balanced
  evenhand forecast counts.csv --class-weight weights.npy --sampler balanced
  evenhand forecast counts.npy --class-weight sqrt --batch-size 32 --label-smoothing 0.1
  evenhand forecast train_labels.npy --labels --class-weight balanced --accuracy 0.4 --json -
"""


@click.command(epilog=EPILOG)
@click.argument("counts", type=click.Path())
@counts_options
@click.option("--class-weight", metavar="RULE|FILE", help="A rule of `evenhand weights --list`, or a file of weights.")
@click.option("--sampler", metavar="balanced|sqrt|FILE", help="How rows are drawn, or a file with a rate per class.")
@click.option("--label-smoothing", type=float, default=0.0, show_default=True, help="Smoothing mass e in [0, 1).")
@click.option("--batch-size", type=int, help="Rows per loss denominator: per device and micro-batch.")
@click.option("--reduction", type=click.Choice(["mean", "sum", "none"]), default="mean", show_default=True)
@click.option("--accuracy", type=float, help="Accuracy you expect without weights; sharpens the expected counts.")
@click.option("--json", "json_path", type=click.Path(), metavar="FILE|-", help="Write everything as JSON.")
def command(
    counts: str,
    class_weight: str | None,
    sampler: str | None,
    json_path: str | None,
    label_smoothing: float,
    batch_size: int | None,
    reduction: str,
    accuracy: float | None,
    **reading: Any,
) -> None:
    """Tell before training what a plan will do to the predicted counts.

    COUNTS is a file with one count per class (npy, npz, csv, txt, json, parquet), or with --labels one label per row.
    """
    from evenhand.forecasting import forecast
    from evenhand.weights import available_rules

    result = forecast(
        read_counts(counts, **reading),
        class_weight=_rule_or_file(class_weight, tuple(available_rules())),
        sampler_rate=_rule_or_file(sampler, ("balanced", "sqrt")),
        label_smoothing=label_smoothing,
        batch_size=batch_size,
        reduction=reduction,
        accuracy=accuracy,
    )
    if json_path is not None:
        write_json(json_path, result.to_dict())
    if json_path != "-":
        click.echo(result.text())


def _rule_or_file(value: str | None, rules: tuple[str, ...]) -> str | Floats | None:
    """A rule's name as it is, else the numbers in the file of that name."""
    from pathlib import Path

    from evenhand.declared import InputError
    from evenhand.files import read_vector

    if value is None or value in rules:
        return value
    if not Path(value).suffix and not Path(value).exists():
        raise InputError(f"Expected one of {', '.join(rules)} or a file, got {value!r}; choose one of them.")
    numbers: Floats = read_vector(value)
    return numbers
