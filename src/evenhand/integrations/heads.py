"""Corrections folded into last layers: of arrays, as Keras, JAX and scikit-learn keep them, and of whole models.

Folding is ``weight_c *= scale_c``, ``bias_c = scale_c bias_c + offset_c``: the layer then gives corrected scores and
needs no other code and no other file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.correction import Correction
from evenhand.counts import to_numpy
from evenhand.declared import InputError

LAST_LAYERS = ("classifier", "score", "out_proj", "head", "fc", "heads", "output", "dense", "linear")
Array = NDArray[Any]


def fold_arrays(correction: Correction, weight: Any, bias: Any = None, *, classes_axis: int) -> tuple[Array, Array]:
    """Corrected copies of the weight and bias of a last layer, ``z = x weight + bias``.

    Args:
        correction: an additive one, see `Correction.additive`. weight: 2-D floats with K entries along `classes_axis`.
        bias: (K,), or None for a layer without; the result always has one.
        classes_axis: 1 for a Keras ``Dense`` or a JAX kernel (in, K), 0 for torch and for scikit-learn's ``coef_``. A
            square weight fits both, so it is always stated.

    Returns:
        weight and bias of the type of `weight`. The arithmetic is float64.

    Raises:
        InputError: shapes that do not fit, no floats, or a decision that is no offset per class.

    Example:
        >>> fix = Correction(2.0, np.array([1.0, -1.0]), "accuracy", "tilt", {}, 100, 5, recommended=True, why="")
        >>> kernel, bias = fold_arrays(fix, np.ones((3, 2), np.float32), np.zeros(2, np.float32), classes_axis=1)
        >>> kernel[0].tolist(), bias.tolist(), bias.dtype.name
        ([2.0, 2.0], [1.0, -1.0], 'float32')
    """
    _check_additive(correction)
    array, k = to_numpy(weight), correction.classes
    if array.ndim != 2 or array.dtype.kind != "f" or classes_axis not in (0, 1, -1) or array.shape[classes_axis] != k:
        raise InputError(
            f"expected a 2-D weight of floats with {k} classes along axis {classes_axis}, got shape {array.shape} and "
            f"type {array.dtype}; Keras keeps classes on axis 1, torch on axis 0"
        )
    old = np.zeros(k) if bias is None else to_numpy(bias)
    if old.shape != (k,):
        raise InputError(f"expected a bias of shape ({k},), got {old.shape}; pass that of the same layer")
    scale = np.broadcast_to(np.asarray(correction.scale, np.float64), (k,))
    factor = scale[:, None] if classes_axis == 0 else scale
    return (array * factor).astype(array.dtype), (old * scale + correction.offset).astype(array.dtype)


def fold_into_dense(correction: Correction, layer: Any) -> None:
    """Fold a correction into a Keras ``Dense`` layer of logits, in place and on any backend.

    Raises:
        InputError: a layer without bias or of another size, or a decision that is no offset per class.
    """
    weights = layer.get_weights()
    if len(weights) != 2:
        raise InputError(
            f"expected a Dense layer with kernel and bias, got {len(weights)} arrays; give it use_bias=True"
        )
    layer.set_weights(fold_arrays(correction, *weights, classes_axis=1))


def find_head(model: Any, classes: int) -> str:
    """The path of the last layer of a model: the only one with a 2-D weight of K rows, or the only one named so.

    Args:
        model: an ``nn.Module``. classes: K.

    Returns:
        A path for ``model.get_submodule``. Where several layers have K rows, the one with a name such as
        ``classifier``, ``score`` or ``classifier.out_proj``, as classification heads of Hugging Face have.

    Raises:
        InputError: no such layer, or several; the sentence names them, so that one can be stated.
    """
    fitting: list[str] = [path for path, module in model.named_modules() if _rows(module) == classes]
    named = [path for path in fitting if path.rsplit(".", 1)[-1] in LAST_LAYERS] if len(fitting) > 1 else fitting
    top = [path for path in named if path.split(".", 1)[0] in LAST_LAYERS] if len(named) > 1 else named
    if len(top) == 1:
        return top[0]
    found = f"{', '.join(repr(p) for p in fitting[:4])} among {len(fitting)}" if fitting else "none"
    raise InputError(f"expected one last layer with {classes} rows of weights, found {found}; state its path")


def fold_into_model(
    correction: Correction,
    model: Any,
    *,
    path: str | None = None,
    class_names: Iterable[str] | None = None,
    new_bias: bool = False,
    again: bool = False,
) -> str:
    """Fold a correction into the last layer of a whole model, in place.

    Args:
        correction: additive. model: an ``nn.Module``, such as a Hugging Face ``...ForSequenceClassification``.
        path: of the last layer, such as ``classifier.out_proj``; None to look for it, see `find_head`.
        class_names: (K,) in the model's order; None for those of ``model.config.id2label``, where they were set. They
            are compared with the names that the correction was fitted for.
        new_bias: allow a bias for a layer that has none. Classes that build the layer without one, as those of GPT and
            Llama do, would drop it silently when the saved model is loaded.
        again: see `Correction.fold_into`.

    Returns:
        The path of the layer.

    Raises:
        InputError: no layer or several, a layer without bias, weights shared with another layer, other class names, or
            a decision that is no offset per class.
    """
    _check_additive(correction)
    found = find_head(model, correction.classes) if path is None else path
    modules = dict(model.named_modules())
    if found not in modules or _rows(modules[found]) != correction.classes:
        raise InputError(
            f"the model has no layer {found!r:.60} with {correction.classes} rows of weights; check the path"
        )
    correction.check(correction.classes, label_names(model) if class_names is None else class_names)
    layer = modules[found]
    if any(
        other is not layer and any(p is layer.weight for p in other.parameters(recurse=False))
        for other in modules.values()
    ):
        raise InputError(
            f"the weight of {found} is shared with another layer, which would change as well; wrap the model in "
            "CorrectedModule"
        )
    if layer.bias is None and not new_bias:
        raise InputError(
            f"{found} has no bias, and a class that builds it without one would drop a new one when loading; wrap the "
            "model in CorrectedModule, or pass new_bias=True"
        )
    correction.fold_into(layer, again=again)
    return found


def label_names(model: Any) -> list[str] | None:
    """The class names of a Hugging Face configuration in order, or None where they were never set."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(labels, dict):
        return None
    ordered = [str(labels[key]) for key in sorted(labels, key=int)]
    return None if ordered == [f"LABEL_{number}" for number in range(len(ordered))] else ordered


def _rows(module: Any) -> int | None:
    """Rows of a linear layer; None for anything else, embeddings included."""
    weight = getattr(module, "weight", None)
    linear = hasattr(module, "in_features") and hasattr(module, "bias") and getattr(weight, "ndim", 0) == 2
    return int(weight.shape[0]) if linear and weight is not None else None


def _check_additive(correction: Correction) -> None:
    if not correction.additive:
        raise InputError(
            f"the decision for the goal {correction.goal} is no offset per class, so a layer cannot hold it; fit with "
            "foldable=True, or wrap the model in CorrectedModule"
        )
