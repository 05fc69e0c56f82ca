"""Numbers per class: gradients against differences, folds against fits that leave them out, planted scales."""

import numpy as np
import pytest

from evenhand.correction.calibration import MODELS, log_priors, prepare, select_model
from evenhand.correction.crossfit import at, fold_edges, row_log_likelihood
from evenhand.correction.scaling import ClassRows, _evaluate, fit_classes, leave_out_classes
from evenhand.tilt import Part, centred_rows


def world(rows, classes, seed, *, skill=0.6, alpha=1.0, dimensions=8):
    """Exact log posteriors of Gaussian classes with Zipf priors."""
    rng = np.random.default_rng(seed)
    prior = (np.arange(classes) + 1.0) ** -alpha
    prior /= prior.sum()
    centre = skill * np.random.default_rng(1).normal(size=(classes, dimensions))
    y = rng.choice(classes, rows, p=prior)
    x = centre[y] + rng.normal(size=(rows, dimensions))
    return x @ centre.T - 0.5 * (centre**2).sum(axis=1) + np.log(prior), y, prior


def class_rows(z, y, prior, *, scales, threads=1, theta=(0.9, 0.3)):
    a = np.log(prior) - np.log(prior).mean()
    parts = (
        Part(slice(0, len(y) // 3), np.zeros(len(prior)), a[:, None]),
        Part(slice(len(y) // 3, None), np.full(len(prior), 0.2), 1.1 * a[:, None]),
    )
    top = z.max(axis=1).astype(np.float32) if scales else None
    return ClassRows(centred_rows(z), y, parts, np.array(theta), top, threads)


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_gradient_and_information_are_derivatives(scales, threads):
    z, y, prior = world(200, 6, 0)
    rows = class_rows(z, y, prior, scales=scales, threads=threads)
    x = np.random.default_rng(0).normal(0, 0.1, rows.parameters)
    _, gradient, information = _evaluate(rows, x, curved=True)
    for j in range(rows.parameters):
        step = np.zeros(rows.parameters)
        step[j] = 1e-2
        low, high = _evaluate(rows, x - step), _evaluate(rows, x + step)
        assert gradient[j] == pytest.approx((high[0, 0] - low[0, 0]) / 2e-2, abs=0.05, rel=2e-2)
        assert information[j] == pytest.approx((low[1, j] - high[1, j]) / 2e-2, abs=0.05, rel=2e-2)


def test_likelihood_is_that_of_the_fitted_model():
    z, y, prior = world(300, 5, 0)
    rows = class_rows(z, y, prior, scales=True)
    x = np.random.default_rng(0).normal(0, 0.1, rows.parameters)
    found = rows.fit(x)
    scale = found.theta[0] * (1 + found.classes[1])
    direct = row_log_likelihood(rows.z, y, scale, at(rows.parts, found.theta, found.classes[0]), top=rows.top)
    assert float(_evaluate(rows, x)[0, 0]) == pytest.approx(direct.sum(), rel=1e-4)


@pytest.mark.parametrize("scales", [False, True])
def test_fits_without_a_fold_predict_it_as_exact_ones_do(scales):
    z, y, prior = world(3000, 25, 0)
    z = z + np.random.default_rng(3).normal(0, 0.7, 25)
    rows = class_rows(z, y, prior, scales=scales)
    full, folds = fit_classes(rows), fold_edges(3000, 4)
    close, exact, seen = [], [], []
    for fold, x in zip(folds, leave_out_classes(rows, full, folds), strict=True):
        keep = np.delete(np.arange(3000), np.arange(fold.start, fold.stop))
        parts = tuple(
            Part(
                slice(*np.searchsorted(keep, [p.rows.indices(3000)[0], p.rows.indices(3000)[1]])),
                p.offset,
                p.directions,
            )
            for p in rows.parts
        )
        rest = ClassRows(rows.z[keep], y[keep], parts, rows.theta, None if rows.top is None else rows.top[keep])
        own = ClassRows(
            rows.z[fold],
            y[fold],
            (Part(slice(None), rows.parts[1].offset, rows.parts[1].directions),),
            rows.theta,
            None if rows.top is None else rows.top[fold],
        )
        for values, at_x in ((close, x), (exact, fit_classes(rest)), (seen, full)):
            values.append(float(_evaluate(own, at_x)[0, 0]))
    gap = sum(seen) - sum(exact)
    assert gap > 0
    assert abs(sum(close) - sum(exact)) < 0.2 * gap


def test_planted_scales_are_found_and_others_not():
    z, y, prior = world(8000, 10, 0, skill=1.0)
    z -= z.mean(axis=1, keepdims=True)
    planted = np.linspace(0.6, 1.6, 10)
    for scores, expected in ((z / planted, True), (z, False)):
        rows = prepare(scores, y)
        folds = fold_edges(rows.usable, 4)
        priors = log_priors(rows.y, 10, folds, prior * 1e5, None)
        fitted, compared = select_model(rows, priors, folds, list(MODELS), 1)
        assert (fitted.name == "vector-scaling") is expected
        if expected:
            assert compared["vector-scaling"] > compared["biases"] + 0.01
            assert np.corrcoef(fitted.scale, planted)[0, 1] > 0.9
            assert (np.asarray(fitted.scale) > 0).all()


def test_classes_with_one_row_or_none_keep_to_the_tilt():
    z, y, prior = world(400, 40, 0, alpha=1.5)
    rows = class_rows(z, y, prior, scales=True, theta=(1.0, 0.0))
    found, few = rows.fit(fit_classes(rows)), np.bincount(y, minlength=40) < 2
    assert few.sum() > 10
    assert np.abs(found.classes[0][few]).mean() < 0.4
    assert np.abs(found.classes[1][few]).max() < 0.15
    assert np.isfinite(found.classes).all()
