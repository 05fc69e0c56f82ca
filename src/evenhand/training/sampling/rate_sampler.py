"""What all samplers here do: draw classes at given rates, from any position on, for any rank."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler

from evenhand.counts import in_class_order, is_keyed
from evenhand.declared import Floats, InputError, Ints
from evenhand.forecasting import forecast
from evenhand.losses.modules.arguments import class_vector
from evenhand.training.sampling.drawing import ClassRows, Epoch, Index, quotas, quotas_between
from evenhand.training.sampling.permuting import MAX_SIZE

if TYPE_CHECKING:
    from evenhand.training.sampling.batching import ClassBatches

_CHUNK = 2**16  # positions at a time: stays in cache, and the first index comes after milliseconds


class ClassRateSampler(Sampler[int]):
    """Draw class k at the rate q_k: what all samplers here do; they differ in the rates alone.

    An epoch of M draws has ``M q_k`` draws of class k, rounded up or down and never further off, and over epochs the
    rounding evens out. Within a class the rows are dealt like cards: none comes again before all others of its class
    have come, over epochs too, then they are shuffled anew. This has the mean of independent draws and less variance:
    no row of the data is forgotten by chance (of independent balanced draws, a class whose quota is its own size
    leaves out 37 % of its rows each epoch).

    The order depends on (seed, epoch) alone, is the same on every machine, and can be entered anywhere: a run
    resumed in the middle of an epoch goes on with the exact next row.

    Args:
        labels: (N,) class indices of the data set's rows, in [0, K): NumPy, torch or a list.
        rate: (K,) rates of the classes, any positive scale, or a function that gives them from the counts.
        num_samples: draws per epoch over all ranks, M; N by default.
        seed: a whole number in [0, 2^63). The same on all ranks.
        num_replicas, rank: as in :class:`torch.utils.data.DistributedSampler`: by default those of
            ``torch.distributed`` if it is initialised, else 1 and 0. Rank r draws positions r, r + R, r + 2 R, ... of
            the one sequence. Where a framework shards the loader itself (Accelerate and Hugging Face Trainer do), give
            ``num_replicas=1, rank=0``.
        replacement: draw every row independently instead, like :class:`torch.utils.data.WeightedRandomSampler`.
        class_weight: the loss weights that will be used beside, (K,), a dictionary by class index, or a rule's name:
            only checked, see Raises.
        allow_double_correction: do not refuse them.
        classes: K, if the last classes may have no rows; the largest label + 1 by default.
        absent: ``error`` refuses classes without rows, ``skip`` never draws them.

    Attributes:
        counts: (K,) int64 rows per class. epoch: the epoch that is or will be drawn. num_samples, seed, num_replicas,
            rank, replacement: as given.

    Without :meth:`set_epoch` every new iteration draws the next epoch.

    Raises:
        InputError: labels, rates, sizes or ranks that do not fit; or if weights and sampler together divide the prior
            out clearly more than once (expected tilt above 1.2, see :func:`evenhand.forecast`).

    Limits:
        Memory is O(N): 4 bytes for a row, 2 for a draw (4 above 65,536 classes). N and M below 2^32.
        If M is not a multiple of the ranks, some ranks draw one row more; :meth:`batches` makes the same number of
        batches on all of them.

    Example:
        >>> sampler = ClassRateSampler([0, 0, 0, 0, 1, 1], rate=[1, 1])
        >>> sorted(sampler)  # 3 of the 4 rows of class 0; both rows of class 1, one of them twice
        [1, 2, 3, 4, 4, 5]
    """

    def __init__(
        self,
        labels: Any,
        rate: Any,
        *,
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        replacement: bool = False,
        class_weight: Any = None,
        allow_double_correction: bool = False,
        classes: int | None = None,
        absent: str = "error",
    ) -> None:
        self.class_rows = labels if isinstance(labels, ClassRows) else ClassRows.from_labels(labels, classes, absent)
        self.counts = self.class_rows.counts
        self._rate = _checked_rate(rate(self.counts) if callable(rate) else rate, self.counts)
        self.num_samples = whole("num_samples", len(self.class_rows.order) if num_samples is None else num_samples, 1)
        if self.num_samples > MAX_SIZE:
            raise InputError(f"expected num_samples of at most {MAX_SIZE:,}, got {num_samples:,}; draw more epochs")
        self.seed = whole("seed", seed, 0)
        if self.seed >= 2**63:
            raise InputError(f"expected seed below 2^63, got {seed}; take a smaller one")
        self.num_replicas, self.rank = _place(num_replicas, rank)
        self.replacement = bool(replacement)
        self.epoch = 0
        self._done = 0  # draws of this rank in this epoch before the list that is being given out
        self._live: Iterator[int] = iter(())  # that list: what is left of it says how far the epoch is
        self._begun = False
        self._cursor: tuple[int, Ints] = (0, np.zeros_like(self.counts))
        self._current: Epoch | None = None
        if class_weight is not None and not allow_double_correction:
            weights = _in_class_order(class_weight)
            for possible in self.rates_to_come():
                refuse_double_correction(self.counts, possible, weights)

    @property
    def sampler_rate(self) -> Floats:
        """(K,) float64, sum 1: the share of each class among the rows drawn, for ``forecast`` and ``audit``."""
        return self.rate_at(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; a position loaded for this very epoch is kept."""
        epoch = whole("epoch", epoch, 0)
        if self._begun or epoch != self.epoch:
            self._at(epoch, 0)
        self._begun = False

    step = set_epoch  # the schedules' word for it

    def quotas(self, epoch: int | None = None) -> Ints:
        """(K,) int64, draws of each class in an epoch over all ranks; the mean, with replacement, rounded."""
        epoch = self.epoch if epoch is None else whole("epoch", epoch, 0)
        return quotas(self.rate_at(epoch), self.num_samples, self.seed, epoch)

    def indices(self, epoch: int | None = None) -> Index:
        """All rows that this rank draws in an epoch, (len(self),) int64, in order; changes nothing."""
        drawn = self._epoch(self.epoch if epoch is None else whole("epoch", epoch, 0))
        return np.concatenate([np.empty(0, np.int64), *(chunk for _, chunk in self._chunks(drawn, 0))])

    def batches(self, batch_size: int, *, drop_last: bool = False) -> ClassBatches:
        """Batches for ``DataLoader(batch_sampler=...)``, as many on every rank; see :class:`ClassBatches`."""
        from evenhand.training.sampling.batching import ClassBatches

        return ClassBatches(self, batch_size, drop_last=drop_last)

    def __iter__(self) -> Iterator[int]:
        return self.rows_from(self.begin())

    def begin(self) -> int:
        """Begin an iteration: the next epoch if this one has begun already; gives the position to go on from."""
        if self._begun:
            self._at(self.epoch + 1, 0)
        self._begun = True
        return self._done

    def rows_from(self, done: int) -> Iterator[int]:
        """This rank's rows of the epoch from its draw number `done` on."""
        for begin, chunk in self._chunks(self._epoch(self.epoch), done):
            self._live = iter(chunk.tolist())
            self._done = begin + len(chunk)
            yield from self._live

    def __len__(self) -> int:
        return -(-(self.num_samples - self.rank) // self.num_replicas)

    @property
    def handed_out(self) -> int:
        """Rows of the epoch that this rank's iteration has given out."""
        return self._done - operator.length_hint(self._live)

    def state_dict(self, done: int | None = None) -> dict[str, int]:
        """Where the run is: whole numbers only, to be saved and loaded with ``weights_only=True``.

        Args:
            done: rows of this epoch that this rank has trained on. By default those that were handed out. A loader with
                worker processes asks ahead of training: give the number then (steps of this epoch times batch size).

        Returns:
            The same on all ranks that are equally far, so that one may save it for all.

        Raises:
            InputError: done is not in [0, len(self)].
        """
        done = self.handed_out if done is None else whole("done", done, 0)
        if done > len(self):
            raise InputError(f"expected done to be at most the {len(self):,} rows of this rank's epoch, got {done:,}")
        return self.state_at(None if done == len(self) else done)

    def state_at(self, done: int | None) -> dict[str, int]:
        """The state after `done` rows of this rank; None: after the epoch, which is the beginning of the next."""
        epoch, drawn = (self.epoch + 1, 0) if done is None else (self.epoch, done * self.num_replicas)
        return {"epoch": epoch, "drawn": drawn, "plan": self._plan}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken, also on another number of ranks.

        Raises:
            InputError: not such a state, or one of another plan (labels, rates, seed or number of draws).
        """
        if not isinstance(state, dict) or set(state) != {"epoch", "drawn", "plan"}:
            raise InputError("expected a state with the keys drawn, epoch and plan; save state_dict() of this sampler")
        if state["plan"] != self._plan:
            raise InputError(
                "expected the state of this sampler, got one of other labels, rates, seed or num_samples; "
                "build the sampler as in the run that is resumed"
            )
        drawn = whole("drawn", state["drawn"], 0)
        if drawn % self.num_replicas or drawn > self.num_samples:
            raise InputError(
                f"expected a number of drawn rows that {self.num_replicas} ranks can share, got {drawn}; resume at the "
                "start of an epoch, or on the number of ranks of the saved run"
            )
        self._at(whole("epoch", state["epoch"], 0), drawn // self.num_replicas)
        self._begun = False

    def rate_at(self, epoch: int) -> Floats:  # noqa: ARG002
        """(K,) rates of an epoch, sum 1; samplers whose rates change replace it."""
        return self._rate

    def plan_words(self) -> str:
        """What decides the rates of all epochs; subclasses name their arguments."""
        return f"rates {self._rate.tolist()}"

    @property
    def settled(self) -> int:
        """First epoch from which on the rates stay as they are."""
        return 0

    def rates_to_come(self) -> list[Floats]:
        """The rates between which those of all epochs lie."""
        return [self._rate]

    def _at(self, epoch: int, done: int) -> None:
        self.epoch, self._done, self._live = epoch, done, iter(())

    def _epoch(self, number: int) -> Epoch:
        if self._current is None or self._current.number != number:
            rate, quota, cursor = self.rate_at(number), self.quotas(number), self._drawn_before(number)
            self._current = Epoch(
                self.class_rows, rate, self.num_samples, quota, cursor, number, self.seed, self.replacement
            )
        return self._current

    def _drawn_before(self, epoch: int) -> Ints:
        """(K,) draws of each class in epochs 0 to `epoch` - 1; from the last answer on, where that helps."""
        known, cursor = self._cursor if self._cursor[0] <= epoch else (0, np.zeros_like(self.counts))
        settled = max(known, min(self.settled, epoch))
        for number in range(known, settled):
            cursor = cursor + self.quotas(number)
        cursor = cursor + quotas_between(self.rate_at(settled), self.num_samples, self.seed, settled, epoch)
        self._cursor = (epoch, cursor)
        return cursor

    def _chunks(self, epoch: Epoch, done: int) -> Iterator[tuple[int, Index]]:
        """This rank's rows from its draw number `done` on, and the number of each chunk's first draw."""
        for begin in range(done, len(self), _CHUNK):
            own = np.arange(begin, min(begin + _CHUNK, len(self)), dtype=np.int64)
            yield begin, epoch.rows(self.rank + own * self.num_replicas)

    @cached_property
    def _plan(self) -> int:
        """A check sum of all that decides which rows come; ranks have the same."""
        words = f"{self.plan_words()} {self.num_samples} {self.seed} {self.replacement} {self.counts.tolist()}"
        return zlib.crc32(words.encode(), zlib.crc32(self.class_rows.order.data))


def whole(name: str, value: Any, low: int) -> int:
    """`value` as an int, if it is a whole number of `low` or more.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise InputError(f"expected {name} to be a whole number of {low} or more, got {value!r}; correct it")
    return int(value)


def _checked_rate(rate: Any, counts: Ints) -> Floats:
    """(K,) float64, sum 1, 0 where a class has no rows."""
    values = np.where(counts > 0, class_vector("rate", rate, counts.size), 0.0)
    if not values.any():
        raise InputError("expected a positive rate for a class that has rows, got none; nothing would be drawn")
    values = values / values.max()  # first, so that the sum stays finite
    return np.asarray(values / values.sum())


def _in_class_order(class_weight: Any) -> Any:
    """Weights of a dictionary in the order of its class indices; others as they are."""
    if not is_keyed(class_weight):
        return class_weight
    names, weights = in_class_order(class_weight, "class_weight")
    if names is not None:
        raise InputError(
            f"expected class_weight by class index, as the labels are, got the names {', '.join(names[:3])}; give an "
            "array in the order of the classes"
        )
    return weights


def _place(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Ranks and this one."""
    running = dist.is_available() and dist.is_initialized()
    if not running and (num_replicas is None) != (rank is None):
        raise InputError(
            f"expected both num_replicas and rank, or neither, got {num_replicas!r} and {rank!r}; without "
            "torch.distributed the other one is not known"
        )
    ranks = whole(
        "num_replicas", (dist.get_world_size() if running else 1) if num_replicas is None else num_replicas, 1
    )
    mine = whole("rank", (dist.get_rank() if running else 0) if rank is None else rank, 0)
    if mine >= ranks:
        raise InputError(f"expected rank below the {ranks} replicas, got {mine}; ranks count from 0")
    return ranks, mine


def refuse_double_correction(counts: Ints, rate: Floats, class_weight: Any) -> None:
    """Ask the forecast what sampler and weights do together.

    Raises:
        InputError: they divide the prior out clearly more than once.
    """
    result = forecast(counts, class_weight=class_weight, sampler_rate=rate)
    if not any(warning.id == "double-correction" for warning in result.warnings):
        return
    alone = forecast(counts, sampler_rate=rate)
    raise InputError(
        f"expected the sampler or class_weight to correct for the class frequencies, but together they divide the "
        f"prior out {result.tau:.2f} times (the sampler alone {alone.tau:.2f}; in the forecast's model classifier "
        f"accuracy falls from {result.plain.accuracy:.3f} to {result.expected.accuracy:.3f}, predicted counts "
        f"{result.pattern}); drop one of them, or pass allow_double_correction=True"
    )
