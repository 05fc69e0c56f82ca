"""Each loss's rule at test time, proved by minimising the loss: the rule must find the Bayes decision."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from evenhand import InputError, losses  # noqa: E402

K = 4
WEIGHT = [0.3, 2.0, 1.0, 4.0]


def table(seed, points=6):
    """Training rows by point and class, (points, K): the whole distribution, so that its minimiser is the truth's."""
    rows = np.random.default_rng(seed).integers(1, 400, (points, K)) * np.array([8, 4, 2, 1])
    return rows // (1 + np.random.default_rng(seed + 1).integers(0, 5, (points, K))) + 1


def minimise(loss, rows):
    """(points, K) logits that minimise the loss over the distribution, point by point, by L-BFGS in float64."""
    return torch.cat([minimise_at(loss, torch.as_tensor(point)) for point in rows / rows.sum(1, keepdims=True)])


def minimise_at(loss, truth):
    z = truth.log()[None].requires_grad_()
    label = torch.arange(len(truth))
    optimiser = torch.optim.LBFGS(
        [z], max_iter=500, tolerance_grad=1e-9, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = loss(z.expand(len(truth), -1), label, sample_weight=truth)
        value.backward()
        return value

    optimiser.step(closure)
    assert z.grad.abs().max() < 1e-7
    return z.detach()


CASES = {
    "plain": ("cross-entropy", {}),
    "weights": ("cross-entropy", {"weight": WEIGHT}),
    "balanced weights": ("weighted", {}),
    "square-root weights": ("weighted", {"rule": "sqrt"}),
    "z-loss": ("weighted", {"z_loss": 0.1}),
    "effective number": ("class-balanced", {"beta": 0.99}),
    "class-balanced focal": ("class-balanced", {"beta": 0.99, "phi": "focal", "gamma": 1.0}),
    "focal": ("focal", {"gamma": 2.0}),
    "focal below 1": ("focal", {"gamma": 0.5}),
    "focal by class": ("focal", {"gamma": [0.0, 0.5, 1.0, 3.0]}),
    "focal, alpha": ("focal", {"alpha": "balanced"}),
    "focal, one alpha": ("focal", {"alpha": 0.25}),
    "focal, weights": ("focal", {"weight": WEIGHT, "gamma": 1.5}),
    "margin": ("ldam", {"scale": 2.0}),
    "margin, weights": ("ldam", {"scale": 1.0, "max_margin": 2.0, "weight": WEIGHT}),
    "no margin": ("ldam", {"scale": 2.0, "max_margin": 0.0}),
    "balanced softmax": ("balanced-softmax", {}),
    "logit-adjusted": ("logit-adjusted", {"tau": 0.6}),
    "logit-adjusted, weights": ("logit-adjusted", {"tau": 1.5, "weight": WEIGHT}),
    "scale": ("cdt", {"gamma": 0.4}),
    "scale and offset": ("vs", {"gamma": 0.3, "tau": 1.2, "weight": WEIGHT}),
    "poly": ("poly", {"epsilon": 2.0}),
    "poly below 0": ("poly", {"epsilon": -0.9, "weight": WEIGHT}),
    "poly focal": ("poly", {"epsilon": 1.0, "gamma": 2.0, "weight": WEIGHT}),
    "generalised": ("gce", {"q": 0.4}),
    "generalised, weights": ("gce", {"q": 0.3, "weight": WEIGHT}),
    "generalised, adjusted": ("gla", {"q": 0.3, "tau": 0.7}),
    "one target temperature": ("gca", {"q": 0.3, "rho": 0.5}),
    "smoothing": ("cross-entropy", {"label_smoothing": 0.2}),
    "torch's smoothing, weights": ("cross-entropy", {"label_smoothing": 0.2, "weight": WEIGHT}),
    "own smoothing, weights": ("weighted", {"label_smoothing": 0.2, "smoothing_mass": "uniform"}),
    "smoothing by class": ("label-aware-smoothing", {"head": 0.4, "tail": 0.1}),
    "smoothing by class, weights": ("label-aware-smoothing", {"weight": WEIGHT}),
    "torch's smoothing by class": ("label-aware-smoothing", {"weight": WEIGHT, "smoothing_mass": "weighted"}),
    "over-smoothing": ("los", {"label_smoothing": 0.9}),
    "smoothing, adjusted": ("vs", {"label_smoothing": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule_finds_the_bayes_decision(case):
    name, options = CASES[case]
    rows = table(0)
    counts = rows.sum(0)
    loss = losses.build(name, counts, **options)
    z = minimise(loss, rows)
    truth = np.log(rows / rows.sum(1, keepdims=True))
    for goal, score in (("accuracy", truth), ("balanced-accuracy", truth - np.log(counts / counts.sum()))):
        rule = loss.correction(goal)
        assert rule.exact
        first, second = np.sort(score, 1)[:, :-3:-1].T
        clear = first - second > 1e-3
        assert clear.any()
        answer = rule.predict(z)
        assert (answer.numpy() == score.argmax(1))[clear].all(), (goal, answer, score.argmax(1))
        if goal == "balanced-accuracy":  # the balanced rule always yields log-probabilities, not an order alone
            found = rule.apply(z).numpy()
            np.testing.assert_allclose(
                found - found.mean(1, keepdims=True), score - score.mean(1, keepdims=True), atol=2e-3
            )


UNKNOWN = {
    "gca": {},
    "influence-balanced": {},
    "seesaw": {},
    "seql": {},
    "gcl": {},
    "gce": {"q": 1.0},
    "focal": {"label_smoothing": 0.1},
    "ldam": {"label_smoothing": 0.1},
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("training", [True, False])
def test_where_no_rule_follows_it_is_the_largest_logit_and_says_so(name, training):
    loss = losses.build(name, [40, 30, 20, 10], **UNKNOWN[name]).train(training)
    z = torch.randn(5, K)
    for goal in ("accuracy", "balanced-accuracy"):
        rule = loss.correction(goal)
        assert not rule.exact
        assert "fit_correction" in rule.why
        assert torch.equal(rule.predict(z), z.argmax(1))


def test_an_influence_balanced_loss_that_is_not_active_yet_is_weighted_cross_entropy():
    loss = losses.build("influence-balanced", [40, 30, 20, 10], active=False)
    assert loss.correction("accuracy").exact
    np.testing.assert_allclose(loss.correction("accuracy").offset, -np.log(loss.weight.numpy()), rtol=1e-6)


def test_dropping_scale_and_offset_as_the_authors_do_is_not_the_bayes_decision():
    rows = table(3, points=40)
    z = minimise(losses.build("vs", rows.sum(0), gamma=0.3, tau=1.2), rows)
    assert (z.argmax(1).numpy() != rows.argmax(1)).mean() > 0.2
    assert (z.argmax(1).numpy() != (rows / rows.sum(0)).argmax(1)).any()


def test_a_deferred_weight_changes_the_rule():
    loss = losses.build("cross-entropy", [90, 9, 1])
    deferred = losses.DeferredReweighting(loss, 2, "balanced")
    deferred.step(1)
    assert not loss.correction().offset.any()
    deferred.step(2)
    np.testing.assert_allclose(
        loss.correction().offset, -np.log(losses.build("weighted", [90, 9, 1]).weight.numpy()), rtol=1e-6
    )


def test_a_rule_keeps_the_weights_of_its_time():
    loss = losses.build("focal", [90, 9, 1], weight="balanced")
    rule, z = loss.correction(), torch.randn(4, 3)
    before = rule.apply(z)
    loss.weight.fill_(1.0)
    assert torch.equal(rule.apply(z), before)


@pytest.mark.parametrize("name", ["weighted", "focal", "ldam", "label-aware-smoothing"])
def test_arrays_tensors_and_layouts_give_the_same_answer(name):
    rule = losses.build(name, [40, 30, 20, 10]).correction("balanced-accuracy")
    z = torch.randn(2, 3, K, dtype=torch.float64, requires_grad=True)
    expected = rule.apply(z.detach())
    assert expected.dtype == torch.float64
    assert expected.shape == z.shape
    np.testing.assert_allclose(rule.apply(z.detach().numpy()), expected)
    assert isinstance(rule.apply(z.detach().numpy()), np.ndarray)
    assert rule.apply(z.detach().numpy().astype(np.float32)).dtype == np.float32
    torch.testing.assert_close(rule.apply(z[0, 0]).detach(), expected[0, 0])
    assert rule.apply(z.bfloat16()).dtype == torch.bfloat16
    assert rule.predict(z[:0]).shape == (0, 3)
    with torch.inference_mode():
        torch.testing.assert_close(rule.apply(z.detach().clone()), expected)
    for wrong in (torch.zeros(3, K + 1), torch.tensor(1.0), np.zeros(2)):
        with pytest.raises(InputError, match="4 classes on the last axis"):
            rule.apply(wrong)


@pytest.mark.parametrize("name", ["focal", "ldam", "poly", "los", "label-aware-smoothing"])
def test_blocks_of_rows_and_saturated_rows(name, monkeypatch):
    rule = losses.build(name, [40, 30, 20, 10]).correction("balanced-accuracy")
    assert isinstance(rule, losses.PosteriorRule)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(50, K, generator=generator, dtype=torch.float64) * torch.logspace(-2, 4, 50)[:, None]
    whole = rule.apply(z)
    assert torch.isfinite(whole).all()
    monkeypatch.setattr("evenhand.losses.decisions.implied._BLOCK", 3 * K)
    torch.testing.assert_close(rule.apply(z), whole, rtol=1e-12, atol=1e-12)
    z[:, 2] = -torch.inf
    masked = rule.apply(z)
    assert not masked.isnan().any()
    assert (masked.argmax(1) != 2).all()


def test_a_class_of_weight_zero_is_never_answered():
    weight = [1.0, 0.0, 2.0]
    zero = {"weight": weight}
    for name, options in (("cross-entropy", zero), ("focal", zero), ("los", zero), ("focal", {"alpha": weight})):
        present = losses.build(name, [5, 4, 3], **options).correction("balanced-accuracy")
        assert not present.exact
        z = torch.tensor([[0.0, 9.0, 1.0]])
        assert present.predict(z).item() != 1
        assert not present.apply(z).isnan().any()
    assert losses.build("cross-entropy", [5, 0, 3], weight=weight).correction().exact


def test_goals_and_missing_knowledge():
    with pytest.raises(InputError, match="goal"):
        losses.build("cross-entropy", [3, 2]).correction("f1")
    with pytest.raises(InputError, match="counts="):
        losses.build("cross-entropy", weight=[1.0, 2.0]).correction("balanced-accuracy")
    with pytest.raises(InputError, match="number of classes"):
        losses.build("cross-entropy").correction()
    with pytest.raises(InputError, match="log_prior"):
        losses.decision_rule(losses.Law(), 3, "balanced-accuracy")
