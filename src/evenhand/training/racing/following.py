"""What is recommended, as lines to copy into one's own training."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from evenhand.declared import InputError
from evenhand.report.formats import shortened
from evenhand.training.fitting import Recipe
from evenhand.training.remedies import PLAIN, Remedy, parse_remedy

if TYPE_CHECKING:
    from evenhand.training.racing.result import RaceResult

OWN = "remedy"  # what an own Remedy object is called in the lines
MEANING = {"criterion": "counts: training rows per class", "sampler": "labels: classes of the training rows"}


def next_steps(result: RaceResult) -> list[str]:
    """How to get what is recommended, in Python; nothing where nothing is recommended.

    The model, its rows, their ``labels`` and the ``counts`` of the classes are the reader's own: a race from the
    command line has none that a program of theirs could name.
    """
    entry = result.verdict.entry
    if entry is None or result.verdict.kind == "unknown":
        return []
    remedy = result.plan.remedy(entry.remedy)
    own = not _is_known(remedy)
    parts, about = _parts(remedy, result, own)
    needed = "losses, training" if any("losses." in part for part in parts.values()) else "training"
    if own:
        about = f"  # {OWN}: your Remedy object {shortened(repr(remedy.name))}"
    lines = [
        f"from evenhand import {needed}  # in your own training, on your own model and rows; the loop of the race:",
        f"training.fit(model, train, {OWN if own else _quoted(remedy.name)}, steps={result.steps}"
        f"{_recipe(result.plan.recipe)}){about}",
    ]
    if parts:
        what = ", ".join(MEANING[part] for part in parts)
        lines.append(f"{', '.join(parts)} = {', '.join(parts.values())}  # or in a loop of your own; {what}")
    if entry.corrected:
        untold = "" if "criterion" in parts else f"; {MEANING['criterion']}"
        lines += [
            f'np.savez("valid.npz", logits=logits, target=target, train_counts=counts)  # rows not trained on{untold}',
            f"# then: evenhand fix valid.npz --goal {result.plan.goal} -o fix.json",
        ]
    return lines


def _is_known(remedy: Remedy) -> bool:
    """Whether its name alone gives it back; compared as text, since own options may be arrays."""
    try:
        return repr(parse_remedy(remedy.name)) == repr(remedy)
    except InputError:
        return False


def _recipe(recipe: Recipe) -> str:
    """What differs from the defaults, as more arguments."""
    given = {field.name: (getattr(recipe, field.name), field.default) for field in fields(recipe)}
    changed = {name: value for name, (value, default) in given.items() if value != default}
    return "".join(f", {name}={name if name == 'optimiser' else repr(value)}" for name, value in changed.items())


def _parts(remedy: Remedy, result: RaceResult, own: bool) -> tuple[dict[str, str], str]:
    """The loss and the sampler where these are all of the remedy, and otherwise what else it does, as a comment."""
    if remedy.schedule != "one-stage" or remedy.cosine:
        return {}, f"  # {remedy.meaning}"
    parts = {}
    if remedy.loss != "cross-entropy" or remedy.options:
        given = f"**{OWN}.options" if own else _arguments(remedy.options)
        parts["criterion"] = f"losses.build({_quoted(remedy.loss)}, counts{', ' if given else ''}{given})"
    if remedy.beta is not None:
        parts["sampler"] = f"training.samplers.EffectiveNumberSampler(labels, {remedy.beta!r})"
    elif isinstance(remedy.power, tuple):
        epochs = max(2, -(-result.steps // -(-result.rows["train"] // result.plan.recipe.batch_size)))
        first, last = remedy.power
        parts["sampler"] = f"training.samplers.ProgressiveSampler(labels, {epochs}, {first!r}, {last!r})"
    elif remedy.power is not None:
        parts["sampler"] = f"training.samplers.ClassPowerSampler(labels, {remedy.power!r})"
    return parts, "  # as it is" if remedy.name == PLAIN and not parts else ""


def _arguments(options: Any) -> str:
    return ", ".join(f"{name}={_quoted(value)}" for name, value in options.items())


def _quoted(value: Any) -> str:
    """As Python writes it, with the quotes of this code where nothing has to be escaped."""
    plain = isinstance(value, str) and value.isprintable() and not set(value) & set("\"'\\")
    return f'"{value}"' if plain else repr(value)
