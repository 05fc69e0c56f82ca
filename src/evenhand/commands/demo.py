"""``evenhand demo``: see a fault happen on real data, and the audit name it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


class _ListsFaults(click.Command):
    """Lists the faults below the options, reading their table only when help is asked for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of faults."""
        from evenhand.demo.planting import FAULTS

        with formatter.section("Faults"):
            formatter.write_dl([(name, fault.description) for name, fault in FAULTS.items()])
        super().format_epilog(ctx, formatter)


@click.command(cls=_ListsFaults, name="demo", epilog="Nothing is downloaded. A trained network is kept in the cache.")
@click.option(
    "--fault", default="class-weights", show_default=True, metavar="ID", help="What to plant; none for nothing."
)
@click.option("--head", type=click.Choice(["linear", "lstm"]), help="lstm uses the LSTM's state directly as logits.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder or file stem for the results. [default: evenhand-demo in this folder]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides everything left to chance."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training rows. [default: 5]")
@click.option("--rows", type=click.IntRange(min=1), help="Training rows. [default: 60000]")
@click.option("--fresh", is_flag=True, help="Ignore the cache: read the library and train again.")
@click.option("--no-html", is_flag=True, help="Write no HTML report.")
def command(
    fault: str,
    head: Literal["linear", "lstm"] | None,
    output: Path,
    seed: int,
    epochs: int | None,
    rows: int | None,
    *,
    fresh: bool,
    no_html: bool,
) -> None:
    """Train a 500-class network on Python's own source, audit it and print the verdict.

    The task: which name comes next, given the 8 tokens before it? The network has an embedding, three fully connected
    layers, an LSTM and a linear head. By default it is trained with balanced class weights.
    """
    from evenhand.demo import run_demo

    run_demo(fault, output=output, html=not no_html, head=head, seed=seed, epochs=epochs, rows=rows, fresh=fresh)
