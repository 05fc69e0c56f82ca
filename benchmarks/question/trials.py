"""One run: train by a remedy, look at the test rows at every checkpoint, and at the end try every decision."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import evenhand
from benchmarks.question import figures, networks
from benchmarks.question.data import Ints, QuestionSet, Rows
from benchmarks.question.remedies import Remedy
from evenhand.counts import log_prior
from evenhand.losses import DeferredReweighting, SoftmaxLoss

CHECKPOINTS = (1, 2, 5, 10, 20, 50, 100)
COOLING = 0.2
AUDITED_ROWS = 4_000


@dataclass(frozen=True)
class Budget:
    """epochs; rows per step; peak rate of AdamW; its decay. The rate falls linearly to 0 in the last fifth."""

    epochs: int
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-2


BUDGETS = {
    "stdlib": Budget(10, batch=256, rate=3e-3),
    "avonet": Budget(100),
    "kanjivg_radical": Budget(100, batch=256),
    "clinc150_lt": Budget(20),
    "names18": Budget(5),
    "banking77": Budget(8),
    "ud_finnish_morph": Budget(8),
    "ua_device": Budget(8),
    "onet_titles": Budget(8),
}
WIDE_LSTM = Budget(4, batch=256)  # an LSTM with a unit for each of 500 classes takes forty times as long per epoch


def budget_of(data: QuestionSet, remedy: Remedy, epochs: int | None) -> Budget:
    """The budget of a set, shorter where the LSTM is as wide as the classes and reads tokens; `epochs` overrides."""
    budget = WIDE_LSTM if data.vocabulary and remedy.head == "lstm" else BUDGETS[data.name]
    return budget if epochs is None else replace(budget, epochs=epochs)


def order_of(labels: Tensor, remedy: Remedy, generator: torch.Generator) -> Tensor:
    """Rows of one epoch: a shuffle, or a draw in which every class comes equally often."""
    if not remedy.sampler:
        return torch.randperm(len(labels), generator=generator)
    rate = 1.0 / torch.bincount(labels)[labels]
    return torch.multinomial(rate, len(labels), replacement=True, generator=generator)


def epochs_of(
    made: nn.Module, criterion: SoftmaxLoss, data: QuestionSet, remedy: Remedy, budget: Budget, seed: int
) -> Iterator[int]:
    """Train, yielding the number of epochs done after each; every remedy sees the same shuffles."""
    inputs, labels = torch.from_numpy(data.train.inputs), torch.from_numpy(data.train.labels)
    optimiser = torch.optim.AdamW(made.parameters(), lr=budget.rate, weight_decay=budget.decay, fused=True)
    steps = budget.epochs * -(-len(labels) // budget.batch)
    falling = max(1, round(COOLING * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (steps - step) / falling))
    deferred = DeferredReweighting(criterion, round((1 - COOLING) * budget.epochs)) if remedy.deferred else None
    generator = torch.Generator().manual_seed(seed)
    made.train()
    for epoch in range(budget.epochs):
        if deferred:
            deferred.step(epoch)
        for rows in order_of(labels, remedy, generator).split(budget.batch):
            optimiser.zero_grad()
            criterion(made(inputs[rows]), labels[rows]).backward()
            nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        yield epoch + 1


def both_tests(predicted: Ints, data: QuestionSet, part: Rows | None = None) -> dict[str, dict[str, float]]:
    """Figures of decisions under natural and equal class frequencies, on the test part unless another is given."""
    labels = (part or data.test).labels
    weights = figures.evaluations(labels, data.counts, balanced_evaluation=data.balanced_evaluation)
    return {name: figures.decided(predicted, labels, weight, data.counts) for name, weight in weights.items()}


def looked_at(scores: np.ndarray, data: QuestionSet) -> dict[str, Any]:
    """Everything about the largest score on the test rows."""
    predicted = scores.argmax(axis=1)
    weights = figures.evaluations(data.test.labels, data.counts, balanced_evaluation=data.balanced_evaluation)
    told: dict[str, Any] = both_tests(predicted, data)
    for name, weight in weights.items():
        told[name] |= figures.probabilistic(scores, data.test.labels, weight)
    told["recall"] = figures.recalls(predicted, data.test.labels, data.counts)
    return told | figures.tilt(scores, data.test.labels, data.counts, data.known_offset)


def corrections(data: QuestionSet, validation: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """`evenhand.fit_correction` for three goals, fitted on validation rows, judged on test rows."""
    told = {}
    natural = {"goal": "prior", "prior": data.counts} if data.balanced_evaluation else {"goal": "accuracy"}
    goals: dict[str, dict[str, Any]] = {
        "accuracy": natural, "balanced-accuracy": {"goal": "balanced-accuracy"}, "counts": {"goal": "counts"},
    }  # fmt: skip
    for name, options in goals.items():
        if name == "counts" and data.balanced_evaluation:
            options = options | {"wanted_counts": np.ones(data.classes)}
        fix = evenhand.fit_correction(validation, data.validation.labels, train_counts=data.counts, **options)
        told[f"fix {name}"] = both_tests(fix.predict(test), data) | {
            "recommended": fix.recommended, "model": fix.model, "tau": fix.evidence["tau"],
            "crossfitted": fix.evidence["after"],
        }  # fmt: skip
    return told


def own_rules(criterion: SoftmaxLoss, data: QuestionSet, validation: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """The decisions that the loss itself derives from the training counts; no validation row is needed for them."""
    told = {}
    for goal in ("accuracy", "balanced-accuracy"):
        rule = criterion.correction(goal)
        told[f"rule {goal}"] = both_tests(rule.predict(test.astype(np.float64)), data) | {
            "validation": both_tests(rule.predict(validation.astype(np.float64)), data, data.validation)
        }
    return told


def named_cause(remedy: Remedy, data: QuestionSet, validation: np.ndarray) -> dict[str, Any]:
    """What the audit says first about the validation rows when the training is declared as it was."""
    rows = slice(0, AUDITED_ROWS)
    found = evenhand.audit(
        logits=validation[rows], target=data.validation.labels[rows], train_counts=data.counts,
        class_weight=remedy.weight_rule, sampler="balanced" if remedy.sampler else None,
    )  # fmt: skip
    return {"cause": found.findings[0].cause, "pattern": found.pattern["name"]}


def run(data: QuestionSet, remedy: Remedy, seed: int, budget: Budget) -> dict[str, Any]:
    """All figures of one trained network, as plain values."""
    started = time.process_time()
    made = networks.network(data, remedy.head, seed)
    criterion = remedy.criterion(data.counts)
    test, validation = torch.from_numpy(data.test.inputs), torch.from_numpy(data.validation.inputs)
    curve = []
    level = log_prior(data.counts).astype(np.float32)
    for epoch in epochs_of(made, criterion, data, remedy, budget, seed):
        if epoch in CHECKPOINTS or epoch == budget.epochs:
            scores = networks.scores(made, test, remedy.head).numpy()
            told = {"epoch": epoch} | looked_at(scores, data)
            told["minus log prior"] = both_tests((scores - level).argmax(axis=1), data)
            told["plus log prior"] = both_tests((scores + level).argmax(axis=1), data)
            curve.append(told)
    trained = time.process_time() - started
    final, held_out = (networks.scores(made, part, remedy.head).numpy() for part in (test, validation))
    scale = networks.COSINE_SCALE if remedy.head == "cosine" else 1.0
    decisions = own_rules(criterion, data, held_out / scale, final / scale) | corrections(data, held_out, final)
    decisions["argmax"] = both_tests(final.argmax(axis=1), data)
    decisions["argmax"] |= {"validation": both_tests(held_out.argmax(axis=1), data, data.validation)}
    return {
        "set": data.name, "remedy": remedy.name, "seed": seed, "budget": asdict(budget),
        "curve": curve, "decisions": decisions, "audit": named_cause(remedy, data, held_out),
        "counts": counted(final.argmax(axis=1), data) if seed == 0 else None,
        "seconds": {"training": round(trained, 2), "all": round(time.process_time() - started, 2)},
    }  # fmt: skip


def counted(predicted: Ints, data: QuestionSet) -> dict[str, list[int]]:
    """True and predicted test counts per class, most frequent class in training first."""
    order = np.argsort(-data.counts, kind="stable")
    count = {"train": data.counts, "true": np.bincount(data.test.labels, minlength=data.classes)}
    count["predicted"] = np.bincount(predicted, minlength=data.classes)
    return {name: values[order].tolist() for name, values in count.items()}
