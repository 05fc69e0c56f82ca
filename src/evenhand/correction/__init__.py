"""Corrections after training: fitted for a goal on held-out rows, measured, applied, folded and kept (docs/fix.md).

In the order of reading: `calibration` (which model of the posteriors holds up), `scaling` (numbers per class),
`crossfit` (every row judged by a fit that has not seen it), `serving` (from posteriors to a goal), `effects` (what it
brings), `fitting` (all of it together), `result` with `folding` and `storage`; `predictions` and `cost_file` serve the
command line.
"""

from evenhand.correction.calibration import MODELS
from evenhand.correction.crossfit import crossfit_effect
from evenhand.correction.fitting import fit_correction
from evenhand.correction.result import Correction

__all__ = ["MODELS", "Correction", "crossfit_effect", "fit_correction"]
