"""Threads over row blocks, and nothing below them: the linear algebra library must not start threads of its own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    """What is known of the loaded linear algebra libraries; None where threadpoolctl is not installed."""
    try:
        return importlib.import_module("threadpoolctl").ThreadpoolController()
    except ImportError:
        return None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products run in the thread that calls them, as long as the block lasts.

    The library cuts even small products into pieces and lets every caller wait for the same few threads: called from
    two threads over blocks of 100,000 classes, that costs three times the work itself. The setting holds for the whole
    process and is put back at the end.

    Example:
        >>> import numpy as np
        >>> with one_blas_thread():
        ...     float(np.ones(3) @ np.ones(3))
        3.0
    """
    controller = _controller()
    if controller is None:
        yield
        return
    with controller.limit(limits=1, user_api="blas"):
        yield
