"""Batches of a sampler: as many on every rank, so that no rank waits for another for ever."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import Sampler

from evenhand.declared import InputError
from evenhand.training.sampling.rate_sampler import ClassRateSampler, whole


class ClassBatches(Sampler[list[int]]):
    """The draws of a sampler in batches, for ``DataLoader(batch_sampler=...)``.

    Ranks that share an odd number of rows differ by one row; in plain batches of B rows one rank may then have a batch
    more than another, and data-parallel training hangs at the end of the epoch. Here all ranks have the same number of
    batches, no row is lost and none comes twice: a rank whose last batch would be missing moves a row into it.

    Args:
        sampler: a sampler of this package. batch_size: rows per batch on this rank, B.
        drop_last: leave out what does not fill a batch on every rank.

    Raises:
        InputError: a batch size below 1; batches of one row where the ranks cannot share the rows evenly.

    Example:
        >>> from evenhand.training.samplers import ClassPowerSampler
        >>> sampler = ClassPowerSampler([0, 0, 0, 1, 1], num_replicas=2, rank=1)
        >>> [len(batch) for batch in sampler.batches(2)]  # rank 0 has 2 + 1 rows, rank 1 has 2
        [1, 1]
    """

    def __init__(self, sampler: ClassRateSampler, batch_size: int, *, drop_last: bool = False) -> None:
        self.sampler, self.batch_size = sampler, whole("batch_size", batch_size, 1)
        fewest, extra = divmod(sampler.num_samples, sampler.num_replicas)
        self._batches = fewest // self.batch_size if drop_last else -(-(fewest + (extra > 0)) // self.batch_size)
        self.drop_last = bool(drop_last)
        if not drop_last and self._batches > fewest:
            raise InputError(
                f"expected {sampler.num_samples} rows to make as many batches of {batch_size} on each of "
                f"{sampler.num_replicas} ranks; make num_samples a multiple of the ranks, or pass drop_last=True"
            )

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; see :meth:`ClassRateSampler.set_epoch`."""
        self.sampler.set_epoch(epoch)

    step = set_epoch

    def state_dict(self, done: int | None = None) -> dict[str, int]:
        """Where the run is; see :meth:`ClassRateSampler.state_dict`.

        Args:
            done: batches of this epoch that were trained on; by default those handed out.

        Raises:
            InputError: done is not in [0, len(self)].
        """
        done = self._handed_out() if done is None else whole("done", done, 0)
        if done > len(self):
            raise InputError(f"expected done to be at most the {len(self):,} batches of the epoch, got {done:,}")
        # As if all batches before were full, which is the same on all ranks although some have moved a row to the end.
        return self.sampler.state_at(None if done == len(self) else done * self.batch_size)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where :meth:`state_dict` was taken; raises what :meth:`ClassRateSampler.load_state_dict` does."""
        self.sampler.load_state_dict(state)

    def __iter__(self) -> Iterator[list[int]]:
        done = self.sampler.begin()
        if done % self.batch_size == 0:
            done = self._end(done // self.batch_size)
        rows = self.sampler.rows_from(done)
        for number in range(len(self)):
            size = self._end(number + 1) - max(done, self._end(number))
            if size > 0:
                yield list(islice(rows, size))

    def __len__(self) -> int:
        return self._batches

    def _handed_out(self) -> int:
        rows = self.sampler.handed_out
        return next(
            (number for number in range(rows // self.batch_size, len(self)) if self._end(number) >= rows), len(self)
        )

    def _end(self, number: int) -> int:
        """Rows of this rank in the first `number` batches: B each, but at least one is left for every batch to come."""
        full = number * self.batch_size
        return full if self.drop_last else min(full, len(self.sampler) - (len(self) - number))
