"""One trained model on rows it has not seen: its decisions, the corrected ones, and every figure of the leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand import audit_figures
from evenhand.correction import Correction, fit_correction
from evenhand.counts import ClassCounts
from evenhand.declared import Floats, InputError, Ints
from evenhand.evidence import Evidence
from evenhand.files import from_arrays
from evenhand.goals import METRICS, Aim, Metric, find_goal, frequency_groups
from evenhand.metrics import calibration_error, metrics
from evenhand.scanning import tally_predictions
from evenhand.training.racing.comparing import Bootstrap
from evenhand.training.splitting import held_out

Mask = NDArray[np.bool_]
REPORTED = ("accuracy", "balanced_accuracy", "macro_f1", "count_distance")
LEAST_ROWS = 40  # of each half: a correction needs 20 in every fold
BINS = 15
RUNG_ROWS = 2000
RUNG_DRAWS = 100
LEAST_ERROR = 0.1  # of one row: a model that is all right or all wrong still scatters
TAUS = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, eq=False)
class Judge:
    """The valid rows and what is asked of them.

    The rows are halved, by class and by group: the *choosing* half fits the corrections, stops hopeless trainings and
    names the winner; the *judging* half only measures.

    Attributes:
        target: (n,) classes. choosing: (n,) bool. group: (n,) rows that belong together, or None.
        counts: of the training rows. goal: its name.
    """

    target: Ints
    choosing: Mask
    group: Ints | None
    counts: ClassCounts
    goal: str

    @classmethod
    def halved(cls, target: Any, counts: ClassCounts, goal: str, *, group: Any = None, seed: int = 0) -> Judge:
        """Halve the valid rows.

        Raises:
            InputError: too few rows, or a class that the training rows do not have.
        """
        y = np.asarray(target, np.int64)
        if len(y) < 2 * LEAST_ROWS:
            raise InputError(
                f"expected at least {2 * LEAST_ROWS} valid rows, half to choose and half to judge on, got {len(y)}; "
                "give more"
            )
        unseen = np.setdiff1d(y, np.flatnonzero(counts.counts))
        if len(unseen):
            raise InputError(
                f"expected every class of the valid rows among the training rows, but class {int(unseen[0])} has none; "
                "leave its rows out of valid or add training rows"
            )
        if len(np.unique(y)) < 2:
            raise InputError("expected valid rows of at least two classes, got one; draw them like those of use")
        groups = np.arange(len(y)) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
        if groups.shape != y.shape:
            raise InputError(
                f"expected a group for each of the {len(y):,} valid rows, got {len(groups):,}; give one per row"
            )
        # Not the seed that may have held these rows out of the training rows a moment ago.
        choosing = ~held_out(y, groups, share=0.5, seed=seed + 1, keep_all=False)
        if choosing.all() or not choosing.any():
            number = int(groups.max()) + 1
            raise InputError(
                f"expected groups that can be halved, got {number} {'group' if number == 1 else 'groups'} for the "
                f"{len(y):,} valid rows, all in one half since a group is not split; leave the group out or give rows "
                "of more groups"
            )
        return cls(y, choosing, None if group is None else groups, counts, goal)

    @property
    def aim(self) -> Aim:
        """Training frequencies, for metrics by group."""
        rows = self.counts.counts.astype(np.float64)
        return Aim(np.log(rows + 0.5), groups=frequency_groups(rows))

    @property
    def metric(self) -> Metric:
        """The goal's."""
        return find_goal(self.goal).metric.bound(self.aim)

    def value(self, metric: Metric, decided: Ints, rows: Mask) -> float:
        """A metric of decisions on some rows."""
        return float(metric.measure(*count_vectors(self.target[rows], decided[rows], self.counts.classes)))

    def potential(self, logits: Floats, rows: NDArray[np.int64]) -> tuple[float, float]:
        """What a model could reach on these rows when its tilt is put right, and the standard error of it.

        The best goal value over a few tilts: a model that a correction will put right must not be stopped for its tilt.
        The error is bootstrapped: rows of rare classes weigh more in most goals, and the binomial formula over all rows
        would be half as large, or less, and stop trainings for noise.
        """
        y, metric, classes = self.target[rows], self.metric, self.counts.classes
        direction = np.log(np.maximum(self.counts.counts, 0.5) / self.counts.total)
        decided = [(logits - tau * direction).argmax(1) for tau in TAUS]
        values = [float(metric.measure(*count_vectors(y, d, classes))) for d in decided]
        best = int(np.argmax(metric.sign * np.array(values)))
        group = None if self.group is None else self.group[rows]
        drawn = Bootstrap(y, metric, classes, group=group, draws=RUNG_DRAWS).draws(decided[best])[1]
        return values[best], max(float(drawn.std(ddof=1)), LEAST_ERROR / len(rows) ** 0.5)

    def rung_rows(self) -> NDArray[np.int64]:
        """At most 2,000 of the choosing rows, always the same: half-trained models are looked at through these."""
        rows = np.flatnonzero(self.choosing)
        return np.sort(np.random.default_rng(0).choice(rows, min(len(rows), RUNG_ROWS), replace=False))


@dataclass(frozen=True, eq=False)
class Judged:
    """What is kept of a trained model: decisions for all valid rows, and figures of the judging half.

    Attributes:
        raw, corrected: (n,) int32 decisions; corrected is None where no correction could be fitted. figures: JSON.
    """

    raw: NDArray[np.int32]
    corrected: NDArray[np.int32] | None
    figures: dict[str, Any]


def judge_model(logits: NDArray[np.float32], judge: Judge) -> Judged:
    """Decide all valid rows with and without the correction for the goal, and measure both on the judging half.

    Every row is corrected by a fit that has not seen it: the judging rows by one on the whole choosing half, the
    choosing rows by one on the other folds of that half.
    """
    y, k = judge.target, judge.counts.classes
    if not np.isfinite(logits).all():
        raise InputError(
            "the model gives logits that are NaN or infinite on valid rows; lower the learning rate, or look for NaN "
            "in the inputs of these rows"
        )
    raw = logits.argmax(1).astype(np.int32)
    seen = ~judge.choosing
    tilt, calibrated = tilt_and_calibration(logits[seen], y[seen], judge.counts)
    figures: dict[str, Any] = tilt | {"raw": measures(y[seen], raw[seen], judge) | calibrated}
    corrected = None
    try:
        corrected, last = _corrected(logits, judge)
        figures["corrected"] = measures(y[seen], corrected[seen], judge) | calibration(last, logits[seen], y[seen])
        figures["correction"] = {"model": last.model, "recommended": last.recommended}
    except InputError as error:
        figures["correction"] = {"model": None, "recommended": False, "why": str(error)}
    figures["classes"] = k
    return Judged(raw, corrected, figures)


def _corrected(logits: NDArray[np.float32], judge: Judge) -> tuple[NDArray[np.int32], Correction]:
    """Decisions by corrections whose fit has not seen the row, and the correction for the judging half."""
    fit = judge.choosing
    found = fit_correction(
        logits[fit],
        judge.target[fit],
        goal=judge.goal,
        train_counts=judge.counts.counts,
        group=None if judge.group is None else judge.group[fit],
    )
    decided = np.empty(len(logits), np.int32)
    decided[fit], decided[~fit] = found.cross_fitted, found.predict(logits[~fit])
    return decided, found


def tilt_and_calibration(
    logits: NDArray[np.float32], y: Ints, counts: ClassCounts
) -> tuple[dict[str, Any], dict[str, float]]:
    """tau, its interval and beta, and nll and ece: the audit's figures, without its search for causes.

    The race knows how every model was trained; to look for the cause would take longer than all of this.
    """
    tally = tally_predictions(from_arrays(logits=logits, target=y, train_counts=counts.counts))
    evidence = Evidence(tally, None, 1)
    tilt, found = audit_figures.tilt(evidence) or {}, metrics(tally, evidence.prior_counts)
    return {key: tilt.get(key) for key in ("tau", "tau_interval", "beta")}, {key: found[key] for key in ("nll", "ece")}


def measures(y: Ints, decided: NDArray[np.int32], judge: Judge) -> dict[str, Any]:
    """Every metric of the leaderboard, the recall of head, medium and tail, and the goal's own metric."""
    counts = count_vectors(y, decided, judge.counts.classes)
    shown = {key: METRICS[key] for key in REPORTED} | {judge.metric.key: judge.metric}
    values: dict[str, Any] = {key: float(metric.measure(*counts)) for key, metric in shown.items()}
    recall, groups = counts[2] / np.maximum(counts[0], 1), judge.aim.groups
    for number, name in enumerate(("head", "medium", "tail")):
        here = (groups == number) & (counts[0] > 0)
        values[name] = float(recall[here].mean()) if here.any() else None
    values["never_predicted"] = int(((counts[0] > 0) & (counts[1] == 0)).sum())
    return values


def calibration(found: Correction, logits: NDArray[np.float32], y: Ints) -> dict[str, float]:
    """Negative log-likelihood (nats per row) and expected calibration error of the corrected posteriors."""
    goal = 0.0 if found.goal_offset is None else found.goal_offset
    z = logits * np.asarray(found.scale) + found.offset - goal
    z -= z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    best = log_p.argmax(1)
    sure = np.exp(log_p[np.arange(len(y)), best])
    where = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = np.stack([np.bincount(where, w, BINS) for w in (np.ones(len(y)), sure, (best == y) * 1.0)], axis=1)
    return {"nll": float(-log_p[np.arange(len(y)), y].mean()), "ece": calibration_error(bins.astype(np.float64))}


def count_vectors(y: Any, decided: Any, classes: int) -> Floats:
    """(3, K) true, predicted and hit counts."""
    return np.stack([np.bincount(v, minlength=classes) for v in (y, decided, y[y == decided])]).astype(np.float64)
