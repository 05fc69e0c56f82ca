"""Numbers per class around a tilt: biases, and structured vector scaling; with and without each fold.

``softmax(beta (1 + a_c) z_c + o_c + tau log pi_c + b_c)``, all fitted together, with Gaussian priors on b and a around
zero: classes with few rows keep the tilt and the common scale. The log-likelihood is concave. The fits without a fold
come from the full fit by one Newton step, its equation solved by conjugate gradients for all folds at once, so that
they cost a few passes together and no second copy of the rows.

Sources: Alexandari et al., "Maximum likelihood with bias-corrected calibration" (2020),
https://arxiv.org/abs/1901.06852, biases (without a prior); Guo et al. (2017), https://arxiv.org/abs/1706.04599, vector
scaling; Berta et al., "Structured matrix scaling for multi-class calibration" (2025),
https://arxiv.org/abs/2511.03685, for scales per class that are shrunk towards a common one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from evenhand.biases import GROUPS
from evenhand.declared import Floats, Ints
from evenhand.threads import one_blas_thread
from evenhand.tilt import BLOCK_CELLS, Part, Singles, map_blocks

BIAS_SD = 1.0
SLOPE_SD = 0.2
COMMON_SD = 10.0  # of the common scale and the tilt: as good as free
HELD_SD = 1e-3
SMALLEST = 0.05  # of a scale relative to the common one: a class's own evidence must not count against it
ITERATIONS = 14
GRADIENT_STEPS = 8  # of conjugate gradients; noise of single classes is nearly diagonal


@dataclass(frozen=True)
class ClassFit:
    """theta = (beta, tau), and (1 or 2, K): biases b, and with a scale per class their deviations a."""

    theta: Floats
    classes: Floats


@dataclass(frozen=True)
class ClassRows:
    """Rows of a fit per class.

    Parameters are held in one vector: s and t, by which the common scale and tau move, b, and with `top` a.

    Attributes: z: (n, K) centred logits. y: (n,) labels. parts: offsets and one direction by rows. theta: (beta, tau)
        to start from. top: (n,) what was subtracted from each row; given where scales per class are fitted, which see
        it. hold_tilt: keep tau as it is, since the direction is made of the rows' own labels:
        biases and tau would divide between them what these labels add to both.
    """

    z: Singles
    y: Ints
    parts: tuple[Part, ...]
    theta: Floats
    top: Singles | None = None
    threads: int = 1
    hold_tilt: bool = False

    @property
    def classes(self) -> int:
        """K."""
        return int(self.z.shape[1])

    @property
    def parameters(self) -> int:
        """How many parameters there are."""
        return 2 + self.classes * (1 if self.top is None else 2)

    @property
    def precision(self) -> Floats:
        """Of the prior, for every parameter."""
        spread = [np.array([COMMON_SD, HELD_SD if self.hold_tilt else COMMON_SD]), np.full(self.classes, BIAS_SD)]
        if self.top is not None:
            spread.append(np.full(self.classes, SLOPE_SD))
        return np.asarray(np.concatenate(spread) ** -2.0)

    def unpacked(self, x: Floats) -> tuple[float, float, Floats, Floats]:
        """s, t, b and s + a (one number without scales per class)."""
        k = self.classes
        return float(x[0]), float(x[1]), x[2 : 2 + k], x[0] + x[2 + k :] if self.top is not None else x[:1]

    def fit(self, x: Floats) -> ClassFit:
        """The parameters as scale, tau, biases and deviations."""
        s, t, b, slope = self.unpacked(x)
        common = max(1 + s, 1e-3)
        theta = np.array([self.theta[0] * common, self.theta[1] + t])
        if self.top is None:
            return ClassFit(theta, b[None])
        return ClassFit(theta, np.stack([b, np.maximum((1 + slope) / common, SMALLEST) - 1]))

    def tasks(self, within: slice = slice(None)) -> list[Task]:
        """Row slices that fit the cache, with constant and direction."""
        step = max(4, BLOCK_CELLS // self.classes)
        low, high, _ = within.indices(len(self.z))
        result = []
        for part in self.parts:
            constant = (part.offset + part.directions[:, 0] * self.theta[1]).astype(np.float32)
            direction = part.directions[:, 0].astype(np.float32)
            start, stop, _ = part.rows.indices(len(self.z))
            start, stop = max(start, low), min(stop, high)
            result += [Task(slice(at, min(stop, at + step)), constant, direction) for at in range(start, stop, step)]
        return result


@dataclass(frozen=True)
class Task:
    """A block of rows."""

    rows: slice
    constant: Singles
    direction: Singles


def fit_classes(rows: ClassRows) -> Floats:
    """Maximum a posteriori of the parameters, by L-BFGS on variables of equal curvature."""
    x = np.zeros(len(rows.precision))
    information = _evaluate(rows, x, curved=True)[2]
    scale = 1.0 / np.sqrt(information + rows.precision)

    def objective(u: Floats) -> tuple[float, Floats]:
        x = u * scale
        total = _evaluate(rows, x)
        gradient = rows.precision * x - total[1]
        return 0.5 * float(rows.precision @ x**2) - float(total[0, 0]), np.asarray(gradient * scale)

    iterations = ITERATIONS if rows.top is None else 2 * ITERATIONS
    options = {"maxiter": iterations, "maxcor": 8, "gtol": 1e-3, "ftol": 1e-8}
    with one_blas_thread():  # the optimiser's own algebra is tiny: waking threads for it costs more than the passes
        best: Floats = minimize(objective, x, jac=True, method="L-BFGS-B", options=options).x
    return np.asarray(best * scale)


def _evaluate(rows: ClassRows, x: Floats, *, curved: bool = False) -> Floats:
    """(2 or 3, parameters): log-likelihood in the first place, its gradient, and the diagonal of its information."""
    tasks = rows.tasks()
    groups = [tasks[at :: min(GROUPS, len(tasks))] for at in range(min(GROUPS, len(tasks)))]

    def group(some: list[Task]) -> Floats:
        total = np.zeros((3 if curved else 2, len(x)))
        for task in some:
            total += _sums(rows, task, *_posteriors(rows, x, task), curved=curved)
        return total

    return np.asarray(np.sum(map_blocks(group, groups, rows.threads), axis=0))


def _posteriors(rows: ClassRows, x: Floats, task: Task) -> tuple[Singles, Singles, Singles]:
    """Evidence ``beta z`` (with the row's top), posteriors, and the log-likelihood of every row."""
    _, t, b, slope = rows.unpacked(x)
    beta = np.float32(rows.theta[0])
    evidence: Singles = rows.z[task.rows] * beta
    if rows.top is not None:
        evidence += beta * rows.top[task.rows, None]
    e = evidence * (1 + slope).astype(np.float32)
    e += task.constant + np.float32(t) * task.direction + b.astype(np.float32)
    e -= e.max(axis=1, keepdims=True)
    own = e[np.arange(len(e)), rows.y[task.rows]].copy()
    np.exp(e, out=e)
    total = e @ np.ones(e.shape[1], np.float32)
    e /= total[:, None]
    return evidence, e, own - np.log(total)


def _sums(rows: ClassRows, task: Task, evidence: Singles, p: Singles, own: Singles, *, curved: bool) -> Floats:
    """(2 or 3, parameters) log-likelihood (in the first place), gradient, and diagonal information of a block."""
    y, k, ones = rows.y[task.rows], rows.classes, np.ones(len(p), np.float32)
    out = np.zeros((3 if curved else 2, rows.parameters))
    out[0, 0] = own.sum(dtype=np.float64)
    soft = ones @ p
    gap = np.bincount(y, minlength=k) - soft
    true = evidence[np.arange(len(p)), y]
    expected = np.einsum("ij,ij->i", p, evidence)
    out[1, 0] = (true.astype(np.float64) - expected).sum()
    out[1, 1] = task.direction @ gap
    out[1, 2 : 2 + k] = gap
    if rows.top is not None:
        out[1, 2 + k :] = np.bincount(y, true, k) - ones @ (p * evidence)
    if not curved:
        return out
    mean = p @ task.direction
    second = np.einsum("ij,ij,ij->i", p, evidence, evidence)
    out[2, 0] = (second.astype(np.float64) - expected.astype(np.float64) ** 2).sum()
    out[2, 1] = (p @ task.direction**2 - mean**2).sum()
    out[2, 2 : 2 + k] = soft - ones @ (p * p)
    if rows.top is not None:
        out[2, 2 + k :] = ones @ (p * evidence * evidence * (1 - p))
    out[2] = np.maximum(out[2], 0)
    return out


def leave_out_classes(rows: ClassRows, x: Floats, folds: Sequence[slice]) -> list[Floats]:
    """Parameters fitted on the rows outside each fold, by a Newton step from the full fit `x`.

    The information is that at `x`, of the directions averaged over the parts; the gradient is exact.
    """
    blocks = [(task, number) for number, fold in enumerate(folds) for task in rows.tasks(fold)]
    diagonals, sums = _fold_sums(rows, x, blocks, len(folds))
    outside = sums.sum(axis=0) - sums  # (folds, 3, parameters)
    gradient = outside[:, 1] - rows.precision * x
    rest = diagonals.sum(axis=0) - diagonals  # (folds, 3, K): sums of p, p e, p e^2 over the rows outside
    direction = np.mean([part.directions[:, 0] for part in rows.parts], axis=0)
    k = rows.classes

    def curvature(v: Floats) -> Floats:
        c = v[:, 1:2] * direction + v[:, 2 : 2 + k]
        w = v[:, :1] + (v[:, 2 + k :] if rows.top is not None else np.zeros((len(v), k)))
        cross = _cross(rows, x, blocks, c, w)
        of_c = rest[:, 0] * c + rest[:, 1] * w - cross[:, 0]
        of_w = rest[:, 1] * c + rest[:, 2] * w - cross[:, 1]
        parts = [of_w.sum(axis=1, keepdims=True), (of_c @ direction)[:, None], of_c]
        return np.concatenate([*parts, of_w] if rows.top is not None else parts, axis=1) + rows.precision * v

    step = _conjugate_gradients(curvature, gradient, outside[:, 2] + rows.precision, rows.precision)
    return [x + s for s in step]


def refit_classes(rows: ClassRows, x: Floats) -> Floats:
    """Parameters fitted on all rows of the parts, by a Newton step from `x`, which fits nearly the same rows."""
    return leave_out_classes(rows, x, [slice(0, 0), slice(None)])[0]


def _fold_sums(rows: ClassRows, x: Floats, blocks: list[tuple[Task, int]], folds: int) -> tuple[Floats, Floats]:
    """Over each fold's own rows: (folds, 3, K) sums of p, p e, p e^2, e the evidence, and (folds, 3, parameters)."""
    moments, sums = np.zeros((folds, 3, rows.classes)), np.zeros((folds, 3, rows.parameters))

    def block(item: tuple[Task, int]) -> tuple[Floats, Floats]:
        evidence, p, own = _posteriors(rows, x, item[0])
        ones, more = np.ones(len(p), np.float32), _sums(rows, item[0], evidence, p, own, curved=True)
        first = ones @ p
        p *= evidence
        second = ones @ p
        p *= evidence
        return np.array([first, second, ones @ p], np.float64), more

    for begin in range(0, len(blocks), GROUPS):  # few results are held at once
        some = blocks[begin : begin + GROUPS]
        for (_, number), (found, more) in zip(some, map_blocks(block, some, rows.threads), strict=True):
            moments[number] += found
            sums[number] += more
    return moments, sums


def _cross(rows: ClassRows, x: Floats, blocks: list[tuple[Task, int]], c: Floats, w: Floats) -> Floats:
    """(folds, 2, K) ``sum_i p_i m_i`` and ``sum_i p_i e_i m_i``, ``m_i = p_i . (c + w e_i)``, over the rows outside.

    Without scales per class, w is one number and only the sum of the second over the classes is asked for: it stands in
    the first place.
    """
    by_c, by_w = c.T.astype(np.float32), w.T.astype(np.float32)
    groups = [blocks[at :: min(GROUPS, len(blocks))] for at in range(min(GROUPS, len(blocks)))]

    def group(items: list[tuple[Task, int]]) -> Floats:
        total = np.zeros((2, *by_c.shape))
        for task, number in items:
            evidence, p, _ = _posteriors(rows, x, task)
            expected = None
            if rows.top is None:
                expected = np.einsum("ij,ij->i", p, evidence)
                mean = p @ by_c + expected[:, None] * by_w[:1]
            else:
                evidence *= p
                mean = p @ by_c + evidence @ by_w
            mean[:, number] = 0  # a fold's own rows are left out of its equation
            total[0] += p.T @ mean
            if expected is None:
                total[1] += evidence.T @ mean
            else:
                total[1, 0] += expected @ mean
        return total

    found = np.sum(map_blocks(group, groups, rows.threads), axis=0)
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def _conjugate_gradients(
    curvature: Callable[[Floats], Floats], gradient: Floats, preconditioner: Floats, least: Floats
) -> Floats:
    """Solve ``curvature(step) = gradient`` for all folds (first axis) at once, a few steps of it."""

    def dot(a: Floats, b: Floats) -> Floats:
        return np.asarray((a * b).sum(axis=1, keepdims=True))

    step, rest = np.zeros_like(gradient), gradient
    towards = rest / preconditioner
    direction, size = towards, dot(rest, towards)
    for _ in range(GRADIENT_STEPS):
        bent = curvature(direction)
        # Where every row is certain, rounding can make the information negative; the prior's is the least there is.
        along = np.maximum(dot(direction, bent), dot(direction, least * direction))
        length = size / np.maximum(along, 1e-300)
        step = step + length * direction
        rest = rest - length * bent
        towards = rest / preconditioner
        fresh = dot(rest, towards)
        direction, size = towards + fresh / np.maximum(size, 1e-300) * direction, fresh
    return np.asarray(step)
