"""Threads over row blocks, and nothing below them: the linear algebra library must not start threads of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    """What is known of the linear algebra libraries; finding them takes a while. SciPy brings one of its own."""
    import scipy.linalg  # noqa: F401  (what is not loaded is not found, and stays unlimited)

    return ThreadpoolController()


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
    with _controller().limit(limits=1, user_api="blas"):
        yield
