"""Causes that lie in the declared weight vector: incomplete, out of order, of other data, inverted by smoothing."""

from __future__ import annotations

import numpy as np

from evenhand.biases import BiasFit, fit_biases
from evenhand.causes import remedies
from evenhand.causes.judging import described, interval, tilt_evidence
from evenhand.causes.registry import TILT_CAUSES, Verdict, cause, percent, some_names
from evenhand.declared import Floats
from evenhand.evidence import SMALL_BIAS, Evidence
from evenhand.likelihood import Likelihood, Part
from evenhand.orders import Order, known_orders, weighted_correlation
from evenhand.scatter import evidence_for
from evenhand.tilt import optimum
from evenhand.weight_vector import WeightVector

BENT = 0.6  # a beta below this is not that of a sound network: the tilt that was fitted does not belong to the model
SIFTED_CELLS = 500_000  # scores on which every order is tried
CLEARLY = 12.0  # nats of evidence by which a wrong order must beat the right one


@cause("incomplete-weights", "EH201", "The weight vector does not cover the classes", explains=TILT_CAUSES)
def incomplete_weights(e: Evidence) -> Verdict | None:
    """Wrong length, missing class, zero, infinite or NaN weights."""
    w = e.declared.class_weight
    if w is None:
        return None
    if len(w) != e.classes:
        present = int(np.count_nonzero(e.prior_counts))
        hint = " (as many as classes have rows: absent classes were skipped)" if len(w) == present else ""
        return _incomplete(
            e,
            f"There are {len(w)} weights for {e.classes} classes{hint}, so weights belong to the wrong classes or to none.",
            {"weights": len(w), "classes": e.classes, "classes_with_rows": present},
        )
    v = e.weight_vector or WeightVector(w, e.prior_counts, e.train_given)
    # A zero for a class without training rows is a policy, not a mistake.
    bad = np.array([c for c in v.unusable if w[c] != 0 or e.prior_counts[c] > 0 or not e.train_given], dtype=np.int64)
    if len(bad):
        kinds = [f"{int(count)} {label}" for label, count in _kinds(w[bad]).items() if count]
        return _incomplete(
            e,
            f"{len(bad)} of {e.classes} classes have no usable weight ({', '.join(kinds)}): "
            f"{some_names(e, bad.tolist())}.",
            {"classes": bad[:20].tolist(), "count": len(bad)},
        )
    if len(v.defaults):
        return _incomplete(
            e,
            f"{len(v.defaults)} classes have weight exactly 1 while all others follow their counts "
            f"({some_names(e, v.defaults.tolist())}): they were missing from the weights and got the default.",
            {"classes": v.defaults[:20].tolist(), "count": len(v.defaults)},
        )
    return None


def _kinds(w: Floats) -> dict[str, int]:
    return {
        "zero": int((w == 0).sum()),
        "NaN": int(np.isnan(w).sum()),
        "infinite": int(np.isinf(w).sum()),
    }


def _incomplete(e: Evidence, sentence: str, evidence: dict[str, object]) -> Verdict:
    return Verdict(
        "fault",
        0.97,
        sentence,
        evidence | _measured(e),
        "Compute the weights over all class indices, with an explicit rule for classes without rows.",
        remedies.weight_snippets(),
    )


def _measured(e: Evidence) -> dict[str, object]:
    """The tilt without what was planned: a vector with holes predicts none."""
    plan = {"planned_tau", "expressed_fraction", "expressed_interval", "correlation_with_plan"}
    return {key: value for key, value in tilt_evidence(e).items() if key not in plan}


@cause("misordered-weights", "EH202", "The weights are in the wrong class order",
       explains=(*TILT_CAUSES, "argmax-amplification", "confused-pairs"))  # fmt: skip
def misordered_weights(e: Evidence) -> Verdict | None:
    """Weights in string-sorted, shifted, reversed, frequency-sorted or otherwise permuted order."""
    v = e.weight_vector
    if v is not None and not len(v.unusable):
        order = v.order
        if order is not None and not v.falls_the_wrong_way:
            return _misordered(e, order.name, v, 0.97 if v.exact else 0.85)
        if v.unnamed_order and not v.falls_the_wrong_way:
            return _misordered(e, None, v, 0.9)
    return _misordered_in_use(e, v)


def _misordered(e: Evidence, name: str | None, v: WeightVector, probability: float) -> Verdict:
    which = f"their order is: {name}" if name else "they are the right values on the wrong classes"
    sentence = (
        f"The declared weights do not follow the class counts (rank correlation {v.rank_correlation:.2f}), but {which}."
    )
    if e.plan_fit is not None:
        f, low, high = interval(e.plan_fit)
        sentence += f" The model expresses them by {f:.2f} ({low:.2f} to {high:.2f}) in that wrong order."
    return Verdict(
        "fault",
        probability,
        sentence,
        {"order": name, "rank_correlation": round(v.rank_correlation, 3)} | tilt_evidence(e),
        "Build the weights by class index, the index that the targets use, and retrain; until then subtract "
        "log(weight) from the logits.",
        remedies.weight_snippets(),
    )


def _misordered_in_use(e: Evidence, v: WeightVector | None) -> Verdict | None:
    """The declared vector is in order, but the model's class biases follow a permutation of it."""
    if not e.fitted or not e.imbalanced:
        return None
    order = _best_order(e, e.plan.direction if e.plan is not None else e.log_prior - e.log_prior.mean())
    if order is not None:
        return _in_use(e, order[0], order[1], 0.93 if v is not None else 0.75)
    return None


def _best_order(e: Evidence, direction: Floats) -> tuple[Order, float] | None:
    """The named order along which the biases point, and the fraction expressed along it.

    An order must explain the biases clearly better than the class order and than no direction at all, the biases that
    any model has being left to chance. With ten classes the best of twenty random directions gains five nats that way,
    and twelve once in a thousand times.
    """
    if e.biases is None:
        return None
    if e.beta < BENT:
        found = _order_by_likelihood(e, direction)
    else:
        one_step = np.sqrt(e.scatter[0]) < SMALL_BIAS
        if one_step and _leading_order(e, direction, e.biases, e.tilt_bias, CLEARLY / 2) is None:
            return None
        found = _leading_order(e, direction, e.full_biases, e.tilt_bias, CLEARLY)
    if found is None:
        return None
    gain, fraction = _gain_along(e, found.apply(direction))
    return (found, fraction) if gain > _gain_along(e, direction)[0] and 0.4 < fraction < 2.5 else None


def _leading_order(e: Evidence, direction: Floats, biases: BiasFit, around: Floats, lead: float) -> Order | None:
    """The named order with most evidence, if it leads the class order, the prior and no direction by so many nats.

    `biases` are those left around the tilt `around`.
    """
    v = biases.information
    bias = biases.bias * (1 + 1 / np.maximum(v, 0.02)) + around  # unshrunk: the prior on b had taken b / v away
    found: tuple[float, Order] | None = None
    for order in known_orders(e.prior_counts, e.declared.class_names):
        if not e.train_given and order.name.endswith("frequent first, inverted"):
            continue  # it follows the rank of a class among these very rows, and so does the noise of its bias
        evidence, fraction = evidence_for(bias, v, order.apply(direction))
        if fraction > 0.3 and (found is None or evidence > found[0] + 1e-9) and not _turned(e, direction, order):
            found = (evidence, order)
    rivals = (direction, e.log_prior, np.zeros(e.classes))
    if found is None or found[0] - max(evidence_for(bias, v, d)[0] for d in rivals) < lead:
        return None
    return found[1]


def _order_by_likelihood(e: Evidence, direction: Floats) -> Order | None:
    """The same where the true order makes the fit ignore the scores: the order is sought with a temperature of its own.

    Weights in a wrong order can make a model look as if it knew nothing, and then its biases cannot be seen around the
    true order. They can around the wrong one.
    """
    orders = list(known_orders(e.prior_counts, e.declared.class_names))
    found = _sifted(e, direction, orders, SIFTED_CELLS // e.classes)  # all on some rows, the first three on more
    found = _sifted(e, direction, [order for order, _, _ in found[:3]], 4 * SIFTED_CELLS // e.classes)
    for order, beta, tau in found:
        if 0.4 < tau < 2.5 and beta > BENT:
            tilt = tau * (order.apply(direction) - order.apply(direction).mean())
            around = (Part(slice(None), e.offset + tilt, np.zeros((e.classes, 0))),)
            return _leading_order(e, direction, fit_biases(e.z, e.y, beta, around, threads=e.threads), tilt, CLEARLY)
    return None


def _sifted(e: Evidence, direction: Floats, orders: list[Order], rows: int) -> list[tuple[Order, float, float]]:
    """(order, beta, tau) of the direction in each order on the first rows, most likely first."""
    some, found = slice(0, max(500, rows)), []
    for order in orders:
        wrong = order.apply(direction)[:, None]
        likelihood = Likelihood(e.z[some], e.y[some], (Part(slice(None), e.offset, wrong - wrong.mean()),), e.threads)
        theta, value, _ = optimum(likelihood, np.array([max(e.beta, BENT), 1.0]))
        found.append((-value[0], order, float(theta[0]), float(theta[1])))
    found.sort(key=lambda entry: entry[0])
    return [(order, beta, tau) for _, order, beta, tau in found]


def _turned(e: Evidence, direction: Floats, order: Order) -> bool:
    """Whether an order turns the direction round: that is the same as weights that act the wrong way.

    Sampled counts hide how nearly it does: their noise differs between a class and the one that it is put upon.
    """
    limit = 0.9
    if not e.train_given and e.plan is None:
        w = e.bias_weight / e.bias_weight.sum()
        noise, spread = float(w @ (1 / (e.prior_counts + 0.5))), float(w @ (direction - w @ direction) ** 2)
        limit = 0.8 * max(0.3, 1 - noise / max(spread, 1e-9))
    return weighted_correlation(order.apply(direction), direction, e.bias_weight) < -limit


def _gain_along(e: Evidence, direction: Floats) -> tuple[float, float]:
    """(log-likelihood gained over beta alone, fitted coefficient) along one direction."""
    planned = e.plan is not None and direction is e.plan.direction
    fit = e.plan_fit if planned and e.plan_fit is not None else e.fit_along(direction)
    return fit.log_likelihood - e.beta_only[1], float(fit.tau[0])


def _in_use(e: Evidence, order: Order, fraction: float, probability: float) -> Verdict:
    declared = e.plan is not None
    what = "your weights" if declared else "balanced weights"
    sentence = (
        f"The model's class biases follow {what} in the wrong order ({order.name}): {fraction:.2f} along that order, "
        f"while {described(e)} along the true one."
    )
    return Verdict(
        "fault",
        probability,
        sentence,
        {"order": order.name, "expressed_in_that_order": round(fraction, 3)} | tilt_evidence(e),
        "Build the weights by class index, the index that the targets use, and retrain; until then correct with free "
        "class offsets (goal accuracy of evenhand fix).",
        remedies.weight_snippets(),
        "" if declared else "Give the loss weights.",
    )


@cause("foreign-weights", "EH203", "The weights were computed from other counts", explains=TILT_CAUSES)
def foreign_weights(e: Evidence) -> Verdict | None:
    """Weights that follow counts, but not the training counts: another split, another version, padding included."""
    v = e.weight_vector
    if v is None or len(v.unusable) or not v.from_other_counts or v.outlier is not None:
        return None
    if v.order is not None or v.unnamed_order or v.falls_the_wrong_way:
        return None
    sentence = (
        f"The weights were computed from other counts than the training counts: they differ from any rule on them by "
        f"a factor of {np.exp(v.residual):.2f} typically (rank correlation {v.rank_correlation:.2f})."
    )
    return Verdict(
        "fault",
        0.85,
        sentence,
        {"residual": round(v.residual, 3), "rank_correlation": round(v.rank_correlation, 3)} | tilt_evidence(e),
        "Recompute the weights from the labels that the model is trained on, after splitting and without padding.",
        remedies.weight_snippets(),
    )


@cause("smoothing-with-weights", "EH204", "Label smoothing and weights invert the optimum",
       needs_scores=True, explains=TILT_CAUSES)  # fmt: skip
def smoothing_with_weights(e: Evidence) -> Verdict | None:
    """Smoothing mass is re-weighted too: beyond an imbalance of K(1-e)/e + 1 the rarest class beats a certain head."""
    smoothing, w = e.declared.label_smoothing, e.declared.class_weight
    if smoothing <= 0 or w is None or len(w) != e.classes or e.plan_fit is None:
        return None
    good = w[np.isfinite(w) & (w > 0)]
    if len(good) < 2:
        return None
    ratio, limit = float(good.max() / good.min()), e.classes * (1 - smoothing) / smoothing + 1
    if ratio <= limit:
        return _overshoot(e, smoothing, ratio, limit)
    if e.fraction_judged[2] < 0.5:
        return None
    top = np.flatnonzero(w >= ratio ** (-0.1) * good.max())
    share = float(e.tally.predicted[top].sum() / e.rows)
    true = float(e.tally.true[top].sum() / e.rows)
    sentence = (
        f"Label smoothing {smoothing:g} with weights of ratio {ratio:,.0f} inverts the optimum: beyond a ratio of "
        f"{limit:,.0f} the smoothing mass of the rarest classes outweighs a certain frequent class. The classes with "
        f"the largest weights receive {percent(share)} of the predictions and hold {percent(true)} of the rows."
    )
    return Verdict(
        "fault",
        0.95,
        sentence,
        {"ratio": round(ratio, 1), "limit": round(limit, 1), "predicted_share": share, "true_share": true}
        | tilt_evidence(e),
        "Use weights or label smoothing, not both; or cap the weights below that ratio.",
        remedies.weight_snippets(),
    )


def _overshoot(e: Evidence, smoothing: float, ratio: float, limit: float) -> Verdict | None:
    """Below the limit nothing inverts, but the re-weighted smoothing mass still adds to what the weights do."""
    plan = e.plan
    if plan is None or e.fit is None or plan.sampler_direction is not None:
        return None
    _, low, _ = e.tau_judged
    if low < max(1.1, plan.tau + 0.1):
        return None
    sentence = (
        f"Label smoothing {smoothing:g} adds to the weights: its mass is re-weighted too, so the model corrects more than "
        f"they ask for ({described(e)}; your weights predict {plan.tau:.2f}; the optimum inverts from a weight ratio of "
        f"{limit:,.0f} on, yours is {ratio:,.0f})."
    )
    return Verdict(
        "warning",
        0.85,
        sentence,
        {"ratio": round(ratio, 1), "limit": round(limit, 1)} | tilt_evidence(e),
        f"Use weights or label smoothing, not both; until then add {float(e.fit.tau[0]):.2f} * log prior to the logits.",
        remedies.offset_snippets(float(e.fit.tau[0])),
    )
