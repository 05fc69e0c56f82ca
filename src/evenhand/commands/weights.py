"""``evenhand weights``: class weights from a file of counts or labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evenhand.counts import ClassCounts
    from evenhand.declared import Floats

EPILOG = """
\b
Examples:
  evenhand weights counts.csv
  evenhand weights counts.npy --rule capped --option ratio=20 -o weights.npy
  evenhand weights train_labels.npy --labels --classes 500 --absent largest
  evenhand weights --list

\b
In training:
  weight = torch.tensor(numpy.load("weights.npy"), dtype=torch.float32)
  loss = torch.nn.CrossEntropyLoss(weight=weight)
"""

WRITABLE = (".npy", ".csv", ".txt", ".json")


def counts_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that tell how the file of counts or labels is to be read."""
    for option in (
        click.option("--class-names", type=click.Path(), help="File with one name per class, in output order."),
        click.option("--ignore-index", type=int, help="Label that does not count, for instance -100 (with --labels)."),
        click.option("--classes", type=click.IntRange(2), help="Number of classes K (with --labels)."),
        click.option("--labels", is_flag=True, help="The file holds one label per row, not one count per class."),
    ):
        command = option(command)
    return command


def read_counts(
    path: str, *, labels: bool, classes: int | None, ignore_index: int | None, class_names: str | None
) -> ClassCounts:
    """Counts from a file of counts, or of labels when `labels` is set.

    Raises:
        InputError: the file does not hold that. OSError: it cannot be read.
    """
    from evenhand.counts import ClassCounts, class_counts
    from evenhand.declared import InputError
    from evenhand.files import read_vector

    names = None if class_names is None else [str(name) for name in read_vector(class_names, text=True)]
    values = read_vector(path)
    try:
        if labels:
            return class_counts(values, classes=classes, ignore_index=ignore_index, names=names)
        if classes not in (None, values.size) or ignore_index is not None:
            raise InputError("Expected --classes and --ignore-index together with --labels; add it or leave them out.")
        table = ClassCounts.from_counts(values, names=names)
    except InputError as error:
        raise InputError(f"{path}: {error}{'' if labels else label_hint(values)}") from error
    if label_hint(values):
        click.echo(f"note: {path}:{label_hint(values)}", err=True)
    return table


def label_hint(values: Any) -> str:
    """What to say when counts look like one label per row: text, or many numbers that repeat all of 0 to K - 1."""
    import numpy as np

    repeats = values.dtype.kind in "SUT"
    if not repeats and np.isfinite(values).all() and (values == np.floor(values)).all():
        distinct = np.unique(values[values >= 0])
        repeats = values.size > 4 * distinct.size and np.array_equal(distinct, np.arange(distinct.size))
    return " This looks like one label per row; add --labels if it is." if repeats else ""


@click.command(epilog=EPILOG)
@click.argument("counts", type=click.Path(), required=False)
@counts_options
@click.option("--rule", default="balanced", show_default=True, help="How weights follow from counts; see --list.")
@click.option("--option", "-p", "pairs", multiple=True, metavar="NAME=NUMBER", help="An option of the rule.")
@click.option(
    "--absent",
    default="error",
    show_default=True,
    type=click.Choice(["error", "zero", "one", "largest", "smooth"]),
    help="What classes without rows get.",
)
@click.option(
    "--normalise", type=click.Choice(["mean", "rows"]), help="Make the classes', or the rows', mean weight 1."
)
@click.option("-o", "--output", type=click.Path(), help=f"Write the weights: {', '.join(WRITABLE)}.")
@click.option("--json", "json_path", type=click.Path(), metavar="FILE|-", help="Write weights and counts as JSON.")
@click.option("--list", "listing", is_flag=True, help="List the rules and their formulas.")
def command(
    counts: str | None,
    rule: str,
    pairs: tuple[str, ...],
    absent: str,
    normalise: str | None,
    output: str | None,
    json_path: str | None,
    listing: bool,
    **reading: Any,
) -> None:
    """Compute class weights from COUNTS, a file with one count per class (npy, npz, csv, txt, json, parquet)."""
    from evenhand.weights import available_rules, class_weights

    if listing:
        for name, formula in available_rules().items():
            click.echo(f"{name:<18}{formula}")
        return
    if counts is None:
        raise click.UsageError("Expected a file with counts or labels; see evenhand weights --help.")
    table = read_counts(counts, **reading)
    weights = class_weights(table, rule, absent=absent, normalise=normalise, **_options(pairs))
    if output is not None:
        _save(output, weights)
        click.echo(f"wrote {output}", err=True)
    if json_path is not None:
        write_json(json_path, _as_dict(table, rule, weights))
    if json_path != "-":
        click.echo(_text(table, rule, weights))


def write_json(path: str, content: dict[str, Any]) -> None:
    """To a file, whole or not at all, or to stdout for ``-``."""
    import json

    from evenhand.output import write_text_atomically

    text = json.dumps(content, indent=1, allow_nan=False)
    if path == "-":
        click.echo(text)
    else:
        write_text_atomically(path, text + "\n")
        click.echo(f"wrote {path}", err=True)


def _options(pairs: tuple[str, ...]) -> dict[str, float]:
    from evenhand.declared import InputError

    options = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            options[name.strip()] = float(value)
        except ValueError as error:
            raise InputError(f"Expected --option NAME=NUMBER, got {pair!r}; write for instance ratio=20.") from error
    return options


def _save(path: str, weights: Floats) -> None:
    import io
    import json
    from pathlib import Path

    import numpy as np

    from evenhand.declared import InputError
    from evenhand.output import write_bytes_atomically, write_text_atomically

    suffix = Path(path).suffix.lower()
    lines = "\n".join(map(repr, weights.tolist())) + "\n"
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, weights, allow_pickle=False)
        write_bytes_atomically(path, buffer.getvalue())
    elif suffix == ".json":
        write_text_atomically(path, json.dumps(weights.tolist()) + "\n")
    elif suffix in (".csv", ".txt"):
        write_text_atomically(path, lines if suffix == ".txt" else "weight\n" + lines)
    else:
        raise InputError(f"Expected an output file ending in {', '.join(WRITABLE)}, got {path!r}; choose one of them.")


def _as_dict(table: ClassCounts, rule: str, weights: Floats) -> dict[str, Any]:
    return {
        "schema": "evenhand.weights/1",
        "rule": rule,
        "classes": table.classes,
        "rows": table.total,
        "counts": table.counts.tolist(),
        "names": None if table.names is None else list(table.names),
        "weights": weights.tolist(),
    }


def _text(table: ClassCounts, rule: str, weights: Floats) -> str:
    import numpy as np

    low, high = weights[weights > 0].min(), weights.max()
    spread = f"largest class {table.imbalance_ratio:,.0f} times the smallest"
    lines = [
        f"{table.classes:,} classes · {table.total:,} rows · {spread}",
        f"{rule}: weights from {low:.4g} to {high:.4g}, ratio {high / low:,.1f}",
        "",
        f"{'class':<28}{'rows':>14}{'weight':>14}",
    ]
    order = np.argsort(-table.counts, kind="stable")
    shown = order if order.size <= 12 else np.concatenate([order[:6], order[-6:]])
    for place, k in enumerate(shown):
        if order.size > 12 and place == 6:
            lines.append(f"... {order.size - 12:,} more classes")
        name = str(k) if table.names is None else "".join(c if c.isprintable() else "?" for c in table.names[k])[:24]
        lines.append(f"{name:<28}{table.counts[k]:>14,}{weights[k]:>14.6g}")
    return "\n".join([*lines, "", "What these weights will do to the predicted counts: evenhand forecast"])
