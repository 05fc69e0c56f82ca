"""Causes that tilt the log-odds along the class prior: weights, samplers, both, or the wrong way round."""

from __future__ import annotations

from evenhand.causes import remedies
from evenhand.causes.advising import remedy_for_part
from evenhand.causes.judging import (
    FULL,
    described,
    effective_plan,
    explained,
    expressed_in_full,
    interval,
    material,
    names_of,
    scattered,
    surely_less,
    surer,
    tilt_evidence,
    unfinished,
)
from evenhand.causes.registry import Verdict, cause, percent
from evenhand.evidence import Evidence
from evenhand.plan import Plan

SAMPLED = 0.4  # a sampler whose expressed fraction is surely below this left hardly a trace
NO_TRACE = 0.25  # a plan whose expressed fraction is surely below this left hardly a trace, and may lean the other way
DOUBLE = 1.2  # more than once, beyond what one balanced correction scatters by


@cause("double-correction", "EH304", "The class prior was divided out more than once",
       explains=("class-weights", "sampler", "partial-weights"))  # fmt: skip
def double_correction(e: Evidence) -> Verdict | None:
    """Tau above one: weights on top of a sampler, weights squared, weights with a prior-correcting loss."""
    if not e.scored:
        return _mirrored_labels(e)
    if e.fit is None:
        return None
    tau, low, _ = e.tau_judged
    plan = effective_plan(e)
    # With few rows per class the counts hide how rare the rare are: what is measured along them comes out too large.
    coarse = not e.train_given and e.rows < 5 * e.classes and plan is not None and plan.weight_direction is None
    both = plan is not None and plan.weight_tau > 0.3 and plan.sampler_tau > 0.3
    stronger_than_planned = (
        plan is not None and e.plan_fit is not None and plan.tau > 0.2 and e.fraction_judged[1] > 1.4 and low > 1.0
        and not coarse
    )  # fmt: skip
    as_planned = both and plan is not None and plan.tau > DOUBLE and e.fraction_judged[2] >= 0.7 and tau > 0.8
    # Without training counts tau is measured along evaluation counts; a plan expressed in full outvotes that scale.
    smoothed = e.declared.label_smoothing > 0 and plan is not None and plan.weight_direction is not None and not both
    untold = not e.train_given and plan is not None and 0 < plan.tau < 1.75 and e.fraction_judged[1] < 1.2
    in_doubt = smoothed or untold or coarse
    beyond_one = (low > DOUBLE and not in_doubt) or as_planned
    if not (beyond_one or stronger_than_planned) or not material(e, *e.tau_judged):
        return None
    if both:
        why = "Loss weights and a sampler both divide out the class frequencies, and the model expresses both."
    elif plan is not None:
        why = f"The model corrects for class frequency more strongly than one balanced correction; your {names_of(plan)} predict {plan.tau:.2f}."
    else:
        why = (
            "The model corrects for class frequency more than once, as with weights on top of a balanced sampler, "
            "squared weights, or weights with a prior-correcting loss."
        )
    sentence = f"{why} Predictions favour classes the rarer they are ({described(e)}{explained(e)})."
    return Verdict(
        "fault",
        0.97 if both or plan is not None else 0.9,
        sentence,
        tilt_evidence(e),
        "Keep one correction, not two: drop the sampler or the weights. Without retraining, add "
        f"{tau:.2f} * log prior to the logits.",
        remedies.offset_snippets(tau),
        surer(e),
    )


def _mirrored_labels(e: Evidence) -> Verdict | None:
    """Labels alone: predicted counts that mirror the true ones, which a single balanced correction does not do."""
    slope = e.pattern
    if slope is None or slope.interval[1] > -0.1 or e.spearman > -0.3 or e.hard_distance < max(0.1, 3 * e.noise):
        return None
    plan = effective_plan(e)
    planned = plan is not None and plan.tau > DOUBLE
    sentence = (
        "Predicted counts mirror the true ones: the rarer a class, the more often it is answered "
        f"(slope {slope.slope:.2f}, {slope.interval[0]:.2f} to {slope.interval[1]:.2f}). One balanced correction makes "
        "counts level; a mirror image takes about two"
        + (f", which is what your {names_of(plan)} ask for." if plan is not None and planned else ", or a broken head.")
    )
    return Verdict(
        "fault" if planned else "warning",
        0.85 if planned else 0.6,
        sentence,
        {"slope": round(slope.slope, 3), "slope_interval": [round(v, 3) for v in slope.interval]},
        "Look for weights on top of a sampler, squared weights, or weights with a prior-correcting loss; keep one of them.",
        remedies.weight_snippets(),
        "Give the logits: they tell how far the model is tilted, and whether the head is to blame.",
    )


@cause("inverted-weights", "EH305", "The weights favour the frequent classes", needs_scores=True,
       explains=("partial-weights", "class-weights", "argmax-amplification"))  # fmt: skip
def inverted_weights(e: Evidence) -> Verdict | None:
    """Weights proportional to frequency, or applied the wrong way: tau clearly negative."""
    if e.fit is None:
        return None
    tau, low, high = e.tau_judged
    plan = effective_plan(e)
    declared_inverted = plan is not None and plan.tau < -0.2 and plan.correlation < -0.5 and _grows(e, plan)
    if plan is not None and plan.tau < -0.1 and not declared_inverted:
        return None  # a few classes chosen by hand that happen to be frequent, not a rule turned round
    if not declared_inverted and unfinished(e, tau):
        return None
    if not material(e, tau, low, high) or tau > 0:
        expressed = (
            declared_inverted
            and e.plan_fit is not None
            and high < 0
            and e.fraction_judged[1] > 0
            and e.fraction_judged[2] > FULL
        )
        if not expressed:
            return None
    if plan is None and not e.train_given:
        sentence = (
            f"The model favours frequent classes more than their frequency in these rows warrants ({described(e)}"
            f"{explained(e)}): either weights that grow with the counts, or training data more imbalanced than these rows."
        )
    elif plan is None:
        sentence = (
            f"The model favours frequent classes more than their frequency warrants ({described(e)}{explained(e)}), "
            "as weights proportional to the counts do."
        )
    elif declared_inverted:
        sentence = (
            f"Your {names_of(plan)} grow with the class counts instead of shrinking, and the model follows them "
            f"({described(e)}; they predict {plan.tau:.2f})."
        )
    else:
        sentence = (
            f"Your {names_of(plan)} favour rare classes, yet the model is tilted towards the frequent ones "
            f"({described(e)}; expected {plan.tau:+.2f}): they act the wrong way round."
        )
    return Verdict(
        "fault",
        0.95 if plan is not None else 0.6 if e.train_given else 0.45,
        sentence,
        tilt_evidence(e),
        "Use weights that shrink with the counts, for instance N / (K n_c). Without retraining, add "
        f"{tau:.2f} * log prior to the logits.",
        remedies.offset_snippets(tau) | remedies.weight_snippets(),
        surer(e),
    )


@cause(
    "class-weights", "EH301", "The loss weights did what they ask for", needs_scores=True, explains=("confused-pairs",)
)
def class_weights(e: Evidence) -> Verdict | None:
    """The tilt that the declared weights predict is there, about once; or a tilt that nobody declared."""
    if e.fit is None:
        return _weights_among_equals(e)
    tau, low, high = e.tau_judged
    plan = effective_plan(e)
    if plan is None:
        return _undeclared(e, tau, low, high)
    if plan.weight_direction is None or not expressed_in_full(e, plan):
        return None
    sentence = (
        f"The loss weights did what they ask for: the model answers {_as_if(tau)} ({described(e)}; your "
        f"{names_of(plan)} predict {plan.tau:.2f}{explained(e)})."
    )
    return Verdict(
        "warning",
        0.95,
        sentence,
        tilt_evidence(e),
        f"If accuracy is the goal, add {tau:.2f} * log prior to the logits, no retraining needed; if right counts are, "
        "use the goal counts of evenhand fix. If balanced accuracy is the goal, keep the weights.",
        remedies.offset_snippets(tau),
        surer(e),
    )


def _grows(e: Evidence, plan: Plan) -> bool:
    """Whether the declared weights, if any, rise with the counts class by class, as an inverted rule does."""
    return plan.weight_direction is None or (e.weight_vector is not None and e.weight_vector.falls_the_wrong_way)


def _weights_among_equals(e: Evidence) -> Verdict | None:
    """Equally frequent classes have no prior to divide out, but weights chosen for other reasons act all the same."""
    plan = effective_plan(e)
    if plan is None or plan.weight_direction is None or e.plan_fit is None:
        return None
    fraction, low, high = interval(e.plan_fit)
    if low < 0.5 or high < FULL:
        return None
    return Verdict(
        "warning",
        0.93,
        "The loss weights did what they ask for: classes with larger weights are answered more often "
        f"({fraction:.2f} of them is expressed, {low:.2f} to {high:.2f}).",
        {"expressed_fraction": round(fraction, 3), "expressed_interval": [round(low, 3), round(high, 3)]},
        "If that is not what you want, subtract log(weight) from the logits, no retraining needed.",
        {},
        surer(e),
    )


def _as_if(tau: float) -> str:
    if tau > 0.75:
        return "as if all classes were equally frequent"
    return "as if class frequencies differed less than they do" if tau > 0 else "as if they differed more than they do"


def _undeclared(e: Evidence, tau: float, low: float, high: float) -> Verdict | None:
    smoothed = e.declared.label_smoothing > 0 and tau < 0.6  # smoothing lifts rare classes by itself
    vague = e.share is not None and e.share < 0.5  # most of the class bias lies elsewhere, and nothing was declared
    if not material(e, tau, low, high) or tau < 0 or smoothed or vague:
        return None
    sentence = (
        f"The model answers {_as_if(tau)} ({described(e)}{explained(e)}). Class weights or a balanced sampler do "
        "this; neither was declared, so which of the two it was cannot be told from the predictions."
    )
    return Verdict(
        "warning",
        0.55,
        sentence,
        tilt_evidence(e) | {"shared_with": "sampler"},
        f"If accuracy is the goal, add {tau:.2f} * log prior to the logits; if right counts are, use the goal counts of "
        "evenhand fix. Look for class_weight, weight= or a weighted sampler in the training code.",
        remedies.offset_snippets(tau),
        surer(e),
    )


@cause("sampler", "EH303", "The sampler did what it asks for", needs_scores=True)
def sampler(e: Evidence) -> Verdict | None:
    """The tilt of a declared sampler, with no weights declared."""
    plan = effective_plan(e)
    if e.fit is None or plan is None or plan.sampler_direction is None or plan.weight_direction is not None:
        return None
    if e.plan_fit is None or e.fraction_judged[1] <= 0.1 or e.fraction_judged[2] < SAMPLED:
        return None
    tau = float(e.fit.tau[0])
    part = surely_less(e)
    did = f"only {percent(max(e.fraction_judged[0], 0))} of what it asks for" if part else "what it asks for"
    sentence = (
        f"The sampler did {did}: the model answers {_as_if(tau)} ({described(e)}; your sampler rates "
        f"predict {plan.tau:.2f}{explained(e)})."
    )
    return Verdict(
        "warning",
        0.95,
        sentence,
        tilt_evidence(e),
        f"If accuracy is the goal, add {tau:.2f} * log prior to the logits, no retraining needed; if right counts are, "
        "use the goal counts of evenhand fix. If balanced accuracy is the goal, keep the sampler.",
        remedies.offset_snippets(tau),
        surer(e),
    )


@cause("partial-weights", "EH302", "The weights, or the sampler, are expressed only in part", needs_scores=True,
       explains=("argmax-amplification",))  # fmt: skip
def partial_weights(e: Evidence) -> Verdict | None:
    """Weights declared, but the model holds clearly less of their tilt; or a sampler that left hardly any."""
    plan = effective_plan(e)
    if e.fit is None or plan is None or e.plan_fit is None:
        return None
    fraction, low, high = e.fraction_judged
    if plan.weight_direction is None:
        return _sampler_without_trace(e, plan)
    elsewhere = scattered(e, plan)
    if not (surely_less(e) or (elsewhere and plan.spread > 0.4)) or plan.spread < 0.1:
        return None
    if fraction < -0.2 and high >= NO_TRACE:
        return None  # too vague to say that the model does not lean the planned way
    batch = e.declared.batch_size
    hints = ["long training (overfitted networks lose the effect of weights)"]
    if batch is not None and batch <= 32 and e.declared.reduction in (None, "mean"):
        hints.insert(0, f"reduction='mean' over batches of {batch} rows, which cancels large weights")
    else:
        hints.append("small batches with reduction='mean'")
    none = high < NO_TRACE
    said = "leave hardly a trace in the model" if none else f"are expressed by {percent(max(fraction, 0))} only"
    if elsewhere:
        said = "are not what the model's class biases follow: those scatter around them as widely as the plan itself"
    sentence = (
        f"Your {names_of(plan)} {said} (fraction {fraction:.2f}, {low:.2f} to {high:.2f}; {described(e)} where they "
        f"predict {plan.tau:.2f}). Usual reasons: {', '.join(hints)}, or weights that never reached the loss."
    )
    return Verdict(
        "note" if none else "warning",
        0.85,
        sentence,
        tilt_evidence(e) | {"likely_reasons": hints},
        *remedy_for_part(float(e.fit.tau[0])),
        surer(e),
    )


def _sampler_without_trace(e: Evidence, plan: Plan) -> Verdict | None:
    """A sampler of which hardly anything is expressed; the cause `sampler` speaks of one that acts at least in part."""
    fraction, low, high = e.fraction_judged
    vague = fraction < -0.2 and high >= NO_TRACE
    if high >= SAMPLED or vague or not surely_less(e) or plan.spread < 0.1 or e.fit is None:
        return None
    sentence = (
        f"Your sampler leaves hardly a trace in the model (fraction {fraction:.2f}, {low:.2f} to {high:.2f}; "
        f"{described(e)} where its rates predict {plan.tau:.2f}). Usual reasons: a sampler that was built but not handed to "
        "the loader, rates that are not those in use, or long training on repeated rows."
    )
    return Verdict(
        "note" if high < NO_TRACE else "warning",
        0.8,
        sentence,
        tilt_evidence(e),
        *remedy_for_part(float(e.fit.tau[0])),
        surer(e),
    )
