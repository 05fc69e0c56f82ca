"""Locks on files that end with their process, however that ends: who is alive, and who writes the journal."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import IO

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

with contextlib.suppress(ImportError):
    import fcntl

STALE = 600.0  # seconds after which a worker that cannot be asked is taken for dead
BLOCK = 1 << 16


class SignOfLife:
    """A file that is locked as long as this process lives.

    Args:
        path: of the file, made here.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("w")
        if "fcntl" in globals():
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def give(self) -> None:
        """Another sign, for processes that cannot ask for locks."""
        os.utime(self._path)

    def close(self) -> None:
        """Let others know that this process is done."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def is_alive(path: Path) -> bool:
    """Whether a living process holds the lock on its file: a lock ends with its process, however that ends."""
    try:
        with path.open("r+") as file:
            if "fcntl" not in globals():
                return time.time() - path.stat().st_mtime < STALE
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False


class JournalLock(JournalFileOpenLock):
    """A lock that ends with its process; Optuna's own lock files outlive a kill, and every other process then waits.

    Whoever gets it first takes off the line that a kill or a full disk has cut off: the next line would be glued to it,
    and nobody could read the journal any more.

    Args:
        journal: the file that it guards.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal, self._path = journal, journal.with_suffix(".lock")
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            _take_off_part(self._journal)
        except BaseException:
            file.close()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def open_journal(path: Path) -> JournalFileBackend:
    """The journal of a race, made if need be."""
    if "fcntl" not in globals():
        return JournalFileBackend(str(path))
    return JournalFileBackend(str(path), lock_obj=JournalLock(path))


def _take_off_part(path: Path) -> None:
    """Cut a file after its last whole line."""
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end < size:
            file.truncate(end)
