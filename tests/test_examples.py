"""Every file of `examples/` runs by itself and says what its docstring promises.

Those that need a training framework take 4 to 8 s of processor time each and are slow tests::

    pip install -e '.[dev,integrations]' && pytest -m "slow or not slow" tests/test_examples.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WEIGHTS = "The loss weights did what they ask for"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "tiny_data")
SAYS = {  # example: (the packages it needs, what it prints); those that are not listed must run all the same
    "audit_accelerate": (("accelerate", "torchmetrics"), f"4001 rows: {WEIGHTS}"),
    "audit_dask": (("distributed",), WEIGHTS),
    "audit_keras": (("keras", "torch"), "accuracy on new rows 0."),
    "audit_lightning": (("lightning",), "Report: audit.html"),
    "audit_plain": (("torch",), WEIGHTS),
    "audit_skorch": (("skorch",), "corrected     accuracy 0."),
    "audit_trackers": ((), "class-weights (warning"),
    "audit_trainer": (("transformers", "accelerate"), WEIGHTS),
    "deferred": (("torch",), "classifier re-training  head 0."),
    "exact_accelerate": (("accelerate",), "error of the step against the whole batch"),
    "exact_lightning": (("lightning",), ""),
    "exact_plain": (("torch",), "WeightedAccumulation  relative error of the gradient"),
    "exact_trainer": (("transformers", "accelerate"), "error of the step against the whole batch"),
    "sharded_head": (("torch",), "classes, peak memory"),
}
QUICK = ("audit_plain", "exact_plain")
SHARDED = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_what_is_listed_exists() -> None:
    assert set(SAYS) <= set(NAMES)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES])
def test_it_runs(name: str, tmp_path: Path) -> None:
    needs, says = SAYS.get(name, ((), ""))
    missing = [package for package in needs if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'evenhand[integrations]'")
    how = (
        (*SHARDED, str(EXAMPLES / f"{name}.py"), "--classes", "5000")
        if name == "sharded_head"
        else (str(EXAMPLES / f"{name}.py"),)
    )
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, *how], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert says in done.stdout


def test_the_sharded_head_says_how_it_is_started(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    alone = {name: value for name, value in os.environ.items() if name != "RANK"}
    command = [sys.executable, str(EXAMPLES / "sharded_head.py")]
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("start it with torchrun")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 80
