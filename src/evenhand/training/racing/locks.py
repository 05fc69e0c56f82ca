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


class ProcessLock(JournalFileOpenLock):
    """A lock that ends with its process; Optuna's own lock files outlive a kill, and every other process then waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        file = self._path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX)
        self._file = file
        return True

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def open_journal(path: Path) -> JournalFileBackend:
    """The journal; a line that a killed process left half-written is taken off, or the next would be glued to it."""
    if "fcntl" not in globals():
        return JournalFileBackend(str(path))
    lock = ProcessLock(path.with_suffix(".lock"))
    lock.acquire()
    try:
        held = path.read_bytes() if path.exists() else b""
        if held and not held.endswith(b"\n"):
            os.truncate(path, held.rfind(b"\n") + 1)
    finally:
        lock.release()
    return JournalFileBackend(str(path), lock_obj=lock)
