"""Doctests of an integration need its framework; where that is absent, the module is left out of the collection."""

import os
from importlib.util import find_spec

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it once, when it is first imported

NEEDS = {"metrics": "torchmetrics", "lightning": "lightning", "keras": "keras"}
collect_ignore = [f"src/evenhand/integrations/{name}.py" for name, needs in NEEDS.items() if find_spec(needs) is None]
if find_spec("torchmetrics") is None:
    collect_ignore.append("tests/integrations/ranks_metrics.py")  # what the ranks run; looked at for doctests like all
