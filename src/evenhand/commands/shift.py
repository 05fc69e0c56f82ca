"""``evenhand shift``: have the class frequencies of new, unlabelled rows moved, and what corrects for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evenhand.commands.inputs import FILE

if TYPE_CHECKING:
    from evenhand.files import Predictions
    from evenhand.shift import PriorEstimate

EPILOG = """
\b
Examples:
  evenhand shift val.npz new.npz
  evenhand shift val.npz new.npz -o fix.json
  evenhand fix --apply fix.json new.npz -o corrected.npz
  evenhand shift val.npz new.npz --json - --alpha 0.01

TRAINED holds target and logits or probs of rows that the model was not trained on; NEW needs no target, and any that is
there is not read. Exit codes: 0 done, whatever the answer; 2 unusable input or options.
"""
NEW_CELLS = 100_000_000  # scores of the new rows to estimate on: 400 MB


@click.command(epilog=EPILOG)
@click.argument("trained", type=FILE)
@click.argument("new", type=FILE)
@click.option("--json", "json_", type=FILE, metavar="FILE|-", help="The estimate as JSON; - for stdout.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="fix.json or fix.npz: offsets for the new frequencies.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Level of the test, of the intervals (1 - alpha) and of the false discovery rate.",
)
@click.option("--train-counts", type=FILE, metavar="FILE", help="Training rows per class, in class order.")
@click.option("--class-names", type=FILE, metavar="FILE", help="One name per class, in class order.")
@click.option("--top", type=click.IntRange(0), default=10, show_default=True, help="Classes to list.")
def command(
    trained: Path,
    new: Path,
    json_: Path | None,
    output: Path | None,
    alpha: float,
    train_counts: Path | None,
    class_names: Path | None,
    top: int,
) -> None:
    """Tell whether the class frequencies of new, unlabelled rows have moved."""
    from evenhand.commands.audit import check_outputs
    from evenhand.commands.fix import refuse_labels
    from evenhand.files import open_predictions
    from evenhand.shift.unlabelled import open_unlabelled

    to_stdout = json_ is not None and str(json_) == "-"
    named = {"json": None if to_stdout else json_, "output": output}
    outputs = {kind: path for kind, path in named.items() if path is not None}
    check_outputs(outputs, [path for path in (trained, new, train_counts, class_names) if path is not None])
    labelled = open_predictions(trained, train_counts=train_counts, class_names=class_names)
    refuse_labels(labelled)
    unlabelled = open_unlabelled(new)
    check_same_model(labelled, unlabelled)
    found, seen = estimate(labelled, unlabelled, alpha)
    names = labelled.declared.class_names
    write(found, names, outputs)
    if to_stdout:
        click.echo(as_json(found, names))
        return
    click.echo(describe(found, names, f"{new.name}", f"{trained.name}", seen, top))
    click.echo("\n".join(advice(found, trained, new, output)))


def check_same_model(labelled: Predictions, unlabelled: Predictions) -> None:
    """Refuse another number of classes, or other class names where both files have names."""
    from evenhand.declared import InputError

    if labelled.classes != unlabelled.classes:
        raise InputError(
            f"{labelled.name} has {labelled.classes} classes but {unlabelled.name} has {unlabelled.classes}; "
            "use predictions of one model"
        )
    old, new = labelled.declared.class_names, unlabelled.declared.class_names
    if old is not None and new is not None and old != new:
        first = next(c for c in range(len(old)) if old[c] != new[c])
        raise InputError(
            f"class {first} is named {old[first][:40]!r} in {labelled.name} but {new[first][:40]!r} in "
            f"{unlabelled.name}; use predictions of one model with classes in one order"
        )


def estimate(labelled: Predictions, unlabelled: Predictions, alpha: float) -> tuple[PriorEstimate, int]:
    """Calibrate on labelled rows, estimate on new ones, each on a bounded sample; and how many new rows there are."""
    from evenhand.correction.predictions import sample_rows
    from evenhand.scanning import workers
    from evenhand.shift import estimate_prior, labelled_reference

    scores, target, _ = sample_rows(labelled)
    reference = labelled_reference(
        scores,
        target,
        train_counts=labelled.declared.train_counts,
        class_names=labelled.declared.class_names,
        threads=workers(),
    )
    new_scores, _, seen = sample_rows(unlabelled, cells=NEW_CELLS)
    return estimate_prior(new_scores, calibration=reference, alpha=alpha, threads=workers()), seen


def as_json(found: PriorEstimate, names: tuple[str, ...] | None) -> str:
    """The estimate as one JSON object."""
    import json

    from evenhand.shift.words import to_dict

    return json.dumps(to_dict(found, names), indent=1, allow_nan=False)


def write(found: PriorEstimate, names: tuple[str, ...] | None, outputs: dict[str, Path]) -> None:
    """Write what was asked for: all files, or none."""
    from evenhand.output import save_all

    fix = found.correction()
    writers = {
        "json": lambda path: path.write_text(as_json(found, names) + "\n", encoding="utf-8"),
        "output": fix.save,
    }
    save_all({path: writers[kind] for kind, path in outputs.items()})


def describe(found: PriorEstimate, names: tuple[str, ...] | None, new: str, trained: str, seen: int, top: int) -> str:
    """The verdict: a sentence, the numbers that prove it, the classes that moved."""
    from evenhand.report.formats import plain, shortened
    from evenhand.shift.words import moved_lines, proof, sentence

    sampled = "" if found.rows == seen else f", {found.rows:,} of them read"
    head = (
        f"{plain(new)} · {seen:,} unlabelled rows{sampled} · {found.classes:,} classes · compared with "
        f"{plain(trained)}, {found.reference_rows or 0:,} labelled rows"
    )
    lines = [head, "", sentence(found), *(f"  {line}" for line in proof(found))]
    rows = moved_lines(found, names, top)
    if rows:
        shown = [(shortened(plain(row[0]), 30), *row[1:]) for row in rows]
        width = max(5, *(len(row[0]) for row in shown))
        level = f"{100 * (1 - found.alpha):g} % interval"
        lines += ["", f"  {'class':<{width}}  {'before':>9}  {'now':>9}   {level:<22}"]
        lines += [f"  {n:<{width}}  {b:>9}  {q:>9}   {i:<22}  {c}" for n, b, q, i, c in shown]
        hidden = len(found.moved) - len(rows)
        lines += [f"  and {hidden:,} more"] if hidden else []
    return "\n".join(line.rstrip() for line in lines)


def advice(found: PriorEstimate, trained: Path, new: Path, output: Path | None) -> list[str]:
    """What to do: the correction, what it is expected to bring, and the commands."""
    import shlex

    fix = found.correction()
    before, after = found.expected_accuracy
    lines = [""]
    if found.answer == "moved":
        lines += [
            "Without retraining: add log(new / old frequency) to the calibrated scores",
            f"  accuracy  {before:.3f} -> {after:.3f}   foretold by the posteriors, since there are no labels",
        ]
    lines.append(f"  {fix.why}" if found.answer == "moved" else fix.why[:1].upper() + fix.why[1:])
    if output is not None:
        lines.append(f"written: {click.format_filename(output)}")
    elif fix.recommended:
        files = " ".join(shlex.quote("".join(c if c.isprintable() else "?" for c in str(f))) for f in (trained, new))
        lines.append(f"  evenhand shift {files} -o fix.json")
    return lines
