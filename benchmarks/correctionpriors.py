"""Class frequencies of unlabelled rows, estimated by evenhand and by other packages from the same posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import correctionpeers as peers
from benchmarks.correctionnets import Scored
from benchmarks.correctiontrial import evaluation_rows, halves
from evenhand.declared import InputError
from evenhand.shift import estimate_prior, labelled_reference


@dataclass(frozen=True)
class PriorTrial:
    """Total variation between each estimate and the class frequencies that the unlabelled rows really have.

    Attributes: new: whether the rows keep the frequencies of the labelled ones (``same``) or not (``moved``). answer:
        what evenhand says of it. rows: labelled and unlabelled ones. distances: method -> total variation.
    """

    data: str
    seed: int
    model: str
    new: str
    answer: str
    rows: tuple[int, int]
    distances: dict[str, float]


def prior_trials(scored: Scored, *, data: str, seed: int, model: str, absent: dict[str, str]) -> tuple[PriorTrial, ...]:
    """Labelled rows with the frequencies of training; other rows with the same ones, and balanced."""
    natural = evaluation_rows(scored, "natural", seed)
    labelled, same = (natural[half] for half in halves(scored.target[natural], seed))
    flat = evaluation_rows(scored, "balanced", seed)
    moved = flat[~np.isin(flat, labelled)]
    try:
        reference = labelled_reference(
            scored.logits[labelled], scored.target[labelled], train_counts=scored.train_counts, seed=seed
        )
    except InputError:
        return ()
    known = _posteriors(scored.logits[labelled], reference.scale, reference.offset)
    found = []
    for new, rows in (("same", same), ("moved", moved)):
        estimate = estimate_prior(scored.logits[rows], calibration=reference, seed=seed)
        p = _posteriors(scored.logits[rows], reference.scale, reference.offset)
        answers = {"evenhand": estimate.prior, "mean posterior": p.mean(axis=0)}
        k = p.shape[1]
        answers["predicted labels"] = np.bincount(p.argmax(axis=1), minlength=k) / len(p)
        if "quapy" not in absent:
            answers["QuaPy EMQ"] = peers.quapy_prior(p, known.mean(axis=0))
        if "abstention" not in absent:
            answers["abstention EM"] = peers.abstention_prior(p, known.mean(axis=0), known)
        true = np.bincount(scored.target[rows], minlength=k) / len(rows)
        distances = {name: 0.5 * float(np.abs(q - true).sum()) for name, q in answers.items()}
        found.append(PriorTrial(data, seed, model, new, estimate.answer, (len(labelled), len(rows)), distances))
    return tuple(found)


def _posteriors(z: Any, scale: Any, offset: Any) -> Any:
    return np.exp(peers.tempered(np.asarray(z, np.float64) * scale + offset, 1.0))
