"""Class frequencies of new, unlabelled data: have they moved, where to, and what to do about it (docs/shift.md).

In the order of reading: `likelihood` (the maximum of a prior's likelihood), `score` (the test of "no shift"),
`intervals`, `confusion` (the cross-check by predicted labels), `reference` (what labelled rows tell before),
`estimating` (all of it together) and `result`; `words` and `unlabelled` serve the command line.
"""

from evenhand.shift.estimating import estimate_prior
from evenhand.shift.reference import Reference, labelled_reference
from evenhand.shift.result import PriorEstimate

__all__ = ["PriorEstimate", "Reference", "estimate_prior", "labelled_reference"]
