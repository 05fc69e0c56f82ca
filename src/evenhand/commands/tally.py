"""``evenhand tally``: count one part of the predictions, so that parts on many machines can be audited together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evenhand.commands.inputs import FILE, TALLY_ENDING, input_options, progress_bar, single

EPILOG = """
\b
Examples:
  evenhand tally part-0.npz -o part-0.tally.npz
  evenhand tally part-1.npz -o part-1.tally.npz --row-offset 500000
  evenhand audit part-0.tally.npz part-1.tally.npz

The sum of the tallies gives the same audit as all rows in one file, however they were split, as long as every row
has its own id: give --row-offset the number of rows in the parts before, or store row_id in the files.
"""


@click.command(epilog=EPILOG)
@click.argument("predictions", nargs=-1, type=FILE)
@click.option(
    "-o", "--output", type=FILE, required=True, metavar=f"FILE{TALLY_ENDING}", help="Where to write the tally."
)
@click.option(
    "--row-offset", type=click.IntRange(min=0), default=0, metavar="INT", help="Added to the ids of the rows."
)
@input_options
def command(predictions: tuple[Path, ...], output: Path, row_offset: int, **given: Any) -> None:
    """Count one part of the predictions, to audit all parts together."""
    from evenhand.declared import InputError
    from evenhand.files import open_predictions
    from evenhand.files.blocks import shifted
    from evenhand.output import save_atomically
    from evenhand.scanning import tally_predictions

    if not output.name.endswith(TALLY_ENDING):
        raise InputError(
            f"the tally should be named *{TALLY_ENDING} but the name is {output.name!r}; change the ending"
        )
    opened = shifted(open_predictions(single(predictions, given), **given), row_offset)
    with progress_bar(opened) as progress:
        tally = tally_predictions(opened, progress=progress)
    save_atomically(output, tally.save)
    click.echo(f"{tally.rows:,} rows of {tally.classes:,} classes counted: {click.format_filename(output)}", err=True)
