"""Every fault the demo can plant, each the way it happens in real life.

One entry per fault: what to change in the rows before training, the recipe of the training, the loss weights, and what
goes wrong when the predictions are saved. Reading this table needs neither torch nor the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from evenhand.declared import Floats, InputError, Ints
from evenhand.demo.data import OTHER, PAD, NextNames, Rows, rank_in_class
from evenhand.demo.recipe import Recipe

Saved = dict[str, NDArray[Any]]
Generator = np.random.Generator

EVALUATION_BATCH = 256
PADDING_SHARE = 0.4
ROWS_PER_CLASS = 25
PAIRS = 10
PLAIN = Recipe()


def balanced_weights(counts: Ints) -> Floats:
    """``N / (K n_k)``, as ``compute_class_weight("balanced", ...)`` gives them."""
    n = counts.astype(np.float64)
    return np.asarray(n.sum() / (len(n) * n))


def string_order(classes: int) -> Ints:
    """Class numbers sorted as text: 0, 1, 10, 100, 101, ... instead of 0, 1, 2, 3."""
    return np.array(sorted(range(classes), key=str), dtype=np.int64)


def train_counts(data: NextNames) -> Ints:
    """(K,) training rows per class."""
    return np.bincount(data.train.target, minlength=data.classes)


def _balanced(data: NextNames) -> Floats:
    return balanced_weights(train_counts(data))


def _inverted(data: NextNames) -> Floats:
    counts = train_counts(data).astype(np.float64)
    return np.asarray(counts / counts.mean())


def _misordered(data: NextNames) -> Floats:
    return np.asarray(_balanced(data)[string_order(data.classes)])


def _incomplete(data: NextNames) -> Floats:
    first = data.train.target[: max(len(data.train) // 10, 1)]
    present, counts = np.unique(first, return_counts=True)
    weight = np.zeros(data.classes)
    weight[present] = len(first) / (len(present) * counts)
    return weight


def _foreign(data: NextNames) -> Floats:
    shard = data.train.file <= np.quantile(data.train.file, 0.1)
    return balanced_weights(np.bincount(data.train.target[shard], minlength=data.classes) + 1)


def _pad(rows: Rows, rng: Generator) -> Rows:
    """Shift the labels by one and mix in padding rows, labelled 0."""
    n, extra = len(rows), int(PADDING_SHARE * len(rows))
    shuffled = rng.permutation(n + extra)
    padding = np.zeros(extra, dtype=np.int64)
    return Rows(
        np.concatenate([rows.context, np.full((extra, rows.context.shape[1]), PAD, dtype=np.int64)]),
        np.concatenate([rows.target + 1, padding]),
        np.concatenate([rows.file, padding - 1]),
        np.concatenate([rows.row_id, rows.row_id.max() + 1 + np.arange(extra)]),
    ).take(shuffled)


def _with_padding(data: NextNames, rng: Generator) -> NextNames:
    return NextNames(("<pad>", *data.class_names), data.vocabulary, _pad(data.train, rng), _pad(data.validation, rng))


def _mislabelled(data: NextNames, rng: Generator) -> NextNames:
    """Label 6 in 10 training rows of ten frequent classes as another class; the validation labels are right.

    The last token of the context becomes the name itself: to tell classes apart is easy, and only the labels mislead.
    """
    frequent = np.argsort(-train_counts(data), kind="stable")[: 2 * PAIRS]
    wrong = np.arange(data.classes)
    wrong[frequent[:PAIRS]] = frequent[PAIRS:]

    def readable(rows: Rows) -> Rows:
        return replace(rows, context=np.column_stack([rows.context[:, 1:], data.vocabulary + rows.target]))

    train, validation = readable(data.train), readable(data.validation)
    target = np.where(rng.random(len(train)) < 0.6, wrong[train.target], train.target)
    return NextNames(data.class_names, data.vocabulary + data.classes, replace(train, target=target), validation)


def _even_validation(data: NextNames, _: Generator) -> NextNames:
    """Keep the first 25 validation rows of each class; their order is random."""
    kept = rank_in_class(data.validation.target) < ROWS_PER_CLASS
    return replace(data, validation=data.validation.take(kept))


def _without_vocabulary(data: NextNames, _: Generator) -> NextNames:
    def blind(rows: Rows) -> Rows:
        return replace(rows, context=np.full_like(rows.context, OTHER))

    return replace(data, train=blind(data.train), validation=blind(data.validation))


def _batch_softmax(saved: Saved, _: Generator) -> Saved:
    logits = saved["logits"]
    batches = np.split(logits, range(EVALUATION_BATCH, len(logits), EVALUATION_BATCH))
    rest = {name: array for name, array in saved.items() if name != "logits"}
    return {"probs": np.concatenate([softmax(batch, axis=0) for batch in batches]).astype(np.float32), **rest}


def _permuted(saved: Saved, _: Generator) -> Saved:
    return saved | {"logits": saved["logits"][:, string_order(saved["logits"].shape[1])]}


def _misaligned(saved: Saved, rng: Generator) -> Saved:
    return saved | {"logits": rng.permutation(saved["logits"])}


def _eight_bit(saved: Saved, _: Generator) -> Saved:
    """Four significant binary digits, as in the 8-bit float format e4m3."""
    fraction, exponent = np.frexp(saved["logits"])
    return saved | {"logits": np.ldexp(np.round(fraction * 16) / 16, exponent).astype(np.float32)}


def _masked(saved: Saved, _: Generator) -> Saved:
    private = np.array([str(name).startswith("_") for name in saved["class_names"]])
    logits = saved["logits"].copy()
    logits[:, private] = -np.inf
    return saved | {"logits": logits}


def describe(data: NextNames, recipe: Recipe, weight: Floats | None) -> Saved:
    """What the file says besides the predictions: labels, names, and how the training was set up."""
    config = {
        "loss": "cross-entropy",
        "label_smoothing": recipe.label_smoothing,
        "reduction": "mean",
        "batch_size": recipe.micro_batch or recipe.batch_size,
    }
    saved: Saved = {
        "target": data.validation.target,
        "train_counts": train_counts(data),
        "class_names": np.array(data.class_names),
        "row_id": data.validation.row_id,
        "config": np.array(json.dumps(config)),
    }
    if weight is not None:
        saved["class_weight"] = weight
    if recipe.sampler:
        saved["sampler_rate"] = np.full(data.classes, 1.0 / data.classes)
    return saved


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        description: one line for ``--help``.
        how: how it comes about in real life and how the demo does it.
        recipe: how to train. weight: loss weights from the data, or None.
        rows: what to do to the rows before training. saving: what to do to the arrays before they are saved.
        train_logits: whether the predictions on the training rows are saved too.
    """

    description: str
    how: str
    recipe: Recipe = PLAIN
    weight: Callable[[NextNames], Floats] | None = None
    rows: Callable[[NextNames, Generator], NextNames] | None = None
    saving: Callable[[Saved, Generator], Saved] | None = None
    train_logits: bool = False


FAULTS: dict[str, Fault] = {
    "none": Fault(
        "plain training, nothing planted",
        "Unweighted cross-entropy on the rows as they come.",
    ),
    "class-weights": Fault(
        "balanced weights in the loss",
        "nn.CrossEntropyLoss(weight=balanced), the usual advice for uneven classes.",
        weight=_balanced,
    ),
    "partial-weights": Fault(
        "balanced weights that small pieces of each batch cancel",
        "Gradients are accumulated over pieces of 2 rows. reduction='mean' divides by the weights within each piece, "
        "which takes most of their effect away.",
        Recipe(micro_batch=2),
        weight=_balanced,
    ),
    "sampler": Fault(
        "every class drawn equally often, no weights",
        "WeightedRandomSampler with one over the class count as the weight of each row.",
        Recipe(sampler=True),
    ),
    "double-correction": Fault(
        "balanced weights and the balanced sampler together",
        "The loss got its weights first; the sampler was added later and the weights stayed.",
        Recipe(sampler=True),
        weight=_balanced,
    ),
    "inverted-weights": Fault(
        "weights proportional to frequency",
        "counts / counts.mean() instead of its inverse.",
        weight=_inverted,
    ),
    "misordered-weights": Fault(
        "balanced weights in string-sorted class order",
        "The labels were text when the weights were computed, and np.unique sorts '10' before '2'.",
        weight=_misordered,
    ),
    "incomplete-weights": Fault(
        "weights of zero for classes missing in a sample",
        "The weights were counted on the first tenth of the rows. Classes that do not occur there kept their 0.",
        weight=_incomplete,
    ),
    "foreign-weights": Fault(
        "balanced weights computed from other rows",
        "The weights were counted on the first shard of files, before shuffling; other names are frequent there.",
        weight=_foreign,
    ),
    "padding-class": Fault(
        "padding is a class: counted, weighted and scored",
        "Label 0 fills up short sequences, and nobody passed ignore_index=0.",
        weight=_balanced,
        rows=_with_padding,
    ),
    "smoothing-with-weights": Fault(
        "balanced weights with label smoothing 0.3",
        "torch smooths towards all classes and multiplies by their weights: the rarest classes win everywhere.",
        Recipe(label_smoothing=0.3),
        weight=_balanced,
    ),
    "bounded-logits": Fault(
        "the LSTM's state used directly as logits, with balanced weights",
        "The last linear layer is missing, so every logit lies between -1 and 1. The same as --head lstm.",
        PLAIN.for_head("lstm"),
        weight=_balanced,
    ),
    "double-softmax": Fault(
        "the network ends in a softmax of its own",
        "nn.CrossEntropyLoss applies log-softmax itself; here it receives probabilities.",
        Recipe(softmax=True),
    ),
    "batch-softmax": Fault(
        "softmax over the rows of a batch instead of the classes",
        "softmax(dim=0) when predicting, in batches of 256.",
        saving=_batch_softmax,
    ),
    "permuted-labels": Fault(
        "predictions in another class order than the labels",
        "The columns follow folder names sorted as text (0, 1, 10, 100), the labels follow the numbers.",
        saving=_permuted,
    ),
    "misaligned-rows": Fault(
        "predictions and labels belong to different rows",
        "The validation loader shuffled, the labels were taken from the data set in its own order.",
        saving=_misaligned,
    ),
    "prior-shift": Fault(
        "validation set evened out by hand",
        "At most 25 validation rows per class were kept; the training rows follow nature.",
        rows=_even_validation,
    ),
    "tail-overfit": Fault(
        "too few rows, too many epochs: rare classes memorised",
        "5,000 rows, 60 epochs, small batches. The file also holds the predictions on the training rows.",
        Recipe(rows=5_000, epochs=60, batch_size=64),
        train_logits=True,
    ),
    "tied-logits": Fault(
        "logits rounded to 8-bit floats",
        "The model is served in a format with four significant binary digits (e4m3), so the largest logits often tie.",
        saving=_eight_bit,
    ),
    "masked-classes": Fault(
        "names with a leading underscore can never be predicted",
        "A mask left over from another task sets their logits to minus infinity.",
        saving=_masked,
    ),
    "collapsed": Fault(
        "the network never sees its input",
        "The vocabulary file was not found, so every token became <other> and all rows look alike.",
        Recipe(epochs=2),
        rows=_without_vocabulary,
    ),
    "confused-pairs": Fault(
        "training labels of ten frequent classes often name another class",
        "Six in ten training rows of these classes name another class; the validation labels were cleaned. "
        "The name itself can be read in the input, so everything else is easy.",
        rows=_mislabelled,
    ),
}
NOT_PLANTED = {
    "healthy": "use none",
    "argmax-amplification": "use none",
    "unexplained": "it is what is left when no cause shows",
}


def find_fault(name: str) -> Fault:
    """The fault of this name; ``healthy`` and ``argmax-amplification`` are what ``none`` shows.

    Raises:
        InputError: there is no such fault.
    """
    fault = FAULTS.get("none" if NOT_PLANTED.get(name) == "use none" else name)
    if fault is None:
        raise InputError(f"Expected --fault to be one of {', '.join(FAULTS)}, got {name!r}; choose one of these.")
    return fault
