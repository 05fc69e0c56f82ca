"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not.

    The folder is the same so that the last step is a rename, which either happens or does not.

    Raises:
        OSError: naming `path`, when it cannot be written (folder missing, no permission, disk full).
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder does not exist", str(path.parent))
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(_mode(path))
        temporary.replace(path)
        temporary = None
    except OSError as error:
        # A full disk names no file, a failing temporary names itself; the user knows neither.
        # Before there is one, a folder that takes no new files names the temporary file as well.
        own = temporary is None and Path(os.fsdecode(error.filename or "")).name.startswith(f".{path.name[:40]}.")
        if error.filename is None or own or (temporary is not None and str(error.filename) == str(temporary)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """The file's own mode where it exists, else what a plain open() would give (mkstemp makes files private)."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_bytes_atomically(path: PathLike, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        OSError: naming `path`; nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes_atomically(Path(folder, "a.bin"), b"abc")
        ...     Path(folder, "a.bin").read_bytes()
        b'abc'
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text_atomically(path: PathLike, text: str) -> None:
    """`write_bytes_atomically` for text, encoded as UTF-8 with newlines as they are."""
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def save_all(outputs: Mapping[Path, Callable[[Path], object]]) -> None:
    """Let every function write a temporary path with the ending of its file; all files take their places, or none does.

    Raises:
        OSError: naming the file that could not be written.
    """
    with contextlib.ExitStack() as stack:
        for path, save in outputs.items():
            save(stack.enter_context(replacing(path)))


def save_atomically(path: PathLike, save: Callable[[Path], object]) -> None:
    """`save_all` for one file."""
    save_all({Path(path): save})
