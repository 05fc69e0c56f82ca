"""The demo: a real data set found on every machine, the network of the question, and planted faults.

Nothing is downloaded. The predictions it saves are a normal predictions file, read back and judged by the same code
as ``evenhand audit``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from evenhand.auditing import Audit
    from evenhand.demo.planting import Fault, Saved
    from evenhand.demo.recipe import Head, Recipe

__all__ = ["Demo", "output_stem", "run_demo"]


@dataclass(frozen=True)
class Demo:
    """What the demo left behind: the audit, the predictions file, the HTML report if one was written."""

    audit: Audit
    predictions: Path
    html: Path | None


def output_stem(output: Path) -> Path:
    """Where to write, without suffix: a folder means ``evenhand-demo`` in it, anything else is a file stem.

    >>> output_stem(Path("results/first.npz")).as_posix()
    'results/first'
    """
    if output.is_dir():
        return output / "evenhand-demo"
    return output.with_suffix("") if output.suffix in (".npz", ".html") else output


def _need_torch() -> None:
    from importlib.util import find_spec

    from evenhand.declared import InputError

    if find_spec("torch") is None:
        raise InputError(
            "The demo trains a network and expected PyTorch, which is not installed; run pip install 'evenhand[torch]'."
        )


def _recipe(fault: Fault, *, head: Head | None, epochs: int | None, rows: int | None) -> Recipe:
    """The fault's recipe with what the user asked for in its place."""
    from dataclasses import replace

    from evenhand.declared import InputError

    recipe = fault.recipe
    if head is not None:
        if head not in ("linear", "lstm"):
            raise InputError(f"Expected the head to be linear or lstm, got {head!r}; choose one of these.")
        recipe = recipe.for_head(head)
    if epochs is not None:
        if epochs < 1:
            raise InputError(f"Expected at least 1 epoch, got {epochs}; ask for more.")
        recipe = replace(recipe, epochs=epochs)
    return recipe if rows is None else replace(recipe, rows=rows)


def make_predictions(
    name: str,
    *,
    err: Console,
    head: Head | None = None,
    seed: int = 0,
    epochs: int | None = None,
    rows: int | None = None,
    validation_rows: int = 30_000,
    classes: int = 500,
    fresh: bool = False,
) -> Saved:
    """Build the data, plant the fault, train or find the network, predict: the arrays of the predictions file.

    Args:
        name: the fault, a key of ``evenhand.demo.planting.FAULTS``.
        err: console for progress and messages.
        head, epochs, rows: replace those of the fault's recipe.
        seed: decides which rows are drawn, their order and the network's first values.
        validation_rows: rows to predict. classes: classes to tell apart; the most frequent of the data set.
        fresh: ignore the cache.

    Returns:
        ``logits`` (N, K) float32 or ``probs``, ``target`` (N,) int64, ``train_counts`` (K,) int64, ``class_names``
        (K,), ``row_id`` (N,), ``config`` JSON text; where the fault has them ``class_weight`` (K,) float64,
        ``sampler_rate`` (K,) float64, ``train_logits`` and ``train_target``.
    """
    import numpy as np

    from evenhand.demo import data, planting, progress, training
    from evenhand.demo.cache import cache_folder

    fault = planting.find_fault(name)
    recipe = _recipe(fault, head=head, epochs=epochs, rows=rows)
    rng = np.random.default_rng([seed, 1])
    with progress.bars(err) as show:
        arrays, warning = data.load(fresh=fresh, progress=show.counter("Reading Python's standard library"))
        arrays = data.most_frequent(arrays, classes)
        task = data.draw(arrays, rows=recipe.rows, validation_rows=validation_rows, seed=seed)
        task = fault.rows(task, rng) if fault.rows else task
        weight = fault.weight(task) if fault.weight else None
        network, cached, unkept = training.trained(
            task, recipe, weight, seed=seed, folder=cache_folder(), fresh=fresh, progress=show.losses("Training")
        )
        saved = {"logits": training.predict(network, task.validation.context, progress=show.counter("Predicting"))}
        if fault.train_logits:
            saved |= {"train_logits": training.predict(network, task.train.context), "train_target": task.train.target}
    if cached:
        err.print("This network was trained by an earlier run and comes from the cache; --fresh trains it again.")
    for message in dict.fromkeys(filter(None, (warning, unkept))):
        err.print(message, markup=False)
    saved |= planting.describe(task, recipe, weight)
    return fault.saving(saved, rng) if fault.saving else saved


def run_demo(
    fault: str = "class-weights",
    *,
    out: Console | None = None,
    err: Console | None = None,
    output: Path = Path(),
    html: bool = True,
    head: Head | None = None,
    seed: int = 0,
    epochs: int | None = None,
    rows: int | None = None,
    fresh: bool = False,
) -> Demo:
    """Train, save the validation predictions, audit the file and print the verdict.

    Args:
        fault: what to plant, a key of ``evenhand.demo.planting.FAULTS``.
        out: console for the verdict (standard output). err: console for progress and messages (standard error).
        output: folder, or file stem, for the ``.npz`` and ``.html`` files.
        html: whether to write the HTML report.
        head, seed, epochs, rows, fresh: see :func:`make_predictions`.

    Raises:
        InputError: torch is not installed, an argument is out of range, or the standard library holds no source.
        OSError: the output cannot be written.
    """
    from rich.console import Console

    from evenhand.declared import InputError
    from evenhand.demo.cache import write_arrays

    _need_torch()
    out = out or Console(highlight=False)
    err = err or Console(stderr=True, highlight=False)
    stem = output_stem(output)
    if not stem.parent.is_dir():
        raise InputError(f"Expected an existing folder to write to, got {stem.parent}; create it first.")
    saved = make_predictions(fault, err=err, head=head, seed=seed, epochs=epochs, rows=rows, fresh=fresh)
    predictions = stem.with_name(stem.name + ".npz")
    write_arrays(predictions, saved)
    audit = _audit(predictions, err)
    return Demo(audit, predictions, _report(audit, stem, out, html=html))


def _audit(path: Path, err: Console) -> Audit:
    from evenhand.auditing import audit_predictions
    from evenhand.demo import progress
    from evenhand.files import open_predictions

    with progress.bars(err) as show, show.waiting("Auditing"):
        return audit_predictions(open_predictions(path))


def _report(audit: Audit, stem: Path, out: Console, *, html: bool) -> Path | None:
    from rich.text import Text

    from evenhand.output import write_text_atomically
    from evenhand.report import print_audit, to_html

    print_audit(audit, out)
    if not html:
        return None
    path = stem.with_name(stem.name + ".html")
    write_text_atomically(path, to_html(audit))
    out.print()
    out.print(Text(f"Figures and all {audit.classes:,} classes: {path}"), soft_wrap=True)
    return path
