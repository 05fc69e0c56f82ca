"""Rules that turn calibrated posteriors into a decision for a goal; none of them sees a label.

Sources: Menon et al., "Long-tail learning via logit adjustment" (2021), https://arxiv.org/abs/2007.07314, balanced
accuracy; Elkan, "The foundations of cost-sensitive learning" (2001), costs; Saerens et al. (2002),
https://doi.org/10.1162/089976602753284446, another prior; Schultheis et al., "Generalized test utilities for long-tail
performance in extreme multi-label classification" (2023), https://arxiv.org/abs/2311.05081, macro F1; Narasimhan et
al., "Consistent multiclass algorithms for complex performance measures" (2015),
https://proceedings.mlr.press/v37/narasimhanb15.html, the geometric mean and the worst group.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evenhand.declared import Floats, InputError
from evenhand.goals.aims import Aim, frequency_groups
from evenhand.goals.decisions import Decision, from_offset
from evenhand.goals.posteriors import Calibrated

ITERATIONS = 100  # of count matching
WARM_ITERATIONS = 10  # of count matching, from offsets found on nearly the same rows
STALLED = 12  # passes without a gain of a hundredth, after which count matching ends
OVERSHOOTS = 3  # passes in a row further from the wanted counts, after which the step of count matching is halved
PASSES = 12  # of the fixed points
WARM_PASSES = 4  # of the fixed points, from a decision found on nearly the same rows

Rule = Callable[[Calibrated, Aim, "Decision | None"], Decision]


def most_probable(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:  # noqa: ARG001
    """The most probable class is right most often."""
    return Decision(np.ones(len(aim.log_prior)))


def divide_by_prior(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:  # noqa: ARG001
    """The largest p_c / pi_c maximises the mean recall (Menon et al. 2021)."""
    return from_offset(-aim.log_prior)


def move_to_prior(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:  # noqa: ARG001
    """The largest q_c p_c / pi_c is right most often under the stated prior q (Saerens et al. 2002)."""
    if aim.stated_prior is None:
        raise InputError("the goal prior needs the prior where the model will be used; state it")
    return from_offset(np.log(aim.stated_prior) - aim.log_prior)


def least_cost(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:  # noqa: ARG001
    """``argmin_j sum_y C[y, j] p_y`` (Elkan 2001); with costs per class that is an offset log cost."""
    if aim.costs is None:
        raise InputError("the goal cost needs the costs of mistakes; state them per class or as a matrix")
    extra = aim.costs.extra
    return Decision(aim.costs.miss, None, None if extra is None else extra.astype(np.float32))


def meet_counts(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:
    """Offsets that make predicted counts meet the expected or the wanted ones."""
    return from_offset(match_counts(calibrated, aim.wanted, None if start is None else start.offset))


def match_counts(calibrated: Calibrated, wanted: Floats | None = None, start: Floats | None = None) -> Floats:
    """Offsets b for which ``argmax(beta z + c + b)`` predicts every class as often as wanted.

    Dual ascent on the counts: ``b_c += eta log((wanted_c + 1) / (m_c + 1))`` with m the counts predicted now and eta
    decreasing, halved and begun again from the best offsets when 3 passes in a row overshoot. It ends when the counts
    differ from the wanted ones by a quarter of what they would differ by in another sample of as many rows, when 12
    passes bring nothing, or after 100 (10 from a start). No label is used.

    Args:
        calibrated: the rows to match on.
        wanted: (K,) counts or shares; None for the soft counts, the number of rows each class is expected to have.
        start: (K,) offsets to begin with, for instance those of nearly the same rows; zero if None.

    Returns:
        (K,) offsets, the best ones seen.

    Limits:
        A class cannot be predicted more often than rows exist in which it can win; scores that are equal in many rows
        move together, so that their counts jump.

    Example:
        >>> from evenhand.tilt import Part
        >>> z = np.log(np.array([[0.6, 0.4]] * 5 + [[0.55, 0.45]] * 5, dtype=np.float32))
        >>> rows = Calibrated(z, 1.0, (Part(slice(None), np.zeros(2), np.zeros((2, 0))),))
        >>> np.bincount(rows.decide(match_counts(rows))).tolist()
        [5, 5]
    """
    target = calibrated.soft_counts() if wanted is None else np.asarray(wanted, np.float64)
    k = len(target)
    b = np.zeros(k) if start is None else start
    best, best_distance, gained = b, np.inf, 0
    # Many classes that win the same rows all rise at once and overshoot: one step size for all models does not exist.
    step, overshot, best_counts = 1.0, 0, b
    for iteration in range(ITERATIONS if start is None else WARM_ITERATIONS):
        decided = calibrated.decide(b)
        m = np.bincount(decided, minlength=k).astype(np.float64)
        target = target * (len(decided) / target.sum())
        distance = float(np.abs(m - target).sum())
        if distance < 0.99 * best_distance:
            gained = iteration
        if distance < best_distance:
            best, best_distance, best_counts, overshot = b, distance, m, 0
        else:
            overshot += 1
        if overshot == OVERSHOOTS:
            b, m, step, overshot = best, best_counts, step / 2, 0
        if iteration - gained >= STALLED or distance <= 0.25 * float(np.sqrt(2 / np.pi * target).sum()):
            break
        b = b + step * np.log((target + 1) / (m + 1)) / (2 + iteration / 15)
    return best


def balance_f1(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:
    """Macro F1 by its fixed point.

    A class with n expected rows, decided m times with t hits, has ``F = 2 t / (n + m)``. Deciding it for one more row
    of posterior p changes F by exactly ``(2 p - F) / (n + m + 1)``: each row takes the class that gains most. m and t
    follow, averaged over the passes; block-coordinate ascent makes the same comparison row after row (Schultheis et
    al. 2023).
    """

    def decision(m: Floats, hits: Floats, soft: Floats) -> Decision:
        f = 2 * hits / np.maximum(soft + m, 1e-12)
        return Decision(2 / (soft + m + 1), f / (soft + m + 1))

    def value(m: Floats, hits: Floats, soft: Floats) -> float:
        return float((2 * hits / np.maximum(soft + m, 1e-12)).mean())

    return _fixed_point(calibrated, aim, start, decision, value)


def balance_recalls(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:
    """Geometric mean of the recalls: the derivative of sum_c log t_c by the hits t is 1 / t, half a hit at the least.

    The sum is concave in the hits, so averaged steps (Frank-Wolfe) close in on its maximum (Narasimhan et al. 2015).
    """

    def decision(m: Floats, hits: Floats, soft: Floats) -> Decision:  # noqa: ARG001
        return Decision(1 / np.maximum(hits, 0.5))

    def value(m: Floats, hits: Floats, soft: Floats) -> float:  # noqa: ARG001
        return float(np.log(np.maximum(hits, 0.5)).mean())

    return _fixed_point(calibrated, aim, start, decision, value)


def _fixed_point(
    calibrated: Calibrated,
    aim: Aim,
    start: Decision | None,
    decision: Callable[[Floats, Floats, Floats], Decision],
    value: Callable[[Floats, Floats, Floats], float],
) -> Decision:
    """Decide by what was decided before, with averaged counts, and keep the best decision seen."""
    best = Decision(np.ones(len(aim.log_prior))) if start is None else start
    m, hits, soft = calibrated.outcome(best)
    reached = value(m, hits, soft)
    for turn in range(PASSES if start is None else WARM_PASSES):
        trial = decision(m, hits, soft)
        new_m, new_hits, _ = calibrated.outcome(trial)
        came = value(new_m, new_hits, soft)
        if came > reached:
            best, reached = trial, came
        step = 0.5 if turn < 4 else 2 / (turn + 2)
        m, hits = m + step * (new_m - m), hits + step * (new_hits - hits)
    return best


def lift_worst_group(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:
    """Largest smallest mean recall of head, medium and tail.

    Gains ``w_g / (K_g n_c)`` maximise the mean of the group recalls with weights w; the weight of a group that lags
    behind grows. At the optimum the groups with weight are equally good (a game against the worst group).
    """
    groups = frequency_groups(aim.log_prior) if aim.groups is None else aim.groups
    best = Decision(np.ones(len(groups))) if start is None else start
    _, hits, soft = calibrated.outcome(best)
    possible = soft > 1e-9  # a class that is masked everywhere has no recall
    sizes = np.bincount(groups, possible.astype(np.float64), 3)
    unit = np.maximum(soft, 1e-3 * soft.mean()) * np.maximum(sizes, 1)[groups]
    there = sizes > 0

    def recalls(hits: Floats) -> Floats:
        return np.where(there, np.bincount(groups, np.where(possible, hits / unit, 0.0), 3), np.inf)

    weight = there.astype(np.float64)
    if start is not None:  # gains are w_g / (K_g n_c): read the weights back
        weight = np.array([float(np.median((start.gain * unit)[groups == g])) if there[g] else 0.0 for g in range(3)])
    reached = float(recalls(hits).min())
    for turn in range(PASSES if start is None else WARM_PASSES):
        weight = weight / weight.sum()
        trial = Decision(np.maximum(weight, 1e-12)[groups] / unit)
        now = recalls(calibrated.outcome(trial)[1])
        if float(now.min()) > reached:
            best, reached = trial, float(now.min())
        lag = np.where(there, now[there].max() - np.where(there, now, 0.0), 0.0)
        weight = weight * np.exp((4.0 if turn < 4 else 12.0 / (turn + 1)) * lag)
    return best


def as_offset(rule: Rule) -> Rule:
    """The rule, with an offset in place of a decision that is none: the one that decides every class as often."""

    def foldable(calibrated: Calibrated, aim: Aim, start: Decision | None) -> Decision:
        found = rule(calibrated, aim, start)
        if found.additive:
            return found
        return from_offset(match_counts(calibrated, calibrated.outcome(found)[0]))

    return foldable
