"""Progress bars on standard error, as the callbacks that the pure functions of the demo take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class Bars:
    """Makes callbacks that draw one bar each; a bar appears with the first call."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def counter(self, title: str) -> Callable[[int, int], None]:
        """A callback (done, total)."""
        losses = self.losses(title)
        return lambda done, total: losses(done, total, float("nan"))

    def losses(self, title: str) -> Callable[[int, int, float], None]:
        """A callback (done, total, loss) that also shows the loss, smoothed over about 50 calls."""
        task, mean = None, float("nan")

        def update(done: int, total: int, loss: float) -> None:
            nonlocal task, mean
            mean = loss if mean != mean else mean + 0.02 * (loss - mean)
            if task is None:
                task = self._progress.add_task(title, total=total, note="")
            note = "" if mean != mean else f"loss {mean:.3f}"
            self._progress.update(task, completed=done, total=total, note=note)

        return update

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """A bar without a known end, for as long as the block runs."""
        task = self._progress.add_task(title, total=None, note="")
        yield
        self._progress.update(task, completed=1, total=1)


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Draw bars on this console for as long as the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
