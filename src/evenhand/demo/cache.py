"""The demo's own files in the user's cache folder: written whole or not at all, never trusted when read."""

from __future__ import annotations

import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenhand.output import replacing

Arrays = dict[str, NDArray[Any]]

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error)


def cache_folder() -> Path | None:
    """Folder for evenhand's cached files, or None where the user has no home.

    ``$XDG_CACHE_HOME/evenhand`` if that variable holds an absolute path, else the platform's place:
    ``%LOCALAPPDATA%`` on Windows, ``~/Library/Caches`` on macOS, ``~/.cache`` elsewhere. Nothing is created here.
    """
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA" if sys.platform == "win32" else ""):
        stated = os.environ.get(variable, "") if variable else ""
        if stated and Path(stated).is_absolute():
            return Path(stated) / "evenhand"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "evenhand"


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an uncompressed npz that appears under its name only when it is complete.

    Uncompressed, because logits hardly compress and a reader can map what is stored as it is.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read_arrays(path: Path) -> Arrays | None:
    """Read an npz without unpickling; None if there is no such file or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read_member(archive, name) for name in archive.namelist()}
    except (OSError, ValueError, EOFError, ArithmeticError, RuntimeError, *_DAMAGED):
        return None


def _read_member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return array


def keep(folder: Path | None, name: str, arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Put arrays into the cache; returns None, or one sentence saying why they could not be kept."""
    if folder is None:
        return "There is no home folder, so nothing is cached and the next run starts from the beginning."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / name, arrays)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return f"The cache folder {folder} cannot be written ({reason}), so the next run starts from the beginning."
    return None
