"""``evenhand fix``: fit the offsets that serve a goal, or write corrected predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evenhand.commands.inputs import FILE, input_options, single

if TYPE_CHECKING:
    from evenhand.correction import Correction
    from evenhand.files import Predictions

GOALS = ("accuracy", "balanced-accuracy", "macro-f1", "g-mean", "worst-group", "counts", "cost", "prior")

EPILOG = """
\b
Examples:
  evenhand fix val.npz --goal accuracy -o fix.json
  evenhand fix val.npz --goal counts --train-counts counts.csv -o fix.json
  evenhand fix val.npz --goal macro-f1 -o fix.json
  evenhand fix val.npz --goal cost --costs costs.csv -o fix.json
  evenhand fix val.npz --goal prior --prior next_year.csv -o fix.json
  evenhand fix val.npz --goal balanced-accuracy --at-least accuracy=0.80 -o fix.json
  evenhand fix --apply fix.json test.npz -o corrected.npz

--costs holds one cost per missed class (one column), or the columns true, decided and cost (pairs that are not listed
cost 1), or a matrix (npy, or npz of a SciPy sparse matrix). PREDICTIONS is an npz, safetensors, Parquet, Arrow or CSV
file with target and logits or probs, of rows the model was not trained on. Exit codes: 0 done, also when the correction
is not recommended; 2 unusable input or options.
"""


@click.command(epilog=EPILOG)
@click.argument("predictions", required=False, type=FILE)
@click.option(
    "--goal",
    type=click.Choice(GOALS),
    default="accuracy",
    show_default=True,
    help="What the decisions are for; docs/fix.md says what each goal wants.",
)
@click.option("--apply", "correction", type=FILE, metavar="FIX", help="Write corrected predictions with this file.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="fix.json or fix.npz; with --apply: corrected.npz.")
@click.option("--wanted-counts", type=FILE, metavar="FILE", help="Counts that --goal counts should meet.")
@click.option("--costs", type=FILE, metavar="FILE", help="What mistakes cost, for --goal cost.")
@click.option("--prior", type=FILE, metavar="FILE", help="Class frequencies in use, for --goal prior.")
@click.option(
    "--at-least", metavar="METRIC=VALUE", help="Keep another metric, such as accuracy=0.80, while serving the goal."
)
@click.option("--foldable", is_flag=True, help="Only offsets, which a layer can hold, also for macro-f1 and cost.")
@click.option(
    "--as-fitted",
    is_flag=True,
    help="With --apply and macro-f1: keep the decision of FIX; otherwise it is worked out anew on PREDICTIONS.",
)
@input_options
def command(
    predictions: Path | None,
    goal: str,
    correction: Path | None,
    output: Path | None,
    wanted_counts: Path | None,
    costs: Path | None,
    prior: Path | None,
    at_least: str | None,
    foldable: bool,
    as_fitted: bool,
    **given: Any,
) -> None:
    """Find what puts the predictions right for a goal, and apply it."""
    from evenhand.commands.audit import check_outputs
    from evenhand.declared import InputError
    from evenhand.files import open_predictions

    for option, owner, file in (
        ("--wanted-counts", "counts", wanted_counts),
        ("--costs", "cost", costs),
        ("--prior", "prior", prior),
    ):
        if file is not None and (goal != owner or correction is not None):
            what = f"the goal is {goal}" if correction is None else "--apply takes its goal from the file"
            raise InputError(f"{option} belongs to --goal {owner} but {what}; add --goal {owner} or leave it out")
        if file is None and goal == owner and owner != "counts" and correction is None:
            raise InputError(f"--goal {goal} needs {option} FILE; see evenhand fix --help for what it holds")
    if correction is not None and (at_least is not None or foldable):
        raise InputError("--at-least and --foldable belong to a fit but --apply was given; leave them out")
    if as_fitted and correction is None:
        raise InputError("--as-fitted belongs to --apply but no file to apply was given; leave it out")
    path = single(() if predictions is None else (predictions,), given)
    inputs = [predictions, correction, wanted_counts, costs, prior, *given.values()]
    if output is not None:
        check_outputs({"output": output}, [path for path in inputs if isinstance(path, Path)])
    opened = open_predictions(path, **given)
    refuse_labels(opened)
    if correction is not None:
        apply_file(correction, opened, path, output, as_fitted=as_fitted)
    else:
        stated = {"wanted_counts": wanted_counts, "prior": prior, "costs": costs}
        fit_file(opened, goal, stated, output, at_least=parse_at_least(at_least), foldable=foldable)


def parse_at_least(text: str | None) -> dict[str, float] | None:
    """``accuracy=0.80`` as a mapping."""
    from evenhand.declared import InputError

    if text is None:
        return None
    name, _, value = text.partition("=")
    try:
        return {name.strip(): float(value)}
    except ValueError:
        raise InputError(f"--at-least takes METRIC=VALUE but {text!r:.60} came; write accuracy=0.80") from None


def refuse_labels(opened: Predictions) -> None:
    """Predicted labels hold nothing to move."""
    from evenhand.declared import InputError

    if opened.kind == "predicted":
        raise InputError(
            f"a correction needs logits or probabilities but {opened.name} holds only predicted labels; save the scores"
        )


def fit_file(
    opened: Predictions,
    goal: str,
    stated: dict[str, Path | None],
    output: Path | None,
    *,
    at_least: dict[str, float] | None = None,
    foldable: bool = False,
) -> None:
    """Fit on a bounded row sample, print the effect, and write the correction."""
    from evenhand.correction import fit_correction
    from evenhand.correction.cost_file import read_costs
    from evenhand.correction.predictions import MARK, sample_rows
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
        wanted_counts=None if stated["wanted_counts"] is None else read_vector(stated["wanted_counts"]),
        prior=None if stated["prior"] is None else read_vector(stated["prior"]),
        costs=None if stated["costs"] is None else read_costs(stated["costs"], opened.declared.class_names),
        at_least=at_least,
        foldable=foldable,
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
    import numpy as np

    from evenhand.goals import find_goal

    sampled = "" if found.rows == rows else f" · fitted on {found.rows:,} of them"
    evidence = found.evidence
    tau = "" if found.model in ("identity", "temperature") else f", tau {evidence['tau']:.2f}"
    given_up = f" · {evidence['share']:.0%} of its decision given up" if evidence.get("share") else ""
    lines = [
        f"{printable(name)} · {rows:,} rows · {found.classes:,} classes{sampled}",
        f"goal {found.goal} · model {found.model} (scale {np.mean(found.scale):.2f}{tau}) "
        f"· {found.folds} folds{given_up}",
        "",
        f"  {'':<20}{'before':>8}{'after':>8}   95 % interval",
    ]
    for key, before in evidence["before"].items():
        low, high = evidence["after_interval"][key]
        numbers = [figure(v) for v in (before, evidence["after"][key], low, high)]
        lines.append("  {:<20}{:>8}{:>8}   {} to {}".format(key.replace("_", " "), *numbers))
    goal = find_goal(found.goal)
    if goal.name == "accuracy":
        lines += answered(evidence)
    if not found.additive:
        lines += ["", f"The goal {goal.name} decides on the probabilities: take `predicted`, not the largest score."]
    return "\n".join([*lines, "", found.why])


def figure(value: float) -> str:
    """Three decimals, or four digits of what is larger than a share."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def answered(evidence: dict[str, Any]) -> list[str]:
    """What leaving out unsure rows and giving several answers would bring."""
    lines = [""]
    for point in evidence["abstention"]:
        if abs(point["coverage"] - 0.8) < 0.05:
            lines.append(
                f"  answering only the surest {point['coverage']:.0%} of rows: accuracy {point['accuracy']:.3f} "
                f"({point['low']:.3f} to {point['high']:.3f}), abstain below {point['threshold']:.3f}"
            )
    if "5" in evidence["top_k"]:
        lines.append(f"  true class among the 5 best: {evidence['top_k']['5']:.3f} of rows")
    return lines if len(lines) > 1 else []


def printable(text: str) -> str:
    """File names are untrusted: control characters could rewrite the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def apply_file(
    correction: Path, opened: Predictions, path: Path | None, output: Path | None, *, as_fitted: bool
) -> None:
    """Write the predictions with corrected scores.

    Macro F1 is a property of all predictions together: the posteriors of these rows tell better than those of older
    ones which classes to favour. No label is read for it.
    """
    from evenhand.correction import Correction
    from evenhand.correction.predictions import sample_rows, write_corrected

    if output is None:
        raise click.UsageError("--apply needs -o corrected.npz.")
    found = Correction.load(correction, classes=opened.classes, class_names=opened.declared.class_names)
    if not found.recommended:
        click.echo(f"note: this correction is {found.why}", err=True)
    if found.goal == "macro-f1" and not (found.additive or as_fitted or "at_least" in found.evidence):
        found = found.tuned_to(sample_rows(opened)[0])
        click.echo(
            "note: the decision was worked out anew on these rows, without labels; --as-fitted keeps it", err=True
        )
    rows = write_corrected(found, opened, path, output)
    if not found.additive:
        click.echo(f"note: take `predicted`: the goal {found.goal} is not the largest score", err=True)
    click.echo(f"{rows:,} rows corrected for {found.goal}\nwritten: {click.format_filename(output)}")
