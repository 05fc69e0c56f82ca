"""How far a race is, on standard error: two bars in a terminal, and now and then a line in a file or a pipe."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from evenhand.report.formats import plain, shortened
from evenhand.training.racing.running import Watcher

APART = 10.0  # seconds between lines, and a race that is over by then has none


@contextlib.contextmanager
def watched(shown: bool = True) -> Iterator[Watcher | None]:
    """Tells how far the race is, for as long as the block runs; None where it is not to be `shown`."""
    if not shown:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console

        with drawing(Console(stderr=True)) as drawn:
            yield drawn
    else:
        yield Lines(lambda line: click.echo(line, err=True))


class Lines(Watcher):
    """A line per settled training, at most one every ten seconds.

    Args:
        say: is given each line. clock: seconds.
    """

    def __init__(self, say: Callable[[str], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.say, self.clock = say, clock
        self.name = ""

    def begin(self, trainings: int, steps: int) -> None:
        """The race begins."""
        self.trainings, self.steps = trainings, steps
        self.start = self.last = self.clock()
        self.before: int | None = None
        self.seen = 0

    def training(self, remedy: str, seed: int) -> None:
        """A training begins."""
        self.name, self.began, self.reached = f"{shortened(plain(remedy))}, seed {seed}", self.clock(), 0

    def step(self, done: int) -> None:
        """Steps of it are done."""
        self.reached = done

    def settled(self, done: int) -> None:
        """So many are settled, others' and those of earlier processes included."""
        now, name, self.name = self.clock(), self.name, ""
        if self.before is None:
            self.before = self.seen = done
            return
        if done == self.seen and not name:
            return
        self.seen = done
        if now - self.last < APART:
            return
        self.last = now
        what = "others"
        if name:
            ended = "finished in" if self.reached >= self.steps else f"stopped at step {self.reached:,} after"
            what = f"{name}: {ended} {lasting(now - self.began)}"
        left = ""
        if self.before < done < self.trainings:
            each = (now - self.start) / (done - self.before)
            left = f", about {lasting(each * (self.trainings - done))} left"
        self.say(f"{what}, {done} of {self.trainings}{left}")


@contextlib.contextmanager
def drawing(console: Any) -> Iterator[Watcher]:
    """One bar for the race and one for whichever training is under way."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(),
    )
    # Speed over all of the race: of the last half minute alone it would jump with every training that is judged.
    with Progress(*columns, console=console, speed_estimate_period=1e6) as progress:
        yield Drawn(progress)


class Drawn(Watcher):
    """Draws on a progress display of rich."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress
        self.race: Any = None
        self.one: Any = None
        self.done = 0

    def begin(self, trainings: int, steps: int) -> None:
        """The race begins."""
        self.steps = steps
        self.race = self.progress.add_task("Race", total=trainings * steps)

    def training(self, remedy: str, seed: int) -> None:
        """A training begins: the bar of the one before is taken for it."""
        title = f"{shortened(plain(remedy), 40)}, seed {seed}"
        if self.one is None:
            self.one = self.progress.add_task(title, total=self.steps)
        else:
            self.progress.reset(self.one, total=self.steps, description=title)

    def step(self, done: int) -> None:
        """Steps of it are done."""
        self.progress.update(self.one, completed=done)
        self.progress.update(self.race, completed=self.done * self.steps + done)

    def settled(self, done: int) -> None:
        """So many are settled: the rest of those that were stopped early is no work any more."""
        self.done = done
        self.progress.update(self.race, completed=done * self.steps)


def lasting(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> lasting(12.3), lasting(100), lasting(130), lasting(5400)
        ('12 s', '2 min', '2 min', '1.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
