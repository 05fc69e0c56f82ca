"""Tallies over the partitions of a cluster: map, then add. For Dask: ``pip install 'evenhand[cluster]'``.

A tally is a few vectors of length K and a bounded row sample, and tallies add. So the predictions stay where they are,
every worker counts its partitions, and only tallies travel. Nothing here imports Dask: the client is the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evenhand.declared import InputError
from evenhand.files import Predictions, from_arrays, open_predictions
from evenhand.files.blocks import shifted
from evenhand.scanning import tally_predictions
from evenhand.tally import Tally, combine

__all__ = ["tally_partition", "tally_partitions"]

FAN_IN = 16  # tallies that one worker adds; each may hold a row sample of 20 MB
ROWS = 1 << 40  # more rows than a partition has: ids of partition i begin at i times this
Partition = str | Path | Mapping[str, Any] | Callable[[], Any]


def tally_partitions(partitions: Iterable[Partition | Any], client: Any, **declared: Any) -> Tally:
    """The tally of all partitions, counted and added on the workers of a Dask cluster.

    Args:
        partitions: each a path that the workers can open (any file of :func:`evenhand.open_predictions`), a mapping
            with ``target`` and ``logits``, ``probs`` or ``predicted``, a function without arguments that returns one
            of these on the worker, or a Dask future of one. Give ``row_id`` to get the same row sample however the rows
            are partitioned; otherwise rows are numbered partition by partition.
        client: a ``distributed.Client``.
        declared: ``train_counts``, ``class_weight``, ... as in :func:`evenhand.audit`.

    Returns:
        The sum, for :func:`evenhand.audit_tally`. Equal to the tally of all rows at once: exactly for counts, to
        rounding for sums.

    Raises:
        InputError: no partitions, or partitions that cannot be used; raised on a worker, it comes back as it is.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> class Client(ThreadPoolExecutor):  # stands for Dask's, which resolves futures among the arguments
        ...     def submit(self, function, *args, **options):
        ...         return super().submit(function, *[a.result() if hasattr(a, "result") else a for a in args])
        >>> parts = [{"predicted": [0, 1], "target": [0, 0]}, {"predicted": [1], "target": [1]}]
        >>> tally_partitions(parts, Client(2), class_names=["a", "b"]).true.tolist()
        [2, 1]
    """
    futures = [client.submit(tally_partition, part, i, pure=False, **declared) for i, part in enumerate(partitions)]
    if not futures:
        raise InputError("expected at least one partition, got none; name the files or arrays to count")
    while len(futures) > 1:
        groups = [futures[i : i + FAN_IN] for i in range(0, len(futures), FAN_IN)]
        futures = [client.submit(_add, *group, pure=False) for group in groups]
    total: Tally = futures[0].result()
    return total


def tally_partition(partition: Partition | Any, number: int = 0, **declared: Any) -> Tally:
    """The tally of one partition; what a worker of any engine runs (Ray, Spark, a batch queue). Add with ``combine``.

    Args:
        partition: see :func:`tally_partitions`. number: of the partition, for the ids of its rows.
        declared: as in :func:`evenhand.audit`.

    Raises:
        InputError: nothing that could be counted.

    Example:
        >>> tally_partition({"predicted": [0, 1], "target": [0, 0]}).true.tolist()
        [2, 0]
    """
    opened = _opened(partition() if callable(partition) else partition, declared)
    own_ids = getattr(opened.source, "row_id", None)  # an array, or whether a table has such a column
    return tally_predictions(shifted(opened, number * ROWS) if own_ids is None or own_ids is False else opened)


def _opened(partition: Any, declared: dict[str, Any]) -> Predictions:
    if isinstance(partition, (str, Path)):
        return open_predictions(partition, **declared)
    if isinstance(partition, Mapping):
        return from_arrays(**{**partition, **declared})
    raise InputError(
        f"expected a partition as a path or a mapping of arrays, got {type(partition).__name__}; give a mapping with "
        "target and logits, probs or predicted"
    )


def _add(*tallies: Tally) -> Tally:
    return combine(tallies)
