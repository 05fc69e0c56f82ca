"""How many rows the centre of the Dirichlet prior counts for: what rows say that the estimate has not seen.

The maximum of the likelihood explains the very rows it is fitted to; with many overlapping classes it goes far beyond
where the frequencies are. The mean posterior does not go far enough. Between the two lies the maximum under a Dirichlet
prior around the mean posterior, and the strength of this prior is chosen by the likelihood of the other half of the
rows, each half in turn.

Source: Stone, "Cross-validatory choice and assessment of statistical predictions" (1974),
https://doi.org/10.1111/j.2517-6161.1974.tb00994.x.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evenhand.declared import Floats
from evenhand.shift.likelihood import Dirichlet, maximise_likelihood, moments, row_likelihoods
from evenhand.tilt import Singles

RATIOS = (np.inf, 4.0, 1.0, 0.25, 0.06, 0.015)  # prior rows for each new row, from the mean posterior towards plain EM
SLACK = 0.5  # standard errors
SPARSE = 10  # rows per class beyond which the slack falls, and plain EM becomes as good as it is in theory
STEPS = 4  # passes over a half for each ratio, from the estimate of the one before


def held_out_ratio(
    p: Singles, prior: Floats, centre: Callable[[Floats], Floats], *, rows_worth: float, threads: int = 1
) -> float:
    """Prior rows for each new row at which halves of the rows foretell each other best.

    Args:
        p: (n, K) posteriors under `prior` (K,), rows in random order.
        centre: (K,) mean posterior of some rows -> centre of the prior.
        rows_worth: n_eff. The posteriors hold the noise of the labelled rows they were calibrated on; among ratios
            that differ by less than half a standard error, of as many rows as that, the largest is taken; by less
            where a class has many rows.
    """
    if len(p) < 2:
        return np.inf
    halves = (p[: len(p) // 2], p[len(p) // 2 :])
    values: list[Floats] = []
    estimates = [centre(moments(half, threads)[0]) for half in halves]
    centres = list(estimates)
    for ratio in RATIOS:
        if np.isfinite(ratio):
            estimates = [
                _maximum(half, prior, c, ratio, q, threads)
                for half, c, q in zip(halves, centres, estimates, strict=True)
            ]
        others = [row_likelihoods(half, prior, q, threads) for half, q in zip(halves, reversed(estimates), strict=True)]
        values.append(np.concatenate(others))
        if len(values) > 1 and values[-1].sum() < values[-2].sum():
            break  # the curve has one top
    gain = np.array(values)
    best = int(gain.mean(axis=1).argmax())
    behind = gain[best] - gain
    most = SLACK * min(1.0, (SPARSE * len(prior) / rows_worth) ** 0.5)
    slack = most * behind.std(axis=1) / rows_worth**0.5
    return RATIOS[int(np.argmax(behind.mean(axis=1) <= slack))]


def _maximum(p: Singles, prior: Floats, centre: Floats, ratio: float, start: Floats, threads: int) -> Floats:
    belief = Dirichlet(centre, ratio * len(p), np.zeros(len(centre), bool))
    return maximise_likelihood(p, prior, belief, start=start, passes=STEPS, threads=threads).q
