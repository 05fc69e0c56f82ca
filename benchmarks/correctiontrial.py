"""One correction tried out: fitted on one half of the held-out rows, judged beside its peers on the other half."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import correctionpeers as peers
from benchmarks.correctionnets import Scored
from evenhand.correction import Correction, fit_correction
from evenhand.declared import InputError
from evenhand.goals import GOALS, Aim, Goal, MeanCost, Metric, as_costs, frequency_groups, stated_prior

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EVALUATIONS = ("natural", "balanced")
LEAST_CAP = 10
DRAWS = 300
BLOCK = 50
OURS, TUNED, FIXED, ARGMAX = "evenhand", "evenhand, tuned", "evenhand, as fitted", "argmax"


@dataclass(frozen=True)
class Trial:
    """One goal on one network.

    Attributes:
        fitted_on, judged_on: rows. recommended, why, calibration, share: what the correction says of itself.
        promised: change of the goal's metric as cross-fitted on the first half, oriented so that more is better.
        sign: +1 where more of the metric is better. values: method -> metric on the second half.
        draws: method -> (DRAWS,) the same in a paired bootstrap over rows; empty where the trial was read from a file.
        changed: rows decided otherwise than by the argmax. harm_p: one-sided p-value of "worse than the argmax".
        gain_interval: 95 %, by the standard deviation of the paired bootstrap.
    """

    data: str
    seed: int
    model: str
    evaluation: str
    goal: str
    fitted_on: int
    judged_on: int
    recommended: bool
    why: str
    calibration: str
    share: float
    promised: float
    sign: int
    values: dict[str, float]
    draws: dict[str, Floats]
    changed: int
    harm_p: float = 1.0
    gain_interval: tuple[float, float] = (-np.inf, np.inf)

    @property
    def gain(self) -> float:
        """Over the argmax, oriented so that more is better."""
        return self.sign * (self.values[OURS] - self.values[ARGMAX])


def row_hashes(rows: int, seed: int) -> Ints:
    return np.array([zlib.crc32(f"{seed}/{row}".encode()) for row in range(rows)], np.int64)


def _rank_in_class(target: Ints, hashes: Ints) -> Ints:
    """(N,) 0 for the row of a class with the smallest hash, 1 for the next, and so on."""
    order = np.lexsort((hashes, target))
    sorted_target = target[order]
    first = np.searchsorted(sorted_target, sorted_target)
    rank = np.empty(len(target), np.int64)
    rank[order] = np.arange(len(target)) - first
    return rank


def evaluation_rows(scored: Scored, evaluation: str, seed: int) -> Ints:
    """Rows with the class frequencies of training (natural), or with the frequent classes cut down (balanced).

    Balanced keeps per class at most as many rows as the median class has, and at most 10 where that is fewer. Where the
    test part is balanced by design it is taken whole, and natural thins it to the training frequencies.
    """
    rank = _rank_in_class(scored.target, row_hashes(len(scored.target), seed))
    counts = np.bincount(scored.target, minlength=len(scored.train_counts))
    if evaluation == "natural":
        share = scored.train_counts / scored.train_counts.max() if scored.shifted else np.ones(len(counts))
        kept = np.maximum(np.rint(counts * share), 1)
    else:
        cap = max(LEAST_CAP, int(np.median(counts[counts > 0])))
        kept = counts if scored.shifted else np.minimum(counts, cap)
    return np.flatnonzero(rank < kept[scored.target])


def halves(target: Ints, seed: int) -> tuple[Ints, Ints]:
    """Fit and judge: every class is halved in the order of the row hashes; its odd row falls where its hash says."""
    hashes = row_hashes(len(target), seed + 1_000_003)
    rank = _rank_in_class(target, hashes)
    first = np.zeros(int(target.max()) + 1, np.int64)
    first[target[rank == 0]] = hashes[rank == 0] % 2
    side = (rank + first[target]) % 2
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def stated_aim(train_counts: Ints) -> tuple[Floats, Floats]:
    """What a user states: a missed class costs the square root of its rarity; a prior halfway to equal frequencies."""
    rarity = train_counts.max() / np.maximum(train_counts, 1)
    prior = np.sqrt(train_counts / train_counts.sum())
    return np.sqrt(rarity), prior / prior.sum()


def tried_goals(names: list[str]) -> tuple[list[Goal], list[str]]:
    """The goals that can be tried, and those that need something this benchmark cannot state."""
    chosen = [GOALS[name] for name in names]
    return [g for g in chosen if g.needs in ("", "costs", "prior")], [
        g.name for g in chosen if g.needs not in ("", "costs", "prior")
    ]


def trials(
    scored: Scored, goals: list[Goal], *, data: str, seed: int, model: str, evaluation: str, absent: dict[str, str]
) -> Iterator[Trial]:
    """Every goal on one network and one evaluation."""
    rows = evaluation_rows(scored, evaluation, seed)
    z, y = scored.logits[rows], scored.target[rows]
    fit, judge = halves(y, seed)
    k = z.shape[1]
    costs, prior = stated_aim(scored.train_counts)
    frequency = (np.bincount(y[fit], minlength=k) + 0.5) / (len(fit) + 0.5 * k)
    stated = peers.Stated(frequency, costs, prior)
    beta = None if "sklearn" in absent else peers.scikit_learn_temperature(z[fit], y[fit])
    common = {ARGMAX: z[judge].argmax(axis=1), "logit adjustment": peers.logit_adjusted(z[judge], scored.train_counts)}
    log_p = None if beta is None else peers.tempered(z[judge], beta)
    weights = np.random.default_rng(seed).poisson(1.0, (DRAWS, len(judge))).astype(np.float64)
    for goal in goals:
        needed = {"costs": costs, "prior": prior}
        given: dict[str, Any] = {goal.needs: needed[goal.needs]} if goal.needs else {}
        try:
            fix = fit_correction(z[fit], y[fit], goal=goal.name, train_counts=scored.train_counts, seed=seed, **given)
        except InputError:
            continue  # too few rows or classes in this half: no product, no promise
        decided = dict(common)
        if log_p is not None:
            decided["temperature and the usual rule"] = peers.usual_rule(goal.name, log_p, stated)
        if goal.name == "macro-f1" and "xcolumns" not in absent:
            if log_p is not None:
                decided["temperature and xCOLUMNs"] = peers.block_coordinate_f1(np.exp(log_p))
            decided["evenhand's posteriors and xCOLUMNs"] = peers.block_coordinate_f1(
                fix.posterior(z[judge]).astype(np.float64)
            )
        decided |= ours(fix, z[judge], tune=goal.fitted)
        metric = _bound(goal, scored.train_counts, costs, prior, np.log(frequency))
        values, draws = measured(metric, y[judge], decided, weights, k)
        yield _trial(fix, metric, values, draws, decided, (len(fit), len(judge)), (data, seed, model, evaluation))


def ours(fix: Correction, z: NDArray[Any], *, tune: bool) -> dict[str, Ints]:
    """Decisions as `evenhand fix --apply` takes them: for macro F1 worked out on the judged rows, as xCOLUMNs does."""
    fixed = np.asarray(fix.predict(z))
    if not tune:
        return {OURS: fixed}
    try:
        tuned = np.asarray(fix.tuned_to(z).predict(z))
    except InputError:  # a goal whose decision is the same for all rows
        return {OURS: fixed}
    return {OURS: tuned, FIXED: fixed} if fix.goal == "macro-f1" else {OURS: fixed, TUNED: tuned}


def _bound(goal: Goal, train_counts: Ints, costs: Floats, prior: Floats, log_frequency: Floats) -> Metric:
    aim = Aim(
        log_frequency,
        costs=as_costs(costs, len(costs)),
        stated_prior=stated_prior(prior, len(prior)),
        groups=frequency_groups(train_counts.astype(np.float64)),
    )
    return goal.metric.bound(aim)


def measured(
    metric: Metric, y: Ints, decided: dict[str, Ints], weights: Floats, classes: int
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Each method's metric, and the same for every draw of row weights; the draws are shared, so they pair."""
    values, draws = {}, {}
    one = np.ones((1, len(y)))
    for name, answer in decided.items():
        values[name] = float(_weighed(metric, y, answer, one, classes)[0])
        blocks = [weights[start : start + BLOCK] for start in range(0, len(weights), BLOCK)]
        draws[name] = np.concatenate([_weighed(metric, y, answer, block, classes) for block in blocks])
    return values, draws


def _weighed(metric: Metric, y: Ints, answer: Ints, weights: Floats, classes: int) -> Floats:
    if isinstance(metric, MeanCost):
        return np.asarray(weights @ metric.per_row(y, answer) / weights.sum(axis=1))
    hit = y == answer
    counts = np.stack(
        [
            [np.bincount(y, w, classes), np.bincount(answer, w, classes), np.bincount(y[hit], w[hit], classes)]
            for w in weights
        ]
    )
    return np.asarray(metric.measure(counts[:, 0], counts[:, 1], counts[:, 2]), np.float64)


def _trial(
    fix: Correction,
    metric: Metric,
    values: dict[str, float],
    draws: dict[str, Floats],
    decided: dict[str, Ints],
    sizes: tuple[int, int],
    run: tuple[str, int, str, str],
) -> Trial:
    promised = metric.sign * (fix.evidence["after"][metric.key] - fix.evidence["before"][metric.key])
    trial = Trial(
        *run, fix.goal, *sizes, fix.recommended, fix.why, fix.model, float(fix.evidence.get("share", 0.0)), promised,
        metric.sign, values, draws, int((decided[OURS] != decided[ARGMAX]).sum()),
    )  # fmt: skip
    return tested(trial)


def tested(trial: Trial) -> Trial:
    """With its interval and one-sided p-value by the normal approximation: how surprising the loss, were there none."""
    from scipy.special import ndtr

    spread, gain = float((trial.draws[OURS] - trial.draws[ARGMAX]).std()), trial.gain
    p_value = float(ndtr(gain / spread)) if spread > 0 else float(gain >= 0)
    return replace(trial, harm_p=p_value, gain_interval=(gain - 1.96 * spread, gain + 1.96 * spread))


def holm(p_values: list[float], level: float = 0.05) -> list[bool]:
    """Which hypotheses are rejected when the chance of any false rejection is at most `level` (Holm 1979)."""
    order, rejected = np.argsort(p_values), [False] * len(p_values)
    for position, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - position):
            break
        rejected[index] = True
    return rejected
